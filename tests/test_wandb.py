"""Weights & Biases: what the real package writes offline is what the run's own files hold."""

import json
import struct
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny_digits import experiment

from gmma.config import LaunchConfig, WandbConfig
from gmma.errors import UserError
from gmma.records import wandb_run
from gmma.records.metrics import SILENT, curves, join_writers
from gmma.records.wandb_run import check_wandb, open_wandb, own_id, warning_once

ROWS = [("Where is the 7?", "7 at 1, 2", "[1, 2, 9, 10]", 0.5), ("Where?", "hm", "no <tag", None)]


def config_in(folder, name="made/up", **chosen):
    launch = LaunchConfig(
        runs_dir=folder, wandb=WandbConfig(project="tried", mode="offline", **chosen)
    )
    return replace(experiment(), name=name, launch=launch)


def record(step):
    figures = {"reward": step / 10, "loss": float("nan"), "clock/time": 1e9}
    return {"step": step, "phase": "rl", **figures}


def read_log(path):
    """The payloads of a W&B file: LevelDB's log in blocks of 32 KiB behind 7 bytes of a header."""
    data, at, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # no room for a header: the block is filled up
            at += 2**15 - at % 2**15
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or a last part
            yield parts
            parts = b""


def history_of(path):
    """What was logged, step by step, as the package's own messages read it."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for payload in read_log(path):
        message = Record.FromString(payload)
        if message.HasField("history"):
            items = message.history.item
            logged = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items}
            found.append({name: v for name, v in logged.items() if not name.startswith("_")})
    return found


def test_nothing_is_asked_of_it_where_no_project_is_given(monkeypatch):
    monkeypatch.setattr(wandb_run, "find_spec", lambda name: None)
    check_wandb(WandbConfig())
    with pytest.raises(UserError, match=r"wandb is not installed; pip install .gmma\[wandb\]"):
        check_wandb(WandbConfig(project="tried"))
    with pytest.raises(UserError, match=r"wandb.project = ''; it must be a name"):
        WandbConfig(project="")


def test_a_failure_is_a_warning_and_training_goes_on(capsys):
    calls = []

    def log(value):
        calls.append(value)
        raise ConnectionError("the service is gone")

    send = warning_once(log)
    send(1)
    send(2)
    assert calls == [1]
    assert capsys.readouterr().err.count("gets nothing more of this run") == 1


def test_a_record_goes_to_every_writer():
    got = []
    keep = replace(SILENT, write=got.append, completions=lambda step, rows: got.append(rows))
    both = join_writers([keep, keep])
    both.write({"step": 1})
    both.completions(1, ROWS)
    both.flush()
    assert got == [{"step": 1}, {"step": 1}, ROWS, ROWS]


def test_a_run_keeps_its_id(tmp_path):
    tmp_path.joinpath("wandb.json").write_text('{"id": "chosen1"}')
    assert own_id(tmp_path) == "chosen1"
    (tmp_path / "other").mkdir()
    assert own_id(tmp_path / "other") == own_id(tmp_path / "other") != own_id(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Steps 0 … 2 with a table, then the run resumed from step 2: W&B's files, in order."""
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'gmma[wandb]'")
    config = config_in(tmp_path_factory.mktemp("wandb"))
    config.run_dir.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        for steps in ((0, 1, 2), (2, 3)):
            with open_wandb(config) as writer:
                for step in steps:
                    writer.write(record(step))
                    if step == 1:
                        writer.completions(step, ROWS)
            time.sleep(1.1)  # W&B names a folder by the second
    found = sorted(config.run_dir.glob("wandb/offline-run-*/*.wandb"))
    return SimpleNamespace(config=config, files=found)


def test_every_figure_arrives_with_its_step(written):
    first, second = (history_of(path) for path in written.files)
    expected = [{"step": step, **curves(record(step))} for step in (0, 1, 2)]
    assert [one for one in first if "completions/path" not in one] == expected
    assert expected[1] == {"step": 1, "rl/reward": 0.1}  # neither NaN nor the clock
    assert [one["step"] for one in second] == [2, 3]


def test_the_resumed_run_is_the_same_one(written):
    (name,) = {path.stem for path in written.files}
    assert name == f"run-{own_id(written.config.run_dir)}"


def test_completions_are_a_table(written):
    (logged,) = [one for one in history_of(written.files[0]) if "completions/path" in one]
    assert (logged["step"], logged["completions/_type"]) == (1, "table-file")
    path = written.files[0].parent / "files" / logged["completions/path"]
    table = json.loads(path.read_text())
    assert table["columns"] == ["step", "prompt", "thought", "answer", "reward"]
    assert table["data"] == [[1, *row] for row in ROWS]


def test_the_project_and_the_group_are_told(written):
    from wandb.proto.wandb_internal_pb2 import Record

    messages = map(Record.FromString, read_log(written.files[0]))
    (run,) = [message.run for message in messages if message.HasField("run")][:1]
    assert (run.project, run.display_name, run.run_group) == ("tried", "made/up", "made")
    told = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert told["tree"]["answers"] == experiment().tree.answers
