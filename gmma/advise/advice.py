"""Hold the trees of a grid against each other: `predict` gives an `Advice` for each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gmma.advise.prediction import (
    Scores,
    Shape,
    TreeCredit,
    mean_of,
    resample,
    signal_to_noise,
    step_gains,
)
from gmma.advise.seconds import StepSeconds, rollouts_and_live, step_seconds
from gmma.config import RLConfig
from gmma.errors import UserError

RESAMPLES = 1000  # for an interval
SURE = 0.025  # of resamples, on each side of an interval


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Prediction for a tree of K × M, ÷ that of the unit: the run's own tree, or the best.

    The interval, 95 %, is over prompts and measured gradients; seconds have no part in it.
    """

    label: str
    thoughts: int
    answers: int
    seconds: float  # of a step
    timed: bool  # its seconds were tried, not read off the plane
    step_gain: float
    second_gain: float
    interval: tuple[float, float]  # of second_gain
    tuned_gain: float  # a second, with a rate tuned anew for each tree
    rivals_best: bool  # it may buy as much as the best
    signal_to_noise: dict[str, float]  # of thoughts and answers, each up to a factor of its own
    dead_trees: float  # share


def label_of(shape: Shape) -> str:
    """Return the paper's name of a shape.

    >>> label_of((4, 2))
    'T4A2'
    """
    return "T{}A{}".format(*shape)


def predict(
    found: Mapping[Shape, TreeCredit],
    own: Shape,
    scores: Scores,
    spent: Mapping[Shape, StepSeconds],
    rl: RLConfig,
) -> list[Advice]:
    """Predict every tree, the best a second first; UserError where no gain shows.

    The unit is the run's own tree; or the best, where it is not sure that the own gains anything.
    """
    dead = {shape: float(mean_of(credited, "dead")) for shape, credited in found.items()}
    sampled = {shape: rollouts_and_live(dead[shape], rl) for shape in found}
    parts = step_seconds(spent, found)
    seconds = {at: sampled[at][0] * took.rollout + took.rest for at, took in parts.items()}

    def live(shape: Shape) -> float:
        return sampled[shape][1]

    gains = {shape: float(gain) for shape, gain in step_gains(found, own, scores, live).items()}
    credits, measured = resample(found, scores, RESAMPLES)
    drawn = step_gains(credits, own, measured, live)
    best = max(gains, key=lambda shape: gains[shape] / seconds[shape])
    kept = drawn[best] > 0
    if gains[best] <= 0 or kept.mean() < 1 - 2 * SURE:
        raise UserError(
            f"no gain shows in {len(next(iter(found.values())).dead)} prompts: their trees have "
            "rewards that do not differ, or that say nothing of a thought; give more --examples, "
            "or a checkpoint that succeeds at times"
        )
    sure = gains[own] > 0 and (drawn[own] > 0).mean() >= 1 - 2 * SURE
    unit = own if sure else best
    kept &= drawn[unit] > 0

    def advice(shape: Shape) -> Advice:
        pace = seconds[unit] / seconds[shape]
        step, steps = gains[shape] / gains[unit], drawn[shape][kept] / drawn[unit][kept]
        low, high = np.quantile(pace * steps, (SURE, 1 - SURE))
        of_best = drawn[shape] / seconds[shape] >= drawn[best] / seconds[best]
        return Advice(
            label=label_of(shape),
            thoughts=shape[0],
            answers=shape[1],
            seconds=seconds[shape],
            timed=shape in spent,
            step_gain=step,
            second_gain=pace * step,
            interval=(float(low), float(high)),
            tuned_gain=pace * step * abs(step),
            rivals_best=bool(of_best.mean() > SURE),
            signal_to_noise={
                name: float(value) for name, value in signal_to_noise(found[shape], shape).items()
            },
            dead_trees=dead[shape],
        )

    return sorted(map(advice, found), key=lambda tree: -tree.second_gain)
