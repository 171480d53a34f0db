"""Layers with a state a node: what a token is computed from in a tree, and what it is not."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
from families import subject_of
from hypothesis import given
from hypothesis import strategies as st

from gmma.models.cache import open_level
from gmma.plan.programs import node_bytes
from gmma.tree import TreeShape
from gmma.types import Params, PromptBatch

SHAPE = TreeShape(13, 4, 3, thoughts=2, answers=2)  # that of this family in test_ported_laws.py


def with_other(tokens: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
    """The tokens with another one at a place."""
    changed = tokens.copy()
    changed[place] = laws.PIECES.index(b"x") if changed[place] != 18 else 20
    assert changed[place] != tokens[place]
    return changed


@laws.examples(5)
@given(st.data())
def test_one_token_of_a_sibling_moves_nothing_else(data: st.DataObject) -> None:
    """L3, bit for bit: a token reaches what stands behind it on its own paths, and itself."""
    subject = subject_of("qwen3_5")
    tree = data.draw(laws.trees(subject, SHAPE))
    b, i, j = (data.draw(st.integers(0, 1)) for _ in range(3))
    t = data.draw(st.integers(0, tree.rollout.thought_lengths[b, i] - 1))
    a = data.draw(st.integers(0, tree.rollout.answer_lengths[b, i, j] - 1))
    before = laws.evaluate(subject, tree, *laws.zeros(subject, tree)).logprobs
    shape = (laws.BATCH, SHAPE.packed)
    _, thought, answer = np.split(
        np.arange(np.prod(shape)).reshape(shape), [SHAPE.prompt, SHAPE.answers_start], axis=1
    )
    thoughts = thought.reshape(laws.BATCH, SHAPE.thoughts, SHAPE.thought)
    answers = answer.reshape(laws.BATCH, SHAPE.thoughts, SHAPE.answers, SHAPE.answer)
    changes: dict[str, tuple[tuple[int, ...], np.ndarray]] = {
        "thoughts": ((b, i, t), np.append(thoughts[b, i, t:], answers[b, i].ravel())),
        "answers": ((b, i, j, a), answers[b, i, j, a:]),
    }
    for field, (place, reached) in changes.items():
        tokens = with_other(getattr(tree.rollout, field), place)
        changed = tree._replace(rollout=replace(tree.rollout, **{field: tokens}))
        after = laws.evaluate(subject, changed, *laws.zeros(subject, changed)).logprobs
        same = laws.used_slots(tree) & ~np.isin(np.arange(before.size).reshape(shape), reached)
        np.testing.assert_array_equal(before[same], after[same])
        assert before.ravel()[reached[0]] != after.ravel()[reached[0]]


@laws.examples(3)
@given(st.data())
def test_the_order_of_siblings_does_not_matter(data: st.DataObject) -> None:
    """L6."""
    subject = subject_of("qwen3_5")
    tree, rng = data.draw(laws.trees(subject, SHAPE)), data.draw(laws.generators())
    thoughts = rng.permutation(SHAPE.thoughts)
    answers = np.stack([rng.permutation(SHAPE.answers) for _ in range(SHAPE.thoughts)])
    laws.check_symmetry(subject, tree, thoughts, answers)


def test_the_bytes_of_a_state_are_those_of_its_arrays() -> None:
    """What `gmma plan` prints; heads are cut over devices where these divide them."""
    subject = subject_of("qwen3_5")
    prompts = laws.random_prompts(
        subject, np.random.default_rng(0), np.array([11, 11], np.int32), SHAPE.prompt
    )
    states = jax.eval_shape(subject.policy.prefill, subject.params, prompts)[1].states
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(states))
    config, heads = subject.policy.config, subject.policy.config.delta.heads
    assert node_bytes(config) == held // laws.BATCH
    assert node_bytes(config, heads) == held // laws.BATCH // heads
    assert node_bytes(config, heads + 1) == held // laws.BATCH
    assert node_bytes(subject_of("qwen3").policy.config) == 0


def test_a_state_is_that_at_the_true_end_and_branches_by_copies() -> None:
    """Of a prompt in more slots than it needs: as of one that fills them; K copies, then M each."""
    subject = subject_of("qwen3_5")
    rng = np.random.default_rng(0)
    long = laws.random_prompts(subject, rng, np.array([11, 11], np.int32), SHAPE.prompt)
    short = replace(long, tokens=long.tokens[:, :11])

    @laws.compiled
    def grown(params: Params, prompts: PromptBatch) -> Any:
        root = subject.policy.prefill(params, prompts)[1]
        thoughts = open_level(root, (2, 1), 4)
        return root.states, thoughts.states, open_level(thoughts, (2, 3), 4).states

    of_long, of_short = (grown(subject.params, prompts) for prompts in (long, short))
    jax.tree.map(lambda a, b: laws.assert_close(a, b, 1e-6), of_long[0], of_short[0])
    for root, thoughts, answers in zip(*map(jax.tree.leaves, of_long), strict=True):
        assert (thoughts.shape[2:4], answers.shape[2:4]) == ((2, 1), (2, 3))
        np.testing.assert_array_equal(answers, jnp.broadcast_to(root, answers.shape))
