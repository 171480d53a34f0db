"""Compare the runs of a sweep: quality per arm, and arms against each other at equal budgets.

Quality is one metric of held-out examples. Runs of a seed share their SFT, their prompts and their
order, and all runs share the held-out examples, so differences are paired by seed and by example.
Intervals are Student's t over seeds, joined with the examples' own part (`gmma/intervals.py`): a
verdict is about other seeds and other examples, and false in 5 % of cases where nothing differs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gmma.errors import UserError
from gmma.files import RunPath
from gmma.intervals import (
    Interval,
    crossed_interval,
    difference_ends,
    mean_ends,
    student_interval,
)
from gmma.records.diagnostics import SPIKE_SCORE
from gmma.records.metrics import RECORDS, Record, read_records
from gmma.run.evaluate import known, load_evaluation
from gmma.run.summary import evaluation_path
from gmma.sweep.arms import START, Arm, Sweep, SweepRun
from gmma.tasks import find_task
from gmma.theory import gradient_spike_score

Budget = Literal["steps", "samples", "tokens", "seconds"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One finished run; `N` held-out examples, `n` validations, the first before the first step."""

    seed: int
    final: Float[np.ndarray, "N"]  # on the test split, at the end
    before: Float[np.ndarray, "N"]  # the same of the SFT that it started from
    steps: Int[np.ndarray, "n"]
    validation: Float[np.ndarray, "n N"]
    costs: dict[Budget, Float[np.ndarray, "n"]]  # spent up to each validation
    spike_scores: Float[np.ndarray, "T"]  # of every step
    means: dict[str, float]  # of some metrics over the run's steps; of seconds, medians


MEANS = (
    "grad_norm",
    "thought/completions/mean_length",
    "answer/completions/mean_length",
    "thought/advantage_variance",
    "reward_variance/between_thoughts",
    "reward_variance/between_thoughts_corrected",
    "reward_variance/within_thoughts",
    "frac_reward_zero_std",
    "thought/frac_reward_zero_std",
    "gradient/signal_power",
    "gradient/noise_power",
    "seconds/rollout",
    "seconds/reward",
    "seconds/update",
)


def metric_of(sweep: Sweep) -> tuple[str, str]:
    """Return the mode and name of the metric of quality."""
    mode, _, name = (
        sweep.metric or f"sampled/{find_task(sweep.base.task.name).headline}"
    ).partition("/")
    return mode, name


def read_run(run: SweepRun, metric: tuple[str, str]) -> RunResult:
    """Read the results of a finished run from its files.

    Raises UserError for a validation that is not there, or a metric that the task has not.
    """

    def values(path: RunPath) -> Float[np.ndarray, "N"]:
        return of_evaluation(path, metric)

    config, moment = run.config, run.moment
    records = [r for r in read_records(config.run_dir / RECORDS) if r["phase"] == moment]
    steps = np.arange(0, len(records) + 1, config.evaluation.every_steps)
    validated = [evaluation_path(config, f"{moment}_step_{step:06d}") for step in steps]
    norms = np.asarray([record["grad_norm"] for record in records], np.float32)
    return RunResult(
        seed=run.seed,
        final=values(evaluation_path(config, moment)),
        before=values((run.start or config.run_dir) / "evaluation/after_sft.json"),
        steps=steps,
        validation=np.asarray([values(path) for path in validated]),
        costs={unit: spent[steps] for unit, spent in spending(run, records).items()},
        spike_scores=np.asarray(gradient_spike_score(jnp.asarray(norms))),
        means={
            # As of whole steps (`spending`): the first one compiles.
            key: float((np.median if key.startswith("seconds/") else np.mean)(found))
            for key in MEANS
            if (found := [record[key] for record in records if key in record])
        },
    )


def of_evaluation(path: RunPath, metric: tuple[str, str]) -> Float[np.ndarray, "N"]:
    """Return a metric's value of every example that has it."""
    if not path.exists():
        raise UserError(f"{path} is missing: the run was validated at other steps than now")
    mode, name = metric
    found = load_evaluation(path).values[mode]
    if name not in found:
        raise UserError(f"sweep.metric = {mode}/{name}; the task has {', '.join(found)}")
    return known(found[name])


def spending(run: SweepRun, records: Sequence[Record]) -> dict[Budget, Float[np.ndarray, "T1"]]:
    """Return what was spent before step 0, before step 1, …, at the end.

    Samples are answers that were rewarded, or demonstrations imitated; tokens are those sampled
    (trained on, in SFT), each counted once; seconds are the median step's of those with as many
    rollouts, so that compilations do not count.
    """
    config = run.config
    rl = run.moment == "rl"
    tree = config.tree.thoughts * config.tree.answers
    samples = config.rl.grown_prompts * tree if rl else config.sft.batch_prompts
    rollouts = np.array([record.get("dynamic_sampling/rollouts", 1) for record in records])
    tokens = [record["num_tokens" if rl else "num_trained_tokens"] for record in records]
    times = np.array([record["step_time"] for record in records])
    median = {count: np.median(times[rollouts == count]) for count in np.unique(rollouts)}
    per_step: dict[Budget, Any] = {
        "steps": np.ones(len(records)),
        "samples": rollouts * samples,
        "tokens": np.asarray(tokens),
        "seconds": np.array([median[count] for count in rollouts]),
    }
    return {unit: np.concatenate([[0.0], np.cumsum(spent)]) for unit, spent in per_step.items()}


def with_least_seconds(runs: Sequence[RunResult]) -> list[RunResult]:
    """Give all runs of one arm the seconds a step of the fastest: they do the same work.

    What a slower run took longer is what else its machine did.
    """
    if not runs:
        return []
    each = min(run.costs["seconds"][-1] / run.steps[-1] for run in runs)
    return [replace(run, costs={**run.costs, "seconds": run.steps * each}) for run in runs]


def at_budget(run: RunResult, unit: Budget, budget: float) -> Float[np.ndarray, "N"]:
    """Return every example's quality once `budget` was spent.

    Linear between the two validations around it; the last validation's where the run spent less.
    """
    spent = run.costs[unit]
    at = int(np.clip(np.searchsorted(spent, budget), 1, len(spent) - 1))
    share = np.clip((budget - spent[at - 1]) / (spent[at] - spent[at - 1]), 0, 1)
    return (1 - share) * run.validation[at - 1] + share * run.validation[at]


def paired(
    first: Sequence[RunResult], second: Sequence[RunResult]
) -> list[tuple[RunResult, RunResult]]:
    """Runs of the same seeds."""
    by_seed = {run.seed: run for run in second}
    return [(run, by_seed[run.seed]) for run in first if run.seed in by_seed]


def compare(
    labels: tuple[str, str], results: Mapping[str, Sequence[RunResult]]
) -> list[dict[str, Any]]:
    """Compare two arms, first minus other: at the end on the test split, then at equal budgets."""
    pairs = paired(results[labels[0]], results[labels[1]])
    if not pairs:
        return []
    found = [comparison(labels, "end", None, np.asarray([a.final - b.final for a, b in pairs]))]
    for unit in BUDGETS:
        budget = min(spent_by([pair[side] for pair in pairs], unit) for side in (0, 1))
        values = [at_budget(a, unit, budget) - at_budget(b, unit, budget) for a, b in pairs]
        found.append(comparison(labels, unit, budget, np.asarray(values)))
    peaks = np.asarray([[difference_of_peaks(a, b)] for a, b in pairs])
    return [*found, comparison(labels, "largest gradient spike score", None, peaks)]


def difference_of_peaks(first: RunResult, second: RunResult) -> float:
    """Subtract largest spike scores over the steps both took: more steps find larger ones."""
    shared = min(len(first.spike_scores), len(second.spike_scores))
    one, other = (np.nanmax(run.spike_scores[:shared]) for run in (first, second))
    return float(one - other)


def spent_by(runs: Sequence[RunResult], unit: Budget) -> float:
    """Return the mean of what the runs spent in all."""
    return float(np.mean([run.costs[unit][-1] for run in runs]))


def comparison(
    labels: tuple[str, str], budget: str, at: float | None, values: Float[np.ndarray, "seeds N"]
) -> dict[str, Any]:
    """Return a paired difference with its interval and a verdict in words.

    One seed gives no verdict: its interval tells of other examples, nothing of other seeds.
    """
    of_seeds = values.shape[1] == 1
    mean, low, high = (
        student_interval(values[:, 0]) if of_seeds else crossed_interval(values, difference_ends)
    )
    first, second = labels
    shown = f"{abs(mean):.3f}"
    verdict = "no difference shown"
    if not np.isfinite(mean):
        verdict = "not finite: no verdict"
    elif len(values) == 1:
        verdict = "one seed: no verdict"
    elif low > 0:
        verdict = f"{first} is higher than {second} by {shown}"
    elif high < 0:
        verdict = f"{first} is lower than {second} by {shown}"
    return {
        "first": first,
        "second": second,
        "budget": budget,
        "at": at,
        "seeds": len(values),
        "difference": (mean, low, high),
        "verdict": verdict,
    }


def arm_record(sweep: Sweep, arm: Arm, runs: Sequence[RunResult]) -> dict[str, Any]:
    """Return an arm's quality, cost and gradients over its seeds."""
    tree = {name: arm.changes.get(f"tree.{name}", getattr(sweep.base.tree, name)) for name in TREE}
    scores = [run.spike_scores[np.isfinite(run.spike_scores)] for run in runs]
    whole = {str(unit): spent_by(runs, unit) for unit in BUDGETS}
    means = {
        key: float(np.mean([run.means[key] for run in runs]))
        for key in MEANS
        if all(key in run.means for run in runs)
    }
    return {
        "label": arm.label,
        **tree,
        "seeds": [run.seed for run in runs],
        **whole,
        "step_seconds": whole["seconds"] / whole["steps"],
        "quality": crossed_interval(np.asarray([run.final for run in runs]), mean_ends),
        "gain": crossed_interval(
            np.asarray([run.final - run.before for run in runs]), difference_ends
        ),
        "spikes": float(np.mean([np.sum(score > SPIKE_SCORE) for score in scores])),
        "max_spike_score": float(np.mean([score.max(initial=0) for score in scores])),
        "not_finite": float(np.mean([np.isnan(run.spike_scores).sum() for run in runs])),
        "grad_norm": means.get("grad_norm"),
        "thought_advantage_variance": over_seeds(runs, "thought/advantage_variance"),
        "means": means,
        "standard_errors": {
            key: float(np.std([run.means[key] for run in runs], ddof=1) / np.sqrt(len(runs)))
            for key in means
            if len(runs) > 1
        },
        "curve": curve(runs),
        "of_seeds": {str(run.seed): run.validation.mean(axis=1).tolist() for run in runs},
    }


def over_seeds(runs: Sequence[RunResult], metric: str) -> Interval | None:
    """Return a metric's mean over steps, with its interval over seeds.

    None where the runs have none.
    """
    values = [run.means[metric] for run in runs if metric in run.means]
    return student_interval(np.asarray(values)) if values else None


TREE = ("thoughts", "answers")


def curve(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Return the quality on the validation split against what was spent, over the seeds."""
    return [
        {
            "step": int(step),
            **{unit: float(np.mean([run.costs[unit][at] for run in runs])) for unit in BUDGETS[1:]},
            "quality": crossed_interval(
                np.asarray([run.validation[at] for run in runs]), mean_ends
            ),
        }
        for at, step in enumerate(runs[0].steps)
    ]


def sweep_record(sweep: Sweep, runs: Sequence[SweepRun], command: str) -> dict[str, Any]:
    """Collect what tables, plots and `gmma report` show of a sweep, as JSON values."""
    metric = metric_of(sweep)
    ends = {run.config.name: run.is_done() for run in runs}
    results: dict[str, list[RunResult]] = {arm.label: [] for arm in sweep.arms}
    for run in runs:
        if run.arm != START and ends[run.config.name]:
            results[run.arm].append(read_run(run, metric))
    results = {label: with_least_seconds(own) for label, own in results.items()}
    return {
        "name": sweep.name,
        "command": command,
        "metric": "/".join(metric),
        "runs": [
            {
                "arm": run.arm,
                "seed": run.seed,
                "directory": run.config.name,
                "done": ends[run.config.name],
            }
            for run in runs
        ],
        "arms": [
            arm_record(sweep, arm, results[arm.label]) for arm in sweep.arms if results[arm.label]
        ],
        "comparisons": [
            found for labels in sweep.comparisons for found in compare(labels, results)
        ],
    }
