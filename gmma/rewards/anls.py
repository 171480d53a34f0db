"""ANLS, the average normalised Levenshtein similarity of text-in-image question answering."""

import unicodedata
from collections.abc import Sequence

from gmma.rewards.exact import read_gold_texts

_THRESHOLD = 0.5


def anls_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    **columns: Sequence,
) -> list[float | None]:
    """Return the ANLS of one answer against its accepted texts, in {0} ∪ (0.5, 1].

    The column `answer` is a list of str (or one str); None where it is anything else, or empty.
    """
    return [
        None if (golds := read_gold_texts(gold)) is None else anls(text, golds)
        for text, gold in zip(answers, answer, strict=True)
    ]


def anls(text: str, golds: Sequence[str]) -> float:
    """Return `max_j s_j` with `s_j = 1 − NL_j` if `NL_j < 0.5`, else 0.

        NL_j = edit distance(text, gold_j) / max(|text|, |gold_j|)

    over lower-cased texts, runs of white space as one space and none at the ends (as the ST-VQA
    benchmark's evaluation has it), composed to NFC: a letter and its accent are one. Two
    empty texts are equal: 1.
    """
    return max(_similarity(_folded(text), _folded(gold)) for gold in golds)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def _similarity(text: str, gold: str) -> float:
    longest = max(len(text), len(gold))
    if text == gold:
        return 1.0
    if abs(len(text) - len(gold)) >= _THRESHOLD * longest:  # the distance is at least that
        return 0.0
    distance = edit_distance(text, gold) / longest
    return 1.0 - distance if distance < _THRESHOLD else 0.0


def edit_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance: insertions, deletions and substitutions, each at cost 1."""
    above = list(range(len(b) + 1))
    for row, letter in enumerate(a, start=1):
        left = row
        current = [left]
        for column, other in enumerate(b, start=1):
            left = min(left + 1, above[column] + 1, above[column - 1] + (letter != other))
            current.append(left)
        above = current
    return above[-1]
