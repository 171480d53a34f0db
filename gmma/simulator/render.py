"""Pictures of scenes, without a screen: MuJoCo's OpenGL renderer through OSMesa or EGL.

MuJoCo chooses its OpenGL by the environment variable MUJOCO_GL when it is first imported
(`gmma.simulator.choose_opengl`). Only pictures need OpenGL; attempts do not.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np
from PIL import Image

from gmma.errors import UserError
from gmma.simulator import needs_screen
from gmma.simulator.attempt import IMAGE_SIZE
from gmma.simulator.scene import Scene, set_scene

_HEADLESS = (
    "pictures need libosmesa6 and MUJOCO_GL=osmesa, or a driver with EGL and MUJOCO_GL=egl, set "
    "before the start"
)
OVERSAMPLING = 2  # rendered pixels along each side of a pixel of the picture


@contextmanager
def open_gl(image_size: tuple[int, int] = IMAGE_SIZE) -> Iterator[None]:
    """Open an OpenGL context of this thread, which every picture drawn inside shares.

    Raises UserError where there is no headless OpenGL.
    """
    width, height = image_size
    if needs_screen():
        raise UserError(f"no screen, and no headless OpenGL chosen; {_HEADLESS}")
    try:
        context = mujoco.GLContext(width * OVERSAMPLING, height * OVERSAMPLING)
        context.make_current()
    except Exception as error:  # each backend of MuJoCo fails in its own way
        name = os.environ.get("MUJOCO_GL", "default")
        raise UserError(
            f"OpenGL ({name}) does not start ({type(error).__name__}: {error}); {_HEADLESS}"
        ) from error
    try:
        yield
    finally:
        context.free()


def draw_picture(scene: Scene, image_size: tuple[int, int] = IMAGE_SIZE) -> np.ndarray:
    """Draw the scene from its camera, uint8[H, W, 3]; inside `open_gl` of the same size."""
    width, height = image_size
    large = render(scene, (width * OVERSAMPLING, height * OVERSAMPLING), segmentation=False)
    return np.asarray(Image.fromarray(large).resize((width, height), Image.Resampling.BOX))


def render(scene: Scene, size: tuple[int, int], *, segmentation: bool) -> np.ndarray:
    """Render one pass, uint8[H, W, 3], top row first; in segmentation red is geom id + 1.

    `mujoco.Renderer` would open one OpenGL context per model, at several times the cost.
    """
    model, data = set_scene(scene)
    # The buffer that is drawn into, no larger than needed.
    model.vis.global_.offwidth, model.vis.global_.offheight = size
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    view, camera = mujoco.MjvScene(model, 200), mujoco.MjvCamera()
    camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    mujoco.mjv_updateScene(
        model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, view
    )
    view.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = segmentation
    view.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = segmentation
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    frame = mujoco.MjrRect(0, 0, *size)
    mujoco.mjr_render(frame, view, context)
    mujoco.mjr_readPixels(pixels, None, frame, context)
    context.free()
    return pixels[::-1]
