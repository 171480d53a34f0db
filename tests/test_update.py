"""`train_step`: microbatches add up to the batch; frozen parameters pass through."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import laws
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmma.config import ObjectiveConfig
from gmma.objective import policy_loss, token_weights
from gmma.records.metrics import compute
from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree
from gmma.types import Metrics, TrainState
from gmma.update import batch_weights, cut_batch, join_params, split_params, train_step

POWERS = {f"gradient/{name}_power" for name in ("total", "noise", "signal")}
SHAPE, BATCH = TreeShape(6, 3, 2, thoughts=2, answers=2), 8


def is_trained(path: str) -> bool:
    """All but the image stem and place embeddings."""
    return "stem" not in path and "place" not in path


@functools.cache
def step(microbatches: int) -> Callable[[laws.Tree], tuple[TrainState, TrainState, Metrics]]:
    """tree → the state before, and after one step of plain gradient descent at rate 1."""
    subject, config, optimizer = laws.tiny_subject(), ObjectiveConfig(), optax.sgd(1.0)

    def update(params: Any, tree: laws.Tree) -> Any:
        trained, frozen = split_params(params, is_trained)
        state = TrainState(
            params=trained,
            frozen=frozen,
            opt_state=optimizer.init(trained),
            step=jax.numpy.zeros((), jax.numpy.int32),
        )
        new, metrics = train_step(
            state,
            pack_tree(*tree),
            loss=partial(policy_loss, subject.policy, config=config, temperature=laws.TEMPERATURE),
            weights=partial(batch_weights, config=config, microbatches=microbatches),
            optimizer=optimizer,
            microbatches=microbatches,
        )
        return state, new, metrics

    run = laws.compiled(update)
    return lambda tree: jax.tree.map(np.asarray, run(subject.params, tree))


@laws.examples(6)
@given(laws.trees(laws.tiny_subject(), SHAPE, BATCH))
def test_four_microbatches_of_two_equal_one_of_eight(tree: laws.Tree) -> None:
    """Parameters (so gradients), loss, and every metric's sum and count."""
    (before, whole, expected), (_, cut, metrics) = step(1)(tree), step(4)(tree)
    moved = [jax.tree.map(np.subtract, s.params, before.params) for s in (cut, whole)]
    laws.assert_gradients_close(*moved, 1e-5)
    assert metrics.keys() - expected.keys() == POWERS
    assert expected.keys() <= metrics.keys()
    for name, metric in expected.items():
        laws.assert_close(metrics[name].total, metric.total, 1e-5, name)
        assert metrics[name].count == metric.count
    assert cut.step == whole.step == 1
    jax.tree.map(np.testing.assert_array_equal, cut.frozen, before.frozen)
    assert jax.tree.leaves(cut.frozen)


@functools.cache
def gradients_apart() -> Callable[[laws.Tree], Any]:
    """tree → the gradient of each of four parts, the weights fixed before the cut."""
    subject, config = laws.tiny_subject(), ObjectiveConfig()

    def apart(params: Any, tree: laws.Tree) -> Any:
        packed = pack_tree(*tree)
        weights = batch_weights(packed, config=config, microbatches=4)
        trained, frozen = split_params(params, is_trained)

        def loss(trained: Any, part: Any) -> Any:
            whole = join_params(trained, frozen)
            temperature = laws.TEMPERATURE
            return policy_loss(subject.policy, whole, *part, config, temperature=temperature)[0]

        cut = cut_batch((packed, weights), 4)
        return jax.lax.map(lambda part: jax.grad(loss)(trained, part), cut)

    run = laws.compiled(apart)
    return lambda tree: jax.tree.map(np.asarray, run(subject.params, tree))


@laws.examples(4)
@given(laws.trees(laws.tiny_subject(), SHAPE, BATCH))
def test_noise_power_is_the_sample_variance_of_separate_gradients(tree: laws.Tree) -> None:
    """Of four: 4 times the trace of their sample covariance, from 4 gradients taken one by one."""
    leaves = jax.tree.leaves(gradients_apart()(tree))
    gradients = np.concatenate([leaf.reshape(4, -1) for leaf in leaves], axis=1).astype(float)
    total = np.square(gradients.sum(axis=0)).sum()
    noise = 4 * gradients.var(axis=0, ddof=1).sum()
    found = compute(step(4)(tree)[2])
    scale = np.square(gradients).sum() + total  # what rounding is measured against
    for name, value in (("total", total), ("noise", noise), ("signal", total - noise)):
        assert found[f"gradient/{name}_power"] == pytest.approx(value, abs=1e-4 * scale), name


@functools.cache
def weigher(loss_type: str, microbatches: int) -> Callable[..., np.ndarray]:
    """(tree, trained) → weights [B S]."""
    config = ObjectiveConfig(loss_type=loss_type)

    def weigh(tree: laws.Tree, trained: Any) -> Any:
        packed = laws.replace(pack_tree(*tree), trained=trained)
        return batch_weights(packed, config=config, microbatches=microbatches)

    return laws.compiled(weigh)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo"])
@laws.examples(5)
@given(st.data())
def test_only_bnpo_looks_at_its_microbatch(loss_type: str, data: st.DataObject) -> None:
    """Its weights sum to one over the thoughts, and over the answers, of a microbatch, over 4."""
    tree = data.draw(laws.trees(laws.tiny_subject(), SHAPE, BATCH))
    trained = data.draw(hnp.arrays(bool, (BATCH, SHAPE.packed)))
    trained[:, : SHAPE.prompt] = False
    whole, parts = (np.asarray(weigher(loss_type, n)(tree, trained)) for n in (1, 4))
    if loss_type != "bnpo":
        np.testing.assert_array_equal(whole, parts)
    levels = {"thought": slice(SHAPE.prompt, SHAPE.answers_start), "answer": slice(-8, None)}
    for span in levels.values():
        for part in range(4) if loss_type == "bnpo" else ():
            held = trained[part::4, span]
            share = parts[part::4, span]
            np.testing.assert_allclose(share.sum(), 0.25 * held.any(), rtol=1e-5)
            assert len(np.unique(share[held])) <= 1


def test_rows_are_dealt_to_the_microbatches_in_turn() -> None:
    """Row r goes to part r mod 4, so that every device keeps a share of every part."""
    parts = cut_batch(jax.numpy.arange(8), 4)
    assert parts.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_weights_of_nothing_trained_are_zero() -> None:
    """A batch of which everything was dropped gives no loss and no NaN."""
    nothing = jax.numpy.zeros((2, SHAPE.packed), bool)
    for loss_type in ("grpo", "dapo"):
        weights = token_weights(nothing, SHAPE, ObjectiveConfig(loss_type=loss_type))
        assert not np.asarray(weights).any()
