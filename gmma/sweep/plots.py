"""A sweep as one picture of six panels."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gmma.files import RunPath
from gmma.records.metrics import RECORDS, read_records

CURVES_AT_MOST = 8  # arms whose curves are drawn: the sweep's first
Arms = Sequence[dict[str, Any]]


def plot_sweep(record: dict[str, Any], directory: RunPath, path: RunPath) -> None:
    """Write quality of every arm and against M, tokens and seconds, variance against M, norms."""
    arms = record["arms"]
    shown = arms[:CURVES_AT_MOST]
    figure = Figure(figsize=(15, 9), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    every_arm(panels[0], arms, record["metric"])
    against_answers(panels[1], arms, "quality", record["metric"])
    curves(panels[2], shown, "tokens", record["metric"])
    curves(panels[3], shown, "seconds", record["metric"])
    against_answers(panels[4], arms, "thought_advantage_variance", "Var A(th), within runs")
    norms(panels[5], shown, record["runs"], directory)
    figure.suptitle(record["name"])
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    path.write_bytes(drawn.getvalue())


def every_arm(axes: Axes, arms: Arms, metric: str) -> None:
    """Plot quality with its interval, an arm a line."""
    for place, arm in enumerate(arms):
        mean, low, high = arm["quality"]
        axes.plot([low, high], [place, place], color="C0", linewidth=2)
        axes.plot([mean], [place], "o", color="C0")
    axes.set_yticks(range(len(arms)), [f"{arm['label']} ({len(arm['seeds'])})" for arm in arms])
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric} at the end, test split (seeds)")
    axes.grid(axis="x", alpha=0.3)


def against_answers(axes: Axes, arms: Arms, key: str, label: str) -> None:
    """Plot a figure against M, a line for each K, of arms that change nothing but the tree."""
    plain = [arm for arm in arms if arm["label"] == f"T{arm['thoughts']}A{arm['answers']}"]
    for number, thoughts in enumerate(sorted({arm["thoughts"] for arm in plain})):
        own = sorted(
            (arm for arm in plain if arm["thoughts"] == thoughts and arm[key] is not None),
            key=lambda arm: arm["answers"],
        )
        if not own:
            continue
        places = [arm["answers"] for arm in own]
        values = np.asarray([np.broadcast_to(arm[key], 3) for arm in own])
        spread = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(
            places, values[:, 0], spread, fmt="o-", color=f"C{number}", label=f"K = {thoughts}"
        )
    axes.set_xscale("log", base=2)
    if key != "quality" and axes.dataLim.y1 > 0:  # with K = 2 it is 0 by definition
        axes.set_yscale("log")
    axes.set_xlabel("M, answers per thought")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()


def curves(axes: Axes, arms: Arms, unit: str, metric: str) -> None:
    """Plot quality on the validation split against what was spent."""
    for number, arm in enumerate(arms):
        spent = [point[unit] for point in arm["curve"]]
        mean, low, high = np.asarray([point["quality"] for point in arm["curve"]]).T
        axes.plot(spent, mean, "o-", color=f"C{number}", label=arm["label"], markersize=3)
        axes.fill_between(spent, low, high, color=f"C{number}", alpha=0.12, linewidth=0)
    axes.set_xlabel(f"{unit} after the SFT")
    axes.set_ylabel(f"{metric}, validation split")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def norms(axes: Axes, arms: Arms, runs: Arms, directory: RunPath) -> None:
    """Plot global gradient norms before clipping, the mean over seeds."""
    for number, arm in enumerate(arms):
        own = [run for run in runs if run["arm"] == arm["label"] and run["done"]]
        series = [
            [record["grad_norm"] for record in read_records(directory / name / RECORDS)]
            for name in (run["directory"] for run in own)
        ]
        axes.plot(
            np.mean(series, axis=0), color=f"C{number}", label=arm["label"], linewidth=1, alpha=0.8
        )
    axes.set_yscale("log")
    axes.set_xlabel("step after the SFT")
    axes.set_ylabel("gradient norm")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
