"""Rewards as TRL, EasyR1 and verl call them, made functions of gmma's own signature.

    TRL     reward(prompts, completions, completion_ids, trainer_state, **columns) → list
    EasyR1  compute_score(reward_inputs) → list of dicts, or compute_score(reward_input) → dict
    verl    compute_score(data_source, solution_str, ground_truth, extra_info) → number or dict

Each of them sees the whole response: the tag `<think>`, which gmma's prompt ends with, and then all
that the policy wrote, tags included. A tag that gmma appended to a thought which ran out of slots
is not the policy's, and is left out. A function may be asynchronous (`async def`).
"""

import asyncio
import atexit
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Literal

from PIL import Image

from gmma.errors import UserError
from gmma.named import check_call, spelled

Signature = Literal["gmma", "trl", "trl_messages", "easyr1", "verl"]
_OURS = ("answers", "thoughts")
_MARKS: dict[Signature, tuple[str, ...]] = {  # a parameter that no other signature has
    "verl": ("solution_str",),
    "easyr1": ("reward_inputs", "reward_input"),
    "trl": ("prompts", "completions", "completion_ids", "completions_ids"),
}
# Before the name of a record's key that gmma has a column of the same name for
RENAMED = "record_"
_ONE_INPUT = "reward_input"  # of EasyR1's form for one answer
_TRUTHS = ("ground_truth", "answer")  # columns that hold the truth
_OF_TRL = (  # what a function of TRL's is told beside the columns
    *("prompts", "completions", "completion_ids", "completions_ids", "trainer_state"),
    *("log_extra", "log_metric"),
)


@dataclass(frozen=True, kw_only=True)
class TrainerState:
    """State of the training that TRL's rewards are told, as far as gmma has it."""

    global_step: int  # steps of RL that are done
    max_steps: int  # steps of RL in all


def in_our_signature(
    name: str, function: Callable[..., Any], signature: Signature | None, options: Iterable[str]
) -> Callable[..., Any]:
    """Return a reward of gmma's signature that calls a function of another.

    `signature` None: recognised by its parameters (`recognised`). `options` are keyword arguments
    that every call gets beside the columns. What the result names as parameters are the columns
    that it reads, `**columns` for all. Raises UserError where the function cannot be called so.
    """
    kind = signature or recognised(function)
    if kind == "gmma":
        return function
    given = tuple(options)
    if kind == "easyr1":
        check_call("reward", name, function, _ONE_INPUT, **dict.fromkeys(given, "…"))
        return from_easyr1(name, function, given)
    if kind == "verl":
        call = dict.fromkeys(("data_source", "solution_str", "ground_truth", "extra_info"), "…")
        check_call("reward", name, function, **_taken(function, call | dict.fromkeys(given, "…")))
        return from_verl(name, function, given)
    return from_trl(function, as_messages=kind == "trl_messages")


def recognised(function: Callable[..., Any]) -> Signature:
    """Return the signature that a function's parameters tell of; gmma's own where none does.

    Of TRL's two forms a function that names "content" in its code is given messages, another texts.
    """
    names = inspect.signature(function).parameters.keys()
    if names & set(_OURS):
        return "gmma"
    for signature, marks in _MARKS.items():
        if names & set(marks):
            messages = signature == "trl" and "content" in _constants(function)
            return "trl_messages" if messages else signature
    return "gmma"


def _constants(function: Any) -> set[object]:
    """Return the constants in a function's own code and in the functions inside it."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not inspect.isroutine(function):
        function = type(function).__call__
    found: set[object] = set()
    codes: list[object] = [getattr(function, "__code__", None)]
    while codes:
        code = codes.pop()
        if isinstance(code, CodeType):
            codes += code.co_consts
        else:
            found.add(code)
    return found


def from_trl(function: Callable[..., Any], *, as_messages: bool) -> Callable[..., Any]:
    """Make a reward of a function as TRL calls it, with texts or with messages.

    It gets every column of the record under the record's own name, `task` too, and images, where it
    names them, as PIL images. Tokens, which TRL's page calls `completions_ids`, and step are not
    there where it judges answers alone, as a task's metric. What it logs by `log_extra` and
    `log_metric` goes nowhere.
    """

    def reward(
        answers: Sequence[str],
        *,
        thoughts: Sequence[str],
        question: Sequence[str],
        response: Sequence[str],
        completion_ids: Sequence[Sequence[int]] = (),
        step: Sequence[int] = (),
        steps: Sequence[int] = (),
        **columns: Any,
    ) -> Any:
        if "images" in columns:
            columns["images"] = [[Image.fromarray(i) for i in own] for own in columns["images"]]
        own = {n.removeprefix(RENAMED): v for n, v in columns.items() if n.startswith(RENAMED)}
        given = columns | own
        given |= {
            "prompts": [_message("user", q) for q in question] if as_messages else list(question),
            "completions": (
                [_message("assistant", text) for text in response]
                if as_messages
                else list(response)
            ),
            "log_extra": _log_nothing,
            "log_metric": _log_nothing,
        }
        if completion_ids:
            ids = [list(own_ids) for own_ids in completion_ids]
            given |= {"completion_ids": ids, "completions_ids": ids}
        if step:
            given["trainer_state"] = TrainerState(global_step=step[0], max_steps=steps[0])
        with _called_as("trl_messages" if as_messages else "trl"):
            return resolve(function(**_taken(function, given)))

    return _reading(reward, function)


def _message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def _log_nothing(name: str, values: object) -> None:
    """Take what a reward logs."""


def from_easyr1(
    name: str, function: Callable[..., Any], options: Sequence[str]
) -> Callable[..., Any]:
    """Make a reward of EasyR1's `compute_score`, in its form for a batch or for one answer.

    Its inputs hold `response`, `response_length` in tokens, and `ground_truth`; `overall` of what
    it returns counts.
    """
    alone = _takes_one_input(function)

    def reward(
        answers: Sequence[str],
        *,
        thoughts: Sequence[str],
        response: Sequence[str],
        response_tokens: Sequence[int],
        **columns: Any,
    ) -> Any:
        own = {option: columns.pop(option) for option in options}
        inputs = [
            {"response": text, "response_length": length, "ground_truth": truth_of(name, row)}
            for text, length, row in zip(
                response, response_tokens, _rows(columns, len(answers)), strict=True
            )
        ]
        if alone:
            found = each([functools.partial(function, one, **own) for one in inputs], "easyr1")
        else:
            with _called_as("easyr1"):
                found = resolve(function(inputs, **own))
        if not isinstance(found, list | tuple):
            return found
        return [_score_in(value, "overall", name) for value in found]

    return reward


def _takes_one_input(function: Callable[..., Any]) -> bool:
    """Return whether it is for one answer: by its parameter's name, else as its module says."""
    names = inspect.signature(function).parameters
    if set(_MARKS["easyr1"]) & names.keys():
        return _ONE_INPUT in names
    return getattr(inspect.getmodule(function), "REWARD_TYPE", None) == "sequential"


def from_verl(
    name: str, function: Callable[..., Any], options: Sequence[str]
) -> Callable[..., Any]:
    """Make a reward of verl's `compute_score`, which is called for each answer.

    `data_source` is the record's column, or else the task's label in a mixture, or ""; `extra_info`
    the record's, or else all its columns. `score` counts where it returns a dict.
    """

    def reward(
        answers: Sequence[str], *, thoughts: Sequence[str], response: Sequence[str], **columns: Any
    ) -> list[Any]:
        own = {option: columns.pop(option) for option in options}
        calls = []
        for text, row in zip(response, _rows(columns, len(answers)), strict=True):
            source, extra = row.get("data_source"), row.get("extra_info")
            given = {
                "data_source": row.get("task", "") if source is None else source,
                "solution_str": text,
                "ground_truth": truth_of(name, row),
                "extra_info": row if extra is None else extra,
            }
            calls.append(functools.partial(function, **_taken(function, given | own)))
        return [_score_in(value, "score", name) for value in each(calls, "verl")]

    return reward


def truth_of(name: str, row: Mapping[str, Any]) -> Any:
    """Return the truth among a record's columns; UserError where there is no such column."""
    kept = row.get("reward_model")  # verl's own layout
    nested = kept.get("ground_truth") if isinstance(kept, Mapping) else None
    for truth in (row.get("ground_truth"), nested, row.get("answer")):
        if truth is not None:
            return truth
    if not row.keys() & set(_TRUTHS):
        raise UserError(
            f"reward '{name}' wants a ground truth, but the records have no column "
            f"{' or '.join(_TRUTHS)}; they have {', '.join(sorted(row)) or 'none'}"
        )
    return None


def each(calls: Iterable[Callable[[], Any]], signature: Signature) -> list[Any]:
    """Return what each call gives, or the exception that it raises, which is that call's alone.

    Asynchronous ones run at the same time.
    """
    found: list[Any] = []
    for call in calls:
        try:
            found.append(call())
        except Exception as error:
            found.append(error)
    if any(map(inspect.isawaitable, found)):
        found = _loop().run(_settle(found))
    for value in found:
        if isinstance(value, Exception):
            _say_call(value, signature)
    return found


def resolve(found: Any) -> Any:
    """Return what a function gave; where it is asynchronous, what that comes to."""
    return _loop().run(_await(found)) if inspect.isawaitable(found) else found


@functools.cache
def _loop() -> asyncio.Runner:
    """Return the process's loop: a client that a function keeps belongs to the loop it began in."""
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


async def _await(found: Any) -> Any:
    return await found if inspect.isawaitable(found) else found


async def _settle(found: Sequence[Any]) -> list[Any]:
    return await asyncio.gather(*map(_await, found), return_exceptions=True)


def _score_in(value: Any, key: str, name: str) -> Any:
    """Return the number that counts in what a function returned for an answer."""
    if not isinstance(value, Mapping):
        return value
    if key not in value:
        raise UserError(
            f"reward '{name}' returned {spelled(value):.80}, which has no '{key}'; "
            f"it must return a number as '{key}'"
        )
    return value[key]


def _rows(columns: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Any]]:
    return [{name: column[at] for name, column in columns.items()} for at in range(count)]


def _taken(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a function takes by keyword of what it is given."""
    parameters = inspect.signature(function).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return dict(given)
    return {name: value for name, value in given.items() if name in parameters}


def _reading(reward: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a reward as parameters what it needs itself and the columns that a function names.

    One may have been renamed, for gmma has a column of that name.
    """
    own = inspect.signature(reward).parameters.values()
    named = inspect.signature(function).parameters.values()
    found = {one.name: one for one in own if one.kind is not one.VAR_KEYWORD}
    for one in named:
        if one.kind is one.VAR_KEYWORD:
            found[one.name] = one
        elif one.kind is not one.VAR_POSITIONAL:
            own_name = one.replace(kind=one.KEYWORD_ONLY)
            told = own_name.replace(default=None)
            found.setdefault(one.name, told if one.name in _OF_TRL else own_name)
            renamed = RENAMED + one.name
            found.setdefault(renamed, told.replace(name=renamed))
    order = sorted(found.values(), key=lambda one: one.kind)
    reward.__signature__ = inspect.Signature(order)  # type: ignore[attr-defined]
    return reward


@contextlib.contextmanager
def _called_as(signature: Signature) -> Iterator[None]:
    """Add to an error how the function was called: it may be meant for another signature."""
    try:
        yield
    except Exception as error:
        _say_call(error, signature)
        raise


def _say_call(error: Exception, signature: Signature) -> None:
    note = f"called as {signature}; say another by rewards.terms.N.signature"
    if signature == "trl":  # a helper may name "content", which its caller's code does not show
        note += ' (trl_messages where completions are messages, completion[0]["content"])'
    error.add_note(note)
