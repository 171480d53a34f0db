"""Pictures show what the rays hit; skipped where there is no headless OpenGL."""

import numpy as np
import pytest

from gmma.errors import UserError
from gmma.simulator.render import draw_picture, open_gl, render
from gmma.simulator.scene import KINDS, set_scene
from gmma.simulator.sight import draw_scene, grid_points, see

SIZE = (96, 96)


@pytest.fixture(scope="module")
def gl():
    try:
        with open_gl(SIZE):
            yield
    except UserError as error:
        pytest.skip(f"needs OpenGL: {error}")


def draw_bodies(scene):
    """Return the body seen in each pixel, int[H, W] (−1: none), by the renderer."""
    geoms = render(scene, SIZE, segmentation=True)[..., 0].astype(int) - 1
    return np.where(geoms >= 0, set_scene(scene)[0].geom_bodyid[geoms], -1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_shows_the_body_its_ray_hits(gl, kind):
    scene = draw_scene(kind, 0)
    drawn = draw_bodies(scene)
    hit = see(*set_scene(scene), grid_points(SIZE, SIZE[0]), SIZE).body.reshape(drawn.shape)
    assert len(np.unique(drawn)) >= 2
    assert np.mean(drawn == hit) >= 0.995  # edges may round to either side


def test_a_picture_is_lit_coloured_and_the_same_twice(gl):
    scene = draw_scene("door", 1)  # a red door
    picture = draw_picture(scene, SIZE)
    assert picture.shape == (96, 96, 3)
    assert picture.dtype == np.uint8
    assert 60 < picture.mean() < 200
    on_door = draw_bodies(scene) == set_scene(scene)[0].body(scene.part).id
    red, green, blue = np.median(picture[on_door], axis=0)
    assert red > 2 * max(green, blue)
    np.testing.assert_array_equal(draw_picture(scene, SIZE), picture)
