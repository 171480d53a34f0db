"""Runs in a bucket, against one in memory that takes whole objects only, as real ones do."""

import json
from pathlib import Path

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from tiny_digits import experiment

from gmma.checkpoint import check_start, checkpoint_steps, save_config
from gmma.commands import parse
from gmma.config import ExperimentConfig, config_from_json, config_to_json
from gmma.errors import UserError
from gmma.files import PARTIAL, read_json, run_path, write_whole
from gmma.metrics import open_writer, read_records


class Bucket(MemoryFileSystem):
    """What `gs://` leads to here."""

    protocol = ("gcs", "gs")
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("gcs://").removeprefix("gs://"))

    def open(self, path, mode="rb", **options):
        assert "a" not in mode, "an object cannot be appended to"
        return super().open(path, mode, **options)

    def mv(self, *paths, **options):
        raise AssertionError("an object cannot be renamed")


@pytest.fixture
def run_dir(monkeypatch):
    """gs://bucket/runs/tiny, empty."""
    fsspec.register_implementation("gcs", Bucket, clobber=True)  # no test has use for a real one
    monkeypatch.setattr(Bucket, "store", {})
    monkeypatch.setattr(Bucket, "pseudo_dirs", [""])
    return run_path("gs://bucket/runs/tiny")


def test_a_path_with_a_scheme_is_in_a_bucket():
    assert isinstance(run_path("gs://bucket/runs"), epath.Path)
    assert str(run_path("gs://bucket/runs") / "tiny") == "gs://bucket/runs/tiny"
    assert isinstance(run_path("runs/gs"), Path)


def test_a_config_keeps_its_bucket_through_command_line_and_json():
    arguments = ["--runs-dir", "gs://bucket/runs", "--init-from", "gs://bucket/runs/other"]
    config = parse(ExperimentConfig, arguments, prog="gmma train", default=experiment())
    assert str(config.run_dir) == "gs://bucket/runs/tiny"
    values = json.loads(json.dumps(config_to_json(config)))
    assert values["runs_dir"] == "gs://bucket/runs"
    assert config_from_json(values, Path("config.json")) == config


def test_files_of_a_bucket_are_written_whole(run_dir):
    for text in ("1", "2"):
        write_whole(run_dir / "evaluation/after.json", text)
    assert read_json(run_dir / "evaluation/after.json") == 2
    assert not [name for name in Bucket.store if name.endswith(PARTIAL)]
    with pytest.raises(UserError, match="does not exist"):
        read_json(run_dir / "nothing.json")


def test_a_run_in_a_bucket_is_not_written_over(run_dir):
    config = {"seed": 1}
    check_start(run_dir, False, config)
    save_config(run_dir, config)
    check_start(run_dir, True, config)
    with pytest.raises(UserError, match="already holds a run"):
        check_start(run_dir, False, config)
    with pytest.raises(UserError, match="seed was 1, is 2"):
        check_start(run_dir, True, {"seed": 2})


def test_a_checkpoint_counts_once_its_mark_is_there(run_dir):
    for step in (3, 6, 9):
        write_whole(run_dir / f"checkpoints/{step}/state/array", "numbers")
    for step in (3, 6):
        write_whole(run_dir / f"checkpoints/{step}/commit_success.txt", "whole")
    assert checkpoint_steps(run_dir) == [3, 6]


def test_records_reach_the_bucket_when_asked_and_at_the_end(run_dir):
    def record(step, reward):
        return {"step": step, "phase": "rl", "reward": reward}

    path = run_dir / "metrics.jsonl"
    with open_writer(run_dir, before_step=0) as writer:
        writer.write(record(0, 0.5))
        assert read_records(path) == []
        writer.flush()
        assert read_records(path) == [record(0, 0.5)]
        writer.write(record(1, 0.5))
    with open_writer(run_dir, before_step=1) as writer:
        writer.write(record(1, 1.0))
    assert read_records(path) == [record(0, 0.5), record(1, 1.0)]
    assert len(list((run_dir / "tensorboard").iterdir())) == 2
