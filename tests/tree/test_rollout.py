"""`grow_tree`: decode = packed (L2), padding (L4), reproducibility (L7), and where nodes end."""

from functools import partial
from typing import Any

import jax
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import ANSWER_TAG, END, PIECES, THOUGHT_TAG, Growth

import gmma.rollout
from gmma.plan.hlo import STAGE, parse
from gmma.rollout import ANSWERS, THOUGHTS, stages
from gmma.sampling import GREEDY, SamplingConfig
from gmma.tree import TreeShape
from gmma.types import TreeRollout

GROWTHS = {
    "tempered": Growth(TreeShape(8, 6, 4, thoughts=2, answers=2), SamplingConfig(temperature=0.7)),
    "top_k, drop": Growth(
        TreeShape(6, 4, 5, thoughts=1, answers=3), SamplingConfig(temperature=1.5, top_k=6), ()
    ),
    "top_p": Growth(
        TreeShape(7, 8, 3, thoughts=3, answers=1), SamplingConfig(temperature=2.0, top_p=0.8)
    ),
    "greedy": Growth(TreeShape(6, 7, 4, thoughts=1, answers=1), GREEDY),
}
over_growths = pytest.mark.parametrize("growth", GROWTHS.values(), ids=GROWTHS.keys())
often = laws.examples(12)
seeds = st.integers(0, 2**32 - 1)


@over_growths
@often
@given(st.data(), seeds)
def test_decode_equals_packed(growth: Growth, data: st.DataObject, seed: int) -> None:
    subject = laws.tiny_subject()
    prompts = data.draw(laws.prompt_batches(subject, growth.shape.prompt))
    rollout = laws.grow(subject, growth, prompts, seed)
    laws.check_decode_equals_packed(subject, growth, prompts, rollout)


STAGED = Growth(TreeShape(7, 7, 5, thoughts=2, answers=2), SamplingConfig(temperature=0.9))


@pytest.fixture(scope="module")
def grow_in_stages() -> Any:
    """A level's slots in stages of two: a program of its own, compiled."""
    subject, shape = laws.tiny_subject(), STAGED.shape
    lengths = np.full(laws.BATCH, shape.prompt, np.int32)
    prompts = laws.random_prompts(subject, np.random.default_rng(0), lengths, shape.prompt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gmma.rollout, "STAGE_SLOTS", 2)
        assert stages(shape.thought) == [(0, 2), (2, 4), (4, 7)]
        grow = laws.grower.__wrapped__(subject.policy, STAGED)
        return grow.lower(subject.params, prompts, np.uint32(0)).compile()


def test_a_plan_knows_the_loops_of_stages(grow_in_stages: Any) -> None:
    """By the labels that reach a compiled program."""
    computations, _ = parse(grow_in_stages.as_text())
    loops = [i for one in computations.values() for i in one.values() if i.operation == "while"]
    found = sorted(match.groups() for loop in loops if (match := STAGE.search(loop.label)))
    thoughts, answers = (("0", "2"), ("2", "4"), ("4", "7")), (("0", "2"), ("2", "5"))
    wanted = [(ANSWERS, *slots) for slots in answers] + [(THOUGHTS, *slots) for slots in thoughts]
    assert found == wanted


@often
@given(st.data(), seeds)
def test_stages_change_no_token(grow_in_stages: Any, data: st.DataObject, seed: int) -> None:
    subject = laws.tiny_subject()
    prompts = data.draw(laws.prompt_batches(subject, STAGED.shape.prompt))
    in_stages = jax.tree.map(np.asarray, grow_in_stages(subject.params, prompts, np.uint32(seed)))
    whole = laws.grow(subject, STAGED, prompts, seed)
    np.testing.assert_array_equal(in_stages.thoughts, whole.thoughts)
    np.testing.assert_array_equal(in_stages.answers, whole.answers)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), in_stages, whole)
    laws.check_decode_equals_packed(subject, STAGED, prompts, in_stages)


@over_growths
@often
@given(st.data(), seeds)
def test_unused_prompt_slots_change_nothing(growth: Growth, data: st.DataObject, seed: int) -> None:
    subject = laws.tiny_subject()
    prompts = data.draw(laws.prompt_batches(subject, growth.shape.prompt))
    rollout = laws.grow(subject, growth, prompts, seed)
    tree = laws.Tree(prompts, rollout, laws.no_credit(rollout))
    garbled = laws.with_garbage(subject, tree, data.draw(laws.generators())).prompts
    jax.tree.map(np.testing.assert_array_equal, rollout, laws.grow(subject, growth, garbled, seed))


@over_growths
@often
@given(st.data(), seeds)
def test_the_same_seed_grows_the_same_tree(growth: Growth, data: st.DataObject, seed: int) -> None:
    subject = laws.tiny_subject()
    prompts = data.draw(laws.prompt_batches(subject, growth.shape.prompt))
    first, again = (laws.grow(subject, growth, prompts, seed) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


@over_growths
@often
@given(st.data(), seeds)
def test_nodes_end_where_their_text_closes(growth: Growth, data: st.DataObject, seed: int) -> None:
    subject = laws.tiny_subject()
    prompts = data.draw(laws.prompt_batches(subject, growth.shape.prompt))
    r = laws.grow(subject, growth, prompts, seed)
    for b, i in np.ndindex(r.closed.shape):
        length, sampled = r.thought_lengths[b, i], r.thought_sampled[b, i]
        check_end(b"", r.thoughts[b, i], sampled, r.closed[b, i], THOUGHT_TAG, growth.closing)
        forced = () if r.closed[b, i] else growth.closing
        assert tuple(r.thoughts[b, i, sampled:length]) == forced
        assert not r.thoughts[b, i, length:].any()
        assert not r.thought_logprobs[b, i, sampled:].any()
        assert (r.thought_logprobs[b, i, :sampled] < 0).all()
    for leaf in np.ndindex(r.finished.shape):
        brought = overshoot(r, *leaf[:2])
        length = r.answer_lengths[leaf]
        check_end(brought, r.answers[leaf], length, r.finished[leaf], ANSWER_TAG, ())
        assert not r.answers[leaf][r.answer_lengths[leaf] :].any()


def overshoot(r: TreeRollout, b: int, i: int) -> bytes:
    """What a thought's text holds behind its closing tag."""
    text = b"".join(PIECES[t] for t in r.thoughts[b, i, : r.thought_lengths[b, i]])
    return text.partition(THOUGHT_TAG.encode())[2]


def check_end(
    brought: bytes,
    tokens: np.ndarray,
    sampled: int,
    closed: bool,
    tag: str,
    closing: tuple[int, ...],
) -> None:
    """The policy's own tokens end at the first one after which the text holds the tag, at an
    end-of-text token, or where only room for the closing tokens is left. What was `brought` from
    the node before is text of this one."""
    texts = [brought + b"".join(PIECES[t] for t in tokens[:n]) for n in range(sampled + 1)]
    held = [tag.encode() in text for text in texts]
    assert not any(held[1:-1])
    assert held[-1] == closed
    assert END not in tokens[: sampled - 1]
    assert closed or tokens[sampled - 1] == END or sampled == len(tokens) - len(closing)


def test_the_pool_of_growths_meets_every_end() -> None:
    """Closed by itself, by force for want of room, by force after an end token; and not at all.

    Closing tokens bring nothing, half a tag, or a whole one."""
    subject = laws.tiny_subject()
    met, halves = set(), set[bytes]()
    for growth in GROWTHS.values():
        rng = np.random.default_rng(0)
        prompts = laws.random_prompts(subject, rng, np.array([6, 5], np.int32), growth.shape.prompt)
        for seed in range(40):
            r = laws.grow(subject, growth, prompts, seed)
            last = np.take_along_axis(r.thoughts, r.thought_sampled[..., None] - 1, axis=2)[..., 0]
            ends = np.where(last == END, "end token", "no room")
            kinds = np.where(r.closed, "closed", ends)
            met |= {(kind, bool(growth.closing)) for kind in kinds.flat}
            halves |= {overshoot(r, *node) for node in np.ndindex(r.closed.shape)}
    assert {b"", b"y", b"</", b"</a>"} <= halves
    kinds = ("closed", "end token", "no room")
    assert met == {(kind, forced) for kind in kinds for forced in (True, False)}


@laws.examples(6)
@given(st.data(), seeds)
def test_a_prompt_grows_alone(data: st.DataObject, seed: int) -> None:
    """A tree depends on its row and prompt, not on its neighbours."""
    subject, growth = laws.tiny_subject(), GROWTHS["tempered"]
    first, second = (data.draw(laws.prompt_batches(subject, growth.shape.prompt)) for _ in range(2))
    mixed = jax.tree.map(lambda a, b: np.stack([a[0], b[1]]), first, second)
    alone, beside = (laws.grow(subject, growth, p, seed) for p in (first, mixed))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), alone, beside)
