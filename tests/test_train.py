"""The loop on eight devices: what it compiles, moves and records, and that it resumes."""

import itertools
import json
import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import jax
import laws
import numpy as np
import pytest
from tiny_digits import experiment
from tiny_run import (
    assert_same_arrays,
    by_path,
    records,
    saved_arrays,
    shown_steps,
    tree_of,
)

from gmma import scoring, train
from gmma.config import LaunchConfig, ObjectiveConfig, RewardConfig, StopConfig
from gmma.errors import UserError
from gmma.files import lock_of, locked
from gmma.hardware import preemption
from gmma.hardware.preemption import NotFinite, Preempted, Unscored
from gmma.hardware.sharding import put_whole
from gmma.records import checkpoint
from gmma.records.checkpoint import Progress, checkpoint_steps, restore_progress
from gmma.records.health import first_not_finite
from gmma.records.metrics import compilations, read_records
from gmma.records.pace import eta_errors
from gmma.records.profile import check_traced, open_trace
from gmma.rewards.terms import RewardTerm
from gmma.run.assembly import assemble
from gmma.tasks.mathematics import MathConfig
from gmma.theory import gradient_spike_score

STEPS, EVERY = 6, 3  # of SFT and of RL; checkpoints at 3 and 6, and at 9 and 12
START = Progress(phase="sft", phase_step=0, data={})
pytestmark = pytest.mark.usefixtures("compiled_in_a_hurry")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """SFT, then RL with a reference and two updates a rollout, and what ran them."""
    root = tmp_path_factory.mktemp("lab")
    config = experiment()
    config = replace(
        config,
        name="straight",
        sft=replace(config.sft, steps=STEPS),
        rl=replace(config.rl, steps=STEPS),
        rewards=replace(config.rewards, workers=0),
        objective=ObjectiveConfig(beta=0.1, num_iterations=2),
        checkpoint=replace(config.checkpoint, every_steps=EVERY, keep_last=9),
        launch=LaunchConfig(data_dir=root / "data", runs_dir=root / "runs"),
    )
    parts = assemble(config)
    trainers = {"sft": train.make_sft_trainer(parts), "rl": train.make_rl_trainer(parts)}
    lab = SimpleNamespace(parts=parts, trainers=trainers, programs=train.make_programs(parts))
    with pytest.MonkeyPatch.context() as patch:
        share_programs(patch, lab)
        with train.open_run(parts) as (run, latest):
            assert latest is None
            lab.imitated = train.imitate(run, START, None)
            lab.imitated_copy = jax.tree.map(np.array, lab.imitated)
            lab.reinforced = train.reinforce(run, lab.imitated)
    lab.run_dir = config.run_dir
    return lab


def share_programs(patch, lab):
    """Let every run use the programs that are compiled already."""
    patch.setattr(train, "make_sft_trainer", lambda parts: lab.trainers["sft"])
    patch.setattr(train, "make_rl_trainer", lambda parts: lab.trainers["rl"])
    patch.setattr(train, "make_programs", lambda parts: lab.programs)


def copy_of_run(lab, name, *, up_to):
    """Parts of a run that has the checkpoints up to that step, as if killed behind the last."""
    config = replace(lab.parts.config, name=name)
    shutil.copytree(lab.run_dir, config.run_dir)
    for path in (config.run_dir / "checkpoints").iterdir():
        if int(path.name) > up_to:
            shutil.rmtree(path)
    return replace(lab.parts, config=config)


def leave_debris(run_dir):
    """What a process can be writing when it is killed."""
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "phase": "r')
    unfinished = run_dir / "checkpoints/15.orbax-checkpoint-tmp/state"
    unfinished.mkdir(parents=True)
    (unfinished / "half").write_text("half a checkpoint")
    (run_dir / "config.json.partial").write_text('{"name": ')


def test_nothing_is_compiled_in_the_five_steps_after_the_first(lab):
    found = read_records(lab.run_dir / "metrics.jsonl")
    assert [record["step"] for record in found] == list(range(2 * STEPS))
    for phase in ("sft", "rl"):
        compiled = [record["compilations"] for record in found if record["phase"] == phase]
        assert compiled[0] > 0
        assert compiled[1:] == [0] * 5


def test_records_keep_the_time_left_as_it_was_foretold(lab):
    """From the first step on that compiles nothing; `python -m gmma.records.pace` judges it."""
    found = read_records(lab.run_dir / "metrics.jsonl")
    for phase in ("sft", "rl"):
        own = [record for record in found if record["phase"] == phase]
        assert ["clock/left" in record for record in own] == [False] + [True] * (STEPS - 1)
        times = [record["clock/time"] for record in own]
        assert times == sorted(times)
        assert min(record["clock/left"] for record in own[1:-1]) > 0
        assert len(eta_errors(found, phase)) == STEPS - 2


def test_a_step_in_ragged_rows_is_the_static_one(lab):
    """Of SFT, by the run's own programs: the parameters, and every metric.

    Each microbatch has rows of its own length, and all lengths are one compilation.
    """
    tree = replace(lab.parts.config.tree, thought_tokens=24, answer_tokens=12)
    config = replace(lab.parts.config, tree=tree, row_lengths=3)  # 24, 40 and all 57 slots
    batch, found = next(train.read_batches(lab.parts, "sft")), []
    for packing in ("static", "ragged"):
        parts = replace(lab.parts, config=replace(config, packing=packing))
        trainer, seen = train.make_sft_trainer(parts), []

        def update(state, packed, trainer=trainer, seen=seen):
            before = compilations()
            result = trainer.update(state, packed)
            seen.append((packed, compilations() - before))
            return result

        run = SimpleNamespace(parts=parts, programs=train.make_programs(parts))
        state = trainer.start(jax.tree.map(jax.numpy.copy, lab.imitated_copy))
        with train.transfer_guard():
            result = train.sft_step(run, replace(trainer, update=update), state, iter([batch]), 0)
        found.append(jax.device_get((result.state.params, result.metrics[0])))
        packed, compiled = seen[0]
        assert compiled == 1
        branches = str(jax.make_jaxpr(trainer.update)(result.state, packed)).count("cond[")
        assert branches == (packing == "ragged")
        short = replace(packed.inputs, valid=packed.inputs.valid.at[:, 24:].set(False))
        state = result.state
        for inputs in (packed.inputs, short):
            state, _ = update(state, replace(packed, inputs=inputs))
        assert [compiled for _, compiled in seen[1:]] == [0, 0]
    (static, metrics), (ragged, others) = found
    laws.assert_gradient_close_as_a_whole(ragged, static, 1e-5)
    assert metrics.keys() == others.keys()
    for name, metric in metrics.items():
        np.testing.assert_allclose(others[name].total, metric.total, rtol=1e-4, err_msg=name)
        assert others[name].count == metric.count


def test_a_transfer_that_is_not_named_is_refused(lab, monkeypatch):
    """The same loop with a batch that nobody put on the devices."""
    parts = copy_of_run(lab, "careless", up_to=EVERY)
    share_programs(monkeypatch, lab)
    monkeypatch.setattr(train, "put_batch", lambda tree, mesh: tree)
    with train.open_run(parts) as (run, latest):
        progress = restore_progress(run.checkpoints, latest)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            train.imitate(run, progress, latest)


def test_without_jit_constants_may_go_to_the_devices():
    """`JAX_DISABLE_JIT=1 gmma train …`, as docs/commands.md says to debug."""
    with pytest.raises(Exception, match="Disallowed host-to-device"), train.transfer_guard():
        jax.numpy.arange(3) + 1
    with jax.disable_jit(), train.transfer_guard():
        assert (jax.numpy.arange(3) + 1).tolist() == [1, 2, 3]


def test_records_have_the_metrics_of_the_field(lab):
    first, last = (read_records(lab.run_dir / "metrics.jsonl")[step] for step in (STEPS, -1))
    named = {"reward", "rewards/box_iou/mean", "rewards/format/mean", "reward_std", "grad_norm"}
    named |= {"frac_reward_zero_std", "num_tokens", "seconds/rollout", "seconds/reward"}
    named |= {"grad_spike_score", "reward_variance/between_thoughts_corrected"}
    for segment in ("thought", "answer"):
        named |= {f"{segment}/{n}" for n in ("kl", "entropy", "advantage_std")}
        named |= {f"{segment}/clip_ratio/{n}_mean" for n in ("low", "high", "region")}
        lengths = ("mean_length", "min_length", "max_length", "clipped_ratio")
        named |= {f"{segment}/completions/{n}" for n in lengths}
        named |= {f"{segment}/sampling/sampling_logp_difference/{n}" for n in ("mean", "max")}
    assert named <= first.keys()
    assert named <= last.keys()
    assert first["thought/sampling/sampling_logp_difference/max"] < 1e-4
    assert 0 < last["thought/kl"] < 1  # the policy has left its reference


def test_records_of_imitation_have_what_it_measures_alone(lab):
    """No KL, no clipping and no sampler: 0 would be a figure."""
    for record in read_records(lab.run_dir / "metrics.jsonl")[:STEPS]:
        split = {name for name in record if name.startswith(("thought/", "answer/"))}
        measured = ("logprob", "entropy")
        assert split == {f"{segment}/{n}" for segment in ("thought", "answer") for n in measured}
        assert {"loss", "grad_norm", "num_trained_tokens"} <= record.keys()


def test_spike_scores_are_those_of_the_norms_of_their_phase(lab):
    found = read_records(lab.run_dir / "metrics.jsonl")
    for phase in ("sft", "rl"):
        own = [record for record in found if record["phase"] == phase]
        expected = gradient_spike_score(jax.numpy.array([record["grad_norm"] for record in own]))
        scores = [record["grad_spike_score"] for record in own]
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
        assert len(set(scores)) > 1


def test_training_moves_every_array(lab):
    before, after = by_path(lab.imitated_copy), by_path(lab.reinforced)
    assert all(not np.array_equal(before[name], after[name]) for name in before)


def test_rl_resumes_from_the_middle_with_its_reference(lab, monkeypatch):
    parts = copy_of_run(lab, "resumed_rl", up_to=STEPS + EVERY)
    run_dir = parts.config.run_dir
    leave_debris(run_dir)
    share_programs(monkeypatch, lab)
    with train.open_run(parts) as (run, latest):
        progress = restore_progress(run.checkpoints, latest)
        assert (latest, progress.phase, progress.phase_step) == (STEPS + EVERY, "rl", EVERY)
        params = train.continue_rl(run, progress, latest)
    assert_same_arrays(by_path(params), by_path(lab.reinforced))
    assert records(run_dir) == records(lab.run_dir)
    reference = {n: a for n, a in saved_arrays(run_dir, 2 * STEPS).items() if "reference" in n}
    assert reference
    assert_same_arrays(saved_arrays(run_dir, 2 * STEPS), saved_arrays(lab.run_dir, 2 * STEPS))
    assert tree_of(run_dir / "samples") == tree_of(lab.run_dir / "samples")
    assert not list((run_dir / "checkpoints").glob("*tmp*"))


# JAX's reader makes a type of its own as it is first used; on Python 3.13 that warns, and a warning
# that is an error there ends the process.
@pytest.mark.filterwarnings("ignore:builtin type event_stats has no:DeprecationWarning")
def test_a_trace_holds_the_steps_that_were_asked_for_and_changes_no_number(lab, monkeypatch):
    """Of a run that resumes: what XProf reads, by JAX's own reader."""
    parts = copy_of_run(lab, "traced", up_to=STEPS + EVERY)
    run_dir, first = parts.config.run_dir, STEPS + EVERY + 1
    share_programs(monkeypatch, lab)
    with train.open_run(parts, (first, first + 1)) as (run, latest):
        train.continue_rl(run, restore_progress(run.checkpoints, latest), latest)
    (file,) = run_dir.glob("profile/plugins/profile/*/*.xplane.pb")
    assert file.parent.name == f"steps_{first}_{first + 1}"
    events = [
        (event.name, dict(event.stats).get("step_num"))
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes
        for line in plane.lines
        for event in line.events
    ]
    assert sorted(e for e in events if e[1] is not None) == [("rl", first), ("rl", first + 1)]
    assert any("score_batch" in name for name, _ in events)  # what the host does has names, too
    assert records(run_dir) == records(lab.run_dir)


def test_a_trace_is_kept_where_its_steps_end_early_and_missed_ones_are_said(tmp_path, capsys):
    def run_until_the_third():
        with open_trace(tmp_path, (1, 9)) as trace:
            for step in range(4):
                with trace("sft", step):
                    if step == 3:
                        raise RuntimeError("the third")

    with pytest.raises(RuntimeError, match="the third"):
        run_until_the_third()
    (file,) = tmp_path.glob("profile/plugins/profile/steps_1_9/*.xplane.pb")
    assert file.stat().st_size > 0
    assert f"trace of steps 1 to 9: {tmp_path / 'profile'}" in capsys.readouterr().out
    with open_trace(tmp_path, (1, 2)) as trace, trace("rl", 3):
        pass
    assert "--profile 1:2: this start of the run took none" in capsys.readouterr().err
    check_traced((3, 11), 12)
    with pytest.raises(UserError, match="the run has 12 steps"):
        check_traced((3, 12), 12)


def test_sigterm_ends_sft_behind_a_checkpoint_and_resuming_repeats_the_rest(lab, monkeypatch):
    parts = copy_of_run(lab, "resumed_sft", up_to=EVERY)
    share_programs(monkeypatch, lab)
    with preemption.watch(), train.open_run(parts) as (run, latest):
        os.kill(os.getpid(), signal.SIGTERM)
        progress = restore_progress(run.checkpoints, latest)
        with pytest.raises(Preempted, match=r"after sft step 4.*--resume"):
            train.imitate(run, progress, latest)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with preemption.watch(), train.open_run(parts) as (run, latest):
        assert latest == EVERY + 1
        params = train.imitate(run, restore_progress(run.checkpoints, latest), latest)
    assert_same_arrays(by_path(params), by_path(lab.imitated_copy))
    assert records(parts.config.run_dir) == records(lab.run_dir)[:STEPS]


def test_events_are_on_the_disk_before_a_checkpoint_is(lab, monkeypatch):
    """A kill behind a save loses no step: what is before a checkpoint is not written again."""
    parts = copy_of_run(lab, "events", up_to=0)
    share_programs(monkeypatch, lab)
    shown = {}

    def look(manager, step, *given):
        shown[step] = shown_steps(parts.config.run_dir, "sft/loss")
        checkpoint.save(manager, step, *given)

    with train.open_run(parts) as (run, latest):
        train.imitate(replace(run, save=look), START, latest)
    assert shown == {step: list(range(step)) for step in (EVERY, STEPS)}


def test_rl_alone_asks_for_no_demonstrations(tmp_path):
    """Questions and answers only: the first parameters, lying where an update wants them."""
    path = tmp_path / "sums.jsonl"
    rows = [{"question": f"{n} + {n}?", "answer": f"{2 * n}"} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = experiment()
    config = replace(
        config,
        task=MathConfig(train_path=path, test_path=None, held_out=1, explain=False, vocab_size=400),
        rewards=RewardConfig(terms=(RewardTerm("math"),), workers=0),
        sft=replace(config.sft, steps=0),
        launch=LaunchConfig(data_dir=tmp_path / "data", runs_dir=tmp_path / "runs"),
    )
    parts = assemble(config)
    with train.open_run(parts) as (run, latest):
        params = train.imitate(run, START, latest)
    wanted = train.make_rl_trainer(parts).abstract.params
    for leaf, abstract in zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding.is_equivalent_to(abstract.sharding, leaf.ndim)
    assert_same_arrays(by_path(params), by_path(parts.start(parts.mesh)))
    rows[3]["answer"] = "7"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed, before = assemble(config), tree_of(config.run_dir)
    with pytest.raises(UserError, match="was trained on other records"), train.open_run(changed):
        pass
    assert tree_of(config.run_dir) == before
    (config.run_dir / "records.json").unlink()
    with train.open_run(changed):
        pass


def test_a_metric_that_could_rank_no_checkpoint_ends_rl_behind_one(lab, monkeypatch):
    parts = copy_of_run(lab, "misspelt", up_to=STEPS)
    named = replace(parts.config.checkpoint, best_metric="rewrad")
    parts = replace(parts, config=replace(parts.config, checkpoint=named))
    share_programs(monkeypatch, lab)
    message = r"best_metric = rewrad is in no record.*near it: reward"
    with train.open_run(parts) as (run, _), pytest.raises(UserError, match=message):
        train.reinforce(run, put_whole(lab.imitated_copy, parts.mesh))
    assert checkpoint_steps(parts.config.run_dir)[-1] == STEPS + 1


def poisoned(trainer, number):
    """The trainer, of which this update, from 0, leaves NaN in the last parameters."""

    @jax.jit
    def poison(params):
        leaves, structure = jax.tree.flatten(params)
        return jax.tree.unflatten(structure, [*leaves[:-1], leaves[-1] * jax.numpy.nan])

    def update(state, packed):
        state, metrics = trainer.update(state, packed)
        ill = next(updates) == number
        return (replace(state, params=poison(state.params)) if ill else state), metrics

    updates = itertools.count()
    return replace(trainer, update=update)


@pytest.mark.parametrize(
    ("step", "ends", "limit", "kept"),
    [
        pytest.param(1, 2, 9, [], id="before the first checkpoint"),
        pytest.param(3, 5, 9, [EVERY], id="the last checkpoint of the phase"),
        pytest.param(3, 4, 1, [EVERY], id="the limit before a checkpoint"),
    ],
)
def test_parameters_that_are_not_finite_are_in_no_checkpoint(
    lab, monkeypatch, step, ends, limit, kept
):
    """NaN behind SFT step `step`: the loss is NaN from the next on."""
    parts = copy_of_run(lab, f"nan_{step}_{limit}", up_to=0)
    parts = replace(parts, config=replace(parts.config, stop=StopConfig(not_finite_steps=limit)))
    share_programs(monkeypatch, lab)
    ill = poisoned(lab.trainers["sft"], step)
    monkeypatch.setattr(train, "make_sft_trainer", lambda parts: ill)
    newest = f"the newest is checkpoint {kept[-1]}" if kept else "there is no checkpoint yet"
    words = rf"sft step {ends}: loss = nan, grad_norm = nan; .* is not finite.* {newest}"
    with train.open_run(parts) as (run, latest), pytest.raises(NotFinite, match=words):
        train.imitate(run, START, latest)
    assert checkpoint_steps(parts.config.run_dir) == kept
    assert len(read_records(parts.config.run_dir / "metrics.jsonl")) == ends + 1


def test_rl_that_is_not_finite_leaves_the_last_and_the_best_as_they_are(lab, monkeypatch):
    parts = copy_of_run(lab, "nan_rl", up_to=STEPS + EVERY)
    few = replace(parts.config.checkpoint, every_steps=1, keep_last=1)
    parts = replace(parts, config=replace(parts.config, checkpoint=few))
    share_programs(monkeypatch, lab)
    ill = poisoned(lab.trainers["rl"], 3)  # the second update of its second step
    monkeypatch.setattr(train, "make_rl_trainer", lambda parts: ill)
    run_dir = parts.config.run_dir
    with train.open_run(parts) as (run, latest):
        progress = restore_progress(run.checkpoints, latest)
        with pytest.raises(NotFinite, match=rf"rl step {latest + 1}: .*checkpoint {latest + 1}"):
            train.continue_rl(run, progress, latest)
    assert checkpoint_steps(run_dir)[-1] == latest + 1
    for step in checkpoint_steps(run_dir):
        assert first_not_finite(list(saved_arrays(run_dir, step).values())) is None


def test_a_run_of_which_no_answer_counts_ends_behind_a_checkpoint(lab, monkeypatch):
    parts = copy_of_run(lab, "unscored", up_to=STEPS)
    parts = replace(parts, config=replace(parts.config, stop=StopConfig(unscored_steps=2)))
    share_programs(monkeypatch, lab)

    def unscored(*given, **named):
        scores = score_answers(*given, **named)
        return replace(scores, rewards=np.full_like(scores.rewards, np.nan))

    score_answers = scoring.score_answers
    monkeypatch.setattr(scoring, "score_answers", unscored)
    words = rf"rl step {STEPS + 1}: no answer has counted for 2 steps .*checkpoint {STEPS + 2}"
    with train.open_run(parts) as (run, _), pytest.raises(Unscored, match=words):
        train.reinforce(run, put_whole(lab.imitated_copy, parts.mesh))
    assert checkpoint_steps(parts.config.run_dir)[-1] == STEPS + 2


def test_a_run_that_another_process_trains_is_left_alone(lab, monkeypatch):
    parts = copy_of_run(lab, "twice", up_to=STEPS)
    share_programs(monkeypatch, lab)
    run_dir = parts.config.run_dir
    with locked(lock_of(run_dir), wait=False):
        before = tree_of(run_dir)
        words = rf"process {os.getpid()} on .* is at work here"
        with pytest.raises(UserError, match=words), train.open_run(parts):
            pass
        assert tree_of(run_dir) == before
    with train.open_run(parts) as (_, latest):
        assert latest == STEPS


HANGS, DIES, EATS = (f"sometimes_bad:{name}" for name in ("hangs", "dies", "eats"))


def reinforce_with(lab, monkeypatch, tmp_path, reward, *, calls=3, **limits):
    """RL from the end of SFT with a reward that goes wrong in so many calls of the third step;
    the records of the run.
    """
    monkeypatch.setenv("BAD_REWARD_LOG", str(tmp_path / "calls"))
    first = 2 * 8 * 4  # calls of the first two steps
    monkeypatch.setenv("BAD_REWARD_CALLS", f"{first} {first + calls}")
    parts = copy_of_run(lab, tmp_path.name, up_to=0)
    rewards = RewardConfig(
        terms=(RewardTerm(reward), RewardTerm("format", weight=0.1)), workers=2, **limits
    )
    parts = replace(parts, config=replace(parts.config, rewards=rewards))
    share_programs(monkeypatch, lab)
    try:
        with train.open_run(parts) as (run, _):
            (tmp_path / "calls").write_bytes(b"")  # those of the trial do not count
            train.reinforce(run, put_whole(lab.imitated_copy, parts.mesh))
    finally:
        lab.bad_records = read_records(parts.config.run_dir / "metrics.jsonl")
    return lab.bad_records


@pytest.mark.parametrize(
    ("reward", "kind", "count"), [(HANGS, "timeout", 3), (DIES, "crash", 3), (EATS, "crash", 3)]
)
def test_a_scorer_that_fails_in_the_middle_costs_its_answers_and_no_more(
    lab, monkeypatch, tmp_path, caplog, reward, kind, count
):
    """Three answers of the third step have no reward; the steps before and after are whole."""
    found = reinforce_with(lab, monkeypatch, tmp_path, reward, timeout_seconds=1.0)
    assert [record[f"rewards/{reward}/{kind}"] for record in found] == [0, 0, count, 0, 0, 0]
    assert all(np.isfinite(record["grad_norm"]) for record in found)
    assert any("3 answers could not be scored" in message for message in caplog.messages)
    assert any(f"reward '{reward}', answer" in message for message in caplog.messages)


def test_no_step_waits_longer_than_its_limit(lab, monkeypatch, tmp_path):
    """What is left when the step's time is over counts as timed out, and the next step is whole."""
    limits = {"timeout_seconds": 500.0, "step_seconds": 5.0}
    found = reinforce_with(lab, monkeypatch, tmp_path, HANGS, calls=2, **limits)
    lost = [record[f"rewards/{HANGS}/timeout"] for record in found]
    assert lost[:2] == [0, 0]
    assert lost[2] >= 2  # both workers hang
    assert max(record["seconds/reward"] for record in found) < 5.0 + 15  # on a busy machine
    assert lost[-1] == 0


def test_a_scorer_that_returns_the_wrong_length_stops_the_run_at_once(lab, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"'sometimes_bad:lies' returned 2 values for 1 answer"):
        reinforce_with(lab, monkeypatch, tmp_path, "sometimes_bad:lies")
    assert [record["step"] for record in lab.bad_records] == [STEPS, STEPS + 1]


def test_samples_show_prompt_answers_rewards_and_advantages(lab):
    shown = lab.run_dir / "samples" / f"step_{STEPS + 3:06d}"
    assert (shown / "image.png").stat().st_size > 0
    tree = json.loads((shown / "tree.json").read_text())
    assert tree["question"].startswith("Where is the ")
    assert len(tree["truth"]) == 4
    assert [len(thought["answers"]) for thought in tree["thoughts"]] == [2, 2]
    answer = tree["thoughts"][0]["answers"][0]
    assert answer["reward"] == pytest.approx(
        answer["terms"]["box_iou"] + 0.1 * answer["terms"]["format"]
    )
    assert abs(sum(thought["advantage"] for thought in tree["thoughts"])) < 1e-6
