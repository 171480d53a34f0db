"""What n answers to one example say together: pass@k and the majority's vote."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that k of the n samples hold a right one, `1 − C(n − c, k) / C(n, k)`.

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374), in exact integers.

    >>> [round(pass_at_k(4, 1, k), 3) for k in (1, 2, 4)]
    [0.25, 0.5, 1.0]
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def powers_up_to(samples: int) -> Iterator[int]:
    """1, 2, 4, … and the number of samples itself.

    >>> list(powers_up_to(6))
    [1, 2, 4, 6]
    """
    k = 1
    while k < samples:
        yield k
        k *= 2
    yield samples


def pass_rates(right: Sequence[float]) -> dict[str, float]:
    """`pass@k` for each power of two up to the number of samples; `right` holds 1 or 0 each."""
    count = round(sum(right))
    return {f"pass@{k}": pass_at_k(len(right), count, k) for k in powers_up_to(len(right))}


def majority_vote(names: Sequence[str], right: Sequence[float]) -> float:
    """Whether the answer given most often is right, `maj@n`; of several, the one given first.

    `names` are answers in a form in which equal ones are equal texts; an empty one, an answer that
    cannot be read, has no vote.

    >>> majority_vote(["3", "7", "7", ""], [0, 1, 1, 0])
    1.0
    """
    votes = Counter(name for name in names if name)
    if not votes:
        return 0.0
    chosen = max(votes, key=votes.__getitem__)  # the first of them: a Counter keeps their order
    return float(right[names.index(chosen)])
