"""`pack_tree`: from a rollout to the one row per prompt that the update reads."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from gmma.tree.layout import join_levels, node_of_slot
from gmma.types import Advantages, PackedTree, PromptBatch, TreeInputs, TreeRollout, TreeShape


def shape_of(prompts: PromptBatch, rollout: TreeRollout) -> TreeShape:
    """Return the static shape of a rollout, read off its arrays."""
    _, thoughts, answers, answer = rollout.answers.shape
    return TreeShape(
        prompt=prompts.tokens.shape[1],
        thought=rollout.thoughts.shape[2],
        answer=answer,
        thoughts=thoughts,
        answers=answers,
    )


def pack_tree(
    prompts: PromptBatch,
    rollout: TreeRollout,
    advantages: Advantages,
    *,
    drop_unclosed: bool = False,
    mask_truncated: bool = False,
) -> PackedTree:
    """Lay out every token of every tree once, with its position, its predecessor and its credit.

    Tokens that the policy chose are trained; forced closing tokens never are. `drop_unclosed` takes
    the loss off a thought that did not close by itself and off its answers; `mask_truncated`
    takes it off thoughts and answers that ran out of slots (TRL's `mask_truncated_completions`).
    """
    shape = shape_of(prompts, rollout)
    kept_thought = rollout.closed | (not (drop_unclosed or mask_truncated))
    kept_answer = (rollout.closed | (not drop_unclosed))[..., None] & (
        rollout.finished | (not mask_truncated)
    )
    no_prompt = jnp.zeros(prompts.tokens.shape, bool)
    return PackedTree(
        inputs=tree_inputs(prompts, rollout, shape),
        predecessor=predecessors(prompts, rollout, shape),
        trained=join_levels(
            no_prompt,
            below(rollout.thought_sampled, shape.thought) & kept_thought[..., None],
            below(rollout.answer_lengths, shape.answer) & kept_answer[..., None],
        ),
        advantages=join_levels(
            no_prompt.astype(advantages.thought.dtype),
            jnp.broadcast_to(advantages.thought[..., None], rollout.thoughts.shape),
            jnp.broadcast_to(advantages.answer[..., None], rollout.answers.shape),
        ),
        sampler_logprobs=join_levels(
            no_prompt.astype(rollout.thought_logprobs.dtype),
            rollout.thought_logprobs,
            rollout.answer_logprobs,
        ),
    )


def tree_inputs(prompts: PromptBatch, rollout: TreeRollout, shape: TreeShape) -> TreeInputs:
    """Tokens, path positions and validity in packed order."""
    thought_start = prompts.lengths[:, None, None]
    answer_start = (prompts.lengths[:, None] + rollout.thought_lengths)[..., None, None]
    return TreeInputs(
        tokens=join_levels(prompts.tokens, rollout.thoughts, rollout.answers),
        positions=join_levels(
            slots(prompts.tokens.shape),
            thought_start + slots(rollout.thoughts.shape),
            answer_start + slots(rollout.answers.shape),
        ),
        valid=join_levels(
            below(prompts.lengths, shape.prompt),
            below(rollout.thought_lengths, shape.thought),
            below(rollout.answer_lengths, shape.answer),
        ),
        images=prompts.images,
        shape=shape,
    )


def predecessors(prompts: PromptBatch, rollout: TreeRollout, shape: TreeShape) -> Int[Array, "B S"]:
    """Return the packed slot whose hidden state predicts each token.

    Within a node it is the slot before. A thought begins after the last token of its prompt, an
    answer after the last token of its thought: not the last *slot*, so it depends on the lengths.
    """
    batch = prompts.lengths.shape[0]
    before = slots((batch, shape.packed)) - 1
    first = first_slots(shape)
    prompt_end = prompts.lengths - 1
    thought_end = first[None, 1 : 1 + shape.thoughts] + rollout.thought_lengths - 1
    parent_end = jnp.concatenate(
        [
            jnp.zeros((batch, 1), jnp.int32),
            jnp.broadcast_to(prompt_end[:, None], (batch, shape.thoughts)),
            jnp.repeat(thought_end, shape.answers, axis=1),
        ],
        axis=1,
    )
    starts = np.isin(np.arange(shape.packed), first)
    return jnp.where(starts[None], parent_end[:, node_of_slot(shape)], before)


def first_slots(shape: TreeShape) -> Int[np.ndarray, "nodes"]:
    """Return the first packed slot of every node."""
    k, m = shape.thoughts, shape.answers
    sizes = [shape.prompt] + [shape.thought] * k + [shape.answer] * (k * m)
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)


def slots(shape: tuple[int, ...]) -> Int[Array, "*nodes count"]:
    """Return 0, 1, … along the last axis."""
    return jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)


def below(lengths: Int[Array, "*nodes"], count: int) -> Bool[Array, "*nodes count"]:
    """Return which of `count` slots stand before each node's length."""
    return slots((*lengths.shape, count)) < lengths[..., None]
