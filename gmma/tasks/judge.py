"""Verdicts for metrics, from the rewards' own scorers in processes that can be killed."""

import atexit
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import numpy as np

from gmma.errors import UserError
from gmma.options.prompt import DEFAULT_TAGS, Tags
from gmma.rewards import REWARDS
from gmma.rewards.outcomes import CRASH
from gmma.rewards.service import RewardTerm, Scorer, SharedScorer, open_scorer
from gmma.text.prompt import answer_text, thought_text
from gmma.types import Example

_WORKERS = max(1, min(4, (os.cpu_count() or 1) // 2))


def judge(
    term: RewardTerm, answers: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> list[float]:
    """Return what the term gives each answer; 0, the worst, where the answer could not be scored.

    The processes are started with the first call and stay. An answer's limit is the service's, a
    call has none: what a metric says of an answer must not depend on how many there are. Raises
    UserError where a function of the user's fails on every answer.
    """
    scored = judge_of((term,)).score(answers, thoughts=[""] * len(answers), columns=columns)
    if term.name not in REWARDS and scored.outcomes[term.label][CRASH] == len(answers) > 0:
        raise UserError(
            f"reward '{term.name}' as a metric failed on each of {len(answers)} answers: "
            f"{scored.messages[0]}"
        )
    return np.nan_to_num(scored.values[:, 0], nan=0.0).tolist()


def answer_columns(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, list[Any]]:
    """Return what a reward gets by keyword where it is a metric, which knows answers alone.

    The record's columns; `question`, `images` and `id`, unless the record has such a column; and
    each answer in a whole `response` with an empty thought, between the run's tags.
    """
    names = dict.fromkeys(name for example in examples for name in example.columns)
    of_records: dict[str, list[Any]] = {
        "question": [example.question for example in examples],
        "images": [example.images for example in examples],
        "id": [example.id for example in examples],
    }
    own = {name: [example.columns.get(name) for example in examples] for name in names}
    written = [respond(*pair) for pair in zip(answers, examples, strict=True)]
    return {**of_records, **own, "response": written}


def respond(answer: str, example: Example) -> str:
    """Return an answer in a whole response with an empty thought, as the example is answered."""
    own = example.tags
    tags = Tags(think=(own[0], own[1]), answer=(own[2], own[3])) if own else DEFAULT_TAGS
    return tags.think[0] + thought_text("", tags) + answer_text(answer, tags)


@cache
def judge_of(terms: tuple[RewardTerm, ...], **limits: float) -> Scorer:
    """Start the processes of some terms with their first call; they end with this process.

    `limits` are those of `open_scorer`; a step has none. The cells of a grid share them.
    """
    stack = ExitStack()
    atexit.register(stack.close)
    limits = {"workers": _WORKERS} | limits
    opened = open_scorer(terms, step_seconds=math.inf, **limits)  # type: ignore[arg-type]
    return SharedScorer(stack.enter_context(opened))
