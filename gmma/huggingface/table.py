"""The name table: which tensor of a checkpoint is which of our parameters.

A row maps one of our leaves to one tensor, or to one per layer where ours is stacked; in a stack
that repeats a pattern of layers, to one per layer of a kind. Names are
relative to the parts of a model (`text`, `vision`, …), whose prefixes differ between versions of
transformers; they are found in the checkpoint (`find_prefixes`) and kept for the way back.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from typing import Literal

from gmma.errors import UserError

Layout = Literal["same", "linear"]
Prefixes = Mapping[str, str]


@dataclass(frozen=True)
class Layers:
    """The layers that a leaf is stacked over: at index (i, …) number first + Σ step · i."""

    shape: tuple[int, ...]  # of the stack, the leaf's first axes
    steps: tuple[int, ...]
    first: int = 0

    def numbers(self) -> dict[tuple[int, ...], int]:
        """Return the number of the layer at each index.

        >>> Layers((2, 3), (4, 1)).numbers()[1, 2]
        6
        """
        return {
            index: self.first + sum(i * step for i, step in zip(index, self.steps, strict=True))
            for index in product(*map(range, self.shape))
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """One of our leaves and its tensors.

    `same` keeps the axes; `linear` turns transformers' `[out, in …]` into our `[in, out]`, a
    convolution's input axes flattened.
    """

    path: str  # of our leaf, `params/blocks/…`
    part: str  # of the model; has a prefix
    name: str  # within the part; `{layer}` stands for the layer's number
    shape: tuple[int, ...]  # of one tensor, as transformers has it
    layout: Layout = "same"
    layers: int | Layers | None = None  # our leaf is stacked over so many tensors, or over these
    alias: bool = False  # a second name of a leaf; may be absent and is not written
    # Sizes of what a head has along the first axis, query, key and values: transformers has all
    # heads' queries, then all keys, then all values; ours stand head by head, so that a mesh can
    # cut between heads. (): the same order.
    head_parts: tuple[int, ...] = ()

    @property
    def stack(self) -> Layers:
        """Layers of our leaf; without a stack it is one, at index ()."""
        if self.layers is None:
            return Layers((), ())
        return Layers((self.layers,), (1,)) if isinstance(self.layers, int) else self.layers

    @property
    def spans(self) -> tuple[tuple[int, int, int], ...]:
        """Pieces of the first axis that stay together: where in theirs, where in ours, how long.

        >>> Row(path="", part="", name="", shape=(6,), head_parts=(1, 2)).spans
        ((0, 0, 1), (1, 3, 1), (2, 1, 2), (4, 4, 2))
        """
        if not self.head_parts:
            return ((0, 0, self.shape[0]),)
        ends = tuple(accumulate(self.head_parts, initial=0))
        heads = self.shape[0] // ends[-1]
        return tuple(
            (heads * begin + head * (end - begin), head * ends[-1] + begin, end - begin)
            for begin, end in pairwise(ends)
            for head in range(heads)
        )

    @property
    def leaf_shape(self) -> tuple[int, ...]:
        """Shape of our leaf."""
        own = self.shape
        if self.layout == "linear":
            own = (math.prod(self.shape[1:]), self.shape[0])
        return (*self.stack.shape, *own)


def stacked_row(
    part: str,
    base: str,
    their_base: str,
    layers: int | Layers | None,
    path: str,
    name: str,
    shape: tuple[int, ...],
    layout: Layout = "same",
    head_parts: tuple[int, ...] = (),
) -> Row:
    """Return a row of a stack of layers; of one module where `layers` is None."""
    return Row(
        path=base + path,
        part=part,
        name=their_base + name,
        shape=shape,
        layout=layout,
        layers=layers,
        head_parts=head_parts,
    )


@dataclass(frozen=True, kw_only=True)
class Place:
    """The destination of one tensor of a checkpoint."""

    row: Row
    index: tuple[int, ...]  # in our leaf's stack; (): the leaf itself


@dataclass(frozen=True, kw_only=True)
class Table:
    """All rows of a model, and how its parts are found in a checkpoint."""

    rows: tuple[Row, ...]
    markers: Prefixes  # per part, a name within it that no other part ends with
    prefixes: Prefixes  # what transformers 5 writes, for a model that was not imported
    modules: Prefixes  # of the modules in transformers' memory, which differ
    # Beginnings of names that transformers does not read either: heads for guessing ahead.
    ignored: tuple[str, ...] = ()

    def places(self, prefixes: Prefixes) -> dict[str, Place]:
        """Return every tensor name and where the tensor goes."""
        found: dict[str, Place] = {}
        for row in self.rows:
            name = prefixes[row.part] + row.name
            for index, layer in row.stack.numbers().items():
                found[name.format(layer=layer)] = Place(row=row, index=index)
        return found

    def read_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Leave out the tensors of a checkpoint that are not read."""
        return {name: shape for name, shape in shapes.items() if not name.startswith(self.ignored)}


def find_prefixes(table: Table, names: Iterable[str]) -> dict[str, str]:
    """Find each part's prefix in a checkpoint by its marker; the default if it is absent."""
    names = tuple(names)
    found = dict(table.prefixes)
    for part, marker in table.markers.items():
        ends = [name for name in names if name == marker or name.endswith("." + marker)]
        if ends:
            found[part] = min(ends, key=len).removesuffix(marker)
    return found


def check_names(
    places: Mapping[str, Place], shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Compare a checkpoint with the table; one UserError lists all that is wrong."""
    missing = [name for name in places if name not in shapes and not places[name].row.alias]
    unused = [name for name in shapes if name not in places]
    misshapen = [
        f"{name} {shapes[name]}, expected {place.row.shape}"
        for name, place in places.items()
        if name in shapes and shapes[name] != place.row.shape
    ]
    kinds = {"missing": missing, "unused": unused, "misshapen": misshapen}
    wrong = [f"{len(v)} {kind}: {', '.join(sorted(v))}" for kind, v in kinds.items() if v]
    if wrong:
        raise UserError(
            f"{where} does not hold this model's {len(places)} tensors; "
            f"{'; '.join(wrong)}. Use the weights that belong to config.json"
        )
