"""A rollout larger than an update, and dynamic sampling: what a step trains on; it resumes."""

import itertools
import json
import random
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import laws
import numpy as np
import pytest
from nursery import open_nursery
from tiny_minibatches import ending, experiment
from tiny_run import (
    assert_same_arrays,
    assert_same_steps,
    by_path,
    host_arguments,
    records,
    saved_arrays,
    tree_of,
)

from gmma import train
from gmma.config import LaunchConfig, PhaseConfig, RLConfig
from gmma.errors import UserError
from gmma.hardware.hosts import fetch_rows
from gmma.hardware.sharding import put_batch, put_whole
from gmma.plan.programs import kept_bytes, plan_parts, plan_programs
from gmma.records.checkpoint import restore_progress
from gmma.records.metrics import compilations, compute, read_records
from gmma.run.assembly import assemble
from gmma.run.data import ExampleBatch
from gmma.run.feed import read_batches
from gmma.run.preflight import check_batches
from gmma.run.programs import deal_batch, join_batch, make_credit
from gmma.run.trees import collect_trees, collected_metrics, grow_trees

STEPS, EVERY, UPDATES = 3, 2, 4  # steps; a checkpoint every so many; updates a step
EXPERIMENT = Path(__file__).with_name("tiny_minibatches.py")
pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A run with dynamic sampling, and the parts of one without; they share all programs."""
    root = tmp_path_factory.mktemp("minibatches")
    config = experiment()
    config = replace(
        config,
        rl=replace(config.rl, steps=STEPS),
        launch=LaunchConfig(data_dir=root / "data", runs_dir=root / "runs"),
    )
    parts = assemble(config)
    one = replace(config.rl, dynamic_sampling=False, max_rollouts=RLConfig.max_rollouts)
    lab = SimpleNamespace(
        parts=parts,
        plain=replace(parts, config=replace(config, rl=one)),
        trainer=train.make_rl_trainer(parts),
        programs=train.make_programs(parts),
        first=jax.tree.map(np.array, train.first_params(parts)),
    )
    with pytest.MonkeyPatch.context() as patch:
        share_programs(patch, lab, lab.trainer)
        lab.end = reinforce(lab, parts)
    lab.records = read_records(config.run_dir / "metrics.jsonl")
    return lab


def share_programs(patch, lab, trainer):
    """Let every run use the programs that are compiled already."""
    patch.setattr(train, "make_rl_trainer", lambda parts: trainer)
    patch.setattr(train, "make_programs", lambda parts: lab.programs)


def reinforce(lab, parts):
    """Every parameter behind RL, by its path."""
    with train.open_run(parts) as (run, latest):
        assert latest is None
        return by_path(train.reinforce(run, put_whole(lab.first, parts.mesh)))


class Killed(BaseException):
    """The end of a process."""


def killed():
    raise Killed


def test_a_run_that_ends_among_its_minibatches_goes_on_as_if_it_had_not(lab, monkeypatch):
    """In the third step, which has begun behind a checkpoint; ten kills are in the slow test."""
    parts = replace(lab.parts, config=replace(lab.parts.config, name="killed"))
    with monkeypatch.context() as patch:
        share_programs(patch, lab, ending(lab.trainer, EVERY * UPDATES + 3, killed))
        with pytest.raises(Killed):
            reinforce(lab, parts)
    share_programs(monkeypatch, lab, lab.trainer)
    with train.open_run(parts) as (run, latest):
        assert latest == EVERY
        found = train.continue_rl(run, restore_progress(run.checkpoints, latest), latest)
    assert_same_arrays(by_path(found), lab.end)
    here, there = parts.config.run_dir, lab.parts.config.run_dir
    assert records(here) == records(there)
    for step in (EVERY, STEPS):
        assert_same_arrays(saved_arrays(here, step), saved_arrays(there, step))
    assert tree_of(here / "samples") == tree_of(there / "samples")


def test_a_step_is_its_minibatches_one_after_the_other(lab, monkeypatch):
    """Whole trees dealt by hand; credit of each minibatch alone; one set of old log-probs."""
    parts, programs, trainer = lab.plain, lab.programs, lab.trainer
    alone = make_credit(parts)  # of eight rows that stand for themselves
    with monkeypatch.context() as patch, train.run_scorer(parts.config) as scorer:
        share_programs(patch, lab, trainer)
        batch = next(read_batches(parts, "rl"))
        reference, state, same = (put_whole(lab.first, parts.mesh) for _ in range(3))
        state, same = trainer.start(state), trainer.start(same)
        run = SimpleNamespace(parts=parts, programs=programs, scorer=scorer)
        result = train.rl_step(run, trainer, reference, state, iter([batch]), 0)
        trees, _ = grow_trees(parts, programs, scorer, train.whole_params(same), 0, batch)
    held = fetch_rows(trees, parts.mesh)
    dealt = []
    for at in range(2):
        own = put_batch(jax.tree.map(lambda rows, at=at: rows[at::2], held), parts.mesh)
        packed = programs.pack(own.prompts, own.rollout, alone(own.rewards, own.counted))
        dealt.append(programs.baselines(same, reference, packed))
    for packed in dealt * 2:
        same, _ = trainer.update(same, packed)
    assert int(result.state.step) == UPDATES
    assert not any(name.startswith("dynamic") for part in result.metrics for name in part)
    assert_same_arrays(by_path(result.state.params), by_path(same.params))


def shortened(grow, odd):
    """A rollout of which every other tree has two tokens a node at most."""

    @jax.jit
    def cut(rollout):
        row = jax.numpy.arange(rollout.closed.shape[0])

        def shorter(lengths):
            chosen = (row % 2 == odd).reshape(-1, *(1,) * (lengths.ndim - 1))
            return jax.numpy.where(chosen, jax.numpy.minimum(lengths, 2), lengths)

        names = ("thought_lengths", "thought_sampled", "answer_lengths")
        return replace(rollout, **{name: shorter(getattr(rollout, name)) for name in names})

    return lambda *given: cut(grow(*given))


def test_a_step_in_ragged_rows_is_the_static_one(lab):
    """Whichever minibatch has short trees; nothing is compiled behind the first step."""
    config = replace(lab.plain.config, packing="ragged", row_lengths=2)  # 40 slots, or all 75
    rows = replace(lab.plain, config=config)
    programs = replace(lab.programs, baselines=train.make_programs(rows).baselines)
    batch, found, compiled = next(read_batches(lab.plain, "rl")), [], []
    ways = ((lab.plain, lab.programs, lab.trainer), (rows, programs, train.make_rl_trainer(rows)))
    with train.run_scorer(config) as scorer:
        for parts, programs, trainer in ways:
            reference, state = (put_whole(lab.first, parts.mesh) for _ in range(2))
            state = trainer.start(state)
            for step in range(2):
                grow = shortened(lab.programs.grow, odd=step)
                given = replace(programs, grow=grow)
                run = SimpleNamespace(parts=parts, programs=given, scorer=scorer)
                before = compilations()
                with train.transfer_guard():
                    result = train.rl_step(run, trainer, reference, state, iter([batch]), step)
                state = result.state
                compiled.append(compilations() - before)
            found.append(jax.device_get((state.params, result.metrics)))
    assert compiled[3] == 1  # `shortened` itself
    (static, metrics), (ragged, others) = found
    laws.assert_gradient_close_as_a_whole(ragged, static, 1e-5)
    for update, other in zip(metrics[:UPDATES], others, strict=False):
        for name in ("loss", "grad_norm", "answer/kl"):
            ours, theirs = (found[name].total / found[name].count for found in (other, update))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7, err_msg=name)


def test_records_say_how_far_off_policy_each_update_was(lab):
    """The first not at all; the others more and more, on the same trees or not."""
    for record in lab.records:
        for segment in ("thought", "answer"):
            drift = [record[f"{segment}/ppo_kl/update_{at}"] for at in range(UPDATES)]
            assert 0 <= drift[0] < 1e-9
            assert all(value > 1e-8 for value in drift[1:])
            assert record[f"{segment}/ppo_kl"] == pytest.approx(np.mean(drift), rel=0.1)
            assert record[f"{segment}/clip_ratio/update_0"] == 0


def test_trees_without_a_difference_are_replaced_and_counted(lab):
    """The third of the prompts whose answers all earn the same makes every step grow more."""
    for record in lab.records:
        rollouts = record["dynamic_sampling/rollouts"]
        share = record["dynamic_sampling/frac_zero_std_kept"]
        assert rollouts in (2, 3)
        assert share == 0 or rollouts == 3
        trained = 16 * (1 - share) + record["dynamic_sampling/trees_unused"]
        assert 16 * rollouts * (1 - record["frac_reward_zero_std"]) == pytest.approx(trained)
        longest = record["thought/completions/max_length"] + 2 * 7  # and two answers
        assert 16 * 2 * rollouts * 3 < record["num_tokens"] <= 16 * 2 * rollouts * longest
    assert lab.records[-1]["compilations"] == 0


@pytest.fixture(scope="module")
def grown(lab):
    """Two rollouts as they are: trees on the devices, and what became of them."""
    parts, programs = lab.plain, lab.programs
    params = put_whole(lab.first, parts.mesh)
    with train.run_scorer(parts.config) as scorer:
        batches = read_batches(parts, "rl")
        return [grow_trees(parts, programs, scorer, params, 0, next(batches)) for _ in range(2)]


def collected(lab, grown, differing, *, max_rollouts, minibatches=None):
    """What a step collects of rollouts in each of which these rows differ, and the third has lost
    all its rewards but one: the number 100 · rollout + row of each place's tree, its row in the
    first rollout, and the metrics.
    """
    parts = lab.parts
    rl = replace(parts.config.rl, max_rollouts=max_rollouts, minibatches=minibatches)
    parts = replace(parts, config=replace(parts.config, rl=rl))
    (trees, growth), *_ = grown
    shape = trees.rewards.shape

    def rollout(number, rows):
        rewards = np.ones(shape, np.float32)
        rewards[2].flat[1:] = np.nan
        rewards[rows, 0] = 0
        measured = growth.scored.measured
        measured = replace(
            measured,
            scores=replace(measured.scores, rewards=rewards),
            counted=np.isfinite(rewards),
        )
        names = np.broadcast_to(np.arange(16.0)[:, None, None] + 100 * number, shape)
        named = put_batch(names.astype(np.float32), parts.mesh)
        seen = replace(growth, scored=replace(growth.scored, measured=measured))
        return replace(trees, rewards=named), seen

    rollouts = itertools.starmap(rollout, enumerate(differing))
    batch = ExampleBatch(examples=(), positions=(), number=0)
    placed, found = collect_trees(
        parts, lambda batch: next(rollouts), lab.programs.place, itertools.repeat(batch)
    )
    metrics = compute(collected_metrics(found))
    sampling = {n.partition("/")[2]: v for n, v in metrics.items() if n.startswith("dynamic")}
    names = np.asarray(placed.rewards)[:, 0, 0].astype(int).tolist()
    return names, found.places.row.tolist(), sampling


def test_trees_that_differ_come_first_and_further_ones_take_the_places_of_the_rest(lab, grown):
    own, others = [1, 3, 4, *range(6, 15)], [0, 2, 5, 15]  # the third has no two rewards
    second, third = [6, 7], [0, 1, 3, 4]
    found = collected(lab, grown, [own, second, third], max_rollouts=4)
    assert found[0] == [*own, 106, 107, 200, 201]
    assert found[1] == [*own, -1, -1, -1, -1]
    assert found[2] == {"rollouts": 3, "frac_zero_std_kept": 0, "trees_unused": 2}
    found = collected(lab, grown, [own, second, third], max_rollouts=2)
    assert found[0] == [*own, 106, 107, *others[2:]]
    assert found[1] == [*own, -1, -1, *others[2:]]
    assert found[2] == {"rollouts": 2, "frac_zero_std_kept": 2 / 16, "trees_unused": 0}


def test_of_one_rollout_the_trees_that_differ_fill_one_minibatch(lab, grown):
    """Of 16 trees eight are trained on: the first that differ, or all that do and others."""
    for own, trained, sampling in (
        ([4, *range(6, 15)], [4, *range(6, 13)], (0, 2)),
        ([3, 5, *range(10, 16)], [3, 5, *range(10, 16)], (0, 0)),
        ([5, 9, 11], [5, 9, 11, 0, 1, 2, 3, 4], (5 / 8, 0)),
        ([], list(range(8)), (1, 0)),
    ):
        found = collected(lab, grown, [own], max_rollouts=1, minibatches=1)
        assert found[0] == found[1] == trained
        kept, unused = sampling
        assert found[2] == {"rollouts": 1, "frac_zero_std_kept": kept, "trees_unused": unused}


def test_trees_go_over_all_devices_to_their_places_and_minibatches(lab, grown):
    """As NumPy has it: rows that lie on other devices, and a deal that moves nothing."""
    rng, programs, mesh = np.random.default_rng(0), lab.programs, lab.plain.mesh
    first, further = rng.permutation(16).astype(np.int32), rng.integers(-1, 16, 16, np.int32)
    placed = None
    for rows, (own, _) in zip((first, further), grown, strict=True):
        placed = programs.place(placed, own, put_whole(rows, mesh))
    both = jax.tree.map(lambda *rows: np.concatenate(rows), *(trees for trees, _ in grown))
    taken = np.where(further < 0, first, 16 + further)
    wanted = jax.tree.map(lambda rows: rows[taken], both)
    assert_same_arrays(by_path(placed), by_path(wanted))
    advantages = programs.credit(placed.rewards, placed.counted)
    packed = programs.pack(placed.prompts, placed.rollout, advantages)
    for at, part in enumerate(programs.deal(packed)):
        own = jax.tree.map(lambda rows, at=at: np.asarray(rows)[at::2], packed)
        assert_same_arrays(by_path(part), by_path(own))
    rows = jax.numpy.arange(24).reshape(8, 3)
    np.testing.assert_array_equal(join_batch(deal_batch(rows, 4)), rows)


def test_a_plan_grows_a_rollout_and_updates_a_minibatch(lab):
    config = lab.plain.config
    planned = {p.name: p for p in plan_programs(plan_parts(config, lab.plain.mesh))}
    assert planned["rollout"].arguments[1].tokens.shape[0] == 16
    assert planned["update"].arguments[1].advantages.shape[0] == 8
    assert planned["update"].resident_bytes > 0  # the minibatch that waits, and the reference


def test_settings_that_cannot_be_are_named():
    def rl(**settings):
        return RLConfig(steps=1, batch_prompts=8, **settings)

    assert rl().trained_prompts == rl(rollout_prompts=8).trained_prompts == 8
    most = rl(rollout_prompts=32, minibatches=2, dynamic_sampling=True, max_rollouts=1)
    assert (most.grown_prompts, most.trained_prompts) == (32, 16)
    for words, settings in (
        ("rollout_prompts = 12 is not divisible by rl.batch_prompts = 8", {"rollout_prompts": 12}),
        (
            "3, but .* has 2 .* 1 to 2, or rl.rollout_prompts = 24",
            {"rollout_prompts": 16, "minibatches": 3},
        ),
        ("minibatches = 1 of the 2 of a rollout", {"rollout_prompts": 16, "minibatches": 1}),
        ("max_rollouts = 2 without rl.dynamic_sampling", {"max_rollouts": 2}),
        ("changes nothing", {"dynamic_sampling": True, "max_rollouts": 1}),
    ):
        with pytest.raises(UserError, match=words):
            rl(**settings)


def test_images_of_two_sizes_are_refused_where_rollouts_are_mixed(lab):
    parts = lab.parts
    check_batches(parts)
    two = replace(parts, processor=replace(parts.processor, buckets=(4, 16)))
    with pytest.raises(UserError, match=r"image_buckets = \(4, 16\)"):
        check_batches(two)


def test_an_experiment_file_from_before_has_one_rollout_of_one_minibatch():
    config = replace(experiment(), rl=PhaseConfig(steps=3, batch_prompts=8))
    assert config.rl == RLConfig(steps=3, batch_prompts=8)


@pytest.mark.slow
def test_a_run_killed_ten_times_among_its_minibatches_equals_one_that_was_not(tmp_path):
    """Each time another process, by SIGKILL, at an update drawn by chance."""
    chance, steps = random.Random(0), 24
    with open_nursery(tmp_path) as start:

        def run(name, *arguments):
            given = ("--name", name, "--rl.steps", steps, *arguments)
            return start("train", EXPERIMENT, "--resume", *given).wait()

        assert run("whole") == 0, (tmp_path / "log.txt").read_text()
        for _ in range(10):
            assert run("killed", "--dies-at", 8 + chance.randrange(1, 5)) == -signal.SIGKILL
        assert run("killed") == 0
    whole, killed = (tmp_path / "runs" / name for name in ("whole", "killed"))
    assert records(killed) == records(whole)
    assert_same_arrays(saved_arrays(killed, steps), saved_arrays(whole, steps))
    for part in ("samples", "evaluation"):
        assert tree_of(killed / part) == tree_of(whole / part)


def test_the_plan_counts_the_trees_that_wait_for_a_further_rollout(lab, grown):
    (trees, _), *_ = grown
    of_one_device = [
        array.addressable_shards[0].data.nbytes
        for array in jax.tree.leaves((trees.prompts, trees.rollout))
    ]
    assert kept_bytes(lab.parts, lab.first) == sum(of_one_device)
    assert kept_bytes(lab.plain, lab.first) == 0


@pytest.mark.slow
def test_two_hosts_take_the_steps_of_one(tmp_path):
    """Trees of either host take places on the other."""
    with open_nursery(tmp_path) as start:

        def run(name, *arguments):
            return start("train", EXPERIMENT, "--name", name, *arguments)

        assert run("one").wait() == 0, (tmp_path / "log.txt").read_text()
        hosts = [run("two", *given) for given in host_arguments(2)]
        assert [host.wait() for host in hosts] == [0, 0], (tmp_path / "log.txt").read_text()
    one, two = (tmp_path / "runs" / name for name in ("one", "two"))
    assert_same_steps(records(two), records(one), len(records(one)))
    shown = "samples/step_000003/tree.json"
    assert json.loads((two / shown).read_text()) == json.loads((one / shown).read_text())
