"""Variance of the thought advantage, and gradient spikes: what the paper argues with.

The paper states its variance result in words ([P]: rate 1/M, and a floor that more thoughts do not
remove). The formula here is a derivation that fits those words, not the paper's own ([I]).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def thought_advantage_variance(
    means: Float[Array, "K"], variances: Float[Array, "K"], answers: int
) -> Float[Array, "K"]:
    """Var A(th_i) to first order, by the delta method ([I]).

    With thought values V_i of mean μ_i and variance σ_i²/M, independent, and population std S:

        ∂A_i/∂V_k = (δ_ik − (1 + A_i A_k)/K) / S
        Var A_i   ≈ 1/(M S²) Σ_k σ_k² (δ_ik − (1 + A_i A_k)/K)²      A and S at the means

    It falls to zero as 1/M; as K grows at fixed M it tends to σ_i²/(M S²) > 0. `means` and
    `variances` are those of one answer's reward given each thought; all `means` equal gives 0, as
    the advantage of a constant group is 0 by definition. K = 2 gives 0: A_i = ±1 whatever they are.

    >>> import jax.numpy as jnp
    >>> v = thought_advantage_variance(jnp.array([0.0, 1.0]), jnp.array([0.25, 0.25]), 4)
    >>> v.tolist()
    [0.0, 0.0]
    """
    means, variances = jnp.asarray(means, float), jnp.asarray(variances, float)
    count = means.shape[0]
    shifted = means - means.min()  # equal means stay exactly equal
    centred = shifted - shifted.mean()
    spread = jnp.sqrt(jnp.mean(jnp.square(centred)))
    constant = spread == 0
    scale = jnp.where(constant, 1, spread)
    advantage = centred / scale
    slope = jnp.eye(count, dtype=means.dtype) - (1 + jnp.outer(advantage, advantage)) / count
    variance = jnp.square(slope) @ variances / (answers * jnp.square(scale))
    return jnp.where(constant, 0, variance)


def gradient_spike_score(norms: Float[Array, "N"]) -> Float[Array, "N"]:
    """g_t / mean_{s ≤ t} g_s for a run's global gradient norms, the current step included.

    After SPAM (arXiv 2501.06842 [B]). The paper reports "GSS@10" without, as far as is known,
    saying which mean ([R], [?]); the running mean is our choice, and a spike is a score above 10.
    A norm that is not finite has no score, NaN, and is left out of the mean of the others.

    >>> import jax.numpy as jnp
    >>> gradient_spike_score(jnp.array([1.0, 1.0, 4.0])).tolist()
    [1.0, 1.0, 2.0]
    """
    norms = jnp.asarray(norms, float)  # of NumPy's numbers too
    finite = jnp.isfinite(norms)
    counts = jnp.cumsum(finite, dtype=norms.dtype)
    running = jnp.cumsum(jnp.where(finite, norms, 0)) / jnp.maximum(counts, 1)
    return jnp.where(finite, norms / jnp.where(running == 0, 1, running), jnp.nan)
