"""Weights & Biases beside the run's own files: the curves, and a table of completions.

It is no dependency of gmma's: `pip install 'gmma[wandb]'`. A run that resumes goes on in the same
W&B run. Steps behind its checkpoint come there twice, with the same figures (law L8).
"""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any

from gmma.config import ExperimentConfig, job_to_json
from gmma.errors import UserError
from gmma.files import RunPath, growing_files, read_json, write_whole
from gmma.options.launch import WandbConfig
from gmma.records.console import warn
from gmma.records.metrics import Completion, Record, Writer, curves

ID_FILE = "wandb.json"  # of a run's directory: the W&B run that it goes on in
COLUMNS = ("step", "prompt", "thought", "answer", "reward")
MENDED = "run `wandb login`, or give --wandb.mode offline and `wandb sync` the run's folder later"


def check_wandb(config: WandbConfig) -> None:
    """Raise UserError where the records cannot go to Weights & Biases: not installed, no login."""
    if config.project is None:
        return
    if find_spec("wandb") is None:
        raise UserError(
            f"--wandb.project {config.project}: wandb is not installed; pip install 'gmma[wandb]'"
        )
    if config.mode == "online":
        import wandb  # slow, and only runs that go there need it

        try:
            wandb.login(force=False)
        except wandb.errors.Error as error:
            raise UserError(f"Weights & Biases: {error}; {MENDED}") from error


@contextmanager
def open_wandb(config: ExperimentConfig) -> Iterator[Writer]:
    """Open the W&B run of a run whose `launch.wandb` has a project.

    Raises UserError where it cannot begin. Once it has, a failure of W&B is a warning, and training
    goes on without.
    """
    import wandb

    run_dir, chosen = config.run_dir, config.launch.wandb
    folder = PurePath(config.name).parent
    with growing_files(run_dir) as (local, bring):
        try:
            run = wandb.init(
                project=chosen.project,
                entity=chosen.entity,
                group=chosen.group or (str(folder) if folder.name else None),
                id=own_id(run_dir),
                name=config.name,
                mode=chosen.mode,
                config=job_to_json(config),
                dir=str(local),
                resume="allow",
                reinit="create_new",  # runs of one program stand side by side
            )
        except wandb.errors.Error as error:
            raise UserError(f"Weights & Biases: {error}; {MENDED}") from error
        run.define_metric("*", step_metric="step")  # its own steps only rise, also when resumed
        send = warning_once(run.log)

        def completions(step: int, rows: Sequence[Completion]) -> None:
            cells = [[step, *row] for row in rows]
            table = wandb.Table(columns=list(COLUMNS), data=cells)
            send({"step": step, "completions": table})

        def write(record: Record) -> None:
            send({"step": record["step"], **curves(record)})

        code = 1
        try:
            yield Writer(write=write, flush=bring, completions=completions)
            code = 0
        finally:
            warning_once(run.finish)(exit_code=code)


def own_id(run_dir: RunPath) -> str:
    """Return the id that a run has at W&B, made at its first start."""
    path = run_dir / ID_FILE
    if not path.is_file():
        write_whole(path, json.dumps({"id": uuid.uuid4().hex[:12]}))
    return str(read_json(path)["id"])


def warning_once(call: Callable[..., Any]) -> Callable[..., None]:
    """Make a call that warns where it fails first, and does nothing from then on."""
    lost = [False]

    def attempt(*given: Any, **named: Any) -> None:
        if lost[0]:
            return
        try:
            call(*given, **named)
        except Exception as error:
            lost[0] = True
            warn(f"Weights & Biases gets nothing more of this run: {error!r}")

    return attempt
