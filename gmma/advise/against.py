"""Hold a prediction against a sweep of the same job: do both put the trees in the same order?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from gmma.advise.advice import Advice
from gmma.advise.prediction import Shape
from gmma.errors import UserError
from gmma.files import RunPath, read_json
from gmma.records.console import print_table
from gmma.sweep.arms import SWEEP_FILE

TREE = re.compile(r"T(\d+)A(\d+)")  # the label of an arm that differs in its tree alone
FEWEST = 3  # arms whose order says something


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a sweep found and what is predicted, tree by tree; the sweep's best first.

    Gains are those of the validation split over the first validation. Correlations are Spearman's
    of ranks, −1 … 1; NaN where all of one side is alike.
    """

    seconds: float  # the budget: what the arm that took least took in all
    steps: float  # likewise
    trees: list[tuple[str, float, float]]  # label, gain at equal seconds, predicted a second
    at_seconds: float
    at_steps: float


def swept_trees(sweep_dir: RunPath) -> dict[Shape, Any]:
    """Read the arms of a sweep that differ in their trees alone; UserError for fewer than three."""
    path = sweep_dir / SWEEP_FILE
    if not path.exists():
        raise UserError(f"sweep = {sweep_dir} has no {SWEEP_FILE}; give the directory of a sweep")
    arms = read_json(path)["arms"]
    shapes = {
        (int(label[1]), int(label[2])): arm
        for arm in arms
        if (label := TREE.fullmatch(arm["label"])) and len(arm["curve"]) > 1
    }
    if len(shapes) < FEWEST:
        raise UserError(
            f"sweep = {sweep_dir} has {len(shapes)} validated arms with labels like T4A4; an order "
            f"needs {FEWEST}"
        )
    return shapes


def gain_at(curve: Sequence[Mapping[str, Any]], unit: str, budget: float) -> float:
    """Return the gain over the first validation once `budget` was spent, linear in between."""
    spent = [point[unit] for point in curve]
    quality = [point["quality"][0] for point in curve]
    return float(np.interp(budget, spent, quality)) - quality[0]


def hold_against(arms: Mapping[Shape, Any], table: Sequence[Advice]) -> Agreement:
    """Compare the order of a sweep's trees with the predicted one, at equal seconds and steps."""
    curves = {shape: arm["curve"] for shape, arm in arms.items()}
    predicted = {(tree.thoughts, tree.answers): tree for tree in table}

    def compared(unit: str, name: str) -> tuple[float, dict[Shape, tuple[float, float]], float]:
        budget = min(curve[-1][unit] for curve in curves.values())
        pairs = {
            shape: (gain_at(curve, unit, budget), float(getattr(predicted[shape], name)))
            for shape, curve in curves.items()
        }
        return budget, pairs, float(spearmanr(*zip(*pairs.values(), strict=True)).statistic)

    seconds, by_second, at_seconds = compared("seconds", "second_gain")
    steps, _, at_steps = compared("step", "step_gain")
    best_first = sorted(by_second.items(), key=lambda item: -item[1][0])
    return Agreement(
        seconds=seconds,
        steps=steps,
        trees=[(arms[shape]["label"], *pair) for shape, pair in best_first],
        at_seconds=at_seconds,
        at_steps=at_steps,
    )


def print_agreement(found: Agreement, sweep_dir: RunPath) -> None:
    """Print both orders side by side."""
    rows = [[label, f"{gain:.3f}", f"{second:.2f}"] for label, gain, second in found.trees]
    header = ["", f"gain after {found.seconds:.3g} s", "predicted a second"]
    print_table(f"held against {sweep_dir}", header, rows)
    print(
        f"Spearman's correlation of the orders: {found.at_seconds:.2f} at equal seconds, "
        f"{found.at_steps:.2f} at equal steps ({found.steps:g})"
    )
