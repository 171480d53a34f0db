"""Law L8: a run that was killed and resumed equals one that was not."""

import json
import random
import shutil
import signal
import time
from functools import partial

import numpy as np
import pytest
from tiny_run import (
    TINY,
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

from gmma.hardware.preemption import CODE_NOT_FINITE, CODE_PREEMPTED
from gmma.records.checkpoint import checkpoint_steps

SFT_STEPS, RL_STEPS = 5, 9


def kill_when(child, holds, delay_seconds):
    wait_until(child, holds)
    time.sleep(delay_seconds)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def press_when(child, holds):
    """Ctrl-C once the condition holds; the exit code."""
    wait_until(child, holds)
    child.send(signal.SIGINT)
    return child.wait()


def count_event_files(run_dir):
    return len(list(run_dir.glob("tensorboard/*")))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with open_tiny(tmp_path_factory) as opened:
        yield opened


@pytest.fixture(scope="module")
def killed(tiny):
    """Killed before a checkpoint, as RL begins, and while RL writes; told to end; resumed."""
    directory, start = tiny
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


SHORT = 4  # steps of RL, before they are made as many as those of `whole`
OTHERWISE = (
    *("--runs-dir", "moved", "--mesh.data", "1", "--rewards.workers", "1"),
    *("--checkpoint.every-steps", "3", "--stop.unscored-steps", "9"),
)


@pytest.fixture(scope="module")
def pressed(tiny):
    """Ctrl-C within SFT; the end; then moved, lengthened, and the end again.

    From its move on it has all otherwise that changes no number, but the mesh, which is the same.
    """
    directory, start = tiny
    run_dir = directory / "runs/pressed"
    begin = partial(train_tiny, start, "pressed", "--resume", "--rl.steps", str(SHORT))
    codes = [press_when(begin(), lambda: count_lines(run_dir) >= 1), begin().wait()]
    shutil.move(run_dir, directory / "moved/pressed")
    longer = start("train", TINY, "--name", "pressed", "--resume", *OTHERWISE)
    return directory, [*codes, longer.wait()]


def test_sigterm_ends_a_run_behind_a_checkpoint_with_a_code_of_its_own(killed):
    root, codes = killed
    assert codes == (CODE_PREEMPTED, 0)
    assert "start it again with --resume" in (root / "log.txt").read_text()


def test_ctrl_c_ends_a_run_as_sigterm_does(pressed):
    root, codes = pressed
    assert codes == [CODE_PREEMPTED, 0, 0]
    assert "gmma train: Ctrl-C: ended " in (root / "log.txt").read_text()


def test_a_run_may_be_moved_and_lengthened(pressed):
    """Its numbers are those of one that was so long from the start."""
    root, _ = pressed
    moved, whole = root / "moved/pressed", root / "runs/whole"
    assert records(moved) == records(whole)
    last = SFT_STEPS + RL_STEPS
    assert_same_arrays(saved_arrays(moved, last), saved_arrays(whole, last))
    assert tree_of(moved / "samples") == tree_of(whole / "samples")
    kept, made = (tree_of(run / "evaluation") for run in (moved, whole))
    assert kept.pop(f"after_rl_of_{SHORT}_steps.json")
    assert kept == made
    assert json.loads((moved / "config.json").read_text())["rl"]["steps"] == RL_STEPS
    said = (root / "log.txt").read_text()
    assert (
        "resumed with other fields: rl.steps was 4, is 9: the steps that are done stay as they "
        "are. checkpoint.every_steps was 2, is 3; rewards.workers was 0, is 1; "
        "stop.unscored_steps was 5, is 9; mesh.data was -1, is 1; runs_dir was runs, is moved: no "
        "number depends on it, beyond rounding"
    ) in said


MOMENTS = {
    "before the first step": lambda run_dir: (run_dir / "config.json").exists(),
    "as events are opened": lambda run_dir: count_event_files(run_dir) > 0,
    "behind a step of SFT": lambda run_dir: count_lines(run_dir) >= 1,
    "as a checkpoint is written": lambda run_dir: any((run_dir / "checkpoints").glob("2*")),
    "in the midst of SFT": lambda run_dir: count_lines(run_dir) >= 3,
    "as SFT ends": lambda run_dir: SFT_STEPS in checkpoint_steps(run_dir),
    "as RL begins": lambda run_dir: (run_dir / "evaluation/after_sft.json").exists(),
    "behind a step of RL": lambda run_dir: count_lines(run_dir) > SFT_STEPS,
    "in the midst of RL": lambda run_dir: count_lines(run_dir) >= SFT_STEPS + 4,
    "in the last evaluation": lambda run_dir: SFT_STEPS + RL_STEPS in checkpoint_steps(run_dir),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_at_any_moment_costs_nothing(tiny, moment):
    """A checkpoint of all that was recorded, one line, and the same run in the end."""
    directory, start = tiny
    name = moment.replace(" ", "_")
    run_dir, log = directory / "runs" / name, directory / "log.txt"
    before = log.stat().st_size
    code = press_when(train_tiny(start, name), lambda: MOMENTS[moment](run_dir))
    said = log.read_bytes()[before:].decode()
    over = (run_dir / "evaluation/after_rl.json").exists()  # it came too late
    assert code == (0 if over else CODE_PREEMPTED), said
    lines = [line for line in said.splitlines() if "Ctrl-C" in line]
    assert len(lines) == (not over), said
    assert all(line.startswith("gmma train: Ctrl-C: ended ") for line in lines)
    assert max(checkpoint_steps(run_dir), default=0) == count_lines(run_dir)
    assert train_tiny(start, name, "--resume").wait() == 0
    assert_equals_whole(directory, name)
    shutil.rmtree(run_dir)


def assert_equals_whole(directory, name):
    """Records, samples, evaluations and the last checkpoint are those of the run `whole`."""
    whole, other = (directory / "runs" / one for one in ("whole", name))
    assert len(records(whole)) == SFT_STEPS + RL_STEPS
    assert records(other) == records(whole)
    last = SFT_STEPS + RL_STEPS
    assert_same_arrays(saved_arrays(other, last), saved_arrays(whole, last))
    for part in ("samples", "evaluation"):
        assert tree_of(other / part) == tree_of(whole / part)


def test_a_run_killed_three_times_equals_one_that_was_not(killed):
    assert_equals_whole(killed[0], "killed")


def test_a_killed_run_leaves_no_debris(killed):
    other = killed[0] / "runs/killed"
    assert not list(other.rglob("*.partial"))
    assert not list(other.rglob("*tmp*"))


def test_tensorboard_shows_every_step_once(killed):
    for name in ("whole", "killed"):
        run_dir = killed[0] / "runs" / name
        assert shown_steps(run_dir, "sft/loss") == list(range(SFT_STEPS))
        assert shown_steps(run_dir, "rl/reward") == list(range(SFT_STEPS, SFT_STEPS + RL_STEPS))


def damage(run_dir, step):
    """Other bits in the largest file of a checkpoint."""
    files = (path for path in (run_dir / "checkpoints" / str(step)).rglob("*") if path.is_file())
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_and_a_bad_line_cost_a_step_and_its_record(tiny):
    """Then no checkpoint is whole, and nothing is written."""
    directory, start = tiny
    whole, runs = directory / "runs/whole", directory / "damaged"
    run_dir, last = shutil.copytree(whole, runs / "whole"), SFT_STEPS + RL_STEPS
    damage(run_dir, last)
    lines = (run_dir / "metrics.jsonl").read_bytes().split(b"\n")
    lines[3] = b"{"
    (run_dir / "metrics.jsonl").write_bytes(b"\n".join(lines))
    resume = partial(train_tiny, start, "whole", "--resume", "--runs-dir", runs)
    assert resume().wait() == 0
    assert_same_arrays(saved_arrays(run_dir, last), saved_arrays(whole, last))
    assert records(run_dir) == [one for one in records(whole) if one["step"] != 3]
    assert (run_dir / "metrics.unreadable").read_bytes() == b"{\n"
    assert shown_steps(run_dir, "rl/reward") == list(range(SFT_STEPS, last))
    for step in checkpoint_steps(run_dir):
        damage(run_dir, step)
    before = tree_of(run_dir)
    assert resume().wait() == 2
    assert tree_of(run_dir).keys() - before.keys() <= {"lock"}
    said = (directory / "log.txt").read_text()
    assert f"checkpoint {last} of {run_dir} is damaged" in said
    assert f"no checkpoint of {run_dir} is whole" in said


def test_of_two_that_resume_one_run_the_second_is_refused(tiny):
    directory, start = tiny
    train = partial(train_tiny, start, "twice", "--resume", "--rl.steps", "100000")
    first = train()
    wait_until(first, lambda: count_lines(directory / "runs/twice") >= 1)
    assert train().wait() == 2
    wait_until(first, lambda: count_lines(directory / "runs/twice") > SFT_STEPS)
    first.send(signal.SIGINT)
    assert first.wait() == CODE_PREEMPTED
    assert "is at work here" in (directory / "log.txt").read_text()
    lines = (directory / "runs/twice/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(len(lines)))


def test_a_run_that_is_not_finite_ends_with_a_code_of_its_own(tiny):
    directory, start = tiny
    assert train_tiny(start, "nan", "--sft.optimizer.learning-rate", "1e30").wait() == (
        CODE_NOT_FINITE
    )
    assert "Nothing that is not finite was saved" in (directory / "log.txt").read_text()
    for step in checkpoint_steps(directory / "runs/nan"):
        arrays = saved_arrays(directory / "runs/nan", step).values()
        assert all(np.isfinite(array).all() for array in arrays)
