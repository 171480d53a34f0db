"""Outcomes of answers, one per (answer, term), and the batch they add up to."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SCORED, UNPARSABLE, TIMEOUT, CRASH = "scored", "unparsable", "timeout", "crash"
UNTRIED = "untried"  # the step was over before its turn
KINDS = (SCORED, UNPARSABLE, TIMEOUT, CRASH, UNTRIED)
UNFINISHED = "unfinished"  # scored for now, and to be tried again: never what became of an answer

_LOG = logging.getLogger(__name__)
_MESSAGES_KEPT = 20


class UnfinishedError(Exception):
    """Raised by a reward that needs more than its `try_seconds`.

    `value` is what the answer scores if it gets no more.
    """

    def __init__(self, value: float) -> None:
        super().__init__(value)
        self.value = value


class Outcome(NamedTuple):
    """Outcome of one answer under one term: a kind of `KINDS`, and its value if scored.

    On its way from a worker the kind may also be `UNFINISHED`, with the value so far.
    """

    kind: str
    value: float | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of N answers under each term, and what became of every one of them."""

    values: np.ndarray  # float64[N, terms]; NaN where an answer could not be scored
    applies: np.ndarray  # bool[N, terms]; false where a term is for another task of a mixture
    kinds: np.ndarray  # int8[N, terms]; where in KINDS, −1 where the term does not apply
    outcomes: Mapping[str, Counter[str]]  # term → kind → count, summing to the rows it applies to
    messages: tuple[str, ...] = ()  # why scorers crashed, a few of them


class Tally:
    """The outcomes of one `score` call as they come in."""

    def __init__(self, names: Sequence[str], applies: np.ndarray) -> None:
        self.names = names
        self.applies = applies
        self.values = np.full(applies.shape, np.nan)
        self.kinds = np.full(applies.shape, -1, np.int8)
        self.failures: list[tuple[int, int, Outcome]] = []

    def record(self, unit: tuple[int, int], outcome: Outcome) -> None:
        item, index = unit
        kind = SCORED if outcome.kind == UNFINISHED else outcome.kind
        self.kinds[item, index] = KINDS.index(kind)
        self.values[item, index] = np.nan if outcome.value is None else outcome.value
        if kind in (TIMEOUT, CRASH, UNTRIED):
            self.failures.append((item, index, outcome))

    def is_recorded(self, unit: tuple[int, int]) -> bool:
        """Return whether the unit has an outcome, be it a provisional one."""
        return bool(self.kinds[unit] >= 0)

    def scored(self) -> Scored:
        """Sum up the outcomes, in whatever order they came, and log the failures."""
        messages = tuple(
            f"reward '{self.names[index]}', answer {item}: {outcome.kind}: {outcome.message}"
            for item, index, outcome in sorted(self.failures)[:_MESSAGES_KEPT]
        )
        if messages:
            _LOG.warning("%d answers could not be scored; %s", len(self.failures), messages[0])
        outcomes = {
            name: Counter({kind: int((kinds == at).sum()) for at, kind in enumerate(KINDS)})
            for name, kinds in zip(self.names, self.kinds.T, strict=True)
        }
        return Scored(
            values=self.values,
            applies=self.applies,
            kinds=self.kinds,
            outcomes=outcomes,
            messages=messages,
        )
