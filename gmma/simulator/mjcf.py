"""Pieces of MJCF text: shapes, jointed bodies, and the world around an object.

Metres, radians, kilograms, newtons; x to the right of an object seen from its front, y away from
that viewer, z up; the floor is z = 0. Boxes take full side lengths, not MuJoCo's half lengths.
"""

import math

import numpy as np

Real = float | int
Vector = tuple[Real, Real, Real]

FORCE_NEWTONS = 10.0  # what the gripper pushes or pulls with
FRICTION_SHARE = 0.4  # of the gripper's full effort, lost to the joint's dry friction
FULL_TRAVEL_SECONDS = 0.35  # time of the whole range at full effort, once at speed

COLOURS: dict[str, Vector] = {
    "red": (0.80, 0.07, 0.07),
    "orange": (0.97, 0.48, 0.04),
    "yellow": (0.95, 0.85, 0.10),
    "green": (0.08, 0.55, 0.15),
    "blue": (0.08, 0.25, 0.85),
    "purple": (0.48, 0.12, 0.62),
    "white": (0.96, 0.96, 0.96),
    "black": (0.07, 0.07, 0.08),
}
NEUTRALS: tuple[Vector, ...] = (
    (0.74, 0.66, 0.54),
    (0.60, 0.61, 0.63),
    (0.36, 0.40, 0.45),
    (0.44, 0.31, 0.21),
)
METAL: Vector = (0.30, 0.31, 0.33)


def numbers(*values: Real) -> str:
    """Spell an attribute's value in five significant digits, so that it is the same everywhere."""
    return " ".join(f"{value:.5g}" for value in values)


def box(size: Vector, at: Vector, colour: Vector) -> str:
    """Return a box of full side lengths `size` with its centre `at`."""
    half = numbers(*(side / 2 for side in size))
    return f'<geom type="box" size="{half}" pos="{numbers(*at)}" rgba="{numbers(*colour, 1)}"/>'


def ball(radius: Real, at: Vector, colour: Vector) -> str:
    """Return a sphere."""
    size = numbers(radius)
    return f'<geom type="sphere" size="{size}" pos="{numbers(*at)}" rgba="{numbers(*colour, 1)}"/>'


def rod(radius: Real, start: Vector, end: Vector, colour: Vector) -> str:
    """Return a cylinder between the centres of its two caps."""
    ends = numbers(*start, *end)
    size = numbers(radius)
    return f'<geom type="cylinder" size="{size}" fromto="{ends}" rgba="{numbers(*colour, 1)}"/>'


def jointed_body(
    name: str,
    *,
    joint: str,
    axis: Vector,
    at: Vector,
    high: Real,
    arm: Real,
    geoms: str,
    centred: bool = False,
) -> str:
    """Return a body on one joint of range `[0, high]` (m or rad) that the gripper can just work.

    The dynamics are ours. With the gripper's full effort `F·arm` (`arm` in m for a hinge: from its
    axis to the far edge; 1 for a slide) the joint has

        dry friction  0.4·F·arm                    so it moves only where the effort is over 0.4
        damping       0.6·F·arm · 0.35 s / high    so full effort crosses the range in 0.35 s

    `at` is the anchor. The geoms are drawn at q = 0, or in the middle of the range if `centred`.
    """
    effort = FORCE_NEWTONS * arm
    damping = (1 - FRICTION_SHARE) * effort * FULL_TRAVEL_SECONDS / high
    turned = numbers(*axis, -high / 2 if centred else 0.0)
    return (
        f'<body name="{name}" pos="{numbers(*at)}" axisangle="{turned}">'
        f'<joint name="{name}" type="{joint}" axis="{numbers(*axis)}" range="{numbers(0, high)}" '
        f'frictionloss="{numbers(FRICTION_SHARE * effort)}" damping="{numbers(damping)}"/>'
        f"{geoms}</body>"
    )


def look_from(eye: Vector, target: Vector, fovy_degrees: float) -> str:
    """Return the camera `eye`: it looks along its −z axis, x to the right of the image, y up."""
    forward = np.subtract(target, eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    up = np.cross(right, forward)
    axes = numbers(*(right / np.linalg.norm(right)), *(up / np.linalg.norm(up)))
    pose = f'pos="{numbers(*eye)}" xyaxes="{axes}" fovy="{numbers(fovy_degrees)}"'
    return f'<camera name="eye" {pose}/>'


def floor_texture(rng: np.random.Generator) -> str:
    """Return a checker of two light tones, and a pale gradient for the sky."""
    tone = rng.uniform(0.55, 0.75) * (1 + rng.uniform(-0.06, 0.06, 3))
    dark, light = numbers(*(tone * 0.9)), numbers(*np.minimum(tone * 1.08, 1))
    return (
        '<texture type="skybox" builtin="gradient" rgb1="0.93 0.95 0.98" rgb2="0.62 0.70 0.80" '
        'width="32" height="32"/>'
        f'<texture name="checker" type="2d" builtin="checker" rgb1="{dark}" rgb2="{light}" '
        'width="64" height="64"/>'
        '<material name="floor" texture="checker" texrepeat="1.5 1.5" texuniform="true" '
        'specular="0.1" shininess="0.1"/>'
    )


def sun(rng: np.random.Generator, centre: Vector) -> str:
    """Return one lamp that casts shadows, from above and in front, left or right of the object."""
    angle = math.radians(rng.uniform(-60, 60))
    x, y, z = centre
    at = (x + 2.5 * math.sin(angle), y - 2.5 * math.cos(angle), z + rng.uniform(2.5, 4.0))
    down = numbers(*(np.subtract(centre, at) / np.linalg.norm(np.subtract(centre, at))))
    return (
        f'<light type="directional" pos="{numbers(*at)}" dir="{down}" castshadow="true" '
        'diffuse="0.55 0.55 0.53" specular="0.15 0.15 0.15"/>'
    )


def world(*, assets: str, bodies: str, starts: tuple[float, ...]) -> str:
    """Return the whole MJCF document; key 0 holds the joints' `starts`.

    No gravity (every part is counterbalanced) and no contact (the joint limits are the stops), so a
    part moves by the gripper's force alone.
    """
    return f"""<mujoco>
<compiler angle="radian" autolimits="true"/>
<option timestep="0.004" integrator="implicitfast" gravity="0 0 0">
<flag contact="disable"/></option>
<size memory="256K"/>
<default><geom density="150"/></default>
<visual>
<headlight ambient="0.36 0.36 0.37" diffuse="0.22 0.22 0.22" specular="0 0 0"/>
<quality shadowsize="2048" offsamples="0"/><map znear="0.02" zfar="20"/>
</visual>
<asset>{assets}</asset>
<worldbody>
<geom name="floor" type="plane" size="20 20 0.1" material="floor"/>
{bodies}
</worldbody>
<keyframe><key qpos="{numbers(*starts)}"/></keyframe>
</mujoco>"""
