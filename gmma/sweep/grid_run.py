"""`gmma sweep … --one-program`: runs that differ in seed and answers per thought, side by side.

Every cell leaves what its own run would: config, records, evaluations, a checkpoint at the end.
Rewards are text, so a step is two programs with the host's scoring between them.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmma.config import (
    ExperimentConfig,
    MeshConfig,
    config_to_json,
    job_to_json,
    launch_to_json,
    with_launch,
)
from gmma.errors import UserError
from gmma.files import RunPath
from gmma.hardware.preemption import NotFinite
from gmma.hardware.sharding import make_mesh
from gmma.records import checkpoint
from gmma.records.checkpoint import Progress
from gmma.records.diagnostics import RunningMean, spike_score
from gmma.records.health import first_not_finite, not_finite
from gmma.records.metrics import Record, Writer, compilations, compute, merge, open_writer
from gmma.rewards.service import Scorer
from gmma.run.assembly import Parts, assemble, run_scorer
from gmma.run.data import ExampleBatch
from gmma.run.evaluate import Evaluation, Evaluator, make_evaluator, save_evaluation
from gmma.run.feed import content_of, read_batches, read_prompts
from gmma.run.preflight import check_origin, check_run
from gmma.run.state import first_params, kept, whole_params
from gmma.run.summary import evaluation_path
from gmma.scoring import counted_answers, measure, read_texts, rollout_metrics, score_answers
from gmma.sweep.grid import GridPrograms, grid_programs
from gmma.train import train, validate
from gmma.types import Metric, Params, PyTree, TrainState, TreeRollout

Beginning = tuple[int, RunPath | None]
FREE = ("name", "seed", "init_from")  # what cells may differ in, beside tree.answers


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the grid on the host."""

    parts: Parts
    writer: Writer
    evaluate: Evaluator

    @property
    def config(self) -> ExperimentConfig:
        """The run's own config."""
        return self.parts.config


def check_cells(configs: Sequence[ExperimentConfig]) -> None:
    """Check that cells are RL without own SFT, differ in seed and M alone, and have not begun."""

    def common(config: ExperimentConfig) -> Mapping[str, Any]:
        same = {name: getattr(configs[0], name) for name in FREE}
        tree = replace(config.tree, answers=configs[0].tree.answers)
        return job_to_json(replace(config, tree=tree, **same))

    for config in configs:
        if common(config) != common(configs[0]):
            raise UserError(
                f"{config.name} and {configs[0].name} differ in more than seed and tree.answers; "
                "run the sweep without --one-program"
            )
        if config.sft.steps or not config.rl.steps:
            raise UserError(f"{config.name}: one program is for RL from a given start")
        if config.run_dir.exists():
            raise UserError(
                f"{config.run_dir} exists, and a grid in one program does not resume; remove it, "
                "or run the sweep without --one-program"
            )


def assemble_cells(configs: Sequence[ExperimentConfig]) -> list[Parts]:
    """Assemble each cell's parts on one device; those of a seed are assembled once."""
    by_seed: dict[int, Parts] = {}
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    for config in configs:
        if config.seed not in by_seed:
            by_seed[config.seed] = replace(assemble(config), mesh=mesh)
    return [replace(by_seed[config.seed], config=config) for config in configs]


def run_grid(configs: Sequence[ExperimentConfig]) -> list[Record]:
    """Train all cells together, and return the last record of each.

    Raises UserError where they cannot be one program, before anything is written.
    """
    check_cells(configs)
    parts = assemble_cells(configs)
    most = max(config.tree.answers for config in configs)
    programs = grid_programs(parts[0], most)
    with ExitStack() as stack:
        scorer = stack.enter_context(run_scorer(configs[0]))
        for own in {own.config.seed: own for own in parts}.values():
            check_run(own, scorer)
            check_origin(own)
        evaluate = make_evaluator(parts[0])
        content = content_of(parts[0])
        for config in configs:
            given, launch = config_to_json(config), launch_to_json(config.launch)
            stack.enter_context(checkpoint.hold_run(config.run_dir, given, launch, content))
        cells = [
            Cell(
                parts=own,
                writer=stack.enter_context(open_writer(own.config.run_dir, before_step=0)),
                evaluate=evaluate,
            )
            for own in parts
        ]
        beginnings = starting_params(parts)
        evaluate_beginnings(cells, beginnings)
        states = programs.start(stacked(beginnings))
        states, records = train_cells(cells, programs, scorer, states)
        unsound = [finish(cell, cell_of(states, at), records[at]) for at, cell in enumerate(cells)]
    ended = [end for end in unsound if end is not None]
    if ended:
        raise NotFinite(" ".join(map(str, ended)))
    return records


def starting_params(parts: Sequence[Parts]) -> list[Params]:
    """Return each cell's initial parameters; cells that begin alike read or make them once."""
    known: dict[Beginning, Params] = {}
    for own in parts:
        if beginning_of(own.config) not in known:
            known[beginning_of(own.config)] = first_params(own)
    return [known[beginning_of(own.config)] for own in parts]


def beginning_of(config: ExperimentConfig) -> Beginning:
    """Return what tells the initial parameters of two cells apart."""
    return config.seed, config.init_from


def evaluate_beginnings(cells: Sequence[Cell], beginnings: Sequence[Params]) -> None:
    """Evaluate the test split before the first step, as a run does after its SFT."""
    known: dict[Beginning, Evaluation] = {}
    for cell, params in zip(cells, beginnings, strict=True):
        own = beginning_of(cell.config)
        if own not in known:
            known[own] = cell.evaluate(params, "test")
        path = evaluation_path(cell.config, "sft")
        save_evaluation(path, known[own])


def train_cells(
    cells: Sequence[Cell], programs: GridPrograms, scorer: Scorer, states: PyTree
) -> tuple[PyTree, list[Record]]:
    """Take all steps of all cells."""
    config = cells[0].config
    streams = {cell.config.seed: read_batches(cell.parts, "rl") for cell in cells}
    norms = [RunningMean() for _ in cells]
    records: list[Record] = [{} for _ in cells]
    every = config.evaluation.every_steps
    for step in range(config.rl.steps + 1):
        for at, cell in enumerate(cells):
            if every and step % every == 0:
                params = whole_params(cell_of(states, at))
                moment = f"rl_step_{step:06d}"
                records[at] |= validate(cell.config, cell.evaluate, params, moment)
            if step:
                cell.writer.write(records[at])
        if step == config.rl.steps:
            break
        batches = {seed: next(stream) for seed, stream in streams.items()}
        states, records = step_cells(cells, programs, scorer, states, batches, step)
        for at, record in enumerate(records):
            norms[at], record["grad_spike_score"] = spike_score(norms[at], record["grad_norm"])
    return states, records


def step_cells(
    cells: Sequence[Cell],
    programs: GridPrograms,
    scorer: Scorer,
    states: PyTree,
    batches: Mapping[int, ExampleBatch],
    step: int,
) -> tuple[PyTree, list[Record]]:
    """Take one step of every cell; the states are donated. Seconds are those of all cells."""
    started, compiled = time.monotonic(), compilations()
    prompts_of = {
        seed: read_prompts(cell.parts, batches[seed].examples)
        for seed, cell in {cell.config.seed: cell for cell in cells}.items()
    }
    prompts = jax.device_put(stacked([prompts_of[cell.config.seed] for cell in cells]))
    seeds = jnp.asarray([cell.config.seed for cell in cells], jnp.uint32)
    rollouts = programs.grow(states, prompts, seeds, jnp.uint32(step))
    held = jax.device_get(rollouts)
    grown = time.monotonic()
    scored = [
        score_cell(cell, scorer, batches[cell.config.seed], own_rollout(cell, cell_of(held, at)))
        for at, cell in enumerate(cells)
    ]
    most = held.answers.shape[3]
    rewards = jnp.asarray([widen(rewards, most, 0.0) for rewards, _, _ in scored])
    counted = jnp.asarray([widen(counts, most, False) for _, counts, _ in scored])
    seconds = {"rollout": grown - started, "reward": time.monotonic() - grown}
    own = jnp.asarray([cell.config.tree.answers for cell in cells], jnp.int32)
    states, metrics = programs.learn(states, prompts, rollouts, rewards, counted, own)
    measured = jax.device_get(metrics)
    whole = time.monotonic() - started
    seconds["update"] = whole - sum(seconds.values())
    times = {f"seconds/{part}": value for part, value in seconds.items()}
    clocked = {**times, "step_time": whole, "compilations": compilations() - compiled}
    place = {"step": step, "phase": "rl"}
    records = [
        {**place, **compute(reduce(merge, (cell_of(measured, at), *found))), **clocked}
        for at, (_, _, found) in enumerate(scored)
    ]
    return states, records


def own_rollout(cell: Cell, rollout: TreeRollout) -> TreeRollout:
    """Remove the answers that the cell does not have from a fetched rollout."""
    own = cell.config.tree.answers
    return replace(
        rollout,
        answers=rollout.answers[:, :, :own],
        answer_lengths=rollout.answer_lengths[:, :, :own],
        answer_logprobs=rollout.answer_logprobs[:, :, :own],
        finished=rollout.finished[:, :, :own],
    )


def score_cell(
    cell: Cell, scorer: Scorer, batch: ExampleBatch, rollout: TreeRollout
) -> tuple[np.ndarray, np.ndarray, tuple[dict[str, Metric], ...]]:
    """Return rewards and which count, `[B K M]` of the cell's own M, and the metrics of both."""
    config = cell.config
    texts = read_texts(rollout, cell.parts.tokenizer)
    measured = measure(score_answers(scorer, batch.examples, rollout, texts), rollout)
    rewards = measured.scores.rewards
    counted, dropped = counted_answers(
        rewards,
        measured.closed,
        drop_unclosed=config.tree.unfinished == "drop",
        min_scored=config.rewards.min_scored,
    )
    return rewards, counted, (rollout_metrics(measured, counted), dropped)


def widen(values: np.ndarray, most: int, fill: float | bool) -> np.ndarray:
    """Widen `[B K M]` to `[B K most]`."""
    room = [(0, 0), (0, 0), (0, most - values.shape[2])]
    return np.pad(values, room, constant_values=fill)


def stacked(trees: Sequence[PyTree]) -> PyTree:
    """Stack cells along a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def cell_of(tree: PyTree, at: int) -> Any:
    """Return one cell of them."""
    return jax.tree.map(lambda leaf: leaf[at], tree)


def finish(cell: Cell, state: TrainState, record: Record) -> NotFinite | None:
    """Save the cell's checkpoint and evaluate it on the test split; return why if it cannot."""
    config = cell.config
    array = first_not_finite(state)
    if array is not None:
        return not_finite(record, f"{config.name}: {array} holds a value that is not finite", None)
    cell.writer.flush()
    with checkpoint.open_checkpoints(config.run_dir, config.checkpoint) as manager:
        progress = Progress(phase="rl", phase_step=config.rl.steps, data={})
        best = record.get(config.checkpoint.best_metric)
        checkpoint.save(manager, config.rl.steps, kept(cell.parts, state), progress, best)
    evaluation = cell.evaluate(whole_params(state), "test")
    save_evaluation(evaluation_path(config, "rl"), evaluation)
    return None


@dataclass(frozen=True, kw_only=True)
class GridTimes:
    """A grid in one program, and its runs one after another; compilation included."""

    runs: int
    steps: int
    grid_seconds: float
    grid_compilations: int  # of programs of every size, evaluation's too
    runs_seconds: float
    runs_compilations: int


def compare_with_runs(configs: Sequence[ExperimentConfig]) -> GridTimes:
    """Time both without any cache; what they write is thrown away.

    Each run is trained by the ordinary loop, its programs compiled anew, as in a process of its
    own, whose start and imports are not counted. Both evaluate one example before the first step
    and one at the end.
    """
    jax.config.update("jax_enable_compilation_cache", False)

    def bare(config: ExperimentConfig, home: str) -> ExperimentConfig:
        evaluation = replace(config.evaluation, every_steps=0, examples=1, samples=1)
        less = replace(config, evaluation=evaluation, samples_every_steps=0)
        return with_launch(less, runs_dir=Path(home))

    def timed(run: Callable[[], object]) -> tuple[float, int]:
        jax.clear_caches()
        started, compiled = time.monotonic(), compilations()
        with redirect_stdout(io.StringIO()):
            run()
        return time.monotonic() - started, compilations() - compiled

    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        grid = timed(lambda: run_grid([bare(config, one) for config in configs]))
        runs = [timed(partial(train, bare(config, other))) for config in configs]
    return GridTimes(
        runs=len(configs),
        steps=configs[0].rl.steps,
        grid_seconds=grid[0],
        grid_compilations=grid[1],
        runs_seconds=sum(seconds for seconds, _ in runs),
        runs_compilations=sum(compiled for _, compiled in runs),
    )
