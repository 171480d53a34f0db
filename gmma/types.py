"""The data that flow along the straight line, and the legend of its axes.

    B  prompts in a batch           P  prompt slots, image tokens included
    K  thoughts per prompt          T  thought slots
    M  answers per thought          A  answer slots
    S  packed slots, P + K·T + K·M·A
    V, D, L  vocabulary, width, layers

All sizes are static; true lengths are data. A slot at or past its node's length is padding, and
what stands in it never changes a result (law L4). The dataclasses are immutable pytrees.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    Array = Any
else:  # host arrays on their way to a device, and device arrays
    Array = jax.Array | np.ndarray
PyTree = Any
Params = PyTree
T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def pytree(cls: type[T]) -> type[T]:
    """Make a frozen keyword-only dataclass whose fields are pytree children.

    A field with `metadata={"static": True}` belongs to the tree's structure. Unflattening skips
    `__init__`, so that JAX may put specs, tracers or placeholders where the shape checks of the
    tests expect arrays.
    """
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    static = tuple(f.name for f in fields if f.metadata.get("static"))
    names = tuple(f.name for f in fields if f.name not in static)

    def flatten_with_keys(node: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(node, name)) for name in names]
        return children, tuple(getattr(node, name) for name in static)

    def unflatten(aux: tuple[Any, ...], children: Iterable[Any]) -> T:
        node = object.__new__(cls)
        for name, value in zip(static + names, (*aux, *children), strict=True):
            object.__setattr__(node, name, value)
        return node

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls


def node_of(cls: type[T], **fields: Any) -> T:
    """Make a node of a `pytree` by the names of its fields, of specs or placeholders."""
    node = object.__new__(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        object.__setattr__(node, field.name, fields.pop(field.name))
    assert not fields, fields
    return node


def static_field(default: Any = dataclasses.MISSING) -> Any:
    """Return a field of a `pytree` that is part of its structure and must be hashable."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class TreeShape:
    """Slots per node and nodes per level. All static.

    >>> shape = TreeShape(prompt=400, thought=300, answer=60, thoughts=4, answers=4)
    >>> shape.packed, shape.flat
    (2560, 12160)
    """

    prompt: int  # P, slots of the prompt
    thought: int  # T, slots of one thought
    answer: int  # A, slots of one answer
    thoughts: int  # K, thoughts per prompt
    answers: int  # M, answers per thought

    def __post_init__(self) -> None:
        for name, least in (("prompt", 1), ("thought", 0), ("answer", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)} slots; at least {least} needed")
        for name in ("thoughts", "answers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; at least 1 needed")

    @property
    def packed(self) -> int:
        """S = P + K·T + K·M·A: every token once."""
        return self.answers_start + self.thoughts * self.answers * self.answer

    @property
    def flat(self) -> int:
        """K·M·(P + T + A): the same answers as separate sequences."""
        return self.thoughts * self.answers * (self.prompt + self.thought + self.answer)

    @property
    def answers_start(self) -> int:
        """First slot of the first answer, P + K·T."""
        return self.prompt + self.thoughts * self.thought

    @property
    def label(self) -> str:
        """The paper's name of a configuration, `TkAm`.

        >>> TreeShape(8, 8, 8, thoughts=4, answers=2).label
        'T4A2'
        """
        return f"T{self.thoughts}A{self.answers}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One dataset record, on the host."""

    question: str
    images: tuple[np.ndarray, ...]  # each uint8[H, W, 3]
    columns: Mapping[str, Any]  # what the rewards receive by keyword; `answer` is the ground truth
    id: str
    system: str = ""  # the system prompt; "": the model family's own
    # Round the thought and the answer of a reply, once it is asked: the run's; (): gmma's own
    tags: tuple[str, ...] = ()


@pytree
class SeenImages:
    """Images that a tower has seen: what the decoder reads of them, in place of their pixels."""

    features: tuple[Float[Array, "B F D"], ...]  # the image tokens, then what else a family adds
    images: PyTree  # the family's own, without their pixels


@pytree
class PromptBatch:
    """Tokenised prompts; `images` is the family's own pytree, or seen ones; batch axis first."""

    tokens: Int[Array, "B P"]
    lengths: Int[Array, "B"]
    images: PyTree = None


@pytree
class TreeRollout:
    """K thoughts per prompt and M answers per thought, as sampled.

    Log-probs are float32, in nats, at the sampling temperature, over the whole vocabulary. Forced
    tokens (a closing tag appended to a thought that did not close by itself) stand at slots
    `thought_sampled … thought_lengths − 1` and never carry loss.
    """

    thoughts: Int[Array, "B K T"]
    thought_lengths: Int[Array, "B K"]
    thought_sampled: Int[Array, "B K"]  # tokens that the policy chose, ≤ thought_lengths
    thought_logprobs: Float[Array, "B K T"]
    closed: Bool[Array, "B K"]  # the thought reached its closing tag by itself
    answers: Int[Array, "B K M A"]
    answer_lengths: Int[Array, "B K M"]
    answer_logprobs: Float[Array, "B K M A"]
    finished: Bool[Array, "B K M"]  # the answer reached its closing tag


@pytree
class Advantages:
    """Credit of each thought and of each answer; dimensionless."""

    thought: Float[Array, "B K"]
    answer: Float[Array, "B K M"]


@pytree
class TreeInputs:
    """Inputs of a policy's forward pass: every token of every tree once, in packed order.

    `positions` count along the path from the root: an answer continues from the true length of its
    prompt and its thought. In ragged rows (`gmma/tree/rows.py`) a slot is what `nodes` says, and S
    the row's; without `nodes` slots are those of `shape`.
    """

    tokens: Int[Array, "B S"]
    positions: Int[Array, "B S"]
    valid: Bool[Array, "B S"]
    images: PyTree
    nodes: Int[Array, "B S"] | None = None  # of ragged rows: which node each slot belongs to
    shape: TreeShape = static_field()


@pytree
class PackedTree:
    """One training batch: the inputs, and per slot what the objective needs."""

    inputs: TreeInputs
    predecessor: Int[Array, "B S"]  # the slot whose hidden state predicts this slot's token
    trained: Bool[Array, "B S"]  # sampled tokens of kept thoughts and answers
    advantages: Float[Array, "B S"]
    sampler_logprobs: Float[Array, "B S"]
    old_logprobs: Float[Array, "B S"] | None = None  # None: on policy, the ratio is one
    reference_logprobs: Float[Array, "B S"] | None = None  # None: no KL term
    # Slots of the ragged rows in which the network computes; None: the packed slots themselves
    row_slots: int | None = static_field(None)


@pytree
class Metric:
    """A mean kept as sum and count until it is printed, so that merging never averages averages."""

    total: Float[Array, ""]
    count: Float[Array, ""]


Metrics = dict[str, Metric]


@pytree
class TrainState:
    """State that an update reads and writes; donated to it."""

    params: Params  # the trained ones; nested dicts
    frozen: Params  # the others; an update passes them through
    opt_state: PyTree
    step: Int[Array, ""]
