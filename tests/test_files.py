"""Runs in a bucket, against one in memory that takes whole objects only, as real ones do."""

import errno
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from tiny_digits import experiment

from gmma.config import ExperimentConfig, config_from_json, config_to_json, job_to_json
from gmma.errors import UserError
from gmma.files import (
    PARTIAL,
    check_bucket,
    check_output,
    lock_of,
    locked,
    move_directory,
    read_json,
    run_path,
    write_whole,
)
from gmma.options.parsing import parse
from gmma.records.checkpoint import checkpoint_steps
from gmma.records.checksums import find_damage, write_checksums
from gmma.records.metrics import open_writer, read_records
from gmma.records.resuming import check_start, save_config


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
    values = json.loads(json.dumps(job_to_json(config)))
    assert values["launch"]["runs_dir"] == "gs://bucket/runs"
    assert config_from_json(values, Path("config.json")) == config


def test_files_of_a_bucket_are_written_whole(run_dir):
    for text in ('{"step": 1}', '{"step": 2}'):
        write_whole(run_dir / "evaluation/after.json", text)
    assert read_json(run_dir / "evaluation/after.json") == {"step": 2}
    assert not [name for name in Bucket.store if name.endswith(PARTIAL)]
    with pytest.raises(UserError, match="does not exist"):
        read_json(run_dir / "nothing.json")


def test_a_bucket_that_nothing_reads_is_refused(run_dir):
    check_bucket(run_dir)
    with pytest.raises(UserError, match=r"nothing reads ftp://"):
        check_bucket(run_path("ftp://a/b"))


def test_a_bucket_whose_package_is_missing_is_refused(monkeypatch):
    def missing(scheme):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(
        UserError, match=r"reads gs:// \(Please install gcsfs\); for gs:// pip inst"
    ):
        check_bucket(run_path("gs://nobody/x"))


def test_an_output_that_can_be_written_leaves_nothing(tmp_path):
    check_output("output", tmp_path / "a/b/c.json")
    check_output("output", tmp_path / "a/b", directory=True)
    check_output("output", tmp_path, directory=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there.json").write_text("kept")
    check_output("output", tmp_path / "there.json")
    assert (tmp_path / "there.json").read_text() == "kept"


def test_an_output_that_cannot_be_written_is_found_before(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    wrong = [
        (tmp_path, False, r"is a directory; give another path for the file"),
        (tmp_path / "file", True, r"is a file; give another path for the directory"),
        (tmp_path / "file/x/y", False, r"file is a file, not a directory"),
        (tmp_path / ("x" * 300), False, r"has 300 bytes; give one of 200"),
        (tmp_path / "a\nb", False, r"must be a path of printable characters"),
        (Path("/proc/nothing"), False, r"cannot be written"),
    ]
    for path, directory, message in wrong:
        with pytest.raises(UserError, match=message):
            check_output("output", path, directory=directory)

    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **where: Full())
    with pytest.raises(UserError, match=r"cannot be written .No space left on device.; make room"):
        check_output("output", tmp_path / "new")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("content", [b"[1]", b"3", b"null", b"{", b"\xff\xfe", b"[" * 100_000])
def test_json_that_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json (is not JSON|holds a JSON)"):
        read_json(tmp_path / "config.json")


def test_a_run_in_a_bucket_is_not_written_over(run_dir):
    config = config_to_json(replace(experiment(), seed=1))
    check_start(run_dir, False, config)
    save_config(run_dir, config)
    check_start(run_dir, True, config)
    with pytest.raises(UserError, match="already holds a run"):
        check_start(run_dir, False, config)
    with pytest.raises(UserError, match="seed was 1, is 2"):
        check_start(run_dir, True, config | {"seed": 2})


def test_a_checkpoint_counts_once_its_mark_is_there(run_dir):
    for step in (3, 6, 9):
        write_whole(run_dir / f"checkpoints/{step}/state/array", "numbers")
    for step in (3, 6):
        write_whole(run_dir / f"checkpoints/{step}/commit_success.txt", "whole")
    assert checkpoint_steps(run_dir) == [3, 6]


def test_a_damaged_checkpoint_of_a_bucket_is_found_and_moved(run_dir):
    where = run_dir / "checkpoints/3"
    for file in ("state/array", "metrics/metrics", "_CHECKPOINT_METADATA"):
        write_whole(where / file, "{}")
    write_whole(where / "progress/metadata", '{"checksums": true}')
    assert find_damage(where) == ["checksums.json is missing"]
    write_checksums(where)
    write_whole(where / "commit_success.txt", "whole")
    write_whole(where / "_CHECKPOINT_METADATA", '{"commit_timestamp_nsecs": 7}')
    assert find_damage(where) == []
    write_whole(where / "state/array", "[]")
    assert find_damage(where) == ["state/array holds other bytes"]
    found = [find_damage(where, share=(index, 3)) for index in range(3)]
    assert sorted(map(len, found)) == [0, 0, 1]  # each host reads a part
    write_whole(run_dir / "checkpoints/5/state/array", "{}")
    before = {name for name in Bucket.store if "/checkpoints/3/" in name}
    move_directory(where, run_dir / "damaged/3")
    assert {name.replace("damaged", "checkpoints") for name in Bucket.store} >= before
    assert checkpoint_steps(run_dir) == []
    assert not [name for name in Bucket.store if "/checkpoints/3/" in name]


def test_a_lock_is_held_by_one_and_named(tmp_path, run_dir):
    assert lock_of(tmp_path) == tmp_path / "lock"
    assert lock_of(run_dir) == lock_of(run_path(str(run_dir))) != lock_of(run_dir / "other")
    for path in (lock_of(tmp_path), tmp_path / "deep/lock"):
        words = rf"process {os.getpid()} on .*lock {path}"
        with (
            locked(path, wait=False),
            pytest.raises(UserError, match=words),
            locked(path, wait=False),
        ):
            pass
        with locked(path, wait=True):
            pass


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
