"""The straight line: record → prompt → tree → rewards → advantages → packed tree → update."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from gmma.config import ExperimentConfig
from gmma.objective import LossTerms, segment_metrics
from gmma.optimizer import join_params
from gmma.types import Metric, Metrics, PackedTree, Params, PyTree, TrainState

Loss = Callable[[Params, PackedTree, Array], tuple[Array, LossTerms]]
Weights = Callable[[PackedTree], Array]


def train_step(
    state: TrainState,
    packed: PackedTree,
    *,
    loss: Loss,
    weights: Weights,
    optimizer: optax.GradientTransformation,
    microbatches: int = 1,
) -> tuple[TrainState, Metrics]:
    """One optimiser update from one packed batch, accumulated over equal microbatches.

    The weights of the tokens are fixed before the batch is cut, so gradients of the parts add up to
    the gradient of the whole whatever the lengths.
    """

    def of_part(params: Params, part: tuple[PackedTree, Array]) -> tuple[Array, Metrics]:
        value, terms = loss(join_params(params, state.frozen), *part)
        metrics = segment_metrics(terms, part[0])
        return value, metrics

    def accumulate(
        total: tuple[Params, Array], part: tuple[PackedTree, Array]
    ) -> tuple[tuple[Params, Array], Metrics]:
        (value, metrics), gradient = jax.value_and_grad(of_part, has_aux=True)(state.params, part)
        return jax.tree.map(jnp.add, total, (gradient, value)), metrics

    zero = (jax.tree.map(jnp.zeros_like, state.params), jnp.zeros((), jnp.float32))
    parts = cut_batch((packed, weights(packed)), microbatches)
    (gradient, value), metrics = jax.lax.scan(accumulate, zero, parts)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    metrics = jax.tree.map(partial(jnp.sum, axis=0), metrics)
    one = jnp.ones((), jnp.float32)
    metrics["loss"] = Metric(total=value, count=one)
    metrics["grad_norm"] = Metric(total=optax.global_norm(gradient), count=one)
    new = TrainState(
        params=optax.apply_updates(state.params, updates),
        frozen=state.frozen,
        opt_state=opt_state,
        step=state.step + 1,
    )
    return new, metrics


def cut_batch(batch: PyTree, parts: int) -> PyTree:
    """Row r goes to part r mod `parts`, so that every device keeps a share of every part."""

    def cut(array: Array) -> Array:
        rows = array.shape[0] // parts
        return array.reshape(rows, parts, *array.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, batch)
