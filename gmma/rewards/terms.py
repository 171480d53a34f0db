"""A named term of the reward: how it is found, and how it is asked for one answer."""

import copy
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np

from gmma.errors import UserError, printable
from gmma.named import spelled
from gmma.rewards import REWARDS
from gmma.rewards.outcomes import CRASH, SCORED, UNFINISHED, UNPARSABLE, Outcome, UnfinishedError
from gmma.rewards.signatures import RENAMED, Signature, in_our_signature, resolve

Reward = Callable[..., Any]  # what a user returns is checked, not believed
# Beyond these a group's variance is no float32: every advantage of the group would be 0.
LARGEST_VALUE, LARGEST_WEIGHT = 1e9, 1e6
# What gmma says of an answer; no record may have a column of that name, nor one called `task`.
OF_ANSWERS = (
    "closed",
    "finished",
    "response_tokens",
    "response",
    "completion_ids",
    "step",
    "steps",
)
RESERVED = frozenset(("answers", "thoughts", "task", *OF_ANSWERS))
# Sent to a worker only where a reward names them as parameters: `**columns` does not ask for them.
ON_REQUEST = frozenset(("images", "completion_ids"))
# Of gmma's own, those that read no text: none can fail or take long, and a call gets many answers.
TEXTLESS = frozenset(("format", "soft_overlong"))
TEXTLESS_BATCH = 64
Units = tuple[tuple[int, int], ...]  # pairs of an answer and a term


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
    # How your own is called: gmma, trl, trl_messages (conversational), easyr1 or verl; None: as its
    # parameters tell
    signature: Signature | None = None
    batch: int = 1  # answers that a call of your own gets; what breaks a call costs all of them

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"reward '{self.name}': batch is {self.batch}; it must be 1 or more")
        if self.name in REWARDS and (self.batch > 1 or self.signature not in (None, "gmma")):
            raise UserError(
                f"reward '{self.name}' is gmma's own: batch and signature are for yours, given as "
                "module:function"
            )
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
    """Return the function of a term, in gmma's signature whatever its own is.

    Raises UserError if there is none, its import fails, or it cannot be called so.
    """
    reward = REWARDS.find(term.name)
    if not callable(reward):
        raise UserError(f"reward '{term.name}' is of type {type(reward).__name__}, not a function")
    if inspect.isclass(reward):
        raise UserError(
            f"reward '{term.name}' is a class, not a function; name an object of it: "
            f"NAME = {reward.__name__}() in its module"
        )
    if term.name in REWARDS:
        return reward
    return in_our_signature(term.name, reward, term.signature, dict(term.options))


class Reads(NamedTuple):
    """The columns that a reward takes: those it names, and perhaps the rest (`**columns`)."""

    names: frozenset[str]
    rest: bool
    needed: frozenset[str] = frozenset()  # of a user's function: those without which it fails

    def takes(self, column: str) -> bool:
        """Return whether a column is handed over."""
        return column in self.names or (self.rest and column not in ON_REQUEST)


def columns_read(term: RewardTerm, reward: Reward) -> Reads:
    """Return the columns that a term's function takes.

    Of gmma's own, only what they name, and no option: a record may well have a key `reading`.
    """
    parameters = inspect.signature(reward).parameters.values()
    names = frozenset(one.name for one in parameters)
    if term.name not in REWARDS:
        given = {"thoughts", *dict(term.options)}
        needed = frozenset(
            one.name
            for one in list(parameters)[1:]  # the first are the answers
            if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        )
        rest = any(one.kind is one.VAR_KEYWORD for one in parameters)
        return Reads(names=names, rest=rest, needed=needed - given)
    options = {one.name for one in parameters if isinstance(one.default, str | int | float)}
    return Reads(names=names - options - {"try_seconds"}, rest=False)


def takes_time_limit(reward: Reward) -> bool:
    """Return whether a reward takes `try_seconds`, and so may be asked for a short try."""
    return "try_seconds" in inspect.signature(reward).parameters


def score_call(
    term: RewardTerm,
    reward: Reward,
    answers: Sequence[str],
    thoughts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    try_seconds: float | None = None,
) -> list[Outcome]:
    """Ask one reward for the answers of one call (`calls_of`): of most, one answer.

    One at a time, so that the result cannot depend on which answers share a batch, and that an
    answer which breaks its scorer is known. A user's own reward is given a copy of the columns: the
    answers to a question share them, and what one call changes must not be the next one's truth.
    An exception is a `crash` of every answer of the call, as is a value that is not finite or
    beyond `LARGEST_VALUE` of its own. With `try_seconds` a reward that takes them may say
    `unfinished`. Raises UserError for a wrong length or type: a mistake in the reward itself.
    """
    taken = {name: list(column) for name, column in columns.items()}
    limit = {} if try_seconds is None else {"try_seconds": try_seconds}
    given, count = (list(answers), list(thoughts)), len(answers)
    try:
        if term.name not in REWARDS:
            taken = copy.deepcopy(taken)
        values = reward(given[0], thoughts=given[1], **taken, **dict(term.options), **limit)
        values = resolve(values)
    except UserError:
        raise
    except UnfinishedError as unfinished:
        return [Outcome(UNFINISHED, unfinished.value)] * count
    except (Exception, SystemExit) as error:  # sys.exit(0) must not end a run as if it were done
        return [_crash(error)] * count
    _check_values(term, values, count)
    return [_crash(v) if isinstance(v, Exception) else _outcome(_number(term, v)) for v in values]


def _crash(error: BaseException) -> Outcome:
    notes = getattr(error, "__notes__", ())
    words = "; ".join((f"{type(error).__name__}: {spelled(error, str)}", *notes))
    return Outcome(CRASH, message=printable(words[:500]))


def _outcome(value: float | None) -> Outcome:
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


def _check_values(term: RewardTerm, values: Any, count: int) -> None:
    """Raise UserError unless a reward returned a list with a value for each of so many answers."""
    wanted = "it must return a list with one float or None per answer"
    if not isinstance(values, (list, tuple, np.ndarray)):
        raise UserError(f"reward '{term.name}' returned a {type(values).__name__}; {wanted}")
    if isinstance(values, np.ndarray) and values.ndim == 0:
        shown = f"{spelled(values):.80}"
        raise UserError(f"reward '{term.name}' returned an array without axes, {shown}; {wanted}")
    if len(values) != count:
        answers = "1 answer" if count == 1 else f"{count} answers"
        raise UserError(
            f"reward '{term.name}' returned {len(values)} values for {answers}; {wanted}"
        )


def _number(term: RewardTerm, value: Any) -> float | None:
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


def units_of(applies: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of an answer and a term that applies to it, from bool[N, terms]."""
    return [(item, index) for item, index in np.argwhere(applies).tolist()]


def calls_of(terms: Sequence[RewardTerm], units: Sequence[tuple[int, int]]) -> list[Units]:
    """Divide pairs of an answer and a term into calls: single pairs, or as many as a call gets.

    That is a term's batch, and more where a reward of gmma's reads no text. The answers of a call
    lie far apart: they are of different prompts.

    >>> calls_of([RewardTerm("exact"), RewardTerm("my:own", batch=2)], [(0, 0), (0, 1), (1, 1)])
    [((0, 0),), ((0, 1), (1, 1))]
    """
    sizes = [TEXTLESS_BATCH if term.name in TEXTLESS else term.batch for term in terms]
    calls: list[Units] = [(unit,) for unit in units if sizes[unit[1]] == 1]
    for index, size in enumerate(sizes):
        if size > 1:
            own = [unit for unit in units if unit[1] == index]
            count = math.ceil(len(own) / size)
            calls += [tuple(own[at::count]) for at in range(count)]
    return calls


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


def check_columns(term: RewardTerm, reads: Reads, columns: Mapping[str, Any]) -> None:
    """Raise UserError where a reward wants a column that no record has."""
    if lacking := lacking_columns(reads, columns):
        raise UserError(
            f"reward '{term.name}' wants {', '.join(lacking)}, of which there is no column; there "
            f"are {', '.join(sorted(columns))}; rename its parameter, or give it a default"
        )


def lacking_columns(reads: Reads, columns: Mapping[str, Any]) -> list[str]:
    """Return the columns that a reward cannot do without and that are not there."""
    return sorted(name for name in reads.needed if not {name, RENAMED + name} & columns.keys())


def select_columns(
    term: RewardTerm, reads: Reads, columns: Mapping[str, Any], count: int
) -> dict[str, Any]:
    """Return the columns of `count` answers to hand to a reward.

    One that it needs and that no record of this batch has is None for each, as it is for a record
    that lacks another's: what the trial found in some records need not be in every batch. Raises
    UserError where a column has the name of an option.
    """
    selected = {name: column for name, column in columns.items() if reads.takes(name)}
    selected |= {name: [None] * count for name in lacking_columns(reads, columns)}
    clash = sorted(set(selected) & dict(term.options).keys())
    if clash:
        raise UserError(
            f"reward '{term.name}': {', '.join(clash)} is both an option and a column of the "
            "dataset; rename the column"
        )
    return selected
