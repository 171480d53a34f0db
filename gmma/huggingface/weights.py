"""Safetensors in and out, a piece at a time.

Reading never holds more on the host than the shard that is open (mapped) and one piece of a tensor:
leaves are made on their devices, in their sharding and type, and pieces are written into them.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding, SingleDeviceSharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gmma.errors import UserError, gather
from gmma.huggingface.keys import read_json_object
from gmma.huggingface.table import Place, Row
from gmma.types import Params, PyTree

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PIECE_BYTES = 16 * 2**20  # of a tensor on the host at a time
STORED = ("F64", "F32", "F16", "BF16")  # safetensors' names of types
NAMED = 5  # tensors in a message
SHARD_BYTES = 5 * 10**9  # of one file written, as transformers cuts them


def shard_files(directory: Path) -> list[Path]:
    """Return the files of a checkpoint. UserError where there is none or one is missing."""
    index = directory / INDEX
    if index.is_file():
        listed = read_json_object(index).get("weight_map", {})
        if not isinstance(listed, dict) or not all(isinstance(n, str) for n in listed.values()):
            raise UserError(
                f"{index}: weight_map is no table of tensors and files; copy the file again"
            )
        names = sorted(set(listed.values()))
        outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
        if outside:
            raise UserError(
                f"{index} names {', '.join(outside)}, which is outside {directory}; the files of a "
                "checkpoint stand beside their index"
            )
        missing = [name for name in names if not (directory / name).is_file()]
        if missing or not names:
            raise UserError(
                f"{index} names {len(names)} shards and {directory} lacks "
                f"{', '.join(missing) or 'all of them'}; download the missing files"
            )
        return [directory / name for name in names]
    if not (directory / SINGLE).is_file():
        raise UserError(
            f"{directory} has neither {SINGLE} nor {INDEX}; give a directory with weights"
        )
    return [directory / SINGLE]


def open_shard(path: Path) -> Any:
    """Return a safetensors file, mapped. UserError where it is truncated or broken."""
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) is no whole safetensors file ({error}); "
            "download it again"
        ) from error


def names_of(shard: Any) -> list[str]:
    """Return the tensor names of an open file."""
    return list(shard.keys())


def tensor_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all tensors; reads only headers.

    UserError for tensors that are not stored as floats of 16 bits or more: read as numbers, the
    integers of a quantised checkpoint would be other weights.
    """

    def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
        with open_shard(path) as shard:
            slices = {name: shard.get_slice(name) for name in names_of(shard)}
            kinds = {name: tensor.get_dtype() for name, tensor in slices.items()}
            odd = sorted(f"{name} ({kind})" for name, kind in kinds.items() if kind not in STORED)
            if odd:
                raise UserError(
                    f"{path} stores {len(odd)} tensors in types that are not read: "
                    f"{', '.join(odd[:NAMED])}{', …' if odd[NAMED:] else ''}; gmma reads "
                    f"{', '.join(STORED)}: use the checkpoint that was not quantised"
                )
            return {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}

    found = gather(*(partial(shapes_in, path) for path in files))
    return {name: shape for shapes in found for name, shape in shapes.items()}


def same_values(files: list[Path], first: str, second: str) -> bool:
    """Return whether two tensors of equal shape hold the same numbers; reads a piece at a time."""
    with ExitStack() as opened:
        shards = [opened.enter_context(open_shard(path)) for path in files]
        found = {
            name: shard.get_slice(name)
            for shard in shards
            for name in names_of(shard)
            if name in (first, second)
        }
        shape = tuple(found[first].get_shape())
        pairs = zip(pieces(found[first], shape), pieces(found[second], shape), strict=True)
        return all(np.array_equal(ours, theirs) for (_, ours), (_, theirs) in pairs)


def read_params(
    files: list[Path],
    places: Mapping[str, Place],
    dtype_of: Callable[[str], str],
    shardings: PyTree | None,
) -> Params:
    """Read our parameter tree from a checkpoint of checked names; `dtype_of` takes a path.

    A tensor without a place is one that the table ignores: the names were checked against it.
    """
    rows = {place.row.path: place.row for place in places.values() if not place.row.alias}
    placed = {} if shardings is None else flatten_dict(shardings, sep="/")
    whole = SingleDeviceSharding(jax.devices()[0])
    leaves = {
        path: empty_leaf(row.leaf_shape, dtype_of(path), placed.get(path, whole))
        for path, row in rows.items()
    }
    for path in files:
        with open_shard(path) as shard:
            for name in names_of(shard):
                place = places.get(name)
                if place is not None and not place.row.alias:
                    read_tensor(shard.get_slice(name), place, leaves[place.row.path])
    return unflatten_dict({path: whole_leaf(leaf) for path, leaf in leaves.items()}, sep="/")


class DevicePart(NamedTuple):
    """One device's part of a leaf: the array is replaced by each write."""

    begin: tuple[int, ...]  # where it begins in the leaf
    array: jax.Array


@dataclass(frozen=True)
class Leaf:
    """A leaf that is being read, in its parts; only those of this process's devices."""

    shape: tuple[int, ...]
    sharding: Sharding
    parts: dict[jax.Device, DevicePart]


def empty_leaf(shape: tuple[int, ...], dtype: str, sharding: Sharding) -> Leaf:
    """Make zeros where the leaf will stand."""
    parts = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        ends = [cut.indices(size) for cut, size in zip(index or (), shape, strict=True)]
        own = tuple(stop - start for start, stop, _ in ends)
        array = jnp.zeros(own, dtype, device=device)
        parts[device] = DevicePart(tuple(start for start, _, _ in ends), array)
    return Leaf(shape, sharding, parts)


def whole_leaf(leaf: Leaf) -> jax.Array:
    """Return the parts as one array."""
    arrays = [part.array for part in leaf.parts.values()]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, arrays)


def read_tensor(tensor: Any, place: Place, leaf: Leaf) -> None:
    """Write a tensor into its leaf, piece by piece along the tensor's first axis."""
    row, dtype = place.row, next(iter(leaf.parts.values())).array.dtype
    stack = (1,) * len(place.index)
    at: tuple[int, ...]
    for start, piece in pieces(tensor, row.shape, row.spans):
        own, at = piece, (start, *(0 for _ in row.shape[1:]))
        if row.layout == "linear":
            own, at = piece.reshape(piece.shape[0], -1).T, (0, start)
        write_piece(leaf, own.reshape(*stack, *own.shape).astype(dtype), (*place.index, *at))


def pieces(
    tensor: Any, shape: tuple[int, ...], spans: Sequence[tuple[int, int, int]] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the parts of a tensor along its first axis, each with its start in ours.

    `spans` are those of `Row.spans`; None: one, the whole tensor as it is.
    """
    row_bytes = 4 * math.prod(shape[1:])
    step = max(1, PIECE_BYTES // row_bytes)
    for theirs, ours, count in spans or ((0, 0, shape[0]),):
        for start in range(0, count, step):
            end = min(start + step, count)
            yield ours + start, tensor[theirs + start : theirs + end]


def write_piece(leaf: Leaf, piece: np.ndarray, at: tuple[int, ...]) -> None:
    """Put what each device holds of a piece into its part."""
    for device, part in leaf.parts.items():
        begin = [max(a, b) for a, b in zip(at, part.begin, strict=True)]
        ends = (a + n for a, n in zip(at, piece.shape, strict=True))
        limits = (b + n for b, n in zip(part.begin, part.array.shape, strict=True))
        end = [min(pair) for pair in zip(ends, limits, strict=True)]
        if any(e <= b for b, e in zip(begin, end, strict=True)):
            continue
        cut = tuple(slice(b - a, e - a) for a, b, e in zip(at, begin, end, strict=True))
        target = tuple(b - own for b, own in zip(begin, part.begin, strict=True))
        written = overwrite(part.array, np.ascontiguousarray(piece[cut]), target)
        # Or pieces would wait in a queue, all of them in memory.
        leaf.parts[device] = DevicePart(part.begin, written.block_until_ready())


@partial(jax.jit, donate_argnums=0)
def overwrite(array: jax.Array, piece: jax.Array, at: tuple[jax.Array, ...]) -> jax.Array:
    """Write a piece into the array, in place.

    Written as bits: a CPU widens bfloat16 to compute with it, and would touch the whole array.
    """
    bits = jnp.dtype(f"uint{8 * array.dtype.itemsize}")
    held, new = (jax.lax.bitcast_convert_type(x, bits) for x in (array, piece))
    written = jax.lax.dynamic_update_slice(held, new, at)
    return jax.lax.bitcast_convert_type(written, array.dtype)


def write_params(
    directory: Path, params: Params, places: Mapping[str, Place], dtype: str | None = None
) -> None:
    """Write a checkpoint that transformers loads: one file, or shards with an index.

    All tensors have one type, or each that of its parameter.

    In one type, or each tensor in that of its parameter.
    """
    leaves = flatten_dict(params, sep="/")
    written = {name: place for name, place in places.items() if not place.row.alias}
    width = {
        name: jnp.dtype(dtype or leaves[place.row.path].dtype).itemsize
        for name, place in written.items()
    }
    sizes = {name: width[name] * math.prod(place.row.shape) for name, place in written.items()}
    shards = cut_shards(sizes, SHARD_BYTES)
    files = [SINGLE]
    if len(shards) > 1:
        files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for file, names in zip(files, shards, strict=True):
        tensors = {name: tensor_of(leaves, written[name], dtype) for name in names}
        save_file(tensors, directory / file, metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {n: file for file, names in zip(files, shards, strict=True) for n in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def cut_shards(sizes: Mapping[str, int], most_bytes: int) -> list[list[str]]:
    """Cut names in order so that no file exceeds `most_bytes`, unless by a single tensor."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > most_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def tensor_of(leaves: Mapping[str, jax.Array], place: Place, dtype: str | None) -> np.ndarray:
    """Return one tensor as transformers has it, on the host; in `dtype` where it is given."""
    leaf = leaves[place.row.path]
    own = np.asarray(leaf[place.index] if place.index else leaf)
    own = own if dtype is None else own.astype(jnp.dtype(dtype))
    if place.row.layout == "linear":
        own = own.T.reshape(place.row.shape)
    return np.ascontiguousarray(in_their_order(own, place.row))


def in_their_order(array: np.ndarray, row: Row) -> np.ndarray:
    """Put the first axis of an array, ours, into the order of the row's tensor."""
    if not row.head_parts:
        return array
    return np.concatenate([array[ours : ours + count] for _, ours, count in row.spans])
