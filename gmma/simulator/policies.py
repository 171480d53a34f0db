"""The two ends of the scale: a policy that knows the joint, and one that sees nothing."""

import numpy as np

from gmma.simulator.attempt import IMAGE_SIZE, Action, Answer
from gmma.simulator.scene import Scene, set_scene
from gmma.simulator.sight import ENOUGH_EFFORT, GRID, grid_points, push_effort, see


def know_answer(
    scene: Scene, rng: np.random.Generator, image_size: tuple[int, int] = IMAGE_SIZE
) -> Answer:
    """Return the oracle's answer: a visible point of the part with nearly the most effort.

    Of a grid of points it ranks each by the least effort |e| (`sight.push_effort`) among it and its
    eight neighbours, which keeps away from edges and, on a hinge, near the far side; and draws one
    of those within 5 % of the best. Where no such neighbourhood has enough effort, as on a thin
    part, the points stand alone. The sign of e says whether a push or a pull leads to the goal.
    """
    model, data = set_scene(scene)
    points = grid_points(image_size)
    effort = push_effort(scene, model, data, see(model, data, points, image_size))
    rank = least_of_neighbours(np.abs(effort).reshape(GRID, GRID)).ravel()
    if rank.max() < ENOUGH_EFFORT:
        rank = np.abs(effort)
    chosen = int(rng.choice(np.flatnonzero(rank >= 0.95 * rank.max())))
    action: Action = "push" if effort[chosen] * (scene.goal - scene.start) > 0 else "pull"
    x, y = np.floor(points[chosen])
    return Answer(point=(float(x), float(y)), action=action)


def least_of_neighbours(grid: np.ndarray) -> np.ndarray:
    """Return the smallest value in each 3 × 3 neighbourhood; beyond the edge counts as 0."""
    padded = np.pad(grid, 1)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).min(axis=(2, 3))


def guess_answer(rng: np.random.Generator, image_size: tuple[int, int] = IMAGE_SIZE) -> Answer:
    """Answer as the blind policy does: any pixel, either direction."""
    x, y = rng.uniform((0, 0), image_size)
    return Answer(point=(float(x), float(y)), action="push" if rng.random() < 0.5 else "pull")
