"""Save a run, and read what was saved.

A checkpoint holds all that must survive: trained parameters, optimiser, step, the reference where
there is one, the position in the data, and the running mean of the phase's gradient norms. Frozen
parameters are in it too, unless they are a base under adapters, which its directory keeps. The
config is not: the experiment stands in the run's `config.json`, the newest launch in `launch.json`.
A checkpoint's number is the global step, SFT and RL counted together. Orbax writes it in the
background and renames it when it is whole.

A checkpoint is committed with the checksums of its files in it (`checksums.py`), which are compared
before any of it is read. One from a gmma before them is read as it is.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from gmma.config import CheckpointConfig
from gmma.errors import UserError
from gmma.files import (
    RunPath,
    absolute,
    move_directory,
)
from gmma.hardware.hosts import gather_entries, leads, wait_for_all
from gmma.records.checksums import PROMISE, STEP, find_damage, write_checksums
from gmma.records.diagnostics import RunningMean
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
    """Open the run's checkpoints: the last few, and the best by the configured metric.

    On leaving, waits for what is still being written.
    """
    directory = checkpoints_dir(run_dir)
    best = BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False)
    options = ocp.CheckpointManagerOptions(
        # On one host, behind the last file of all and before the commit.
        async_options=ocp.AsyncOptions(post_finalization_callback=lambda: _seal(directory)),
        best_fn=_rank,  # without it Orbax writes no metrics, and a resumed run forgets its best
        preservation_policy=AnyPreservationPolicy([LatestN(config.keep_last), best]),
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,  # what a killed run was writing
    )
    with ocp.CheckpointManager(directory, options=options) as manager:
        yield manager
        manager.wait_until_finished()


def _seal(directory: RunPath) -> None:
    """Put the checksums into the checkpoint that is about to be committed."""
    for path in directory.iterdir():
        if path.is_dir() and not ocp.utils.is_checkpoint_finalized(path):
            write_checksums(path)


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
    held = asdict(progress) | {PROMISE: True, STEP: step}
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(held)
        ),
        metrics={"best": -math.inf if best is None or not math.isfinite(best) else best},
    )


def newest_whole(run_dir: RunPath) -> int | None:
    """Find the newest checkpoint that is whole, on all hosts; None where there is no checkpoint.

    Those newer than it are damaged: they are moved to `damaged/`, which is printed. So are older
    ones whose small files are, which Orbax reads. Raises UserError, and moves none, where none is
    whole.
    """
    damaged: dict[int, list[str]] = {}
    whole = None
    for step in reversed(checkpoint_steps(run_dir)):
        problems = _damage(run_dir, step, small=whole is not None)
        if whole is None and not problems:
            whole = step
        elif problems:
            damaged[step] = problems  # perhaps what Orbax, when it was killed, was deleting
    if damaged and whole is None:
        listed = "; ".join(f"{step}: {_listed(found)}" for step, found in damaged.items())
        raise UserError(
            f"no checkpoint of {run_dir} is whole: {listed}. Restore one of them from a copy, or "
            "start again under another --name"
        )
    wait_for_all("the checkpoints that are read")
    if leads():
        for step, problems in damaged.items():
            _move_aside(run_dir, step, problems, whole)
    wait_for_all("the checkpoints that are whole")
    return whole


def _damage(run_dir: RunPath, step: int, *, small: bool = False) -> list[str]:
    """List how a checkpoint differs from what was written; every host reads a part of it."""
    share = jax.process_index(), jax.process_count()
    found = find_damage(checkpoints_dir(run_dir) / str(step), share=share, small=small)
    wait_for_all(f"checksums, {next(_meetings)}")
    return list(dict.fromkeys(gather_entries(found)))


def _listed(problems: Sequence[str]) -> str:
    more = f" and {len(problems) - 2} files more" if len(problems) > 2 else ""
    return ", ".join(problems[:2]) + more


def _move_aside(run_dir: RunPath, step: int, problems: Sequence[str], whole: int | None) -> None:
    target = run_dir / "damaged" / str(step)
    count = 0
    while target.exists():
        count += 1
        target = run_dir / "damaged" / f"{step}_{count}"
    move_directory(checkpoints_dir(run_dir) / str(step), target)
    print(
        f"checkpoint {step} of {run_dir} is damaged ({_listed(problems)}) and was moved to "
        f"{target}; the run goes on from checkpoint {whole}"
    )


def _whole_step(run_dir: RunPath, step: int | None, *, small: bool = False) -> int:
    """Return the newest checkpoint, or the given one; raises UserError where it is damaged."""
    found = find_step(run_dir, step)
    problems = _damage(run_dir, found, small=small)
    if problems:
        others = [one for one in checkpoint_steps(run_dir) if one != found]
        raise UserError(
            f"checkpoint {found} of {run_dir} is damaged: {_listed(problems)}; restore it from a "
            f"copy, or give another one (--step, or move it away); there are {others}"
        )
    return found


def restore_progress(manager: ocp.CheckpointManager, step: int) -> Progress:
    """Restore the host's part. A checkpoint from before norms were kept begins their mean anew."""
    args = ocp.args.Composite(progress=ocp.args.JsonRestore())
    held = _read(manager, step, args)["progress"]
    for name in (PROMISE, STEP):
        held.pop(name, None)
    return Progress(**held | {"norms": RunningMean(**held.get("norms", {}))})


def restore_state(manager: ocp.CheckpointManager, step: int, abstract: PyTree) -> PyTree:
    """Restore the arrays of a checkpoint, laid out as `abstract` says.

    Raises UserError where the checkpoint holds other names or shapes: it belongs to another model.
    """
    where = manager.directory / str(step)
    _check_same_arrays(_shapes(_read_metadata(where)), _shapes(abstract), where)
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
    return _read(manager, step, args)["state"]


def _read(manager: ocp.CheckpointManager, step: int, args: ocp.args.Composite) -> Any:
    """Restore with Orbax. A checkpoint without checksums can be damaged: UserError, too."""
    try:
        return manager.restore(step, args=args)
    except (ValueError, KeyError, OSError) as error:
        raise _unreadable(manager.directory / str(step), error) from error


def _unreadable(where: RunPath, error: Exception) -> UserError:
    others = sorted(int(path.name) for path in where.parent.iterdir() if path.name.isdecimal())
    return UserError(
        f"checkpoint {where} cannot be read ({error!s:.200}); restore it from a copy, or move it "
        f"away, of checkpoints {others}"
    )


def restore_params(run_dir: RunPath, abstract: PyTree, step: int | None = None) -> PyTree:
    """Restore only the parameters, `{"params": …, "frozen": …}`, of the newest or given step.

    Which of them were trained there does not matter: they come in the groups of `abstract`.
    """
    where = find_params(run_dir, abstract, _whole_step(run_dir, step))
    wanted = {path[1:]: leaf for path, leaf in flatten_dict(abstract).items()}
    held = [path for path in flatten_dict(_held_params(where)) if path[1:] in wanted]
    target = unflatten_dict({path: wanted[path[1:]] for path in held})
    found = {path[1:]: leaf for path, leaf in flatten_dict(_restore_part(where, target)).items()}
    groups = {path: found[path[1:]] for path in flatten_dict(abstract)}
    return {name: {} for name in abstract} | unflatten_dict(groups)


def restore_all_params(run_dir: RunPath, step: int | None = None) -> PyTree:
    """Return all parameters of a checkpoint, joined, as they are stored; on the first device."""
    where = checkpoints_dir(run_dir) / str(_whole_step(run_dir, step))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {
        path: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype, sharding=here)
        for path, leaf in flatten_dict(_held_params(where)).items()
    }
    found = flatten_dict(_restore_part(where, unflatten_dict(abstract)))
    return unflatten_dict({path[1:]: leaf for path, leaf in found.items()})


def _restore_part(where: RunPath, abstract: PyTree) -> PyTree:
    """Restore the part of a checkpoint that `abstract` asks for."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    args = ocp.args.PyTreeRestore(abstract, restore_args=restore_args, partial_restore=True)
    return ocp.PyTreeCheckpointHandler().restore(where / "state", args=args)


def _held_params(where: RunPath) -> PyTree:
    """Return the names and shapes of a checkpoint's parameters, in its groups."""
    held = _read_metadata(where)
    return {name: held[name] for name in PARAM_GROUPS if held.get(name)}


def find_params(run_dir: RunPath, abstract: PyTree, step: int | None = None) -> RunPath:
    """Return the directory of a run's newest or given checkpoint.

    Raises UserError where there is none, where it is damaged as far as a look at its sizes can
    tell, or where it holds other parameters.
    """
    where = checkpoints_dir(run_dir) / str(_whole_step(run_dir, step, small=True))
    held, wanted = (
        {"/".join(path[1:]): tuple(leaf.shape) for path, leaf in flatten_dict(tree).items()}
        for tree in (_held_params(where), abstract)
    )
    _check_same_arrays(held, wanted, where)
    return where


def save_params(run_dir: RunPath, params: PyTree) -> None:
    """Save parameters alone as a run's checkpoint 0, written before this returns.

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
    write_checksums(checkpoints_dir(run_dir) / "0")


def find_step(run_dir: RunPath, step: int | None = None) -> int:
    """Return the newest checkpoint's number, or the given one; UserError if it is not there."""
    steps = checkpoint_steps(run_dir)
    if not steps:
        raise UserError(
            f"{run_dir} has no checkpoint yet; go on with gmma train … --resume, or give the "
            "directory of another run"
        )
    if step is not None and step not in steps:
        held = ", ".join(map(str, steps))
        raise UserError(f"{run_dir} has no checkpoint {step}, but {held}; choose one of these")
    return steps[-1] if step is None else step


def _read_metadata(where: RunPath) -> PyTree:
    """Return the names and shapes of a checkpoint's arrays."""
    try:
        return ocp.PyTreeCheckpointHandler().metadata(where / "state").tree
    except FileNotFoundError:
        raise UserError(f"{where} is no checkpoint of gmma; give the directory of a run") from None
    except (ValueError, KeyError, OSError) as error:
        raise _unreadable(where, error) from error


def checkpoints_dir(run_dir: RunPath) -> RunPath:
    """Return the directory of a run's checkpoints; Orbax wants it absolute."""
    return absolute(run_dir / "checkpoints")


def checkpoint_steps(run_dir: RunPath) -> list[int]:
    """Return the whole checkpoints of a run, oldest first."""
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


_meetings = itertools.count()  # no two of the hosts' may have one name
WRITE_BYTES = 64 * 2**20  # of one file's chunk, and of what is encoded at a time
PARAM_GROUPS = ("params", "frozen")  # of a checkpoint
