"""Verdicts for metrics, from the rewards' own scorers in processes that can be killed."""

import atexit
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import numpy as np

from gmma.rewards.service import RewardTerm, Scorer, open_scorer

_WORKERS = max(1, min(4, (os.cpu_count() or 1) // 2))


def judge(
    term: RewardTerm, answers: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> list[float]:
    """Return what the term gives each answer; 0, the worst, where the answer could not be scored.

    The processes are started with the first call and stay. An answer's limit is the service's, a
    call has none: what a metric says of an answer must not depend on how many there are.
    """
    scored = _open(term).score(answers, thoughts=[""] * len(answers), columns=columns)
    return np.nan_to_num(scored.values[:, 0], nan=0.0).tolist()


@cache
def _open(term: RewardTerm) -> Scorer:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(open_scorer((term,), workers=_WORKERS, step_seconds=math.inf))
