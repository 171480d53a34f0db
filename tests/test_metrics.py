"""Sums and counts, and the files they end in."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import shown_steps

from gmma.metrics import compilations, compute, mean, mean_of, merge, open_writer, read_records


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


def test_compilations_are_counted():
    double = jax.jit(lambda x: 2 * x)
    before = compilations()
    double(jnp.ones(3))
    after = compilations()
    double(jnp.zeros(3))
    assert after > before
    assert compilations() == after
