"""Log-probs a few slots at a time: no array of all logits, forward or backward."""

from dataclasses import replace
from typing import Any

import hlo
import jax
import laws
import pytest
from hypothesis import given

from gmma.bench.programs import full_lengths, random_packed
from gmma.config import MeshConfig
from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.hardware.sharding import make_mesh, param_shardings, placed_policy, put_batch
from gmma.objective import token_logprobs
from gmma.plan.hlo import HloProgram
from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree

SHAPE = TreeShape(6, 12, 8, thoughts=2, answers=2)
SLOTS = SHAPE.packed - SHAPE.prompt  # whose logits are wanted
CONFIG = TinyConfig(
    layers=1, width=8, heads=2, kv_heads=1, head_size=4, mlp=8, image_pixels=4, patch_pixels=2
)
VOCAB = 512


def program(tree: laws.Tree, chunk_slots: int | None) -> str:
    """Optimised HLO of log-probs and their gradient."""
    policy = tiny_policy(CONFIG, vocab_size=VOCAB, image_token=laws.IMAGE)

    def total(params: Any, tree: laws.Tree) -> Any:
        logprobs, entropy = token_logprobs(
            policy, params, pack_tree(*tree), chunk_slots=chunk_slots
        )
        return logprobs.sum(), entropy

    params = jax.eval_shape(policy.init, jax.random.key(0))
    gradient = laws.compiled(jax.value_and_grad(total, has_aux=True))
    return gradient.lower(params, tree).compile().as_text()


@pytest.mark.parametrize("chunk_slots", [7, 10])  # of 56: the last of 10 is shorter
@laws.examples(1)
@given(laws.trees(laws.tiny_subject(), SHAPE))
def test_no_array_of_all_logits(chunk_slots: int, tree: laws.Tree) -> None:
    """The largest array is a chunk's logits, [chunk·B, V]; without chunks it is [B, S − P, V]."""
    assert hlo.largest_array(program(tree, chunk_slots)) == laws.BATCH * chunk_slots * VOCAB
    assert hlo.largest_array(program(tree, None)) == laws.BATCH * SLOTS * VOCAB


def sent(chunk_slots: int | None) -> dict[str, float]:
    """Bytes that a device sends for log-probs and their gradient, parameters cut over eight."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    plain = tiny_policy(replace(CONFIG, images=0, width=16), vocab_size=VOCAB, image_token=VOCAB)
    policy = placed_policy(plain, mesh)
    lengths = full_lengths(SHAPE, 8)
    packed = put_batch(random_packed(jax.random.key(0), SHAPE, lengths, VOCAB), mesh)
    shapes = jax.eval_shape(plain.init, jax.random.key(0))
    where = param_shardings(plain, shapes, mesh)
    params = jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), shapes, where
    )

    def total(params: Any, packed: Any) -> Any:
        return token_logprobs(policy, params, packed, chunk_slots=chunk_slots)[0].sum()

    gradient = jax.jit(jax.grad(total), out_shardings=where)
    return dict(HloProgram(gradient.lower(params, packed).compile().as_text()).cost.sent)


def test_the_head_is_gathered_once_for_all_chunks() -> None:
    """Fourteen chunks gather what one does. Its gradient, if it has one, each still sums."""
    whole, chunked = sent(None), sent(4)
    assert whole["all-gather"] > VOCAB * 16 * 4 * 7 / 8  # the head at least
    assert chunked["all-gather"] <= 1.05 * whole["all-gather"]
