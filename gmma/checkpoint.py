"""Save a run, and find out how to start it.

A checkpoint holds all that must survive: trained parameters, optimiser, step, the reference where
there is one, the position in the data, and the running mean of the phase's gradient norms. Frozen
parameters are in it too, unless they are a base under adapters, which its directory keeps. The
config is not: it stands in the run's `config.json`. A checkpoint's number is the global step, SFT
and RL counted together. Orbax writes it in the background and renames it when it is whole.

How a run starts, in this order:

    1. `--resume` and the run has a checkpoint: go on from the newest one.
    2. `--resume` without a checkpoint: start as if new.
    3. The run's directory holds a run and `--resume` is not given, or files of a run without its
       config: refuse; nothing is written over.
    4. `init_from` names another run: its newest parameters, a new optimiser, step 0.
    5. Otherwise: the parameters that the backbone starts from. The tiny family's are drawn anew,
       its patch stem taught where the task can; a ported family's are read from its directory, with
       new adapters on top where the run trains adapters.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from gmma.config import CheckpointConfig
from gmma.diagnostics import RunningMean
from gmma.errors import UserError
from gmma.files import RunPath, absolute, read_json, write_whole
from gmma.types import PyTree


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The host's part of a checkpoint."""

    phase: str  # sft or rl
    phase_step: int  # steps of the phase that are done
    data: dict[str, Any]  # state of the phase's data stream
    norms: RunningMean = field(default_factory=RunningMean)  # of the phase's gradients


@contextmanager
def open_checkpoints(run_dir: RunPath, config: CheckpointConfig) -> Iterator[ocp.CheckpointManager]:
    """The run's checkpoints: the last few, and the best by the configured metric.

    On leaving, waits for what is still being written.
    """
    best = BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False)
    options = ocp.CheckpointManagerOptions(
        best_fn=_rank,  # without it Orbax writes no metrics, and a resumed run forgets its best
        preservation_policy=AnyPreservationPolicy([LatestN(config.keep_last), best]),
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,  # what a killed run was writing
    )
    with ocp.CheckpointManager(checkpoints_dir(run_dir), options=options) as manager:
        yield manager
        manager.wait_until_finished()


def _rank(metrics: Mapping[str, float]) -> float:
    return metrics["best"]


def save(
    manager: ocp.CheckpointManager,
    step: int,
    state: PyTree,
    progress: Progress,
    best: float | None = None,
) -> None:
    """Start writing a checkpoint; `best` ranks it, None or NaN puts it below all others."""
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(asdict(progress))
        ),
        metrics={"best": -math.inf if best is None or math.isnan(best) else best},
    )


def restore_progress(manager: ocp.CheckpointManager, step: int) -> Progress:
    """The host's part of a checkpoint. One from before norms were kept begins their mean anew."""
    args = ocp.args.Composite(progress=ocp.args.JsonRestore())
    held = manager.restore(step, args=args)["progress"]
    return Progress(**held | {"norms": RunningMean(**held.get("norms", {}))})


def restore_state(manager: ocp.CheckpointManager, step: int, abstract: PyTree) -> PyTree:
    """The arrays of a checkpoint, laid out as `abstract` says.

    Raises UserError where the checkpoint holds other names or shapes: it belongs to another model.
    """
    where = manager.directory / str(step)
    _check_same_arrays(_shapes(_read_metadata(where)), _shapes(abstract), where)
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
    return manager.restore(step, args=args)["state"]


def restore_params(run_dir: RunPath, abstract: PyTree, step: int | None = None) -> PyTree:
    """Only the parameters (`{"params": …, "frozen": …}`) of a run's newest or given checkpoint.

    Which of them were trained there does not matter: they come in the groups of `abstract`.
    """
    where = find_params(run_dir, abstract, step)
    wanted = {path[1:]: leaf for path, leaf in flatten_dict(abstract).items()}
    held = [path for path in flatten_dict(_held_params(where)) if path[1:] in wanted]
    target = unflatten_dict({path: wanted[path[1:]] for path in held})
    found = {path[1:]: leaf for path, leaf in flatten_dict(_restore_part(where, target)).items()}
    groups = {path: found[path[1:]] for path in flatten_dict(abstract)}
    return {name: {} for name in abstract} | unflatten_dict(groups)


def restore_all_params(run_dir: RunPath, step: int | None = None) -> PyTree:
    """All parameters of a checkpoint, joined, as they are stored; on the first device."""
    where = checkpoints_dir(run_dir) / str(find_step(run_dir, step))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {
        path: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype, sharding=here)
        for path, leaf in flatten_dict(_held_params(where)).items()
    }
    found = flatten_dict(_restore_part(where, unflatten_dict(abstract)))
    return unflatten_dict({path[1:]: leaf for path, leaf in found.items()})


def _restore_part(where: RunPath, abstract: PyTree) -> PyTree:
    """What `abstract` asks for of a checkpoint."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    args = ocp.args.PyTreeRestore(abstract, restore_args=restore_args, partial_restore=True)
    return ocp.PyTreeCheckpointHandler().restore(where / "state", args=args)


def _held_params(where: RunPath) -> PyTree:
    """Names and shapes of a checkpoint's parameters, in its groups."""
    held = _read_metadata(where)
    return {name: held[name] for name in PARAM_GROUPS if held.get(name)}


def find_params(run_dir: RunPath, abstract: PyTree, step: int | None = None) -> RunPath:
    """The directory of a run's newest or given checkpoint.

    Raises UserError where there is none, or where it holds other parameters.
    """
    where = checkpoints_dir(run_dir) / str(find_step(run_dir, step))
    held, wanted = (
        {"/".join(path[1:]): tuple(leaf.shape) for path, leaf in flatten_dict(tree).items()}
        for tree in (_held_params(where), abstract)
    )
    _check_same_arrays(held, wanted, where)
    return where


def save_params(run_dir: RunPath, params: PyTree) -> None:
    """Parameters alone as a run's checkpoint 0, written before this returns.

    Orbax copies what it writes, here as little at a time as it can, which is the largest array.
    """
    state = {"params": params, "frozen": {}}
    most = 1 + max(leaf.nbytes for leaf in jax.tree.leaves(params))
    few = ocp.BasePyTreeCheckpointHandler(
        save_concurrent_bytes=most,
        save_device_host_concurrent_bytes=most,
        is_prioritized_key_fn=lambda path: False,  # prioritized arrays are copied at once
    )
    handler = ocp.PyTreeCheckpointHandler(handler_impl=few)
    with ocp.Checkpointer(handler) as checkpointer:
        chunked = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=WRITE_BYTES), state)
        checkpointer.save(
            checkpoints_dir(run_dir) / "0" / "state", args=ocp.args.PyTreeSave(state, chunked)
        )


def find_step(run_dir: RunPath, step: int | None = None) -> int:
    """The newest checkpoint's number, or the given one; raises UserError where it is not there."""
    steps = checkpoint_steps(run_dir)
    if not steps or (step is not None and step not in steps):
        found = f"it has steps {steps}" if steps else "it has none"
        wanted = "a checkpoint" if step is None else f"checkpoint {step}"
        raise UserError(f"{run_dir} has not {wanted}: {found}; give the directory of a run")
    return steps[-1] if step is None else step


def _read_metadata(where: RunPath) -> PyTree:
    """Names and shapes of a checkpoint's arrays."""
    try:
        return ocp.PyTreeCheckpointHandler().metadata(where / "state").tree
    except FileNotFoundError:
        raise UserError(f"{where} is no checkpoint of gmma; give the directory of a run") from None


def checkpoints_dir(run_dir: RunPath) -> RunPath:
    """Where a run's checkpoints are; Orbax wants it absolute."""
    return absolute(run_dir / "checkpoints")


def checkpoint_steps(run_dir: RunPath) -> list[int]:
    """Whole checkpoints of a run, oldest first."""
    directory = run_dir / "checkpoints"
    found = list(directory.iterdir()) if directory.is_dir() else []
    steps = (path for path in found if path.name.isdecimal())
    # In a bucket nothing is renamed: a checkpoint is whole once Orbax has put its mark into it.
    return sorted(int(path.name) for path in steps if ocp.utils.is_checkpoint_finalized(path))


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _check_same_arrays(
    held: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], where: Any
) -> None:
    wrong = sorted(
        f"{name}: {held.get(name, 'absent')} in the checkpoint, {wanted.get(name, 'absent')} wanted"
        for name in held.keys() | wanted.keys()
        if held.get(name) != wanted.get(name)
    )
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise UserError(
            f"checkpoint {where} belongs to another model or optimiser: "
            f"{'; '.join(wrong[:3])}{more}; run with the config it was made with, or give another "
            "directory"
        )


def check_start(run_dir: RunPath, resume: bool, config: Mapping[str, Any]) -> None:
    """Rules 1–3 above. Raises UserError rather than write over a run or change its config."""
    saved = run_dir / CONFIG_FILE
    if not saved.exists():
        found = [name for name in RUN_FILES if (run_dir / name).exists()]
        if found:
            raise UserError(
                f"{run_dir} has {', '.join(found)} but no {CONFIG_FILE}, so it is no run that can "
                "be resumed; give another --name, or move it away"
            )
        return
    if not resume:
        raise UserError(
            f"{run_dir} already holds a run; give --resume to go on with it, or another --name"
        )
    changed = sorted(_changed_fields(read_json(saved), config))
    if changed:
        more = f" (and {len(changed) - 5} more)" if len(changed) > 5 else ""
        raise UserError(
            f"{run_dir} was started with another config; fields that differ: "
            f"{'; '.join(changed[:5])}{more}. Resume with the same ones, or give another --name"
        )


def save_config(run_dir: RunPath, config: Mapping[str, Any]) -> None:
    """Keep the config that a run is started with; a run that is resumed has it."""
    saved = run_dir / CONFIG_FILE
    if not saved.exists():
        write_whole(saved, json.dumps(config, indent=1) + "\n")


CONFIG_FILE = "config.json"
WRITE_BYTES = 64 * 2**20  # of one file's chunk, and of what is encoded at a time
PARAM_GROUPS = ("params", "frozen")  # of a checkpoint
RUN_FILES = ("checkpoints", "metrics.jsonl", "tensorboard", "samples", "evaluation")
FREE_ON_RESUME = (
    "checkpoint",
    "data_dir",
    "evaluation/every_steps",
    "hosts",
    "mesh",
    "rewards/workers",
    "runs_dir",
    "samples_every_steps",
)


def _changed_fields(
    saved: Mapping[str, Any], given: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    for name in saved.keys() | given.keys():
        path, old, new = f"{prefix}{name}", saved.get(name), given.get(name)
        if path in FREE_ON_RESUME or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changed_fields(old, new, f"{path}/")
        else:
            yield f"{path.replace('/', '.')} was {old}, is {new}"
