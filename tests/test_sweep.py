"""Sweeps: the expression, the runs it means, the queue, and what is said of the results."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_sweep
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gmma.config import ExperimentConfig, HostsConfig, config_to_json, with_launch
from gmma.errors import UserError
from gmma.hardware.preemption import CODE_PREEMPTED, Preempted
from gmma.options.changes import changed
from gmma.records.resuming import save_config
from gmma.run.evaluate import Evaluation, save_evaluation
from gmma.run.feed import demonstration_seed
from gmma.run.summary import evaluation_path
from gmma.sweep import queue as sweep_queue
from gmma.sweep import results as sweep_results
from gmma.sweep.arms import (
    START,
    Arm,
    Sweep,
    arm,
    chain,
    product,
    sweep_runs,
    trees,
    vary,
    with_seeds,
    zipped,
)
from gmma.sweep.command import load_sweep, repeating, sweep_command
from gmma.sweep.queue import Share, own_share, run_queue
from gmma.sweep.results import (
    BUDGETS,
    RunResult,
    arm_record,
    at_budget,
    compare,
    read_run,
    sweep_record,
    with_least_seconds,
)
from gmma.sweep.tables import sweep_markdown

ROOT = Path(__file__).resolve().parent.parent
axes = st.lists(
    st.tuples(st.sampled_from(["a.b", "a.c", "d"]), st.integers(0, 9)), min_size=1, max_size=4
).map(lambda found: tuple(Arm(label=f"{n}={v}", changes={n: v}) for n, v in found))


@given(axes, axes, axes)
def test_products_and_chains_associate_and_count(a, b, c):
    assert product(product(a, b), c) == product(a, product(b, c)) == product(a, b, c)
    assert chain(chain(a, b), c) == chain(a, chain(b, c))
    assert len(product(a, b)) == len(a) * len(b)
    assert product(chain(a, b), c) == chain(product(a, c), product(b, c))


@given(axes, axes)
def test_products_keep_the_seeds_of_one_factor(a, b):
    assert {part.seeds for part in product(with_seeds(a, 2), b)} == {(0, 1)}
    assert product(with_seeds(a, 2), with_seeds(b, 2)) == with_seeds(product(a, b), 2)
    with pytest.raises(UserError, match="seeds of their own"):
        product(a, with_seeds(a, 2), with_seeds(b, 3))


@given(axes)
def test_zipped_axes_change_both(a):
    twice = zipped(a, vary("seed", *range(len(a))))
    assert [part.changes for part in twice] == [
        {**part.changes, "seed": at} for at, part in enumerate(a)
    ]
    with pytest.raises(UserError, match="as many to each"):
        zipped(a, (*a, *a))


def test_fields_change_together():
    """GRPO wants one answer: neither change is valid alone."""
    base = tiny_sweep.sweep().base
    found = changed(base, {"objective.algorithm": "grpo", "tree.answers": 1, "rl.steps": 7})
    assert (found.objective.algorithm, found.tree.answers, found.rl.steps) == ("grpo", 1, 7)
    assert changed(found, {"objective": base.objective, "tree": base.tree, "rl": base.rl}) == base


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda base: changed(base, {"tree.answer": 1}), r"no field tree\.answer .*answers"),
        (lambda base: changed(base, {"tree.answers.x": 1}), r"no field tree\.answers\.x"),
        (lambda base: trees("4x4"), "of the form T4A4"),
        (lambda base: Sweep(name="s", base=base, arms=()), "one arm or more"),
        (lambda base: Sweep(name="s", base=base, arms=trees("T2A2", "T2A2")), "T2A2"),
        (
            lambda base: Sweep(
                name="s", base=base, arms=trees("T2A2"), comparisons=(("T2A2", "T9A9"),)
            ),
            "T9A9.*one of T2A2",
        ),
        (
            lambda base: Sweep(name="s", base=base, arms=vary("seed", 1, 2)),
            "= seed; .*a sweep sets",
        ),
        (lambda base: Sweep(name="s", base=base, arms=arm(START)), "the SFT's own"),
        (
            lambda base: Sweep(name="s", base=base, arms=trees("T2A2"), metric="mean/iou"),
            "sweep.metric = mean/iou",
        ),
        (lambda base: runs_of(base, arm("longer", rl__steps=10)), "= 3 does not divide its 10"),
        (lambda base: runs_of(base, arm("blind", evaluation__every_steps=0)), "= 0 does not"),
        (lambda base: runs_of(base, arm("none", rl__steps=0, sft__steps=0)), "none: steps = 0"),
        (
            lambda base: runs_of(base, vary("objective.beta", -0.0, 0.0)),
            "'beta=-0.0' and 'beta=0.0' would both write",
        ),
        (
            lambda base: runs_of(base, arm("many", launch__hosts=HostsConfig(join="slice"))),
            "hosts.join = slice.*--share",
        ),
        (
            lambda base: runs_of(
                changed(base, {"sft.steps": 0}), arm("SFT", rl__steps=0, sft__steps=3)
            ),
            "SFT: sft.steps = 3; it must be 0",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make(tiny_sweep.sweep().base)


def runs_of(base, arms):
    return sweep_runs(Sweep(name="s", base=base, arms=arms))


def test_without_an_sft_runs_go_from_where_the_base_does(tmp_path):
    base = changed(tiny_sweep.sweep().base, {"sft.steps": 0, "init_from": tmp_path})
    runs = runs_of(base, trees("T2A2"))
    assert [run.config.name for run in runs] == ["T2A2_seed0", "T2A2_seed1", "T2A2_seed2"]
    assert {(run.start, run.config.init_from) for run in runs} == {(None, tmp_path)}
    assert all(sweep_queue.can_start(run) for run in runs)


def test_sft_behind_another_run_has_demonstrations_of_its_own():
    base = tiny_sweep.sweep().base
    on = arm("SFT", rl__steps=0, sft__steps=3)
    start, run = (one.config for one in runs_of(base, on) if one.seed == 1)
    assert demonstration_seed(start) == 1
    assert demonstration_seed(run) != 1
    assert demonstration_seed(run) == demonstration_seed(replace(run, name="again"))


def test_runs_of_a_seed_share_their_start():
    sweep = tiny_sweep.sweep()
    arms = chain(
        with_seeds(trees("T2A2", "T4A1"), 3),
        arm("SFT", rl__steps=0, sft__steps=6),
        arm("8 bits", rollout_weights="int8", objective__importance_cap=2.0),
        arm("wider", model__width=32),
    )
    runs = sweep_runs(replace(sweep, arms=arms, seeds=(0,), comparisons=()))
    starts = [run for run in runs if run.arm == START]
    names = [run.config.name for run in starts]
    assert sorted(names) == ["start2_seed0", "start_seed0", "start_seed1", "start_seed2"]
    assert all(run.config.rl.steps == 0 and run.config.init_from is None for run in starts)
    directories = [run.config.run_dir for run in runs]
    assert len(set(directories)) == len(runs) == 4 + 3 + 3 + 1 + 1 + 1
    for run in runs[len(starts) :]:
        assert run.config.init_from in [start.config.run_dir for start in starts]
        assert run.config.seed == run.seed
        assert (run.config.sft.steps == 6) == (run.arm == "SFT")
        assert run.start == run.config.init_from
        assert run.config.sft.steps == 0 or run.config.rl.steps == 0
    wider = next(run for run in runs if run.arm == "wider")
    assert wider.config.init_from.name == "start2_seed0"


def test_every_sweep_of_the_experiments_has_valid_runs():
    paths = [p for p in (ROOT / "experiments").glob("*.py") if "def sweep(" in p.read_text()]
    assert paths
    for path in paths:
        runs = sweep_runs(load_sweep(path, [])[0])
        assert len({run.config.run_dir for run in runs}) == len(runs)
        assert all(isinstance(run.config, ExperimentConfig) for run in runs)


def test_rollouts_are_compared_on_a_ported_model_too(tmp_path):
    sweep = load_sweep(ROOT / "experiments/rollouts.py", ["--on-scenes", str(tmp_path / "small")])[
        0
    ]
    assert sweep.base.model.directory == tmp_path / "small"
    assert len(sweep_runs(sweep)) == 3 + 6


def test_a_sweep_has_parameters_beside_its_options(tmp_path):
    sweep_file = tmp_path / "tiny_widths.py"
    sweep_file.write_text(
        f"import sys; sys.path.append({str(ROOT / 'tests')!r})\n"
        "from tiny_sweep import sweep as tiny\n"
        "from dataclasses import replace\n"
        "def sweep(seeds: int = 1): return replace(tiny(), seeds=tuple(range(seeds)))\n"
    )
    words = ["--seeds", "2", "--workers", "4", "--rl.steps", "7"]
    sweep, given = load_sweep(sweep_file, words)
    assert (len(sweep.seeds), given.workers, sweep.base.rl.steps) == (2, 4, 7)
    sweep_file.write_text("def sweep(workers: int = 3): return 1")
    with pytest.raises(UserError, match="returned int, not a Sweep"):
        load_sweep(sweep_file, words[2:])
    sweep_file.write_text(
        "from tiny_sweep import sweep as tiny\ndef sweep(workers: int = 3): return tiny()"
    )
    with pytest.raises(UserError, match=r"the parameter 'workers' of sweep.. has the name of"):
        load_sweep(sweep_file, words[2:])


# The queue, with processes that write what a run would leave.


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """(sweep, runs, started): a run of this queue takes no time, and what was started is noted."""
    sweep = tiny_sweep.sweep()
    base = with_launch(sweep.base, runs_dir=tmp_path)
    sweep = replace(sweep, base=base, seeds=(0, 1))
    started = []

    def start(sweep, run, workers):
        started.append(run.config.name)
        done = evaluation_path(run.config, run.moment)
        written = Evaluation(split="test", values={"sampled": {"iou": [0.5]}})
        code = codes.get(run.config.name, 0)
        save_config(run.config.run_dir, config_to_json(run.config))
        if code == 0:
            save_evaluation(done, written)
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])

    codes = {}
    monkeypatch.setattr(sweep_queue, "start", start)
    return sweep, sweep_runs(sweep), started, codes


def test_the_queue_starts_each_run_once_and_starts_first(quick):
    sweep, runs, started, _ = quick
    assert run_queue(sweep, runs, 3, Share(index=0, count=1)) == []
    assert sorted(started) == sorted(run.config.name for run in runs)
    for run in runs[2:]:
        origin = run.config.init_from.name
        assert started.index(origin) < started.index(run.config.name)
    assert run_queue(sweep, runs, 3, Share(index=0, count=1)) == []
    assert len(started) == len(runs)  # all were done
    steps = 2 * sweep.base.rl.steps
    longer = sweep_runs(replace(sweep, base=changed(sweep.base, {"rl.steps": steps})))
    assert run_queue(sweep, longer, 3, Share(index=0, count=1)) == []
    gone_on = [run.config.name for run in longer if run.config.rl.steps == steps]
    assert sorted(started[len(runs) :]) == sorted(gone_on)
    assert gone_on


def test_shares_divide_the_runs_and_wait_for_each_other_s_starts(quick, capsys):
    sweep, runs, started, _ = quick
    first, second = (own_share(runs, Share(index=index, count=2)) for index in (0, 1))
    assert {*first, *second} == {*runs}
    assert len(first) + len(second) == len(runs)
    awaited = next(run for run in second if run.arm == START)

    def appears(process, sleep=sweep_queue.time.sleep):  # as if the other share had trained it
        save_config(awaited.config.run_dir, config_to_json(awaited.config))
        done = evaluation_path(awaited.config, "sft")
        save_evaluation(done, Evaluation(split="test", values={"sampled": {"iou": [0.5]}}))
        sleep(0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_queue.time, "sleep", appears)
        run_queue(sweep, runs, 1, Share(index=0, count=2))
    assert sorted(started) == sorted(run.config.name for run in first)
    assert f"waiting for {awaited.config.name}, which other shares train" in capsys.readouterr().out


def test_what_fails_is_said_and_the_rest_goes_on(quick):
    sweep, runs, started, codes = quick
    codes["start_seed1"] = 1
    failed = run_queue(sweep, runs, 2, Share(index=0, count=1))
    names = {run.config.name for run in failed}
    assert names == {"start_seed1", "T2A2_seed1", "T2A1_seed1"}
    assert sorted(started) == ["T2A1_seed0", "T2A2_seed0", "start_seed0", "start_seed1"]
    codes.clear()
    assert run_queue(sweep, runs, 2, Share(index=0, count=1)) == []


def test_a_preempted_run_ends_the_queue(quick):
    sweep, runs, _, codes = quick
    codes["start_seed0"] = CODE_PREEMPTED
    with pytest.raises(Preempted):
        run_queue(sweep, runs, 1, Share(index=0, count=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sweep", "options"), [("tiny_sweep", ["--workers", "2"]), ("tiny_grid", ["--one-program"])]
)
def test_a_sweep_killed_at_random_gives_the_same_table(sweep, options, tmp_path):
    """Acceptance of the queue and of grids: kill -9 at random moments, start again, the same
    figures.
    """

    def figures(name, kills):
        command = [sys.executable, "-m", "gmma", "sweep", str(ROOT / f"tests/{sweep}.py")]
        command += [*options, "--runs-dir", str(tmp_path / name)]
        command += ["--data-dir", str(tmp_path / "data")]
        moments = random.Random(0)
        for _ in range(kills):
            child = subprocess.Popen(command, cwd=ROOT)
            time.sleep(moments.uniform(3, 25))
            child.send_signal(signal.SIGKILL)
            child.wait()
        subprocess.run(command, cwd=ROOT, check=True)
        record = json.loads((tmp_path / name / sweep / "sweep.json").read_text())
        for part in record["arms"]:
            for clocked in ("seconds", "step_seconds", "means", "standard_errors"):
                del part[clocked]
            for point in part["curve"]:
                del point["seconds"]
        record["comparisons"] = [c for c in record["comparisons"] if c["budget"] != "seconds"]
        return record["arms"], record["comparisons"]

    assert figures("straight", 0) == figures("killed", 4)


# What is said of results.


def result(seed, quality, step_cost, steps=8):
    """A run whose every example has quality `quality(step)`, `step_cost` units spent a step."""
    at = np.arange(0, steps + 1, 2)
    validation = np.asarray([[quality(step)] * 6 for step in at], float)
    spent = at * float(step_cost)
    return RunResult(
        seed=seed,
        final=validation[-1],
        before=validation[0],
        steps=at,
        validation=validation,
        costs={"steps": at.astype(float)} | dict.fromkeys(BUDGETS[1:], spent),
        spike_scores=np.ones(steps),
        means={"grad_norm": 1.0},
    )


@given(st.floats(0, 20), st.floats(0.1, 5))
def test_quality_at_a_budget_is_linear_between_validations(budget, cost):
    run = result(0, lambda step: step, cost)
    expected = min(budget / cost, 8.0)
    np.testing.assert_allclose(at_budget(run, "tokens", budget), expected, atol=1e-9)


def test_equal_budgets_are_those_that_both_arms_reach():
    """The second spends twice as much a step: at equal tokens it has taken half the steps."""
    first = [result(seed, lambda step: step / 10, 1) for seed in range(3)]
    second = [result(seed, lambda step: step / 10, 2) for seed in range(1, 4)]
    found = {c["budget"]: c for c in compare(("a", "b"), {"a": first, "b": second})}
    mean, low, high = found["end"]["difference"]
    assert mean == pytest.approx(0)
    assert low < 0 < high
    assert found["end"]["verdict"] == "no difference shown"
    assert found["tokens"]["at"] == 8
    assert found["tokens"]["difference"] == pytest.approx([0.4] * 3, abs=0.3)
    assert found["tokens"]["verdict"] == "a is higher than b by 0.400"
    assert {c["seeds"] for c in found.values()} == {2}


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_spikes_are_compared_over_the_steps_that_both_took(seeds, seed):
    """By Student's t over seeds; a norm that is not finite has no score."""
    random_numbers = np.random.default_rng(seed)
    scores = random_numbers.uniform(1, 9, (2, seeds, 6))
    scores[:, :, 1] = np.nan
    first, second = (
        [replace(result(s, float, 1), spike_scores=own[s]) for s in range(seeds)] for own in scores
    )
    longer = [replace(run, spike_scores=np.append(run.spike_scores, 99.0)) for run in second]
    found = compare(("a", "b"), {"a": first, "b": longer})[-1]
    peaks = np.nanmax(scores[0], axis=1) - np.nanmax(scores[1], axis=1)
    expected = stats.ttest_1samp(peaks, 0).confidence_interval(0.95)
    np.testing.assert_allclose(found["difference"], [peaks.mean(), *expected], rtol=1e-6)
    differs = expected.low > 0 or expected.high < 0
    assert (found["verdict"] == "no difference shown") == (not differs)


def test_an_arm_counts_what_is_not_finite_apart_from_spikes():
    sweep = tiny_sweep.sweep()
    run = replace(result(0, float, 1), spike_scores=np.array([1.0, np.nan, 12.0, 3.0]))
    found = arm_record(sweep, sweep.arms[0], [run])
    assert (found["spikes"], found["max_spike_score"], found["not_finite"]) == (1, 12, 1)


def test_one_seed_gives_no_verdict():
    one, other = (result(0, lambda step, up=up: step + up, 1) for up in (0, 5))
    assert {c["verdict"] for c in compare(("a", "b"), {"a": [one], "b": [other]})} == {
        "one seed: no verdict"
    }


def test_an_arm_takes_the_seconds_of_its_fastest_seed():
    slow, fast = (result(seed, lambda step: step, cost) for seed, cost in ((0, 3), (1, 2)))
    found = with_least_seconds([slow, fast])
    assert [run.costs["seconds"][-1] for run in found] == [16, 16]
    assert [run.costs["tokens"][-1] for run in found] == [24, 16]
    assert with_least_seconds([]) == []


def test_the_page_of_a_sweep_has_every_arm_pair_and_verdict():
    sweep = tiny_sweep.sweep()
    first, second = sweep.arms[:2]
    results = {
        part.label: [result(seed, lambda step, up=up: step + up, 1) for seed in range(3)]
        for part, up in ((first, 0), (second, 5))
    }
    record = {"name": "a|b", "command": "gmma sweep x", "metric": "sampled/iou", "runs": []}
    record["arms"] = [arm_record(sweep, part, results[part.label]) for part in (first, second)]
    record["comparisons"] = compare((first.label, second.label), results)
    lines = sweep_markdown(record).splitlines()
    assert [line for line in lines if line.startswith(f"| {second.label} | 3 | 13.000 [")]
    tables = [line for line in lines if line.startswith(f"| {first.label} − {second.label} | ")]
    assert len(tables) == 1 + len(record["comparisons"])
    assert "-5.000 [-5.000, -5.000]" in tables[0]
    assert f"{first.label} is lower than {second.label} by 5.000" in tables[1]
    widths = {line.count(" | ") for line in tables[1:]}
    assert len(widths) == 1
    assert "    gmma sweep x" in lines


def test_the_record_of_an_unfinished_sweep_holds_what_is_done(quick):
    sweep, runs, _, _ = quick
    record = sweep_record(sweep, runs, "gmma sweep x")
    assert (record["arms"], record["comparisons"]) == ([], [])
    assert {run["done"] for run in record["runs"]} == {False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which experiment"),
        ([str(ROOT / "experiments/digits.py")], r"no function sweep\(\)"),
        ([str(ROOT / "tests/tiny_sweep.py"), "--share", "2/2"], "INDEX/COUNT"),
        ([str(ROOT / "tests/tiny_sweep.py"), "--seed", "3"], "--seed has no effect"),
        ([str(ROOT / "tests/tiny_sweep.py"), "--name", "x"], "--name has no effect"),
        ([str(ROOT / "tests/tiny_sweep.py"), "--results"], "no run of .* is done yet"),
    ],
)
def test_a_wrong_command_is_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        sweep_command(arguments)


@pytest.mark.parametrize("flag", ["--results", "--dry-run"])
def test_runs_of_another_config_are_not_shown_as_those_of_this_one(quick, flag, monkeypatch):
    sweep, runs, *_ = quick
    run_queue(sweep, runs, 1, Share(index=0, count=1))
    monkeypatch.setattr("gmma.sweep.command.make_sweep", lambda *_: sweep)
    wanted = [str(ROOT / "tests/tiny_sweep.py"), flag, "--rl.optimizer.learning-rate", "0.5"]
    with pytest.raises(UserError, match=r"started with another config.*learning_rate"):
        sweep_command(wanted)


def test_what_a_run_lacks_is_said(quick):
    sweep, runs, *_ = quick
    run_queue(sweep, runs, 1, Share(index=0, count=1))
    last = runs[-1]
    (last.config.run_dir / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"after_rl_step_000000\.json is missing"):
        read_run(last, ("sampled", "iou"))
    with pytest.raises(UserError, match="sampled/ioi; the task has iou"):
        sweep_results.of_evaluation(evaluation_path(last.config, "rl"), ("sampled", "ioi"))


def test_the_command_that_is_kept_is_the_one_that_goes_on():
    given_arguments = ["x.py", "--share", "1/2", "--results", "--workers", "2", "--share=0/2"]
    given_arguments += ["--results", "False"]
    assert repeating(given_arguments) == "gmma sweep x.py --workers 2"


def test_a_dry_run_lists_the_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep_command([str(ROOT / "tests/tiny_sweep.py"), "--dry-run"])
    printed = capsys.readouterr().out
    assert len(re.findall(r"^to do", printed, re.MULTILINE)) == 3
    assert not list(tmp_path.iterdir())
