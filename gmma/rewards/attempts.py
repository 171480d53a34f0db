"""Score n attempts at one question together: pass@k and maj@k."""

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from math import comb


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """Return the unbiased probability that k of n attempts, c of them right, contain a right one.

        pass@k = 1 − C(n − c, k) / C(n, k)

    The estimator of the HumanEval paper. Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= correct <= attempts and 1 <= k <= attempts):
        raise ValueError(f"pass@{k} of {attempts} attempts with {correct} correct is undefined")
    return 1.0 - comb(attempts - correct, k) / comb(attempts, k)


def powers_up_to(attempts: int) -> Iterator[int]:
    """Yield 1, 2, 4, … and the number of attempts itself.

    >>> list(powers_up_to(6))
    [1, 2, 4, 6]
    """
    k = 1
    while k < attempts:
        yield k
        k *= 2
    yield attempts


def pass_rates(correct: Sequence[float]) -> dict[str, float]:
    """Return `pass@k` for each power of two up to the number of attempts, each of them 1 or 0.

    >>> {name: round(rate, 3) for name, rate in pass_rates([1.0, 0.0, 0.0, 0.0]).items()}
    {'pass@1': 0.25, 'pass@2': 0.5, 'pass@4': 1.0}
    """
    count, right = len(correct), round(sum(correct))
    return {f"pass@{k}": pass_at_k(count, right, k) for k in powers_up_to(count)}


def majority_at_k(answers: Sequence[Hashable], correct: Sequence[bool]) -> float:
    """Return the chance that the most frequent of k answers is right.

    `answers` are canonical forms (None: no answer could be read, and never wins), `correct` their
    verdicts. A tie is broken by lot, so its winners share the value. 0 if no answer was read.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    verdicts = dict(zip(answers, correct, strict=True))
    return sum(bool(verdicts[winner]) for winner in winners) / len(winners)
