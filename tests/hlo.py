"""What a compiled program holds and reads, from the text of its HLO."""

import re
from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from gmma.plan.hlo import elements

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s32": 4}
BYTES |= {"u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\](\{[^}]*\})?")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
# Operations that name a buffer and read nothing of it.
FREE = {"get-tuple-element", "tuple", "bitcast", "constant", "while", "conditional", "iota"}
FREE |= {"parameter", "copy-done", "slice-done", "opt-barrier"}


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str
    operation: str
    operands: list[str]  # of a parameter, its number
    attributes: str


Computations = dict[str, list[Instruction]]


def array_sizes(text: str) -> Iterator[tuple[str, int]]:
    """Every array type that the text mentions, and how many elements it has."""
    for kind, dims, _ in set(ARRAY.findall(text)):
        if kind in BYTES:
            yield f"{kind}[{dims}]", prod(int(size) for size in dims.split(",") if size)


def largest_array(text: str) -> int:
    """Elements of the largest array anywhere in a program."""
    return max(size for _, size in array_sizes(text))


def parse(text: str) -> tuple[Computations, str]:
    """Computations by name, and the entry's name."""
    computations: Computations = {}
    name = entry = ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%([\w.\-]+) .*\{$", line)
        if head:
            name = head[2]
            computations[name] = []
            entry = name if head[1] else entry
        elif found := INSTRUCTION.match(line):
            inside, attributes = split_call(found[4])
            operands = re.findall(r"%([\w.\-]+(?:#\d+)?)", inside)
            operands = [inside] if found[3] == "parameter" else operands
            computations[name].append(Instruction(*found.groups()[:3], operands, attributes))
    return computations, entry


def split_call(text: str) -> tuple[str, str]:
    """`a, b), attributes` cut at the parenthesis that closes the call."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[:place], text[place:]
    return text, ""


def hbm_bytes(shape: str) -> int:
    """Bytes of an array, or of a tuple's arrays, that lie in the main memory of a TPU."""
    arrays = [(kind, dims) for kind, dims, layout in ARRAY.findall(shape) if "S(" not in layout]
    return sum(BYTES[kind] * prod(int(n) for n in dims.split(",") if n) for kind, dims in arrays)


def hbm_reads(text: str) -> int:
    """Bytes that a scheduled TPU program reads from main memory; a loop's body counts once.

    Operands in vector memory, `S(1)` in the layout, do not count; of an operand that a fusion only
    slices, the slice does.
    """
    computations, entry = parse(text)
    bodies = {entry}
    for instruction in (i for c in computations.values() for i in c if i.operation == "while"):
        bodies |= set(re.findall(r"(?:body|condition)=%([\w.\-]+)", instruction.attributes))
    return sum(reads_of(computations, computations[name]) for name in bodies)


def reads_of(computations: Computations, body: list[Instruction]) -> int:
    """Bytes read by the instructions of one computation."""
    shapes = {instruction.name: instruction.shape for instruction in body}
    total = 0
    for instruction in (i for i in body if i.operation not in FREE):
        for number, name in enumerate(instruction.operands):
            shape = shape_of(name, shapes)
            if hbm_bytes(shape):
                total += operand_reads(computations, instruction, number, shape)
    return total


def shape_of(name: str, shapes: dict[str, str]) -> str:
    """The type of a value, or of an element of a tuple, `name#1`; "" for what is not there."""
    whole, mark, index = name.partition("#")
    shape = shapes.get(whole, "")
    return elements(shape)[int(index)] if mark and shape else shape


def operand_reads(
    computations: Computations, instruction: Instruction, number: int, shape: str
) -> int:
    """Bytes that an instruction reads of its operand of that number."""
    whole = hbm_bytes(shape)
    if instruction.operation in ("dynamic-slice", "slice", "gather"):
        return min(whole, hbm_bytes(re.sub(r"S\(\d\)", "", instruction.shape)))
    if instruction.operation != "fusion":
        return 0 if instruction.operation == "dynamic-update-slice" and number == 0 else whole
    called = re.search(r"calls=%([\w.\-]+)", instruction.attributes)
    assert called
    inner = computations[called[1]]
    own = next(i for i in inner if i.operation == "parameter" and i.operands == [str(number)])
    parts = [
        operand_reads(computations, user, place, shape)
        for user in inner
        for place, name in enumerate(user.operands)
        if name == own.name and user.operation != "parameter"
    ]
    return min(whole, sum(parts))
