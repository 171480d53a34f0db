"""Laws L1, L3, L4 and L6 of the tiny family, over random shapes, lengths, tokens and credit."""

import jax
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmma.tree import TreeShape

SHAPES = (
    TreeShape(8, 4, 3, thoughts=2, answers=2),
    TreeShape(7, 1, 2, thoughts=3, answers=2),
    TreeShape(6, 5, 3, thoughts=1, answers=3),
    TreeShape(6, 3, 4, thoughts=4, answers=1),
    TreeShape(5, 6, 1, thoughts=1, answers=1),
)
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
often = laws.examples(12)


@over_shapes
@often
@given(st.data())
def test_packed_equals_flat(shape: TreeShape, data: st.DataObject) -> None:
    subject = laws.tiny_subject()
    tree = data.draw(laws.trees(subject, shape))
    laws.check_packed_equals_flat(subject, tree, data.draw(laws.generators()), 1e-5)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]], ids=lambda shape: shape.label)
@often
@given(st.data())
def test_packed_equals_flat_in_float64(shape: TreeShape, data: st.DataObject) -> None:
    with jax.enable_x64(True):
        subject = laws.tiny_subject("float64")
        tree = data.draw(laws.trees(subject, shape))
        laws.check_packed_equals_flat(subject, tree, data.draw(laws.generators()), 1e-10)


@over_shapes
@often
@given(st.data())
def test_a_thought_reaches_its_own_answers_alone(shape: TreeShape, data: st.DataObject) -> None:
    subject = laws.tiny_subject()
    tree, other = (data.draw(laws.trees(subject, shape)) for _ in range(2))
    i = data.draw(st.integers(0, shape.thoughts - 1))
    laws.check_isolation(subject, tree, other, i, None)


@over_shapes
@often
@given(st.data())
def test_an_answer_reaches_nothing_else(shape: TreeShape, data: st.DataObject) -> None:
    subject = laws.tiny_subject()
    tree, other = (data.draw(laws.trees(subject, shape)) for _ in range(2))
    i, j = (data.draw(st.integers(0, n - 1)) for n in (shape.thoughts, shape.answers))
    laws.check_isolation(subject, tree, other, i, j)


@over_shapes
@often
@given(st.data())
def test_unused_slots_change_nothing(shape: TreeShape, data: st.DataObject) -> None:
    subject = laws.tiny_subject()
    tree = data.draw(laws.trees(subject, shape))
    laws.check_padding(subject, tree, data.draw(laws.generators()))


@over_shapes
@laws.examples(3)
@given(st.data())
def test_the_laws_hold_of_a_minibatch(shape: TreeShape, data: st.DataObject) -> None:
    """Half of a rollout, which one update trains on."""
    subject, rng = laws.tiny_subject(), data.draw(laws.generators())
    first, second = laws.minibatches_of(data.draw(laws.trees(subject, shape, batch=4)))
    laws.check_packed_equals_flat(subject, second, rng, 1e-5)
    laws.check_padding(subject, second, rng)
    laws.check_isolation(subject, first, second, 0, None)
    laws.check_isolation(subject, first, second, shape.thoughts - 1, 0)
    answers = rng.permuted(np.tile(np.arange(shape.answers), (shape.thoughts, 1)), axis=1)
    laws.check_symmetry(subject, second, rng.permutation(shape.thoughts), answers)


@over_shapes
@often
@given(st.data())
def test_the_order_of_siblings_does_not_matter(shape: TreeShape, data: st.DataObject) -> None:
    subject = laws.tiny_subject()
    tree = data.draw(laws.trees(subject, shape))
    thoughts = np.array(data.draw(st.permutations(range(shape.thoughts))))
    answers = [data.draw(st.permutations(range(shape.answers))) for _ in thoughts]
    laws.check_symmetry(subject, tree, thoughts, np.array(answers))


@laws.examples(6)
@given(st.data())
def test_ragged_rows_keep_the_laws(data: st.DataObject) -> None:
    """L1, L3, L4 and L6 where the trainer computes in rows without gaps."""
    subject, shape = laws.ragged(laws.tiny_subject()), SHAPES[0]
    tree, other = (data.draw(laws.trees(subject, shape)) for _ in range(2))
    rng = data.draw(laws.generators())
    laws.check_packed_equals_flat(subject, tree, rng, 1e-5)
    laws.check_isolation(subject, tree, other, 1, None)
    laws.check_isolation(subject, tree, other, 1, 0)
    laws.check_padding(subject, tree, rng)
    laws.check_symmetry(subject, tree, np.array([1, 0]), np.array([[1, 0], [0, 1]]))
