"""Find the surface at a pixel, and the effect of a push there on the joint.

The frame of an image: pixels, origin at the top left corner, x right, y down; the pixel in column i
and row j covers [i, i + 1) × [j, j + 1), and a point stands for the pixel that holds it.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from gmma.errors import UserError
from gmma.simulator.scene import (
    Scene,
    check_scene,
    compile_scene,
    draw_layout,
    random_generator,
    set_scene,
)

GRID = 56  # rays along each side of the image by which scenes are judged
ENOUGH_EFFORT = 0.6  # share of full effort that carries a part to its goal in time


@dataclass(frozen=True, kw_only=True)
class Surface:
    """First hits of N rays: body (−1: nothing), point and outward unit normal in the world."""

    body: np.ndarray  # int[N]
    point: np.ndarray  # float[N, 3], metres
    normal: np.ndarray  # float[N, 3]


def see(
    model: mujoco.MjModel, data: mujoco.MjData, points: np.ndarray, image_size: tuple[int, int]
) -> Surface:
    """Return the surface at the image points `[N, 2]`, by ray cast from the camera.

    Pinhole of vertical field of view φ, image width W and height H: f = (H/2) / tan(φ/2); the pixel
    in column i and row j looks along ((i + ½ − W/2)/f, −(j + ½ − H/2)/f, −1) in the camera's frame
    (x right, y up, −z ahead), turned into the world by the camera's rotation.
    """
    width, height = image_size
    focal = height / 2 / np.tan(np.radians(model.cam_fovy[0]) / 2)
    x, y = (np.floor(points) + 0.5).T
    rays = np.stack([(x - width / 2) / focal, (height / 2 - y) / focal, -np.ones_like(x)], axis=1)
    rays = rays @ data.cam_xmat[0].reshape(3, 3).T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    count, eye = len(rays), data.cam_xpos[0].copy()
    geom, distance, normal = np.zeros(count, np.int32), np.zeros(count), np.zeros(3 * count)
    mujoco.mj_multiRay(
        model, data, eye, rays.ravel(), None, True, -1, geom, distance, normal, count, 1e3
    )
    body = np.where(geom >= 0, model.geom_bodyid[geom], -1)
    return Surface(body=body, point=eye + distance[:, None] * rays, normal=normal.reshape(-1, 3))


def push_effort(
    scene: Scene, model: mujoco.MjModel, data: mujoco.MjData, surface: Surface
) -> np.ndarray:
    """Return the share of full effort of a push on the asked joint, float[N] in about [−1, 1].

    A push is a force −F·n at the point p (a pull +F·n), so on the joint's axis a, through c,

        e = −n·a                     slide
        e = −n·(a × (p − c)) / arm   hinge

    Positive: a push raises the joint's value. 0 on every other body.
    """
    joint = model.joint(scene.part).id
    axis, anchor = data.xaxis[joint], data.xanchor[joint]
    way = np.cross(axis, surface.point - anchor) if is_hinged(scene) else axis
    effort = -np.sum(surface.normal * way, axis=1) / scene.arm
    return np.where(surface.body == model.body(scene.part).id, effort, 0.0)


def check_frame(size: Sequence[object]) -> tuple[int, int]:
    """Return the width and height of a square frame; raises UserError for anything else."""
    if len(size) == 2 and all(isinstance(side, int | np.integer) for side in size):
        width, height = (int(side) for side in size)  # type: ignore[call-overload]
        if width == height > 0:
            return width, height
    raise UserError(f"frame of {tuple(size)}: scenes are seen in squares; give width = height > 0")


def grid_points(image_size: tuple[int, int], count: int = GRID) -> np.ndarray:
    """Return the centres of `count × count` cells of the image, row by row: float[count², 2]."""
    steps = (np.arange(count) + 0.5) / count
    x, y = np.meshgrid(steps * image_size[0], steps * image_size[1])
    return np.stack([x.ravel(), y.ravel()], axis=1)


def is_hinged(scene: Scene) -> bool:
    """Return whether the asked part turns on a hinge, rather than slides."""
    model = compile_scene(scene.mjcf)
    return bool(model.jnt_type[model.joint(scene.part).id] == mujoco.mjtJoint.mjJNT_HINGE)


def see_grid(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return for each cell of the image whether its middle shows the asked part, and the effort.

    bool[GRID, GRID] and float[GRID, GRID], top row first.
    """
    model, data = set_scene(scene)
    surface = see(model, data, grid_points((GRID, GRID)), (GRID, GRID))
    on_part = surface.body == model.body(scene.part).id
    effort = push_effort(scene, model, data, surface)
    return on_part.reshape(GRID, GRID), effort.reshape(GRID, GRID)


def workable_grid(scene: Scene) -> np.ndarray:
    """Return how each cell leads to the goal: 1 push, −1 pull, 0 neither; int[GRID, GRID]."""
    effort = see_grid(scene)[1]
    way = np.sign(effort) * np.sign(scene.goal - scene.start)
    return np.where(np.abs(effort) >= ENOUGH_EFFORT, way, 0).astype(int)


def visible_box(scene: Scene, frame_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """`(x1, y1, x2, y2)` around the cells that show the asked part, in units of the frame."""
    rows, columns = np.nonzero(see_grid(scene)[0])
    x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    width, height = frame_size
    return (
        round(x1 * width / GRID),
        round(y1 * height / GRID),
        round(x2 * width / GRID),
        round(y2 * height / GRID),
    )


def is_fair(scene: Scene) -> bool:
    """Return whether the asked part covers 0.5–25 % of the image and 0.2 % of it can work it.

    Judged by kinematics (`push_effort`), not by trying. The upper bound keeps guessing hopeless.
    """
    on_part, effort = see_grid(scene)
    workable = np.mean(np.abs(effort) >= ENOUGH_EFFORT)
    return bool(0.005 <= np.mean(on_part) <= 0.25 and workable >= 0.002)


@functools.lru_cache(maxsize=256)
def draw_scene(kind: str, seed: int) -> Scene:
    """Draw the scene of a seed: the first fair layout of its stream; the same everywhere, always.

    Raises UserError for an unknown kind or a negative seed.
    """
    check_scene(kind, seed)
    trial = 0
    while not is_fair(layout := draw_layout(kind, random_generator(kind, seed, trial))):
        trial += 1
    return replace(layout, seed=int(seed))
