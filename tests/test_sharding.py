"""The mesh and its table; eight devices compute what one does (L7)."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import laws
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec
from tiny_digits import experiment

from gmma.assembly import Parts
from gmma.config import MeshConfig, ObjectiveConfig, PhaseConfig
from gmma.data import fixed_size_processor
from gmma.errors import UserError
from gmma.programs import make_grow, make_rl_trainer
from gmma.sampling import SamplingConfig
from gmma.sharding import batch_shards, check_batch, make_mesh, physical_spec, put_batch, put_whole
from gmma.tasks import TASKS
from gmma.tasks.prompt import TINY_TEMPLATE
from gmma.tokenizer import Tokenizer
from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree

SHAPE, BATCH = TreeShape(6, 5, 3, thoughts=2, answers=2), 8
MESHES = {"one": MeshConfig(), "eight": MeshConfig(data=2, fsdp=2, tensor=2)}


@pytest.fixture(scope="module", autouse=True)
def standard_promotion() -> Iterator[None]:
    """optax raises a float to an integer power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@functools.cache
def parts_on(name: str) -> Parts:
    """A run of the tiny subject on one device, or on eight."""
    config = replace(
        experiment(),
        mesh=MESHES[name],
        rl=PhaseConfig(steps=1, batch_prompts=BATCH, microbatches=2),
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
        policy=laws.tiny_subject().policy,
        trained=lambda path: True,
        start=lambda mesh: laws.tiny_subject().params,
        tokenizer=words,
        template=TINY_TEMPLATE,
        processor=fixed_size_processor(4),
        stops=laws.stops_of(laws.CLOSING),
        mesh=make_mesh(config.mesh, jax.devices()[: 1 if name == "one" else 8]),
    )


@functools.cache
def placed_program(name: str, kind: str) -> Callable[..., Any]:
    """`make_grow` or the trainer's update on a mesh, compiled without effort at the first call."""
    parts = parts_on(name)
    if kind == "grow":
        jitted = make_grow(parts, SHAPE, parts.config.sampling, seed=3)
    else:
        jitted = make_rl_trainer(parts).update
    programs: list[Any] = []

    def run(*args: Any) -> Any:
        if not programs:
            programs.append(jitted.lower(*args).compile(compiler_options=laws.FAST_COMPILE))
        return jax.tree.map(np.asarray, programs[0](*args))

    return run


@laws.examples(5)
@given(st.data(), st.integers(0, 1000))
def test_the_same_tokens_on_one_device_and_on_eight(data: st.DataObject, step: int) -> None:
    subject = laws.tiny_subject()
    prompts = data.draw(laws.prompt_batches(subject, SHAPE.prompt, BATCH))
    rollouts = []
    for name in MESHES:
        mesh = parts_on(name).mesh
        params, number = put_whole((subject.params, np.uint32(step)), mesh)
        rollouts.append(placed_program(name, "grow")(params, put_batch(prompts, mesh), number))
    one, eight = rollouts
    for field in ("thoughts", "thought_lengths", "closed", "answers", "answer_lengths", "finished"):
        np.testing.assert_array_equal(getattr(one, field), getattr(eight, field), err_msg=field)
    laws.assert_close(eight.answer_logprobs, one.answer_logprobs, 1e-5)


@laws.examples(4)
@given(laws.trees(laws.tiny_subject(), SHAPE, BATCH))
def test_an_update_on_eight_devices_equals_one(tree: laws.Tree) -> None:
    """Adam's first moment is a tenth of the clipped gradient: the gradients are compared."""
    results = []
    for name in MESHES:
        parts = parts_on(name)
        state = make_rl_trainer(parts).start(laws.tiny_subject().params)
        packed = put_batch(jax.tree.map(np.asarray, packer()(*tree)), parts.mesh)
        results.append(placed_program(name, "update")(state, packed))
    (one, expected), (eight, metrics) = results
    moments = [optax.tree_utils.tree_get(state.opt_state, "mu") for state in (eight, one)]
    laws.assert_gradients_close(*moments, 1e-5)
    for name, metric in expected.items():
        laws.assert_close(metrics[name].total, metric.total, 1e-5, name)
        assert metrics[name].count == metric.count


@functools.cache
def packer() -> Callable[..., Any]:
    return laws.compiled(pack_tree)


def test_parameters_lie_where_the_table_says() -> None:
    """Widths over fsdp, hidden widths and vocabulary over tensor; uneven axes stay whole."""
    mesh = parts_on("eight").mesh
    spec = PartitionSpec
    assert physical_spec(spec("embed", "mlp"), (16, 24), mesh) == spec("fsdp", "tensor")
    assert physical_spec(spec("embed", "mlp"), (15, 24), mesh) == spec(None, "tensor")
    assert physical_spec(spec("layers", "norm"), (2, 16), mesh) == spec(None, None)
    params = make_rl_trainer(parts_on("eight")).abstract.params["params"]
    assert params["embedding"].sharding.spec == spec("tensor", "fsdp")
    assert params["blocks"]["mlp"]["gate"]["kernel"].sharding.spec == spec(None, "fsdp", "tensor")


def test_a_mesh_takes_what_is_left() -> None:
    mesh = make_mesh(MeshConfig(fsdp=4))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert batch_shards(mesh) == 8
    assert batch_shards(make_mesh(MeshConfig(tensor=4))) == 2


@pytest.mark.parametrize("sizes", [{"data": 3}, {"fsdp": 3}, {"data": 2, "fsdp": 2, "tensor": 1}])
def test_a_mesh_that_does_not_fit_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"does not make up 8 devices; choose sizes whose product"):
        make_mesh(MeshConfig(**sizes))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    mesh: Mesh = make_mesh(MeshConfig())
    check_batch(mesh, "rl.batch_prompts", 32, microbatches=4)
    with pytest.raises(UserError, match=r"batch = 30 is not divisible by 8 devices; .* of 8$"):
        check_batch(mesh, "batch", 30)
    with pytest.raises(UserError, match=r"8 devices × 3 microbatches; .* of 24$"):
        check_batch(mesh, "batch", 32, microbatches=3)
