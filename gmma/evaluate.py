"""How good a policy is on held-out examples: greedy and sampled, with 95 % intervals.

Evaluation has its own sampling settings and keys, apart from training. An answer that cannot be
read counts at its metric's worst value; nothing leaves the denominator. Intervals are bootstrap
percentiles over examples, so that the answers to one example count as one observation.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from gmma.assembly import Parts
from gmma.data import batch_prompts
from gmma.programs import Grow, make_grow
from gmma.sampling import GREEDY
from gmma.scoring import read_texts
from gmma.sharding import put_batch, put_whole
from gmma.tree.layout import TreeShape
from gmma.types import Example, Params, TreeRollout

EVALUATION_SEED = 20_250_929  # its keys never meet those of a run


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Per mode (`greedy`, `sampled`) and metric, one value per example: the mean of its answers."""

    split: str
    values: dict[str, dict[str, list[float]]]


Evaluator = Callable[[Params], Evaluation]


def make_evaluator(parts: Parts, split: str) -> Evaluator:
    """params → evaluation on the first examples of a split; two compiled rollouts."""
    settings = parts.config.evaluation
    tree = parts.config.tree
    source = parts.task.source(parts.config.task, parts.config.data_dir, split)
    count = min(settings.examples, len(source))
    examples = [source[index] for index in range(count)]

    def grow_with(thoughts: int, sampling: object) -> Grow:
        shape = TreeShape(
            prompt=tree.prompt_tokens,
            thought=tree.thought_tokens,
            answer=tree.answer_tokens,
            thoughts=thoughts,
            answers=1,
        )
        return make_grow(parts, shape, sampling, EVALUATION_SEED)  # type: ignore[arg-type]

    modes = {
        "greedy": grow_with(1, GREEDY),
        "sampled": grow_with(settings.samples, settings.sampling),
    }

    def evaluate(params: Params) -> Evaluation:
        values = {mode: measure(parts, grow, params, examples) for mode, grow in modes.items()}
        return Evaluation(split=split, values=values)

    return evaluate


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
    prompts = batch_prompts(
        examples,
        parts.tokenizer,
        prompt_slots=parts.config.tree.prompt_tokens,
        processor=parts.processor,
        template=parts.template,
    )
    device_step = put_whole(np.uint32(step), parts.mesh)
    return jax.device_get(grow(params, put_batch(prompts, parts.mesh), device_step))


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
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = {"split": evaluation.split, "summary": summary, "values": evaluation.values}
    path.write_text(json.dumps(payload))


def load_evaluation(path: Path) -> Evaluation:
    """The inverse of `save_evaluation`."""
    payload: Mapping = json.loads(path.read_text())
    return Evaluation(split=payload["split"], values=payload["values"])
