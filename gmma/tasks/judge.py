"""Verdicts for metrics, from the rewards' own scorers in a process that can be killed."""

import atexit
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import numpy as np

from gmma.rewards.service import RewardTerm, Scorer, open_scorer

_STEP_SECONDS = 600


def judge(
    term: RewardTerm, answers: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> list[float]:
    """What the term gives each answer; 0, the worst, where the answer could not be scored.

    The process is started with the first call and stays. Its limits are those of the service.
    """
    scored = _open(term).score(answers, thoughts=[""] * len(answers), columns=columns)
    return np.nan_to_num(scored.values[:, 0], nan=0.0).tolist()


@cache
def _open(term: RewardTerm) -> Scorer:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(open_scorer((term,), workers=1, step_seconds=_STEP_SECONDS))
