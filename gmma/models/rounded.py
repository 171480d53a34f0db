"""Lighter weights for a rollout: adapters merged, kernels rounded to 8 bits (`rollout_weights`).

    W ≈ q ⊙ s        s_o = max_i |W_io| / 127,    q = round(W / s) in −127 … 127

one scale an output o: weight-only quantization by the largest value, the vector-wise rule of
LLM.int8() (arXiv 2208.07339 [S]) without its treatment of outliers. Products are of the activations
with q, and s is multiplied in behind them, in float32. A rollout that reads such weights samples
from another policy than is trained: `objective.importance_cap` corrects for it.
"""

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int8

from gmma.models.lora import KERNEL, merge_adapters
from gmma.options.networks import RolloutWeights
from gmma.types import Params

SCALES = "scales"  # the collection of s, by the path of the parameter that it belongs to
STACK, HEAD, EMBEDDING = "blocks/", "head/kernel", "embedding"
EXACT = ("rate", "decay")  # products of a recurrence, an output a head: errors add up along a path
LARGEST = 127


def lighter(params: Params, weights: RolloutWeights) -> Params:
    """Return the parameters as a rollout reads them: as they are, merged, or rounded besides."""
    match weights:
        case "exact":
            return params
        case "merged":
            return merge_adapters(params)
        case "int8":
            return round_weights(params)


def round_weights(params: Params) -> Params:
    """Round the decoder's kernels and its head to 8 bits, adapters merged before.

    The scales lie beside. An embedding is rounded, a row at a time, where it is the head too. Other
    parameters stay.
    """
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    flat = flatten_dict(merge_adapters(wide)["params"], sep="/")
    kept = flatten_dict(merge_adapters(params)["params"], sep="/")
    scales: dict[str, Array] = {}
    for path, leaf in flat.items():
        if is_rounded(path, tied=HEAD not in flat):
            kept[path], scales[path] = round_kernel(leaf, axis=-1 if path == EMBEDDING else -2)
    return {"params": unflatten_dict(kept, sep="/"), SCALES: unflatten_dict(scales, sep="/")}


def is_rounded(path: str, *, tied: bool) -> bool:
    """Return whether a decoding step reads so much of a parameter that it is rounded."""
    if path in (HEAD, EMBEDDING):
        return path == HEAD or tied
    return path.startswith(STACK) and path.endswith(KERNEL) and path.split("/")[-2] not in EXACT


def round_kernel(
    kernel: Float[Array, "*axes"], axis: int
) -> tuple[Int8[Array, "*axes"], Float[Array, "..."]]:
    """Return q and s, one s for all along `axis`; 1 where all is zero, or too small to divide."""
    largest = jnp.abs(kernel).max(axis=axis, keepdims=True)
    scale = jnp.where(largest / LARGEST >= jnp.finfo(jnp.float32).tiny, largest / LARGEST, 1)
    scale = jnp.where(jnp.isfinite(largest), scale, jnp.nan)  # a weight that is not finite shows
    return jnp.round(kernel / scale).astype(jnp.int8), scale.squeeze(axis)
