"""Estimate the seconds of a compiled program as if its instructions ran one after another.

    seconds = Σ_i max(FLOPs_i / peak, bytes_i / bandwidth, 1.2 µs) + Σ_c sent_c / links
            + Σ_d sent_d / share of the network

over the runs of scheduled instructions i, of collectives c that nothing runs beside, and of what d
goes to another slice, which is taken to wait alone. The bound of `gmma plan` is the largest of its
totals instead, as if all overlapped for the whole program. The truth is above both where
instructions stay below their roofline, and below this where the compiler hides one behind another.
1.2 µs are what libtpu's cost model gives the smallest fusions ([I]: about 1,830 cycles); they stand
for a collective's latency, too. Outside fusions, what computes with single numbers alone is free.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from math import prod

from gmma.plan.chips import Chip
from gmma.plan.hlo import (
    ASYNC,
    ASYNC_DONE,
    BETWEEN_SLICES,
    COLLECTIVES,
    Computation,
    HloProgram,
    Instruction,
    branches,
    moves_nothing,
    stated_cost,
)

SMALL_SECONDS = 1.2e-6  # of an instruction whose own roofline is below


@dataclass(frozen=True, kw_only=True)
class Serial:
    """Seconds of a program on one device, by what takes them."""

    large: float = 0.0  # instructions at their roofline
    small: float = 0.0  # instructions that are charged SMALL_SECONDS
    waiting: float = 0.0  # collectives that nothing runs beside
    small_ops: float = 0.0  # how many the second are

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.large + self.small + self.waiting

    def __add__(self, other: "Serial") -> "Serial":
        return Serial(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def times(self, count: float) -> "Serial":
        """Return the seconds of `count` runs, which may be a share of one."""
        return Serial(**{name: value * count for name, value in vars(self).items()})


def serial_estimate(program: HloProgram, chip: Chip, devices_per_chip: int = 1) -> Serial:
    """Estimate one run of a program on one device of a chip."""
    known: dict[str, Serial] = {}

    def of_computation(name: str) -> Serial:
        if name not in known:
            inside, total = program.computations[name], Serial()
            for instruction in inside.values():
                total += of_instruction(instruction, inside)
            known[name] = total
        return known[name]

    def of_instruction(instruction: Instruction, inside: Computation) -> Serial:
        match instruction.operation:
            case "while":
                once = of_computation(instruction.called("body"))
                once += of_computation(instruction.called("condition"))
                return once.times(program.trip_count(instruction))
            case "conditional":
                return of_branches(program, instruction, of_computation)
            case "call":
                return of_computation(instruction.called("to_apply"))
            case "async-start":  # what it sends runs beside other work
                return replace(of_computation(instruction.called("calls")), waiting=0.0)
            case _:
                return own_seconds(program, instruction, inside, chip, devices_per_chip)

    return of_computation(program.entry)


def of_branches(
    program: HloProgram, conditional: Instruction, of_computation: Callable[[str], Serial]
) -> Serial:
    """Weigh the two branches by how often they run where that is known; else take the longest."""
    found = [of_computation(name) for name in branches(conditional)]
    share = program.share_taken(conditional)
    if share is None:
        return max(found, key=lambda branch: branch.seconds)
    otherwise, taken = found
    return taken.times(share) + otherwise.times(1 - share)


def own_seconds(
    program: HloProgram,
    instruction: Instruction,
    inside: Computation,
    chip: Chip,
    devices_per_chip: int,
) -> Serial:
    """Estimate one instruction that calls no other computation but as a fusion."""
    operation = instruction.operation
    if moves_nothing(instruction):
        return Serial()
    sent = program.sent(instruction, inside)
    if between := sent.get(BETWEEN_SLICES, 0.0):
        assert chip.dcn_bytes is not None  # asked of the topology
        return Serial(waiting=max(between / chip.dcn_bytes * devices_per_chip, SMALL_SECONDS))
    waits = sum(sent.values()) / chip.ici_bytes * devices_per_chip
    if operation.removesuffix("-start") in COLLECTIVES:
        beside = operation.endswith("-start")
        return Serial() if beside else Serial(waiting=max(waits, SMALL_SECONDS))
    if is_scalar(instruction, inside):
        return Serial()
    if is_beside(instruction):
        waits = 0.0
    stated = stated_cost(instruction) if operation == "custom-call" else None
    flops = program.flops(instruction, inside) if stated is None else stated.flops
    moved = program.moved(instruction, inside) if stated is None else stated.bytes
    seconds = max(flops / chip.peak_flops, moved / chip.hbm_bytes) * devices_per_chip
    if operation.endswith("-start"):  # a copy that runs beside others still takes the memory's time
        return Serial(large=seconds)
    if seconds < SMALL_SECONDS:
        return Serial(small=SMALL_SECONDS, small_ops=1, waiting=waits)
    return Serial(large=seconds, waiting=waits)


def is_scalar(instruction: Instruction, inside: Computation) -> bool:
    """Return whether an instruction computes single numbers from single numbers."""
    if instruction.operation in ("fusion", "custom-call"):
        return False
    given = (inside[name].shapes for name in instruction.operands if name in inside)
    shapes = chain(instruction.shapes, *given)
    return all(prod(shape.dims) == 1 for shape in shapes)


def is_beside(instruction: Instruction) -> bool:
    """Return whether a fusion's collective runs beside its other work."""
    if instruction.operation != "fusion":
        return False
    called = instruction.called("calls")
    return ASYNC in called or instruction.name.startswith((ASYNC_DONE, "async-collective-start"))
