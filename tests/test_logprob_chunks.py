"""Log-probs a few slots at a time: no array of all logits, forward or backward."""

from typing import Any

import hlo
import jax
import laws
import pytest
from hypothesis import given

from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.objective import token_logprobs
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
