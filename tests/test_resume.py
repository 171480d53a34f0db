"""Law L8: a run that was killed and resumed equals one that was not."""

import random
import signal
import time
from functools import partial

import pytest
from tiny_run import (
    assert_same_arrays,
    count_lines,
    open_tiny,
    records,
    saved_arrays,
    shown_steps,
    train_tiny,
    tree_of,
    wait_until,
)

from gmma.preemption import CODE_PREEMPTED

SFT_STEPS, RL_STEPS = 5, 9


def kill_when(child, holds, delay_seconds):
    wait_until(child, holds)
    time.sleep(delay_seconds)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def count_event_files(run_dir):
    return len(list(run_dir.glob("tensorboard/*")))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Killed before a checkpoint, as RL begins, and while RL writes; told to end; resumed."""
    with open_tiny(tmp_path_factory) as (directory, start):
        run_dir, chance = directory / "runs/killed", random.Random(0)
        resume = partial(train_tiny, start, "killed", "--resume")
        kill_when(resume(), lambda: count_lines(run_dir) >= 1, chance.uniform(0, 0.02))
        after_sft = run_dir / "evaluation/after_sft.json"
        kill_when(resume(), after_sft.exists, chance.uniform(0, 1))
        kill_when(resume(), lambda: count_lines(run_dir) > SFT_STEPS, chance.uniform(0, 0.3))
        opened, child = count_event_files(run_dir), resume()
        wait_until(child, lambda: count_event_files(run_dir) > opened)
        child.send(signal.SIGTERM)
        codes = child.wait(), resume().wait()
    return directory, codes


def test_sigterm_ends_a_run_behind_a_checkpoint_with_a_code_of_its_own(killed):
    root, codes = killed
    assert codes == (CODE_PREEMPTED, 0)
    assert "start it again with --resume" in (root / "log.txt").read_text()


def test_a_run_killed_three_times_equals_one_that_was_not(killed):
    whole, other = (killed[0] / "runs" / name for name in ("whole", "killed"))
    assert len(records(whole)) == SFT_STEPS + RL_STEPS
    assert records(other) == records(whole)
    last = SFT_STEPS + RL_STEPS
    assert_same_arrays(saved_arrays(other, last), saved_arrays(whole, last))


def test_a_killed_run_leaves_the_same_files(killed):
    whole, other = (killed[0] / "runs" / name for name in ("whole", "killed"))
    for part in ("samples", "evaluation"):
        assert tree_of(other / part) == tree_of(whole / part)
    assert not list(other.rglob("*.partial"))
    assert not list(other.rglob("*tmp*"))


def test_tensorboard_shows_every_step_once(killed):
    for name in ("whole", "killed"):
        run_dir = killed[0] / "runs" / name
        assert shown_steps(run_dir, "sft/loss") == list(range(SFT_STEPS))
        assert shown_steps(run_dir, "rl/reward") == list(range(SFT_STEPS, SFT_STEPS + RL_STEPS))
