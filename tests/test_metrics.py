"""Sums and counts, and the files they end in."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import shown_steps

from gmma.records.metrics import (
    compilations,
    compute,
    mean,
    mean_of,
    merge,
    open_writer,
    read_records,
)


def test_merged_metrics_are_the_metric_of_all_values():
    """1, 2, 3 and 5: the mean is 11/4; the mean of the two means would be 3.5."""
    first = {"reward": mean_of(np.float32([1, 2, 3])), "only/first": mean(4, 2)}
    merged = merge(first, {"reward": mean_of(np.float32([5])), "only/second": mean(6, 2)})
    assert compute(merged) == {"only/first": 2.0, "only/second": 3.0, "reward": 2.75}


def test_what_could_not_be_scored_is_in_neither_sum_nor_count():
    metric = mean_of(np.float32([1, np.nan, 0, np.nan]))
    assert (float(metric.total), float(metric.count)) == (1.0, 2.0)


def test_a_metric_that_counted_nothing_is_left_out():
    assert compute({"reward": mean_of(np.float32([np.nan])), "loss": mean(1, 1)}) == {"loss": 1.0}


@pytest.fixture
def written(tmp_path):
    """Steps 0 … 4, written by a run that is then resumed from step 3."""
    with open_writer(tmp_path, before_step=0) as writer:
        for step in range(5):
            writer.write({"step": step, "phase": "rl", "reward": step / 10})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "phase": "rl", "rew')  # the kill
    return tmp_path


def test_a_line_that_a_kill_cut_is_not_read(written):
    found = read_records(written / "metrics.jsonl")
    assert [record["step"] for record in found] == [0, 1, 2, 3, 4]
    assert found[4]["reward"] == 0.4
    assert read_records(written / "nothing.jsonl") == []


def test_a_resumed_run_writes_each_step_once(written):
    with open_writer(written, before_step=3) as writer:
        for step in (3, 4, 5):
            writer.write({"step": step, "phase": "rl", "reward": 1.0})
    lines = (written / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["reward"] for line in lines] == [0.0, 0.1, 0.2, 1.0, 1.0, 1.0]
    assert shown_steps(written, "rl/reward") == [0, 1, 2, 3, 4, 5]


BAD = (
    b"",
    b"nonsense",
    b"[1, 2]",
    b"null",
    b'{"step": 2, "phase": "rl", "reward": ',
    b'{"step": "2", "phase": "rl"}',
    b'{"step": true, "phase": "rl"}',
    b'{"phase": "rl", "reward": 0.2}',
    b'{"step": 2, "phase": "rl", "note": "\xff"}',
    b"\0" * 30,
    b"[" * 200_000,
)


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_bad_line_costs_its_own_step_alone_and_is_kept_beside(written, bad, capsys, caplog):
    """It stands in the place of step 2; the run goes on from step 4."""
    path = written / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[2] = bad
    path.write_bytes(b"\n".join(lines))
    assert [record["step"] for record in read_records(path)] == [0, 1, 3, 4]
    assert bool(caplog.messages) == bool(bad)
    with open_writer(written, before_step=4):
        pass
    assert [record["step"] for record in read_records(path)] == [0, 1, 3]
    said = capsys.readouterr().out
    assert "no record of 1 of the 4 steps before the checkpoint: 2." in said
    beside = written / "metrics.unreadable"
    assert beside.exists() == bool(bad)
    if bad:
        assert beside.read_bytes() == bad + b"\n"
        assert f"in 1 of its lines, first {bad[:60]!r}. They are now in {beside}" in said


def test_a_last_line_without_its_end_is_kept_where_it_is_a_record(written):
    path = written / "metrics.jsonl"
    path.write_bytes(path.read_bytes().rpartition(b"\n")[0])
    assert [record["step"] for record in read_records(path)] == [0, 1, 2, 3, 4]


def test_what_is_flushed_is_in_the_events_file(tmp_path):
    """No thread and no queue in between: a kill right behind a flush loses nothing."""
    with open_writer(tmp_path, before_step=0) as writer:
        for step in range(5):
            writer.write({"step": step, "phase": "sft", "loss": 1.0})
            writer.flush()
            assert shown_steps(tmp_path, "sft/loss") == list(range(step + 1))


def test_figures_that_are_not_finite_are_in_the_records_alone(tmp_path):
    with open_writer(tmp_path, before_step=0) as writer:
        writer.write({"step": 0, "phase": "rl", "loss": float("nan"), "a:b": 1.0, "few": 3})
    assert np.isnan(read_records(tmp_path / "metrics.jsonl")[0]["loss"])
    assert [shown_steps(tmp_path, f"rl/{n}") for n in ("loss", "a_b", "few")] == [[], [0], [0]]


def test_compilations_are_counted():
    double = jax.jit(lambda x: 2 * x)
    before = compilations()
    double(jnp.ones(3))
    after = compilations()
    double(jnp.zeros(3))
    assert after > before
    assert compilations() == after
