"""A scene from a seed: an object, the state of its parts, a camera, and one thing to do."""

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from gmma.errors import UserError
from gmma.simulator import controls, furniture, mjcf
from gmma.simulator.fixture import Fixture

KINDS: dict[str, Callable[[np.random.Generator], Fixture]] = {
    "drawer": furniture.drawer,
    "door": furniture.door,
    "lid": furniture.lid,
    "lever": controls.lever,
    "button": controls.button,
    "switch": controls.switch,
}
FOVY_DEGREES = 40.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One question about one part. Joint values are metres (slides) or radians (hinges)."""

    kind: str
    seed: int
    mjcf: str
    question: str
    part: str  # name of the body and joint that the question is about
    start: float
    goal: float  # the joint has to reach this value, from whichever side it starts
    arm: float  # metres from the hinge to the far edge; 1 for a slide


def draw_layout(kind: str, rng: np.random.Generator) -> Scene:
    """Draw one scene, visible or not; `seed` is left 0.

    Each part starts in the first tenth or the last quarter of its range, and the one asked for has
    to reach 0.6 of the range from below, or 0.2 from above (our choice).
    """
    fixture = KINDS[kind](rng)
    shut = rng.random(len(fixture.parts)) < 0.5
    shares = np.where(shut, rng.uniform(0, 0.1, shut.size), rng.uniform(0.75, 1, shut.size))
    starts = tuple(float(s * p.high) for s, p in zip(shares, fixture.parts, strict=True))
    asked = int(rng.integers(len(fixture.parts)))
    part = fixture.parts[asked]
    bodies = fixture.mjcf + mjcf.sun(rng, fixture.centre) + draw_camera(rng, fixture)
    return Scene(
        kind=kind,
        seed=0,
        mjcf=mjcf.world(assets=mjcf.floor_texture(rng), bodies=bodies, starts=starts),
        question=part.raised if shut[asked] else part.lowered,
        part=part.colour,
        start=starts[asked],
        goal=part.high * (0.6 if shut[asked] else 0.2),
        arm=part.arm,
    )


def draw_camera(rng: np.random.Generator, fixture: Fixture) -> str:
    """Draw a camera in front of the object, left or right of it, that sees all it moves in.

    At azimuth a and elevation e it stands at `centre + r·(sin a cos e, −cos a cos e, sin e)`.
    """
    azimuth = math.radians(rng.uniform(*fixture.azimuth_degrees) * rng.choice((-1, 1)))
    elevation = math.radians(rng.uniform(*fixture.elevation_degrees))
    distance = fixture.radius / math.sin(math.radians(FOVY_DEGREES / 2)) * rng.uniform(0.85, 1.1)
    aside = math.cos(elevation)
    direction = (math.sin(azimuth) * aside, -math.cos(azimuth) * aside, math.sin(elevation))
    target = np.asarray(fixture.centre) + rng.uniform(-0.1, 0.1, 3) * fixture.radius
    eye = target + distance * np.asarray(direction)
    eye[2] = max(eye[2], 0.1)
    return mjcf.look_from(tuple(eye), tuple(target), FOVY_DEGREES)


@functools.lru_cache(maxsize=256)
def compile_scene(text: str) -> mujoco.MjModel:
    """Return the compiled model of an MJCF document; the last 256 are kept in each process."""
    return mujoco.MjModel.from_xml_string(text)


def set_scene(scene: Scene) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """Return the model and a fresh state, every joint at its start."""
    model = compile_scene(scene.mjcf)
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    return model, data


def check_scene(kind: object, seed: object) -> tuple[str, int]:
    """Return both as they came; UserError for an unknown kind, or a seed not a whole number ≥ 0."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"kind of object {kind!r} is unknown; use one of {', '.join(KINDS)}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"scene seed {seed!r} is not a whole number of 0 or more")
    return kind, int(seed)


def random_generator(kind: str, seed: int, trial: int) -> np.random.Generator:
    """Return the stream of one trial.

    The kind's name, not its place in `KINDS`, is part of the seed.
    """
    return np.random.default_rng([zlib.crc32(kind.encode()), seed, trial])
