"""A named term of the reward: how it is found, and how it is asked for one answer."""

import copy
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from gmma.errors import UserError
from gmma.named import spelled
from gmma.rewards import REWARDS
from gmma.rewards.outcomes import CRASH, SCORED, UNFINISHED, UNPARSABLE, Outcome, UnfinishedError

Reward = Callable[..., Any]  # what a user returns is checked, not believed
# Beyond these a group's variance is no float32: every advantage of the group would be 0.
LARGEST_VALUE, LARGEST_WEIGHT = 1e9, 1e6


@dataclass(frozen=True)
class RewardTerm:
    """One term of the weighted sum.

    `name` is a key of `REWARDS` or the path `module:function` of the user's own. `options` are
    keyword arguments handed to every call, such as `(("relative_tolerance", 0.01),)`. In a mixture
    of tasks a term with a `task` counts for the rows of that task alone.
    """

    name: str  # a reward of gmma, or your own as module:function
    _: KW_ONLY
    weight: float | int = 1.0  # in the sum; 0 only logs the term
    options: tuple[tuple[str, str | int | float | bool], ...] = ()  # handed to every call
    task: str | None = None  # label of a part of a mixture; None: every row

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise UserError(f"reward '{self.name}': weight {self.weight} is not a finite number")
        if abs(self.weight) > LARGEST_WEIGHT:
            raise UserError(
                f"reward '{self.name}': weight {self.weight:g} is beyond ±{LARGEST_WEIGHT:g}: "
                "float32 no longer tells rewards apart; advantages ignore a scale of all terms"
            )

    @property
    def label(self) -> str:
        """The term's name in metrics, behind its task where it has one."""
        return self.name if self.task is None else f"{self.task}/{self.name}"


def find_reward(term: RewardTerm) -> Reward:
    """Return the function of a term. Raises UserError if there is none, or its import fails."""
    reward = REWARDS.find(term.name)
    if not callable(reward):
        raise UserError(f"reward '{term.name}' is of type {type(reward).__name__}, not a function")
    return reward


@functools.cache
def parameters_named(reward: Reward) -> frozenset[str] | None:
    """Return the columns that a function takes; None if it takes all (`**columns`)."""
    parameters = inspect.signature(reward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def columns_read(term: RewardTerm) -> frozenset[str] | None:
    """Return the columns to send to a worker for a term; None means all of them.

    Gmma's own rewards read only what they name, so that images stay out of the pipe. A user's
    function is not looked at: it is imported in the workers alone.
    """
    if term.name not in REWARDS:
        return None
    return frozenset(inspect.signature(REWARDS[term.name]).parameters)


def takes_time_limit(reward: Reward) -> bool:
    """Return whether a reward takes `try_seconds`, and so may be asked for a short try."""
    return "try_seconds" in inspect.signature(reward).parameters


def score_one(
    term: RewardTerm,
    reward: Reward,
    answer: str,
    thought: str,
    columns: Mapping[str, Any],
    try_seconds: float | None = None,
) -> Outcome:
    """Ask one reward for one answer, as a batch of one.

    One at a time, so that the result cannot depend on which answers share a batch, and that an
    answer which breaks its scorer is known. A user's own reward is given a copy of the columns: the
    answers to a question share them, and what one call changes must not be the next one's truth.
    An exception is a `crash`, as is a value that is not finite or beyond `LARGEST_VALUE`. With
    `try_seconds` a reward that takes them may say `unfinished`. Raises UserError for a wrong length
    or type: a mistake in the reward itself.
    """
    named = parameters_named(reward)
    singles = {name: [v] for name, v in columns.items() if named is None or name in named}
    limit = {} if try_seconds is None else {"try_seconds": try_seconds}
    try:
        if term.name not in REWARDS:
            singles = copy.deepcopy(singles)
        values = reward([answer], thoughts=[thought], **singles, **dict(term.options), **limit)
    except UserError:
        raise
    except UnfinishedError as unfinished:
        return Outcome(UNFINISHED, unfinished.value)
    except Exception as error:
        return Outcome(CRASH, message=f"{type(error).__name__}: {spelled(error, str)}"[:500])
    value = _only_value(term, values)
    if value is None:
        return Outcome(UNPARSABLE)
    if not math.isfinite(value):
        return Outcome(CRASH, message=f"returned {value}; return None for what cannot be scored")
    if abs(value) > LARGEST_VALUE:
        message = (
            f"returned {value:g}, beyond ±{LARGEST_VALUE:g}; scale or clip what the reward gives"
        )
        return Outcome(CRASH, message=message)
    return Outcome(SCORED, value)


def _only_value(term: RewardTerm, values: Any) -> float | None:
    if not isinstance(values, (list, tuple, np.ndarray)):
        raise UserError(
            f"reward '{term.name}' returned a {type(values).__name__}; "
            "it must return a list with one float or None per answer"
        )
    if isinstance(values, np.ndarray) and values.ndim == 0:
        raise UserError(
            f"reward '{term.name}' returned an array without axes, {spelled(values):.80}; "
            "it must return a list with one float or None per answer"
        )
    if len(values) != 1:
        raise UserError(
            f"reward '{term.name}' returned {len(values)} values for 1 answer; "
            "it must return a list with one float or None per answer"
        )
    value = values[0]
    if value is None or type(value) is float:
        return value
    if isinstance(value, (numbers.Real, np.bool_)):
        try:
            return float(value)
        except OverflowError:  # an int or a fraction that no float holds
            exact: Any = value
            return math.inf if exact > 0 else -math.inf
        except Exception:  # numpy counts times among the numbers
            pass
    raise UserError(
        f"reward '{term.name}' returned {spelled(value):.80}, a {type(value).__name__}; "
        "each value must be a float, or None for an answer that cannot be scored"
    )


def rows_of_terms(
    terms: Sequence[RewardTerm], answers: int, columns: Mapping[str, Any]
) -> np.ndarray:
    """Return which rows each term scores, bool[N, terms]: those of its task, if it has one.

    Raises UserError where a term has a task and the dataset no column `task`.
    """
    applies = np.ones((answers, len(terms)), bool)
    for own, term in zip(applies.T, terms, strict=True):
        if term.task is not None:
            if "task" not in columns:
                raise UserError(
                    f"reward '{term.name}' is for task '{term.task}', but the records name no "
                    "task; a term has a task in a mixture alone"
                )
            own[:] = [task == term.task for task in columns["task"]]
    return applies


def check_lengths(
    answers: Sequence[str], thoughts: Sequence[str], columns: Mapping[str, Any]
) -> None:
    for name, column in {"thoughts": thoughts, **columns}.items():
        if len(column) != len(answers):
            raise UserError(
                f"column '{name}' has {len(column)} entries for {len(answers)} answers; "
                "every column needs one entry per answer"
            )


def select_columns(
    term: RewardTerm, wanted: frozenset[str] | None, columns: Mapping[str, Any]
) -> dict[str, Any]:
    selected = {name: c for name, c in columns.items() if wanted is None or name in wanted}
    clash = sorted(set(selected) & dict(term.options).keys())
    if clash:
        raise UserError(
            f"reward '{term.name}': {', '.join(clash)} is both an option and a column of the "
            "dataset; rename the column"
        )
    return selected
