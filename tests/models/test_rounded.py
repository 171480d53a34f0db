"""Weights of a rollout that are merged, or rounded to 8 bits."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from families import subject_of
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_sharding import BATCH, SHAPE, parts_on
from tiny_digits import experiment

from gmma.config import ObjectiveConfig
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.hardware.sharding import put_batch, put_whole
from gmma.models.lora import add_adapters
from gmma.models.rounded import EXACT, LARGEST, SCALES, lighter, round_kernel
from gmma.options.networks import LoraConfig, RolloutWeights
from gmma.run.programs import make_grow, make_rollout
from gmma.sampling import SamplingConfig
from gmma.tree import TreeShape
from gmma.types import Params

SMALL = TreeShape(13, 4, 3, thoughts=2, answers=2)
KERNELS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@laws.examples(50)
@given(KERNELS, st.sampled_from([-2, -1]))
def test_a_number_is_off_by_half_a_step_at_most(kernel: np.ndarray, axis: int) -> None:
    whole, scale = (np.asarray(x) for x in round_kernel(jnp.asarray(kernel), axis))
    assert whole.dtype == np.int8
    assert np.abs(whole.astype(int)).max() <= LARGEST
    step = np.expand_dims(scale, axis)
    assert (np.abs(whole * step - kernel) <= 0.501 * step).all()
    largest = np.abs(kernel).max(axis)
    held = largest / LARGEST >= np.finfo(np.float32).tiny
    np.testing.assert_allclose(scale, np.where(held, largest / LARGEST, 1), rtol=1e-6)


@functools.cache
def adapted(family: str) -> laws.Subject:
    """A subject with adapters on its decoder that are not zero."""
    own = subject_of(family)
    params = add_adapters(own.params, LoraConfig(rank=2), jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 99))
    lora = jax.tree.map(
        lambda x: 0.1 * jax.random.normal(next(keys), x.shape, x.dtype), params["lora"]
    )
    return replace(own, params={**params, "lora": lora})


def made_lighter(own: laws.Subject, kind: RolloutWeights) -> Params:
    """The parameters of a subject as a rollout reads them."""
    return jax.tree.map(
        np.asarray, laws.compiled(functools.partial(lighter, weights=kind))(own.params)
    )


def spelt_out(params: Params) -> Params:
    """Rounded parameters as plain ones: q ⊙ s."""
    flat, scales = (flatten_dict(params[name], sep="/") for name in ("params", SCALES))
    for path, scale in scales.items():
        axis = -1 if path == "embedding" else -2
        flat[path] = flat[path].astype(np.float32) * np.expand_dims(scale, axis)
    return {"params": unflatten_dict(flat, sep="/")}


def grown(own: laws.Subject, params: Params, seed: int) -> Any:
    """Trees of one batch of prompts."""
    lengths = np.full(laws.BATCH, SMALL.prompt, np.int32)
    prompts = laws.random_prompts(own, np.random.default_rng(seed), lengths, SMALL.prompt)
    growth = laws.Growth(SMALL, SamplingConfig(temperature=1.3))
    return laws.grow(replace(own, params=params), growth, prompts, seed)


def assert_same_trees(found: Any, expected: Any) -> None:
    for name in ("thoughts", "thought_lengths", "answers", "answer_lengths"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    laws.assert_close(found.answer_logprobs, expected.answer_logprobs, 1e-5)


@pytest.mark.parametrize("family", ["gemma3", "qwen2_5_vl", "qwen3_5"])
def test_a_rollout_computes_with_what_the_scales_say(family: str) -> None:
    """Tied heads and others, and layers that keep a state; adapters are merged before."""
    own = adapted(family)
    rounded = made_lighter(own, "int8")
    assert "lora" not in rounded
    flat = flatten_dict(rounded["params"], sep="/")
    assert {flat[path].dtype for path in flatten_dict(rounded[SCALES], sep="/")} == {
        jnp.dtype(jnp.int8)
    }
    head = "params/head/kernel" in flatten_dict(own.params, sep="/")
    assert (flat["embedding"].dtype == jnp.int8) != head
    exact = [path for path in flat if path.split("/")[-2:-1] and path.split("/")[-2] in EXACT]
    assert all(flat[path].dtype == jnp.float32 for path in exact)
    assert_same_trees(grown(own, rounded, 3), grown(own, spelt_out(rounded), 3))


def test_merged_adapters_are_the_adapters() -> None:
    own = adapted("gemma3")
    merged = made_lighter(own, "merged")
    assert "lora" not in merged
    assert_same_trees(grown(own, merged, 4), grown(own, own.params, 4))
    assert lighter(own.params, "exact") is own.params


def test_rounding_shows_in_the_log_probs() -> None:
    """Or nothing would be tested here: they differ, and not by much."""
    own = adapted("qwen2_5_vl")
    exact, rounded = (grown(own, made_lighter(own, kind), 5) for kind in ("exact", "int8"))
    same = np.asarray(exact.thoughts[..., 0] == rounded.thoughts[..., 0])
    gap = np.abs(exact.thought_logprobs[..., 0] - rounded.thought_logprobs[..., 0])[same]
    assert 1e-6 < gap.max() < 0.3


def test_on_a_mesh_as_on_one_device() -> None:
    found = []
    for mesh in ("one device", "2x2x2 sharded"):
        parts = parts_on("gemma3", mesh)
        own = subject_of("gemma3")
        lengths = np.full(BATCH, SHAPE.prompt, np.int32)
        prompts = laws.random_prompts(own, np.random.default_rng(2), lengths, SHAPE.prompt)
        grow = make_grow(parts, SHAPE, parts.config.sampling, seed=3, weights="int8")
        placed = put_batch(prompts, parts.mesh), put_whole(np.uint32(1), parts.mesh)
        params = put_whole(jax.tree.map(np.asarray, own.params), parts.mesh)
        found.append(jax.tree.map(np.asarray, grow(params, *placed)))
    assert_same_trees(*found)


def test_a_network_that_knows_no_scales_is_refused() -> None:
    parts = parts_on("gemma3", "one device")
    config = replace(parts.config, objective=ObjectiveConfig(importance_cap=2.0))
    parts = replace(parts, config=replace(config, rollout_weights="int8"))
    make_rollout(parts)
    own = replace(parts, policy=replace(parts.policy, takes_scales=False))
    with pytest.raises(UserError, match="int8, but the model's family has products that know no"):
        make_rollout(own)


def test_a_weight_that_is_not_finite_shows() -> None:
    kernel = jnp.ones((3, 2)).at[1, 1].set(jnp.nan)
    _, scale = round_kernel(kernel, -2)
    assert np.isfinite(scale).tolist() == [True, False]


def test_another_policy_is_corrected_for_or_refused() -> None:
    base = experiment()
    with pytest.raises(UserError, match=r"rollout_weights = int8 .*set objective.importance_cap"):
        replace(base, rollout_weights="int8")
    corrected = replace(base, objective=ObjectiveConfig(importance_cap=2.0))
    assert replace(corrected, rollout_weights="int8").rollout_weights == "int8"
    with pytest.raises(UserError, match="rollout_weights = merged, but the model has no adapters"):
        replace(corrected, rollout_weights="merged")
    ported = PretrainedConfig(directory=Path("models/x"), lora=LoraConfig())
    assert replace(corrected, model=ported, rollout_weights="merged").rollout_weights == "merged"
