"""The mesh and its table; a step on any mesh computes what one device does (L7)."""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import optax
import pytest
from families import subject_of
from jax.sharding import Mesh, PartitionSpec
from tiny_digits import experiment

from gmma.config import (
    LaunchConfig,
    MeshConfig,
    ObjectiveConfig,
    OptimizerConfig,
    Packing,
    RLConfig,
)
from gmma.errors import UserError
from gmma.hardware.sharding import (
    batch_shards,
    check_batch,
    count_slices,
    decode_layout,
    make_mesh,
    param_shardings,
    physical_spec,
    put_batch,
    put_whole,
    rollout_mesh,
)
from gmma.images.processor import fixed_size_processor
from gmma.models.lora import LoraConfig, adapted_policy
from gmma.models.mesh_axes import ALL_AXES
from gmma.run.assembly import Parts
from gmma.run.programs import make_credit, make_grow, make_pack, make_rl_trainer
from gmma.sampling import SamplingConfig
from gmma.tasks import TASKS
from gmma.text.prompt import TINY_TEMPLATE
from gmma.text.tokenizer import Tokenizer
from gmma.tree import TreeShape
from gmma.types import PromptBatch, TrainState

SHAPE, BATCH = TreeShape(13, 4, 3, thoughts=2, answers=2), 8
SHARDED = {"rollout_params": "sharded"}
# Every mesh that a step must not notice, with the layout of the rollout's parameters.
MESHES: dict[str, tuple[int, MeshConfig, dict[str, Any]]] = {
    "one device": (1, MeshConfig(), {}),
    "8x1x1": (8, MeshConfig(data=8), {}),
    "8x1x1, its rollout 4x1x2": (8, MeshConfig(data=8), SHARDED | {"rollout_tensor": 2}),
    "1x8x1": (8, MeshConfig(data=1, fsdp=8), {}),
    "1x8x1, its rollout 1x2x4": (8, MeshConfig(data=1, fsdp=8), SHARDED | {"rollout_tensor": 4}),
    "2x2x2": (8, MeshConfig(data=2, fsdp=2, tensor=2), {}),
    "2x2x2 sharded": (8, MeshConfig(data=2, fsdp=2, tensor=2), SHARDED),
    "1x2x4 sharded": (8, MeshConfig(data=1, fsdp=2, tensor=4), SHARDED),
    "1x2x4, its rollout 2x2x2": (
        8,
        MeshConfig(data=1, fsdp=2, tensor=4),
        SHARDED | {"rollout_tensor": 2},
    ),
}
# A program of a ported family compiles for ten seconds: without GMMA_EVERY_MESH=1 one mesh of each.
EVERY = "GMMA_EVERY_MESH" in os.environ
CASES = [
    (family, mesh)
    for family in ("tiny", "gemma3", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
    for mesh in list(MESHES)[1:]
    if EVERY or family == "tiny" or mesh == "2x2x2 sharded"
]


@pytest.fixture(scope="module", autouse=True)
def standard_promotion() -> Iterator[None]:
    """optax raises a float to an integer power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def subject(family: str) -> laws.Subject:
    """A tiny random policy that sees images."""
    return laws.tiny_subject() if family == "tiny" else subject_of(family)


@functools.cache
def parts_on(family: str, mesh: str) -> Parts:
    """A run of a subject on a mesh."""
    devices, mesh_config, of_rollout = MESHES[mesh]
    config = replace(
        experiment(),
        launch=LaunchConfig(mesh=mesh_config),
        **of_rollout,
        # A larger epsilon: Adam turns a gradient that is zero but for rounding into a whole step.
        rl=RLConfig(steps=1, batch_prompts=BATCH, optimizer=OptimizerConfig(adam_epsilon=1e-5)),
        objective=ObjectiveConfig(),
        sampling=SamplingConfig(temperature=laws.TEMPERATURE),
    )
    words = Tokenizer(
        encode=lambda text: [],
        decode=lambda ids: "",
        token_bytes=laws.PIECES,
        vocab_size=len(laws.PIECES),
        pad=laws.PAD,
        bos=None,
        stop_tokens=(laws.END,),
        image_token=laws.IMAGE,
    )
    return Parts(
        config=config,
        task=TASKS["digits"],
        policy=subject(family).policy,
        trained=lambda path: True,
        start=lambda mesh: laws.tiny_subject().params,
        tokenizer=words,
        template=TINY_TEMPLATE,
        processor=fixed_size_processor(4),
        stops=laws.stops_of(laws.CLOSING),
        mesh=make_mesh(config.launch.mesh, jax.devices()[:devices]),
    )


@functools.cache
def step_on(family: str, mesh: str, packing: Packing = "static") -> Callable[[int], Any]:
    """seed → (rollout, state, metrics) of rollout, credit, pack and update as one program."""
    parts = parts_on(family, mesh)
    parts = replace(parts, config=replace(parts.config, packing=packing, row_lengths=2))
    grow, trainer = make_grow(parts, SHAPE, parts.config.sampling, seed=3), make_rl_trainer(parts)
    credit, pack = make_credit(parts), make_pack(parts)

    def step(state: TrainState, prompts: PromptBatch, number: Any) -> Any:
        rollout = grow(state.params, prompts, number)
        rewards = (rollout.answers.sum(-1) % 7).astype(jnp.float32)
        advantages = credit(rewards, jnp.ones_like(rollout.finished))
        return rollout, *trainer.update(state, pack(prompts, rollout, advantages))

    def arguments(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        least = len(subject(family).image_prefix) + 1
        lengths = rng.integers(least, SHAPE.prompt + 1, BATCH).astype(np.int32)
        prompts = laws.random_prompts(subject(family), rng, lengths, SHAPE.prompt)
        state = trainer.start(subject(family).params)
        return state, put_batch(prompts, parts.mesh), put_whole(np.uint32(seed), parts.mesh)

    program = jax.jit(step).lower(*arguments(0)).compile(compiler_options=laws.FAST_COMPILE)
    return lambda seed: jax.tree.map(np.asarray, program(*arguments(seed)))


def test_a_step_in_ragged_rows_on_a_mesh_is_the_static_one_of_one_device() -> None:
    """Lengths are branches around the gradient; the longest tree is on any device."""
    one, expected, _ = step_on("tiny", "one device")(0)
    rollout, state, _ = step_on("tiny", "2x2x2 sharded", "ragged")(0)
    np.testing.assert_array_equal(rollout.answers, one.answers)
    moments = [optax.tree_utils.tree_get(s.opt_state, "mu") for s in (state, expected)]
    laws.assert_gradient_close_as_a_whole(*moments, 1e-5)


@pytest.mark.parametrize(("family", "mesh"), CASES)
def test_a_step_on_any_mesh_is_that_of_one_device(family: str, mesh: str) -> None:
    """Adam's first moment is a tenth of the clipped gradient: the gradients are compared, all of
    them as one vector.
    """
    for seed in (0, 1):
        one, expected, metrics = step_on(family, "one device")(seed)
        rollout, state, found = step_on(family, mesh)(seed)
        for field in ("thoughts", "thought_lengths", "closed", "answers", "answer_lengths"):
            np.testing.assert_array_equal(getattr(rollout, field), getattr(one, field), field)
        laws.assert_close(rollout.answer_logprobs, one.answer_logprobs, 1e-5)
        assert one.answer_lengths.min() < one.answer_lengths.max()
        moments = [optax.tree_utils.tree_get(s.opt_state, "mu") for s in (state, expected)]
        laws.assert_gradient_close_as_a_whole(*moments, 1e-5)
        laws.assert_gradients_close(state.params, expected.params, 1e-5)
        assert set(found) == set(metrics)
        for name, metric in metrics.items():
            assert found[name].count == metric.count
            if "logp_difference" in name:  # rounding is all that it measures
                assert found[name].total <= 1e-4 * metric.count
            else:
                laws.assert_close(found[name].total, metric.total, 1e-5, name)


def test_parameters_lie_where_the_table_says() -> None:
    """Widths over fsdp, hidden widths and vocabulary over tensor; uneven axes stay whole."""
    mesh = parts_on("tiny", "2x2x2").mesh
    spec = PartitionSpec
    assert physical_spec(spec("embed", "mlp"), (16, 24), mesh) == spec("fsdp", "tensor")
    assert physical_spec(spec("embed", "mlp"), (15, 24), mesh) == spec(None, "tensor")
    assert physical_spec(spec("layers", "norm"), (2, 16), mesh) == spec(None, None)
    params = make_rl_trainer(parts_on("tiny", "2x2x2")).abstract.params["params"]
    assert params["embedding"].sharding.spec == spec("tensor", "fsdp")
    assert params["blocks"]["mlp"]["gate"]["kernel"].sharding.spec == spec(None, "fsdp", "tensor")


def test_heads_are_cut_between_heads_only() -> None:
    """Two key heads of width 4 on four devices: 8 columns divide, half a head is no unit."""
    mesh = make_mesh(MeshConfig(tensor=4))
    spec, units = PartitionSpec("embed", "kv_heads"), {"kv_heads": 2}
    assert physical_spec(spec, (16, 8), mesh) == PartitionSpec("fsdp", "tensor")
    assert physical_spec(spec, (16, 8), mesh, units) == PartitionSpec("fsdp", None)


def test_adapters_lie_along_their_layers() -> None:
    policy = adapted_policy(subject("tiny").policy, LoraConfig(rank=2))
    abstract = jax.eval_shape(policy.init, jax.random.key(0))
    mesh = parts_on("tiny", "2x2x2").mesh
    query = param_shardings(policy, abstract, mesh)["lora"]["blocks"]["query"]
    assert query["a"].spec == PartitionSpec(None, "fsdp", None)
    assert query["b"].spec == PartitionSpec(None, None, "tensor")


def test_a_mesh_takes_what_is_left() -> None:
    mesh = make_mesh(MeshConfig(fsdp=4))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert batch_shards(mesh) == 8
    assert batch_shards(make_mesh(MeshConfig(tensor=4))) == 2


@pytest.mark.parametrize("sizes", [{"data": 3}, {"fsdp": 3}, {"data": 2, "fsdp": 2, "tensor": 1}])
def test_a_mesh_that_does_not_fit_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"does not make up 8 devices; choose sizes whose product"):
        make_mesh(MeshConfig(**sizes))


def test_slices_are_those_of_tpus() -> None:
    """Other platforms may number hosts as slices."""

    def devices(platform: str) -> list[Any]:
        return [SimpleNamespace(platform=platform, slice_index=index // 4) for index in range(8)]

    assert count_slices(devices("tpu")) == 2
    assert count_slices(devices("cpu")) == count_slices(jax.devices()) == 1


def test_a_batch_that_does_not_divide_is_refused() -> None:
    mesh: Mesh = make_mesh(MeshConfig())
    check_batch(mesh, "rl.batch_prompts", 32, microbatches=4)
    with pytest.raises(UserError, match=r"batch = 30 is not divisible by 8 devices; .* of 8$"):
        check_batch(mesh, "batch", 30)
    with pytest.raises(
        UserError, match=r"8 devices × 3 microbatches; .* 24, or microbatches to 2$"
    ):
        check_batch(mesh, "batch", 32, microbatches=3)


def test_a_rollout_has_the_devices_of_the_mesh_in_their_order() -> None:
    """Neighbours share a copy, however the mesh is cut."""
    devices = jax.devices()[:8]
    for sizes, tensor, wanted in [
        ((1, 8, 1), 2, (1, 4, 2)),
        ((1, 8, 1), 8, (1, 1, 8)),
        ((8, 1, 1), 2, (4, 1, 2)),
        ((2, 2, 2), 4, (2, 1, 4)),
        ((1, 2, 4), 2, (2, 2, 2)),
        ((4, 1, 2), 8, (1, 1, 8)),
        ((2, 3, 1), 2, (3, 1, 2)),
    ]:
        mesh = Mesh(np.array(devices[: prod(sizes)]).reshape(sizes), ALL_AXES)
        own = rollout_mesh(mesh, tensor)
        assert own.devices.shape == wanted
        assert list(own.devices.flat) == list(mesh.devices.flat)
        assert rollout_mesh(mesh, None) is rollout_mesh(mesh, sizes[-1]) is mesh


def test_a_layout_of_a_rollout_that_does_not_divide_is_one_message() -> None:
    mesh = make_mesh(MeshConfig(data=1, fsdp=8), jax.devices()[:8])
    with pytest.raises(UserError, match=r"rollout_tensor = 3 does not divide .* a slice, 8; "):
        decode_layout("sharded", 3, mesh, 8)
    cut = make_mesh(MeshConfig(data=1, fsdp=1, tensor=8), jax.devices()[:8])
    with pytest.raises(UserError, match="rollout = 6 is not divisible by the 4 copies"):
        decode_layout("sharded", 2, cut, 6)
    for sizes, tensor, fine in [
        ((1, 4, 2), 4, "1, 2, 8"),
        ((4, 1, 2), 4, "1, 2, 8"),
        ((4, 2, 1), 4, "1, 2, 8"),
        ((2, 1, 4), 8, None),
        ((2, 2, 2), 4, None),
    ]:
        mesh = Mesh(np.array(jax.devices()[:8]).reshape(sizes), ALL_AXES)
        if fine is None:
            assert rollout_mesh(mesh, tensor).shape["tensor"] == tensor
            continue
        with pytest.raises(UserError, match=rf"does not nest with .*; choose one of {fine}, or"):
            rollout_mesh(mesh, tensor)
    with pytest.raises(UserError, match=r"rollout_tensor = 2 says .* rollout_params = gathered"):
        replace(experiment(), rollout_tensor=2)
