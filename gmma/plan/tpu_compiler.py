"""The TPU compiler for slices that are not there, and what it wrote about a program.

`libtpu` describes a topology and compiles for it on any machine. Its dump holds the optimised
program and the assignment of buffers also where the program does not fit, so both cases are read
from there.
"""

import contextlib
import importlib.util
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.errors import JaxRuntimeError
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from gmma.errors import UserError
from gmma.plan.chips import Chip, chip_of, slices_of
from gmma.plan.hlo import HloProgram

# The compiler looks for a TPU and its neighbours unless it is told that there are none; a lock
# keeps two processes off one TPU, which a compilation does not use.
NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # any; the topology's own name decides
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
OUT_OF_HBM, CODE_OUT_OF_HBM = "RESOURCE_EXHAUSTED", 3
POLL_SECONDS = 1.0
LARGEST_BUFFERS = 6


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A slice that is not there, or several."""

    topology: str
    chip: Chip
    devices: Sequence[Any]
    devices_per_chip: int  # two on chips whose cores are programmed apart


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """One allocation of a program."""

    bytes: int
    what: str  # array type, and the argument or operation it belongs to


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """The compiler's figures of a program; bytes and costs are per device."""

    fits_alone: bool  # the compiler found room for it
    seconds: float  # from the first trace to the last file
    argument_bytes: int
    output_bytes: int  # that are no arguments handed on
    temporary_bytes: int
    total_bytes: int
    buffers: tuple[Buffer, ...]  # the largest
    program: HloProgram


def open_slice(topology: str) -> Slice:
    """Return the devices of a named slice. UserError without libtpu or for an unknown name."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("the TPU compiler libtpu is not installed; pip install 'gmma[tpu]'")
    chip, (slices, shape) = chip_of(topology), slices_of(topology)
    several = {"num_slices": slices} if slices > 1 else {}
    for name, value in NO_TPU_HERE.items():
        os.environ.setdefault(name, value)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=shape, **several)
    except JaxRuntimeError as error:
        raise UserError(
            f"topology {topology!r} is none that libtpu knows ({str(error).splitlines()[0]}); "
            "write KIND:SHAPE, such as v5e:2x4, v6e:2x4 or v5p:2x2x1, or COUNT*KIND:SHAPE"
        ) from error
    per_chip = len(found.devices) // count_chips(topology)
    return Slice(topology=topology, chip=chip, devices=found.devices, devices_per_chip=per_chip)


def count_chips(topology: str) -> int:
    """Return the number of chips of a topology that there is.

    >>> count_chips("v5e:2x4"), count_chips("v5p:2x2x1"), count_chips("2*v5e:4x4")
    (8, 4, 32)
    """
    slices, shape = slices_of(topology)
    return slices * prod(int(side) for side in shape.partition(":")[2].split("x"))


@contextlib.contextmanager
def nothing_cached() -> Iterator[None]:
    """Leave JAX's cache on disk aside: what is compiled for absent devices cannot be read back."""
    before: bool = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX asks once whether there is one
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def compile_program(jitted: Any, arguments: Sequence[Any], dump: Path) -> bool:
    """Compile a jitted function for the devices of its abstract arguments.

    Returns whether it fits alone; the compiler's files are in `dump` in either case.
    """
    lowered = jitted.trace(*arguments).lower(lowering_platforms=("tpu",))
    try:
        with nothing_cached():
            lowered.compile(compiler_options={"xla_dump_to": str(dump)})
    except JaxRuntimeError as error:
        if OUT_OF_HBM not in str(error):
            raise
        return False
    return True


def wait_for_dump(process: subprocess.Popen[bytes], dump: Path, *, until_memory: bool) -> bool:
    """Wait for a compilation in another process; return whether it found room for the program.

    With `until_memory` it is ended once its last file about memory has been written, before it
    writes machine code, which takes most of its time.
    """
    last = ".after_optimizations_after_buffer_assignment.txt"
    sizes: list[int] = []
    while (code := process.poll()) is None:
        time.sleep(POLL_SECONDS)
        found = list(dump.glob(f"*{last}"))
        sizes.append(sum(path.stat().st_size for path in dump.glob("*.txt")) if found else -1)
        if until_memory and len(sizes) > 2 and sizes[-1] == sizes[-2] == sizes[-3] > 0:
            process.kill()
            process.wait()
            return True
    if code not in (0, CODE_OUT_OF_HBM):
        raise UserError(f"the compilation ended with code {code}; its message stands above")
    return code == 0


def read_dump(
    dump: Path,
    *,
    fits_alone: bool,
    seconds: float,
    turns: Mapping[str, float] | None = None,
    row_blocks: tuple[float, int] | None = None,
) -> Compiled:
    """Read what the compiler wrote about the last program in a dump; counts as `HloProgram` has."""

    def text_of(ending: str) -> str:
        found = max(dump.glob(f"*{ending}"), default=None)
        if found is None:
            raise UserError(f"the compiler ended without a file *{ending}; its message is above")
        return found.read_text()

    program = HloProgram(text_of(".after_optimizations.txt"), turns, row_blocks)
    report = text_of("-memory-usage-report.txt")
    total = re.search(r"Memory Space: default.*\nTotal bytes: (\d+)", report)
    assert total, report[:200]
    assignment = text_of("-buffer-assignment.txt")
    blocks = [
        block
        for block in re.split(r"^(?=allocation \d+: )", assignment, flags=re.MULTILINE)[1:]
        if not re.match(r"allocation \d+: size \d+, color", block)
    ]
    sizes = {"argument": 0, "output": 0, "temporary": 0}
    for block in blocks:
        sizes[kind_of(block)] += int(block.split("size ")[1].split(",")[0])
    return Compiled(
        fits_alone=fits_alone,
        seconds=seconds,
        argument_bytes=sizes["argument"],
        output_bytes=sizes["output"],
        temporary_bytes=int(total[1]) - sizes["argument"] - sizes["output"],
        total_bytes=int(total[1]),
        buffers=largest_buffers(blocks, program),
        program=program,
    )


def kind_of(block: str) -> str:
    """Return the purpose of an allocation."""
    head = block.splitlines()[0]
    if " parameter " in head:
        return "argument"
    return "output" if "maybe-live-out" in head else "temporary"


def largest_buffers(blocks: Sequence[str], program: HloProgram) -> tuple[Buffer, ...]:
    """Return the largest values in main memory, one for each place that they take turns in."""
    found: dict[tuple[int, str], Buffer] = {}
    value = re.compile(
        r"^ value: <\d+ ([\w.\-]+)\S*.*? @0> \(size=(\d+),offset=(\d+)\): (.*)$", re.MULTILINE
    )
    for number, block in enumerate(blocks):
        for name, size, offset, kind in value.findall(block):
            key = (number, offset)
            if key not in found or int(size) > found[key].bytes:
                found[key] = Buffer(bytes=int(size), what=describe(name, kind, program))
    return tuple(sorted(found.values(), key=lambda b: -b.bytes)[:LARGEST_BUFFERS])


def describe(name: str, kind: str, program: HloProgram) -> str:
    """Describe a value as `f32[34,2560,10240] params['blocks']…`: type, and its line's purpose."""
    short = re.sub(r"\{[^}]*\}", "", kind)
    for computation in program.computations.values():
        if name in computation:
            return f"{short} {computation[name].label or name}"
    return f"{short} {name}"


def local_bytes(tree: Any) -> int:
    """Return the bytes that one device holds of abstract arrays with shardings."""
    return sum(
        prod(leaf.sharding.shard_shape(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )
