"""The tiny family: isolation by gradient, decoding from a forked cache, images, its config."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from hypothesis import given

from gmma.errors import UserError
from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.hardware.sharding import RULES
from gmma.models.cache import open_level, write_slot
from gmma.models.policy import prompt_inputs
from gmma.objective import token_logprobs
from gmma.tree import TreeShape
from gmma.tree.layout import node_of_slot, parent_of_node
from gmma.tree.pack import pack_tree
from gmma.types import PromptBatch

TEXT = TreeShape(5, 3, 2, thoughts=2, answers=2)  # 19 slots, fewer than there are tokens


@functools.cache
def sensitivity() -> Callable[..., Any]:
    """(params, tree) → ‖∂ Σ log-prob of node n / ∂ embedding of token v‖, `[nodes, V]`."""
    subject = laws.tiny_subject()
    nodes = jnp.asarray(np.eye(len(parent_of_node(TEXT)))[node_of_slot(TEXT)].T, jnp.float32)

    def of_tree(params: Any, tree: laws.Tree) -> Any:
        packed = pack_tree(*tree)

        def node_logprobs(embedding: Any) -> Any:
            whole = {"params": {**params["params"], "embedding": embedding}}
            found, _ = token_logprobs(subject.policy, whole, packed)
            return nodes @ jnp.where(packed.trained, found, 0)[0]

        jacobian = jax.jacrev(node_logprobs)(params["params"]["embedding"])
        return jnp.linalg.norm(jacobian, axis=-1)

    return laws.compiled(of_tree)


@laws.examples(10)
@given(laws.trees(laws.Subject(laws.tiny_subject().policy, None), TEXT, batch=1))
def test_no_leak_by_gradient(tree: laws.Tree) -> None:
    """Every slot holds a token of its own, so a row of the table is a slot. A node's log-prob
    depends on the tokens above it and on its own but the last; on no other to the last bit."""
    own_token = np.arange(TEXT.packed, dtype=np.int32)
    prompt, thought, answer = np.split(own_token, [TEXT.prompt, TEXT.answers_start])
    tree = laws.Tree(
        laws.replace(tree.prompts, tokens=prompt[None]),
        laws.replace(
            tree.rollout, thoughts=thought.reshape(1, 2, 3), answers=answer.reshape(1, 2, 2, 2)
        ),
        tree.advantages,
    )
    norms = np.asarray(sensitivity()(laws.tiny_subject().params, tree))
    reads = np.zeros_like(norms, bool)
    for b, i, j in np.ndindex(tree.rollout.answer_lengths.shape):
        path = list(laws.slots_of_path(tree, b, i, j))
        slots, segments = np.array([[slot, segment] for _, slot, segment in path]).T
        last_of_thought = slots[segments == 1][-1]  # that is trained
        reads[1 + i, slots[slots < last_of_thought]] = True
        reads[1 + TEXT.thoughts + i * TEXT.answers + j, slots[:-1]] = True
    np.testing.assert_array_equal(norms > 0, reads)


def test_fork_equals_repeat() -> None:
    """Six rows decoded from one forked prompt equal six prompts with the token behind them."""
    subject = laws.tiny_subject()
    policy, rng = subject.policy, np.random.default_rng(0)
    lengths = np.array([6, 5], np.int32)
    prompts = laws.random_prompts(subject, rng, lengths, 8)
    tokens = laws.text_tokens(subject, rng, (2, 2, 3))

    def forked(params: Any, prompts: PromptBatch, tokens: Any) -> Any:
        _, cache = policy.prefill(params, prompts)
        cache = open_level(cache, (2, 3), 4)
        positions = jnp.broadcast_to(prompts.lengths[:, None, None], tokens.shape)
        every = jnp.ones(tokens.shape, bool)
        first, new = policy.decode(params, tokens, positions, every, cache)
        cache = write_slot(cache, jnp.asarray(0, jnp.int32), positions, new)
        second, _ = policy.decode(params, tokens, positions + 1, every, cache)
        return jnp.stack([first, second], axis=3)  # [B k m 2 D]

    repeated = jax.tree.map(lambda x: np.repeat(x, 6, axis=0), prompts)
    rows = list(zip(repeated.tokens, repeated.lengths, tokens.ravel(), strict=True))
    for row, length, token in rows:
        row[length : length + 2] = token
    longer = laws.replace(repeated, lengths=repeated.lengths + 2)
    plain = laws.compiled(lambda params, batch: policy.forward(params, prompt_inputs(batch)))
    hidden = np.asarray(plain(subject.params, longer))
    expected = [row[length : length + 2] for row, (_, length, _) in zip(hidden, rows, strict=True)]
    found = laws.compiled(forked)(subject.params, prompts, tokens)
    laws.assert_close(np.asarray(found).reshape(12, 2, -1), np.stack(expected), 1e-5)


def test_every_parameter_names_its_axes() -> None:
    """As many logical names as axes, each known to the table."""
    policy = laws.tiny_subject().policy
    is_spec = lambda x: isinstance(x, jax.sharding.PartitionSpec)  # noqa: E731
    specs = jax.tree.leaves(policy.logical_axes(), is_leaf=is_spec)
    params = jax.tree.leaves(laws.tiny_subject().params)
    for spec, leaf in zip(specs, params, strict=True):
        assert len(spec) == leaf.ndim
        assert set(spec) <= set(RULES)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="heads = 4 is not a multiple of kv_heads = 3"):
        TinyConfig(heads=4, kv_heads=3)
    with pytest.raises(UserError, match="image_pixels = 10 is not a multiple"):
        TinyConfig(image_pixels=10, patch_pixels=4)


def test_what_fills_up_a_row_without_an_image_is_not_seen() -> None:
    """A prompt of text beside one with an image equals the prompt alone in a model without."""
    subject = laws.tiny_subject()
    rng = np.random.default_rng(3)
    prompts = laws.random_prompts(subject, rng, np.array([8, 6], np.int32), 8)
    text = laws.text_tokens(subject, rng, (8,))
    tokens = np.array(prompts.tokens)
    tokens[1] = text
    images = np.array(prompts.images)
    mixed = laws.replace(prompts, tokens=tokens, images=images)
    images_changed = images.copy()
    images_changed[1] = 1.0 - images_changed[1]
    forward = laws.compiled(lambda p: subject.policy.forward(subject.params, prompt_inputs(p)))
    found = forward(mixed)
    np.testing.assert_array_equal(found, forward(laws.replace(mixed, images=images_changed)))
    alone = laws.replace(mixed, images=None)
    np.testing.assert_allclose(found[1], forward(alone)[1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[0], forward(alone)[0])


def test_a_model_of_text_has_no_eyes() -> None:
    config = TinyConfig(layers=1, width=8, heads=2, kv_heads=1, head_size=4, mlp=8, images=0)
    policy = tiny_policy(config, vocab_size=11, image_token=3)
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    assert {"stem", "place"}.isdisjoint(shapes["params"])
    assert jax.tree.structure(shapes) == jax.tree.structure(
        policy.logical_axes(), is_leaf=lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec)
    )
    with pytest.raises(UserError, match="images = -1"):
        TinyConfig(images=-1)
