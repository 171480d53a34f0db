"""Place a network's arrays on a mesh by the logical names of their axes.

Left alone, the compiler may cut a product along the axis that parameters are kept cut over, and
then sum partial results as large as the whole batch in every layer. Saying that activations are cut
over rows, and that a layer's kernel is gathered where it is used, leaves it the choice that costs
least. Without a placer in force (one device, a rollout) nothing is said.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from gmma.types import Array

ROWS = "rows"  # the batch axis of activations
Placer = Callable[[Array, Sequence[str | None]], Array]  # array, logical names of its axes
_placer: ContextVar[Placer | None] = ContextVar("placer", default=None)


@contextmanager
def placing(placer: Placer) -> Iterator[None]:
    """Lay out the arrays of networks that are traced inside as the placer says."""
    token = _placer.set(placer)
    try:
        yield
    finally:
        _placer.reset(token)


def place(x: Array, axes: Sequence[str | None]) -> Array:
    """Lay out an array by the names of its axes; None is a whole axis."""
    placer = _placer.get()
    return x if placer is None else placer(x, axes)


def gathered(kernel: Array, axes: Sequence[str | None]) -> Array:
    """Gather a parameter along its `embed` axis, as a product reads it."""
    return place(kernel, [None if name == "embed" else name for name in axes])


def by_rows(x: Array, features: str | None = None) -> Array:
    """Cut activations `[rows …  features]` over rows, and over features as they are named."""
    last = None if features == "embed" else features
    return place(x, [ROWS, *[None] * (x.ndim - 2), last]) if x.ndim > 1 else x
