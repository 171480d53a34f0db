"""Laws L1–L4 as checks that any family can be put through; prompts may hold images.

Flat sequences are the reference: prompt, thought and answer in one row without a gap, through the
plain forward pass, which knows nothing of trees.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmma.models.policy import Policy
from gmma.objective import token_logprobs
from gmma.sampling import SamplingConfig
from gmma.tree.layout import TreeShape, prompt_only, split_levels
from gmma.tree.pack import pack_tree
from gmma.tree.rollout import grow_tree
from gmma.tree.stops import tree_stops
from gmma.types import Advantages, PackedTree, Params, PromptBatch, TreeInputs, TreeRollout

QUICK: Any = {"xla_backend_optimization_level": 0}  # compilation is nearly all that a law costs


@dataclass(frozen=True, kw_only=True)
class Case:
    """One family with parameters and prompts, and a tree of random tokens over them."""

    policy: Policy
    params: Params
    prompts: PromptBatch
    rollout: TreeRollout
    advantages: Advantages
    shape: TreeShape


def make_case(
    policy: Policy,
    params: Params,
    prompts: PromptBatch,
    *,
    tree: tuple[int, int, int, int],
    seed: int,
    words: int,
) -> Case:
    """`tree` is (K, M, T, A); thoughts and answers hold random tokens below `words`."""
    k, m, t, a = tree
    rng = np.random.default_rng(seed)
    batch = prompts.tokens.shape[0]
    thought_lengths = rng.integers(1, t + 1, (batch, k)).astype(np.int32)
    answer_lengths = rng.integers(1, a + 1, (batch, k, m)).astype(np.int32)
    rollout = TreeRollout(
        thoughts=rng.integers(3, words, (batch, k, t)).astype(np.int32),
        thought_lengths=thought_lengths,
        thought_sampled=thought_lengths,
        thought_logprobs=np.zeros((batch, k, t), np.float32),
        closed=np.ones((batch, k), bool),
        answers=rng.integers(3, words, (batch, k, m, a)).astype(np.int32),
        answer_lengths=answer_lengths,
        answer_logprobs=np.zeros((batch, k, m, a), np.float32),
        finished=np.ones((batch, k, m), bool),
    )
    advantages = Advantages(
        thought=rng.normal(size=(batch, k)).astype(np.float32),
        answer=rng.normal(size=(batch, k, m)).astype(np.float32),
    )
    shape = TreeShape(prompt=prompts.tokens.shape[1], thought=t, answer=a, thoughts=k, answers=m)
    return Case(
        policy=policy,
        params=params,
        prompts=prompts,
        rollout=rollout,
        advantages=advantages,
        shape=shape,
    )


def randomised(params: Params, seed: int, dtype: Any = jnp.float32) -> Params:
    """Parameters of order one everywhere, so that no term of a forward pass is idle."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))

    def noisy(leaf: jax.Array, key: jax.Array) -> jax.Array:
        fan_in = leaf.shape[-2] if leaf.ndim > 1 else 25
        noise = jax.random.normal(key, leaf.shape, jnp.float32) * fan_in**-0.5
        return (leaf + noise).astype(dtype)

    return tree.unflatten([noisy(*pair) for pair in zip(leaves, keys, strict=True)])


def packed_of(case: Case) -> PackedTree:
    return pack_tree(*jax.tree.map(jnp.asarray, (case.prompts, case.rollout, case.advantages)))


def packed_objective(case: Case, params: Params) -> tuple[jax.Array, jax.Array]:
    """Σ advantage · log-prob over the tree's tokens, each once; and the log-probs."""
    packed = packed_of(case)
    logprobs, _ = token_logprobs(case.policy, params, packed)
    weighed = jnp.where(packed.trained, logprobs * packed.advantages.astype(logprobs.dtype), 0)
    return weighed.sum(), logprobs


def flat_rows(case: Case) -> tuple[list[dict[str, Any]], int]:
    """The K·M sequences of every prompt, without a gap."""
    r, rows = case.rollout, []
    for b, i, j in np.ndindex(*r.answer_lengths.shape):
        prompt = case.prompts.tokens[b][: case.prompts.lengths[b]]
        thought = r.thoughts[b, i][: r.thought_lengths[b, i]]
        answer = r.answers[b, i, j][: r.answer_lengths[b, i, j]]
        tokens = np.concatenate([prompt, thought, answer])
        rows.append({"at": (b, i, j), "tokens": tokens, "cuts": (len(prompt), len(thought))})
    return rows, max(len(row["tokens"]) for row in rows)


def flat_objective(case: Case, params: Params) -> tuple[jax.Array, jax.Array]:
    """The same sum from separate sequences, a thought's tokens at 1/M in each; `[rows, slots]`."""
    rows, slots = flat_rows(case)
    tokens = np.zeros((len(rows), slots), np.int32)
    weights = np.zeros((len(rows), slots), np.float64)
    lengths = np.array([len(row["tokens"]) for row in rows])
    for r, row in enumerate(rows):
        b, i, j = row["at"]
        start, thought = row["cuts"]
        tokens[r, : lengths[r]] = row["tokens"]
        weights[r, start : start + thought] = case.advantages.thought[b, i] / case.shape.answers
        weights[r, start + thought : lengths[r]] = case.advantages.answer[b, i, j]
    per_prompt = case.shape.thoughts * case.shape.answers
    positions = np.broadcast_to(np.arange(slots, dtype=np.int32), tokens.shape)
    inputs = TreeInputs(
        tokens=jnp.asarray(tokens),
        positions=jnp.asarray(positions),
        valid=jnp.asarray(positions < lengths[:, None]),
        images=jax.tree.map(lambda x: jnp.repeat(x, per_prompt, axis=0), case.prompts.images),
        shape=prompt_only(slots),
    )
    logits = case.policy.unembed(params, case.policy.forward(params, inputs))
    logprobs = jax.nn.log_softmax(logits[:, :-1])
    own = jnp.take_along_axis(logprobs, inputs.tokens[:, 1:, None], axis=2)[..., 0]
    own = jnp.pad(own, ((0, 0), (1, 0)))
    return (own * jnp.asarray(weights, own.dtype)).sum(), own


def check_packed_equals_flat(case: Case, tolerance: float) -> None:
    """L1: log-probs and gradients, relative."""

    def gradient(objective: Any) -> Any:
        def of(params: Params) -> Any:
            return objective(case, params)

        run = jax.jit(jax.value_and_grad(of, has_aux=True), compiler_options=QUICK)
        return run(case.params)

    (value, packed), tree_gradient = gradient(packed_objective)
    (flat_value, flat), flat_gradient = gradient(flat_objective)
    _, thoughts, answers = map(np.asarray, split_levels(packed, case.shape))
    rows, _ = flat_rows(case)
    for own, row in zip(np.asarray(flat), rows, strict=True):
        b, i, j = row["at"]
        start, thought = row["cuts"]
        here = slice(start, start + thought), slice(start + thought, len(row["tokens"]))
        for found, expected in (
            (thoughts[b, i], own[here[0]]),
            (answers[b, i, j], own[here[1]]),
        ):
            distance = np.abs(found[: len(expected)] - expected).max()
            assert distance <= tolerance * np.abs(expected).max()
    assert abs(value - flat_value) <= 10 * tolerance * max(1, abs(flat_value))
    norm, worst = 0.0, 0.0
    for a, b in zip(jax.tree.leaves(tree_gradient), jax.tree.leaves(flat_gradient), strict=True):
        worst += float(jnp.square((a - b).astype(jnp.float32)).sum())
        norm += float(jnp.square(b.astype(jnp.float32)).sum())
    assert norm > 0
    assert worst**0.5 <= tolerance * norm**0.5


def check_decode_equals_packed(case: Case, tolerance: float = 1e-4) -> None:
    """L2: the log-probs of the sampler are the trainer's."""
    vocab = case.policy.vocab_size
    pieces = [b"x"] * vocab
    pieces[5], pieces[6] = b"</think>", b"</answer>"
    stops = tree_stops(
        thought="</think>",
        answer="</answer>",
        closing=[5],
        token_bytes=pieces,
        end_tokens=[7],
    )
    grow = jax.jit(
        lambda params, prompts: grow_tree(
            case.policy,
            params,
            prompts,
            jax.random.key(1),
            shape=case.shape,
            sampling=SamplingConfig(temperature=1.5),
            stops=stops,
        ),
        compiler_options=QUICK,
    )
    rollout = grow(case.params, case.prompts)
    packed = packed_of(replace(case, rollout=rollout))
    logprobs = jax.jit(
        lambda params, packed: token_logprobs(case.policy, params, packed, temperature=1.5)[0],
        compiler_options=QUICK,
    )(case.params, packed)
    trained = np.asarray(packed.trained)
    assert trained.any()
    gap = np.abs(np.asarray(logprobs) - np.asarray(packed.sampler_logprobs))[trained]
    assert gap.max() <= tolerance


def logprobs_of(case: Case) -> jax.Array:
    """Of every slot, by one compiled program for all cases of the same shapes."""
    return PACKED_LOGPROBS(case.policy, case.params, packed_of(case))


PACKED_LOGPROBS = jax.jit(
    lambda policy, params, packed: token_logprobs(policy, params, packed)[0],
    static_argnums=0,
    compiler_options=QUICK,
)


def check_isolation(case: Case) -> None:
    """L3: other tokens in one thought change its subtree and nothing else; so for an answer."""
    before = tuple(map(np.asarray, split_levels(logprobs_of(case), case.shape)))
    i, j = case.shape.thoughts - 1, case.shape.answers - 1
    for name, at in (("thoughts", (slice(None), i)), ("answers", (slice(None), i, j))):
        tokens = np.array(getattr(case.rollout, name))
        tokens[at] = (tokens[at] + 1) % 50 + 3
        changed = replace(case, rollout=replace(case.rollout, **{name: tokens}))
        after = tuple(map(np.asarray, split_levels(logprobs_of(changed), case.shape)))
        outside_thought = np.arange(case.shape.thoughts) != i
        outside_answer = np.ones((case.shape.thoughts, case.shape.answers), bool)
        outside_answer[i, j if name == "answers" else slice(None)] = False
        if name == "answers":
            outside_thought[:] = True
        assert np.array_equal(before[1][:, outside_thought], after[1][:, outside_thought])
        assert np.array_equal(before[2][:, outside_answer], after[2][:, outside_answer])
        assert not np.array_equal(before[2][:, i, j, 0], after[2][:, i, j, 0])


def check_padding(case: Case, garbled_images: Any) -> None:
    """L4: other tokens in unused slots, other pixels in unused image slots, the same results."""

    def garble(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        held = np.arange(tokens.shape[-1]) < np.asarray(lengths)[..., None]
        return np.where(held, tokens, (tokens + 17) % 50).astype(np.int32)

    r, p = case.rollout, case.prompts
    garbled = replace(
        case,
        prompts=replace(p, tokens=garble(p.tokens, p.lengths), images=garbled_images),
        rollout=replace(
            r,
            thoughts=garble(r.thoughts, r.thought_lengths),
            answers=garble(r.answers, r.answer_lengths),
        ),
    )
    trained = np.asarray(packed_of(case).trained)
    before, after = (np.asarray(logprobs_of(c))[trained] for c in (case, garbled))
    assert np.abs(before - after).max() <= 1e-6
