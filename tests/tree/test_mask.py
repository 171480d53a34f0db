"""The static layout and mask of a tree, against their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmma.tree import TreeShape, attention_mask
from gmma.tree.layout import join_levels, node_of_slot, parent_of_node, split_levels

shapes = st.builds(
    TreeShape,
    prompt=st.integers(1, 4),
    thought=st.integers(0, 3),
    answer=st.integers(0, 3),
    thoughts=st.integers(1, 4),
    answers=st.integers(1, 4),
)


def test_the_mask_of_one_small_tree() -> None:
    """Prompt p q, thoughts a and b of one slot, one answer of two slots each."""
    assert attention_mask(TreeShape(2, 1, 2, thoughts=2, answers=1)).astype(int).tolist() == [
        # p q  a  b  a1 a1 b1 b1
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 1, 0, 0, 0],
        [1, 1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 1, 0, 0, 1, 0],
        [1, 1, 0, 1, 0, 0, 1, 1],
    ]


@settings(max_examples=50)
@given(shapes)
def test_a_token_sees_what_precedes_it_on_its_path(shape: TreeShape) -> None:
    """A slot's path is spelt out as (level, thought, answer, place), a prefix for its ancestors."""
    k, m = shape.thoughts, shape.answers
    nodes: list[tuple[int, ...]] = [(), *((i,) for i in range(k))]
    nodes += [(i, j) for i in range(k) for j in range(m)]
    sizes = {0: shape.prompt, 1: shape.thought, 2: shape.answer}
    slots = [(node, place) for node in nodes for place in range(sizes[len(node)])]
    expected = [
        [(b == a and s <= t) or (len(b) < len(a) and a[: len(b)] == b) for b, s in slots]
        for a, t in slots
    ]
    assert attention_mask(shape).tolist() == expected


@settings(max_examples=50)
@given(shapes)
def test_slot_counts(shape: TreeShape) -> None:
    mask = attention_mask(shape)
    assert mask.shape == (shape.packed, shape.packed) == (len(node_of_slot(shape)),) * 2
    path = shape.prompt + shape.thought + shape.answer
    assert shape.flat == shape.thoughts * shape.answers * path
    if shape.answer:
        assert mask.sum(axis=1).max() == path
    assert len(parent_of_node(shape)) == 1 + shape.thoughts + shape.thoughts * shape.answers


def test_levels_are_cut_and_joined() -> None:
    shape = TreeShape(3, 2, 1, thoughts=2, answers=3)
    packed = np.arange(2 * shape.packed * 5).reshape(2, shape.packed, 5)
    prompt, thought, answer = split_levels(jnp.asarray(packed, jnp.int32), shape)
    assert (prompt.shape, thought.shape) == ((2, 3, 5), (2, 2, 2, 5))
    assert answer[1, 1, 2, 0].tolist() == packed[1, shape.answers_start + 5].tolist()
    assert np.array_equal(join_levels(prompt, thought, answer), packed)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"prompt": 0}, "prompt = 0 slots; at least 1"),
        ({"answer": -1}, "answer = -1 slots; at least 0"),
        ({"thoughts": 0}, "thoughts = 0; at least 1"),
        ({"answers": 0}, "answers = 0; at least 1"),
    ],
)
def test_impossible_shapes_are_refused(sizes: dict[str, int], message: str) -> None:
    whole = {"prompt": 1, "thought": 1, "answer": 1, "thoughts": 1, "answers": 1}
    with pytest.raises(ValueError, match=message):
        TreeShape(**whole | sizes)
