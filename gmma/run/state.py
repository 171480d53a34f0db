"""Initialise parameters and train states, and select what of a state a checkpoint keeps."""

from typing import Any

import orbax.checkpoint as ocp

from gmma.files import RunPath
from gmma.records import checkpoint
from gmma.run.assembly import Parts
from gmma.run.programs import Trainer, kept_params
from gmma.types import Params, TrainState
from gmma.update import join_params, split_params


def whole_params(state: TrainState) -> Params:
    """Join trained and frozen parameters."""
    return join_params(state.params, state.frozen)


def first_params(parts: Parts) -> Params:
    """Return the initial parameters: another run's, or those that the backbone starts from."""
    origin = parts.config.init_from
    return parts.start(parts.mesh) if origin is None else load_params(parts, origin)


def load_params(parts: Parts, run_dir: RunPath, step: int | None = None) -> Params:
    """Load whole parameters of a run's newest or given checkpoint, laid out on this mesh."""
    held = checkpoint.restore_params(run_dir, kept_params(parts), step)
    return join_params(held["params"], held.get("frozen") or base_params(parts))


def base_params(parts: Parts) -> Params:
    """Load the frozen parameters that no checkpoint keeps: a base under adapters."""
    return split_params(parts.start(parts.mesh), parts.trained)[1] if parts.adapted else {}


def kept(parts: Parts, state: TrainState) -> dict[str, Any]:
    """Return what a checkpoint keeps of a state: not a base under adapters."""
    return {n: value for n, value in vars(state).items() if n != "frozen" or not parts.adapted}


def restore(
    parts: Parts, trainer: Trainer, checkpoints: ocp.CheckpointManager, step: int, also: Any
) -> tuple[TrainState, dict[str, Any]]:
    """Restore the state of a checkpoint, and what was saved beside it under the names of `also`."""
    abstract = kept(parts, trainer.abstract) | also
    held = checkpoint.restore_state(checkpoints, step, abstract)
    beside = {name: held.pop(name) for name in also}
    return TrainState(**{"frozen": base_params(parts), **held}), beside
