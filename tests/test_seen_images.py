"""Images that a frozen tower has seen once, in place of their pixels: no number changes."""

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
from test_sharding import BATCH, SHAPE, parts_on, subject

import gmma
from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.hardware.sharding import put_batch, put_whole
from gmma.models.lora import adapted_policy
from gmma.options.networks import LoraConfig
from gmma.plan.programs import plan_parts
from gmma.run.assembly import Parts
from gmma.run.experiments import load_experiment
from gmma.run.programs import (
    keeps_features,
    make_credit,
    make_grow,
    make_pack,
    make_rl_trainer,
    make_see,
    parts_params,
)
from gmma.sampling import SamplingConfig
from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree
from gmma.types import PromptBatch, SeenImages
from gmma.update import join_params

WITH_IMAGES = ("tiny", "gemma3", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
SMALL = TreeShape(13, 4, 3, thoughts=2, answers=2)


def look(own: laws.Subject, prompts: PromptBatch) -> PromptBatch:
    """The prompts with their images seen."""
    see = own.policy.see
    assert see is not None
    return replace(prompts, images=laws.compiled(see)(own.params, prompts.images))


@pytest.mark.parametrize("family", WITH_IMAGES)
@laws.examples(2)
@given(st.data())
def test_a_tree_of_seen_images_is_the_same_tree(family: str, data: st.DataObject) -> None:
    """Rollout, forward pass of the packed tree, and what of the images has no pixels."""
    own = subject(family)
    growth = laws.Growth(SMALL, SamplingConfig(temperature=1.3))
    prompts = data.draw(laws.prompt_batches(own, SMALL.prompt))
    seen = look(own, prompts)
    assert isinstance(seen.images, SeenImages)
    number = data.draw(st.integers(0, 2**31))
    grown, again = (laws.grow(own, growth, given, number) for given in (prompts, seen))
    for name in ("thoughts", "thought_lengths", "answers", "answer_lengths"):
        np.testing.assert_array_equal(getattr(again, name), getattr(grown, name), name)
    laws.assert_close(again.answer_logprobs, grown.answer_logprobs, 1e-5)
    tree = data.draw(laws.trees(own, SMALL))
    packed = laws.compiled(pack_tree)(*tree)
    forward = laws.compiled(own.policy.forward)
    with_features = replace(packed.inputs, images=look(own, tree[0]).images)
    laws.assert_close(forward(own.params, with_features), forward(own.params, packed.inputs), 1e-5)


@pytest.mark.parametrize("family", WITH_IMAGES)
def test_what_has_been_seen_keeps_no_pixel(family: str) -> None:
    """And what is kept is smaller; the tower's parameters are all that features depend on."""
    own = subject(family)
    prompts = laws.random_prompts(own, np.random.default_rng(0), np.full(2, 13, np.int32), 13)
    seen = look(own, prompts).images
    floats = [x for x in jax.tree.leaves(seen.images) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert sum(x.size for x in floats) == 0
    assert own.policy.see is not None
    flat = flatten_dict(own.params, sep="/")
    read = own.policy.seen_by(own.params)
    assert 0 < len(read) < len(flat)
    other = {
        path: leaf if path in read else jnp.full_like(leaf, jnp.nan) for path, leaf in flat.items()
    }
    params = unflatten_dict(other, sep="/")
    found = laws.compiled(own.policy.see)(params, prompts.images).features
    for feature, expected in zip(found, seen.features, strict=True):
        laws.assert_close(feature, expected, 1e-5)


@functools.cache
def frozen_on(family: str, mesh: str) -> Parts:
    """A run on a mesh that trains all but the tower."""
    parts = parts_on(family, mesh)
    read = parts.policy.seen_by(parts_params(parts))
    return replace(parts, trained=lambda path: path not in read)


def step_of(family: str, mesh: str, *, seeing: bool) -> Any:
    """Rollout, new parameters and metrics of one step."""
    parts = frozen_on(family, mesh)
    see = make_see(parts) if seeing else lambda _, prompts: prompts
    grow, trainer = make_grow(parts, SHAPE, parts.config.sampling, seed=3), make_rl_trainer(parts)
    credit, pack = make_credit(parts), make_pack(parts)

    def step(state: Any, params: Any, prompts: PromptBatch, number: Any) -> Any:
        seen = see(params, prompts)
        rollout = grow(params, seen, number)
        rewards = (rollout.answers.sum(-1) % 7).astype(jnp.float32)
        advantages = credit(rewards, jnp.ones_like(rollout.finished))
        return rollout, *trainer.update(state, pack(seen, rollout, advantages))

    own = subject(family)
    lengths = np.full(BATCH, SHAPE.prompt, np.int32)
    prompts = laws.random_prompts(own, np.random.default_rng(5), lengths, SHAPE.prompt)
    state, params = trainer.start(own.params), trainer.start(own.params)
    given = (put_batch(prompts, parts.mesh), put_whole(np.uint32(1), parts.mesh))
    whole = join_params(params.params, params.frozen)
    return jax.tree.map(np.asarray, jax.jit(step)(state, whole, *given))


@pytest.mark.parametrize("family", ["qwen3_vl"])
@jax.numpy_dtype_promotion("standard")  # optax raises a float to an integer power
def test_a_step_of_seen_images_on_a_mesh_is_that_of_pixels_on_one_device(family: str) -> None:
    """DeepStack's further rows too."""
    rollout, state, metrics = step_of(family, "2x2x2 sharded", seeing=True)
    one, expected, measured = step_of(family, "one device", seeing=False)
    np.testing.assert_array_equal(rollout.answers, one.answers)
    np.testing.assert_array_equal(rollout.thoughts, one.thoughts)
    laws.assert_gradients_close(state.params, expected.params, 1e-5)
    laws.assert_close(metrics["loss"].total, measured["loss"].total, 1e-5)


def test_features_are_kept_where_nothing_of_the_tower_is_trained() -> None:
    """Not the tiny family's stem, nor a tower with adapters, nor one that is trained."""
    assert not keeps_features(parts_on("gemma3", "one device"))
    assert keeps_features(frozen_on("gemma3", "one device"))
    adapters = {
        own: adapted_policy(subject_of("gemma3").policy, LoraConfig(patterns=(own,)))
        for own in (r"blocks/query", r"vision/blocks/.*query")
    }
    kept = [
        keeps_features(
            replace(
                parts_on("gemma3", "one device"),
                policy=policy,
                trained=lambda path: path.startswith("lora/"),
            )
        )
        for policy in adapters.values()
    ]
    assert kept == [True, False]


def test_a_model_of_text_sees_nothing() -> None:
    """Also one whose family has images."""
    config = TinyConfig(layers=1, width=8, heads=1, kv_heads=1, head_size=8, mlp=8, images=0)
    assert tiny_policy(config, vocab_size=16, image_token=15).see is None
    assert subject_of("llama").policy.see is None


def test_prompts_without_images_are_as_they_were() -> None:
    parts = frozen_on("gemma3", "one device")
    prompts = PromptBatch(tokens=jnp.zeros((1, 4), jnp.int32), lengths=jnp.ones(1, jnp.int32))
    assert make_see(parts)({}, prompts) is prompts


@pytest.mark.parametrize(
    ("backbone", "trained", "kept"),
    [
        ("qwen2_5_vl_3b", "lora", True),
        ("qwen2_5_vl_3b", "full", True),
        ("gemma3_4b", "lora", True),
        ("gemma3_4b", "full", False),  # its projector is trained
    ],
)
def test_which_published_models_keep_them(backbone: str, trained: str, kept: bool) -> None:
    root = Path(gmma.__file__).parents[1]
    config = load_experiment(root / "experiments/trajectory.py", backbone=backbone, trained=trained)
    presets = Path(gmma.__file__).parent / "presets"
    model = replace(config.model, directory=presets / config.model.directory.name)
    mesh = parts_on("tiny", "one device").mesh
    assert keeps_features(plan_parts(replace(config, model=model), mesh)) == kept
