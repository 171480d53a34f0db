"""Elementwise terms of the objective J: clipped surrogates and KL estimators."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gmma.errors import UserError


class Surrogate(Protocol):
    """Compute each token's part of J before the KL: a policy loss with its sign turned, in JAX.

    `ratio` is r_t, or a sequence's geometric mean of them (GSPO); `logprobs` are log π of the
    token, through which gradients flow too, and the other three are fields of the objective.
    `objective.surrogate_options` come by keyword too. What a token weighs in the loss is not the
    surrogate's matter (`token_weights`).
    """

    def __call__(
        self,
        ratio: Float[Array, "*s"],
        advantage: Float[Array, "*s"],
        *,
        logprobs: Float[Array, "*s"],
        epsilon_low: float,
        epsilon_high: float,
        delta: float | None,
    ) -> Float[Array, "*s"]: ...


def clipped_surrogate(
    ratio: Float[Array, "*s"],
    advantage: Float[Array, "*s"],
    *,
    epsilon_low: float,
    epsilon_high: float,
    delta: float | None = None,
    logprobs: Float[Array, "*s"] | None = None,
) -> Float[Array, "*s"]:
    """Return min(r·A, clip(r, 1 − ε_low, 1 + ε_high)·A), per token (PPO, arXiv 1707.06347).

    With `delta` the unclipped ratio is bounded above, min(r, δ)·A (dual clip, as TRL writes it).

    >>> import jax.numpy as jnp
    >>> r, a = jnp.array([1.5, 1.5, 0.5]), jnp.array([1.0, -1.0, -1.0])
    >>> clipped_surrogate(r, a, epsilon_low=0.25, epsilon_high=0.25).tolist()
    [1.25, -1.5, -0.75]
    """
    del logprobs  # of no use here: the ratio has the gradient
    clipped = jnp.clip(ratio, 1 - epsilon_low, 1 + epsilon_high)
    bounded = ratio if delta is None else jnp.minimum(ratio, delta)
    return jnp.minimum(bounded * advantage, clipped * advantage)


def cispo(
    ratio: Float[Array, "*s"],
    advantage: Float[Array, "*s"],
    *,
    logprobs: Float[Array, "*s"],
    epsilon_high: float,
    epsilon_low: float | None = None,
    delta: float | None = None,
) -> Float[Array, "*s"]:
    """Return sg(min(r, 1 + ε_high))·A·log π, per token (CISPO, MiniMax-M1, arXiv 2506.13585).

    The ratio is a constant weight, so no token drops out of the gradient, which is at most
    (1 + ε_high)·|A| by log π. The paper writes a lower bound too and sets it so low that it never
    binds ([S]); peers have the upper one alone, and TRL's `epsilon_high` is our 1 + ε_high. The
    loss is not near 0 on policy.

    >>> import jax.numpy as jnp
    >>> r, a, logp = jnp.array([0.5, 3.0]), jnp.array([1.0, -1.0]), jnp.array([-2.0, -2.0])
    >>> cispo(r, a, logprobs=logp, epsilon_high=0.5).tolist()
    [-1.0, 3.0]
    """
    del epsilon_low, delta  # the config refuses a delta
    return jax.lax.stop_gradient(jnp.minimum(ratio, 1 + epsilon_high)) * advantage * logprobs


def sapo(
    ratio: Float[Array, "*s"],
    advantage: Float[Array, "*s"],
    *,
    tau_pos: float = 1.0,
    tau_neg: float = 1.05,
    logprobs: Float[Array, "*s"] | None = None,
    epsilon_low: float | None = None,
    epsilon_high: float | None = None,
    delta: float | None = None,
) -> Float[Array, "*s"]:
    """Return 4/τ·σ(τ (r − 1))·A, per token (SAPO, arXiv 2511.20347; as TRL and ms-swift write it).

    τ is `tau_pos` where A > 0 and `tau_neg` elsewhere; both are `objective.surrogate_options`, and
    the defaults the paper's ([S]). A soft gate in place of the clip: the slope by r is
    4 σ (1 − σ)·A, at most |A| and that at r = 1, so on policy it is the policy gradient. The value
    is within 4/τ·|A|. Raises UserError unless both temperatures are above 0.

    >>> import jax.numpy as jnp
    >>> sapo(jnp.array([1.0, 1.0]), jnp.array([1.0, -1.0]), tau_neg=2.0).tolist()
    [2.0, -1.0]
    """
    del logprobs, epsilon_low, epsilon_high, delta  # the config refuses the last three
    if not (tau_pos > 0 and tau_neg > 0):
        raise UserError(
            f"surrogate 'sapo' with tau_pos = {tau_pos} and tau_neg = {tau_neg}: temperatures must "
            "be above 0; 1.0 and 1.05 are the paper's"
        )
    tau = jnp.where(advantage > 0, tau_pos, tau_neg).astype(ratio.dtype)
    return 4 / tau * jax.nn.sigmoid(tau * (ratio - 1)) * advantage


def k1_kl(logprobs: Float[Array, "*s"], reference: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Return log π − log π_ref: unbiased, of any sign."""
    return logprobs - reference


def k2_kl(logprobs: Float[Array, "*s"], reference: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Return ½ (log π − log π_ref)²: biased, never negative."""
    return 0.5 * jnp.square(logprobs - reference)


def k3_kl(logprobs: Float[Array, "*s"], reference: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Return π_ref/π − log(π_ref/π) − 1: unbiased, never negative (Schulman 2020; as GRPO)."""
    log_ratio = reference - logprobs
    return jnp.expm1(log_ratio) - log_ratio


KL_ESTIMATORS: dict[str, Callable[[Array, Array], Array]] = {
    "k1": k1_kl,
    "k2": k2_kl,
    "k3": k3_kl,
}
