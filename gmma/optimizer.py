"""The optax chain, the learning-rate schedule, and which parameters are trained."""

from collections.abc import Callable

import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from gmma.config import OptimizerConfig
from gmma.types import Params


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
    """(trained, frozen): two nested dicts that share no leaf; `trained` judges a path `a/b/c`."""
    flat = flatten_dict(params, sep="/")
    chosen = {path: leaf for path, leaf in flat.items() if trained(path)}
    frozen = {path: leaf for path, leaf in flat.items() if path not in chosen}
    return unflatten_dict(chosen, sep="/"), unflatten_dict(frozen, sep="/")


def join_params(trained: Params, frozen: Params) -> Params:
    """Join what `split_params` split."""
    flat = flatten_dict(trained, sep="/") | flatten_dict(frozen, sep="/")
    return unflatten_dict(flat, sep="/")
