"""The mesh, and every PartitionSpec of gmma in one table.

`A[I_X, J_Y]` says that axis I of A is cut over mesh axis X and J over Y. The mesh has three axes:

    data    copies of the parameters      batches are cut over (data, fsdp)
    fsdp    parts of the parameters       W[embed_fsdp, mlp_tensor]
    tensor  parts of every layer

A parameter names its axes logically (`embed`, `mlp`, …) where its module declares it; `RULES` maps
those names to mesh axes, and nothing else in gmma mentions either.
"""

from math import prod

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gmma.config import MeshConfig
from gmma.errors import UserError
from gmma.types import PyTree

BATCH_AXES = ("data", "fsdp")

RULES: dict[str, str | None] = {
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "vocab": "tensor",
    "layers": None,
    "norm": None,
    "patch": None,
    "pixels": None,
}

BATCH = PartitionSpec(BATCH_AXES)  # every field of a batch, rows first
REPLICATED = PartitionSpec()


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices; raises where their number does not factor as configured."""
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    given = prod(size for size in sizes if size != -1)
    left, rest = divmod(len(devices), given)
    sizes = [left if size == -1 else size for size in sizes]
    if rest or prod(sizes) != len(devices):
        raise UserError(
            f"mesh (data, fsdp, tensor) = {(config.data, config.fsdp, config.tensor)} does not "
            f"make up {len(devices)} devices; choose sizes whose product is {len(devices)}"
        )
    return Mesh(np.asarray(devices).reshape(sizes), ("data", "fsdp", "tensor"))


def batch_shards(mesh: Mesh) -> int:
    """How many parts a batch is cut into."""
    return prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(mesh: Mesh, field: str, prompts: int, microbatches: int = 1) -> None:
    """Raise unless every device gets the same number of rows of every microbatch."""
    parts = batch_shards(mesh) * microbatches
    if prompts % parts:
        cut = f"{batch_shards(mesh)} devices"
        cut += f" × {microbatches} microbatches" if microbatches > 1 else ""
        raise UserError(
            f"{field} = {prompts} is not divisible by {cut}; set it to a multiple of {parts}"
        )


def physical_spec(logical: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The mesh axes of one parameter; an axis that its mesh axis does not divide stays whole."""
    axes = [RULES[name] if name else None for name in logical]
    fits = [
        axis if axis and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(axes, shape, strict=False)
    ]
    return PartitionSpec(*fits)


def param_shardings(logical_axes: PyTree, abstract: PyTree, mesh: Mesh) -> PyTree:
    """A sharding per parameter, from the names of its axes and its shape."""

    def sharding(logical: PartitionSpec, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        return NamedSharding(mesh, physical_spec(logical, leaf.shape, mesh))

    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    return jax.tree.map(sharding, logical_axes, abstract, is_leaf=is_spec)


def put_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays onto the devices, cut over rows; the only way in for data."""
    return jax.device_put(tree, NamedSharding(mesh, BATCH))


def put_whole(tree: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays onto every device."""
    return jax.device_put(tree, NamedSharding(mesh, REPLICATED))
