"""Articulated objects under MuJoCo: scenes from seeds, their pictures, what an answer does there.

    mjcf        MJCF text of shapes, joints and the world
    fixture     what a kind of object consists of
    furniture   drawer, door, lid
    controls    lever, button, switch
    scene       Scene, KINDS, the camera
    sight       pixels to surfaces by ray casts; draw_scene
    attempt     Answer, attempt: the gripper at work
    policies    the oracle and the blind policy
    render      pictures
    survey      success of oracle and blind policy per kind, attempts per second

Nothing here imports JAX, so that reward workers (`gmma.rewards.manipulation`) start fast; only
`render` needs OpenGL.
"""

import os
import sys
from ctypes.util import find_library


def choose_opengl() -> None:
    """Set MUJOCO_GL to a headless OpenGL that this machine has, unless it is set already.

    MuJoCo reads the variable when it is first imported, and by default asks for a screen. On Linux:
    OSMesa (software) before EGL; neither there leaves MuJoCo's default.
    """
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ:
        return
    for name, library in (("osmesa", "OSMesa"), ("egl", "EGL")):
        if find_library(library):
            os.environ["MUJOCO_GL"] = name
            return


def needs_screen() -> bool:
    """Return whether MuJoCo's OpenGL asks for a screen where there is none."""
    screen = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    headless = os.environ.get("MUJOCO_GL") in ("osmesa", "egl")
    return sys.platform == "linux" and not (screen or headless)


choose_opengl()
