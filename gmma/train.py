"""The straight line: record → prompt → tree → rewards → advantages → packed tree → update.

rl_step          the line itself, one call a row: read this first
sft_step         the same for a demonstration
run_phase        steps, records, checkpoints
train            a whole run: SFT, then RL, an evaluation after each
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gmma.config import (
    ExperimentConfig,
    PhaseConfig,
    config_to_json,
    launch_to_json,
)
from gmma.errors import UserError
from gmma.hardware import preemption
from gmma.hardware.hosts import (
    bounded_end,
    leader_alone,
    leader_first,
    leads,
    stop_here,
    stop_requested,
    wait_for_all,
    watch_signals,
)
from gmma.hardware.sharding import put_batch
from gmma.records import checkpoint
from gmma.records.checkpoint import Progress
from gmma.records.console import Display, open_display, print_buckets, say, warn
from gmma.records.diagnostics import advantage_metrics, drift_metrics, spike_score
from gmma.records.health import (
    Health,
    check_health,
    first_not_finite,
    is_finite,
    is_ill,
    not_finite,
)
from gmma.records.metrics import (
    SILENT,
    Writer,
    compilations,
    compute,
    join_writers,
    merge,
    open_writer,
)
from gmma.records.pace import (
    Estimate,
    Event,
    Pace,
    clock_record,
    coming,
    estimate,
    lap,
    mark_now,
    timed,
)
from gmma.records.profile import Steps, Trace, check_traced, open_trace, untraced
from gmma.records.resuming import CONFIG_FILE, check_start, hold_run
from gmma.records.wandb_run import check_wandb, open_wandb
from gmma.rewards.service import Scorer
from gmma.run.assembly import Parts, assemble, own_terms, run_scorer
from gmma.run.data import ExampleBatch
from gmma.run.evaluate import Evaluator, make_evaluator, save_evaluation, summarise
from gmma.run.feed import PhaseName, content_of, read_batches, read_demonstrations, read_prompts
from gmma.run.lengths import first_rows
from gmma.run.preflight import check_origin, check_run, check_settings, unknown_metric
from gmma.run.programs import (
    Programs,
    Trainer,
    make_programs,
    make_rl_trainer,
    make_sft_trainer,
    needs_reference,
)
from gmma.run.reward_trial import alike_words, count_alike
from gmma.run.samples import ScoredTrees, completion_rows, write_tree
from gmma.run.state import first_params, kept, restore, whole_params
from gmma.run.summary import evaluation_path, print_summary
from gmma.run.trees import (
    collect_trees,
    collected_metrics,
    grow_trees,
    shown_trees,
    spent_seconds,
)
from gmma.types import Advantages, Metrics, Params, TrainState


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's parts and open services."""

    parts: Parts
    programs: Programs
    scorer: Scorer
    evaluate: Evaluator
    writer: Writer
    checkpoints: ocp.CheckpointManager
    display: Display = open_display
    say: Callable[[str], None] = say
    save: Callable[..., None] = checkpoint.save
    trace: Trace = untraced
    rl_trainer: Trainer | None = None  # None: the run's own


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Result of a step: the state, metrics that may still be computing, and what to show."""

    state: TrainState
    metrics: tuple[Metrics, ...]  # of each update, and the host's
    seconds: dict[str, float]  # per part of the step
    trees: ScoredTrees | None = None


def rl_step(
    run: Run,
    trainer: Trainer,
    reference: Params | None,
    state: TrainState,
    batches: Iterator[ExampleBatch],
    step: int,
) -> StepResult:
    """Take one step of GRPO-MA; the state is donated. The reference is there where β > 0.

    The trees of one batch, or with dynamic sampling of more, are dealt into minibatches; each is
    one update, `num_iterations` times over. All old log-probs are those of the step's first state.
    """
    parts, programs = run.parts, run.programs
    grow = partial(grow_trees, parts, programs, run.scorer, whole_params(state), step)
    trees, collected = collect_trees(parts, grow, programs.place, batches)
    advantages = programs.credit(trees.rewards, trees.counted)
    spread = advantage_metrics(advantages, trees.counted)
    dealt = deque(programs.deal(programs.pack(trees.prompts, trees.rollout, advantages)))
    del trees  # with their images: an update reads its minibatch alone
    minibatches = []
    while dealt:  # nothing holds one without its log-probs any longer
        minibatches.append(programs.baselines(state, reference, dealt.popleft()))
    updates = []
    for _ in range(parts.config.objective.num_iterations):
        for packed in minibatches:
            state, metrics = trainer.update(state, packed)
            updates.append(metrics)
    return StepResult(
        state=state,
        metrics=(*updates, drift_metrics(updates), collected_metrics(collected), spread),
        seconds=spent_seconds(collected),
        trees=shown_trees(collected, advantages, parts.mesh),
    )


def sft_step(
    run: Run, trainer: Trainer, state: TrainState, batches: Iterator[ExampleBatch], step: int
) -> StepResult:
    """Take one step of imitation: a demonstration is a tree with one thought and one answer."""
    parts, batch = run.parts, next(batches)
    shown = read_demonstrations(parts, batch)
    no_credit = Advantages(
        thought=np.zeros(shown.closed.shape, np.float32),
        answer=np.zeros(shown.finished.shape, np.float32),
    )
    shown, no_credit = put_batch((shown, no_credit), parts.mesh)
    prompts = put_batch(read_prompts(parts, batch.examples), parts.mesh)
    packed = run.programs.pack(prompts, shown, no_credit)
    state, metrics = trainer.update(state, packed)
    return StepResult(state=state, metrics=(metrics,), seconds={})


@dataclass(frozen=True, kw_only=True)
class Phase:
    """SFT or RL, ready to step."""

    name: PhaseName
    config: PhaseConfig
    first_step: int  # the run's step at which the phase begins
    take_step: Callable[[TrainState, Iterator[ExampleBatch], int], StepResult]
    also_saved: dict[str, Any]  # what a checkpoint holds beside the state
    evaluate_every_steps: int  # on the validation split, before the first step too; 0: never


def run_phase(run: Run, phase: Phase, state: TrainState, progress: Progress) -> TrainState:
    """Take the steps of a phase that are still to do; record each, checkpoint some.

    While the devices still update, the next batch is read; then the step's metrics are fetched.
    After checkpointing, raises Preempted on SIGTERM or Ctrl-C, UserError if RL has no metric that
    ranks checkpoints, and Unscored if no answer counts any more. Raises NotFinite without saving:
    the last checkpoint whose values were finite stays.
    """
    config = run.parts.config
    stream = read_batches(run.parts, phase.name)
    if progress.data:
        stream.set_state(progress.data)
    measured, health = set[str](), Health()  # names; steps in a row that are ill
    events: list[Event] = []  # since the last step
    if phase.evaluate_every_steps and progress.phase_step == 0:
        params, moment = whole_params(state), f"{phase.name}_step_000000"
        with timed(EVALUATION, events):
            measured |= validate(config, run.evaluate, params, moment).keys()
    batch, norms, alike = next(stream), progress.norms, 0
    pace, events, mark = Pace(events=tuple(events)), [], mark_now()
    with run.display(phase.name, progress.phase_step, phase.config.steps) as advance:
        for step in range(progress.phase_step, phase.config.steps):
            started, compiled = time.monotonic(), compilations()
            with run.trace(phase.name, phase.first_step + step):
                with transfer_guard():
                    result = phase.take_step(state, chain([batch], stream), step)
                position = stream.get_state()
                state, batch = result.state, next(stream)
                record = make_record(phase, step, result, started)
            norms, record["grad_spike_score"] = spike_score(norms, record["grad_norm"])
            record["compilations"] = compilations() - compiled
            record |= look(run, phase, state, result, step + 1, events)
            (pace, mark), events = lap(pace, mark, events), []
            left = time_left(config, phase, pace, step + 1)
            record |= clock_record(left)
            run.writer.write(record)
            health = health.with_record(record)
            measured |= record.keys() | {name for part in result.metrics for name in part}
            alike = count_alike(alike, config.rewards.alike_steps, record)
            if 0 < alike == config.rewards.alike_steps:
                warn(alike_words(alike, record))
            unknown = unknown_metric(config, measured) if phase.name == "rl" else None
            ends = step + 1 == phase.config.steps
            stops = stop_requested(phase.first_step + step + 1)
            due = is_due(step + 1, config.checkpoint.every_steps)
            if ends or stops or unknown or due or is_ill(health, config.stop):
                held = Progress(phase=phase.name, phase_step=step + 1, data=position, norms=norms)
                with timed(CHECKPOINT, events):
                    save_state(run, phase, state, held, record)
            advance(step + 1, record, left)
            check_health(health, config.stop, record, run.checkpoints.latest_step())
            if unknown:
                raise UserError(unknown)
            if stops:
                preemption.stop(f"after {phase.name} step {step + 1}, which is checkpointed")
    return state


def transfer_guard() -> AbstractContextManager[None]:
    """Make unnamed transfers an error; where nothing is jitted, every constant is one."""
    jitted = not jax.config.jax_disable_jit  # type: ignore[attr-defined]
    return jax.transfer_guard("disallow" if jitted else "allow")


def make_record(phase: Phase, step: int, result: StepResult, started: float) -> dict[str, Any]:
    """Make one line of metrics; fetching them waits for the update."""
    values = compute(reduce(merge, jax.device_get(result.metrics)))
    seconds = time.monotonic() - started
    parts = {**result.seconds, "update": seconds - sum(result.seconds.values())}
    spent = {f"seconds/{part}": value for part, value in parts.items()}
    place = {"step": phase.first_step + step, "phase": phase.name}
    return {**place, **values, **spent, "step_time": seconds}


EVALUATION, CHECKPOINT, TREE = "evaluation", "checkpoint", "tree"  # what comes between steps


def time_left(config: ExperimentConfig, phase: Phase, pace: Pace, done: int) -> Estimate:
    """Estimate the rest of a phase behind its step `done`, whose checkpoint is still to write."""
    total = phase.config.steps
    trees = config.samples_every_steps if phase.name == "rl" else 0
    events = {
        EVALUATION: coming(done, total, phase.evaluate_every_steps),
        TREE: coming(done, total, trees),
        CHECKPOINT: coming(done - 1, total, config.checkpoint.every_steps, at_end=True),
    }
    return estimate(pace, total - done, events)


def look(
    run: Run, phase: Phase, state: TrainState, result: StepResult, done: int, events: list[Event]
) -> dict[str, float]:
    """Write one tree to `samples/` and evaluate on the validation split, when due.

    Adds what each took to `events`.
    """
    config = run.parts.config
    if leads() and result.trees is not None and is_due(done, config.samples_every_steps):
        directory = config.run_dir / "samples" / f"step_{phase.first_step + done:06d}"
        with timed(TREE, events):
            write_tree(run.parts, result.trees, 0, directory)
            run.writer.completions(phase.first_step + done - 1, completion_rows(result.trees))
    if not is_due(done, phase.evaluate_every_steps):
        return {}
    moment = f"{phase.name}_step_{done:06d}"
    with timed(EVALUATION, events):
        return validate(config, run.evaluate, whole_params(state), moment)


def validate(
    config: ExperimentConfig, evaluate: Evaluator, params: Params, moment: str
) -> dict[str, float]:
    """Evaluate on the validation split; every example's values go to `evaluation/`."""
    evaluation = evaluate(params, "validation")
    if leads():
        path = evaluation_path(config, moment)
        save_evaluation(path, evaluation)
    summary = summarise(evaluation)
    return {f"eval_{name}": mean for name, (mean, _, _) in summary.items()}


def is_due(done: int, every: int) -> bool:
    """Return whether an event of every `every` steps is due now; 0: never."""
    return every > 0 and done % every == 0


def save_state(
    run: Run, phase: Phase, state: TrainState, progress: Progress, record: dict[str, Any]
) -> None:
    """Save a checkpoint under the run's step; RL ones are ranked by the configured metric.

    Raises NotFinite rather than save a value that is not: it would replace one that is.
    """
    saved = kept(run.parts, state) | phase.also_saved
    run.writer.flush()  # or a kill would lose events that are not written again
    array = first_not_finite(saved)
    if array is not None:
        what = f"{array} holds a value that is not finite"
        raise not_finite(record, what, run.checkpoints.latest_step())
    ranked = phase.name == "rl" and is_finite(record)
    best = record.get(run.parts.config.checkpoint.best_metric) if ranked else None
    step = phase.first_step + progress.phase_step
    run.save(run.checkpoints, step, saved, progress, best)


def train(config: ExperimentConfig, *, resume: bool = False, profile: Steps | None = None) -> None:
    """Train a whole run, or what is left of it: SFT, RL, an evaluation after each, their table.

    The steps of `profile`, first and last, are traced (`gmma/records/profile.py`).
    """
    check_traced(profile, config.sft.steps + config.rl.steps)
    launch = launch_to_json(config.launch)
    changes = check_start(config.run_dir, resume, config_to_json(config), launch)
    check_settings(config)
    if leads():
        check_wandb(config.launch.wandb)
    with leader_first("the dataset"):
        parts = assemble(config)
    if leads():
        print_buckets(parts.processor)
    if words := changes.words():
        say(f"resumed with other fields: {words}")
        if changes.ends and own_terms(config):
            say("rewards of your own that read `steps` were told the number before until now")
    with (
        watch_signals(),
        open_run(parts, profile, config) as (run, latest),
        bounded_end(config.launch.hosts),
    ):
        run.say(f"whole config: {config.run_dir / CONFIG_FILE}")  # which is there now
        stop_here("before its first step, with nothing to checkpoint")
        progress = Progress(phase="sft", phase_step=0, data={})
        if latest is not None:
            progress = checkpoint.restore_progress(run.checkpoints, latest)
        if latest is not None and progress.phase == "rl":
            params = continue_rl(run, progress, latest)
        else:
            params = imitate(run, progress, latest)
            evaluate_after(run, "sft", params)
            params = reinforce(run, params) if config.rl.steps else params
        if config.rl.steps:
            evaluate_after(run, "rl", params)
    if leads():
        print_summary(config)


@contextmanager
def open_run(
    parts: Parts, profile: Steps | None = None, given: ExperimentConfig | None = None
) -> Iterator[tuple[Run, int | None]]:
    """Open a run's workers and files; also the step of its newest checkpoint, if it has one.

    Nothing is written before everything that can be checked has been. The run keeps the config as
    it was `given`; that of the parts has copies in the place of paths that lead elsewhere.
    """
    config = parts.config
    with ExitStack() as stack:
        scorer = stack.enter_context(run_scorer(config))
        check_run(parts, scorer)
        if not checkpoint.checkpoint_steps(config.run_dir):
            check_origin(parts)
        wait_for_all("a run that can begin")
        written, launch = config_to_json(given or config), launch_to_json(config.launch)
        opened = partial(hold_run, config.run_dir, written, launch, content_of(parts))
        stack.enter_context(leader_alone(opened))
        latest = checkpoint.newest_whole(config.run_dir)
        manager = stack.enter_context(
            checkpoint.open_checkpoints(config.run_dir, config.checkpoint)
        )
        run = Run(
            parts=parts,
            programs=make_programs(parts),
            scorer=scorer,
            evaluate=make_evaluator(parts),
            writer=stack.enter_context(open_records(config, latest or 0)),
            checkpoints=manager,
            trace=stack.enter_context(open_trace(config.run_dir, profile)),
        )
        yield run, latest


@contextmanager
def open_records(config: ExperimentConfig, before_step: int) -> Iterator[Writer]:
    """Open what takes the run's metrics, on the host that leads."""
    if not leads():
        yield SILENT
        return
    with ExitStack() as stack:
        opened = [stack.enter_context(open_writer(config.run_dir, before_step=before_step))]
        if config.launch.wandb.project is not None:
            opened.append(stack.enter_context(open_wandb(config)))
        yield join_writers(opened)


def imitate(run: Run, progress: Progress, latest: int | None) -> Params:
    """Run SFT, from the newest checkpoint or from the start, and return whole parameters."""
    config, trainer = run.parts.config, make_sft_trainer(run.parts)
    if latest is None:
        state = trainer.start(first_params(run.parts))
    else:
        state, _ = restore(run.parts, trainer, run.checkpoints, latest, {})
    if not config.sft.steps:  # RL alone, which asks for no demonstrations
        return whole_params(state)
    phase = Phase(
        name="sft",
        config=config.sft,
        first_step=0,
        take_step=partial(sft_step, run, trainer),
        also_saved={},
        evaluate_every_steps=0 if config.rl.steps else config.evaluation.every_steps,
    )
    return whole_params(run_phase(run, phase, state, progress))


def reinforce(run: Run, params: Params) -> Params:
    """Run RL from these parameters, which also stay as the reference where one is needed."""
    return whole_params(run_phase(run, *begin_rl(run, params)))


def begin_rl(run: Run, params: Params) -> tuple[Phase, TrainState, Progress]:
    """Make RL ready to take its first step."""
    trainer = run.rl_trainer or make_rl_trainer(run.parts)
    state = trainer.start(params)
    # A copy of its own: the state begins with the same buffers and is donated to its update.
    reference = jax.tree.map(jnp.copy, params) if needs_reference(run.parts) else None
    progress = Progress(phase="rl", phase_step=0, data={})
    return rl_phase(run, trainer, reference), state, progress


def continue_rl(run: Run, progress: Progress, latest: int) -> Params:
    """Continue RL from the run's newest checkpoint."""
    return whole_params(run_phase(run, *resume_rl(run, latest), progress))


def resume_rl(run: Run, latest: int) -> tuple[Phase, TrainState]:
    """Make RL ready to go on from a checkpoint."""
    trainer = run.rl_trainer or make_rl_trainer(run.parts)
    wanted = {"reference": whole_params(trainer.abstract)} if needs_reference(run.parts) else {}
    state, beside = restore(run.parts, trainer, run.checkpoints, latest, wanted)
    return rl_phase(run, trainer, beside.get("reference")), state


def rl_phase(run: Run, trainer: Trainer, reference: Params | None) -> Phase:
    """Make RL ready to step."""
    config = run.parts.config
    return Phase(
        name="rl",
        config=config.rl,
        first_step=config.sft.steps,
        take_step=partial(rl_step, run, trainer, reference),
        also_saved={} if reference is None else {"reference": reference},
        evaluate_every_steps=config.evaluation.every_steps,
    )


def evaluate_after(run: Run, phase: str, params: Params) -> None:
    """Evaluate the test split after a phase; a run that resumes keeps the evaluation it has."""
    config = run.parts.config
    path = evaluation_path(config, phase)
    run.checkpoints.wait_until_finished()  # who sees the evaluation may go on from the checkpoint
    if not path.exists():
        count = len(first_rows(run.parts, "test", config.evaluation.examples))
        run.say(f"evaluating on {count} test examples …")
        between = partial(stop_here, f"in the evaluation after {phase}, which begins again")
        evaluation = run.evaluate(params, "test", between)
        if leads():
            save_evaluation(path, evaluation)
