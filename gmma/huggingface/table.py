"""The name table: which tensor of a checkpoint is which of our parameters.

A row maps one of our leaves to one tensor, or to one per layer where ours is stacked. Names are
relative to the parts of a model (`text`, `vision`, …), whose prefixes differ between versions of
transformers; they are found in the checkpoint (`find_prefixes`) and kept for the way back.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gmma.errors import UserError

Layout = Literal["same", "linear"]
Prefixes = Mapping[str, str]


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
    layers: int | None = None  # our leaf is stacked over so many tensors
    alias: bool = False  # a second name of a leaf; may be absent and is not written

    @property
    def leaf_shape(self) -> tuple[int, ...]:
        """Shape of our leaf."""
        own = self.shape
        if self.layout == "linear":
            own = (math.prod(self.shape[1:]), self.shape[0])
        return own if self.layers is None else (self.layers, *own)


def stacked_row(
    part: str,
    base: str,
    their_base: str,
    layers: int | None,
    path: str,
    name: str,
    shape: tuple[int, ...],
    layout: Layout = "same",
) -> Row:
    """Return a row of a stack of layers; of one module where `layers` is None."""
    return Row(
        path=base + path,
        part=part,
        name=their_base + name,
        shape=shape,
        layout=layout,
        layers=layers,
    )


@dataclass(frozen=True, kw_only=True)
class Place:
    """The destination of one tensor of a checkpoint."""

    row: Row
    layer: int | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """All rows of a model, and how its parts are found in a checkpoint."""

    rows: tuple[Row, ...]
    markers: Prefixes  # per part, a name within it that no other part ends with
    prefixes: Prefixes  # what transformers 5 writes, for a model that was not imported
    modules: Prefixes  # of the modules in transformers' memory, which differ

    def places(self, prefixes: Prefixes) -> dict[str, Place]:
        """Return every tensor name and where the tensor goes."""
        found: dict[str, Place] = {}
        for row in self.rows:
            name = prefixes[row.part] + row.name
            if row.layers is None:
                found[name] = Place(row=row, layer=None)
            else:
                for layer in range(row.layers):
                    found[name.format(layer=layer)] = Place(row=row, layer=layer)
        return found


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
