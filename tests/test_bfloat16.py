"""Activations in bfloat16; parameters, gradients, norms, softmax and log-probs in float32."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from families import subject_of
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from gmma.config import ObjectiveConfig
from gmma.families.gemma3.network import gemma3_policy
from gmma.families.qwen2_5_vl.network import qwen_policy
from gmma.families.qwen3_vl.network import qwen3_vl_policy
from gmma.families.tiny.network import tiny_policy
from gmma.objective import policy_loss, segment_metrics, token_weights
from gmma.sampling import SamplingConfig
from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree
from gmma.types import Metrics, Params

GROWTH = laws.Growth(TreeShape(13, 4, 3, thoughts=2, answers=2), SamplingConfig())
POLICIES = {
    "gemma3": gemma3_policy,
    "qwen2_5_vl": qwen_policy,
    "qwen3_vl": qwen3_vl_policy,
    "qwen3_5": qwen3_vl_policy,
}
# Softmax, norms and log-probs are made of these; activation functions are not.
WIDE = {"exp", "log", "rsqrt", "reduce_max", "cumsum"}


@cache
def subject(family: str) -> laws.Subject:
    """A family that computes in bfloat16, its parameters in float32."""
    plain = laws.tiny_subject() if family == "tiny" else subject_of(family)
    config = replace(plain.policy.config, dtype="bfloat16")
    if family == "tiny":
        policy = tiny_policy(config, vocab_size=len(laws.PIECES), image_token=laws.IMAGE)
    else:
        policy = POLICIES[family](config)
    return replace(plain, policy=policy)


def loss_of(family: str) -> Any:
    """(params, tree) → loss, metrics."""

    def loss(params: Params, tree: laws.Tree) -> tuple[Any, Metrics]:
        packed, objective = pack_tree(*tree), ObjectiveConfig()
        weights = token_weights(packed.trained, GROWTH.shape, objective)
        value, terms = policy_loss(subject(family).policy, params, packed, weights, objective)
        return value, segment_metrics(terms, packed)

    return loss


def grown(family: str) -> laws.Tree:
    """A tree of the policy's own, with advantages of both signs."""
    rng = np.random.default_rng(0)
    prompts = laws.random_prompts(subject(family), rng, np.array([13, 11], np.int32), 13)
    rollout = laws.grow(subject(family), GROWTH, prompts, 0)
    credit = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), laws.no_credit(rollout)
    )
    return laws.Tree(prompts, rollout, credit)


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Every equation, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, (Jaxpr, ClosedJaxpr))
        ):
            if isinstance(inner, ClosedJaxpr):
                yield from equations(inner.jaxpr)
            elif isinstance(inner, Jaxpr):
                yield from equations(inner)


@pytest.mark.parametrize(
    "family",
    ["tiny", "gemma3", "qwen2_5_vl", pytest.param("qwen3_vl", marks=pytest.mark.slow), "qwen3_5"],
)
def test_what_must_be_wide_is(family: str) -> None:
    """No norm, softmax or log-prob in bfloat16, and the gap to the sampler is a finite metric."""
    held, tree = subject(family), grown(family)
    assert tree.rollout.thought_logprobs.dtype == np.float32
    loss = loss_of(family)
    program = laws.compiled(jax.value_and_grad(loss, has_aux=True))
    (value, metrics), gradient = program(held.params, tree)
    assert value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((held.params, gradient))} == {
        np.dtype("float32")
    }
    name = "sampling/sampling_logp_difference/mean"
    gaps = [metrics[f"{segment}/{name}"] for segment in ("thought", "answer")]
    assert all(gap.total / gap.count < 0.1 for gap in gaps)
    assert sum(gap.total for gap in gaps) > 0

    everything = list(equations(jax.make_jaxpr(loss)(held.params, tree).jaxpr))
    narrow = {equation.primitive.name for equation in everything if takes_bfloat16(equation)}
    assert "dot_general" in narrow
    assert not narrow & WIDE
    hidden = jnp.zeros((1, 2, held.policy.config.width), jnp.bfloat16)
    head = equations(jax.make_jaxpr(held.policy.unembed)(held.params, hidden).jaxpr)
    products = [equation for equation in head if equation.primitive.name == "dot_general"]
    assert [(takes_bfloat16(e), e.outvars[0].aval.dtype) for e in products] == [(True, np.float32)]


def takes_bfloat16(equation: JaxprEqn) -> bool:
    kinds = [getattr(value.aval, "dtype", None) for value in equation.invars]
    return any(kind == jnp.bfloat16 for kind in kinds if kind is not None)
