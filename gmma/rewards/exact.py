"""Exact match after case and space folding."""

from collections.abc import Sequence

import numpy as np

from gmma.answers.folding import fold_text


def read_gold_texts(gold: object) -> list[str] | None:
    """Return the accepted texts of a record: one str, or a list of them; None if it is neither."""
    if isinstance(gold, str):
        return [gold]
    if not isinstance(gold, Sequence | np.ndarray) or len(gold) == 0:
        return None
    return list(gold) if all(isinstance(text, str) for text in gold) else None


def exact_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    **columns: Sequence,
) -> list[float | None]:
    """Return 1 if the answer equals an accepted text after folding case and space, else 0.

    The column `answer` is a str or a list of str; None where it is anything else, or empty.
    """
    return [
        None if (golds := read_gold_texts(gold)) is None else exact_match(text, golds)
        for text, gold in zip(answers, answer, strict=True)
    ]


def exact_match(text: str, golds: Sequence[str]) -> float:
    """Return 1 if `text` equals one of `golds` after folding, else 0."""
    folded = fold_text(text)
    return float(any(folded == fold_text(gold) for gold in golds))
