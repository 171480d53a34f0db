"""Count the cost of one run of a compiled program in the text of its optimised HLO.

XLA's own analysis counts the body of a loop once. Here a body counts as often as it runs: by the
trip count that the compiler wrote down, for a stage of a rollout's level by the slots of its scope
(`gmma/rollout.py`), or by the largest integer that the loop's condition compares with, which is the
worst case of a loop that may leave early.

A branch counts as often as it runs where the program says so (`gmma/models/layers.py`,
`taken_scope`), and else the dearest does.

    FLOPs        of matrix products and convolutions, a multiplication and an addition each
    bytes        between main memory and the core: operands and results of every scheduled
                 instruction; of what is only sliced, the slice; of what is updated in place, the
                 update; what lies in a core's own memory (`S(1)` in its layout) is free
    collectives  bytes that a chip sends, by kind, in rings; what goes to another slice apart
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from gmma.models.splash import DATA_MASK

WIDTH = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
WIDTH |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
NAME = re.compile(r"%([\w.\-]+(?:#\d+)*)")  # and perhaps which elements of a tuple
HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) .*\{$")
# Operations that name a buffer and move nothing of it, or whose bodies are counted instead.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "after-all"}
FREE |= {"opt-barrier", "partition-id", "replica-id", "while", "conditional", "call", "async-start"}
# A scope directly around a conditional, in its label and in those of its branches' lines
TAKEN = re.compile(r"\btaken_(\d+)_of_(\d+)\)*/cond(?=$|/branch_\d+_fun(?!.*/cond))")
# Scopes around a loop that fills a level of a rollout's cache: the level's, and the slots it fills
STAGE = re.compile(r"\b(\w+)/slots_(\d+)_to_(\d+)/while$")
# Splash attention's kernels, the products of each, and how many of these another had already
SPLASH, SPLASH_PRODUCTS = re.compile(r"splash_m[hq]a_(fwd|dq|dkv)"), {"fwd": 2, "dq": 3, "dkv": 4}
SPLASH_AGAIN = {"fwd": 0, "dq": 1, "dkv": 2}  # scores, and the gradient of weights in the last
REMATTED = "rematted_computation"  # JAX's scope around what a gradient computes again
REMAT_CLONE = re.compile(r"\.remat\d*(?:\.|$)")  # in the name of what XLA itself computes again
VISITED = re.compile(r"\bvisits_(\d+)_blocks_of_(\d+)\b")
SLICES = ("dynamic-slice", "slice", "gather")
RENAMING = ("bitcast", "copy")  # within a fusion
ASYNC, ASYNC_DONE = "async_collective_fusion", "async-collective-done"
BETWEEN_SLICES = "between slices"
MEGASCALE = "_xla_megascale_transfer_type"  # of what the runtime sends to other slices
SLICES_OF = re.compile(r'_xla_megascale_target="\{([\d,]+)\}x')  # those that take part
TRANSFERS = {  # the collective that each is between slices
    "ALL_REDUCE": "all-reduce",
    "ALL_GATHER": "all-gather",
    "REDUCE_SCATTER": "reduce-scatter",
    "ALL_TO_ALL": "all-to-all",
    "ONE_TO_ONE": "collective-permute",
}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Shape:
    """One array type."""

    kind: str
    dims: tuple[int, ...]
    in_core: bool  # in a core's own memory

    @property
    def bytes(self) -> float:
        """Size without padding."""
        return WIDTH.get(self.kind, 0) * prod(self.dims)


def shapes_in(text: str) -> tuple[Shape, ...]:
    """Return the array types of a type, a tuple's in order."""
    return tuple(
        Shape(kind, tuple(int(n) for n in dims.split(",") if n), "S(" in layout)
        for kind, dims, layout in ARRAY.findall(text)
        if kind in WIDTH
    )


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    inside: str  # between the parentheses
    attributes: str  # behind them
    root: bool

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of its results."""
        return shapes_in(self.type)

    @property
    def label(self) -> str:
        """The scopes under which it was traced, `a/b/c`."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, key: str) -> str:
        """Return the computation that an attribute names."""
        found = re.search(rf"\b{key}=%([\w.\-]+)", self.attributes)
        assert found, (key, self.name)
        return found[1]


Computation = dict[str, Instruction]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a program, per device."""

    flops: float = 0.0
    recomputed: float = 0.0  # of the FLOPs, those of a forward pass that is taken again
    bytes: float = 0.0
    sent: Mapping[str, float] = field(default_factory=dict)  # bytes by kind of collective
    uncounted: float = 0  # runs of kernels that do not state their cost

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            flops=self.flops + other.flops,
            recomputed=self.recomputed + other.recomputed,
            bytes=self.bytes + other.bytes,
            sent=Counter(self.sent) + Counter(other.sent),
            uncounted=self.uncounted + other.uncounted,
        )

    def times(self, count: float) -> "Cost":
        """Return the cost of `count` runs, which may be a share of one."""
        return Cost(
            flops=self.flops * count,
            recomputed=self.recomputed * count,
            bytes=self.bytes * count,
            sent={kind: size * count for kind, size in self.sent.items()},
            uncounted=self.uncounted * count,
        )


def closing(text: str, start: int) -> int:
    """Return the place of the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"unbalanced parentheses: {text[start : start + 80]}")


def parse_line(line: str) -> Instruction | None:
    """Parse a line `  ROOT %name = type operation(operands), attributes`."""
    head, found, rest = line.strip().partition(" = ")
    name = NAME.search(head)
    if not found or not name:
        return None
    end = closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opens = rest.index("(", end)
    closes = closing(rest, opens)
    inside = rest[opens + 1 : closes]
    return Instruction(
        name=name[1],
        type=rest[:end],
        operation=rest[end:opens].strip(),
        operands=tuple(NAME.findall(inside)),
        inside=inside,
        attributes=rest[closes + 1 :],
        root=head.startswith("ROOT"),
    )


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Parse a module into computations by name, and the entry's name."""
    computations: dict[str, Computation] = {}
    name = entry = ""
    for line in whole_lines(text):
        if head := HEAD.match(line):
            name = head[2]
            computations[name] = {}
            entry = name if head[1] else entry
        elif line.startswith("  ") and (instruction := parse_line(line)):
            for operand in instruction.operands:
                add_element(computations[name], operand)
            computations[name][instruction.name] = instruction
    return computations, entry


def whole_lines(text: str) -> Iterator[str]:
    """Yield the lines of a module; one that a kernel's metadata breaks, in one piece."""
    parts: list[str] = []
    for line in text.splitlines():
        begins = line.startswith((" ", "%", "ENTRY", "HloModule")) or line in ("", "}")
        if begins and parts:
            yield "".join(parts)
            parts = []
        parts.append(line)
    yield "".join(parts)


def add_element(inside: Computation, operand: str) -> None:
    """Give an element of a tuple, `name#1`, the line that an older XLA prints for it."""
    whole, mark, index = operand.rpartition("#")
    if not mark or operand in inside:
        return
    add_element(inside, whole)
    inside[operand] = Instruction(
        name=operand,
        type=elements(inside[whole].type)[int(index)],
        operation="get-tuple-element",
        operands=(whole,),
        inside=f"%{whole}",
        attributes="",
        root=False,
    )


def elements(text: str) -> list[str]:
    """Split the type of a tuple.

    >>> elements("(f32[2,3]{1,0:T(8,128)}, /*index=1*/(s32[], pred[]))")
    ['f32[2,3]{1,0:T(8,128)}', '(s32[], pred[])']
    """
    parts, depth, start = [], 0, 1
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(re.sub(r"/\*.*?\*/", "", text[start:place]).strip())
            start = place + 1
    return parts


class HloProgram:
    """A parsed program; costs of computations are kept, since loops share them."""

    def __init__(
        self,
        text: str,
        turns: Mapping[str, float] | None = None,
        row_blocks: tuple[float, int] | None = None,
    ) -> None:
        self.computations, self.entry = parse(text)
        self.turns = turns or {}  # after which the loops of a rollout's level leave, by its scope
        self.row_blocks = row_blocks  # of a kernel whose mask is data: how many blocks, their side
        self._costs: dict[str, Cost] = {}

    @property
    def cost(self) -> Cost:
        """The cost of one run, on one device."""
        return self.cost_of(self.entry)

    def loops_named(self, labels: tuple[str, ...]) -> Cost:
        """Sum the cost of the outermost loops that were traced under one of these names."""
        total, inside = Cost(), self.computations[self.entry]
        for instruction in inside.values():
            if instruction.operation == "while" and set(instruction.label.split("/")) & set(labels):
                total += self.instruction_cost(instruction, inside)
        return total

    def cost_of(self, name: str) -> Cost:
        """Return the cost of one run of a computation."""
        if name not in self._costs:
            computation, total = self.computations[name], Cost()
            for instruction in computation.values():
                total += self.instruction_cost(instruction, computation)
            self._costs[name] = total
        return self._costs[name]

    def instruction_cost(self, instruction: Instruction, inside: Computation) -> Cost:
        """Return the cost of one instruction, with everything that it calls."""
        operation = instruction.operation
        if operation == "while":
            once = self.cost_of(instruction.called("body"))
            once += self.cost_of(instruction.called("condition"))
            return once.times(self.trip_count(instruction))
        if operation == "conditional":
            costs = [self.cost_of(name) for name in branches(instruction)]
            share = self.share_taken(instruction)
            if share is None:
                return max(costs, key=lambda cost: (cost.flops, cost.bytes))
            otherwise, taken = costs
            return taken.times(share) + otherwise.times(1 - share)
        if operation == "call":
            return self.cost_of(instruction.called("to_apply"))
        if operation == "async-start":
            return self.cost_of(instruction.called("calls"))
        if operation == "custom-call" and (stated := stated_cost(instruction)):
            return stated
        is_kernel = operation == "custom-call" and "tpu_custom_call" in instruction.attributes
        products = list(self.products(instruction, inside))
        flops = sum(count for count, _ in products)
        cloned = REMAT_CLONE.search(instruction.name) is not None
        return Cost(
            flops=flops,
            recomputed=flops if cloned else sum(again for _, again in products),
            bytes=self.moved(instruction, inside),
            sent=self.sent(instruction, inside),
            uncounted=int((is_kernel and not flops) or share_to_slices(instruction) is None),
        )

    def trip_count(self, loop: Instruction) -> float:
        """Return how often the body runs: where a loop may leave early, as told, or at most.

        A rollout whose level ends after t turns gives a stage of slots [a, b) min(max(t − a, 0),
        b − a) of them. t is a mean: all turns are counted, a few of a late stage in one before it.
        """
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        if stage := STAGE.search(loop.label):
            start, end = int(stage[2]), int(stage[3])
            return min(max(self.turns.get(stage[1], end) - start, 0), end - start)
        bounds = list(self.constants(loop.called("condition")))
        return max(bounds, default=1)

    def share_taken(self, conditional: Instruction) -> float | None:
        """Return how often its condition holds, a share, where the program says so."""
        if len(branches(conditional)) != 2:
            return None
        inner = (i for name in branches(conditional) for i in self.computations[name].values())
        lines = (conditional, *(i for i in inner if i.operation != "conditional"))
        found = next((match for i in lines if (match := TAKEN.search(i.label))), None)
        return int(found[1]) / int(found[2]) if found else None

    def constants(self, name: str) -> Iterator[int]:
        """Yield the integers of a computation and of those it calls."""
        for instruction in self.computations[name].values():
            is_integer = instruction.type.startswith(("s32[]", "u32[]"))
            if instruction.operation == "constant" and is_integer:
                yield int(instruction.inside)
            elif instruction.operation == "fusion":
                yield from self.constants(instruction.called("calls"))

    def flops(self, instruction: Instruction, inside: Computation) -> float:
        """Count the FLOPs of a product, or of all products in a fusion."""
        return sum(count for count, _ in self.products(instruction, inside))

    def products(
        self, instruction: Instruction, inside: Computation
    ) -> Iterator[tuple[float, float]]:
        """Yield the FLOPs of a product, or of each in a fusion, and how many of them are again."""
        again, count = float(REMATTED in instruction.label), 0.0
        match instruction.operation:
            case "fusion":
                body = self.computations[instruction.called("calls")]
                for inner in body.values():
                    yield from self.products(inner, body)
                return
            case "dot":
                count = dot_flops(instruction, inside[instruction.operands[0]].shapes[0])
            case "convolution":
                given = [inside[name].shapes[0] for name in instruction.operands]
                count = convolution_flops(instruction, given[0], given[1])
            case "custom-call":
                count, share = splash_flops(instruction, inside, self.row_blocks)
                again = max(again, share)
        yield count, count * again

    def sent(self, instruction: Instruction, inside: Computation) -> dict[str, float]:
        """Return the bytes that a device sends in a collective, also where a fusion holds it.

        A collective that runs beside other work stands in every fusion that carries a part of it:
        it counts where it starts.
        """
        if instruction.operation == "fusion":
            called = instruction.called("calls")
            if ASYNC in called or instruction.name.startswith(ASYNC_DONE):
                return {}
            body, total = self.computations[called], Counter[str]()
            for inner in body.values():
                total.update(self.sent(inner, body))  # type: ignore[arg-type]
            if "reduce-scatter" in instruction.name and "all-reduce" in total:
                total = Counter({"reduce-scatter": total["all-reduce"] / 2})  # type: ignore
            return dict(total)
        kind = instruction.operation.removesuffix("-start")
        if kind in COLLECTIVES:
            share: float | None = ring_share(kind, group_size(instruction.attributes))
        else:
            kind, share = BETWEEN_SLICES, share_to_slices(instruction)
        if not share:
            return {}
        own = sum(shape.bytes for name in instruction.operands for shape in inside[name].shapes)
        return {kind: own * share}

    def moved(self, instruction: Instruction, inside: Computation) -> float:
        """Return the bytes to and from main memory."""
        if moves_nothing(instruction):
            return 0.0
        reads = (
            self.read(instruction, place, inside[name].shapes)
            for place, name in enumerate(instruction.operands)
            if name in inside
        )
        return sum(reads) + self.written(instruction, inside)

    def read(self, user: Instruction, place: int, shapes: tuple[Shape, ...]) -> float:
        """Return the bytes that an instruction reads of its operand at `place`."""
        whole = sum(shape.bytes for shape in shapes if not shape.in_core)
        if not whole:
            return 0.0
        if user.operation.removesuffix("-start") in SLICES:
            return (
                min(whole, sum(shape.bytes for shape in new_shapes(user))) if place == 0 else whole
            )
        if user.operation in ("dynamic-update-slice", "scatter") and place == 0:
            return 0.0
        if user.operation != "fusion":
            return 0.0 if user.operation in FREE else whole
        body = self.computations[user.called("calls")]
        return min(whole, self.read_of_value(body, parameter(body, place), shapes))

    def read_of_value(self, body: Computation, name: str, shapes: tuple[Shape, ...]) -> float:
        """Count the bytes that users of a value in a fusion read, seen through mere renaming."""
        total = 0.0
        for user in body.values():
            for at, operand in enumerate(user.operands):
                if operand != name or user.operation in COLLECTIVES:
                    continue
                if self.renames(user, at):
                    total += self.read_of_value(body, user.name, shapes)
                else:
                    total += self.read(user, at, shapes)
        return total

    def renames(self, user: Instruction, place: int) -> bool:
        """Return whether a result is the operand at `place` under another shape or layout.

        A copy within a fusion is none in memory.
        """
        if user.operation != "fusion":
            return user.operation in RENAMING
        body = self.computations[user.called("calls")]
        at = next(i for i in body.values() if i.root)
        while at.operation in RENAMING and at.operands[0] in body:
            at = body[at.operands[0]]
        return at.operation == "parameter" and at.inside == str(place)

    def written(self, instruction: Instruction, inside: Computation) -> float:
        """Return the bytes that an instruction writes of its results."""
        parts = []
        if instruction.operation not in COLLECTIVES:
            parts = list(self.updates(instruction, inside))
        if len(parts) != len(instruction.shapes):
            parts = [shape.bytes for shape in instruction.shapes]
        pairs = zip(new_shapes(instruction), parts, strict=False)
        return sum(part for shape, part in pairs if not shape.in_core)

    def updates(self, instruction: Instruction, inside: Computation) -> Iterator[float]:
        """Per result, the bytes that are new in it."""
        match instruction.operation:
            case "dynamic-update-slice":
                yield inside[instruction.operands[1]].shapes[0].bytes
            case "fusion":
                body = self.computations[instruction.called("calls")]
                yield from self.updates(next(i for i in body.values() if i.root), body)
            case "parameter" | "all-gather" | "all-reduce" | "reduce-scatter" | "send":
                yield from (0.0 for _ in instruction.shapes)  # handed on, or another's to count
            case "tuple":
                for name in instruction.operands:
                    yield from self.updates(inside[name], inside)
            case "bitcast" if instruction.operands[0] in inside:
                yield from self.updates(inside[instruction.operands[0]], inside)
            case _:
                yield from (shape.bytes for shape in instruction.shapes)


def moves_nothing(instruction: Instruction) -> bool:
    """Return whether an instruction names buffers alone, or ends what another began."""
    operation = instruction.operation
    ends = operation.endswith("-done") or instruction.name.startswith(ASYNC_DONE)
    return operation in FREE or ends or '"AllocateBuffer"' in instruction.attributes


def new_shapes(instruction: Instruction) -> tuple[Shape, ...]:
    """Return the results that are not an operand under another name: the first ones.

    What starts a copy or a slice gives the destination, the source again, and a number.
    """
    starts = instruction.operation in ("copy-start", *(f"{name}-start" for name in SLICES))
    return instruction.shapes[:1] if starts else instruction.shapes


def parameter(body: Computation, place: int) -> str:
    """Return the name of a computation's parameter."""
    return next(
        i.name for i in body.values() if i.operation == "parameter" and i.inside == str(place)
    )


def branches(instruction: Instruction) -> list[str]:
    """Return the computations that a conditional chooses from, that of false first."""
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if listed:
        return NAME.findall(listed[1])
    return [instruction.called("false_computation"), instruction.called("true_computation")]


def stated_cost(instruction: Instruction) -> Cost | None:
    """Return the cost that a kernel's author states."""
    found = re.search(r'"cost_estimate":\{([^}]*)\}', instruction.attributes)
    if not found:
        return None
    said = {key: float(value) for key, value in re.findall(r'"(\w+)":"?(-?\d+)', found[1])}
    flops = said.get("flops", 0.0)
    again = flops if REMATTED in instruction.label else 0.0
    return Cost(flops=flops, recomputed=again, bytes=said.get("bytes_accessed", 0.0))


def splash_flops(
    instruction: Instruction, inside: Computation, row_blocks: tuple[float, int] | None = None
) -> tuple[float, float]:
    """Count the FLOPs of splash attention's products in the blocks that its mask does not hide.

        2 · products · rows · heads · blocks · side² · head size

    Two products forward, three for the gradient of queries and four for that of keys and values.
    A gradient needs four: scores are computed again for both, and the gradient of weights for the
    second. Returned are the FLOPs and the share of them that is again. How many blocks of which
    side a kernel visits is said by a scope around it (`splash.py`), and by `row_blocks` where its
    mask is data; 0 of any other kernel.
    """
    # In a loop over rows the kernel's own name is lost; its label still has it.
    kernel = SPLASH.match(instruction.name) or SPLASH.search(instruction.label)
    visited = VISITED.search(instruction.label)
    drawn = row_blocks if DATA_MASK in instruction.label else None
    blocks, side = (int(visited[1]), int(visited[2])) if visited else drawn or (0, 0)
    if not kernel or not blocks or "tpu_custom_call" not in instruction.attributes:
        return 0.0, 0.0
    query = next(
        shape
        for name in instruction.operands
        for shape in inside[name].shapes
        if len(shape.dims) >= 3 and shape.kind in ("bf16", "f32", "f16")
    )
    *heads, _, size = query.dims
    products, again = SPLASH_PRODUCTS[kernel[1]], SPLASH_AGAIN[kernel[1]]
    return 2.0 * products * prod(heads) * blocks * side**2 * size, again / products


def share_to_slices(instruction: Instruction) -> float | None:
    """Return the bytes that `send` sends to other slices, as a multiple of its operand; else 0.

    None where the runtime is asked for what is not known here.
    """
    if instruction.operation != "send" or MEGASCALE not in instruction.attributes:
        return 0.0
    kind = re.search(rf'{MEGASCALE}="(\w+)"', instruction.attributes)
    slices = SLICES_OF.search(instruction.attributes)
    if kind is None or kind[1] not in TRANSFERS or slices is None:
        return None
    return ring_share(TRANSFERS[kind[1]], slices[1].count(",") + 1)


def group_size(attributes: str) -> int:
    """Count the devices that take part in one collective."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])  # a part of an axis says its size
        return prod(int(part or sizes[name]) for name, part in axes)
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=", attributes):
        return int(iota[1].split(",")[-1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return listed[1].count(",") + 1
    return 2  # a permutation names pairs


def ring_share(kind: str, devices: int) -> float:
    """Return the bytes sent by a device, as a multiple of its operand."""
    part = (devices - 1) / devices
    return {
        "all-gather": devices - 1,
        "all-reduce": 2 * part,
        "reduce-scatter": part,
        "all-to-all": part,
        "collective-permute": 1,
    }[kind]


def dot_flops(instruction: Instruction, left: Shape) -> float:
    """Return 2 · results · contracted sizes."""
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in found[1].split(",") if axis] if found else []
    return 2.0 * prod(instruction.shapes[0].dims) * prod(left.dims[axis] for axis in axes)


def convolution_flops(instruction: Instruction, left: Shape, kernel: Shape) -> float:
    """Return 2 · batch · features in and out · places where the window meets the input.

    The TPU compiler writes matrix products as convolutions, batched ones with a dilated window of
    which each result meets one place.
    """
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert found, instruction.name
    of_left, of_kernel, of_out = found.groups()
    out = dict(zip(of_out, instruction.shapes[0].dims, strict=True))
    seen = dict(zip(of_left, left.dims, strict=True))
    inner = dict(zip(of_kernel, kernel.dims, strict=True))
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    settings = dict(re.findall(r"(\w+)=([\dx_\-]+)", window[1])) if window else {}
    met = 1
    for axis in sorted(c for c in of_out if c.isdigit()):
        place = int(axis)

        def setting(name: str, default: str, place: int = place) -> str:
            return settings[name].split("x")[place] if name in settings else default

        met *= window_places(
            seen[axis],
            out[axis],
            int(setting("size", "1")),
            stride=int(setting("stride", "1")),
            before=int(setting("pad", "0_0").split("_")[0]),
            spread=int(setting("lhs_dilate", "1")),
            step=int(setting("rhs_dilate", "1")),
        )
    groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    products = out["b"] * out["f"] * inner["i"] * met
    return 2.0 * products / (int(groups[1]) if groups else 1)


def window_places(
    size: int, results: int, window: int, *, stride: int, before: int, spread: int, step: int
) -> int:
    """Count the pairs of a result and a window slot on an input element, not on padding."""
    at = np.arange(results)[:, None] * stride - before + np.arange(window)[None] * step
    return int(((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)).sum())
