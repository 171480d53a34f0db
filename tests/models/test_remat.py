"""Rematerialisation changes what is kept, and no number."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import laws
import pytest
from families import subject_of
from hypothesis import given
from hypothesis import strategies as st
from jax.ad_checkpoint import print_saved_residuals

from gmma.config import ObjectiveConfig
from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.models.layers import Remat, save_all_but_weights
from gmma.objective import policy_loss, token_weights
from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree

SHAPE = TreeShape(13, 4, 3, thoughts=2, answers=2)
LONG = TreeShape(32, 16, 16, thoughts=2, answers=2)
POLICIES: tuple[Remat, ...] = get_args(Remat)


@cache
def subject_with(family: str, remat: Remat) -> laws.Subject:
    if family != "tiny":
        return subject_of(family, remat=remat)
    plain = laws.tiny_subject()
    config = replace(plain.policy.config, remat=remat)
    policy = tiny_policy(config, vocab_size=plain.policy.vocab_size, image_token=laws.IMAGE)
    return replace(plain, policy=policy)


@cache
def plain_subject(family: str) -> laws.Subject:
    """To be computed by a program of its own."""
    return replace(subject_with(family, "none"))


@pytest.mark.parametrize(
    ("family", "remat"),
    [
        ("tiny", "none"),
        ("tiny", "dots"),
        ("tiny", "dots_except_mlp"),
        ("gemma3", "full"),
        ("gemma3", "dots_except_up"),
        ("qwen2_5_vl", "full"),
        ("qwen2_5_vl", "none"),
    ],
)
@laws.examples(3)
@given(st.data())
def test_same_loss_and_gradients(family: str, remat: Remat, data: st.DataObject) -> None:
    """As those of the same network when nothing is told of its layers."""
    plain, subject = plain_subject(family), subject_with(family, remat)
    tree = data.draw(laws.trees(plain, SHAPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn, "remat", lambda block, **_: block)
        before = laws.evaluate(plain, tree, *laws.zeros(plain, tree))
    after = laws.evaluate(subject, tree, *laws.zeros(subject, tree))
    laws.assert_close(after.loss, before.loss, 1e-6)
    laws.assert_close(after.logprobs, before.logprobs, 1e-5)
    laws.assert_gradients_close(after.gradient, before.gradient, 1e-5)


def temporary_bytes(remat: Remat, tree: laws.Tree) -> int:
    """What the compiler allocates for the gradient of six layers, beside arguments and results."""
    config = TinyConfig(
        layers=6, width=32, heads=4, kv_heads=2, head_size=8, mlp=96, image_pixels=4, patch_pixels=2
    )
    policy = tiny_policy(
        replace(config, remat=remat), vocab_size=len(laws.PIECES), image_token=laws.IMAGE
    )

    def loss(params: Any, tree: laws.Tree) -> Any:
        packed, objective = pack_tree(*tree), ObjectiveConfig()
        weights = token_weights(packed.trained, LONG, objective)
        return policy_loss(policy, params, packed, weights, objective)

    params = jax.eval_shape(policy.init, jax.random.key(0))
    gradient = laws.compiled(jax.grad(loss, has_aux=True))
    return gradient.lower(params, tree).compile().memory_analysis().temp_size_in_bytes


def test_a_weight_that_was_cast_is_not_kept_and_what_was_computed_is(capsys: Any) -> None:
    def block(kernel: jax.Array, x: jax.Array) -> jax.Array:
        wide = (x @ kernel.astype(x.dtype)).astype(jnp.float32)
        return jnp.sin(wide.astype(x.dtype))

    def kept(function: Any) -> str:
        print_saved_residuals(function, jnp.ones((8, 8)), jnp.ones((2, 3, 8), jnp.bfloat16))
        return str(capsys.readouterr().out)

    assert "bf16[8,8] output of convert_element_type" in kept(block)
    named = kept(jax.checkpoint(block, policy=save_all_but_weights))
    assert "bf16[8,8] output" not in named
    assert "bf16[2,3,8] output" in named  # no wider than it was used


@laws.examples(1)
@given(laws.trees(laws.tiny_subject(), LONG))
def test_the_more_is_computed_again_the_less_is_kept(tree: laws.Tree) -> None:
    sizes = {remat: temporary_bytes(remat, tree) for remat in POLICIES}
    assert sizes["full"] < 0.5 * sizes["none"]
    assert all(sizes[more] > sizes[less] for more, less in pairwise(POLICIES)), sizes
