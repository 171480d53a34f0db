"""Low-rank adapters (Hu et al., arXiv 2106.09685) as a parameter collection of their own.

`Linear` adds `(x·a)·b` where the collection `lora` holds a pair for it, so leaving the collection
away switches the adapters off: the reference policy needs no second copy of the base. Our own code
and not Qwix: what is needed is these few lines, and stacked layers under scan need nothing more.
"""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import PartitionSpec

from gmma.errors import UserError
from gmma.models.policy import Policy
from gmma.options.networks import LoraConfig as LoraConfig
from gmma.types import Params, PyTree

KERNEL = "/kernel"


def adapted_paths(params: Params, config: LoraConfig) -> list[str]:
    """Find the linear layers that match. UserError for a pattern that matches none."""
    flat = flatten_dict(params["params"], sep="/")
    linears = sorted(path.removesuffix(KERNEL) for path in flat if path.endswith(KERNEL))
    found: set[str] = set()
    for pattern in config.patterns:
        matched = [path for path in linears if re.fullmatch(pattern, path)]
        if not matched:
            raise UserError(
                f"lora pattern {pattern!r} matches no linear layer; there are {', '.join(linears)}"
            )
        found |= set(matched)
    return sorted(found)


def add_adapters(params: Params, config: LoraConfig, key: jax.Array) -> Params:
    """Add a collection `lora` to the parameters; b = 0, so nothing changes yet. Consumes the key.

    a is uniform within ±1/√inputs, as PEFT starts it, times α / rank; float32.
    """
    flat = flatten_dict(params["params"], sep="/")
    adapters: dict[str, jax.Array] = {}
    for path in adapted_paths(params, config):
        key, own = jax.random.split(key)
        *stack, inputs, outputs = flat[path + KERNEL].shape
        bound = config.alpha / config.rank * inputs**-0.5
        shape = (*stack, inputs, config.rank)
        adapters[f"{path}/a"] = jax.random.uniform(own, shape, jnp.float32, -bound, bound)
        adapters[f"{path}/b"] = jnp.zeros((*stack, config.rank, outputs), jnp.float32)
    return {**params, "lora": unflatten_dict(adapters, sep="/")}


def without_adapters(params: Params) -> Params:
    """Return the base policy's parameters: the same arrays."""
    return {name: value for name, value in params.items() if name != "lora"}


def merge_adapters(params: Params) -> Params:
    """Replace W by W + a·b, summed in float32, and drop the collection `lora`."""
    flat = flatten_dict(params["params"], sep="/")
    adapters = flatten_dict(params.get("lora", {}), sep="/")
    for path in (name.removesuffix("/a") for name in adapters if name.endswith("/a")):
        kernel = flat[path + KERNEL]
        change = jnp.matmul(adapters[f"{path}/a"], adapters[f"{path}/b"])
        merged = kernel.astype(jnp.float32) + change
        flat[path + KERNEL] = merged.astype(kernel.dtype)
    return {"params": unflatten_dict(flat, sep="/")}


def adapted_policy(policy: Policy, config: LoraConfig) -> Policy:
    """Return the policy with adapters in its `init` and `logical_axes`; the rest reads them.

    The narrow axis of an adapter is not cut; the other one lies as the kernel's does.
    """

    def init(key: jax.Array) -> Params:
        for_base, for_adapters = jax.random.split(key)
        return add_adapters(policy.init(for_base), config, for_adapters)

    def logical_axes() -> PyTree:
        base = policy.logical_axes()
        kernels = flatten_dict(base["params"], sep="/")
        shapes = jax.eval_shape(policy.init, jax.random.key(0))
        adapters: dict[str, PartitionSpec] = {}
        for path in adapted_paths(shapes, config):
            *stack, inputs, outputs = kernels[path + KERNEL]
            adapters[f"{path}/a"] = PartitionSpec(*stack, inputs, None)
            adapters[f"{path}/b"] = PartitionSpec(*stack, None, outputs)
        return {**base, "lora": unflatten_dict(adapters, sep="/")}

    return replace(policy, init=init, logical_axes=logical_axes)
