"""Lengths of thoughts and answers as a plan supposes them: `gmma plan --mean-lengths 200 40`.

They are lognormal (`gmma/tree/lengths.py`). Each node's is drawn alone; prompts fill their slots. A
level of a rollout grows until the longest row of all devices has ended. The longest tree of a
microbatch decides its rows (`gmma/tree/rows.py`); a program is planned with rows of the least
length that is no shorter than they are on average. A model of ours: no data are in it, and lengths
of one tree, which are alike in truth, are independent here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gmma.config import ExperimentConfig
from gmma.errors import UserError
from gmma.models.splash import block_size, padded_mask
from gmma.options.checks import require
from gmma.rollout import ANSWERS, THOUGHTS
from gmma.tree.lengths import draw_lognormal
from gmma.tree.rows import NO_NODE, on_path, row_choices, row_slots
from gmma.types import TreeShape

WIDEST = 3  # spread; one text in six is then twenty times as long as the middle one
BATCHES, KERNEL_ROWS = 256, 8  # that are drawn, and of which the mask is made


@dataclass(frozen=True, kw_only=True)
class LengthModel:
    """Mean lengths in tokens before they are cut to their slots, and the spread σ of their log."""

    thought: float
    answer: float
    spread: float = 0.5

    def __post_init__(self) -> None:
        for name in ("thought", "answer"):
            value = getattr(self, name)
            require(1 <= value < np.inf, f"mean_lengths: {name}", value, "1 or more")
        spread, most = self.spread, WIDEST
        require(0 <= spread <= most, "length_spread", spread, f"0 to {most}, σ of a logarithm")


def length_model(means: tuple[float, float] | None, spread: float | None) -> LengthModel | None:
    """Return the model of lengths that two means give, None without them."""
    if means is None:
        if spread is not None:
            raise UserError("length_spread without mean_lengths changes nothing; give both")
        return None
    thought, answer = means
    return LengthModel(thought=thought, answer=answer, spread=0.5 if spread is None else spread)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Properties of the trees of a program; as they stand, those of full ones."""

    useful: float = 1.0  # share of the slots that are computed which hold a token
    filled: float = 1.0  # and of those that a rollout, or a row, has
    turns: Mapping[str, float] = field(default_factory=dict)  # of a rollout's levels, by name
    row_slots: int | None = None  # None: static rows
    row_mean: float | None = None  # slots of a microbatch's rows, on average
    row_blocks: tuple[float, int] | None = None  # that a kernel visits of a row, and their side


FULL_TREES = Expected()


def expect(config: ExperimentConfig, name: str, lengths: LengthModel | None) -> Expected:
    """Return what the program of that name meets, over 256 batches with a seed of their own."""
    if lengths is None:
        return FULL_TREES
    shape, prompts = config.tree.shape, config.rl.batch_prompts
    if name == "rollout":
        return expect_rollout(shape, config.rl.grown_prompts, lengths)
    parts = config.rl.microbatches if name == "update" else 1
    if name == "sft":
        shape, prompts = replace(shape, thoughts=1, answers=1), config.sft.batch_prompts
        parts = config.sft.microbatches
    choices = row_choices(shape.packed, config.row_lengths) if config.packing == "ragged" else ()
    return expect_update(shape, prompts // parts, lengths, choices)


def expect_rollout(shape: TreeShape, prompts: int, lengths: LengthModel) -> Expected:
    """Return the turns of both levels and the share of their slots that hold tokens."""
    thoughts, answers = draw_lengths(shape, prompts, lengths)
    slots = shape.thoughts * shape.thought + shape.thoughts * shape.answers * shape.answer
    tokens = float((thoughts.sum((1, 2)) + answers.sum((1, 2, 3))).mean()) / prompts
    turns = {
        THOUGHTS: float(thoughts.max((1, 2)).mean()),
        ANSWERS: float(answers.max((1, 2, 3)).mean()),
    }
    nodes = {THOUGHTS: shape.thoughts, ANSWERS: shape.thoughts * shape.answers}
    taken = sum(turns[name] * nodes[name] for name in nodes)
    return Expected(useful=tokens / taken, filled=tokens / slots, turns=turns)


def expect_update(
    shape: TreeShape, prompts: int, lengths: LengthModel, choices: tuple[int, ...]
) -> Expected:
    """Return the rows of so many trees at a time, and the share of their slots that hold tokens."""
    thoughts, answers = draw_lengths(shape, prompts, lengths)
    tokens = shape.prompt + thoughts.sum(2) + answers.sum((2, 3))
    own = [row_slots(int(longest), choices) or shape.packed for longest in tokens.max(1)]
    mean = float(np.mean(own))
    slots = row_slots(math.ceil(mean), choices)
    useful = float(tokens.mean() / (slots or shape.packed))
    if slots is None:
        return Expected(useful=useful, filled=useful)
    inside = tokens.max(1) <= slots
    few = zip(*(x[inside][:KERNEL_ROWS, 0] for x in (thoughts, answers)), strict=True)
    visited = [visited_blocks(shape, own, leaves, slots) for own, leaves in few]
    blocks = (float(np.mean(visited)), block_size(slots))
    return Expected(useful=useful, filled=useful, row_slots=slots, row_mean=mean, row_blocks=blocks)


def draw_lengths(
    shape: TreeShape, prompts: int, lengths: LengthModel
) -> tuple[np.ndarray, np.ndarray]:
    """Draw lengths of thoughts `[batches B K]` and of answers `[batches B K M]`."""
    draw = partial(draw_lognormal, np.random.default_rng(0), spread=lengths.spread)
    batch = (BATCHES, prompts, shape.thoughts)
    thoughts = draw(lengths.thought, shape.thought, batch)
    return thoughts, draw(lengths.answer, shape.answer, (*batch, shape.answers))


def visited_blocks(shape: TreeShape, thoughts: np.ndarray, answers: np.ndarray, slots: int) -> int:
    """Count the blocks that the kernel of a ragged row visits; windows and images are left out.

    `thoughts[K]` and `answers[K M]` are lengths; the prompt fills its slots.
    """
    sizes = np.concatenate([[shape.prompt], thoughts, answers.reshape(-1)])
    held = np.repeat(np.arange(sizes.size), sizes)
    side = block_size(slots)
    with jax.default_device(jax.devices("cpu")[0]):
        nodes = jnp.pad(held, (0, slots - held.size), constant_values=NO_NODE)[None]
        before = jnp.tril(jnp.ones((1, slots, slots), bool)) & (nodes != NO_NODE)[:, None]
        mask = np.asarray(padded_mask(on_path(nodes, nodes, shape) & before, side))[0]
    count = mask.shape[0] // side
    return int(mask.reshape(count, side, count, side).any((1, 3)).sum())
