"""`grow_tree`: K thoughts from a prompt, M answers from each thought, as one pure function.

    prefill                  the prompt once
    K thoughts               read the prompt's keys; write a level of their own
    M answers a thought      read the prompt's and the thought's; write a level of their own

A decode step samples one token per open row and puts its keys into the deepest level. A level ends
when its slots are full or every row has ended. It is filled in stages, each a loop that reads the
slots up to its own end (`stages`): those behind it are empty.

No keys are copied when the tree branches: the rows of a level are folded onto the nodes they share
(`gmma/models/attention.py`). Layers without keys have a state a node, which is copied
(`gmma/models/cache.py`).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from gmma.models.cache import TreeCache, cut_places, open_level, seal_level, write_slot
from gmma.models.policy import Policy
from gmma.sampling import SamplingConfig, sample_token
from gmma.tree.stops import TreeStops
from gmma.types import Params, PromptBatch, TreeRollout, TreeShape, pytree

THOUGHTS, ANSWERS = "sample_thoughts", "sample_answers"  # names of the two levels in a profile
STAGE_SLOTS = 128  # of a stage, at least; a lane of a TPU is 128 wide
MOST_STAGES = 4  # each is a loop to be compiled


@pytree
class LevelRows:
    """The nodes of one level while they are being sampled."""

    slot: Int[Array, ""]  # the slot that the next step fills
    hidden: Float[Array, "B k m D"]  # of each row's last token; predicts the next
    tokens: Int[Array, "B k m s"]
    logprobs: Float[Array, "B k m s"]
    lengths: Int[Array, "B k m"]
    forced: Int[Array, "B k m"]  # closing tokens appended so far
    forcing: Bool[Array, "B k m"]  # the row ended without closing: append what remains
    state: Int[Array, "B k m"]  # of the stop automaton
    closed: Bool[Array, "B k m"]  # the policy itself wrote the stop string
    done: Bool[Array, "B k m"]


def grow_tree(
    policy: Policy,
    params: Params,
    prompts: PromptBatch,
    key: PRNGKeyArray,
    *,
    shape: TreeShape,
    sampling: SamplingConfig,
    stops: TreeStops,
) -> TreeRollout:
    """Sample a tree of `shape` for every prompt of the batch.

    The key is consumed: prompt b has the key folded with b, so its tree depends neither on its
    neighbours nor on how the batch is cut over devices (law L7).
    """
    keys = row_keys(key, prompts.tokens.shape[0])
    return grow_rows(policy, params, prompts, keys, shape=shape, sampling=sampling, stops=stops)


def row_keys(key: PRNGKeyArray, batch: int) -> Key[Array, "B"]:
    """Return a key per prompt: the given one, consumed, folded with the prompt's row."""
    rows = jnp.arange(batch, dtype=jnp.uint32)
    return jax.vmap(partial(jax.random.fold_in, key))(rows)


def grow_rows(
    policy: Policy,
    params: Params,
    prompts: PromptBatch,
    keys: Key[Array, "B"],
    *,
    shape: TreeShape,
    sampling: SamplingConfig,
    stops: TreeStops,
) -> TreeRollout:
    """Run `grow_tree` with a key per prompt, `keys[B]`, consumed: each device's part of it."""
    thought_keys, answer_keys = node_keys(keys, shape)
    hidden, cache = policy.prefill(params, prompts)
    sample = partial(
        sample_level, policy, params, sampling=sampling, table=stops.path.table, ends=stops.ends
    )

    nodes = (hidden.shape[0], shape.thoughts, 1)
    start = jnp.broadcast_to(prompts.lengths[:, None, None], nodes)
    end = stops.thought_end
    thoughts, cache = jax.named_scope(THOUGHTS)(sample)(
        jnp.broadcast_to(hidden[:, None, None], (*nodes, hidden.shape[-1])),
        start,
        open_level(cache, nodes[1:], shape.thought),
        thought_keys,
        state=jnp.zeros(nodes, jnp.int32),
        matched=end,
        closing=stops.closing,
    )
    cache = seal_level(cache, thoughts.lengths)

    nodes = (nodes[0], shape.thoughts, shape.answers)
    answers, _ = jax.named_scope(ANSWERS)(sample)(
        jnp.broadcast_to(thoughts.hidden, (*nodes, hidden.shape[-1])),
        jnp.broadcast_to(start + thoughts.lengths, nodes),
        open_level(cache, nodes[1:], shape.answer),
        answer_keys,
        # A token may close the thought and begin the answer: its rest belongs to every answer.
        state=jnp.broadcast_to(jnp.where(thoughts.closed, thoughts.state, end), nodes),
        matched=stops.path.matched,
        closing=stops.closing[:0],
    )
    return TreeRollout(
        thoughts=thoughts.tokens[:, :, 0],
        thought_lengths=thoughts.lengths[:, :, 0],
        thought_sampled=(thoughts.lengths - thoughts.forced)[:, :, 0],
        thought_logprobs=thoughts.logprobs[:, :, 0],
        closed=thoughts.closed[:, :, 0],
        answers=answers.tokens,
        answer_lengths=answers.lengths,
        answer_logprobs=answers.logprobs,
        finished=answers.closed,
    )


def node_keys(
    keys: Key[Array, "B"], shape: TreeShape
) -> tuple[Key[Array, "B K 1"], Key[Array, "B K M"]]:
    """Return a key per thought `[B K 1]` and per answer `[B K M]`; `keys[B]` is consumed.

    Node (i, j) has the same key whatever K and M are, so that sweeps over them share their samples.
    """

    def fold_range(key: PRNGKeyArray, count: int) -> Key[Array, "count"]:
        return jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count, dtype=jnp.uint32))

    def of_prompt(key: PRNGKeyArray) -> tuple[Key[Array, "K 1"], Key[Array, "K M"]]:
        for_thoughts, for_answers = jax.random.split(key)
        thoughts = fold_range(for_thoughts, shape.thoughts)[:, None]
        branches = fold_range(for_answers, shape.thoughts)
        return thoughts, jax.vmap(lambda branch: fold_range(branch, shape.answers))(branches)

    return jax.vmap(of_prompt)(keys)


def sample_level(
    policy: Policy,
    params: Params,
    hidden: Float[Array, "B k m D"],
    start: Int[Array, "B k m"],
    cache: TreeCache,
    keys: Key[Array, "B k m"],
    *,
    sampling: SamplingConfig,
    table: Int[Array, "states V"],
    state: Int[Array, "B k m"],
    matched: int,
    closing: Int[Array, "C"],
    ends: Bool[Array, "V"],
) -> tuple[LevelRows, TreeCache]:
    """Fill the deepest level of the cache, from the parents' last hidden states.

    `start` is the path position of the first slot, `state` that of the stop automaton there. A row
    closes in a state of `matched` or more, after one token at the earliest. The loops leave early
    when all rows are done.
    """
    slots = cache.levels[-1].slots.valid.shape[-1]

    def unfinished(end: int, carry: tuple[LevelRows, TreeCache]) -> Bool[Array, ""]:
        rows, _ = carry
        return (rows.slot < end) & ~rows.done.all()

    def step(end: int, carry: tuple[LevelRows, TreeCache]) -> tuple[LevelRows, TreeCache]:
        rows, cache = carry
        token, logprob = draw_tokens(policy, params, rows.hidden, keys, rows.slot, sampling)
        open_rows = ~rows.done
        rows = append(
            rows, token, logprob, table=table, matched=matched, closing=closing, ends=ends
        )
        written = jax.lax.dynamic_index_in_dim(rows.tokens, rows.slot, axis=3, keepdims=False)
        positions = start + rows.slot
        readable = cut_places(cache, end)
        hidden, new = policy.decode(params, written, positions, open_rows, readable)
        cache = write_slot(cache, rows.slot, positions, new)
        hidden = jnp.where(open_rows[..., None], hidden, rows.hidden)
        return replace(rows, hidden=hidden, slot=rows.slot + 1), cache

    carry = empty_rows(hidden, state, slots), cache
    for start_slot, end in stages(slots):
        with jax.named_scope(f"slots_{start_slot}_to_{end}"):  # `gmma plan` counts their turns
            carry = jax.lax.while_loop(partial(unfinished, end), partial(step, end), carry)
    return carry


def stages(slots: int) -> Sequence[tuple[int, int]]:
    """Cut a level's slots into those of its stages: (first slot, behind the last).

    The last has half as many slots as the others, or up to half as many more.

    >>> stages(512), stages(200), stages(2048)
    ([(0, 128), (128, 256), (256, 384), (384, 512)], [(0, 128), (128, 200)], [(0, 512), ...])
    """
    each = max(STAGE_SLOTS, -(-slots // (MOST_STAGES * STAGE_SLOTS)) * STAGE_SLOTS)
    starts = range(0, max(slots - each // 2, 1), each)
    return list(zip(starts, (*starts[1:], slots), strict=True))


def empty_rows(
    hidden: Float[Array, "B k m D"], state: Int[Array, "B k m"], slots: int
) -> LevelRows:
    """Return the rows before their first token."""
    nodes = hidden.shape[:3]
    zeros, no = jnp.zeros(nodes, jnp.int32), jnp.zeros(nodes, bool)
    return LevelRows(
        slot=jnp.zeros((), jnp.int32),
        hidden=hidden,
        tokens=jnp.zeros((*nodes, slots), jnp.int32),
        logprobs=jnp.zeros((*nodes, slots), np.promote_types(hidden.dtype, np.float32)),
        lengths=zeros,
        forced=zeros,
        forcing=no,
        state=state,
        closed=no,
        done=no,
    )


def draw_tokens(
    policy: Policy,
    params: Params,
    hidden: Float[Array, "B k m D"],
    keys: Key[Array, "B k m"],
    slot: Int[Array, ""],
    sampling: SamplingConfig,
) -> tuple[Int[Array, "B k m"], Float[Array, "B k m"]]:
    """Return one token per row and its log-prob.

    Slot t of a node uses the node's key folded with t.
    """

    def draw(key: PRNGKeyArray, logits: Float[Array, "V"]) -> tuple[Array, Array]:
        return sample_token(jax.random.fold_in(key, slot), logits, sampling)

    return jax.vmap(jax.vmap(jax.vmap(draw)))(keys, policy.unembed(params, hidden))


def append(
    rows: LevelRows,
    token: Int[Array, "B k m"],
    logprob: Float[Array, "B k m"],
    *,
    table: Int[Array, "states V"],
    matched: int,
    closing: Int[Array, "C"],
    ends: Bool[Array, "V"],
) -> LevelRows:
    """Put a token at the current slot of every open row and see which rows end.

    A row ends when its text contains the stop string. One that meets an end-of-text token, or has
    only room left for the closing tokens, is closed by force instead: from the next slot on it
    takes the closing tokens, with log-prob 0.
    """
    forced_count, slots = closing.shape[0], rows.tokens.shape[-1]
    open_rows = ~rows.done
    forcing = open_rows & (rows.forcing | (rows.slot >= slots - forced_count))
    if forced_count:
        forced_token = closing[jnp.minimum(rows.forced, forced_count - 1)]
        token = jnp.where(forcing, forced_token, token)
    chosen = open_rows & ~forcing
    state = jnp.where(chosen, table[rows.state, token], rows.state)
    closed = rows.closed | (chosen & (state >= matched))
    forced = rows.forced + forcing.astype(jnp.int32)
    forcing |= chosen & ends[token] & ~closed

    def put(array: Array, column: Array) -> Array:
        column = jnp.where(open_rows, column, 0)[..., None]
        return jax.lax.dynamic_update_slice_in_dim(array, column, rows.slot, axis=3)

    return replace(
        rows,
        tokens=put(rows.tokens, token),
        logprobs=put(rows.logprobs, jnp.where(chosen, logprob, 0)),
        lengths=rows.lengths + open_rows.astype(jnp.int32),
        forced=forced,
        forcing=forcing,
        state=state,
        closed=closed,
        done=rows.done | closed | (forcing & (forced == forced_count)),
    )
