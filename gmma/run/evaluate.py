"""Evaluate a policy on held-out examples: greedy and sampled, with 95 % intervals.

Evaluation has its own sampling settings and keys, apart from training. An answer that cannot be
read counts at its metric's worst value; nothing leaves the denominator. Intervals are over examples
(`gmma/intervals.py`), so that the answers to one example count as one observation. The uncertainty
of a metric of a whole split (COCO's AP) is that over resampled splits.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from gmma.config import ExperimentConfig
from gmma.errors import UserError
from gmma.files import RunPath, read_json, write_whole
from gmma.hardware.hosts import fetch_rows, gather_entries, own_part
from gmma.hardware.sharding import check_batch, check_copies, put_batch, put_whole
from gmma.intervals import Interval, difference_interval, mean_interval, score_interval
from gmma.rewards.service import Scorer
from gmma.run.assembly import Parts, own_terms
from gmma.run.feed import read_examples, read_prompts
from gmma.run.programs import Grow, make_grow
from gmma.sampling import GREEDY, SamplingConfig
from gmma.scoring import TreeTexts, read_texts, scorer_inputs
from gmma.tasks.judge import judge_of
from gmma.types import Example, Params, TreeRollout

BROKEN_KEPT = 200  # responses of a mode that broke the form, whose texts are kept
EVALUATION_SEED = 20_250_929  # its keys never meet those of a run


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The answers and metrics of a split's examples in each mode (`greedy`, `sampled`)."""

    split: str
    # Per metric and example: the mean of its answers; NaN where the metric is not the example's own
    values: dict[str, dict[str, list[float]]]
    # Metrics that only the whole split has: mean, low, high
    corpus: dict[str, dict[str, Interval]] = field(default_factory=dict)
    answers: dict[str, list[list[str]]] = field(default_factory=dict)  # "": there is none to read
    # Per mode [example, answer, all that the policy wrote], of the first that broke the form
    broken: dict[str, list[list[Any]]] = field(default_factory=dict)


def go_on() -> None:
    """Do nothing between two batches."""


@runtime_checkable
class Evaluator(Protocol):
    """Evaluate parameters on the first examples of a split; `between` is called between batches."""

    def __call__(
        self, params: Params, split: str, between: Callable[[], None] = go_on
    ) -> Evaluation: ...


def make_evaluator(parts: Parts) -> Evaluator:
    """Make the evaluation of a run's task and settings; two compiled rollouts."""
    config, settings = parts.config, parts.config.evaluation
    batch = ("evaluation.batch_prompts", settings.batch_prompts)
    check_batch(parts.mesh, *batch)
    check_copies(config.rollout_params, config.rollout_tensor, parts.mesh, *batch)
    modes = {
        "greedy": make_eval_grow(parts, 1, GREEDY),
        "sampled": make_eval_grow(parts, settings.samples, settings.sampling),
    }

    @cache
    def examples_of(split: str) -> list[Example]:
        return read_examples(parts, split, settings.examples)

    def evaluate(params: Params, split: str, between: Callable[[], None] = go_on) -> Evaluation:
        examples = examples_of(split)
        found = {
            mode: measure_mode(parts, grow, params, examples, between)
            for mode, grow in modes.items()
        }
        return Evaluation(
            split=split,
            values={mode: measured.values for mode, measured in found.items()},
            corpus={
                mode: corpus_figures(parts, examples, measured.answers)
                for mode, measured in found.items()
            },
            answers={mode: measured.answers for mode, measured in found.items()},
            broken={mode: measured.broken for mode, measured in found.items()},
        )

    return evaluate


def make_eval_grow(parts: Parts, thoughts: int, sampling: SamplingConfig) -> Grow:
    """Rollouts of so many thoughts, one answer each, with keys of evaluation's own."""
    shape = replace(parts.config.tree.shape, thoughts=thoughts, answers=1)
    return make_grow(parts, shape, sampling, EVALUATION_SEED)


@dataclass(frozen=True, kw_only=True)
class MeasuredMode:
    """One mode's outcome, an entry per example."""

    # Per metric: the mean of an example's answers, or what they say together (pass@k), or NaN
    values: dict[str, list[float]]
    answers: list[list[str]]
    broken: list[list[Any]]  # as an `Evaluation` has them


def measure_mode(
    parts: Parts,
    grow: Grow,
    params: Params,
    examples: list[Example],
    between: Callable[[], None] = go_on,
) -> MeasuredMode:
    """Return every metric of the task and the format rate, and the answers themselves.

    A metric that is not an example's own (in a mixture, another task's) is NaN in its place.
    """
    rows = parts.config.evaluation.batch_prompts
    figures: list[dict[str, float]] = []
    answers: list[list[str]] = []
    broken: list[list[Any]] = []
    for start in range(0, len(examples), rows):
        between()
        part = examples[start : start + rows]
        full = part + [part[-1]] * (rows - len(part))  # one static shape; what is added is cut off
        own = own_part(full)
        rollout = grow_examples(parts, grow, params, own, start // rows)
        everywhere = gather_entries(measure_examples(parts, own, rollout))
        figures += [entry["figures"] for entry in everywhere[: len(part)]]
        answers += [entry["answers"] for entry in everywhere[: len(part)]]
        broken += [
            [start + row, *found]
            for row, entry in enumerate(everywhere[: len(part)])
            for found in entry["broken"]
        ]
    names = dict.fromkeys(name for own in figures for name in own)
    values = {name: [own.get(name, np.nan) for own in figures] for name in names}
    return MeasuredMode(values=values, answers=answers, broken=broken[:BROKEN_KEPT])


def grow_examples(
    parts: Parts, grow: Grow, params: Params, examples: list[Example], step: int
) -> TreeRollout:
    """Grow the trees of this host's examples of a batch, and fetch them."""
    prompts = put_batch(read_prompts(parts, examples), parts.mesh)
    rollout = grow(params, prompts, put_whole(np.uint32(step), parts.mesh))
    return fetch_rows(rollout, parts.mesh)


def measure_examples(
    parts: Parts, examples: list[Example], rollout: TreeRollout
) -> list[dict[str, Any]]:
    """Return the figures of each example, NaN where a metric is not its own, and its texts."""
    texts = read_texts(rollout, parts.tokenizer, parts.template.tags)
    spoken = [[a or "" for branch in tree for a in branch] for tree in texts.answers]
    measured = measure_rollout(parts, examples, rollout, texts)
    figures = {name: found.mean(axis=1) for name, found in measured.items()}
    figures |= measure_groups(parts, examples, spoken, measured)
    figures |= measure_rewards(parts, examples, rollout, texts)
    return [
        {
            "figures": {name: float(found[row]) for name, found in figures.items()},
            "answers": own,
            "broken": broken_responses(texts, row),
        }
        for row, own in enumerate(spoken)
    ]


def broken_responses(texts: TreeTexts, row: int) -> list[tuple[int, str]]:
    """Return place and text of each response to an example that broke the form."""
    kept = (texts.well_formed[row] & texts.closed[row][:, None]).ravel()
    written = [text for branch in texts.responses[row] for text in branch]
    return [(at, text) for at, (text, ok) in enumerate(zip(written, kept, strict=True)) if not ok]


def measure_rollout(
    parts: Parts, examples: list[Example], rollout: TreeRollout, texts: TreeTexts
) -> dict[str, Float[np.ndarray, "B n"]]:
    """Measure every answer of a fetched rollout, `n = K·M` a row."""
    rows = len(examples)
    answers = [answer for tree in texts.answers for branch in tree for answer in branch]
    repeated = [example for example in examples for _ in range(len(answers) // rows)]
    metrics = parts.task.metrics(parts.config.task, [a or "" for a in answers], repeated)
    found = {name: np.asarray(values, float).reshape(rows, -1) for name, values in metrics.items()}
    found["format"] = (
        (texts.well_formed & rollout.closed[..., None]).reshape(rows, -1).astype(float)
    )
    return found


def open_judge(config: ExperimentConfig) -> Scorer:
    """Return the scorer of the user's own rewards, which are imported with the first call."""
    limits = config.rewards
    return judge_of(
        own_terms(config),
        workers=limits.workers,
        timeout_seconds=limits.timeout_seconds,
        memory_gigabytes=limits.memory_gigabytes,
    )


def measure_rewards(
    parts: Parts, examples: list[Example], rollout: TreeRollout, texts: TreeTexts
) -> dict[str, Float[np.ndarray, "B"]]:
    """Return `rewards/NAME` of each reward of the user's own: the mean of an example's answers.

    Answers that it could not score do not count; NaN where that is all of them. Gmma's own rewards
    have metrics of their tasks beside them.
    """
    config = parts.config
    if not (terms := own_terms(config)):
        return {}
    steps = config.rl.steps
    scored = open_judge(config).score(
        **scorer_inputs(examples, rollout, texts, step=steps, steps=steps)
    )
    values = np.ma.masked_invalid(scored.values.reshape(len(examples), -1, len(terms)))
    means = np.ma.filled(values.mean(axis=1), np.nan)
    return {f"rewards/{term.label}": means[:, at] for at, term in enumerate(terms)}


def measure_groups(
    parts: Parts,
    examples: list[Example],
    answers: list[list[str]],
    measured: Mapping[str, Float[np.ndarray, "B n"]],
) -> dict[str, Float[np.ndarray, "B"]]:
    """Return the task's figures of the answers to an example together; NaN where it gives none."""
    if parts.task.group_metrics is None:
        return {}
    rows = []
    for row, (example, own) in enumerate(zip(examples, answers, strict=True)):
        values = {name: found[row].tolist() for name, found in measured.items()}
        rows.append(parts.task.group_metrics(parts.config.task, own, example, values))
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.asarray([row.get(name, np.nan) for row in rows], float) for name in names}


def corpus_figures(
    parts: Parts, examples: list[Example], answers: list[list[str]]
) -> dict[str, Interval]:
    """Return the metrics of a whole split, all in [0, 1], with 95 % intervals.

    The score interval has as many trials as give the variance of the resampled splits, and at least
    as many as examples: percentiles at AP = 0 would claim that it is 0 for certain. With several
    answers per example, the first of each make one corpus, the second another, and the figure is
    their mean.
    """
    if parts.task.corpus is None:
        return {}
    picks = bootstrap_picks(len(examples), parts.config.evaluation.bootstrap)
    each = [
        parts.task.corpus(parts.config.task, spoken, examples, picks)
        for spoken in zip(*answers, strict=True)
    ]
    figures: dict[str, Interval] = {}
    for name in each[0]:
        resampled = np.mean([found[name].resampled for found in each], axis=0)
        value, variance = float(np.mean([found[name].value for found in each])), resampled.var()
        trials = value * (1 - value) / variance if variance else 0.0
        figures[name] = score_interval(value, max(trials, len(examples)))
    return figures


def bootstrap_picks(examples: int, resamples: int) -> Int[np.ndarray, "R N"]:
    """Return the rows of resampled examples, the same for every metric."""
    return np.random.default_rng(0).integers(0, examples, (resamples, examples))


def known(values: Sequence[float]) -> Float[np.ndarray, "n"]:
    """Drop NaN values: examples that do not have the metric.

    >>> known([0.5, float("nan"), 1.0]).tolist()
    [0.5, 1.0]
    """
    held = np.asarray(values, float)
    return held[~np.isnan(held)]


def summarise(evaluation: Evaluation) -> dict[str, Interval]:
    """Map `{mode}/{metric}` to mean, low, high, over the examples that have the metric."""
    means = {
        f"{mode}/{name}": mean_interval(held)
        for mode, metrics in evaluation.values.items()
        for name, values in metrics.items()
        if len(held := known(values))
    }
    whole = {
        f"{mode}/{name}": figures
        for mode, metrics in evaluation.corpus.items()
        for name, figures in metrics.items()
    }
    return means | whole


def difference(after: Evaluation, before: Evaluation) -> dict[str, Interval]:
    """Compare two evaluations example by example, after − before: these two models alone.

    Whether an example has a metric is a matter of the example, so those that have it pair up, also
    with an older file, which left the others out. A metric that one of them lacks has none.
    """
    return {
        f"{mode}/{name}": difference_interval(held - known(before.values[mode][name]))
        for mode, metrics in after.values.items()
        for name, values in metrics.items()
        if name in before.values[mode] and len(held := known(values))
    }


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Turn summary, per-example values (null if there is none) and answers into JSON values."""
    summary = {
        name: {"mean": mean, "low": low, "high": high}
        for name, (mean, low, high) in summarise(evaluation).items()
    }
    return {
        "split": evaluation.split,
        "summary": summary,
        "values": map_values(lambda value: None if np.isnan(value) else value, evaluation.values),
        "corpus": evaluation.corpus,
        "answers": evaluation.answers,
        "broken": evaluation.broken,
    }


def map_values(
    change: Callable[[Any], Any], values: Mapping[str, Mapping[str, Sequence[Any]]]
) -> dict[str, dict[str, list[Any]]]:
    """Apply a function to every value of every mode and metric."""
    return {
        mode: {name: [change(value) for value in own] for name, own in metrics.items()}
        for mode, metrics in values.items()
    }


def save_evaluation(path: RunPath, evaluation: Evaluation) -> None:
    """Save one evaluation as a JSON file."""
    write_whole(path, json.dumps(evaluation_to_json(evaluation)))


def load_evaluation(path: RunPath) -> Evaluation:
    """Load what `save_evaluation` wrote. UserError for any other file."""
    payload: Mapping = read_json(path)
    try:
        corpus = {
            mode: {name: tuple(figures) for name, figures in metrics.items()}
            for mode, metrics in payload.get("corpus", {}).items()  # absent in older runs
        }
        return Evaluation(
            split=payload["split"],
            values=map_values(lambda value: np.nan if value is None else value, payload["values"]),
            corpus=corpus,  # type: ignore[arg-type]
            answers=payload.get("answers", {}),
            broken=payload.get("broken", {}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no evaluation ({error!r}); restore or delete it") from error
