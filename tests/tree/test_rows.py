"""Ragged rows: which token stands where, how long rows are, and that no length changes a number."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import Mesh

from gmma.errors import UserError
from gmma.hardware.sharding import put_batch
from gmma.models.mesh_axes import ALL_AXES
from gmma.objective import token_logprobs
from gmma.run.programs import check_packing
from gmma.tree import TreeShape
from gmma.tree.pack import pack_tree
from gmma.tree.rows import (
    generated_slots,
    in_shortest_rows,
    packed_slots,
    row_choices,
    row_inputs,
    row_slots,
    to_packed,
)
from gmma.types import PackedTree, TreeRollout

SHAPE = TreeShape(9, 3, 4, thoughts=3, answers=2)  # 42 packed slots, 33 of them behind the prompt


@given(hnp.arrays(bool, (2, 11)))
def test_a_row_holds_the_tokens_in_order(valid: np.ndarray) -> None:
    """And what is found for them there goes back to their packed slots."""
    origin = np.asarray(packed_slots(jnp.asarray(valid), 11))
    for row, held in zip(origin, valid, strict=True):
        tokens = np.flatnonzero(held)
        assert row.tolist() == [*tokens, *[11] * (11 - len(tokens))]
    back = to_packed(jnp.asarray(origin + 1), jnp.asarray(origin), 11)
    np.testing.assert_array_equal(back, np.where(valid, np.arange(11) + 1, 0))


@given(st.integers(1, 6000), st.integers(2, 16) | st.integers(17, 9000), st.data())
def test_a_batch_has_the_shortest_rows_that_hold_it(
    packed: int, lengths: int, data: st.DataObject
) -> None:
    choices = row_choices(packed, lengths)
    step = 128 if packed >= 1024 else 8
    parts = {-(-packed * part // lengths) for part in range(1, lengths)}
    rounded = {-(-slots // step) * step for slots in parts}
    assert list(choices) == sorted(slots for slots in rounded if slots <= packed * 15 / 16)
    longest = data.draw(st.integers(1, packed))
    fit = [slots for slots in choices if longest <= slots]
    assert row_slots(longest, choices) == min(fit, default=None)


def short_tree(rng: np.random.Generator) -> laws.Tree:
    """Trees of SHAPE whose nodes are short, whatever comes of the generator."""
    subject, nodes = laws.tiny_subject(), (laws.BATCH, SHAPE.thoughts)
    leaves = (*nodes, SHAPE.answers)
    thoughts, answers = rng.integers(1, 3, nodes), rng.integers(1, 3, leaves)

    def floats(*size: int) -> np.ndarray:
        return rng.normal(size=size).astype(np.float32)

    rollout = TreeRollout(
        thoughts=laws.text_tokens(subject, rng, (*nodes, SHAPE.thought)),
        thought_lengths=thoughts.astype(np.int32),
        thought_sampled=thoughts.astype(np.int32),
        thought_logprobs=floats(*nodes, SHAPE.thought),
        closed=np.ones(nodes, bool),
        answers=laws.text_tokens(subject, rng, (*leaves, SHAPE.answer)),
        answer_lengths=answers.astype(np.int32),
        answer_logprobs=floats(*leaves, SHAPE.answer),
        finished=np.ones(leaves, bool),
    )
    lengths = rng.integers(5, 7, laws.BATCH).astype(np.int32)
    prompts = laws.random_prompts(subject, rng, lengths, SHAPE.prompt)
    return laws.Tree(prompts, rollout, laws.no_credit(rollout))


@pytest.mark.parametrize("slots", [24, 40], ids=["shorter than what is generated", "longer"])
def test_rows_of_any_length_give_the_same(slots: int) -> None:
    """24 slots are what the longest of such trees needs; log-probs and entropies, in chunks too."""
    subject, tree = laws.tiny_subject(), short_tree(np.random.default_rng(0))

    def score(tree: laws.Tree) -> list[tuple[jax.Array, jax.Array]]:
        packed = pack_tree(*tree)
        laid_out = (packed, replace(packed, row_slots=slots))
        return [
            token_logprobs(subject.policy, subject.params, layout, chunk_slots=chunk)
            for layout, chunk in zip(laid_out, (None, 5), strict=True)
        ]

    (static, entropy), (ragged, other) = laws.compiled(score)(tree)
    used = laws.used_slots(tree)
    used[:, : SHAPE.prompt] = False
    laws.assert_close(np.asarray(ragged)[used], np.asarray(static)[used], 1e-5)
    laws.assert_close(np.asarray(other)[used], np.asarray(entropy)[used], 1e-5)
    assert not np.asarray(ragged)[~used].any()


def test_the_longest_tree_says_how_long_the_rows_are() -> None:
    """On a mesh; a batch with a tree that needs nearly all slots keeps the static layout (0)."""
    mesh = Mesh(np.array(jax.devices()[:2]).reshape(2, 1, 1), ALL_AXES)
    tree = short_tree(np.random.default_rng(1))
    prompts = replace(tree.prompts, lengths=np.array([5, 6], np.int32))
    short = replace(
        tree.rollout,
        thought_lengths=np.array([[1, 1, 1], [2, 1, 1]], np.int32),
        answer_lengths=np.ones((2, 3, 2), np.int32),
    )
    full = replace(short, answer_lengths=np.array([[[1, 1]] * 3, [[4, 4]] * 3], np.int32))

    def slots(rollout: TreeRollout, lengths: int | None) -> int:
        def computed(*tree: Any) -> jax.Array:
            return in_shortest_rows(rows_of, pack_tree(*tree), lengths)

        tree = put_batch((prompts, rollout, laws.no_credit(rollout)), mesh)
        return int(jax.jit(computed)(*tree))

    def rows_of(packed: PackedTree) -> jax.Array:
        return jnp.asarray(packed.row_slots or 0, jnp.int32)

    assert [slots(short, lengths) for lengths in (8, 2, None)] == [16, 24, 0]
    assert [slots(full, lengths) for lengths in (8, 2, None)] == [0, 0, 0]


def test_no_device_needs_a_row_of_another() -> None:
    """Neither to lay out rows nor to bring values and their gradients back."""
    mesh = Mesh(np.array(jax.devices()[:2]).reshape(2, 1, 1), ALL_AXES)
    packed = pack_tree(*put_batch(short_tree(np.random.default_rng(2)), mesh))

    def there_and_back(packed: PackedTree, values: jax.Array) -> Any:
        slot, _, _ = generated_slots(packed, 24)
        found, pull_back = jax.vjp(lambda values: to_packed(values, slot, SHAPE.packed), values)
        return row_inputs(packed.inputs, 24), found, pull_back(found)

    values = put_batch(np.ones((laws.BATCH, 24), np.float32), mesh)
    compiled = jax.jit(there_and_back).lower(packed, values).compile().as_text()
    assert compiled is not None
    assert "all-" not in compiled
    assert "collective" not in compiled


def test_ragged_rows_are_refused_where_the_family_cannot() -> None:
    policy = laws.tiny_subject().policy
    unable = replace(policy, takes_rows=False)
    for packing, able in (("static", policy), ("static", unable), ("ragged", policy)):
        check_packing(packing, able)
    with pytest.raises(UserError, match="the model's family computes in the static layout alone"):
        check_packing("ragged", unable)
