"""Rewards that tell no answer from another: in a trial before the run, and in its steps.

Where all answers to a prompt earn the same, every advantage is 0 and nothing is learnt, with no
other sign of it. It may be meant so, so it is a warning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmma.named import spelled
from gmma.options.prompt import DEFAULT_TAGS, Tags
from gmma.rewards.outcomes import Scored
from gmma.rewards.service import Scorer, weighted_rewards
from gmma.rewards.terms import RewardTerm
from gmma.run.assembly import Parts
from gmma.scoring import reward_columns
from gmma.tasks.task import Demonstration
from gmma.text.prompt import answer_text, thought_text
from gmma.types import Example

_COLUMNS_SHOWN = 100  # characters of a record's columns in a line
_LOOK = (
    "look at what it does with that (a function of TRL's, EasyR1's or verl's is given the whole "
    "response, any other the answer), and with the types of the columns that it compares it with "
    "(docs/tasks.md, A reward of your own)"
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One answer that is tried: what SFT shows of it or of another record, or none at all."""

    example: Example
    thought: str
    answer: str
    complete: bool  # closed and finished; else what a model leaves that runs out of slots


def trial_warnings(parts: Parts, scorer: Scorer, examples: Sequence[Example]) -> list[str]:
    """Warn of rewards that are the same for every trial answer of a task.

    Looks at the user's own terms and at the weighted sum. gmma's own terms may well be constant
    here, such as the form of answers that all have it.
    """
    rng = np.random.default_rng(0)  # one for all: a teacher that errs does not err alike in each
    shown = [demonstrated(parts, example, rng) for example in examples]
    tasks = dict.fromkeys(example.columns.get("task") for example in examples)
    slots = parts.config.tree.thought_tokens + parts.config.tree.answer_tokens
    found: list[str] = []
    for task in tasks:
        own = [
            pair
            for pair in zip(examples, shown, strict=True)
            if pair[0].columns.get("task") == task
        ]
        found += constant_words(scorer, trials_of(own), slots, task, parts.template.tags)
    return list(dict.fromkeys(found))


def demonstrated(parts: Parts, example: Example, rng: np.random.Generator) -> Demonstration:
    """Return the answer that SFT would show for an example, or else its truth as text."""
    shown = None
    if parts.task.demonstrate is not None:
        shown = parts.task.demonstrate(parts.config.task, example, rng)
    truth = str(example.columns.get("answer", ""))
    return shown or Demonstration(thought="", answer=truth)


def trials_of(shown: Sequence[tuple[Example, Demonstration]]) -> list[Trial]:
    """Pair each record with its own answer, the next one's if that is another, and no answer."""
    trials = []
    for at, (example, own) in enumerate(shown):
        other = shown[(at + 1) % len(shown)][1]
        told = [own, other] if other.answer != own.answer else [own]
        trials += [
            Trial(example=example, thought=one.thought, answer=one.answer, complete=True)
            for one in told
        ]
        trials.append(Trial(example=example, thought="", answer="", complete=False))
    return trials


def constant_words(
    scorer: Scorer, trials: Sequence[Trial], slots: int, task: Any, tags: Tags = DEFAULT_TAGS
) -> list[str]:
    """Return a warning for each of the user's terms that is constant, or for the sum of all.

    An answer that is missing took all `slots` tokens of a thought and an answer.
    """
    scored = scorer.score(
        [trial.answer for trial in trials],
        thoughts=[trial.thought for trial in trials],
        columns=trial_columns(trials, slots, tags),
    )
    where = "" if task is None else f" of task {task}"
    seen = example_words(trials[0], tags)
    found = [
        f"reward '{term.name}' gave {values[0]:g} to each of {len(trials)} trial answers{where}: "
        f"what SFT shows of them, the same of other records, and none at all. {seen}; {_LOOK}"
        for term, values, applies in zip(
            scorer.terms, scored.values.T, scored.applies.T, strict=True
        )
        if ":" in term.name and applies.all() and is_constant(values)
    ]
    rewards = weighted_rewards(scored, scorer.terms)
    if not found and is_constant(rewards):
        found.append(
            f"the weighted sum of rewards is {rewards[0]:g} for each of {len(trials)} trial "
            f"answers{where}: what SFT shows, the same of other records, and none. {seen}; look at "
            "what rewards.terms read, and at their weights"
        )
    return found


def trial_columns(
    trials: Sequence[Trial], slots: int, tags: Tags = DEFAULT_TAGS
) -> dict[str, Sequence[Any]]:
    """Return what rewards get by keyword; a complete response counts one token, another `slots`.

    The tokens themselves are made up, since no policy wrote them.
    """
    lengths = [1 if trial.complete else slots for trial in trials]
    complete = [trial.complete for trial in trials]
    of_answers: dict[str, Sequence[Any]] = {
        "closed": complete,
        "finished": complete,
        "response_tokens": lengths,
        "response": [written(trial, tags) for trial in trials],
        "completion_ids": [[0] * length for length in lengths],
    }
    return reward_columns([trial.example for trial in trials], of_answers, step=0, steps=1)


def written(trial: Trial, tags: Tags) -> str:
    """Return the whole response, as a policy would have written it."""
    opened = tags.think[0] + trial.thought
    if not trial.complete:
        return opened
    return thought_text(opened, tags) + answer_text(trial.answer, tags)


def trial_lines(terms: Sequence[RewardTerm], trials: Sequence[Trial], scored: Scored) -> list[str]:
    """Word a line a record: what each term gave its answer, the answer, and the record's columns.

    Nothing where all terms are gmma's own.
    """
    if not any(":" in term.name for term in terms):
        return []
    lines = ["the rewards of true answers, as text:"]
    for trial, values, applies in zip(trials, scored.values, scored.applies, strict=True):
        own = zip(terms, values, applies, strict=True)
        given = ", ".join(f"{term.label} {value:.3g}" for term, value, counts in own if counts)
        columns = ", ".join(f"{k}={cut(spelled(v), 40)}" for k, v in trial.example.columns.items())
        lines.append(f"  {given} for {cut(repr(trial.answer), 40)}; {cut(columns, _COLUMNS_SHOWN)}")
    return lines


def cut(text: str, width: int) -> str:
    """Return a text in one line, cut where it is longer, with a sign that it is.

    >>> cut("['cross', 'square']", 12), cut("[1, 2]", 12)
    ("['cross', …]", '[1, 2]')
    """
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    closing = {"[": "]", "(": ")", "{": "}", "'": "'", '"': '"'}.get(text[0], "")
    return text[: width - 1 - len(closing)] + "…" + closing


def is_constant(values: np.ndarray) -> bool:
    """Return whether all are scored, and all the same."""
    return bool(np.isfinite(values).all() and np.ptp(values) == 0)


def example_words(trial: Trial, tags: Tags) -> str:
    """Return a true answer, the response that it stands in, and the column that holds the truth."""
    told = f"An answer is the text {cut(repr(trial.answer), 60)}"
    told += f", the response {cut(repr(written(trial, tags)), 160)}"
    if "answer" not in trial.example.columns:
        return told
    truth = trial.example.columns["answer"]
    return f"{told}, its column answer the {type(truth).__name__} {cut(spelled(truth), 60)}"


def count_alike(so_far: int, limit: int, record: Mapping[str, Any]) -> int:
    """Count steps in a row in which all trees had equal rewards; beyond `limit` it stays.

    The count equals the limit once in a run.

    So a count is equal to the limit once in a run.

    >>> [count_alike(n, 2, {"frac_reward_zero_std": 1.0}) for n in (0, 1, 2, 3)]
    [1, 2, 3, 3]
    >>> count_alike(1, 2, {"frac_reward_zero_std": 0.9})
    0
    """
    if so_far >= limit:
        return limit + 1
    return so_far + 1 if record.get("frac_reward_zero_std") == 1 else 0


def alike_words(limit: int, record: Mapping[str, Any]) -> str:
    """Word the warning that no reward has differed within its group for so many steps."""
    return (
        f"frac_reward_zero_std = 1 for {limit} steps in a row (reward {record['reward']:.3g}): all "
        "answers to each prompt earned the same, so every advantage was 0 and nothing is learnt. "
        "Look at the trees in samples/ and at rewards/…/mean of each term: the reward may not read "
        "what the answers say, the job may be too hard or too easy for this model, the temperature "
        "too low, or the answers cut off by tree.answer_tokens"
    )
