"""95 % intervals of means over held-out examples, of differences, and over the seeds of a sweep.

    values in [0, 1]    score interval with as many yes/no trials as their spread is worth
    differences         what was gained and what was lost, each such a share, put together
    anything else       Student's t over examples
    several seeds       Student's t over the seeds' means, and the examples' own part

An example counts once, however many answers it was given: it is their mean. `docs/method.md` says
what each holds, and where none can hold its 95 %; `tests/test_intervals.py` simulates it. Functions
named `…_ends` work along the last axis and give mean, low and high along a first one.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import special

Interval = tuple[float, float, float]  # mean, and the ends of its 95 % interval
Ends = Float[np.ndarray, "3 *R"]
_Z = float(special.ndtri(0.975))
_DOUBT = 0.3  # of a whole success: what keeps a few values from speaking for their spread
_TINY = 1e-9  # in the place of a count of 0, which is told apart


def mean_interval(values: Float[np.ndarray, "N"]) -> Interval:
    """Return the mean over examples with its interval, as `mean_ends` has it.

    >>> [round(value, 3) for value in mean_interval(np.zeros(16))]
    [0.0, 0.0, 0.194]
    """
    return _plain(mean_ends(values[None]))


def difference_interval(values: Float[np.ndarray, "N"]) -> Interval:
    """Return the mean of paired differences with its interval, as `difference_ends` has it.

    >>> [round(value, 3) for value in difference_interval(np.zeros(16))]
    [0.0, -0.194, 0.194]
    """
    return _plain(difference_ends(values[None]))


def student_interval(values: Float[np.ndarray, "N"]) -> Interval:
    """Return the mean with its interval by Student's t; of a single value the value itself.

    >>> student_interval(np.asarray([2.0, 2.0, 2.0]))
    (2.0, 2.0, 2.0)
    """
    return _plain(student_ends(values[None]))


def score_interval(rate: float, trials: float) -> Interval:
    """Return a rate of so many trials with its interval, as `score_ends` has it."""
    return _plain(score_ends(np.asarray([rate], float), np.asarray([trials], float)))


def crossed_interval(
    values: Float[np.ndarray, "seeds N"], over_examples: Callable[[np.ndarray], Ends]
) -> Interval:
    """Return the mean over seeds and examples with its interval for both (`crossed_ends`)."""
    return _plain(crossed_ends(values[None], over_examples))


def _plain(ends: Float[np.ndarray, "3 1"]) -> Interval:
    mean, low, high = ends[:, 0].tolist()
    return mean, low, high


def score_ends(rate: Float[np.ndarray, "*R"], trials: Float[np.ndarray, "*R"]) -> Ends:
    """Return Wilson's interval of a rate, its ends at least as far out as the one-sided exact ones.

        (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n),   z = 1.96
        Beta(0.05; pn, n − pn + 1) and Beta(0.95; pn + 1, n − pn)

    Wilson (1927) alone leaves out a rate of 0.02 in one of ten samples of 27; Clopper and Pearson's
    ends (1934), taken at 5 % on their side, fill such dips near 0 and 1 (cf. Brown, Cai, DasGupta
    2001, 4.1). Trials are above 0 and need not be whole.
    """
    centre, room = rate + _Z**2 / (2 * trials), 1 + _Z**2 / trials
    half = _Z * np.sqrt(rate * (1 - rate) / trials + _Z**2 / (4 * trials**2))
    hits, misses = rate * trials, (1 - rate) * trials
    exact_low = special.betaincinv(np.maximum(hits, _TINY), misses + 1, 0.05)
    exact_high = special.betaincinv(hits + 1, np.maximum(misses, _TINY), 0.95)
    low = np.where(hits == 0, 0, np.minimum((centre - half) / room, exact_low))
    high = np.where(misses == 0, 1, np.maximum((centre + half) / room, exact_high))
    return np.stack([rate, low, high])


def effective_trials(values: Float[np.ndarray, "*R N"]) -> Float[np.ndarray, "*R"]:
    """Return the number of yes/no trials with a mean as uncertain as that of values in [0, 1].

        N / f,   f = (s² + c/kN) / (m(1 − m) + c/kN) · (t/z)² N/(N − 1), at most 1

    with mean m, variance s² and Student's t for N − 1. It is N where all values are 0 or 1, and
    more where an example's value is the mean of answers that differ (the design effect of cluster
    samples, as Korn and Graubard 1998 use it). k is the number of values that are not at the end
    (0 or 1) that most are at: where they are few, their spread is hardly known, and f goes to 1,
    the most that it can be.
    """
    count, mean = values.shape[-1], values.mean(axis=-1)
    if count == 1:
        return np.ones_like(mean)
    inside = np.minimum(np.sum(values > 0, axis=-1), np.sum(values < 1, axis=-1))
    doubt = _DOUBT / (count * np.maximum(inside, _TINY))
    widening = (special.stdtrit(count - 1, 0.975) / _Z) ** 2 * count / (count - 1)
    share = (values.var(axis=-1) + doubt) / (mean * (1 - mean) + doubt) * widening
    return count / np.minimum(share, 1.0)


def mean_ends(values: Float[np.ndarray, "*R N"]) -> Ends:
    """Return the score interval with `effective_trials`.

    Student's t where a value is not in [0, 1].
    """
    bounded = (values.min(axis=-1) >= 0) & (values.max(axis=-1) <= 1)
    inside = values.clip(0, 1)
    rates = score_ends(inside.mean(axis=-1), effective_trials(inside))
    return np.where(bounded, rates, student_ends(values))


def difference_ends(values: Float[np.ndarray, "*R N"]) -> Ends:
    """Return the interval of a mean of paired differences.

    By Student's t where one is outside of ±1.

    The mean is what examples gained less what they lost, a − b, two means of values in [0, 1] with
    intervals of their own, and with a negative correlation ρ, since no example has both (the method
    of variance estimates recovery, Zou and Donner 2008):

        low = a − b − √((a − a₁)² + (b₂ − b)² − 2ρ (a − a₁)(b₂ − b)),   high likewise

    Where no example differs it is ±z²/(N + z²), the score interval of Tango (1998).
    """
    gained, lost = values.clip(0, 1), (-values).clip(0, 1)
    (gain, gain_low, gain_high), (loss, loss_low, loss_high) = map(mean_ends, (gained, lost))
    spreads = gained.std(axis=-1) * lost.std(axis=-1)
    correlation = -gain * loss / np.where(spreads > 0, spreads, np.inf)

    def reach(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.sqrt(first**2 + second**2 - 2 * correlation * first * second)

    mean = values.mean(axis=-1)
    low = mean - reach(gain - gain_low, loss_high - loss)
    high = mean + reach(gain_high - gain, loss - loss_low)
    bounded = np.abs(values).max(axis=-1) <= 1
    return np.where(bounded, np.stack([mean, low, high]), student_ends(values))


def student_ends(values: Float[np.ndarray, "*R N"]) -> Ends:
    """Return Student's t: m ± t s/√N; of a single value the value itself."""
    mean, count = values.mean(axis=-1), values.shape[-1]
    if count == 1:
        return np.stack([mean, mean, mean])
    half = special.stdtrit(count - 1, 0.975) * values.std(axis=-1, ddof=1) / np.sqrt(count)
    return np.stack([mean, mean - half, mean + half])


def crossed_ends(
    values: Float[np.ndarray, "*R seeds N"], over_examples: Callable[[np.ndarray], Ends]
) -> Ends:
    """Return an interval for other seeds and examples, from the same examples under several seeds.

        value = mean + seed + example + rest
        low = mean − √((t s/√S)² + w (mean − low over the examples' means)²),   high likewise

    The first part is Student's t over the seeds' means, so that few seeds are no surer than they
    can be. It holds the rest too, so w, the examples' own share of the variance of their means,
    leaves that out of the second. `over_examples` is `mean_ends` or `difference_ends`. A single
    seed tells nothing of others: its interval is that of its examples alone.
    """
    mean, low, high = over_examples(values.mean(axis=-2))
    if values.shape[-2] == 1:
        return np.stack([mean, low, high])
    _, first, last = student_ends(values.mean(axis=-1))
    own = np.sqrt(examples_share(values))
    low = mean - np.hypot(mean - first, own * (mean - low))
    high = mean + np.hypot(last - mean, own * (high - mean))
    return np.stack([mean, low, high])


def examples_share(values: Float[np.ndarray, "*R seeds N"]) -> Float[np.ndarray, "*R"]:
    """Return the examples' own part of the variance of their means over seeds.

    By the mean squares of a table with two ways and one value a cell; 1 where nothing varies.
    """
    seeds, examples = values.shape[-2:]
    rows, columns = values.mean(axis=-1, keepdims=True), values.mean(axis=-2, keepdims=True)
    rest = values - rows - columns + values.mean(axis=(-2, -1), keepdims=True)
    square = np.sum(rest**2, axis=(-2, -1)) / ((seeds - 1) * max(examples - 1, 1))
    spread = np.sum((columns - columns.mean(axis=-1, keepdims=True)) ** 2, axis=(-2, -1))
    spread = seeds * spread / max(examples - 1, 1)
    varies = spread > 0
    return np.where(varies, np.clip(1 - square / np.where(varies, spread, 1), 0, 1), 1.0)
