"""An answer, and what it does to a scene."""

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from gmma.answers.points import Action, parse_touch
from gmma.answers.reading import Reading
from gmma.simulator.mjcf import FORCE_NEWTONS
from gmma.simulator.scene import Scene, set_scene
from gmma.simulator.sight import see

IMAGE_SIZE = (224, 224)  # width, height in pixels
ATTEMPT_SECONDS = 1.2
STEPS_PER_FORCE = 5  # simulation steps of 4 ms between two updates of the force


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Point where the gripper touches, in pixels of the image (`sight`), and its direction."""

    point: tuple[float, float]
    action: Action


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The result of one answer."""

    success: bool  # the joint reached its goal
    contact: bool  # the gripper touched the part that was asked for
    displacement: float  # furthest the joint came towards the goal; metres or radians
    stage: int  # 0 missed, 1 touched the part, 2 moved it a tenth of the way, 3 reached the goal


MISSED = Attempt(success=False, contact=False, displacement=0.0, stage=0)


def format_answer(answer: Answer) -> str:
    """Spell an answer as `parse_answer` reads it: `{"point": [x, y], "action": "pull"}`."""
    x, y = (math.floor(coordinate) for coordinate in answer.point)
    return f'{{"point": [{x}, {y}], "action": "{answer.action}"}}'


def parse_answer(text: str, reading: Reading = "lenient") -> Answer | None:
    """Read `{"point": [x, y], "action": "push" | "pull"}`, or return None; never raises."""
    touch = parse_touch(text, reading)
    return None if touch is None else Answer(point=touch.point, action=touch.action)


def attempt(scene: Scene, answer: Answer, image_size: tuple[int, int] = IMAGE_SIZE) -> Attempt:
    """Let the gripper do what the answer says, from the scene's start; same answer, same result.

    The pixel is carried back along its ray to the first surface, at p with outward normal n. A
    suction cup holds on there for at most 1.2 s of simulated time with the constant force −F·n
    (push) or +F·n (pull), F = 10 N; p and n turn with the body. Success: the joint reaches the
    goal. A point outside the image, on the background or on anything but the asked part does not
    move that part.
    """
    width, height = image_size
    x, y = answer.point
    if not (0 <= x < width and 0 <= y < height):
        return MISSED
    model, data = set_scene(scene)
    surface = see(model, data, np.array([answer.point]), image_size)
    body = int(surface.body[0])
    if body != model.body(scene.part).id:
        return MISSED
    force = FORCE_NEWTONS if answer.action == "pull" else -FORCE_NEWTONS
    moved = work_joint(scene, model, data, surface.point[0], force * surface.normal[0])
    share = moved / abs(scene.goal - scene.start)
    stage = 3 if share >= 1 else 2 if share >= 0.1 else 1
    return Attempt(success=share >= 1, contact=True, displacement=moved, stage=stage)


def work_joint(
    scene: Scene, model: mujoco.MjModel, data: mujoco.MjData, point: np.ndarray, force: np.ndarray
) -> float:
    """Pull at the asked part with a force fixed to it; the furthest displacement to the goal, ≥ 0.

    `point` (m) and `force` (N) are in the world at the start. The force f at p reaches the joints
    as the generalised force Jᵀf, with J the Jacobian of p (`mj_applyFT`).
    """
    body, joint = model.body(scene.part).id, model.joint(scene.part).qposadr[0]
    no_torque = np.zeros(3)
    turn = data.xmat[body].reshape(3, 3)
    point_in_body, force_in_body = turn.T @ (point - data.xpos[body]), turn.T @ force
    way, furthest = math.copysign(1.0, scene.goal - scene.start), 0.0
    for _ in range(round(ATTEMPT_SECONDS / (STEPS_PER_FORCE * model.opt.timestep))):
        turn = data.xmat[body].reshape(3, 3)
        held, pull = data.xpos[body] + turn @ point_in_body, turn @ force_in_body
        data.qfrc_applied[:] = 0
        mujoco.mj_applyFT(model, data, pull, no_torque, held, body, data.qfrc_applied)
        mujoco.mj_step(model, data, nstep=STEPS_PER_FORCE)
        furthest = max(furthest, way * (data.qpos[joint] - scene.start))
        if furthest >= abs(scene.goal - scene.start):
            break
    return float(furthest)
