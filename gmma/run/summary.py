"""The table at the end of a run: quality after SFT and after RL, seconds per phase, memory."""

import resource
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gmma.config import ExperimentConfig, config_to_json
from gmma.files import RunPath
from gmma.intervals import Interval
from gmma.records.console import print_table
from gmma.records.diagnostics import SPIKE_SCORE
from gmma.records.metrics import Record, read_records
from gmma.run.assembly import own_terms
from gmma.run.evaluate import difference, load_evaluation, summarise
from gmma.tasks import find_task
from gmma.tasks.mixture import MixtureConfig


def evaluation_path(config: ExperimentConfig, moment: str) -> RunPath:
    """Return the file of an evaluation: `sft`, `rl` after a phase, `rl_step_000050` within one."""
    return config.run_dir / "evaluation" / f"after_{moment}.json"


def column_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Name the evaluations of a run, `sft` and `rl`, after what was trained before each.

    `config` is the experiment as JSON values.
    """
    steps = {phase: (config.get(phase) or {}).get("steps", 0) for phase in ("sft", "rl")}
    before = "before RL" if steps["rl"] else "not trained"
    return {"sft": "after SFT" if steps["sft"] else before, "rl": "after RL"}


def format_interval(figures: Interval) -> str:
    """Format as `mean [low, high]`."""
    mean, low, high = figures
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def headlines(config: ExperimentConfig) -> list[str]:
    """Return the metric that sums the task up; of a mixture, also those of its parts."""
    parts = config.task.parts if isinstance(config.task, MixtureConfig) else ()
    own = [f"{part.title}/{find_task(part.task.name).headline}" for part in parts]
    return [find_task(config.task.name).headline, *own]


def print_summary(config: ExperimentConfig) -> None:
    """Print the tables and where the pictures are."""
    after = load_evaluation(evaluation_path(config, "sft"))
    names = column_names(config_to_json(config))
    columns = {names["sft"]: summarise(after)}
    if config.rl.steps:
        before, after = after, load_evaluation(evaluation_path(config, "rl"))
        columns[names["rl"]] = summarise(after)
        columns["difference"] = difference(after, before)
    own = [f"rewards/{term.label}" for term in own_terms(config)]
    rows = [
        [f"{mode} {name}", *(format_interval(c[f"{mode}/{name}"]) for c in columns.values())]
        for mode in ("sampled", "greedy")
        for name in (*headlines(config), *own, "format", "parsed")
        if all(f"{mode}/{name}" in column for column in columns.values())
    ]
    examples = len(after.values["greedy"]["format"])
    title = f"{config.name}: {examples} {after.split} examples, mean [95 % interval over examples]"
    print_table(title, ["", *columns], rows)
    print_trees(config)
    print_seconds(config)
    print_spikes(config)
    print_next(config)


def print_next(config: ExperimentConfig) -> None:
    """Print what to do with a run that is done: a command a line."""
    run = shlex.quote(str(config.run_dir))
    events = shlex.quote(str(config.run_dir / "tensorboard"))
    commands = {
        f"gmma report {run}": "one HTML page: curves, tables, trees",
        f"gmma sample {run} --example 0": "one tree, printed and drawn",
        f"gmma eval {run} --split validation": "figures on other examples",
        f"tensorboard --logdir {events}": "curves (pip install tensorboard)",
    }
    print("\nnext:")
    for command, what in commands.items():
        print(f"  {command}\n      {what}", flush=True)


TREE_METRICS = {  # of a step of RL → its words
    "reward": "reward",
    "thought/completions/mean_length": "tokens of a thought",
    "answer/completions/mean_length": "tokens of an answer",
    "reward_variance/within_thoughts": "variance of the reward within thoughts",
    "reward_variance/between_thoughts_corrected": "between thoughts, without the answers' noise",
    "frac_reward_zero_std": "share of trees whose rewards are all equal",
}
TREE_STEPS = 10  # at most, of each end of RL


def print_trees(config: ExperimentConfig) -> None:
    """Print what the trees of RL were as it began and ended: lengths, and where rewards differ.

    Where they differ within thoughts, more answers tell more; where between, more thoughts do.
    """
    records = read_records(config.run_dir / "metrics.jsonl")
    own = [record for record in records if record["phase"] == "rl"]
    count = min(TREE_STEPS, len(own) // 2)
    ends = own[:count], own[-count:]
    answers = config.tree.answers
    alone = answers == 1  # its answer is all that a thought's rewards are
    # The records have the variance of the answers at hand; it is smaller than that of all.
    factor = {"reward_variance/within_thoughts": answers / max(answers - 1, 1)}
    rows = [
        [words, *(f"{factor.get(name, 1) * mean_of(end, name):.3g}" for end in ends)]
        for name, words in TREE_METRICS.items()
        if count and not (alone and "within" in name)
        if all(name in record for end in ends for record in end)
    ]
    if rows:
        header = ["", f"first {count} steps", f"last {count} steps"]
        print_table("trees of RL, means over steps", header, rows)


def mean_of(records: Sequence[Record], name: str) -> float:
    """Return the mean of a metric over steps that have it."""
    return float(np.mean([record[name] for record in records]))


def print_seconds(config: ExperimentConfig) -> None:
    """Print seconds by phase and part, over all processes that took part in the run."""
    records = read_records(config.run_dir / "metrics.jsonl")
    rows = []
    for phase in ("sft", "rl"):
        own = [record for record in records if record["phase"] == phase]
        for part in ("rollout", "reward", "update"):
            spent = sum(record.get(f"seconds/{part}", 0.0) for record in own)
            if spent:
                rows.append([f"{phase} {part}", f"{len(own)}", f"{spent:.0f}"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows.append(["peak memory of this process, GiB", "", f"{peak:.2f}"])
    print_table("where the time went", ["", "steps", "seconds"], rows)


def print_spikes(config: ExperimentConfig) -> None:
    """Print how often the gradient's norm jumped above its running mean, by phase."""
    records = read_records(config.run_dir / "metrics.jsonl")
    rows = [row for phase in ("sft", "rl") if (row := spike_row(phase, records))]
    header = ["", "steps", "largest score", "above 2", f"above {SPIKE_SCORE:g}", "not finite"]
    print_table("gradient spikes: norm over the phase's running mean", header, rows)


def spike_row(phase: str, records: Sequence[Record]) -> list[str]:
    """Return a phase's steps, largest score, and counts with their shares.

    Empty without scored steps.
    """
    scores = np.array(
        [r["grad_spike_score"] for r in records if r["phase"] == phase and "grad_spike_score" in r]
    )
    if not scores.size:
        return []
    finite = scores[np.isfinite(scores)]
    largest = f"{finite.max():.2f}" if finite.size else "-"
    above = [int((finite > limit).sum()) for limit in (2.0, SPIKE_SCORE)]
    shares = [f"{count} ({count / scores.size:.1%})" for count in above]
    return [phase, f"{scores.size}", largest, *shares, f"{scores.size - finite.size}"]
