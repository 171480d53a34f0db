"""Several hosts, one run: every process has its own rows of a batch, and one of them speaks.

    join            become one of the run's processes, from the command line's section `hosts`,
                    where all hosts mean the same run (`muster.py`)
    leads           whether this process writes files and prints
    fetch_rows      devices → host, of this process's rows alone
    gather_rows     this process's rows → every process's, bit for bit
    gather_entries  the same for JSON values of any size
    own_part        this process's part of a list that has an entry a row
    leader_alone    what one process has open, its lock for example, for all of them
    stop_requested  SIGTERM or Ctrl-C on one host stops all of them behind the same step
    bounded_end     a host that fails ends in bounded time, and so do the others

The way in for data is `sharding.put_batch`. Process p has the p-th block of rows, because the mesh
takes the devices process by process. With one process every function here is the obvious one.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax._src import distributed  # JAX has no public way to its coordination service's store
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Shaped, UInt8

from gmma.config import HostsConfig
from gmma.errors import CODE_USER_ERROR, UserError
from gmma.hardware import preemption
from gmma.hardware.muster import check_devices, meet, meet_in_store, run_facts
from gmma.hardware.preemption import CODE_HOST_LOST, Ended
from gmma.hardware.sharding import BATCH, REPLICATED, put_batch
from gmma.types import PyTree

PerRow = TypeVar("PerRow", list[Any], np.ndarray)
TEXT_BYTES = 1 << 16
SPARE_SECONDS = 60  # JAX's own patience is longer than ours, which ends with a message
WAIT_SECONDS = 6 * 3600  # in all, for a dataset that the leading host builds; a lost host ends it


def join(config: HostsConfig, values: Mapping[str, Any]) -> None:
    """Become one of the run's processes; to be called before anything touches a device.

    `values` must be equal on all hosts: the config, and what else was asked for. Raises UserError
    on every host if they differ, if the hosts do not find each other, or if there are several hosts
    and nobody asked for them.
    """
    if config.join == "alone":
        if jax.process_count() > 1:
            raise UserError(
                f"this TPU slice has {jax.process_count()} hosts: start gmma on each of them with "
                "--hosts.join slice"
            )
        return
    facts = run_facts(values)
    given: dict[str, Any] = {}
    if config.join == "given":
        assert config.coordinator is not None
        assert config.count is not None
        assert config.index is not None
        meet(config.coordinator, config.count, config.index, facts, seconds=config.start_seconds)
        given = {
            "coordinator_address": config.coordinator,
            "num_processes": config.count,
            "process_id": config.index,
            "cluster_detection_method": "deactivate",
        }
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # a TPU has its own
    with ended_after(config.start_seconds, config.join):
        try:
            jax.distributed.initialize(
                **given,
                initialization_timeout=config.start_seconds + SPARE_SECONDS,
                heartbeat_timeout_seconds=config.heartbeat_seconds,
                shutdown_timeout_seconds=config.stop_seconds,
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(not_found(config.join, str(error))) from error
    check_devices(jax.devices())  # every process waits here for the others' devices
    if config.join == "slice":
        meet_in_store(
            distributed.global_state.client,
            jax.process_count(),
            jax.process_index(),
            facts,
            seconds=config.start_seconds,
        )
    # Gloo connects at the first collective and waits 30 seconds for it: now, while all are in step.
    multihost_utils.sync_global_devices("joined")


def not_found(how: str, reason: str) -> str:
    """Word the message for hosts that JAX could not bring together."""
    return (
        f"hosts.join = {how}: the hosts did not find each other ({reason}); on a TPU VM start gmma "
        "on every worker, elsewhere give --hosts.join given with coordinator, count and index"
    )


@contextmanager
def ended_after(seconds: float, how: str) -> Iterator[None]:
    """End the process with a message where the block takes longer: JAX would with SIGABRT."""

    def end() -> None:
        reason = f"one of them did not come within {seconds:.0f} s"
        print(f"gmma: {not_found(how, reason)}", file=sys.stderr, flush=True)
        os._exit(CODE_USER_ERROR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def leads() -> bool:
    """Return whether this process writes files and prints; exactly one does."""
    return jax.process_index() == 0


def own_part(rows: PerRow) -> PerRow:
    """Return this process's part of a sequence with one entry for each row of a batch."""
    size = len(rows) // jax.process_count()
    return rows[jax.process_index() * size : (jax.process_index() + 1) * size]


def fetch_rows(tree: PyTree, mesh: Mesh) -> PyTree:
    """Fetch this process's rows of device arrays that are cut over rows, as NumPy."""
    return jax.device_get(multihost_utils.global_array_to_host_local_array(tree, mesh, BATCH))


def gather_rows(tree: PyTree, mesh: Mesh) -> PyTree:
    """Gather the rows of all processes, as NumPy, in the order of the batch.

    One collective for the whole tree: each row travels as its bytes, so nothing is rounded.
    """
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    own = [_row_bytes(leaf) for leaf in leaves]
    everywhere = jax.device_get(_replicate(mesh)(put_batch(np.concatenate(own, axis=1), mesh)))
    ends = np.cumsum([part.shape[1] for part in own])[:-1]
    parts = [
        np.ascontiguousarray(part).view(leaf.dtype).reshape(-1, *leaf.shape[1:])
        for part, leaf in zip(np.split(everywhere, ends, axis=1), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


def _row_bytes(array: np.ndarray) -> UInt8[np.ndarray, "B bytes"]:
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


@cache
def _replicate(mesh: Mesh) -> Any:
    return jax.jit(lambda array: array, out_shardings=NamedSharding(mesh, REPLICATED))


def gather_entries(own: list[Any]) -> list[Any]:
    """Gather the entries of all processes, in order; an entry is a JSON value.

    For entries of no fixed size. The text is padded to a round length, so few sizes are compiled.
    """
    if jax.process_count() == 1:
        return own
    text = json.dumps(own).encode()
    longest = multihost_utils.process_allgather(np.int32(len(text))).max()
    padded = text.ljust(-(-longest // TEXT_BYTES) * TEXT_BYTES)
    texts = multihost_utils.process_allgather(np.frombuffer(padded, np.uint8))
    return [entry for line in texts for entry in json.loads(line.tobytes())]


def wait_for_all(place: str) -> None:
    """Wait until every process has come here; `place` names it in errors.

    The wait is on JAX's coordination service, so that devices do not time out behind long work.
    """
    if jax.process_count() > 1:
        everyone = set(range(jax.process_count()))
        ocp.multihost.sync_global_processes(place, timeout=WAIT_SECONDS, processes=everyone)


@contextmanager
def leader_first(place: str) -> Iterator[None]:
    """Run the block on the leading process, then on the others, which find what it left on disk."""
    if not leads():
        wait_for_all(place)
    yield
    if leads():
        wait_for_all(place)


@contextmanager
def leader_alone(opened: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Hold this open on the leading process alone; its UserError is raised on every process."""
    with ExitStack() as stack:
        problem = None
        if leads():
            try:
                stack.enter_context(opened())
            except UserError as error:
                problem = str(error)
        wait_for_all("what one host opens")
        for said in gather_entries([problem]):
            if said is not None:
                raise UserError(said)
        yield


def check_hosts(devices: Shaped[np.ndarray, "data fsdp tensor"]) -> None:
    """Return the devices of a mesh; raise UserError unless each row of a batch lies on one host."""
    tensor = devices.shape[-1]
    for group in devices.reshape(-1, tensor):
        hosts = {device.process_index for device in group}
        if len(hosts) > 1:
            raise UserError(
                f"mesh.tensor = {tensor} spreads a row of the batch over {len(hosts)} hosts; set "
                f"it to {tensor // len(hosts)} or less"
            )


def watch_signals() -> AbstractContextManager[None]:
    """Note SIGTERM and Ctrl-C within the block; with several hosts JAX notes SIGTERM by itself."""
    return preemption.watch(several_hosts=jax.distributed.is_initialized())


def stop_here(place: str) -> None:
    """End the run between its steps if it was asked to; several hosts end behind a step alone."""
    if not jax.distributed.is_initialized() and preemption.requested():
        preemption.stop(place)


def stop_requested(step: int) -> bool:
    """Return whether to end after this step, because one of the hosts was asked to.

    Ask at every step, with steps that only grow. The hosts agree in the background on the
    step after the furthest one that any of them has reached; asking is a look at a local variable.
    """
    if jax.distributed.is_initialized():
        return bool(multihost_utils.reached_preemption_sync_point(step))
    return preemption.requested()


@contextmanager
def bounded_end(config: HostsConfig) -> Iterator[None]:
    """End this host's process, and so those of the others, if it fails within the block.

    Without it a failing host could wait in its clean-up for hosts that wait for it. An error of a
    computation over all hosts, of which one is gone, ends the process at once. Any other error
    leaves `hosts.stop_seconds` for the clean-up. The other hosts then miss this one, and end too.
    """
    try:
        yield
    except Ended:
        raise  # all hosts are here, at the same step
    except BaseException as error:
        if jax.process_count() > 1 and any(_is_lost(one) for one in _causes(error)):
            _leave()
        if jax.process_count() > 1:
            timer = threading.Timer(config.stop_seconds, os._exit, (1,))
            timer.daemon = True
            timer.start()
        raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_lost(error: BaseException) -> bool:
    # Gloo's, on CPU, can come as a ValueError where an array is fetched.
    return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)


def _leave() -> NoReturn:
    """End this process without clean-up, which would wait for a host that is gone."""
    traceback.print_exc()
    print(
        f"gmma: a computation over all hosts failed on host {jax.process_index()} of "
        f"{jax.process_count()} (above): where another host has ended, its log says why; start all "
        "again with --resume to go on from the last checkpoint",
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(CODE_HOST_LOST)
