"""The mesh, and every PartitionSpec of gmma in one table.

`A[I_X, J_Y]` says that axis I of A is cut over mesh axis X and J over Y. The mesh has three axes:

    data    copies of the parameters      batches are cut over (data, fsdp)
    fsdp    parts of the parameters       W[embed_fsdp, mlp_tensor]
    tensor  parts of every layer

A parameter names its axes logically (`embed`, `mlp`, …) where its module declares it; `RULES` maps
those names to mesh axes, and nothing else in gmma mentions either. A rollout computes with copies
in the type of the activations, laid out for decoding (`decode_layout`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gmma.config import MeshConfig, RolloutLayout
from gmma.errors import UserError
from gmma.models.mesh_axes import ALL_AXES, BATCH_AXES
from gmma.models.placement import ROWS, placing
from gmma.models.policy import Policy
from gmma.models.rounded import SCALES
from gmma.types import Array, Params, PyTree

RULES: dict[str, str | None] = {
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "vision_heads": "tensor",
    "delta_heads": "tensor",
    "fused_heads": None,  # queries, keys and values side by side: a cut would part them
    "vocab": "tensor",
    "layers": None,
    "norm": None,
    "patch": None,
    "taps": None,
    "pixels": None,
}

BATCH = PartitionSpec(BATCH_AXES)  # every field of a batch, rows first
REPLICATED = PartitionSpec()


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Return the mesh over all devices; raises where their number does not factor as configured.

    Slices are joined by slow links: each has its own part of the axis `data`, along which a step
    sends least, and whole sets of the others.
    """
    devices = jax.devices() if devices is None else devices
    devices, slices = host_by_host(devices), count_slices(devices)
    sizes = mesh_sizes(config, len(devices), slices)
    if sizes is None:
        raise UserError(
            f"mesh (data, fsdp, tensor) = {(config.data, config.fsdp, config.tensor)} does not "
            f"make up {len(devices)} devices; choose sizes whose product is {len(devices)}"
        )
    if sizes[0] % slices:
        raise UserError(
            f"mesh (data, fsdp, tensor) = {sizes} on {slices} slices, between which links are "
            f"slow: set mesh.data to {slices} or a multiple, so that nothing else goes over them"
        )
    try:
        if slices == 1:
            laid = mesh_utils.create_device_mesh(sizes, devices)
        else:  # slices in the order of their hosts
            own, joined = (sizes[0] // slices, *sizes[1:]), (slices, 1, 1)
            laid = mesh_utils.create_hybrid_device_mesh(
                own, joined, devices, should_sort_granules_by_key=False
            )
        return Mesh(laid, ALL_AXES)
    except NotImplementedError as error:  # an axis would be a part of a side of the slice's torus
        raise UserError(
            f"mesh (data, fsdp, tensor) = {sizes} cannot be laid on the links of these "
            f"{len(devices)} devices ({error}); choose sizes that are products of the slice's sides"
        ) from error


def count_slices(devices: Iterable[Any]) -> int:
    """Count the TPU slices that devices belong to; others are taken for one."""
    of_tpus = (device for device in devices if device.platform == "tpu")
    return len({getattr(device, "slice_index", 0) for device in of_tpus}) or 1


def mesh_sizes(config: MeshConfig, devices: int, slices: int = 1) -> tuple[int, ...] | None:
    """Return the devices along each axis; None where so many do not factor as configured.

    One copy that is cut over all devices, data = 1 and fsdp = −1, is one a slice.

    >>> mesh_sizes(MeshConfig(fsdp=2), 8), mesh_sizes(MeshConfig(fsdp=2), 3)
    ((4, 2, 1), None)
    >>> mesh_sizes(MeshConfig(data=1, fsdp=-1), 32, slices=2)
    (2, 16, 1)
    """
    data = slices if (config.data, config.fsdp) == (1, -1) else config.data
    sizes: tuple[int, ...] = (data, config.fsdp, config.tensor)
    left = devices // prod(size for size in sizes if size != -1)
    sizes = tuple(left if size == -1 else size for size in sizes)
    return sizes if prod(sizes) == devices else None


def host_by_host(devices: list[Any]) -> list[Any]:
    """Order devices so that each host's, and with them its rows of a batch, are one block.

    A TPU numbers its chips along the torus, across hosts.
    """
    return sorted(devices, key=lambda device: (device.process_index, device.id))


def batch_shards(mesh: Mesh) -> int:
    """Return how many parts a batch is cut into."""
    return prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(mesh: Mesh, field: str, prompts: int, microbatches: int = 1) -> None:
    """Raise unless every device gets the same number of rows of every microbatch."""
    shards = batch_shards(mesh)
    parts = shards * microbatches
    if not prompts % parts:
        return
    cut, instead = f"{shards} devices", f"set it to a multiple of {parts}"
    if microbatches > 1:
        cut += f" × {microbatches} microbatches"
        rows, rest = divmod(prompts, shards)
        if not rest:
            fitting = max(n for n in range(1, microbatches) if not rows % n)
            instead += f", or microbatches to {fitting}"
    raise UserError(f"{field} = {prompts} is not divisible by {cut}; {instead}")


def physical_spec(
    logical: PartitionSpec,
    shape: tuple[int, ...],
    mesh: Mesh,
    units: Mapping[str, int] | None = None,
) -> PartitionSpec:
    """Return the mesh axes of one parameter.

    An axis that its mesh axis does not divide stays whole.

    `units` counts the heads of an axis that merges them with their width: it is cut between heads
    only, so two key heads stay whole on four devices, which then share no product of scores.
    """

    def axis_of(name: str | None, size: int) -> str | None:
        axis = RULES[name] if name else None
        count = (units or {}).get(name, size) if name else size
        return axis if axis and count % mesh.shape[axis] == 0 else None

    return PartitionSpec(*(axis_of(*pair) for pair in zip(logical, shape, strict=False)))


def param_shardings(policy: Policy, abstract: Params, mesh: Mesh) -> Params:
    """Return a sharding per parameter, from the names of its axes and its shape."""
    named = flatten_dict(policy.logical_axes(), sep="/")
    shardings = {
        path: NamedSharding(mesh, physical_spec(named[path], leaf.shape, mesh, policy.units))
        for path, leaf in flatten_dict(abstract, sep="/").items()
    }
    return unflatten_dict(shardings, sep="/")


def placed_policy(policy: Policy, mesh: Mesh) -> Policy:
    """Return the policy whose forward pass is laid out on the mesh, its one way there.

    Activations and gathered kernels say where they lie (`models/placement.py`), and kernels see
    the mesh that they are cut over (`models/splash.py`).
    """

    def put(x: Array, axes: Sequence[str | None]) -> Array:
        logical = PartitionSpec(*(None if name == ROWS else name for name in axes))
        spec = list(physical_spec(logical, x.shape, mesh, policy.units))
        if ROWS in axes and x.shape[0] % batch_shards(mesh) == 0:
            spec[0] = BATCH_AXES
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*spec)))

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        def placed(*arguments: Any) -> Any:
            with placing(put), jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return function(*arguments)

        return placed

    return replace(
        policy,
        forward=within(policy.forward),
        unembed=within(policy.unembed),
        head=within(policy.head),
        see=None if policy.see is None else within(policy.see),
    )


class DecodeLayout(NamedTuple):
    """Layout of a rollout over the devices, in a mesh that may be its own.

    Over the `manual` axes every device grows trees of its own from whole parameters; over the
    others the compiler cuts each layer as the parameters lie. `prompts` cuts batches.
    """

    mesh: Mesh
    manual: frozenset[str]
    prompts: PartitionSpec


def decode_layout(
    layout: RolloutLayout, tensor: int | None, mesh: Mesh, prompts: int
) -> DecodeLayout:
    """Choose how a rollout is cut over the devices of a mesh.

    `gathered`: a whole copy of the parameters on every device, which waits for nobody while it
    decodes; prompts are cut over all devices where they divide. `sharded`: 1/tensor of a copy on
    every device, which exchanges activations in every layer of every step; without `tensor`, as
    the mesh has it. UserError where the devices or the prompts do not divide.
    """
    if layout == "sharded":
        check_copies(layout, tensor, mesh, "the prompts of a rollout", prompts)
        return DecodeLayout(rollout_mesh(mesh, tensor), frozenset(BATCH_AXES), BATCH)
    everywhere = PartitionSpec(ALL_AXES)
    prompts_cut = everywhere if prompts % mesh.size == 0 else BATCH
    return DecodeLayout(mesh, frozenset(ALL_AXES), prompts_cut)


def check_copies(
    layout: RolloutLayout, tensor: int | None, mesh: Mesh, field: str, prompts: int
) -> None:
    """Raise unless every copy of a rollout's parameters gets equally many prompts."""
    if layout == "gathered":  # which needs no more than a batch
        return
    copies = batch_shards(rollout_mesh(mesh, tensor))
    if prompts % copies:
        raise UserError(
            f"{field} = {prompts} is not divisible by the {copies} copies of the parameters that "
            f"rollouts have on {mesh.size} devices; set it to a multiple of {copies}, or let more "
            "devices share a copy (rollout_tensor)"
        )


def rollout_mesh(mesh: Mesh, tensor: int | None) -> Mesh:
    """Return the mesh's devices, in their order, with `tensor` neighbours to each copy.

    Of fsdp and tensor together as much is left for fsdp as divides and nests; the rest is data.
    UserError where `tensor` does not divide the devices of a slice, or nothing nests: XLA ends the
    process where a program's two meshes cut the devices at places of which neither has all of the
    other's.
    """
    if tensor is None or tensor == mesh.shape["tensor"]:
        return mesh
    one_slice = mesh.size // count_slices(mesh.devices.flat)
    if one_slice % tensor:
        raise UserError(
            f"rollout_tensor = {tensor} does not divide the devices of a slice, {one_slice}; "
            "choose one that does, or None, which is mesh.tensor"
        )
    if (sizes := _nested_sizes(mesh.devices.shape, tensor)) is None:
        whole = [n for n in range(1, one_slice + 1) if one_slice % n == 0]
        fine = [n for n in whole if _nested_sizes(mesh.devices.shape, n)]
        cut = " × ".join(map(str, mesh.devices.shape))
        raise UserError(
            f"rollout_tensor = {tensor} does not nest with a mesh of {cut} (data × fsdp × tensor); "
            f"choose one of {', '.join(map(str, fine))}, or another mesh"
        )
    return Mesh(mesh.devices.reshape(sizes), ALL_AXES)


def _nested_sizes(sizes: tuple[int, ...], tensor: int) -> tuple[int, int, int] | None:
    """Return a mesh of a rollout beside one of these sizes; None: the two do not nest.

    A mesh cuts a row of devices at the multiples of tensor, of fsdp · tensor, and of all.

    >>> _nested_sizes((1, 8, 1), 2), _nested_sizes((1, 2, 4), 2), _nested_sizes((1, 4, 2), 4)
    ((1, 4, 2), (2, 2, 2), None)
    """

    def places(sizes: tuple[int, ...]) -> set[int]:
        return {prod(sizes[axis:]) for axis in range(3)} - {1}

    def is_chain(places: set[int]) -> bool:  # else XLA does not try to write one by the other
        return all(b % a == 0 for a, b in pairwise(sorted(places)))

    copies, held = prod(sizes) // tensor, max(1, sizes[1] * sizes[2] // tensor)
    for fsdp in (count for count in range(held, 0, -1) if copies % count == 0):
        own = copies // fsdp, fsdp, tensor
        ours, theirs = places(own), places(sizes)
        if ours <= theirs or theirs <= ours or not is_chain(ours | theirs):
            return own
    return None


def decode_params(
    policy: Policy, params: Params, mesh: Mesh, rollout: Mesh | None = None
) -> Params:
    """Cast the parameters as a decoding step reads them, and lay them out for a rollout's own mesh.

    All but those of norms, which are computed wide, and of 8 bits get the type of the activations.

    They are cast where they lie: what travels afterwards is then half of the masters' size, and the
    same numbers, since every layer would cast after the gathering.
    """
    dtype = jnp.dtype(policy.config.dtype)
    scales = {name: held for name, held in params.items() if name == SCALES}
    params = {name: held for name, held in params.items() if name != SCALES}
    named, flat = (flatten_dict(tree, sep="/") for tree in (policy.logical_axes(), params))
    meshes = [mesh] if rollout is None or rollout is mesh else [mesh, rollout]
    places = [flatten_dict(param_shardings(policy, params, one), sep="/") for one in meshes]

    def cast(path: str, leaf: Array) -> Array:
        if "norm" in named[path]:
            return leaf
        leaf = leaf if leaf.dtype == jnp.int8 else leaf.astype(dtype)
        for place in places:
            leaf = jax.lax.with_sharding_constraint(leaf, place[path])
        return leaf

    held = {path: cast(path, leaf) for path, leaf in flat.items()}
    return unflatten_dict(held, sep="/") | scales


def put_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put host arrays onto the devices, cut over rows; the only way in for data.

    Each host gives its own rows, and the array is the batch of all of them.
    """
    return _put(tree, NamedSharding(mesh, BATCH))


def put_whole(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put host arrays onto every device; each host gives the same."""
    return _put(tree, NamedSharding(mesh, REPLICATED))


def _put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    with jax.transfer_guard_host_to_device("allow"):  # the loop's guard takes it for a slip
        return jax.make_array_from_process_local_data(sharding, tree)
