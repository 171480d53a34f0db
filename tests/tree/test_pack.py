"""`pack_tree`: where every token stands, what predicts it, and whether it is trained."""

import laws
import numpy as np
import pytest
from hypothesis import given

from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree
from gmma.types import Advantages, PackedTree, PromptBatch, TreeRollout

# One prompt of length 2 in 3 slots, two thoughts of 2 and 1 in 2 slots, an answer of 2 and 1 each.
PROMPTS = PromptBatch(tokens=np.array([[10, 11, 0]], np.int32), lengths=np.array([2], np.int32))
ROLLOUT = TreeRollout(
    thoughts=np.array([[[20, 21], [22, 0]]], np.int32),
    thought_lengths=np.array([[2, 1]], np.int32),
    thought_sampled=np.array([[1, 1]], np.int32),  # 21 was forced onto the first thought
    thought_logprobs=np.array([[[-1.0, 0.0], [-2.0, 0.0]]], np.float32),
    closed=np.array([[False, True]]),
    answers=np.array([[[[30, 31]], [[32, 0]]]], np.int32),
    answer_lengths=np.array([[[2], [1]]], np.int32),
    answer_logprobs=np.array([[[[-3.0, -4.0]], [[-5.0, 0.0]]]], np.float32),
    finished=np.array([[[True], [False]]]),
)
CREDIT = Advantages(
    thought=np.array([[0.5, -0.5]], np.float32), answer=np.array([[[1.0], [-1.0]]], np.float32)
)
packed_with = laws.compiled(pack_tree)


def row(array: np.ndarray) -> list[float]:
    return np.asarray(array)[0].tolist()


def packed(**options: bool) -> PackedTree:
    return laws.compiled(lambda *tree: pack_tree(*tree, **options))(PROMPTS, ROLLOUT, CREDIT)


def test_one_small_tree() -> None:
    """Slots: the prompt 0 1 2, thoughts 3 4 and 5 6, answers 7 8 and 9 10."""
    tree = packed()
    assert row(tree.inputs.tokens) == [10, 11, 0, 20, 21, 22, 0, 30, 31, 32, 0]
    assert row(tree.inputs.valid) == [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0]
    # thoughts continue at 2, the first thought's answer at 2 + 2, the second's at 2 + 1
    assert row(tree.inputs.positions) == [0, 1, 2, 2, 3, 2, 3, 4, 5, 3, 4]
    # a thought begins after slot 1, the first answer after slot 4, the second after slot 5
    assert row(tree.predecessor) == [0, 0, 1, 1, 3, 1, 5, 4, 7, 5, 9]
    assert row(tree.trained) == [0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 0]
    assert row(tree.advantages) == [0, 0, 0, 0.5, 0.5, -0.5, -0.5, 1, 1, -1, -1]
    assert row(tree.sampler_logprobs) == [0, 0, 0, -1, 0, -2, 0, -3, -4, -5, 0]
    assert tree.inputs.shape == TreeShape(3, 2, 2, thoughts=2, answers=1)


def test_drop_takes_the_loss_off_an_unclosed_thought_and_its_answers() -> None:
    assert row(packed(drop_unclosed=True).trained) == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0]


def test_mask_truncated_takes_the_loss_off_what_ran_out_of_slots() -> None:
    """Off the first thought, though not off its finished answer; and off the second answer."""
    assert row(packed(mask_truncated=True).trained) == [0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    "shape",
    [TreeShape(8, 4, 3, thoughts=2, answers=2), TreeShape(6, 5, 3, thoughts=1, answers=3)],
    ids=lambda shape: shape.label,
)
def test_predecessors_and_positions_follow_every_path(shape: TreeShape) -> None:
    """Along each of the K·M sequences: positions count up, and each token's predecessor is the
    slot of the token before it."""
    subject = laws.tiny_subject()

    @laws.examples(15)
    @given(laws.trees(subject, shape))
    def check(tree: laws.Tree) -> None:
        tree_packed = packed_with(*tree)
        rows = laws.flat_rows(tree)
        positions, before = (
            np.asarray(x) for x in (tree_packed.inputs.positions, tree_packed.predecessor)
        )
        for (b, _, _), slots in zip(rows.path, rows.slot, strict=True):
            path, start = slots[slots >= 0], tree.prompts.lengths[b]
            assert positions[b, path].tolist() == list(range(len(path)))
            assert before[b, path[start:]].tolist() == path[start - 1 : -1].tolist()
        np.testing.assert_array_equal(np.asarray(tree_packed.inputs.valid), laws.used_slots(tree))
        trained = laws.to_packed(tree, rows, (rows.segment > 0).astype(int))
        np.testing.assert_array_equal(np.asarray(tree_packed.trained), trained)

    check()
