"""`gmma sweep … --one-program`: runs that differ in seed and answers per thought, side by side.

Every cell is a run in a thread of its own: the loop, the step and the files of `gmma train`. The
cells meet where a step calls the rollout and the update, which are one program for all (`grid.py`).
A grid that was ended goes on, each cell from its own newest checkpoint (law L8).
"""

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax

from gmma.config import (
    ExperimentConfig,
    MeshConfig,
    WandbConfig,
    config_to_json,
    job_to_json,
    launch_to_json,
    with_launch,
)
from gmma.errors import UserError
from gmma.files import RunPath
from gmma.hardware.hosts import watch_signals
from gmma.hardware.preemption import Ended
from gmma.hardware.sharding import make_mesh
from gmma.records import checkpoint
from gmma.records.checkpoint import Progress
from gmma.records.console import no_display, open_display, say
from gmma.records.metrics import compilations
from gmma.records.resuming import check_start, hold_run
from gmma.records.wandb_run import check_wandb
from gmma.rewards.service import SharedScorer
from gmma.run.assembly import Parts, assemble, run_scorer
from gmma.run.evaluate import Evaluator, make_evaluator
from gmma.run.feed import content_of
from gmma.run.preflight import check_origin, check_run
from gmma.run.programs import Programs, Trainer, make_rl_trainer
from gmma.run.state import first_params, whole_params
from gmma.run.summary import evaluation_path
from gmma.sweep.grid import Gang, cell_programs, check_grid
from gmma.train import (
    Phase,
    Run,
    begin_rl,
    evaluate_after,
    open_records,
    resume_rl,
    run_phase,
    train,
)
from gmma.types import Params, TrainState

Beginning = tuple[int, RunPath | None]
FREE = ("name", "seed", "init_from")  # what cells may differ in, beside tree.answers


def check_cells(configs: Sequence[ExperimentConfig]) -> None:
    """Check that cells are RL without own SFT, and differ in seed and M alone, or UserError."""

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
        buckets = getattr(config.model, "image_buckets", None) or ()
        if len(buckets) > 1:
            raise UserError(
                f"{config.name}: model.image_buckets = {buckets}; one program for a grid of runs "
                "has one size of images: give one, or run the sweep without --one-program"
            )
        if config.sft.steps or not config.rl.steps:
            raise UserError(f"{config.name}: one program is for RL from a given start")


def assemble_cells(configs: Sequence[ExperimentConfig]) -> list[Parts]:
    """Assemble each cell's parts on one device; those of a seed are assembled once."""
    by_seed: dict[int, Parts] = {}
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    for config in configs:
        if config.seed not in by_seed:
            by_seed[config.seed] = replace(assemble(config), mesh=mesh)
    return [replace(by_seed[config.seed], config=config) for config in configs]


def run_grid(configs: Sequence[ExperimentConfig]) -> None:
    """Train all cells together, each by the steps and in the files of a run of its own.

    Raises UserError where they cannot be one program, before anything is written; what ended some
    cells (NotFinite, Unscored, Preempted) behind the end of all.
    """
    check_cells(configs)
    check_grid(configs[0])
    for config in configs:
        check_start(config.run_dir, True, config_to_json(config))
    check_wandb(configs[0].launch.wandb)
    parts = assemble_cells(configs)
    gang = Gang(len(configs))
    with ExitStack() as stack:
        scorer = stack.enter_context(run_scorer(configs[0]))
        for own in {own.config.seed: own for own in parts}.values():
            check_run(own, scorer)
        begun = [bool(checkpoint.checkpoint_steps(config.run_dir)) for config in configs]
        check_beginnings([own for own, known in zip(parts, begun, strict=True) if not known])
        content = content_of(parts[0])
        for config in configs:
            launch = launch_to_json(config.launch)
            held = hold_run(config.run_dir, config_to_json(config), launch, content)
            stack.enter_context(held)
        latest = [checkpoint.newest_whole(config.run_dir) for config in configs]
        unfinished = [(step or 0) < configs[0].rl.steps for step in latest]
        shown = unfinished.index(True) if any(unfinished) else 0
        common = Common(
            scorer=SharedScorer(scorer),
            evaluate=make_evaluator(parts[0]),
            save=partial(save_alone, threading.Lock()),
        )
        programs = cell_programs(gang, parts, make_rl_trainer(parts[0]))
        runs = [
            stack.enter_context(open_cell(common, own, *called, step or 0, shown=place == shown))
            for place, (own, called, step) in enumerate(zip(parts, programs, latest, strict=True))
        ]
        with watch_signals():
            errors = train_threads(gang, begin_cells(runs, latest))
    raise_first(errors)


def check_beginnings(cells: Sequence[Parts]) -> None:
    """Check what cells without a checkpoint begin from, once for those that begin alike.

    Raises UserError also for one that is done: it would be trained anew beside its evaluation.
    """
    for own in cells:
        if evaluation_path(own.config, "rl").exists():
            raise UserError(
                f"{own.config.run_dir} is done and has no checkpoint left, so it cannot stand "
                "among the cells of one program; run the sweep without --one-program, or move it "
                "away to train it again"
            )
    for own in {(own.config.seed, own.config.init_from): own for own in cells}.values():
        check_origin(own)


@dataclass(frozen=True, kw_only=True)
class Common:
    """Services that all cells share."""

    scorer: SharedScorer
    evaluate: Evaluator
    save: Callable[..., None]


@contextmanager
def open_cell(
    common: Common, own: Parts, programs: Programs, trainer: Trainer, step: int, *, shown: bool
) -> Iterator[Run]:
    """Open a cell's records, behind so many steps, and its checkpoints; one cell is shown."""
    config = own.config
    with ExitStack() as stack:
        yield Run(
            parts=own,
            programs=programs,
            scorer=common.scorer,
            evaluate=common.evaluate,
            writer=stack.enter_context(open_records(config, step)),
            checkpoints=stack.enter_context(
                checkpoint.open_checkpoints(config.run_dir, config.checkpoint)
            ),
            display=open_display if shown else no_display,
            say=say if shown else lambda words: None,
            save=common.save,
            rl_trainer=trainer,
        )


Cell = tuple[Run, Phase, TrainState, Progress]


def begin_cells(runs: Sequence[Run], latest: Sequence[int | None]) -> list[Cell]:
    """Make each cell ready for its next step: from its checkpoint, or from its start.

    Cells that begin alike read or make their parameters once.
    """
    known: dict[Beginning, Params] = {}

    def begin(run: Run, step: int | None) -> Cell:
        if step is not None:
            progress = checkpoint.restore_progress(run.checkpoints, step)
            return run, *resume_rl(run, step), progress
        beginning = run.parts.config.seed, run.parts.config.init_from
        if beginning not in known:
            known[beginning] = first_params(run.parts)
        return run, *begin_rl(run, known[beginning])

    return [begin(run, step) for run, step in zip(runs, latest, strict=True)]


def train_threads(gang: Gang, cells: Sequence[Cell]) -> list[BaseException]:
    """Train each cell in a thread of its own; return what some of them raised.

    All threads live until the last cell has ended: a reward worker that one of them started ends
    with its thread. Where this one is interrupted, all cells stop at their next program.
    """
    with ThreadPoolExecutor(len(cells)) as threads:
        ends = [threads.submit(train_cell, gang, at, *cell) for at, cell in enumerate(cells)]
        try:
            wait(ends)
        except BaseException as error:
            gang.stop(error)
            raise
    raised = (end.exception() for end in ends)
    return [error for error in raised if error is not None]


def raise_first(errors: Sequence[BaseException]) -> None:
    """Raise a mistake before the ends that runs have by themselves, and these in one message."""
    ended = [error for error in errors if isinstance(error, Ended)]
    for error in errors:
        if error not in ended:
            raise error
    if ended:
        raise type(ended[0])("; ".join(map(str, ended)))


def train_cell(
    gang: Gang, at: int, run: Run, phase: Phase, state: TrainState, progress: Progress
) -> None:
    """Train one cell as `train.train` does, between the evaluations of a run."""
    try:
        if progress.phase_step == 0:
            evaluate_after(run, "sft", whole_params(state))
        state = run_phase(run, phase, state, progress)
    except Ended as error:
        raise type(error)(f"{run.parts.config.name}: {error}") from error
    finally:
        gang.leave(at)
    evaluate_after(run, "rl", whole_params(state))


def save_alone(free: threading.Lock, manager: Any, *given: Any) -> None:
    """Write a checkpoint while no other cell does: Orbax numbers saves by process."""
    with free:
        checkpoint.save(manager, *given)
        manager.wait_until_finished()


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
        return with_launch(less, runs_dir=Path(home), wandb=WandbConfig())

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
