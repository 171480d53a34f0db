"""The kernel in interpret mode equals attention by levels, forward and backward."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from families import subject_of
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from slices import devices_of, needs_libtpu

from gmma.errors import UserError
from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.models.attention import Slots, packed_attention, ragged_attention
from gmma.models.mesh_axes import ALL_AXES, BATCH_AXES
from gmma.models.splash import (
    PathMask,
    block_size,
    ragged_splash,
    splash_attention,
    tree_kernel,
    visited_blocks,
)
from gmma.tree import TreeShape, attention_mask
from gmma.tree.layout import node_of_slot
from gmma.tree.rows import packed_slots
from gmma.types import PromptBatch, TreeInputs

SHAPES = (
    TreeShape(40, 20, 10, thoughts=2, answers=2),  # one block
    TreeShape(60, 23, 9, thoughts=3, answers=2),  # two, and nodes of odd sizes across the border
    TreeShape(30, 0, 0, thoughts=1, answers=1),  # a prompt alone
)
BATCH, KEY_HEADS, GROUP, SIZE = 2, 2, 2, 16
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape.packed))


@functools.cache
def both(
    shape: TreeShape, image: bool, windowed: bool, softcap: float | None
) -> Callable[..., Any]:
    """(arrays, slots, window, cotangent) → output and gradients, by the kernel and by levels."""

    def run(query: Any, keys: Any, values: Any, slots: Slots, window: Any, cotangent: Any) -> Any:
        found = []
        for attend in (functools.partial(splash_attention, interpret=True), packed_attention):

            def used(*arrays: Any, attend: Any = attend) -> Any:
                width = window if windowed else None
                out = attend(*arrays, slots, shape, window=width, softcap=softcap)
                return jnp.where(slots.valid[..., None, None, None], out, 0)

            out, pull_back = jax.vjp(used, query, keys, values)
            found.append((out, *pull_back(cotangent)))
        return found

    return laws.compiled(run)


def on_mesh(mesh, function):
    """The function traced as `placed_policy` traces a forward pass."""

    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def random_slots(rng: np.random.Generator, shape: TreeShape, image: bool) -> Slots:
    """Slots of a tree of random lengths, as `pack_tree` lays them, two images in the prompt."""
    nodes, leaves = (BATCH, shape.thoughts), (BATCH, shape.thoughts, shape.answers)
    root, branch = np.zeros(BATCH, int), rng.integers(1, shape.prompt + 1, BATCH)
    thought = rng.integers(min(1, shape.thought), shape.thought + 1, nodes)
    leaf = branch[:, None] + thought
    answer = rng.integers(min(1, shape.answer), shape.answer + 1, leaves)
    starts = root, np.broadcast_to(branch[:, None], nodes), np.repeat(leaf, shape.answers, axis=1)
    levels = zip(
        starts,
        (branch, thought, answer.reshape(BATCH, -1)),
        (shape.prompt, shape.thought, shape.answer),
        strict=True,
    )
    positions, valid = [], []
    for start, length, count in levels:
        positions.append(start[..., None] + np.arange(count))
        valid.append(np.arange(count) < length[..., None])
    numbers = np.zeros((BATCH, shape.packed), np.int32)
    for row in range(BATCH):
        first, end, last = np.sort(rng.choice(shape.prompt, 3, replace=False))
        numbers[row, first:end], numbers[row, end:last] = 1, 2
    return Slots(
        positions=jnp.asarray(laws.joined(*positions), jnp.int32),
        valid=jnp.asarray(laws.joined(*valid)),
        image=jnp.asarray(numbers) if image else None,
    )


def check(
    rng: np.random.Generator,
    shape: TreeShape,
    *,
    image: bool = False,
    window: int | None = None,
    softcap: float | None = None,
) -> None:
    size = (BATCH, shape.packed, KEY_HEADS)
    query, cotangent = rng.normal(size=(2, *size, GROUP, SIZE)).astype(np.float32)
    keys, values = rng.normal(size=(2, *size, SIZE)).astype(np.float32)
    run = both(shape, image, window is not None, softcap)
    where = random_slots(rng, shape, image)
    width = np.int32(window or 0)
    kernel, dense = run(query * SIZE**-0.5, keys, values, where, width, cotangent)
    for name, found, expected in zip(
        ("out", "query", "keys", "values"), kernel, dense, strict=True
    ):
        laws.assert_close(np.asarray(found), np.asarray(expected), 1e-5, name)


@pytest.mark.parametrize(
    ("shape", "image"),
    [(SHAPES[0], True), (SHAPES[1], True), (SHAPES[1], False), (SHAPES[2], True)],
)
@laws.examples(8)
@given(laws.generators(), st.integers(1, 80))
def test_equals_dense(shape: TreeShape, image: bool, rng: np.random.Generator, window: int) -> None:
    """Random lengths, images and windows, from its own token alone to more than the whole path."""
    check(rng, shape, image=image, window=window)


@laws.examples(3)
@given(laws.generators())
def test_without_a_window_and_with_capped_scores(rng: np.random.Generator) -> None:
    check(rng, SHAPES[0], softcap=1.5)


@functools.cache
def ragged_routines(shape: TreeShape, image: bool, softcap: float | None) -> Callable[..., Any]:
    """(arrays, slots, window, cotangent) → output and gradients by levels, and of both routines in
    ragged rows, put back into packed slots."""
    nodes = jnp.asarray(np.append(node_of_slot(shape), -1), jnp.int32)

    def run(query: Any, keys: Any, values: Any, slots: Slots, window: Any, cotangent: Any) -> Any:
        origin = packed_slots(slots.valid, shape.packed)
        some, held = jnp.minimum(origin, shape.packed - 1), origin < shape.packed
        batch = jnp.arange(BATCH)[:, None]
        taken = jax.tree.map(lambda x: x[batch, some], slots)
        rows = Slots(positions=taken.positions, valid=held, image=taken.image)

        def in_rows(attend: Any, *arrays: Any) -> Any:
            gathered = (x[batch, some] for x in arrays)
            out = attend(*gathered, rows, nodes[origin], shape, window=window, softcap=softcap)
            return jnp.zeros_like(arrays[0]).at[batch, origin].set(out, mode="drop")

        def by_levels(*arrays: Any) -> Any:
            out = packed_attention(*arrays, slots, shape, window=window, softcap=softcap)
            return jnp.where(slots.valid[..., None, None, None], out, 0)

        routines = (
            by_levels,
            functools.partial(in_rows, ragged_attention),
            functools.partial(in_rows, functools.partial(ragged_splash, interpret=True)),
        )
        found = []
        for routine in routines:
            out, pull_back = jax.vjp(routine, query, keys, values)
            found.append((out, *pull_back(cotangent)))
        return found

    return laws.compiled(run)


@pytest.mark.parametrize(("image", "softcap"), [(True, None), (False, 1.5)])
@laws.examples(5)
@given(laws.generators(), st.integers(1, 80))
def test_ragged_rows_equal_levels(
    image: bool, softcap: float | None, rng: np.random.Generator, window: int
) -> None:
    """Without gaps, by a mask that is data: two chunks of queries, two blocks of the kernel."""
    shape = SHAPES[1]
    size = (BATCH, shape.packed, KEY_HEADS)
    query, cotangent = rng.normal(size=(2, *size, GROUP, SIZE)).astype(np.float32)
    keys, values = rng.normal(size=(2, *size, SIZE)).astype(np.float32)
    where = random_slots(rng, shape, image)
    run = ragged_routines(shape, image, softcap)
    levels, *ragged = run(query * SIZE**-0.5, keys, values, where, np.int32(window), cotangent)
    for routine, found in zip(("dense", "splash"), ragged, strict=True):
        for name, ours, theirs in zip(
            ("out", "query", "keys", "values"), found, levels, strict=True
        ):
            laws.assert_close(np.asarray(ours), np.asarray(theirs), 1e-5, f"{routine} {name}")


@over_shapes
def test_the_static_mask_is_the_trees(shape: TreeShape) -> None:
    """Nothing is seen of the padding, and the kernel need not visit what the tree hides."""
    padded = -(-shape.packed // 128) * 128
    everything = (slice(0, padded), slice(0, padded))
    mask = PathMask(shape, padded, images=False)[everything]
    np.testing.assert_array_equal(mask[: shape.packed, : shape.packed], attention_mask(shape))
    assert not mask[:, shape.packed :].any()
    assert mask.any(axis=1).all()
    with_images = PathMask(shape, padded, images=True)[everything]
    assert with_images[: shape.prompt, : shape.prompt].all()
    np.testing.assert_array_equal(mask[shape.prompt :], with_images[shape.prompt :])


def test_blocks_waste_at_most_an_eighth() -> None:
    blocks = {slots: block_size(slots) for slots in (40, 300, 500, 640, 700, 5120, 5200)}
    assert blocks == {40: 128, 300: 128, 500: 512, 640: 128, 700: 256, 5120: 512, 5200: 512}


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("shape", [TreeShape(300, 64, 16, 4, 4), TreeShape(40, 200, 9, 3, 1)])
def test_visited_blocks_are_those_of_the_kernel(shape: TreeShape, images: bool) -> None:
    block = block_size(shape.packed)
    mask = PathMask(shape, -(-shape.packed // block) * block, images=images)
    kernel = tree_kernel(mask, 2, None, True)
    assert visited_blocks(mask, block) == np.count_nonzero(kernel.fwd_mask_info.block_mask)
    assert visited_blocks(mask, block) == np.count_nonzero(kernel.dkv_mask_info.block_mask)


@laws.examples(2)
@given(st.data())
def test_a_policy_is_the_same_with_the_kernel(data: st.DataObject) -> None:
    """Gemma 3, two images, local and global layers: log-probs, loss and gradients."""
    shape = TreeShape(13, 4, 3, thoughts=2, answers=2)
    dense, kernel = (
        subject_of("gemma3", attention=name) for name in ("dense", "splash_interpreted")
    )
    tree = data.draw(laws.trees(dense, shape))
    used = laws.used_slots(tree)
    before, after = (laws.evaluate(s, tree, *laws.zeros(s, tree)) for s in (dense, kernel))
    laws.assert_close(after.logprobs[used], before.logprobs[used], 1e-5)
    laws.assert_close(after.loss, before.loss, 1e-5)
    laws.assert_gradient_close_as_a_whole(after.gradient, before.gradient, 1e-5)


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 1, 4)], ids=str)
def test_cut_over_a_mesh(sizes: tuple[int, int, int]) -> None:
    """Rows and heads on devices of their own; four devices cannot part two key heads."""
    mesh = Mesh(np.array(jax.devices()[: np.prod(sizes)]).reshape(sizes), ALL_AXES)
    rng, shape = np.random.default_rng(0), SHAPES[0]
    size = (4, shape.packed, KEY_HEADS)
    arrays = [rng.normal(size=(*size, *rest)).astype(np.float32) for rest in ((2, 8), (8,), (8,))]
    where = jax.tree.map(lambda x: jnp.tile(x, (2, 1)), random_slots(rng, shape, image=True))

    def gradients(query: Any, keys: Any, values: Any, where: Slots) -> Any:
        def energy(*arrays: Any) -> Any:
            out = splash_attention(*arrays, where, shape, interpret=True)
            return jnp.square(jnp.where(where.valid[..., None, None, None], out, 0)).sum()

        return jax.value_and_grad(energy, argnums=(0, 1, 2))(query, keys, values)

    alone = laws.compiled(gradients)(*arrays, where)
    placed = jax.device_put((*arrays, where), NamedSharding(mesh, PartitionSpec(BATCH_AXES)))
    together = laws.compiled(on_mesh(mesh, gradients))(*placed)
    jax.tree.map(lambda a, b: laws.assert_close(np.asarray(a), b, 1e-5), together, alone)
    heads = together[1][1].sharding.shard_shape((*size, 8))[2]
    assert heads == (1 if sizes[2] == 2 else KEY_HEADS)


def test_what_the_kernel_does_not_take_is_refused() -> None:
    with pytest.raises(UserError, match="takes trees of 32768 slots at most; this one has 40000"):
        jax.eval_shape(functools.partial(attend_to_nothing, 40_000, np.float32))
    with jax.enable_x64(True), pytest.raises(UserError, match="float64 set it to dense"):
        jax.eval_shape(functools.partial(attend_to_nothing, 8, np.float64))


def attend_to_nothing(length: int, dtype: Any) -> Any:
    keys = jnp.zeros((1, length, 1, 8), dtype)
    place = Slots(positions=jnp.zeros((1, length), jnp.int32), valid=jnp.ones((1, length), bool))
    shape = TreeShape(length, 0, 0, thoughts=1, answers=1)
    return splash_attention(keys[:, :, :, None], keys, keys, place, shape)


@needs_libtpu
def test_auto_is_the_kernel_on_a_slice() -> None:
    """Compiled for v5e:2x4, the gradient of a forward pass and a prefill on each device alone."""
    with devices_of("v5e:2x4") as devices:
        mesh = Mesh(np.array(devices).reshape(2, 2, 2), ALL_AXES)
        config = TinyConfig(layers=2, width=64, mlp=64, dtype="bfloat16")
        policy = tiny_policy(config, vocab_size=64, image_token=63)
        shape = TreeShape(300, 64, 32, thoughts=2, answers=2)

        def gradient(params: Any, tokens: Any) -> Any:
            inputs = TreeInputs(
                tokens=tokens, positions=tokens, valid=tokens >= 0, images=None, shape=shape
            )
            return jax.grad(lambda p: policy.forward(p, inputs).astype(np.float32).sum())(params)

        def prefill(params: Any, tokens: Any) -> Any:
            lengths = jnp.full(tokens.shape[0], 300, jnp.int32)
            return policy.prefill(params, PromptBatch(tokens=tokens[:, :300], lengths=lengths))[0]

        alone = jax.shard_map(
            prefill,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(ALL_AXES)),
            out_specs=PartitionSpec(ALL_AXES),
            check_vma=False,
        )
        for program, calls in ((on_mesh(mesh, gradient), 4), (alone, 1)):
            params = jax.eval_shape(policy.init, jax.random.key(0))
            tokens = jax.ShapeDtypeStruct((8, shape.packed), jnp.int32)
            placed = jax.tree.map(
                lambda x, spec: jax.ShapeDtypeStruct(
                    x.shape, x.dtype, sharding=NamedSharding(mesh, spec)
                ),
                (params, tokens),
                (jax.tree.map(lambda _: PartitionSpec(), params), PartitionSpec(BATCH_AXES)),
            )
            lowered = jax.jit(program).trace(*placed).lower(lowering_platforms=("tpu",))
            text = lowered.compile().as_text()
            # The scanned layer's: forward, the same again, and two backward
            assert text.count('custom_call_target="tpu_custom_call"') == calls
