"""Credit rules of other tree methods: loops over their equations in float64, bounds, refusals."""

import functools
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmma.config import CREDITS, ObjectiveConfig
from gmma.errors import UserError
from gmma.types import Advantages

SHAPES = ((2, 4, 4), (3, 2, 3), (2, 8, 1))  # B, K, M
SCALES = ("none", "group", "batch")
RULES = {
    "leaf": ("tree",),
    "td": ("tree", "thought"),
    "loo": ("tree", "thought"),
    "treerl": ("tree",),
    "treepo": ("tree",),
}
OPTIONS = [(rule, base, scale) for rule in RULES for base in RULES[rule] for scale in SCALES]
EPS = np.finfo(np.float32).eps
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@functools.cache
def credit() -> Callable[..., dict[Any, Advantages]]:
    """(rewards, mask) → advantages of every rule, baseline and scale; one program a shape."""

    def all_of(rewards: Any, mask: Any) -> dict[Any, Advantages]:
        return {
            (rule, base, scale): CREDITS[rule](
                rewards, mask=mask, scale=scale, answer_baseline=base
            )
            for rule, base, scale in OPTIONS
        }

    return laws.compiled(all_of)


# The equations


Node = tuple[int, ...]


def counted_answers(rewards: np.ndarray, mask: np.ndarray) -> list[list[dict[int, float]]]:
    """Per tree and thought, the rewards that count by the number of their answer."""
    return [
        [{int(j): float(tree[i, j]) for j in np.flatnonzero(some[i])} for i in range(len(tree))]
        for tree, some in zip(rewards, mask, strict=True)
    ]


def thought_values(tree: list[dict[int, float]]) -> dict[int, float]:
    """V_i; all the same where they differ by no more than the rounding of float32."""
    values = {i: float(np.mean(list(t.values()))) for i, t in enumerate(tree) if t}
    every = [r for thought in tree for r in thought.values()]
    if values and np.std(list(values.values())) <= 4 * EPS * np.ptp(every):
        return dict.fromkeys(values, float(np.mean(every)))
    return values


def less_others(own: float, others: list[float]) -> float:
    return own - float(np.mean(others)) if others else 0.0


def undivided(tree: list[dict[int, float]], rule: str, baseline: str) -> dict[Node, float]:
    """Credit of node (i,) and of node (i, j) before any division."""
    values = thought_values(tree)
    flat = {(i, j): r for i, thought in enumerate(tree) for j, r in thought.items()}
    if not flat:
        return {}
    root = float(np.mean(list(flat.values())))
    found: dict[Node, float] = {}
    for i, value in values.items():
        leaves = len(tree[i])
        found[i,] = {
            "leaf": value - root,
            "td": value - root,
            "loo": less_others(value, [v for k, v in values.items() if k != i]),
            "treerl": ((value - root) + (value - root)) / np.sqrt(leaves),
            "treepo": float(np.mean([((r - root) + (r - value)) / 2 for r in tree[i].values()])),
        }[rule]
    for (i, j), reward in flat.items():
        mates = {n: r for n, r in flat.items() if n[0] == i or baseline == "tree"}
        found[i, j] = {
            "leaf": reward - root,
            "td": reward - np.mean(list(tree[i].values())),
            "loo": less_others(reward, [r for n, r in mates.items() if n != (i, j)]),
            "treerl": (reward - root) + (reward - np.mean(list(tree[i].values()))),
            "treepo": ((reward - root) + (reward - np.mean(list(tree[i].values())))) / 2,
        }[rule]
    return found


def reference(
    rewards: np.ndarray, mask: np.ndarray, rule: str, baseline: str, scale: str
) -> tuple[np.ndarray, np.ndarray]:
    """Thought and answer advantages in float64."""
    trees = counted_answers(rewards, mask)
    nodes = [undivided(tree, rule, baseline) for tree in trees]

    def spread(some: list[int]) -> float:
        if rule == "treepo":
            every = [a for b in some for node, a in nodes[b].items() if len(node) == 2]
        else:
            every = [r for b in some for thought in trees[b] for r in thought.values()]
        return float(np.std(every)) if every and np.ptp(every) > 0 else 1.0

    thought, answer = np.zeros(rewards.shape[:2]), np.zeros(rewards.shape)
    for b, tree in enumerate(nodes):
        some = {"none": [], "group": [b], "batch": list(range(len(nodes)))}[scale]
        for node, value in tree.items():
            (thought if len(node) == 1 else answer)[(b, *node)] = value / spread(some)
    return thought, answer


def bounds(mask: np.ndarray, rule: str, baseline: str) -> tuple[np.ndarray, np.ndarray]:
    """What the docstrings say of scale "group", for thoughts `[B K 1]` and answers `[B K M]`."""
    m = np.maximum(mask.sum(axis=2, keepdims=True), 1).astype(float)
    n = np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1).astype(float)
    k = np.maximum(mask.any(axis=2).sum(axis=1)[:, None, None], 1).astype(float)
    between = np.sqrt(n / m - 1)
    answer = np.sqrt(n - 1) + 0 * m
    if rule == "td":
        answer = np.sqrt(n * (1 - 1 / m))
    if rule == "treerl":
        return 2 * np.sqrt((n / m - 1) / m), np.sqrt(n * (4 - 3 / m) - 1)
    if rule == "loo":
        group = n + 0 * m if baseline == "tree" else m
        answer = np.sqrt(n * group / np.maximum(group - 1, 1))
        full = mask.all(axis=(1, 2), keepdims=True)  # the thoughts' bound is for no mask
        between = np.where(full, k / np.sqrt(np.maximum(k - 1, 1)), np.inf)
    return between, answer


# Rewards


@st.composite
def rewards(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray:
    """Ties, tiny spreads, a large offset, one difference of any size down to one rounding."""
    unit = draw(hnp.arrays(np.float64, shape, elements=st.integers(0, 256).map(lambda n: n / 256)))
    low, high = draw(st.tuples(*[st.floats(-2, 2, width=16)] * 2))
    place = tuple(draw(st.integers(0, size - 1)) for size in shape)
    one, last = np.full(shape, high, np.float32), np.full(shape, np.float32(0.95))
    one[place], last[place] = low, np.nextafter(np.float32(0.95), np.float32(1))
    kinds = {
        "equal": np.full(shape, high),
        "two-valued": np.where(unit < 0.5, low, high),
        "tiny spread": high + 1e-4 * unit,
        "large offset": 1e6 + unit,
        "one difference": one,
        "one rounding": last,
        "seven and one": np.where(one == one[place], np.float32(0.35), np.float32(0.95)),
        "anything": 8 * unit - 3,
    }
    drawn = kinds[draw(st.sampled_from(sorted(kinds)))].astype(np.float32)
    drawn[draw(hnp.arrays(bool, shape[0], elements=st.booleans()))] = drawn.flat[0]
    return drawn


def masks(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """All answers count, or any of them, none of a tree among these."""
    some = hnp.arrays(bool, shape, elements=st.sampled_from([True, True, True, False]))
    return st.one_of(st.just(np.ones(shape, bool)), some)


@over_shapes
@laws.examples(60)
@given(st.data())
def test_equals_the_equation_and_keeps_its_bound(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    """To 1e-6 of a tree's largest advantage, and the rounding of the loops themselves."""
    drawn, mask = data.draw(rewards(shape)), data.draw(masks(shape))
    given_rewards = np.where(mask, drawn, np.float32(np.nan))
    found = jax.tree.map(np.asarray, credit()(given_rewards, mask))
    spread = np.ptp(np.where(mask, drawn, drawn.max(where=mask, initial=-1e9)), axis=(1, 2))
    for option in OPTIONS:
        exact = reference(drawn, mask, *option)
        for own, wanted in zip((found[option].thought, found[option].answer), exact, strict=True):
            largest = np.abs(wanted).reshape(shape[0], -1).max(axis=1)
            error = np.abs(own - wanted).reshape(shape[0], -1).max(axis=1)
            assert (error <= 1e-6 * largest + 1e-13 * spread).all(), (option, own, wanted)
        thought, answer = np.abs(found[option].thought)[..., None], np.abs(found[option].answer)
        assert not answer[~mask].any()
        if option[2] == "group":
            of_thought, of_answer = bounds(mask, *option[:2])
            assert (thought <= of_thought * (1 + 1e-6)).all(), (option, thought, of_thought)
            assert (answer <= np.where(mask, of_answer, 0) * (1 + 1e-6)).all()
        if option[2] == "none":
            widest = (2 if option[0] == "treerl" else 1) * spread[:, None, None] * (1 + 1e-6)
            assert (np.maximum(thought, answer) <= widest).all()


@pytest.mark.parametrize(("rule", "baseline"), [(r, b) for r in RULES for b in RULES[r]])
def test_a_bound_is_reached(rule: str, baseline: str) -> None:
    """No smaller bound would do: the worst rewards are those that a rule's weights look like.

    A is a sum of weights · rewards, so it is largest, for a deviation of 1, where rewards are the
    weights. TreePO's are those that make its a_ij differ in one place.
    """
    mask, tree, siblings = np.ones((2, 4, 4), bool), np.zeros((4, 4)), np.zeros((4, 4))
    tree[0, 0] = siblings[0, 0] = 1
    tree -= 1 / 16
    siblings[0] -= 1 / 4
    weights = {
        ("td", "tree"): siblings,
        ("td", "thought"): siblings,
        ("loo", "thought"): siblings,
        ("treerl", "tree"): tree + siblings,
        ("treepo", "tree"): tree + (tree.mean(axis=1, keepdims=True)),
    }.get((rule, baseline), tree)
    of_thought, of_answer = bounds(mask, rule, baseline)
    worst = np.broadcast_to(weights, mask.shape).astype(np.float32)
    found = credit()(worst, mask)[rule, baseline, "group"]
    np.testing.assert_allclose(found.answer[0, 0, 0], of_answer[0, 0, 0], rtol=1e-5)
    worst = np.zeros(mask.shape, np.float32)
    worst[:, 0] = 1
    found = credit()(worst, mask)[rule, baseline, "group"]
    np.testing.assert_allclose(found.thought[0, 0], of_thought[0, 0, 0], rtol=1e-5)


def test_by_hand() -> None:
    """V = 2 and 0; R̄ = 1; three leaves a thought."""
    tree = np.float32([[[3, 3, 0], [0, 0, 0]]] * 3)
    found = jax.tree.map(np.asarray, credit()(tree, np.ones(tree.shape, bool)))
    for option, thought, answers in (
        (("leaf", "tree"), 1, [2, 2, -1]),
        (("td", "tree"), 1, [1, 1, -2]),
        (("loo", "tree"), 2, [2.4, 2.4, -1.2]),
        (("loo", "thought"), 2, [1.5, 1.5, -3]),
        (("treerl", "tree"), 2 / 3**0.5, [3, 3, -3]),
        (("treepo", "tree"), 0.5, [1.5, 1.5, -1.5]),
    ):
        own = found[*option, "none"]
        np.testing.assert_allclose(own.thought[0], [thought, -thought], rtol=1e-6)
        np.testing.assert_allclose(own.answer[0, 0], answers, rtol=1e-6)
        # the trees are alike; the variance of the rewards is 2, that of TreePO's a_ij 5/4
        deviation = 1.25**0.5 if option[0] == "treepo" else 2**0.5
        for scale in ("group", "batch"):
            np.testing.assert_allclose(
                found[*option, scale].thought, own.thought / deviation, rtol=1e-6
            )


def test_values_equal_but_for_rounding_are_equal() -> None:
    """⅓ + ⅔ against 1 + 0: no thought gets anything, by any rule and scale."""
    tree = np.float32([[[1 / 3, 2 / 3, 0], [1, 0, 0]], [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]])
    three = np.concatenate([tree, tree[:1]])
    found = credit()(three, np.ones(three.shape, bool))
    for option in OPTIONS:
        np.testing.assert_array_equal(found[option].thought, np.zeros((3, 2)))
        assert (np.asarray(found[option].answer)[0, 1] != 0).all()


@laws.examples(30)
@given(rewards((2, 4, 4)), masks((2, 4, 4)))
def test_td_adds_up_along_a_path_to_leaf(drawn: np.ndarray, mask: np.ndarray) -> None:
    """What a thought and its answer get is what `leaf` gives the whole response."""
    found = credit()(drawn, mask)
    for scale in SCALES:
        parts, whole = found["td", "tree", scale], np.asarray(found["leaf", "tree", scale].answer)
        along = np.where(mask, np.asarray(parts.thought)[:, :, None] + parts.answer, 0)
        np.testing.assert_allclose(along, whole, rtol=0, atol=1e-6 * np.abs(whole).max())


@laws.examples(10)
@given(rewards((2, 4, 4)), laws.generators())
def test_a_permutation_permutes(drawn: np.ndarray, rng: np.random.Generator) -> None:
    """L6, thoughts and answers within thoughts."""
    thoughts, answers = rng.permutation(4), rng.permuted(np.tile(np.arange(4), (4, 1)), axis=1)
    every = np.ones(drawn.shape, bool)
    before = credit()(drawn, every)
    after = credit()(drawn[:, thoughts[:, None], answers], every)
    for option, was in before.items():
        bound = 1e-6 * max(np.abs(was.thought).max(), np.abs(was.answer).max())
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=bound)
        close(after[option].thought, was.thought[:, thoughts])
        close(after[option].answer, was.answer[:, thoughts[:, None], answers])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"credit": "leaf", "answer_baseline": "thought"}, "credit = leaf: that rule says itself"),
        ({"credit": "treerl", "answer_baseline": "thought"}, "leave answer_baseline at tree"),
        ({"credit": "treepo", "answer_baseline": "thought"}, "or choose grpo_ma, td or loo"),
        ({"credit": "td", "algorithm": "grpo"}, "these give them two; choose grpo_ma, leaf"),
        ({"credit": "treerl", "algorithm": "grpo"}, "GRPO has one advantage"),
        ({"answer_baseline": "thought", "algorithm": "grpo"}, "with answer_baseline = tree"),
    ],
)
def test_what_means_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ObjectiveConfig(**fields)


def test_what_means_something_is_taken() -> None:
    for rule, baseline, scale in OPTIONS:
        ObjectiveConfig(credit=rule, answer_baseline=baseline, scale_rewards=scale)
    for rule in ("grpo_ma", "leaf", "loo", "treepo"):
        ObjectiveConfig(credit=rule, algorithm="grpo")
