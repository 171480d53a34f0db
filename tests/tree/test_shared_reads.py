"""What decoding reads: the caches of a prompt and a thought once for all rows that share them."""

import functools
from typing import Any

import hlo
import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from slices import devices_of, needs_libtpu

from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.models.cache import TreeCache, open_level
from gmma.models.policy import Policy
from gmma.rollout import grow_tree
from gmma.sampling import SamplingConfig
from gmma.tree import TreeShape
from gmma.types import Params, PromptBatch

VOCAB = len(laws.PIECES)


def policy_of(**sizes: Any) -> Policy:
    config = TinyConfig(kv_heads=2, image_pixels=4, patch_pixels=2, **sizes)
    return tiny_policy(config, vocab_size=VOCAB, image_token=laws.IMAGE)


def prompts_of(batch: int, slots: int) -> PromptBatch:
    return PromptBatch(tokens=np.ones((batch, slots), np.int32), lengths=np.full(batch, slots))


@functools.cache
def rollout_program(shape: TreeShape, batch: int) -> str:
    """Optimised HLO of a rollout with head size 16, two key heads and two layers."""
    policy = policy_of(layers=2, width=16, heads=4, head_size=16, mlp=16)

    def grow(params: Params, prompts: PromptBatch, seed: Any) -> Any:
        key = jax.random.key(seed)
        sampling, stops = SamplingConfig(), laws.stops_of(laws.CLOSING)
        return grow_tree(policy, params, prompts, key, shape=shape, sampling=sampling, stops=stops)

    params = jax.eval_shape(policy.init, jax.random.key(0))
    lowered = laws.compiled(grow).lower(params, prompts_of(batch, shape.prompt), np.uint32(0))
    return lowered.compile().as_text()


def test_a_rollout_repeats_no_prompt() -> None:
    """No array is as large as one layer's keys of the prompt, repeated for the K·M answers."""
    shape, batch = TreeShape(64, 4, 4, thoughts=4, answers=4), 2
    leaves = batch * shape.thoughts * shape.answers
    repeated = leaves * shape.prompt * 2 * 16
    assert hlo.largest_array(rollout_program(shape, batch)) < repeated
    flat = TreeShape(64, 4, 4, thoughts=1, answers=1)
    assert hlo.largest_array(rollout_program(flat, leaves)) >= repeated


def test_a_rollout_never_asks_the_host() -> None:
    text = rollout_program(TreeShape(64, 4, 4, thoughts=4, answers=4), 2)
    assert "while(" in text
    for word in ("callback", "infeed", "outfeed", " send(", " recv("):
        assert word not in text


def answer_step(policy: Policy, shape: TreeShape, batch: int, dtype: Any) -> tuple[Any, Any]:
    """A decode step of the answers' level with its logits, and its abstract arguments."""
    abstract = jax.eval_shape(policy.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), abstract)

    def grown(params: Params, prompts: PromptBatch) -> TreeCache:
        _, cache = policy.prefill(params, prompts)
        cache = open_level(cache, (shape.thoughts, 1), shape.thought)
        return open_level(cache, (shape.thoughts, shape.answers), shape.answer)

    def step(params: Params, tokens: Any, positions: Any, cache: TreeCache) -> Any:
        open_nodes = jnp.ones(tokens.shape, bool)
        hidden, new = policy.decode(params, tokens, positions, open_nodes, cache)
        return policy.unembed(params, hidden), new

    cache = jax.eval_shape(grown, params, prompts_of(batch, shape.prompt))
    rows = jax.ShapeDtypeStruct((batch, shape.thoughts, shape.answers), jnp.int32)
    return step, (params, rows, rows, cache)


@needs_libtpu
@pytest.mark.parametrize("heads", [16])
def test_a_step_reads_the_prompt_once(heads: int) -> None:
    """Compiled for v5e: from P = 1024 to 4096 a step of 16 rows reads as much more from memory as
    a step of one row, and that is the prompt's keys and values."""
    sizes = {"layers": 4, "width": 512, "mlp": 1024, "head_size": 128, "heads": heads}
    policy = policy_of(**sizes, dtype="bfloat16")

    def reads(device: Any, prompt: int, nodes: int) -> int:
        shape = TreeShape(prompt, 512, 128, thoughts=nodes, answers=nodes)
        step, arguments = answer_step(policy, shape, 8, jnp.bfloat16)
        place = SingleDeviceSharding(device)
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments
        )
        traced = jax.jit(step).trace(*placed)
        return hlo.hbm_reads(traced.lower(lowering_platforms=("tpu",)).compile().as_text())

    with devices_of("v5e:2x4") as (device, *_):
        one, sixteen = (reads(device, 4096, n) - reads(device, 1024, n) for n in (1, 4))
    keys_and_values = 3072 * 8 * 2 * 2 * 128 * 2
    assert abs(sixteen - one) < 0.1 * one
    assert abs(one - keys_and_values) < 0.1 * keys_and_values


def test_sixteen_rows_move_no_sixteen_steps() -> None:
    """On CPU a step of 16 rows reads and writes at most 3 × the bytes of a step of one row."""
    policy = policy_of(layers=4, width=128, heads=4, head_size=32, mlp=384)
    moved = []
    for nodes in (1, 4):
        shape = TreeShape(1024, 64, 16, thoughts=nodes, answers=nodes)
        step, arguments = answer_step(policy, shape, 2, jnp.float32)
        cost = jax.jit(step).lower(*arguments).compile().cost_analysis()
        moved.append(cost["bytes accessed"])
    one, sixteen = moved
    assert sixteen < 3 * one
