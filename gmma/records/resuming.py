"""Find out how to start a run, and keep what it is: its config, its launch, a hash of its records.

How a run starts, in this order:

    1. `--resume` and the run has a checkpoint: go on from the newest whole one; newer ones, which
       are damaged, are moved aside.
    2. `--resume` without a checkpoint: start as if new.
    3. The run's directory holds a run and `--resume` is not given, or files of a run without its
       config: refuse; nothing is written over.
    4. `init_from` names another run: its newest parameters, a new optimiser, step 0.
    5. Otherwise: the parameters that the backbone starts from. The tiny family's are drawn anew,
       its patch stem taught where the task can; a ported family's are read from its directory, with
       new adapters on top where the run trains adapters.

What a resumed run may have otherwise stands beside the fields (`gmma/options/resuming.py`).
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from gmma.config import (
    ExperimentConfig,
    config_from_json,
    config_to_json,
    launch_from_json,
    launch_to_json,
    same_rates,
    updates_per_step,
)
from gmma.errors import UserError
from gmma.files import RunPath, lock_of, locked, read_json, write_whole
from gmma.options.resuming import END, NO_NUMBER, marked_fields
from gmma.records.checkpoint import checkpoint_steps, checkpoints_dir

CONFIG_FILE = "config.json"
LAUNCH_FILE = "launch.json"
CONTENT_FILE = "records.json"
RUN_FILES = ("checkpoints", "metrics.jsonl", "tensorboard", "samples", "evaluation")
OF_ONE_HOST = ("hosts/coordinator", "hosts/index")  # of a launch
PHASES: tuple[Literal["sft", "rl"], ...] = ("sft", "rl")


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Differences of a resumed run from what it was, in words: `rl.steps was 9, is 20`."""

    ends: list[str] = field(default_factory=list)  # of phases
    others: list[str] = field(default_factory=list)  # on which no number depends

    def words(self) -> str:
        """Return one line on all of them; "" for none."""
        said = []
        if self.ends:
            said.append(f"{'; '.join(self.ends)}: the steps that are done stay as they are")
        if self.others:
            said.append(f"{'; '.join(self.others)}: no number depends on it, beyond rounding")
        return ". ".join(said)


def check_start(
    run_dir: RunPath,
    resume: bool,
    config: Mapping[str, Any],
    launch: Mapping[str, Any] | None = None,
) -> Changes:
    """Apply rules 1–3 above, and return what is otherwise than the run was.

    Raises UserError rather than write over a run, or go on where its numbers would have been
    others. No launch is refused: each start has its own. A field that the version of the run had
    not has its default there, which changes no number: what is new is off until it is asked for.
    """
    saved = run_dir / CONFIG_FILE
    if not saved.exists():
        found = [name for name in RUN_FILES if (run_dir / name).exists()]
        if found:
            raise UserError(
                f"{run_dir} has {', '.join(found)} but no {CONFIG_FILE}, so it is no run that can "
                "be resumed; give another --name, or move it away"
            )
        return Changes()
    if not resume:
        raise UserError(
            f"{run_dir} already holds a run; give --resume to go on with it, or another --name"
        )
    begun = config_from_json(read_json(saved), saved)
    free, ends = (frozenset(marked_fields(begun, mark)) for mark in (NO_NUMBER, END))
    differing = sorted(_differences(config_to_json(begun), config))
    refused = [words for path, words in differing if not _below(path, free | ends)]
    if refused:
        more = f" (and {len(refused) - 5} more)" if len(refused) > 5 else ""
        raise UserError(
            f"{run_dir} was started with another config; fields that differ: "
            f"{'; '.join(refused[:5])}{more}. Resume with the same ones, or give another --name"
        )
    for phase in PHASES:
        check_end(run_dir, begun, phase, config[phase]["steps"])
    moved = [] if launch is None else sorted(_differences(newest_launch(run_dir, launch), launch))
    return Changes(
        ends=[words for path, words in differing if _below(path, ends)],
        others=[words for path, words in differing if _below(path, free)]
        + [words for path, words in moved if path not in OF_ONE_HOST],
    )


def newest_launch(run_dir: RunPath, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a run's newest launch; the given one where it cannot be read, and is written anew."""
    saved = run_dir / LAUNCH_FILE
    try:
        return launch_to_json(launch_from_json(read_json(saved), saved))
    except UserError:
        return given


def check_end(
    run_dir: RunPath, begun: ExperimentConfig, phase: Literal["sft", "rl"], steps: int
) -> None:
    """Raise UserError where a phase cannot have so many steps, given those that are done."""
    held = getattr(begun, phase)
    if steps == held.steps:
        return
    reached, done = newest_progress(run_dir)
    told = f"{phase}.steps was {held.steps}, is {steps}"
    if phase == "sft" and reached == "rl":
        raise UserError(
            f"{told}: the SFT of {run_dir} is over, {done} steps of RL are done; leave it at "
            f"{held.steps}"
        )
    done = done if reached == phase else 0
    if steps < done:
        raise UserError(f"{told}: {done} steps of {run_dir} are done; give {done} or more")
    updates = updates_per_step(begun) if phase == "rl" else 1
    if not same_rates(held.optimizer, held.steps * updates, steps * updates, done * updates):
        raise UserError(
            f"{told}: with {phase}.optimizer.schedule = {held.optimizer.schedule} and warmup_steps "
            f"= {held.optimizer.warmup_steps} the {done} steps that are done would have had other "
            f"learning rates. Leave it at {held.steps}; to go on with a schedule of its own, start "
            f"another --name with --init-from {run_dir}"
        )


def newest_progress(run_dir: RunPath) -> tuple[str, int]:
    """Return the phase of a run's newest checkpoint and the steps of it that are done.

    A checkpoint whose progress cannot be read is damaged, and the one before it counts.
    """
    for step in reversed(checkpoint_steps(run_dir)):
        try:
            held = read_json(checkpoints_dir(run_dir) / str(step) / "progress/metadata")
            return str(held["phase"]), int(held["phase_step"])
        except (UserError, KeyError, TypeError, ValueError):
            continue
    return "sft", 0


def _below(path: str, marked: Collection[str]) -> bool:
    """Return whether a path `a/b` is one of these, or below one."""
    parts = path.split("/")
    return any("/".join(parts[:end]) in marked for end in range(1, len(parts) + 1))


def _differences(
    saved: Mapping[str, Any], given: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the path of each field with another value, and what it was and is."""
    for name in saved.keys() | given.keys():
        path, old, new = f"{prefix}{name}", saved.get(name), given.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{path}/")
        else:
            yield path, f"{path.replace('/', '.')} was {old}, is {new}"


@contextmanager
def hold_run(
    run_dir: RunPath, config: Mapping[str, Any], launch: Mapping[str, Any], content: str
) -> Iterator[None]:
    """Keep a run's config, launch and hash of records; lock out other processes in the block.

    Raises UserError where another one is there, or where the run began with other records.
    """
    with locked(lock_of(run_dir), wait=False):
        check_content(run_dir, content)
        save_config(run_dir, config)
        write_whole(run_dir / LAUNCH_FILE, json.dumps(launch, indent=1) + "\n")
        if not (run_dir / CONTENT_FILE).exists():
            write_whole(run_dir / CONTENT_FILE, json.dumps({"sha256": content}) + "\n")
        yield


def check_content(run_dir: RunPath, content: str) -> None:
    """Raise UserError unless the records are those that the run began with, as far as is known.

    What a checkpoint says of the data is a place in their order.
    """
    saved = run_dir / CONTENT_FILE
    known = read_json(saved)["sha256"] if saved.exists() else content
    if known != content:
        raise UserError(
            f"{run_dir} was trained on other records: {saved} has the hash {known:.12}…, those of "
            f"the task now have {content:.12}…. Restore the files that the task reads, or start "
            f"another --name; to go on with these records all the same, delete {saved}"
        )


def save_config(run_dir: RunPath, config: Mapping[str, Any]) -> None:
    """Keep the config of a run: the newest, for `check_start` has said that it may differ.

    Where the end of a phase was moved, the evaluation at the end before is set aside first: a run
    keeps the evaluation that it has.
    """
    saved = run_dir / CONFIG_FILE
    if saved.exists():
        begun = config_to_json(config_from_json(read_json(saved), saved))
        if begun == config:
            return
        for phase in PHASES:
            set_evaluation_aside(run_dir, phase, begun[phase]["steps"], config[phase]["steps"])
    write_whole(saved, json.dumps(config, indent=1) + "\n")


def set_evaluation_aside(run_dir: RunPath, phase: str, old: int, new: int) -> None:
    """Name the evaluation at the end of a phase after its steps, where it is no longer the end."""
    made = run_dir / "evaluation" / f"after_{phase}.json"
    if old != new and made.exists():
        aside = made.with_name(f"after_{phase}_of_{old}_steps.json")
        write_whole(aside, made.read_text(encoding="utf-8"))  # a bucket renames nothing
        made.unlink()
