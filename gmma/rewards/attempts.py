"""What n attempts at one question are worth: pass@k and maj@k."""

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """Unbiased probability that k of n attempts, c of them right, contain a right one.

        pass@k = 1 − C(n − c, k) / C(n, k)

    The estimator of the HumanEval paper. Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= correct <= attempts and 1 <= k <= attempts):
        raise ValueError(f"pass@{k} of {attempts} attempts with {correct} correct is undefined")
    return 1.0 - comb(attempts - correct, k) / comb(attempts, k)


def majority_at_k(answers: Sequence[Hashable], correct: Sequence[bool]) -> float:
    """Chance that the most frequent of k answers is right.

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
