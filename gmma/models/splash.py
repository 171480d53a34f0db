"""Splash attention on a packed tree: the numbers of `packed_attention`, by a TPU kernel.

JAX's splash kernel takes a static mask, from which it knows the blocks that it need not visit, and
computes the rest of the mask inside, from an integer per query and the number of a key's slot. The
tree is static; where padding begins, how far a window reaches and where an image ends are data. All
of that is exact here:

    which nodes a query reads   static: `PathMask`, evaluated a block at a time, never S×S
    padding                     segment ids: of queries 0, of valid keys 0, of the others 1
    window and images           the integer of the query: the last slot that it sees in its own
                                node, and the first slot of its path that is inside its window

A path's slots in order (prompt, its thought, its answer) have rising positions, so what a window
leaves of a path is its end, and one number says where that begins. An image's tokens stand side by
side in the prompt, so what they see of each other ends at the image's last slot.

In ragged rows the tree is data too, and `ragged_splash` gives the kernel its mask as an array.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from math import prod
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as mask_info
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from gmma.errors import UserError
from gmma.models.attention import Slots, visible
from gmma.models.mesh_axes import BATCH_AXES, TENSOR_AXIS
from gmma.tree.layout import join_levels, split_levels
from gmma.tree.rows import on_path
from gmma.types import TreeShape

LAST_BITS = 15  # of a query's integer; the other 16 are for the first slot of its window
MOST_SLOTS = 2**LAST_BITS
DATA_MASK = "mask_of_a_row"  # scope of kernels whose mask is data
BLOCKS = (128, 256, 512)  # sides of the kernel's blocks; a lane of a TPU is 128 wide


def splash_attention(
    query: Float[Array, "B S N G H"],
    keys: Float[Array, "B S N H"],
    values: Float[Array, "B S N H"],
    slots: Slots,
    shape: TreeShape,
    *,
    window: Int[Array, ""] | None = None,
    softcap: float | None = None,
    interpret: bool = False,
) -> Float[Array, "B S N G H"]:
    """Compute `packed_attention` as a kernel, softmax in float32; `interpret` runs it anywhere.

    Slots must be laid out as `pack_tree` does: positions rise by one inside a node. UserError for
    float64 and for trees of more than 32,768 slots, which the kernel does not take.
    """
    check_kernel(query)
    length = query.shape[1]
    block = block_size(length)
    padded = padded_slots(length)
    mask = PathMask(shape, padded, images=slots.image is not None)

    def attend(query: Array, keys: Array, values: Array, codes: Array, hidden: Array) -> Array:
        batch, _, key_heads, group, size = query.shape
        flat = query.reshape(batch, length, key_heads * group, size)
        kernel = tree_kernel(mask, key_heads * group, softcap, interpret)
        scope = f"visits_{visited_blocks(mask, block)}_blocks_of_{block}"  # `gmma plan` counts them
        with jax.named_scope(scope):
            out = jax.vmap(partial(attend_row, kernel))(flat, keys, values, codes, hidden)
        return out.reshape(query.shape)

    hidden = jnp.where(slots.valid, 0, 1)  # a query is of segment 0 whatever it holds
    codes = query_codes(slots, shape, window)
    return cut_over_mesh(attend, keys)(query, keys, values, codes, hidden)


def ragged_splash(
    query: Float[Array, "B S N G H"],
    keys: Float[Array, "B S N H"],
    values: Float[Array, "B S N H"],
    slots: Slots,
    nodes: Int[Array, "B S"],
    shape: TreeShape,
    *,
    window: Int[Array, ""] | None = None,
    softcap: float | None = None,
    interpret: bool = False,
) -> Float[Array, "B S N G H"]:
    """Compute `ragged_attention` as the same kernel, which then reads the mask as data.

    Where nodes begin is data, so the mask of a row is written out, S² bytes, and from it which
    blocks are hidden, visible or mixed: of the mask the kernel reads the mixed ones alone. A
    query's integer has no room for where its node, its thought and its prompt begin and end.
    """
    check_kernel(query)
    block = block_size(query.shape[1])
    seen = padded_mask(visible(slots, slots, window) & on_path(nodes, nodes, shape), block)

    def attend(query: Array, keys: Array, values: Array, seen: Array) -> Array:
        batch, length, key_heads, group, size = query.shape
        flat = query.reshape(batch, length, key_heads * group, size)

        def of_row(query: Array, keys: Array, values: Array, seen: Array) -> Array:
            return attend_row(row_kernel(seen, block, softcap, interpret), query, keys, values)

        with jax.named_scope(DATA_MASK):  # `gmma plan` counts the blocks of a mask that it draws
            return jax.vmap(of_row)(flat, keys, values, seen).reshape(query.shape)

    return cut_over_mesh(attend, keys)(query, keys, values, seen)


def padded_slots(length: int) -> int:
    """Return the slots of a tree in whole blocks; UserError where the kernel has no such room.

    A query's integer has 15 bits for a slot.
    """
    block = block_size(length)
    padded = -(-length // block) * block
    if padded > MOST_SLOTS:
        raise UserError(
            f"splash attention takes trees of {MOST_SLOTS} slots at most; this one has {length} "
            "(P + K·T + K·M·A): shorten it, or set model.attention to dense"
        )
    return padded


def check_kernel(query: Float[Array, "B S N G H"]) -> None:
    """Raise UserError for types that the kernel does not take."""
    if query.dtype == np.float64:
        raise UserError("splash attention computes in float32; with dtype float64 set it to dense")


def padded_mask(seen: Bool[Array, "B S S"], block: int) -> Bool[Array, "B slots slots"]:
    """Pad a mask to whole blocks; a query that sees nothing sees the first slot, and is not read.

    A softmax over nothing would be NaN, in its gradient too.
    """
    room = -seen.shape[1] % block
    seen = jnp.pad(seen, ((0, 0), (0, room), (0, room)))
    return seen.at[:, :, 0].set(seen[:, :, 0] | ~seen.any(axis=2))


def row_kernel(
    seen: Bool[Array, "slots slots"], block: int, softcap: float | None, interpret: bool
) -> kernels.SplashAttentionKernel:
    """Make the kernel of one row, whose heads share a mask that is data."""
    of_queries, _ = mask_info.process_dynamic_mask(seen[None], (block, block))
    of_keys, _ = mask_info.process_dynamic_mask_dkv(seen[None], (block, block))
    return kernels.SplashAttentionKernel(
        of_queries,
        of_queries,
        of_keys,
        block_sizes=square_blocks(block),
        is_mqa=False,
        save_residuals=False,
        mask_value=kernels.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=softcap,
        residual_checkpoint_name=None,
        mask_function=None,
        interpret=interpret,
    )


def square_blocks(block: int) -> kernels.BlockSizes:
    """Return the kernel's sizes with one side for all blocks."""
    names = ("q", "kv", "q_dkv", "kv_dkv", "q_dq", "kv_dq")
    sizes: dict[str, Any] = {f"block_{name}": block for name in names}
    return kernels.BlockSizes(**sizes)


def attend_row(
    kernel: kernels.SplashAttentionKernel,
    query: Float[Array, "S Q H"],
    keys: Float[Array, "S N H"],
    values: Float[Array, "S N H"],
    codes: Int[Array, "S"] | None = None,
    hidden: Int[Array, "S"] | None = None,
) -> Float[Array, "S Q H"]:
    """Return one row: slots behind heads as the kernel wants them, padded to whole blocks.

    Without codes and hidden slots the kernel's mask says all.
    """
    length, block = query.shape[0], kernel.kwargs["block_sizes"].block_q
    padded = -(-length // block) * block
    pad = partial(pad_slots, slots=padded)
    query, keys, values = (pad(x.swapaxes(0, 1), axis=1) for x in (query, keys, values))
    segments = None
    if codes is not None and hidden is not None:
        segments = kernels.SegmentIds(q=jnp.zeros(padded, jnp.int32), kv=pad(hidden, axis=0))
        kernel = with_codes(kernel, pad(codes, axis=0))
    out: Any = kernel(query, keys, values, segment_ids=segments)
    return out[:, :length].swapaxes(0, 1)


def cut_over_mesh(
    attend: Callable[..., Array], keys: Float[Array, "B S N H"]
) -> Callable[..., Array]:
    """Run `attend` on each device's rows and heads: the compiler cannot cut a kernel by itself.

    The mesh is that of the trace; without one, or where the caller has cut everything already,
    nothing is left to do. Rows or key heads that an axis does not divide stay whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    free = {axis for axis, kind in kinds if kind == AxisType.Auto}
    if not free:
        return attend

    def fitting(axes: tuple[str, ...], size: int) -> tuple[str, ...]:
        axes = tuple(axis for axis in axes if axis in free)
        return axes if size % prod(mesh.shape[axis] for axis in axes) == 0 else ()

    rows, heads = fitting(BATCH_AXES, keys.shape[0]), fitting((TENSOR_AXIS,), keys.shape[2])
    of_rows, of_heads = PartitionSpec(rows), PartitionSpec(rows, None, heads)

    def cut(query: Array, keys: Array, values: Array, *told: Array) -> Array:
        within = jax.shard_map(
            attend,
            in_specs=(of_heads, of_heads, of_heads, *(of_rows for _ in told)),
            out_specs=of_heads,
            axis_names=free,
            check_vma=False,
        )
        return within(query, keys, values, *told)

    return cut


def on_tpu() -> bool:
    """Return whether the traced program is for TPUs: the mesh's devices, or JAX's default ones."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = jax.default_backend() if device is None else device.platform
    return platform == "tpu"


def block_size(slots: int) -> int:
    """Return the largest block that does not add more than an eighth of the slots as padding."""
    fits = [block for block in BLOCKS if -slots % block <= slots // 8]
    return max(fits, default=BLOCKS[0])


def pad_slots(x: Array, slots: int, axis: int) -> Array:
    """Add zeros behind the last slot."""
    width = [(0, 0)] * x.ndim
    width[axis] = (0, slots - x.shape[axis])
    return jnp.pad(x, width)


def query_codes(slots: Slots, shape: TreeShape, window: Int[Array, ""] | None) -> Int[Array, "B S"]:
    """Return the code of each query for the kernel: `first · 2^15 + last`.

    `last` is the last slot of its own node that it sees: its own, or the end of its image. `first`
    counts along the path, 0 … P−1 in the prompt, then the T slots of its thought, then the A slots
    of its answer, and is the first that its window reaches.
    """
    own = jnp.broadcast_to(jnp.arange(shape.packed, dtype=jnp.int32), slots.positions.shape)
    last = own if slots.image is None else last_of_image(slots.image, own)
    if window is None:
        return last
    return first_in_window(slots.positions, shape, window) * MOST_SLOTS + last


def last_of_image(image: Int[Array, "B S"], own: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """Return the last slot of the image that a slot belongs to; of text, the slot itself."""
    ends = jnp.pad(image[:, 1:] != image[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    end = jax.lax.cummin(jnp.where(ends, own, own.shape[1]), axis=1, reverse=True)
    return jnp.where(image > 0, end, own)


def first_in_window(
    positions: Int[Array, "B S"], shape: TreeShape, window: Int[Array, ""]
) -> Int[Array, "B S"]:
    """Return the first slot along its path that each query's window reaches."""
    least = split_levels(positions - (window - 1), shape)  # the lowest position that is seen
    prompt, thought, answer = split_levels(positions, shape)
    root = prompt[:, :1]
    branch = thought[:, :, :1] if shape.thought else answer[:, :, 0, :1]

    def above(least: Array, root: Array, branch: Array | None) -> Array:
        first = jnp.clip(least - root, 0, shape.prompt)
        if branch is None:
            return first
        inside = shape.prompt + jnp.minimum(least - branch, shape.thought)
        return jnp.where(least >= branch, inside, first)

    leaf = answer[..., :1]
    of_answer = above(least[2], root[..., None, None], branch[:, :, None])
    in_answer = shape.prompt + shape.thought + least[2] - leaf
    return join_levels(
        above(least[0], root, None),
        above(least[1], root[..., None], branch),
        jnp.where(least[2] >= leaf, in_answer, of_answer),
    )


def seen_slots(xp: ModuleType, shape: TreeShape, code: Any, key: Any) -> Any:
    """Return whether a query's code lets it see a slot, padding aside; NumPy or JAX (`xp`).

    A query sees the slots `key ≤ last` of three ranges: of the prompt, of its thought, and of its
    answer, each from where its window begins. A range above or beside its own node is empty.
    """
    prompt, thought, leaf = shape.prompt, max(shape.thought, 1), max(shape.answer, 1)
    answers = shape.answers_start
    last, first = code & (MOST_SLOTS - 1), code >> LAST_BITS
    in_thought, in_answer = last - prompt, xp.maximum(last - answers, 0)
    branch = xp.where(
        last < answers, quotient(in_thought, thought), quotient(in_answer, leaf * shape.answers)
    )
    branch_start = prompt + thought * xp.maximum(branch, 0)
    leaf_start = answers + leaf * quotient(in_answer, leaf)
    of_prompt = (key >= first) & (key < prompt)
    of_thought = (key >= branch_start + xp.maximum(first - prompt, 0)) & (
        key < branch_start + thought
    )
    of_answer = key >= leaf_start + xp.maximum(first - prompt - shape.thought, 0)
    return (key <= last) & (of_prompt | of_thought | of_answer)


def quotient(x: Any, divisor: int) -> Any:
    """Compute x // divisor for −divisor < x < 2^22, rounded towards 0, without integer division."""
    return ((x.astype(np.float32) + np.float32(0.5)) * np.float32(1 / divisor)).astype(np.int32)


@dataclass(frozen=True)
class PathMask(masks.Mask):
    """Attention mask as the kernel asks for it: a block at a time, lengths unknown.

    With images the whole prompt sees the whole prompt; the codes say what of it is really seen.
    """

    tree: TreeShape
    slots: int  # those of the tree and the padding behind them
    images: bool
    q_sequence: np.ndarray = field(init=False, compare=False, repr=False)
    mask_function: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        last = np.arange(self.slots, dtype=np.int32)
        if self.images:
            last[: self.tree.prompt] = self.tree.prompt - 1
        last[self.tree.packed :] = 0  # nobody reads what a padding slot sees; it must see something
        object.__setattr__(self, "q_sequence", last)
        seen = partial(seen_slots, jnp, self.tree)
        object.__setattr__(self, "mask_function", seen)

    @property
    def shape(self) -> tuple[int, int]:
        """Queries by keys."""
        return (self.slots, self.slots)

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        rows, columns = index
        key = np.arange(self.slots, dtype=np.int32)[columns]
        return seen_slots(np, self.tree, self.q_sequence[rows][:, None], key[None])


def tree_kernel(
    mask: PathMask,
    heads: int,
    softcap: float | None,
    interpret: bool,
) -> kernels.SplashAttentionKernel:
    """Make the kernel of one tree, one row and `heads` query heads, with a full tree's codes.

    What is costly about it, going through the mask, JAX does once for equal masks.
    """
    block = block_size(mask.tree.packed)
    return kernels.make_splash_mha_single_device(
        masks.MultiHeadMask((mask,) * heads),
        block_sizes=square_blocks(block),
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )


@cache
def visited_blocks(mask: PathMask, block: int) -> int:
    """Count the blocks that the kernel visits: those with a slot that a query of the block sees."""
    rows = (mask[start : start + block, :] for start in range(0, mask.slots, block))
    return sum(int(row.any(axis=0).reshape(-1, block).any(axis=1).sum()) for row in rows)


def with_codes(
    kernel: kernels.SplashAttentionKernel, codes: Int[Array, "slots"]
) -> kernels.SplashAttentionKernel:
    """Return the same kernel for queries of other codes, forward and backward."""
    parts: tuple[Any, ...] = (kernel.fwd_mask_info, kernel.dq_mask_info, kernel.dkv_mask_info)
    told = [part._replace(q_sequence=codes) for part in parts]
    return kernels.SplashAttentionKernel(*told, **kernel.kwargs)
