"""Variance of the thought advantage as one picture: against M, and against K with its floor."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gmma.files import RunPath

NAMES = {
    "measured": "measured: answers sampled again",
    "formula": "delta method",
    "simulated": "simulated rewards",
}


def plot_variance(record: dict[str, Any], path: RunPath) -> None:
    """Write the picture as PNG."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    against_answers(left, record["against_answers"])
    against_thoughts(right, record["against_thoughts"])
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(drawn.getvalue())


def against_answers(axes: Axes, found: dict[str, Any]) -> None:
    """Plot every curve there is, intervals as bands."""
    for number, (name, label) in enumerate(NAMES.items()):
        if name not in found:
            continue
        mean, low, high = np.asarray([np.broadcast_to(v, 3) for v in found[name]]).T
        style = "s--" if name == "simulated" else "o-"
        axes.plot(found["answers"], mean, style, color=f"C{number}", label=label)
        if "medians" in found:
            median = found["medians"][name]
            axes.plot(found["answers"], median, style[1:], color=f"C{number}", alpha=0.5, lw=0.8)
        axes.fill_between(found["answers"], low, high, color=f"C{number}", alpha=0.15, linewidth=0)
    if "apart" in found:
        draw_parts(axes, found)
    first = found["measured" if "measured" in found else "simulated"]
    top = np.broadcast_to(first[-1], 3)[0] * found["answers"][-1]
    rate = top / np.asarray(found["answers"])
    axes.plot(found["answers"], rate, ":", color="grey", label="rate 1/M")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("M, answers per thought")
    axes.set_ylabel("Var A(th), mean over prompts (thin: median)")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def draw_parts(axes: Axes, found: dict[str, Any]) -> None:
    """Plot the measurement from disjoint parts of the pool, at each M with two parts or more."""
    own = [(m, v) for m, v in zip(found["answers"], found["apart"], strict=True) if v]
    if own:
        places = [m for m, _ in own]
        mean, low, high = np.asarray([v for _, v in own]).T
        axes.vlines(places, low, high, color="C3", linewidth=1)
        axes.plot(places, mean, "x", color="C3", label="measured: disjoint parts of the pool")


def against_thoughts(axes: Axes, found: dict[str, Any]) -> None:
    """Plot more thoughts at fixed M."""
    axes.plot(found["thoughts"], found["formula"], "o-", color="C1", label=NAMES["formula"])
    axes.plot(found["thoughts"], found["simulated"], "s--", color="C2", label=NAMES["simulated"])
    axes.plot(
        found["thoughts"], found["floor"], ":", color="grey", label="σ²/(M S²), the limit as K → ∞"
    )
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("K, thoughts per prompt")
    axes.set_ylabel(f"Var A(th) at M = {found['answers']}, means spread evenly")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
