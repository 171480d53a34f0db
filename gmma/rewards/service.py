"""The scoring service: weighted named terms, scored in processes that can be killed.

    answers ─▶ chunks ─▶ workers ─▶ one outcome per (answer, term) ─▶ Scored

A worker holds one chunk at a time, the rest wait here. Every worker shows which answer it has in
hand and since when: one that exceeds its limit takes its worker down, counts as `timeout`, and the
rest of the chunk goes to another worker. What an answer scores depends neither on the number of
workers nor on the order in which they finish.

A chunk holds answers that lie far apart, and where a step's time is not enough for each to use up
its limit, a reward that takes `try_seconds` (as `code`) is first asked to be quick: who needs
longer waits until all have had a turn. If the step ends before its next, what it scored until then
stands; an answer that had no turn at all counts as `untried`.
"""

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gmma.errors import UserError
from gmma.rewards.outcomes import CRASH, SCORED, TIMEOUT, UNTRIED, Scored, Tally
from gmma.rewards.pool import Pool
from gmma.rewards.terms import (
    Reads,
    RewardTerm,
    calls_of,
    check_columns,
    check_lengths,
    columns_read,
    find_reward,
    rows_of_terms,
    score_call,
    select_columns,
    units_of,
)


@runtime_checkable
class Scorer(Protocol):
    """Scorer of a batch: the pool, or the caller's own process."""

    terms: tuple[RewardTerm, ...]
    reads: list[Reads]  # the columns that each takes

    def score(
        self, answers: Sequence[str], *, thoughts: Sequence[str], columns: Mapping[str, Any]
    ) -> Scored: ...


class SharedScorer:
    """A scorer that one thread asks at a time."""

    def __init__(self, scorer: Scorer) -> None:
        self.terms, self.reads = scorer.terms, scorer.reads
        self.scorer, self.free = scorer, threading.Lock()

    def score(
        self, answers: Sequence[str], *, thoughts: Sequence[str], columns: Mapping[str, Any]
    ) -> Scored:
        """Score as the scorer does."""
        with self.free:
            return self.scorer.score(answers, thoughts=thoughts, columns=columns)


@contextlib.contextmanager
def open_scorer(
    terms: Sequence[RewardTerm],
    *,
    workers: int = 2,
    timeout_seconds: float | int = 10,
    step_seconds: float | int = 120,
    memory_gigabytes: float | int = 4,
) -> Iterator[Scorer]:
    """Start the workers, and end them with the block.

    `timeout_seconds` is the limit of one answer under one term, `step_seconds` that of a whole
    `score` call: what had no turn by then is `untried`. `memory_gigabytes` bounds the address space
    of each worker. `workers=0` scores in this process, for debugging, with no limit of any kind.
    Raises UserError for an unknown term, or one that cannot be imported.
    """
    _check_terms(terms, workers, timeout_seconds, step_seconds)
    if workers == 0:
        yield _InlineScorer(tuple(terms))
        return
    pool = Pool(tuple(terms), timeout_seconds, step_seconds, int(memory_gigabytes * 2**30))
    try:
        pool.start(workers)
        yield pool
    finally:
        pool.close()


def weighted_rewards(scored: Scored, terms: Sequence[RewardTerm]) -> np.ndarray:
    """Compute `R = Σ_j weight_j · value_j`, float32[N].

    NaN where a term of non-zero weight could not be scored: such an answer has no reward, rather
    than one that lacks a summand. A term of weight 0 is only logged; one for another task adds 0.
    """
    total = np.zeros(len(scored.values))
    for value, own, term in zip(scored.values.T, scored.applies.T, terms, strict=True):
        if term.weight != 0:
            total = total + np.where(own, term.weight * value, 0)
    return total.astype(np.float32)


def check_rewards(
    scorer: Scorer,
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    columns: Mapping[str, Any],
) -> Scored:
    """Score one batch before training starts, and be strict about it.

    Raises UserError if a term wants a column that no record has, crashes, exceeds its limit,
    returns the wrong length or type, or scores not one answer of those that it is for.
    """
    applies = rows_of_terms(scorer.terms, len(answers), columns)
    for term, reads, own in zip(scorer.terms, scorer.reads, applies.T, strict=True):
        if own.any():
            check_columns(term, reads, columns)
    scored = scorer.score(answers, thoughts=thoughts, columns=columns)
    for term, own in zip(scorer.terms, scored.applies.T, strict=True):
        counts = scored.outcomes[term.label]
        late = counts[TIMEOUT] + counts[UNTRIED]
        if counts[CRASH] or late:
            raise UserError(
                f"reward '{term.name}' failed on {counts[CRASH]} and exceeded its time limit on "
                f"{late} of {len(answers)} trial answers: "
                f"{'; '.join(said_once(scored.messages)) or 'no message'}"
            )
        if own.any() and not counts[SCORED]:
            raise UserError(
                f"reward '{term.name}' scored none of {own.sum()} trial answers (it returned "
                "None for each): check the columns of the ground truth"
            )
    return scored


def said_once(messages: Sequence[str]) -> list[str]:
    """Return the first of messages that differ in the number of the answer alone.

    >>> said_once(["reward 'a', answer 0: crash", "reward 'a', answer 1: crash"])
    ["reward 'a', answer 0: crash"]
    """
    kept: dict[str, str] = {}
    for message in messages:
        kept.setdefault(re.sub(r", answer \d+:", "", message, count=1), message)
    return list(kept.values())


def _check_terms(
    terms: Sequence[RewardTerm],
    workers: int,
    timeout_seconds: float | int,
    step_seconds: float | int,
) -> None:
    names = [term.label for term in terms]
    if not names or len(set(names)) != len(names):
        raise UserError(f"reward terms {names}: give at least one, and each name once (a task)")
    if workers < 0:
        raise UserError(f"{workers} reward workers: must be 0 (in this process) or more")
    if min(timeout_seconds, step_seconds) <= 0:
        raise UserError(
            f"reward time limits {timeout_seconds} and {step_seconds} seconds: must be above 0"
        )


class _InlineScorer:
    def __init__(self, terms: tuple[RewardTerm, ...]) -> None:
        self.terms = terms
        self.names = tuple(term.label for term in terms)
        self.rewards = [find_reward(term) for term in terms]
        self.reads = list(map(columns_read, terms, self.rewards))

    def score(
        self, answers: Sequence[str], *, thoughts: Sequence[str], columns: Mapping[str, Any]
    ) -> Scored:
        check_lengths(answers, thoughts, columns)
        tally = Tally(self.names, rows_of_terms(self.terms, len(answers), columns))
        selected = [
            select_columns(term, reads, columns, len(answers))
            for term, reads in zip(self.terms, self.reads, strict=True)
        ]
        for call in calls_of(self.terms, units_of(tally.applies)):
            items, index = [item for item, _ in call], call[0][1]
            outcomes = score_call(
                self.terms[index],
                self.rewards[index],
                [answers[item] for item in items],
                [thoughts[item] for item in items],
                {name: [c[item] for item in items] for name, c in selected[index].items()},
            )
            for unit, outcome in zip(call, outcomes, strict=True):
                tally.record(unit, outcome)
        return tally.scored()
