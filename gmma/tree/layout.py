"""The static shape of a tree: one prompt, K thoughts, K·M answers, in packed order.

    node      0        1 … K          K+1 … K+K·M
    what      prompt   thoughts       answers (answer j of thought i at node 1 + K + i·M + j)
    slots     P        T each         A each

Everything here is NumPy on the host, small, and known when a program is compiled.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from gmma.types import TreeShape


def prompt_only(slots: int) -> TreeShape:
    """Return a tree without thoughts: plain sequences of `slots` tokens, one a row."""
    return TreeShape(prompt=slots, thought=0, answer=0, thoughts=1, answers=1)


def split_levels(
    packed: Shaped[Array, "B S *rest"], shape: TreeShape
) -> tuple[
    Shaped[Array, "B P *rest"], Shaped[Array, "B K T *rest"], Shaped[Array, "B K M A *rest"]
]:
    """Cut a packed array into its prompt, its thoughts and its answers."""
    batch, _, *rest = packed.shape
    thought = packed[:, shape.prompt : shape.answers_start]
    answer = packed[:, shape.answers_start :]
    return (
        packed[:, : shape.prompt],
        thought.reshape(batch, shape.thoughts, shape.thought, *rest),
        answer.reshape(batch, shape.thoughts, shape.answers, shape.answer, *rest),
    )


def join_levels(
    prompt: Shaped[Array, "B P *rest"],
    thought: Shaped[Array, "B K T *rest"],
    answer: Shaped[Array, "B K M A *rest"],
) -> Shaped[Array, "B S *rest"]:
    """Join what `split_levels` cut."""
    batch, _, *rest = prompt.shape
    flat = [level.reshape(batch, -1, *rest) for level in (prompt, thought, answer)]
    return jnp.concatenate(flat, axis=1)


def node_of_slot(shape: TreeShape) -> np.ndarray:
    """Return the node each packed slot belongs to, `int[S]`.

    >>> node_of_slot(TreeShape(prompt=2, thought=1, answer=1, thoughts=2, answers=2)).tolist()
    [0, 0, 1, 2, 3, 4, 5, 6]
    """
    k, m = shape.thoughts, shape.answers
    sizes = [shape.prompt] + [shape.thought] * k + [shape.answer] * (k * m)
    return np.repeat(np.arange(1 + k + k * m), sizes)


def parent_of_node(shape: TreeShape) -> np.ndarray:
    """Return the parent of each node, −1 for the prompt, `int[1 + K + K·M]`.

    >>> parent_of_node(TreeShape(prompt=2, thought=1, answer=1, thoughts=2, answers=2)).tolist()
    [-1, 0, 0, 1, 1, 2, 2]
    """
    thoughts = np.zeros(shape.thoughts, int)
    answers = 1 + np.repeat(np.arange(shape.thoughts), shape.answers)
    return np.concatenate([[-1], thoughts, answers])
