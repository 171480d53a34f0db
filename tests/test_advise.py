"""`gmma advise`: moments of credit, gradients, seconds, the order of a sweep, and the command."""

import itertools
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_digits
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tiny_run import open_tiny

from gmma import cli
from gmma.advise import command
from gmma.advise import probe as probing
from gmma.advise import seconds as timing
from gmma.advise.advice import Advice, predict
from gmma.advise.against import hold_against, print_agreement, read_sweep
from gmma.advise.command import check_advisable, shape_of
from gmma.advise.prediction import (
    Scores,
    SegmentScores,
    credit_trees,
    signal_to_noise,
    step_gains,
)
from gmma.advise.seconds import StepSeconds, fit_plane, plan_seconds, probe_shapes
from gmma.config import LaunchConfig, ObjectiveConfig, RLConfig
from gmma.errors import UserError
from gmma.hardware.sharding import put_batch
from gmma.records.metrics import compute
from gmma.run.assembly import assemble, run_scorer
from gmma.run.feed import read_examples
from gmma.run.programs import credit
from gmma.run.reward_pool import RewardPool
from gmma.run.state import first_params
from gmma.types import Advantages

RESULTS = Path(__file__).parents[1] / "docs/results.md"
RULES = ("grpo_ma", "leaf", "td", "loo", "treerl", "treepo")
ONE_BATCH = RLConfig(steps=1, batch_prompts=8)


def rule(**objective):
    return partial(credit, objective=ObjectiveConfig(**objective))


def credited(pool, thoughts, answers, counted=None, **objective):
    """The moments of one shape, every answer counted unless said."""
    pool = jnp.asarray(pool, jnp.float32)
    held = jnp.ones(pool.shape, bool) if counted is None else jnp.asarray(counted)
    own = rule(**objective)
    return credit_trees(pool, held, thoughts=thoughts, answers=answers, rule=own)


def even_scores(*, whole=0.0, answer_power=1.0, divisors=(1.0, 1.0)):
    """Scores of one size, and of gradients as large as that makes them where `whole` is 0."""

    def segment(power, divisor):
        return SegmentScores(power=np.asarray([power]), weight=1.0, divisor=divisor)

    return Scores(
        thought=segment(1.0, divisors[0]),
        answer=segment(answer_power, divisors[1]),
        whole=np.asarray([whole]),
    )


def gaussian_pool(rng, prompts, between, within, thoughts=16, answers=16):
    """Rewards with given variances between thoughts and within them; prompts differ, too."""
    prompt = rng.normal(size=(prompts, 1, 1))
    worth = prompt + rng.normal(scale=between**0.5, size=(prompts, thoughts, 1))
    return worth + rng.normal(scale=within**0.5, size=(prompts, thoughts, answers))


@pytest.mark.parametrize(("thoughts", "answers"), [(4, 1), (4, 4), (8, 2), (16, 8), (3, 5)])
def test_moments_are_those_of_the_equations(thoughts, answers):
    """Without a divisor every moment has a closed form in the two variances."""
    between, within = 0.5, 2.0
    pool = gaussian_pool(np.random.default_rng(thoughts), 4000, between, within)
    found = credited(pool, thoughts, answers, scale_rewards="none")
    of_thoughts, of_leaves = 1 - 1 / thoughts, 1 - 1 / (thoughts * answers)
    expected = {
        "thought_signal": of_thoughts * between,
        "thought_power": of_thoughts * (between + within / answers),
        "answer_signal": of_leaves * within,
        "answer_power": of_thoughts * between + of_leaves * within,
    }
    for name, value in expected.items():
        assert getattr(found, name).mean() == pytest.approx(value, rel=0.06), name
    assert found.dead.max() == 0
    noise = signal_to_noise(found, (thoughts, answers))
    reliability = between / (between + within / answers)  # Spearman and Brown
    assert noise["thought"] == pytest.approx((thoughts - 1) * between * reliability, rel=0.12)


def test_trees_of_sparse_rewards_die_as_often_as_they_do():
    """One chance of success for all: a tree is dead with p^n + (1 − p)^n."""
    pool = np.random.default_rng(0).random((4000, 8, 8)) < 0.1
    found = credited(pool, 4, 2)
    assert found.dead.mean() == pytest.approx(0.1**8 + 0.9**8, abs=0.01)
    assert found.thought_signal.mean() == pytest.approx(0, abs=0.003)  # thoughts do not differ
    assert found.answer_signal.mean() > 0.02


@settings(max_examples=20)
@given(
    st.integers(0, 2**31 - 1),
    st.sampled_from(RULES),
    st.sampled_from(["group", "batch", "none"]),
)
def test_what_does_not_count_moves_nothing(seed, name, scale):
    """Rewards that do not count can be anything, in every rule and scale."""
    rng = np.random.default_rng(seed)
    pool, counted = rng.normal(size=(3, 4, 5)), rng.random((3, 4, 5)) < 0.7
    other = np.where(counted, pool, 100.0)
    options = {"credit": name, "scale_rewards": scale, "counted": counted}
    first, second = (credited(own, 2, 2, **options) for own in (pool, other))
    for moment in ("thought_signal", "answer_signal", "thought_power", "answer_power", "dead"):
        np.testing.assert_array_equal(getattr(first, moment), getattr(second, moment))


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1), st.sampled_from(RULES))
def test_rewards_that_never_differ_gain_nothing(seed, name):
    values = np.random.default_rng(seed).normal(size=(2, 1, 1))
    pool = np.broadcast_to(values, (2, 4, 3))
    found = {shape: credited(pool, *shape, credit=name) for shape in ((4, 1), (4, 2))}
    assert found[4, 2].dead.tolist() == [1, 1]
    assert {float(gain) for gain in step_gains(found, (4, 2), even_scores()).values()} == {0.0}
    assert set(map(float, signal_to_noise(found[4, 2], (4, 2)).values())) == {0.0}
    seconds = dict.fromkeys(found, StepSeconds(rollout=1.0, rest=1.0))
    with pytest.raises(UserError, match="no gain shows in 2 prompts"):
        predict(found, (4, 2), even_scores(), seconds, ONE_BATCH)


def test_a_segment_without_weight_has_no_part():
    """Then its scores, of any size, change nothing; and a weight of two scales its two sides."""
    pool = gaussian_pool(np.random.default_rng(1), 50, 1.0, 1.0)
    found = {(4, 4): credited(pool, 4, 4)}

    def gain(thought, answer):
        scores = Scores(thought=thought, answer=answer, whole=np.zeros(1))
        return step_gains(found, (4, 4), scores)[4, 4]

    def segment(power, weight):
        return SegmentScores(power=np.asarray([power]), weight=weight, divisor=3.0)

    alone = gain(segment(1.0, 1.0), segment(0.0, 0.0))
    assert alone == gain(segment(1.0, 1.0), segment(7.0, 0.0)) > 0
    assert alone == pytest.approx(gain(segment(4.0, 2.0), segment(7.0, 0.0)))


def test_what_prompts_share_is_not_divided_by_thoughts():
    """Where all of the gradient is shared, every tree gains the same; where none is, K wins √K."""
    pool = gaussian_pool(np.random.default_rng(2), 2000, 1.0, 1e-6)
    found = {shape: credited(pool, *shape) for shape in ((4, 1), (16, 1))}
    own = step_gains(found, (4, 1), even_scores())
    assert own[16, 1] / own[4, 1] == pytest.approx(2, rel=0.2)
    shared = step_gains(found, (4, 1), even_scores(whole=1e6))
    assert shared[16, 1] == pytest.approx(shared[4, 1], rel=1e-3)


@given(
    st.tuples(*[st.floats(0, 10)] * 3),
    st.sets(st.integers(2, 16), min_size=2, max_size=3),
    st.sets(st.integers(1, 16), min_size=2, max_size=3),
    st.integers(1, 32),
    st.integers(1, 32),
)
def test_seconds_that_are_a_plane_are_found(parts, thoughts, answers, k, m):
    base, thought, answer = parts
    grid = list(itertools.product(thoughts, answers))
    shapes = probe_shapes(grid, grid[0])
    seconds = {(a, b): base + thought * a + answer * a * b for a, b in shapes}
    expected = base + thought * k + answer * k * m
    assert fit_plane(seconds)((k, m)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def published_arms():
    """Arms T…A… of the sweep in docs/results.md: variances, seconds a step, gains over T4A4 at
    equal steps and at equal seconds.
    """
    arms = {}
    for line in RESULTS.read_text(encoding="utf-8").split("## The whole job")[0].splitlines():
        cells = [cell.strip().replace("−", "-") for cell in line.strip("|").split("|")]
        if re.fullmatch(r"T\d+A\d+", cells[0]) and len(cells) == 10:
            arms[cells[0]] = SimpleNamespace(seconds=float(cells[5]), variances=cells[8])
        elif pair := re.fullmatch(r"(T\d+A\d+) - (T\d+A\d+)", cells[0]):
            one, other = pair.groups()
            sign, arm = (1, arms[one]) if other == "T4A4" else (-1, arms[other])
            arm.at_steps, arm.at_seconds = (sign * float(cells[at].split()[0]) for at in (2, 5))
    arms["T4A4"].at_steps = arms["T4A4"].at_seconds = 0.0
    return arms


@pytest.mark.parametrize("answer_power", [0.5, 1.0, 2.0])
def test_the_order_is_that_of_the_published_sweep(answer_power):
    """Variances of its T4A4 and seconds of its arms: the order of nine arms at equal steps, nearly
    the reverse of their seconds, and at equal seconds pairs that seconds alone get wrong. However
    large the scores of answers are beside those of thoughts.
    """
    arms = published_arms()
    assert len(arms) == 9
    shapes = {tuple(map(int, re.findall(r"\d+", label))): label for label in arms}
    within, between = map(float, arms["T4A4"].variances.split(" / "))
    pool = gaussian_pool(np.random.default_rng(0), 400, between, within * 4 / 3)
    found = {shape: credited(pool, *shape) for shape in shapes}
    spent = {
        shape: StepSeconds(rollout=0.0, rest=arms[label].seconds) for shape, label in shapes.items()
    }
    scores = even_scores(answer_power=answer_power, divisors=(8.0, 6.0))
    steps = step_gains(found, (4, 4), scores)

    def order(of_shape, name):
        pairs = [(of_shape(shape), getattr(arms[label], name)) for shape, label in shapes.items()]
        return spearmanr(*zip(*pairs, strict=True)).statistic

    def pace(shape):
        return float(steps[shape]) / arms[shapes[shape]].seconds

    assert order(lambda shape: float(steps[shape]), "at_steps") > 0.9
    assert order(pace, "at_seconds") > 0.9
    assert pace((8, 2)) > pace((4, 6))
    assert pace((8, 4)) > pace((4, 8))
    table = predict(found, (4, 4), scores, spent, ONE_BATCH)
    assert table[0].label == "T4A1"
    (own,) = (tree for tree in table if tree.label == "T4A4")
    assert own.step_gain == own.second_gain == own.tuned_gain == 1
    assert all(low <= tree.second_gain <= high for tree in table for low, high in [tree.interval])


def swept(command="gmma sweep e.py", seeds=("0",), **arms):
    """A sweep's record by label: (seconds a step, gain a step); validated at steps 0, 10, 20."""
    return {
        "command": command,
        "runs": [{"directory": "s/T4A4_seed0", "done": True}],
        "arms": [
            {
                "label": label,
                "curve": [{"step": step, "seconds": step * each} for step in (0, 10, 20)],
                "of_seeds": {
                    seed: [0.2 + int(seed) + step * gain for step in (0, 10, 20)] for seed in seeds
                },
            }
            for label, (each, gain) in arms.items()
        ],
    }


JOB = {"task": "digits", "model": "tiny", "rewards": "iou", "seed": 3}
ARMS = {"T4A1": (1.0, 0.010), "T4A4": (2.0, 0.012), "T16A1": (4.0, 0.016)}


def read(home, record, job=JOB):
    directory = home / "s"
    (directory / "T4A4_seed0").mkdir(parents=True, exist_ok=True)
    (directory / "T4A4_seed0/config.json").write_text(json.dumps({**JOB, "seed": 0}))
    (directory / "sweep.json").write_text(json.dumps(record))
    return read_sweep(directory, job)


def predicted(**gains):
    """Advice of trees by label: (gain a step, gain a second)."""
    shapes = {label: tuple(map(int, re.findall(r"\d+", label))) for label in gains}
    return [
        Advice(
            label=label,
            thoughts=shapes[label][0],
            answers=shapes[label][1],
            seconds=1.0,
            timed=True,
            step_gain=float(step),
            second_gain=float(second),
            interval=(float(second), float(second)),
            tuned_gain=1.0,
            rivals_best=False,
            signal_to_noise={},
            dead_trees=0.0,
        )
        for label, (step, second) in gains.items()
    ]


def test_a_prediction_is_held_against_a_sweep(tmp_path, capsys):
    """At equal seconds a quicker tree leads, at equal steps a larger one; other arms are left."""
    others = {"credit loo": (2.0, 0.5), "T4A4 steep": (2.0, 0.5)}
    found = read(tmp_path, swept(**ARMS, **others))
    assert found.curves.keys() == {(4, 1), (4, 4), (16, 1)}
    table = predicted(T4A1=(1.0, 3.0), T4A4=(2.0, 2.0), T16A1=(3.0, 1.0), T8A2=(9.0, 9.0))
    both = hold_against(found, table)
    assert (both.seconds, both.steps, both.seeds) == (20.0, 20.0, (0,))
    assert [label for label, *_ in both.trees] == ["T4A1", "T4A4", "T16A1"]
    np.testing.assert_allclose([gain for _, gain, _ in both.trees], [0.2, 0.12, 0.08])
    assert (both.at_seconds, both.at_steps) == pytest.approx((1.0, 1.0))
    print_agreement(both, tmp_path)
    said = capsys.readouterr().out
    assert "1.00 at equal seconds (0.87 with the sweep's own seconds a step), 1.00 at equal" in said
    reverse = predicted(T4A1=(3.0, 1.0), T4A4=(2.0, 2.0), T16A1=(1.0, 3.0))
    both = hold_against(found, reverse)
    assert (both.at_seconds, both.at_steps) == pytest.approx((-1.0, -1.0))
    slow = predicted(T4A1=(1.0, 1.0), T4A4=(1.1, 2.0), T16A1=(1.2, 3.0))  # by another clock
    both = hold_against(found, slow)
    assert (both.at_seconds, both.at_its_seconds) == pytest.approx((-1.0, 1.0))


def test_seconds_of_another_kind_are_not_compared(tmp_path, capsys):
    """Cells of one program have each other's seconds, and a slice has its own."""
    table = predicted(T4A1=(1.0, 3.0), T4A4=(2.0, 2.0), T16A1=(3.0, 1.0))
    cells = hold_against(read(tmp_path, swept("gmma sweep e.py --one-program", **ARMS)), table)
    slices = hold_against(read(tmp_path, swept(**ARMS)), table, planned=True)
    assert cells.at_seconds is slices.at_seconds is cells.at_its_seconds is None
    assert cells.at_steps == slices.at_steps == pytest.approx(1.0)
    alike = hold_against(read(tmp_path, swept(**ARMS)), predicted(**dict.fromkeys(ARMS, (1, 1))))
    assert alike.at_seconds is alike.at_steps is None
    print_agreement(alike, tmp_path)
    assert alike.at_its_seconds == pytest.approx(1.0)
    assert "not defined at equal seconds (1.00 with the sweep's" in capsys.readouterr().out


def test_trees_are_compared_over_the_seeds_that_all_have(tmp_path):
    """An arm of one seed more does not rise or fall with it."""
    record = swept(seeds=("0", "1"), **ARMS)
    record["arms"][1]["of_seeds"]["2"] = [0.0, 5.0, 9.0]
    found = read(tmp_path, record)
    assert found.seeds == (0, 1)
    assert found.curves[4, 4].gain(found.curves[4, 4].steps, 20) == pytest.approx(0.24)


@pytest.mark.parametrize(
    ("record", "job", "message"),
    [
        (swept(T4A4=(1.0, 0.1), other=(1.0, 0.1)), JOB, "has 1 validated arms with labels like"),
        (swept(**ARMS), {**JOB, "task": "sums"}, "is of another job: task differ"),
        (swept(seeds=(), **ARMS), JOB, "no seed has been run with every tree"),
    ],
)
def test_what_is_no_sweep_of_the_trees_is_refused(record, job, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(tmp_path, record, job)
    with pytest.raises(UserError, match=r"has no sweep.json"):
        read_sweep(tmp_path / "nowhere", JOB)


def test_dead_trees_that_are_left_out_cost_rollouts():
    """With dynamic sampling a step of a tree that dies often gains more, and takes longer."""
    pool = np.random.default_rng(3).random((200, 8, 8)) < 0.15
    found = {shape: credited(pool, *shape) for shape in ((4, 1), (8, 4))}
    spent = dict.fromkeys(found, StepSeconds(rollout=1.0, rest=1.0))
    plain = {tree.label: tree for tree in predict(found, (8, 4), even_scores(), spent, ONE_BATCH)}
    sampling = replace(ONE_BATCH, dynamic_sampling=True)
    picked = {tree.label: tree for tree in predict(found, (8, 4), even_scores(), spent, sampling)}
    dead = plain["T4A1"].dead_trees
    assert picked["T4A1"].seconds == pytest.approx(1 + 1 / (1 - dead), rel=1e-6)
    assert picked["T4A1"].step_gain > 1.2 * plain["T4A1"].step_gain


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A probe of a small network whose trees have two thoughts with four answers."""
    root = tmp_path_factory.mktemp("probe")
    config = tiny_digits.experiment()
    config = replace(
        config,
        tree=replace(config.tree, answers=4),
        rl=RLConfig(steps=1, batch_prompts=8, rollout_prompts=16),
        rewards=replace(config.rewards, workers=0),
        objective=ObjectiveConfig(thought_weight=0.5, entropy_coef=0.01, num_iterations=2),
        launch=LaunchConfig(data_dir=root / "data", runs_dir=root / "runs"),
    )
    parts = assemble(config)
    params = first_params(parts)
    examples = read_examples(parts, "train", 12)
    return SimpleNamespace(
        probe=probing.open_probe(parts, params, examples, (2, 4)),
        params=lambda: first_params(parts),
    )


@pytest.mark.usefixtures("compiled_in_a_hurry")
def test_scores_are_those_of_single_nodes(lab, monkeypatch):
    """E|s|² from random credit against a gradient for each node of the same trees alone."""
    monkeypatch.setattr(probing, "ROLLOUTS", 1)
    monkeypatch.setattr(probing, "SIGNS", 64)
    probe = lab.probe
    with run_scorer(probe.parts.config) as scorer:
        scores, params = probing.measure_scores(probe, lab.params(), scorer, (5.0, 4.0))
    assert (scores.thought.weight, scores.answer.weight) == (0.5, 1.0)
    assert (scores.thought.divisor, scores.answer.divisor) == (5.0, 4.0)
    assert scores.whole.shape == (1,)

    state = probe.trainer.start(params)
    trees = probing.grow_trees(probe, state, 0)
    none = {"thought": np.zeros((16, 2), np.float32), "answer": np.zeros((16, 2, 4), np.float32)}

    def power(credit):
        nonlocal state
        placed = put_batch(Advantages(**credit), probe.parts.mesh)
        packed = probing.pack_trees(probe, trees, placed)
        packed = probe.programs.baselines(state, probe.reference, packed)
        state, metrics = probe.trainer.update(state, packed)
        return compute(metrics)["grad_norm"] ** 2

    rest = power(none)
    for name, found in (("thought", scores.thought), ("answer", scores.answer)):
        size = (8, *none[name].shape[1:])  # of the first minibatch: every other prompt
        total = 0.0
        for row, *node in np.ndindex(*size):
            # Twice with opposite signs: what the entropy's gradient has in common with it cancels.
            for sign in (1, -1):
                credit = none[name].copy()
                credit[(2 * row, *node)] = sign
                total += (power({**none, name: credit}) - rest) / 2
        assert found.power.mean() == pytest.approx(total * np.prod(size), rel=0.3), name


@pytest.mark.usefixtures("compiled_in_a_hurry")
def test_a_step_is_timed_as_often_as_its_parts_run(lab, monkeypatch):
    """Every part takes a second: a rollout; packing, two scorings and four updates."""
    clock = itertools.count()
    monkeypatch.setattr(probing.time, "perf_counter", lambda: float(next(clock)))
    found, _ = probing.time_step(lab.probe, lab.params(), 1)
    assert found == StepSeconds(rollout=1.0, rest=7.0)


def test_a_slice_s_seconds_are_those_of_its_plans(monkeypatch):
    """Each program as often as a step runs it; one that does not fit is refused."""
    config = replace(
        tiny_digits.experiment(),
        packing="ragged",
        rl=RLConfig(steps=0, batch_prompts=8, rollout_prompts=16),
    )
    asked = []

    def plan_slice(tree, topology, names, *, until_memory):
        asked.append((tree.packing, tree.tree.shape.label, topology, until_memory))
        for place, name in enumerate(names):
            yield SimpleNamespace(
                program=name, fits=fits, bound=("HBM", 10.0**place), advice="less of it"
            )

    monkeypatch.setattr(timing, "plan_slice", plan_slice)
    fits = True
    found = plan_seconds(config, "v5e:2x4", [(4, 1), (8, 2)])
    # rollout, scoring (two minibatches), update (two)
    assert found == dict.fromkeys([(4, 1), (8, 2)], StepSeconds(rollout=1.0, rest=20.0 + 200.0))
    assert asked[1] == ("static", "T8A2", "v5e:2x4", True)
    fits = False
    with pytest.raises(UserError, match="rollout of T4A1 does not fit v5e:2x4"):
        plan_seconds(config, "v5e:2x4", [(4, 1)])


def test_every_shape_is_timed_with_trees_of_its_own(lab, monkeypatch):
    """Also the run's own, which is tried behind smaller ones."""
    timed = []

    def time_step(probe, params, repeats):
        timed.append(shape_of(probe.parts.config))
        return StepSeconds(rollout=1.0, rest=1.0), params

    monkeypatch.setattr(command, "time_step", time_step)
    monkeypatch.setattr(command, "measure_scores", lambda _, params, *__: (even_scores(), params))
    parts, pool = lab.probe.parts, np.zeros((1, 2, 4))
    pool = RewardPool(
        rewards=pool, counted=pool == 0, scoring_seconds=0.0, thought_tokens=5.0, answer_tokens=4.0
    )
    tried = [(2, 1), shape_of(parts.config), (3, 2), (2, 8)]
    assert tried[1] == (2, 4)
    command.probe_steps(parts, lab.params(), lab.probe.examples, pool, tried, 1)
    assert timed == tried


def test_the_command_advises_on_a_run(tmp_path_factory, tmp_path):
    """On a finished run: every tree of the grid with its figures, and the run's own."""
    with open_tiny(tmp_path_factory) as (base, start):
        output = tmp_path / "advice.json"
        options = ["--thoughts", "2", "3", "--answers", "1", "4", "--pool", "8", "--repeats", "1"]
        options += ["--examples", "24", "--output", output]
        code = start("advise", "runs/whole", *options).wait()
        said = (base / "log.txt").read_text()
    if code == 2:  # a network that learnt nothing need not gain
        assert "no gain shows in 24 prompts" in said
        return
    assert code == 0, said
    found = json.loads(output.read_text())
    trees = {(tree["thoughts"], tree["answers"]): tree for tree in found["trees"]}
    assert trees.keys() == {(2, 1), (2, 2), (2, 4), (3, 1), (3, 4)}
    assert (found["own"], found["prompts"]) == ("T2A2", 24)
    values = [tree["second_gain"] for tree in found["trees"]]
    assert values == sorted(values, reverse=True)
    assert all(tree["seconds"] > 0 and 0 <= tree["dead_trees"] <= 1 for tree in trees.values())
    assert found["tried_seconds"].keys() == {"T2A1", "T2A2", "T3A1", "T2A4"}
    assert "T2A2 run" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no run"),
        (["nowhere", "--thoughts", "1"], "numbers of 2 or more"),
        (["nowhere", "--answers", "0"], "numbers of 1 or more"),
        (["nowhere", "--pool", "1"], "2 or more"),
        (["nowhere", "--split", "rest"], "rest"),
    ],
)
def test_wrong_options_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        cli.command_advise(arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "grpo"}, "there is no M to choose"),
        ({"thought_weight": 0.0, "answer_weight": 0.0}, "are both 0"),
    ],
)
def test_a_run_without_a_choice_is_refused(change, message):
    config = tiny_digits.experiment()
    config = replace(
        config, tree=replace(config.tree, answers=1), objective=ObjectiveConfig(**change)
    )
    with pytest.raises(UserError, match=message):
        check_advisable(config)


def test_a_pool_must_hold_more_than_a_tree(tmp_path_factory):
    with open_tiny(tmp_path_factory) as (base, start):
        before = len((base / "log.txt").read_text())
        assert start("advise", "runs/whole", "--answers", "8", "--pool", "8").wait() == 2
        assert "give --pool 16" in (base / "log.txt").read_text()[before:]
