"""Hold a prediction against a sweep of the same job: do both put the trees in the same order?"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from gmma.advise.advice import Advice
from gmma.advise.prediction import Shape
from gmma.errors import UserError
from gmma.files import RunPath, read_json
from gmma.records.console import print_table
from gmma.records.resuming import CONFIG_FILE
from gmma.sweep.arms import SWEEP_FILE

TREE = re.compile(r"T(\d+)A(\d+)")  # the label of an arm that differs in its tree alone
FEWEST = 3  # arms whose order says something
OF_A_JOB = ("task", "model", "rewards")  # of a config: what a sweep and a run must have in common


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Quality of one tree on the validation split, a mean over the seeds that all trees have."""

    label: str
    steps: Float[np.ndarray, "n"]
    seconds: Float[np.ndarray, "n"]
    quality: Float[np.ndarray, "n"]

    def gain(self, spent: Float[np.ndarray, "n"], budget: float) -> float:
        """Return the gain over the first validation once `budget` was spent, linear in between."""
        return float(np.interp(budget, spent, self.quality) - self.quality[0])


@dataclass(frozen=True, kw_only=True)
class Swept:
    """The trees of a sweep."""

    curves: Mapping[Shape, Curve]
    seeds: tuple[int, ...]
    clocked: bool  # each run by itself: the seconds of cells in one program are those of all


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Gains that a sweep found and those predicted, tree by tree; the sweep's best first.

    Correlations are Spearman's of ranks, −1 … 1; None where all of one side is alike, and at equal
    seconds where the two know seconds of different kinds.
    """

    seeds: tuple[int, ...]
    seconds: float  # the budget: what the arm that took least took in all
    steps: float  # likewise
    trees: list[tuple[str, float, float]]  # label, gain at equal seconds, predicted a second
    at_seconds: float | None
    at_its_seconds: float | None  # the same with the seconds a step that the sweep had
    at_steps: float | None


def read_sweep(sweep_dir: RunPath, job: Mapping[str, Any]) -> Swept:
    """Read the arms of a sweep that differ in their trees alone.

    Raises UserError for fewer than three, for arms that have no seed in common, and for a sweep of
    another job than that of the config `job`, as JSON values.
    """
    path = sweep_dir / SWEEP_FILE
    if not path.exists():
        raise UserError(f"sweep = {sweep_dir} has no {SWEEP_FILE}; give the directory of a sweep")
    record = read_json(path)
    check_job(sweep_dir, record, job)
    arms = {
        (int(found[1]), int(found[2])): arm
        for arm in record["arms"]
        if (found := TREE.fullmatch(arm["label"])) and len(arm["curve"]) > 1
    }
    if len(arms) < FEWEST:
        raise UserError(
            f"sweep = {sweep_dir} has {len(arms)} validated arms with labels like T4A4; an order "
            f"needs {FEWEST}"
        )
    if not all("of_seeds" in arm for arm in arms.values()):
        raise UserError(f"{path} is of an older gmma; write it anew: gmma sweep … --results")
    seeds = set.intersection(*(set(arm["of_seeds"]) for arm in arms.values()))
    if not seeds:
        raise UserError(f"sweep = {sweep_dir}: no seed has been run with every tree yet")
    return Swept(
        curves={shape: curve_of(arm, sorted(seeds)) for shape, arm in arms.items()},
        seeds=tuple(sorted(map(int, seeds))),
        clocked="--one-program" not in record["command"],
    )


def check_job(sweep_dir: RunPath, record: Mapping[str, Any], job: Mapping[str, Any]) -> None:
    """Raise UserError where a run of the sweep has another task, model or rewards."""
    done = (run["directory"] for run in record["runs"] if run["done"])
    saved = sweep_dir.parent / next(done, "") / CONFIG_FILE
    if not saved.exists():
        return  # its runs lie elsewhere
    of_sweep = read_json(saved)
    other = [name for name in OF_A_JOB if of_sweep[name] != job[name]]
    if other:
        raise UserError(
            f"sweep = {sweep_dir} is of another job: {', '.join(other)} differ from the run's"
        )


def curve_of(arm: Mapping[str, Any], seeds: Sequence[str]) -> Curve:
    """Return an arm's curve over some of its seeds."""
    return Curve(
        label=arm["label"],
        steps=np.asarray([point["step"] for point in arm["curve"]], float),
        seconds=np.asarray([point["seconds"] for point in arm["curve"]]),
        quality=np.mean([arm["of_seeds"][seed] for seed in seeds], axis=0),
    )


def hold_against(swept: Swept, table: Sequence[Advice], *, planned: bool = False) -> Agreement:
    """Compare the order of a sweep's trees with the predicted one, at equal seconds and steps.

    `planned` says that the predicted seconds are of a slice, which the sweep did not run on.
    """
    predicted = {(tree.thoughts, tree.answers): tree for tree in table}
    seconds, steps = (
        min(float(getattr(curve, unit)[-1]) for curve in swept.curves.values())
        for unit in ("seconds", "steps")
    )
    trees = [
        (curve.label, curve.gain(curve.seconds, seconds), float(predicted[shape].second_gain))
        for shape, curve in swept.curves.items()
    ]
    at_steps = [
        (curve.gain(curve.steps, steps), float(predicted[shape].step_gain))
        for shape, curve in swept.curves.items()
    ]
    own_pace = [
        (gain, float(predicted[shape].step_gain * curve.steps[-1] / curve.seconds[-1]))
        for (shape, curve), (_, gain, _) in zip(swept.curves.items(), trees, strict=True)
    ]
    return Agreement(
        seeds=swept.seeds,
        seconds=seconds,
        steps=steps,
        trees=sorted(trees, key=lambda tree: -tree[1]),
        at_seconds=(
            rank_correlation([tree[1:] for tree in trees])
            if swept.clocked and not planned
            else None
        ),
        at_its_seconds=rank_correlation(own_pace) if swept.clocked else None,
        at_steps=rank_correlation(at_steps),
    )


def rank_correlation(pairs: Sequence[tuple[float, ...]]) -> float | None:
    """Return Spearman's correlation; None where it is not defined."""
    columns = list(zip(*pairs, strict=True))
    if not all(map(math.isfinite, (x for column in columns for x in column))):
        return None
    return float(spearmanr(*columns).statistic) if all(len({*c}) > 1 for c in columns) else None


def print_agreement(found: Agreement, sweep_dir: RunPath) -> None:
    """Print both orders side by side."""
    rows = [[label, f"{gain:.3f}", f"{second:.2f}"] for label, gain, second in found.trees]
    header = ["", f"gain after {found.seconds:.3g} s", "predicted a second"]
    print_table(f"held against {sweep_dir}, seeds {', '.join(map(str, found.seeds))}", header, rows)

    def shown(value: float | None) -> str:
        return "not defined" if value is None else f"{value:.2f}"

    print(
        f"Spearman's correlation of the orders: {shown(found.at_seconds)} at equal seconds "
        f"({shown(found.at_its_seconds)} with the sweep's own seconds a step), "
        f"{shown(found.at_steps)} at equal steps ({found.steps:g})"
    )
