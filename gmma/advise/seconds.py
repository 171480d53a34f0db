"""Seconds of a step by K and M: a few shapes under the clock or planned, and a plane through them.

    t(K, M) = a + b K + c K M       a, b, c ≥ 0: prompts, thoughts, answers

Rows of a rollout and slots of an update are such sums, and so are their seconds as far as the
devices are busy. Attention between the nodes of a tree is not: ragged rows have K²M² of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from gmma.advise.prediction import Shape
from gmma.config import ExperimentConfig, RLConfig
from gmma.errors import UserError
from gmma.plan.command import plan_slice
from gmma.plan.cost import needed_programs

Plane = Callable[[Shape], float]


@dataclass(frozen=True, kw_only=True)
class StepSeconds:
    """Seconds of a step: of each of its rollouts, scoring included, and of all the rest."""

    rollout: float
    rest: float


def probe_shapes(grid: Sequence[Shape], own: Shape) -> tuple[Shape, ...]:
    """Return the shapes that are tried, the smallest first: three corners of the grid, and the own.

    >>> probe_shapes([(4, 1), (4, 8), (16, 1), (16, 8)], (4, 4))
    ((4, 1), (4, 4), (16, 1), (4, 8))
    """
    few, many = min(k for k, _ in grid), max(k for k, _ in grid)
    least, most = min(m for _, m in grid), max(m for _, m in grid)
    corners = {(few, least), own, (many, least), (few, most)}
    return tuple(sorted(corners, key=lambda shape: (shape[0] * shape[1], shape)))


def with_tree(config: ExperimentConfig, shape: Shape) -> ExperimentConfig:
    """Return the experiment with trees of K × M."""
    thoughts, answers = shape
    return replace(config, tree=replace(config.tree, thoughts=thoughts, answers=answers))


def fit_plane(seconds: Mapping[Shape, float]) -> Plane:
    """Fit a, b, c ≥ 0 by least squares, and return (K, M) → seconds.

    >>> found = fit_plane({(4, 1): 7.0, (4, 4): 13.0, (8, 1): 13.0, (4, 8): 21.0})
    >>> round(found((16, 2)), 6)
    33.0
    """
    rows = np.asarray([[1.0, k, k * m] for k, m in seconds])
    parts, _ = nnls(rows, np.asarray([*seconds.values()]))
    return lambda shape: float(parts @ (1.0, shape[0], shape[0] * shape[1]))


def step_seconds(
    tried: Mapping[Shape, StepSeconds], shapes: Iterable[Shape]
) -> dict[Shape, StepSeconds]:
    """Return the seconds of each shape: its own where it was tried, else read off the planes."""
    rollout = fit_plane({shape: seconds.rollout for shape, seconds in tried.items()})
    rest = fit_plane({shape: seconds.rest for shape, seconds in tried.items()})
    return {
        shape: tried.get(shape) or StepSeconds(rollout=rollout(shape), rest=rest(shape))
        for shape in shapes
    }


def plan_seconds(
    config: ExperimentConfig, topology: str, shapes: Sequence[Shape]
) -> dict[Shape, StepSeconds]:
    """Return the least seconds of a step of each shape on a slice, as `gmma plan` has them.

    Memory-only compilations, in static rows. UserError where a program does not fit.
    """
    config = replace(config, packing="static", rl=replace(config.rl, steps=max(config.rl.steps, 1)))
    times, found = needed_programs(config)["RL"], {}
    for shape in shapes:
        tree = with_tree(config, shape)
        own = dict.fromkeys(times, 0.0)
        for plan in plan_slice(tree, topology, [*times], until_memory=True):
            if not plan.fits:
                raise UserError(
                    f"{plan.program} of {tree.tree.shape.label} does not fit {topology}; give "
                    f"smaller --thoughts or --answers, or a run with {plan.advice}"
                )
            own[plan.program] = times[plan.program] * plan.bound[1]
        rollout = own.pop("rollout")
        found[shape] = StepSeconds(rollout=rollout, rest=sum(own.values()))
    return found


def rollouts_and_live(dead: float, rl: RLConfig) -> tuple[float, float]:
    """Return the rollouts of a step, and by how much more trees of its updates differ than grown.

    1 and 1 without dynamic sampling. With it, of `dead` trees that do not differ as many are left
    out as there are others for: on average, and as if their number were always the mean.

    >>> rl = RLConfig(steps=1, batch_prompts=8, rollout_prompts=16, minibatches=1,
    ...     dynamic_sampling=True, max_rollouts=1)
    >>> rollouts_and_live(0.25, rl), rollouts_and_live(0.75, rl)
    ((1.0, 1.3333333333333333), (1.0, 2.0))
    """
    if not rl.dynamic_sampling or dead >= 1:
        return 1.0, 1.0
    wanted = rl.trained_prompts / (rl.grown_prompts * (1 - dead))
    rollouts = float(np.clip(wanted, 1, rl.max_rollouts))
    return rollouts, min(1 / (1 - dead), rollouts * rl.grown_prompts / rl.trained_prompts)
