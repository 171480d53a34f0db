"""`gmma sweep EXPERIMENT`: run what is not done yet, then the table, the plots and `sweep.json`."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from gmma.commands import use_compilation_cache
from gmma.config import ExperimentConfig, of_its_types
from gmma.errors import UserError
from gmma.files import check_output, write_whole
from gmma.options.arguments import Share, SweepOptions, parse_share
from gmma.options.parsing import TRUTHS, parse, split_experiment
from gmma.records.console import print_table
from gmma.records.wandb_run import check_wandb
from gmma.run.experiments import Maker, line_of, load_maker, take_parameters
from gmma.sweep.arms import START, SWEEP_FILE, Sweep, SweepRun, sweep_runs
from gmma.sweep.grid_run import GridTimes, compare_with_runs, run_grid
from gmma.sweep.plots import plot_sweep
from gmma.sweep.queue import check_runs, run_queue
from gmma.sweep.results import sweep_record
from gmma.sweep.tables import print_sweep, sweep_markdown

CODE_SOME_FAILED = 1


@dataclass(frozen=True, kw_only=True)
class SweepArguments:
    """Options of the command, and fields of the experiment that its arms change, as for train."""

    own: Annotated[SweepOptions, tyro.conf.arg(name="")] = field(default_factory=SweepOptions)
    base: Annotated[ExperimentConfig, tyro.conf.arg(name="")]  # what every arm changes


def make_sweep(maker: Maker, values: dict[str, Any]) -> Sweep:
    """Call `sweep()` of an experiment file. Raises UserError unless it returns a Sweep."""
    sweep = maker(**values)
    if not isinstance(sweep, Sweep):
        raise UserError(f"sweep() of {maker.path} returned {type(sweep).__name__}, not a Sweep")
    return replace(sweep, base=of_its_types(sweep.base, maker.path))


def load_sweep(path: Path, arguments: Sequence[str]) -> tuple[Sweep, SweepOptions]:
    """Make the sweep of a file, its base with the line's fields, and the command's options."""
    prog = f"gmma sweep {path}"
    maker = load_maker(path, "sweep", "a Sweep")
    values = take_parameters(maker, arguments, prog)
    sweep = make_sweep(maker, values)
    default = SweepArguments(base=sweep.base)
    given: SweepArguments = parse(line_of(maker, values, default), arguments, prog=prog)
    return replace(sweep, base=checked_base(sweep, given.base)), given.own


def sweep_command(arguments: Sequence[str]) -> None:
    """Run `gmma sweep EXPERIMENT [--workers N] [--field value …]`; start it again to continue.

    `--dry-run` prints the runs and stops; `--results` leaves out what is not done. For arms that
    differ in `tree.answers` alone, `--one-program` trains them and their seeds side by side
    (`grid.py`), and `--compare` times that against the same runs one after another.
    """
    path, rest = split_experiment(arguments, "sweep")
    sweep, given = load_sweep(path, rest)
    runs = sweep_runs(sweep)
    check_runs(runs)
    check_output("runs_dir", sweep.directory, directory=True)
    check_output("data_dir", sweep.base.launch.data_dir, directory=True)
    if not (given.dry_run or given.results):
        check_wandb(sweep.base.launch.wandb)
    if given.dry_run:
        for run in runs:
            print(f"{'done   ' if run.is_done() else 'to do  '} {run.config.name}: {run.arm}")
    elif given.compare:
        train_starts(sweep, runs, given.workers)
        print_grid_times(compare_with_runs(cells_of(runs)))
    elif given.one_program:
        train_starts(sweep, runs, given.workers)
        if not all(run.is_done() for run in runs):
            use_compilation_cache(cells_of(runs)[0])
            try:
                run_grid(cells_of(runs))
            finally:  # what ended one cell takes nothing from the others
                if any(run.is_done() for run in runs):
                    show_results(sweep, runs, arguments)
        else:
            show_results(sweep, runs, arguments)
    elif given.results:
        show_results(sweep, runs, arguments)
    else:
        failed = run_queue(sweep, runs, given.workers, parse_share(given.share))
        show_results(sweep, runs, arguments)
        end_with(failed)


def checked_base(sweep: Sweep, given: ExperimentConfig) -> ExperimentConfig:
    """Return the base with the command line's fields. Raises UserError for one without effect."""
    for name in ("name", "seed"):
        if getattr(given, name) != getattr(sweep.base, name):
            raise UserError(
                f"--{name} has no effect on a sweep, which names and seeds its runs itself: "
                f"change sweep() in the experiment file, or give another --runs-dir"
            )
    return given


def cells_of(runs: Sequence[SweepRun]) -> list[ExperimentConfig]:
    """Return the runs of a sweep that one program trains side by side."""
    return [run.config for run in runs if run.arm != START]


def train_starts(sweep: Sweep, runs: Sequence[SweepRun], workers: int) -> None:
    """Train the SFT that cells continue from, each a run of its own."""
    starts = [run for run in runs if run.arm == START]
    end_with(run_queue(sweep, starts, workers, Share(index=0, count=1)))


def end_with(failed: Sequence[SweepRun]) -> None:
    """Exit with code 1 where a run failed."""
    if failed:
        names = ", ".join(run.config.name for run in failed)
        print(f"gmma sweep: failed: {names}; start it again to retry them", file=sys.stderr)
        raise SystemExit(CODE_SOME_FAILED)


def show_results(sweep: Sweep, runs: Sequence[SweepRun], arguments: Sequence[str]) -> None:
    """Write `sweep.json`, `sweep.md`, `sweep.png` and print the tables of the runs done."""
    record = sweep_record(sweep, runs, repeating(arguments))
    if not record["arms"]:
        raise UserError(f"no run of {sweep.directory} is done yet; run it without --results")
    figures, page = sweep.directory / SWEEP_FILE, sweep.directory / "sweep.md"
    write_whole(figures, json.dumps(record, indent=1))
    write_whole(page, sweep_markdown(record))
    print_sweep(record)
    picture = sweep.directory / "sweep.png"
    plot_sweep(record, sweep.directory, picture)
    print(f"every figure: {figures}; tables: {page}; plots: {picture}")


def repeating(arguments: Sequence[str]) -> str:
    """Return the command that goes on with the whole sweep, or repeats it."""
    kept, words = ["gmma", "sweep"], list(arguments)
    while words:
        word = words.pop(0)
        name, given, _ = word.partition("=")
        if name not in ("--share", "--results"):
            kept.append(word)
        elif not given and words and (name == "--share" or words[0] in TRUTHS):
            words.pop(0)
    return shlex.join(kept)


def print_grid_times(times: GridTimes) -> None:
    """Print both ways side by side."""
    rows = [
        ["one program", f"{times.grid_seconds:.1f}", str(times.grid_compilations)],
        [
            f"{times.runs} runs one after another",
            f"{times.runs_seconds:.1f}",
            str(times.runs_compilations),
        ],
        ["ratio", f"{times.grid_seconds / times.runs_seconds:.2f}", ""],
    ]
    print_table(f"{times.steps} steps each, compilation included", ["", "s", "compiled"], rows)
