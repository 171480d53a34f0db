"""Advantages against the formulas in float64, and their symmetries."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmma.advantage import group_relative, multi_answer
from gmma.types import Advantages

SHAPES = ((2, 4, 4), (3, 3, 5), (2, 1, 3), (2, 5, 1), (1, 2, 8))  # B, K, M
SCALES = ("group", "batch", "none")
BASELINES = ("tree", "thought")
OPTIONS = tuple(itertools.product(SCALES, BASELINES))
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@functools.cache
def credit() -> Callable[..., dict[tuple[str, str], Advantages]]:
    """(rewards, mask) → advantages under every choice of scale and baseline, one program."""

    def all_of(rewards: Any, mask: Any = None) -> dict[tuple[str, str], Advantages]:
        return {
            (scale, baseline): multi_answer(
                rewards, scale=scale, answer_baseline=baseline, mask=mask
            )
            for scale, baseline in OPTIONS
        }

    return laws.compiled(all_of)


@functools.cache
def plain() -> Callable[..., Advantages]:
    """`multi_answer` as it comes."""
    return laws.compiled(lambda rewards, mask=None: multi_answer(rewards, mask=mask))


def relative(groups: np.ndarray, scale: str) -> np.ndarray:
    """(x − mean x) / std x along the last axis, as the formula stands; 0 in a constant group."""
    deviation = {"group": groups.std(axis=1, keepdims=True), "batch": groups.std(), "none": 1.0}
    constant = np.ptp(groups, axis=1, keepdims=True) == 0
    centred = groups - groups.mean(axis=1, keepdims=True)
    return np.where(constant, 0, centred / np.where(constant, 1, deviation[scale]))


def reference(rewards: np.ndarray, scale: str, baseline: str) -> tuple[np.ndarray, np.ndarray]:
    """Thought and answer advantages in float64."""
    exact = rewards.astype(np.float64)
    group = -1 if baseline == "thought" else exact.shape[1] * exact.shape[2]
    groups = exact.reshape(-1, exact.shape[2] if group == -1 else group)
    return relative(exact.mean(axis=2), scale), relative(groups, scale).reshape(exact.shape)


@st.composite
def rewards(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray:
    """All equal; two-valued; a spread of 1e-4; an offset of 1e6; anything, whole trees constant."""
    unit = draw(hnp.arrays(np.float64, shape, elements=st.integers(0, 256).map(lambda n: n / 256)))
    low, high = draw(st.tuples(*[st.floats(-2, 2, width=16)] * 2))
    kinds = {
        "equal": np.full(shape, high),
        "two-valued": np.where(unit < 0.5, low, high),
        "tiny spread": high + 1e-4 * unit,
        "large offset": 1e6 + unit,
        "anything": 8 * unit - 3,
    }
    drawn = kinds[draw(st.sampled_from(sorted(kinds)))].astype(np.float32)
    drawn[draw(hnp.arrays(bool, shape[0], elements=st.booleans()))] = drawn.flat[0]
    return drawn


@over_shapes
@laws.examples(60)
@given(st.data())
def test_equals_the_formulas(shape: tuple[int, ...], data: st.DataObject) -> None:
    """To 1e-6 of the largest advantage; exactly 0 where the group is constant."""
    drawn = data.draw(rewards(shape))
    found = credit()(drawn)
    for option in OPTIONS:
        for own, exact in zip(
            (found[option].thought, found[option].answer), reference(drawn, *option), strict=True
        ):
            assert np.abs(np.asarray(own) - exact).max() <= 1e-6 * np.abs(exact).max()
            constant = ~exact.reshape(shape[0], -1).any(axis=1)
            assert not np.asarray(own)[constant].any()


def test_by_hand() -> None:
    """Values ½, 0, 1 with mean ½ and std √(1/6); rewards of mean ½ and std ½."""
    found = plain()(np.float32([[[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]]))
    thought = np.array([0, -0.5, 0.5]) * 6**0.5
    np.testing.assert_allclose(found.thought[0], thought, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found.answer[0], [[1, -1], [-1, -1], [1, 1]])


def test_equal_values_of_thoughts_still_train_the_answers() -> None:
    """Both thoughts are worth ½; each has a better answer."""
    found = plain()(np.float32([[[1.0, 0.0], [0.0, 1.0]]]))
    np.testing.assert_array_equal(found.thought, [[0, 0]])
    np.testing.assert_array_equal(found.answer, [[[1, -1], [-1, 1]]])


def test_values_equal_but_for_rounding_are_equal() -> None:
    """⅓ + ⅔ against 1 + 0 and 0.1 + 0.2 + 0.3 in two orders."""
    thirds = np.float32(
        [[[1 / 3, 2 / 3, 0.0], [1.0, 0.0, 0.0]], [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]]
    )
    np.testing.assert_array_equal(plain()(thirds).thought, np.zeros((2, 2)))


def test_what_numpy_holds_is_taken_as_jax_computes_it() -> None:
    """Its float64 would set the bound of rounding to that of a type nobody computes in."""
    thirds = multi_answer(np.array([[[1 / 3, 2 / 3], [1.0, 0.0]]]))
    np.testing.assert_array_equal(thirds.thought, [[0, 0]])
    whole = multi_answer(np.array([[[1, 1], [0, 0]]]))
    np.testing.assert_array_equal(whole.thought, [[1, -1]])
    np.testing.assert_array_equal(whole.answer, [[[1, 1], [-1, -1]]])
    assert {thirds.thought.dtype, whole.thought.dtype, whole.answer.dtype} == {np.dtype("float32")}


@laws.examples(30)
@given(rewards((2, 5, 1)))
def test_one_answer_a_thought_is_grpo(drawn: np.ndarray) -> None:
    """L5: both advantages are `group_relative` of the K rewards."""
    found = credit()(drawn)
    for scale in SCALES:
        grpo = np.asarray(relative_program(scale)(drawn[:, :, 0]))
        own = found[scale, "tree"]
        tolerance = 1e-6 * np.abs(grpo).max()
        np.testing.assert_allclose(own.thought, grpo, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(own.answer[:, :, 0], grpo)


@functools.cache
def relative_program(scale: str) -> Callable[..., Any]:
    return laws.compiled(functools.partial(group_relative, scale=scale))


@over_shapes
@laws.examples(20)
@given(st.data())
def test_a_permutation_permutes(shape: tuple[int, ...], data: st.DataObject) -> None:
    """L6, thoughts and answers within thoughts."""
    drawn = data.draw(rewards(shape))
    thoughts = np.array(data.draw(st.permutations(range(shape[1]))))
    answers = np.array([data.draw(st.permutations(range(shape[2]))) for _ in thoughts])
    before, after = credit()(drawn), credit()(drawn[:, thoughts[:, None], answers])
    for option, was in before.items():
        scale = 1e-6 * max(np.abs(was.thought).max(), np.abs(was.answer).max())
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=scale)
        close(after[option].thought, was.thought[:, thoughts])
        close(after[option].answer, was.answer[:, thoughts[:, None], answers])


@over_shapes
@laws.examples(20)
@given(st.data())
def test_shift_and_scale_do_not_matter(shape: tuple[int, ...], data: st.DataObject) -> None:
    """L6: exactly so where shift and scale are exact in float32."""
    unit = data.draw(hnp.arrays(np.float32, shape, elements=st.integers(-64, 64).map(float)))
    shift = data.draw(st.integers(-1000, 1000))
    scale = 2.0 ** data.draw(st.integers(-3, 3))
    before, after = credit()(unit), credit()((scale * (unit + shift)).astype(np.float32))
    for (name, baseline), was in before.items():
        factor = scale if name == "none" else 1
        expected = jax.tree.map(lambda x, factor=factor: np.asarray(x) * np.float32(factor), was)
        found = jax.tree.map(np.asarray, after[name, baseline])
        np.testing.assert_allclose(found.thought, expected.thought, rtol=1e-6, atol=1e-6 * factor)
        np.testing.assert_allclose(found.answer, expected.answer, rtol=1e-6, atol=1e-6 * factor)


@laws.examples(20)
@given(rewards((2, 4, 4)), st.integers(1, 4), laws.generators())
def test_masked_equals_subset(drawn: np.ndarray, kept: int, rng: np.random.Generator) -> None:
    """Any `kept` answers of each thought, the others NaN and masked, are a tree of that M."""
    order = rng.permuted(np.broadcast_to(np.arange(4), (2, 4, 4)), axis=2)
    mask = order < kept
    chosen = np.argsort(order, axis=2)[:, :, :kept]
    subset = np.take_along_axis(drawn, chosen, axis=2)
    masked = credit()(np.where(mask, drawn, np.nan).astype(np.float32), mask)
    for option in OPTIONS:
        thought, answer = reference(subset, *option)
        found = jax.tree.map(np.asarray, masked[option])
        bound = 1e-6 * max(np.abs(thought).max(), np.abs(answer).max(), 1e-9)
        np.testing.assert_allclose(found.thought, thought, rtol=0, atol=bound)
        taken = np.take_along_axis(found.answer, chosen, axis=2)
        np.testing.assert_allclose(taken, answer, rtol=0, atol=bound)
        assert not found.answer[~mask].any()


def test_a_thought_without_a_scored_answer_takes_no_part() -> None:
    """The second of three: the others are compared to each other alone."""
    rewards = np.float32([[[1.0, 1.0], [5.0, 9.0], [0.0, 0.0]]])
    mask = np.array([[[True, True], [False, False], [True, True]]])
    found = plain()(rewards, mask=mask)
    np.testing.assert_array_equal(found.thought, [[1, 0, -1]])
    np.testing.assert_array_equal(found.answer, [[[1, 1], [0, 0], [-1, -1]]])
    nothing = plain()(rewards, ~mask & mask)
    assert not np.asarray(nothing.thought).any()
    assert not np.asarray(nothing.answer).any()
