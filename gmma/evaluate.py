"""How good a policy is on held-out examples: greedy and sampled, with 95 % intervals.

Evaluation has its own sampling settings and keys, apart from training. An answer that cannot be
read counts at its metric's worst value; nothing leaves the denominator. Intervals are bootstrap
percentiles over examples, so that the answers to one example count as one observation.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from gmma.assembly import Parts
from gmma.feed import read_prompts
from gmma.files import read_json, write_whole
from gmma.programs import Grow, make_grow
from gmma.sampling import GREEDY, SamplingConfig
from gmma.scoring import read_texts
from gmma.sharding import check_batch, put_batch, put_whole
from gmma.types import Example, Params, TreeRollout

EVALUATION_SEED = 20_250_929  # its keys never meet those of a run


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Per mode (`greedy`, `sampled`) and metric, one value per example: the mean of its answers."""

    split: str
    values: dict[str, dict[str, list[float]]]


Evaluator = Callable[[Params, str], Evaluation]


def make_evaluator(parts: Parts) -> Evaluator:
    """(params, split) → evaluation on the split's first examples; two compiled rollouts."""
    settings = parts.config.evaluation
    check_batch(parts.mesh, "evaluation.batch_prompts", settings.batch_prompts)
    modes = {
        "greedy": make_eval_grow(parts, 1, GREEDY),
        "sampled": make_eval_grow(parts, settings.samples, settings.sampling),
    }

    @cache
    def examples_of(split: str) -> list[Example]:
        source = parts.task.source(parts.config.task, parts.config.data_dir, split)
        return [source[index] for index in range(min(settings.examples, len(source)))]

    def evaluate(params: Params, split: str) -> Evaluation:
        examples = examples_of(split)
        values = {mode: measure(parts, grow, params, examples) for mode, grow in modes.items()}
        return Evaluation(split=split, values=values)

    return evaluate


def make_eval_grow(parts: Parts, thoughts: int, sampling: SamplingConfig) -> Grow:
    """Rollouts of so many thoughts, one answer each, with keys of evaluation's own."""
    shape = replace(parts.config.tree.shape, thoughts=thoughts, answers=1)
    return make_grow(parts, shape, sampling, EVALUATION_SEED)


def measure(
    parts: Parts, grow: Grow, params: Params, examples: list[Example]
) -> dict[str, list[float]]:
    """Every metric of the task and the format rate, one mean per example."""
    rows = parts.config.evaluation.batch_prompts
    found: dict[str, list[float]] = {}
    for start in range(0, len(examples), rows):
        part = examples[start : start + rows]
        full = part + [part[-1]] * (rows - len(part))  # one static shape; what is added is cut off
        rollout = grow_examples(parts, grow, params, full, start // rows)
        for name, values in measure_rollout(parts, full, rollout).items():
            found.setdefault(name, []).extend(values[: len(part)].mean(axis=1).tolist())
    return found


def grow_examples(
    parts: Parts, grow: Grow, params: Params, examples: list[Example], step: int
) -> TreeRollout:
    """Trees of a batch of examples, fetched to the host."""
    prompts = put_batch(read_prompts(parts, examples), parts.mesh)
    return jax.device_get(grow(params, prompts, put_whole(np.uint32(step), parts.mesh)))


def measure_rollout(
    parts: Parts, examples: list[Example], rollout: TreeRollout
) -> dict[str, Float[np.ndarray, "B n"]]:
    """Metrics of every answer of a fetched rollout, `n = K·M` a row."""
    texts = read_texts(rollout, parts.tokenizer)
    rows = len(examples)
    answers = [answer for tree in texts.answers for branch in tree for answer in branch]
    repeated = [example for example in examples for _ in range(len(answers) // rows)]
    metrics = parts.task.metrics(parts.config.task, [a or "" for a in answers], repeated)
    found = {name: np.asarray(values, float).reshape(rows, -1) for name, values in metrics.items()}
    well_formed = np.asarray([answer is not None for answer in answers], float)
    found["format"] = well_formed.reshape(rows, -1) * np.repeat(
        rollout.closed, rollout.answers.shape[2], axis=1
    )
    return found


def interval(values: Float[np.ndarray, "N"], resamples: int) -> tuple[float, float, float]:
    """Mean and the 2.5 and 97.5 % points of its bootstrap distribution over examples."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def summarise(evaluation: Evaluation, resamples: int) -> dict[str, tuple[float, float, float]]:
    """`{mode}/{metric}` → mean, low, high."""
    return {
        f"{mode}/{name}": interval(np.asarray(values), resamples)
        for mode, metrics in evaluation.values.items()
        for name, values in metrics.items()
    }


def difference(
    after: Evaluation, before: Evaluation, resamples: int
) -> dict[str, tuple[float, float, float]]:
    """Paired differences, example by example, after − before."""
    return {
        f"{mode}/{name}": interval(
            np.asarray(values) - np.asarray(before.values[mode][name]), resamples
        )
        for mode, metrics in after.values.items()
        for name, values in metrics.items()
    }


def save_evaluation(path: Path, evaluation: Evaluation, resamples: int) -> None:
    """Summary and per-example values as JSON."""
    summary = {
        name: {"mean": mean, "low": low, "high": high}
        for name, (mean, low, high) in summarise(evaluation, resamples).items()
    }
    payload = {"split": evaluation.split, "summary": summary, "values": evaluation.values}
    write_whole(path, json.dumps(payload))


def load_evaluation(path: Path) -> Evaluation:
    """The inverse of `save_evaluation`."""
    payload: Mapping = read_json(path)
    return Evaluation(split=payload["split"], values=payload["values"])
