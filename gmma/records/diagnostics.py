"""Measure a run's own noise: gradients, thought values, advantages.

    spike_score        a step's gradient norm over the running mean of its phase
    gradient_powers    signal and noise in a batch's gradient, from its microbatches
    drift_metrics      how far off policy each update of a step was
    thought_noise      how far M answers tell what a thought is worth
    advantage_metrics  how large the credit of thoughts and of answers is

`docs/method.md` has every one with its equation and convention.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gmma.advantage import value_rounding
from gmma.masked import masked_mean
from gmma.types import Advantages, Metric, Metrics

SPIKE_SCORE = 10.0  # a step above it is a spike: our reading of the paper's GSS@10 ([?])


@dataclass(frozen=True, kw_only=True)
class RunningMean:
    """A mean that goes on through checkpoints; Python floats survive JSON bit for bit."""

    total: float = 0.0
    count: int = 0

    def with_value(self, value: float) -> "RunningMean":
        """Return the mean with one more value."""
        return RunningMean(total=self.total + value, count=self.count + 1)


def spike_score(norms: RunningMean, norm: float) -> tuple[RunningMean, float]:
    """Add this step's gradient norm to the running mean, and return g_t / mean_{s ≤ t} g_s.

    As `theory.gradient_spike_score`, one step at a time: global norms before clipping, of one
    phase, this step included. So the score of step t (from 1) is at most t. 0 where all are 0, NaN
    for a norm that is not finite, which the mean leaves out.

    >>> norms, first = spike_score(RunningMean(), 1.0)
    >>> _, second = spike_score(norms, 3.0)
    >>> first, second
    (1.0, 1.5)
    """
    if not math.isfinite(norm):
        return norms, math.nan
    norms = norms.with_value(norm)
    return norms, norm / (norms.total / norms.count) if norms.total else 0.0


def gradient_powers(
    total: Float[Array, ""], of_parts: Float[Array, "n"]
) -> dict[str, Float[Array, ""]]:
    """Estimate signal and noise in |G|², G = Σ_i g_i the gradient over n microbatches ([I]).

        noise  = n/(n − 1) Σ_i |g_i − G/n|² = n/(n − 1) (Σ_i |g_i|² − |G|²/n)
        signal = |G|² − noise

    Unbiased for E|G − E G|² and |E G|² where the g_i are independent and alike; a signal below 0
    says that the batch shows none. `total` is |G|², `of_parts` the |g_i|². Nothing can be said of
    one microbatch: no metrics. After the gradient noise scale (arXiv 1812.06162 [B]).
    """
    count = of_parts.shape[0]
    if count == 1:
        return {}
    noise = (of_parts.sum() - total / count) * count / (count - 1)
    return {
        "gradient/total_power": total,
        "gradient/noise_power": noise,
        "gradient/signal_power": total - noise,
    }


def drift_metrics(updates: Sequence[Metrics]) -> Metrics:
    """Return how far off policy each update of a step was, in their order, from 0 on.

    Nothing of a step with one update, which is on policy.
    """
    return {
        f"{segment}/{new}/update_{at}": measured[f"{segment}/{name}"]
        for at, measured in enumerate(updates if len(updates) > 1 else ())
        for segment in ("thought", "answer")
        for new, name in (("ppo_kl", "ppo_kl"), ("clip_ratio", "clip_ratio/region_mean"))
    }


def thought_noise(rewards: Float[np.ndarray, "B K M"]) -> dict[str, Float[np.ndarray, "B"]]:
    """Estimate per tree the noise of its thought values from its M answers ([I]); else NaN.

        s_i²       variance of thought i's rewards, unbiased; its value V_i then has s_i²/M_i
        corrected  Var_i V_i − mean_i s_i²/M_i, the first over K − 1: unbiased for the variance of
                   the true values μ_i, so it may be negative
        advantage  mean_i Var A(th_i) by `theory.thought_advantage_variance`, with V_i in the place
                   of μ_i and s_i²/M_i in that of σ_i²/M: how far A would move if the same thoughts
                   were answered anew

    NaN rewards do not count; M_i is how many of thought i do, and a thought with fewer than two is
    left out. A tree needs two thoughts; for `advantage` also values that differ, by more than
    rounding: otherwise its advantages are 0 by definition.

    The second is a first-order formula, and a ratio of estimates: biased at small M. Noise widens
    the spread of the V_i, which lowers it; a spread that is small by chance makes it as large as it
    likes, and a mean over trees is then ruled by few of them. It is of GRPO-MA's advantage divided
    by its tree's deviation, whatever `credit` and `scale_rewards` say. For K = 2 it is 0.
    """
    held = np.isfinite(rewards)
    exact = np.where(held, rewards, 0).astype(np.float64)
    counts = held.sum(axis=2)
    values = exact.sum(axis=2) / np.maximum(counts, 1)
    squares = np.where(held, np.square(exact - values[..., None]), 0).sum(axis=2)
    known = counts >= 2
    noise = np.where(known, squares / np.maximum(counts * (counts - 1), 1), 0)
    thoughts = known.sum(axis=1)
    compared = thoughts >= 2
    some = np.maximum(thoughts, 2)
    mean = np.where(known, values, 0).sum(axis=1) / some
    centred = np.where(known, values - mean[:, None], 0)
    between = np.square(centred).sum(axis=1)
    live = compared & (spread_of(values, known) > rounding_of(rewards))
    variance = advantage_variance(centred, noise, known, np.where(live, between / some, 1))
    return {
        "reward_variance/between_thoughts_corrected": np.where(
            compared, between / (some - 1) - noise.sum(axis=1) / some, np.nan
        ),
        "thought/advantage_variance": np.where(live, variance.sum(axis=1) / some, np.nan),
    }


def advantage_variance(
    centred: Float[np.ndarray, "B K"],
    noise: Float[np.ndarray, "B K"],
    known: Bool[np.ndarray, "B K"],
    squared_spread: Float[np.ndarray, "B"],
) -> Float[np.ndarray, "B K"]:
    """Apply `theory.thought_advantage_variance` to many trees on the host, known thoughts only.

    On the host because the devices update meanwhile, and whatever they were asked would wait.
    """
    squared_spread = squared_spread[:, None]
    advantage = centred / np.sqrt(squared_spread)
    count = np.maximum(known.sum(axis=1), 1)[:, None, None]
    products = advantage[:, :, None] * advantage[:, None, :]
    slope = np.eye(known.shape[1])[None] - (1 + products) / count
    moved = (np.square(slope) * noise[:, None, :]).sum(axis=2) / squared_spread
    return np.where(known, moved, 0)


def spread_of(
    values: Float[np.ndarray, "B K"], known: Bool[np.ndarray, "B K"]
) -> Float[np.ndarray, "B"]:
    """Subtract the smallest known value of each tree from the largest; −∞ where none is known."""
    highest = np.where(known, values, -np.inf).max(axis=1)
    return highest - np.where(known, values, np.inf).min(axis=1)


def rounding_of(rewards: Float[np.ndarray, "B K M"]) -> Float[np.ndarray, "B"]:
    """Return how far a tree's thought values differ by rounding, as in `thought_advantages`."""
    flat = rewards.reshape(len(rewards), -1)
    spread = spread_of(flat.astype(np.float64), np.isfinite(flat))
    return value_rounding(np.maximum(spread, 0), np.float32)


@jax.jit
def advantage_metrics(advantages: Advantages, counted: Bool[Array, "B K M"]) -> Metrics:
    """Compute `thought/advantage_std` and `answer/advantage_std` over the whole batch.

    Population deviations of what counts. With `scale_rewards = "group"` that is √(share of it in
    groups that differ).
    """
    levels = {
        "thought": (advantages.thought, counted.any(axis=2)),
        "answer": (advantages.answer, counted),
    }
    return {f"{name}/advantage_std": _deviation(*level) for name, level in levels.items()}


def _deviation(values: Float[Array, "*s"], mask: Bool[Array, "*s"]) -> Metric:
    variance = masked_mean(jnp.square(values - masked_mean(values, mask)), mask)
    return Metric(total=jnp.sqrt(variance), count=mask.any().astype(jnp.float32))
