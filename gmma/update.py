"""`train_step`: one optimiser update from one packed batch; the optimiser, and what it trains."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from gmma.config import ObjectiveConfig, OptimizerConfig
from gmma.objective import TokenTerms, segment_metrics, segment_peaks, token_weights
from gmma.records.diagnostics import gradient_powers
from gmma.tree.rows import in_shortest_rows
from gmma.types import Metric, Metrics, PackedTree, Params, PyTree, TrainState

PartMetrics = tuple[Metrics, dict[str, Array]]  # what sums up over microbatches, and maxima
Loss = Callable[[Params, PackedTree, Array], tuple[Array, TokenTerms]]


def train_step(
    state: TrainState,
    packed: PackedTree,
    *,
    loss: Loss,
    weights: Callable[[PackedTree], Array],
    optimizer: optax.GradientTransformation,
    microbatches: int = 1,
    row_lengths: int | None = None,
) -> tuple[TrainState, Metrics]:
    """Take one optimiser update from one packed batch, accumulated over equal microbatches.

    The weights of the tokens are fixed before the batch is cut, so gradients of the parts add up to
    the gradient of the whole whatever the lengths. With `row_lengths` the network computes each
    microbatch in ragged rows of one of so many lengths, the shortest that holds its trees.
    """

    def of_part(params: Params, part: tuple[PackedTree, Array]) -> tuple[Array, PartMetrics]:
        value, terms = loss(join_params(params, state.frozen), *part)
        return value, (segment_metrics(terms, part[0]), segment_peaks(terms, part[0]))

    def accumulate(
        total: tuple[Params, Array], part: tuple[PackedTree, Array]
    ) -> tuple[tuple[Params, Array], tuple[PartMetrics, Array]]:
        packed, own = part

        def differentiate(packed: PackedTree) -> tuple[tuple[Array, PartMetrics], Params]:
            return jax.value_and_grad(of_part, has_aux=True)(state.params, (packed, own))

        (value, measured), gradient = in_shortest_rows(differentiate, packed, row_lengths)
        power = optax.tree.norm(gradient, squared=True)
        return jax.tree.map(jnp.add, total, (gradient, value)), (measured, power)

    zero = (jax.tree.map(jnp.zeros_like, state.params), jnp.zeros((), jnp.float32))
    parts = cut_batch((packed, weights(packed)), microbatches)
    (gradient, value), ((sums, peaks), powers) = jax.lax.scan(accumulate, zero, parts)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    once = {name: values.max(axis=0) for name, values in peaks.items()}
    total = optax.tree.norm(gradient, squared=True)
    once |= {"loss": value, "grad_norm": jnp.sqrt(total)} | gradient_powers(total, powers)
    once |= {"num_trained_tokens": packed.trained.sum(dtype=jnp.float32)}
    metrics = jax.tree.map(partial(jnp.sum, axis=0), sums)
    metrics |= {n: Metric(total=v, count=jnp.ones((), jnp.float32)) for n, v in once.items()}
    new = TrainState(
        params=optax.apply_updates(state.params, updates),
        frozen=state.frozen,
        opt_state=opt_state,
        step=state.step + 1,
    )
    return new, metrics


def batch_weights(packed: PackedTree, *, config: ObjectiveConfig, microbatches: int) -> Array:
    """Return each token's share in the loss of the whole batch; for `bnpo`, of its microbatch."""
    shape = packed.inputs.shape
    if config.loss_type != "bnpo":
        return token_weights(packed.trained, shape, config)
    parts = cut_batch(packed.trained, microbatches)
    weights = jax.vmap(lambda part: token_weights(part, shape, config))(parts) / microbatches
    return weights.swapaxes(0, 1).reshape(packed.trained.shape)


def cut_batch(batch: PyTree, parts: int) -> PyTree:
    """Put row r into part r mod `parts`, so that every device keeps a share of every part."""

    def cut(array: Array) -> Array:
        rows = array.shape[0] // parts
        return array.reshape(rows, parts, *array.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, batch)


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Warm up linearly from 0 over `warmup_steps`, then keep the rate or decay it to 0."""
    warmup = min(config.warmup_steps, steps)
    peak, rest = config.learning_rate, max(steps - warmup, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
    }[config.schedule]
    # The first update already moves: a warm-up of w steps ends at update w, counting from 1.
    rise = optax.linear_schedule(peak / (warmup + 1), peak, max(warmup, 1))
    return optax.join_schedules([rise, after], [warmup]) if warmup else after


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW; `steps` is the number of updates the schedule spans."""
    adam = optax.adamw(
        learning_rate(config, steps),
        b1=config.adam_b1,
        b2=config.adam_b2,
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    return optax.chain(clip, adam) if config.max_grad_norm > 0 else adam


def split_params(params: Params, trained: Callable[[str], bool]) -> tuple[Params, Params]:
    """Return (trained, frozen), two nested dicts of distinct leaves; `trained` judges `a/b/c`."""
    flat = flatten_dict(params, sep="/")
    chosen = {path: leaf for path, leaf in flat.items() if trained(path)}
    frozen = {path: leaf for path, leaf in flat.items() if path not in chosen}
    return unflatten_dict(chosen, sep="/"), unflatten_dict(frozen, sep="/")


def join_params(trained: Params, frozen: Params) -> Params:
    """Join what `split_params` split."""
    flat = flatten_dict(trained, sep="/") | flatten_dict(frozen, sep="/")
    return unflatten_dict(flat, sep="/")
