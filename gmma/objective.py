"""The clipped objective on a packed tree, for GRPO-MA, GRPO and SFT.

    J         = 1/K Σ_i J_clip(th_i) + 1/(KM) Σ_ij J_clip(ans_ij)              [S], read as [I]
    J_clip(y) = 1/|y| Σ_t min(r_t A, clip(r_t, 1−ε_low, 1+ε_high) A) − β·KL_t  [S]
    r_t       = π(y_t | path before t) / π_old(y_t | path before t)

With `entropy_coef` c above 0 each token's term has + c·H_t too, H_t the entropy of the distribution
that it was drawn from (verl's `entropy_coeff`; A3C, arXiv 1602.01783); a field of ours.

Every normalisation of the field is a constant weight per token (`token_weights`), fixed before the
forward pass. A loss is then a weighted sum over slots, and gradients of microbatches simply add.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from gmma.config import SURROGATES, ObjectiveConfig
from gmma.masked import masked_sum
from gmma.models.policy import Policy
from gmma.sampling import scale_logits
from gmma.surrogate import KL_ESTIMATORS
from gmma.tree.layout import join_levels, split_levels
from gmma.tree.rows import generated_slots, row_inputs, to_packed
from gmma.types import Metric, Metrics, PackedTree, Params, TreeShape, pytree


@pytree
class TokenTerms:
    """Quantities per slot that any loss reports, in nats."""

    logprobs: Float[Array, "B S"]
    entropy: Float[Array, "B S"]


@pytree
class LossTerms(TokenTerms):
    """Quantities that the policy objective reports besides."""

    ratio: Float[Array, "B S"]
    surrogate: Float[Array, "B S"]
    kl: Float[Array, "B S"]
    clipped_low: Bool[Array, "B S"]
    clipped_high: Bool[Array, "B S"]
    sampler_gap: Float[Array, "B S"]  # |log-prob of the trainer − log-prob of the sampler|
    correction: Float[Array, "B S"] | None  # what the surrogate is multiplied by; None: by nothing
    capped: Bool[Array, "B S"] | None  # the correction is the cap


def token_logprobs(
    policy: Policy,
    params: Params,
    packed: PackedTree,
    *,
    temperature: float = 1.0,
    chunk_slots: int | None = None,
    train_entropy: bool = False,
) -> tuple[Float[Array, "B S"], Float[Array, "B S"]]:
    """Compute log-probs of the tokens behind the prompt given their paths, and entropies, in nats.

    Float32 or wider, at the sampling temperature. With `chunk_slots` the logits of that many slots
    exist at a time, forward and backward. Prompt slots are 0. Gradients flow through entropies only
    with `train_entropy`.
    """
    head = policy.head(params)  # where it can be, gathered once for all chunks
    find = partial(slot_logprobs, policy, head, temperature=temperature, chunk_slots=chunk_slots)
    inputs, shape = packed.inputs, packed.inputs.shape
    if packed.row_slots is None:
        before, tokens = (x[:, shape.prompt :] for x in (packed.predecessor, inputs.tokens))
        found = find(policy.forward(params, inputs), before, tokens)
        logprobs, entropy = (jnp.pad(x, ((0, 0), (shape.prompt, 0))) for x in found)
    else:
        slots, before, tokens = generated_slots(packed, packed.row_slots)
        found = find(policy.forward(params, row_inputs(inputs, packed.row_slots)), before, tokens)
        logprobs, entropy = (to_packed(x, slots, shape.packed) for x in found)
    return logprobs, entropy if train_entropy else jax.lax.stop_gradient(entropy)


def slot_logprobs(
    policy: Policy,
    params: Params,
    hidden: Float[Array, "B S D"],
    before: Int[Array, "B G"],
    tokens: Int[Array, "B G"],
    *,
    temperature: float,
    chunk_slots: int | None,
) -> tuple[Float[Array, "B G"], Float[Array, "B G"]]:
    """Compute log-prob and entropy of tokens from the hidden states at the slots before them."""
    hidden = jnp.take_along_axis(hidden, before[..., None], axis=1)

    def of_slot(slot: tuple[Array, Array]) -> tuple[Array, Array]:
        features, token = slot  # [B D], [B]
        logits = scale_logits(policy.unembed(params, features), temperature)
        logprobs = jax.nn.log_softmax(logits)
        entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
        return jnp.take_along_axis(logprobs, token[:, None], axis=1)[:, 0], entropy

    by_slot = (hidden.swapaxes(0, 1), tokens.swapaxes(0, 1))
    if chunk_slots is None:
        found = jax.vmap(of_slot)(by_slot)
    else:
        found = jax.lax.map(jax.checkpoint(of_slot), by_slot, batch_size=chunk_slots)
    logprobs, entropy = (x.swapaxes(0, 1) for x in found)
    return logprobs, entropy


def sequence_sums(
    values: Shaped[Array, "B S"], shape: TreeShape, *, whole_response: bool
) -> Shaped[Array, "B S"]:
    """Sum over the sequence that each slot belongs to.

    A sequence is a thought or an answer; with `whole_response` (GRPO, M = 1) it is a thought
    together with its answer.
    """
    prompt, thought, answer = split_levels(values, shape)
    of_thought, of_answer = thought.sum(-1, keepdims=True), answer.sum(-1, keepdims=True)
    if whole_response:
        of_thought = of_thought + of_answer.sum(-2)
        of_answer = of_thought[:, :, None]
    return join_levels(
        prompt,
        jnp.broadcast_to(of_thought, thought.shape),
        jnp.broadcast_to(of_answer, answer.shape),
    )


def token_weights(
    trained: Bool[Array, "B S"], shape: TreeShape, config: ObjectiveConfig
) -> Float[Array, "B S"]:
    """Return the share of each token in the loss; zero where nothing is trained.

        grpo      1/(N·|y|): mean over tokens, then over sequences     DeepSeekMath
        dr_grpo   1/(N·slots): a constant in place of the length       arXiv 2503.20783
        dapo      1/Σ|y|: mean over the tokens of the batch            arXiv 2503.14476
        bnpo      the same, over the tokens of a microbatch

    N counts the thoughts for thought tokens and the answers for answer tokens, and each kind is
    multiplied by its configured weight. For `grpo` as the algorithm both belong to one response.
    """
    whole = config.algorithm == "grpo"
    batch = trained.shape[0]
    one = trained.astype(float)  # float32, or float64 where JAX is told so
    lengths = jnp.maximum(sequence_sums(one, shape, whole_response=whole), 1)
    thoughts = batch * shape.thoughts
    answers = thoughts * shape.answers

    def by_level(of_thought: Array | float, of_answer: Array | float) -> Float[Array, "B S"]:
        prompt, thought, answer = split_levels(one, shape)
        return join_levels(prompt, thought * of_thought, answer * of_answer)

    _, thought, answer = split_levels(one, shape)
    tokens = thought.sum(), answer.sum()
    if whole:
        slots, tokens = (shape.thought + shape.answer,) * 2, (tokens[0] + tokens[1],) * 2
    else:
        slots = (shape.thought, shape.answer)
    match config.loss_type:
        case "grpo":
            weights = by_level(1 / thoughts, 1 / answers) / lengths
        case "dr_grpo":
            weights = by_level(1 / (thoughts * slots[0]), 1 / (answers * slots[1]))
        case "dapo" | "bnpo":
            weights = by_level(*(1 / jnp.maximum(count, 1) for count in tokens))
    prompt, thought, answer = split_levels(weights, shape)
    return join_levels(prompt, thought * config.thought_weight, answer * config.answer_weight)


def importance_ratio(
    logprobs: Float[Array, "B S"],
    old_logprobs: Float[Array, "B S"],
    packed: PackedTree,
    config: ObjectiveConfig,
) -> Float[Array, "B S"]:
    """Return r_t per token, or its sequence's geometric mean of ratios (GSPO)."""
    log_ratio = jnp.where(packed.trained, logprobs - old_logprobs, 0)
    if config.importance_sampling_level == "sequence":
        shape, whole = packed.inputs.shape, config.algorithm == "grpo"
        count = packed.trained.astype(log_ratio.dtype)
        lengths = jnp.maximum(sequence_sums(count, shape, whole_response=whole), 1)
        log_ratio = sequence_sums(log_ratio, shape, whole_response=whole) / lengths
    return jnp.exp(log_ratio)


def ask_surrogate(
    ratio: Float[Array, "B S"],
    advantages: Float[Array, "B S"],
    logprobs: Float[Array, "B S"],
    config: ObjectiveConfig,
) -> Any:
    """Call the configured surrogate; a user's own may return anything."""
    return SURROGATES.find(config.surrogate)(
        ratio,
        advantages,
        logprobs=logprobs,
        epsilon_low=config.epsilon,
        epsilon_high=config.upper_epsilon,
        delta=config.delta,
        **dict(config.surrogate_options),
    )


def loss_terms(
    logprobs: Float[Array, "B S"],
    entropy: Float[Array, "B S"],
    packed: PackedTree,
    config: ObjectiveConfig,
) -> LossTerms:
    """Compute surrogate and KL of every slot. Without old log-probs it is on policy, r_t = 1.

    With `kl_times_ratio` the KL is r_t times its estimate (DeepSeek-V3.2, arXiv 2512.02556 [S];
    TRL's `use_bias_correction_kl`). Tokens were drawn from the old policy; weighted by their own
    ratio, k1 and k3 are unbiased for the new policy's KL given what precedes a token, and their
    gradients for its gradient, on policy too. A sequence's ratio (GSPO) weighs them as in TRL, but
    does not make them so.
    """
    fixed = jax.lax.stop_gradient(logprobs)
    old = fixed if packed.old_logprobs is None else packed.old_logprobs
    ratio = importance_ratio(logprobs, old, packed, config)
    low, high = config.epsilon, config.upper_epsilon
    surrogate = ask_surrogate(ratio, packed.advantages, logprobs, config)
    correction = capped = None
    if config.importance_cap is not None:
        mismatch = jnp.exp(jnp.where(packed.trained, old - packed.sampler_logprobs, 0))
        correction = jnp.minimum(mismatch, config.importance_cap)
        capped = mismatch > config.importance_cap
        surrogate *= correction
    kl = jnp.zeros_like(logprobs)
    if packed.reference_logprobs is not None:
        reference = jnp.where(packed.trained, packed.reference_logprobs, logprobs)
        kl = KL_ESTIMATORS[config.kl_estimator](logprobs, reference)
        kl = kl * ratio if config.kl_times_ratio else kl
    return LossTerms(
        logprobs=logprobs,
        entropy=entropy,
        ratio=ratio,
        surrogate=surrogate,
        kl=kl,
        clipped_low=(ratio < 1 - low) & (packed.advantages < 0),
        clipped_high=(ratio > 1 + high) & (packed.advantages > 0),
        sampler_gap=jnp.abs(old - packed.sampler_logprobs),
        correction=correction,
        capped=capped,
    )


def policy_loss(
    policy: Policy,
    params: Params,
    packed: PackedTree,
    weights: Float[Array, "B S"],
    config: ObjectiveConfig,
    *,
    temperature: float = 1.0,
    chunk_slots: int | None = None,
) -> tuple[Float[Array, ""], LossTerms]:
    """Compute −Σ_s w_s (surrogate_s − β·KL_s + c·H_s): the negative of the objective J."""
    rewarded = config.entropy_coef > 0
    logprobs, entropy = token_logprobs(
        policy,
        params,
        packed,
        temperature=temperature,
        chunk_slots=chunk_slots,
        train_entropy=rewarded,
    )
    terms = loss_terms(logprobs, entropy, packed, config)
    objective = terms.surrogate - config.beta * terms.kl
    if rewarded:
        objective += config.entropy_coef * terms.entropy
    return -masked_sum(weights * objective, packed.trained), terms


def imitation_loss(
    policy: Policy,
    params: Params,
    packed: PackedTree,
    weights: Float[Array, "B S"],
    *,
    chunk_slots: int | None = None,
) -> tuple[Float[Array, ""], TokenTerms]:
    """Compute the loss of SFT: −Σ_s w_s log π(y_s | path before s)."""
    logprobs, entropy = token_logprobs(policy, params, packed, chunk_slots=chunk_slots)
    terms = TokenTerms(logprobs=logprobs, entropy=entropy)
    return -masked_sum(weights * logprobs, packed.trained), terms


def segment_metrics(terms: TokenTerms, packed: PackedTree) -> Metrics:
    """Sum and count over trained tokens, of the thoughts and of the answers apart."""
    values = {"logprob": terms.logprobs, "entropy": terms.entropy}
    if isinstance(terms, LossTerms):
        values |= {
            "kl": terms.kl,
            "clip_ratio/low_mean": terms.clipped_low,
            "clip_ratio/high_mean": terms.clipped_high,
            "clip_ratio/region_mean": terms.clipped_low | terms.clipped_high,
            "sampling/sampling_logp_difference/mean": terms.sampler_gap,
        }
        if terms.correction is not None and terms.capped is not None:
            values["sampling/importance_sampling_ratio/mean"] = terms.correction
            values["sampling/importance_sampling_ratio/capped"] = terms.capped
        if packed.old_logprobs is not None:
            moved = jnp.where(packed.trained, terms.logprobs - packed.old_logprobs, 0)
            values["ppo_kl"] = jnp.expm1(moved) - moved
    _, *masks = split_levels(packed.trained, packed.inputs.shape)
    metrics: Metrics = {}
    for name, value in values.items():
        _, *levels = split_levels(value, packed.inputs.shape)
        for segment, level, mask in zip(("thought", "answer"), levels, masks, strict=True):
            total = masked_sum(level.astype(jnp.float32), mask)
            metrics[f"{segment}/{name}"] = Metric(total=total, count=mask.sum(dtype=jnp.float32))
    return metrics


def segment_peaks(terms: TokenTerms, packed: PackedTree) -> dict[str, Float[Array, ""]]:
    """Return the largest gap in nats between sampler and trainer per segment; empty for SFT."""
    if not isinstance(terms, LossTerms):
        return {}
    gap = jnp.where(packed.trained, terms.sampler_gap, 0)
    _, *levels = split_levels(gap, packed.inputs.shape)
    name = "sampling/sampling_logp_difference/max"
    return {
        f"{segment}/{name}": level.max(initial=0).astype(jnp.float32)
        for segment, level in zip(("thought", "answer"), levels, strict=True)
    }
