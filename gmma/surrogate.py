"""Elementwise terms of the objective J: clipped surrogates and KL estimators."""

from collections.abc import Callable
from typing import Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float


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
