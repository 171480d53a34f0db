"""A run's model on benchmarks beside its own task: figures, JSON, pictures of best and worst.

A benchmark is named by its task, whose default config (or the run's own) then says which records,
or by an experiment file and its options, which besides brings its slots, its number of samples and
its sampling.
`all` is every task; one that cannot be tried is left out, and the table says why.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gmma.config import EvalConfig, ExperimentConfig, RewardConfig
from gmma.errors import UserError
from gmma.families.tiny.network import TinyConfig
from gmma.files import RunPath, write_whole
from gmma.hardware import hosts
from gmma.intervals import Interval
from gmma.rewards import REWARDS
from gmma.rewards.terms import RewardTerm
from gmma.run.assembly import Parts, assemble
from gmma.run.evaluate import (
    Evaluation,
    evaluation_to_json,
    make_evaluator,
    summarise,
)
from gmma.run.feed import read_examples
from gmma.run.sources import with_copies
from gmma.run.subject import SLOTS_STEP
from gmma.tasks import TASKS, find_task
from gmma.tasks.configs import TaskConfig
from gmma.tasks.defaults import Said, draw_answers
from gmma.text.prompt import prompt_tokens
from gmma.types import Params

ALL = "all"
NEEDS_CONFIG = ("mixture",)  # tasks that are made of others, and are nothing by default


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One thing to evaluate, under a name of its own."""

    name: str
    config: ExperimentConfig  # the run's model on this task
    may_fail: bool = False  # leave it out with its reason instead of raising it


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """The result of a benchmark: an evaluation, or the reason why there is none."""

    name: str
    evaluation: Evaluation | None = None
    summary: dict[str, Interval] | None = None
    pictures: tuple[RunPath, ...] = ()
    reason: str = ""


def choose_benchmarks(
    own: ExperimentConfig,
    names: Sequence[str],
    load: Callable[[str], ExperimentConfig],
    settings: Callable[[EvalConfig], EvalConfig],
) -> list[Benchmark]:
    """Return the benchmarks of some names; none names the run's own task.

    `load` reads an experiment file with its options, `settings` lays what was given on the command
    line over an evaluation's own. Raises UserError for a name that is neither.
    """
    ours = Benchmark(name=own.task.name, config=with_settings(own, own, settings))
    chosen: dict[str, Benchmark] = {} if names else {ours.name: ours}
    for name in names:
        if name == ALL:
            chosen[ours.name] = ours
            others = [task for task in TASKS if task not in (ours.name, *NEEDS_CONFIG)]
            found = [of_task(own, task, settings, may_fail=True) for task in others]
        elif name.endswith(".py") or ".py " in name:
            found = [with_experiment(own, load(name), settings)]
        elif name == ours.name:
            found = [ours]
        else:
            found = [of_task(own, name, settings)]
        for benchmark in found:
            if chosen.get(benchmark.name, benchmark).config != benchmark.config:
                raise UserError(f"two different benchmarks are named {benchmark.name}; give --name")
            chosen[benchmark.name] = benchmark
    return list(chosen.values())


def of_task(
    own: ExperimentConfig,
    name: str,
    settings: Callable[[EvalConfig], EvalConfig],
    *,
    may_fail: bool = False,
) -> Benchmark:
    """Return the run's model before a task with its default config."""
    config = replace(own, task=default_config(name), rewards=for_any_task(own.rewards))
    return Benchmark(name=name, config=with_settings(own, config, settings), may_fail=may_fail)


def default_config(name: str) -> TaskConfig:
    """Return a task's default config. UserError where there is no such task, or it has none."""
    if name in NEEDS_CONFIG:
        raise UserError(f"task {name} has no default config; give an experiment file")
    if name not in TASKS and ":" not in name:
        raise UserError(
            f"no task {name!r}; choose one of {', '.join(TASKS)}, {ALL}, give your own as "
            "module:NAME, or an experiment file"
        )
    try:
        found: TaskConfig = find_task(name).config()
    except TypeError as error:
        raise UserError(
            f"task {name} has no default config ({error}); give an experiment file"
        ) from None
    return found


def for_any_task(rewards: RewardConfig) -> RewardConfig:
    """Take the parts of a mixture off its terms, and leave out the user's own.

    Another task has neither those parts nor the columns that the user's rewards read. What is left
    is not asked here.
    """
    kept = [replace(term, task=None) for term in rewards.terms if term.name in REWARDS]
    return replace(rewards, terms=tuple(kept) or (RewardTerm("format"),))


def with_experiment(
    own: ExperimentConfig,
    other: ExperimentConfig,
    settings: Callable[[EvalConfig], EvalConfig],
) -> Benchmark:
    """Return the run's model on an experiment's task, as that experiment evaluates it."""
    slots = replace(
        own.tree,
        prompt_tokens=other.tree.prompt_tokens,
        thought_tokens=other.tree.thought_tokens,
        answer_tokens=other.tree.answer_tokens,
    )
    config = replace(own, task=other.task, rewards=other.rewards, tree=slots)
    return Benchmark(name=other.name, config=with_settings(other, config, settings))


def with_settings(
    origin: ExperimentConfig,
    config: ExperimentConfig,
    settings: Callable[[EvalConfig], EvalConfig],
) -> ExperimentConfig:
    """Make a config that evaluates as `origin` does, but for what the command line says."""
    return replace(config, evaluation=settings(origin.evaluation))


def benchmark_parts(own: Parts, config: ExperimentConfig, split: str) -> Parts:
    """Return the run's model before another task, with as many prompt slots as its examples need.

    The tiny family keeps the vocabulary it was trained with.
    """
    config = with_copies(config)
    if config.task == own.config.task and config.tree == own.config.tree:
        return replace(own, config=config)
    build_dataset(config)
    parts = replace(own, config=config, task=find_task(config.task.name))
    longest = longest_prompt(parts, split)
    slots = max(config.tree.prompt_tokens, -(-longest // SLOTS_STEP) * SLOTS_STEP)
    config = replace(config, tree=replace(config.tree, prompt_tokens=slots))
    if isinstance(config.model, TinyConfig):
        return replace(parts, config=config)
    return assemble(config)  # a ported processor's buckets depend on the slots


def build_dataset(config: ExperimentConfig) -> None:
    """Build the dataset of a benchmark if it is not there. UserError where that fails."""
    wrong: UserError | None = None
    with hosts.leader_first("the dataset"):
        try:
            here = with_copies(config)
            find_task(here.task.name).build(here.task, here.launch.data_dir)
        except UserError as error:
            wrong = error  # raised behind the block, so that the other hosts go on too
    if wrong is not None:
        raise wrong


def longest_prompt(parts: Parts, split: str) -> int:
    """Count the tokens of the longest prompt that will be evaluated."""
    examples = read_examples(parts, split, parts.config.evaluation.examples)
    return max(
        len(
            prompt_tokens(
                example.question,
                [parts.processor.view_tokens(image) for image in example.images],
                parts.tokenizer,
                parts.template,
                example.system,
            )
        )
        for example in examples
    )


def run_benchmark(
    benchmark: Benchmark, own: Parts, params: Params, split: str, directory: RunPath, pictures: int
) -> BenchmarkResult:
    """Evaluate, and draw the best and the worst examples into `directory/NAME`."""
    try:
        parts = benchmark_parts(own, benchmark.config, split)
        evaluation = make_evaluator(parts)(params, split)
    except UserError as error:
        if not benchmark.may_fail:
            raise
        return BenchmarkResult(name=benchmark.name, reason=str(error))
    drawn: tuple[RunPath, ...] = ()
    if hosts.leads():
        drawn = draw_extremes(parts, evaluation, directory / benchmark.name, pictures)
    return BenchmarkResult(
        name=benchmark.name,
        evaluation=evaluation,
        summary=summarise(evaluation),
        pictures=drawn,
    )


def extremes(values: Sequence[float], count: int) -> dict[str, int]:
    """Map `best_1`, … and `worst_1`, … to rows; no row twice, and none without a value.

    >>> extremes([0.5, 0.9, 0.1], 1)
    {'best_1': 1, 'worst_1': 2}
    """
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(-np.asarray(values, float)[known], kind="stable")]
    half = min(count, len(order) // 2)
    best = {f"best_{place + 1}": int(row) for place, row in enumerate(order[:half])}
    worst = {f"worst_{place + 1}": int(row) for place, row in enumerate(order[::-1][:half])}
    return best | worst


def draw_extremes(
    parts: Parts, evaluation: Evaluation, directory: RunPath, count: int
) -> tuple[RunPath, ...]:
    """Pictures of the examples with the highest and the lowest headline metric, answered greedily.

    Beside each lies a JSON file with question, answer, the metrics that are its own, and the whole
    text of a response that broke the form.
    """
    examples = read_examples(parts, evaluation.split, parts.config.evaluation.examples)
    values = evaluation.values["greedy"]
    written = []
    for place, row in extremes(values[parts.task.headline], count).items():
        example, answers = examples[row], evaluation.answers["greedy"][row]
        path = directory / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = io.BytesIO()
        broken = {at: text for own, at, text in evaluation.broken.get("greedy", ()) if own == row}
        note = f"{parts.task.headline} {values[parts.task.headline][row]:.3g}"
        said = [Said(answer=a, note=note, written=broken.get(at)) for at, a in enumerate(answers)]
        picture = draw_answers(parts.task, parts.config.task, example, said)
        picture.save(drawn, format="PNG")
        path.write_bytes(drawn.getvalue())
        shown = {
            "id": example.id,
            "question": example.question,
            "answers": answers,
            "broken": broken,
            "metrics": {name: v[row] for name, v in values.items() if not np.isnan(v[row])},
        }
        write_whole(path.with_suffix(".json"), json.dumps(shown, indent=1))
        written.append(path)
    return tuple(written)


def results_to_json(outcomes: Sequence[BenchmarkResult]) -> dict[str, Any]:
    """Return all figures and values of the benchmarks, and why some were left out."""
    return {
        "tasks": {
            outcome.name: evaluation_to_json(outcome.evaluation)
            for outcome in outcomes
            if outcome.evaluation is not None
        },
        "left_out": {outcome.name: outcome.reason for outcome in outcomes if outcome.reason},
    }
