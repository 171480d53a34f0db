"""Scenes are functions of kind and seed, compile, and hold what they say."""

import subprocess
import sys

import mujoco
import numpy as np
import pytest

from gmma.errors import UserError
from gmma.simulator.mjcf import COLOURS
from gmma.simulator.scene import KINDS, draw_layout, random_generator, set_scene
from gmma.simulator.sight import draw_scene, see_grid

# A dataset on disk names its scenes by seed: if this table changes, raise the VERSION of
# gmma.tasks.manipulation.dataset.
QUESTIONS = {
    "drawer": "Open the purple drawer.",
    "door": "Open the red door.",
    "lid": "Open the purple lid.",
    "lever": "Move the black lever up.",
    "button": "Pull the orange button out.",
    "switch": "Tip the yellow switch so that its right end goes in.",
}


@pytest.mark.parametrize("kind", KINDS)
def test_seed_0_asks_what_it_always_asked(kind):
    assert draw_scene(kind, 0).question == QUESTIONS[kind]


def test_another_process_draws_the_same_scene():
    code = (
        "from gmma.simulator.sight import draw_scene; import sys;"
        "sys.stdout.write(''.join(draw_scene(k, 5).mjcf for k in ('lever', 'door')))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout == "".join(draw_scene(kind, 5).mjcf for kind in ("lever", "door"))


@pytest.mark.parametrize("kind", KINDS)
def test_starts_and_goals_lie_in_the_range_of_the_joint(kind):
    for seed in range(8):
        scene = draw_scene(kind, seed)
        model, data = set_scene(scene)
        joint = model.joint(scene.part)
        low, high = model.jnt_range[joint.id]
        assert low == 0
        assert data.qpos[joint.qposadr[0]] == pytest.approx(scene.start, rel=1e-4)
        assert low <= scene.start <= high * 1.0001
        share = scene.goal / high
        assert share == pytest.approx(0.6 if scene.start < scene.goal else 0.2, rel=1e-4)
        assert abs(scene.goal - scene.start) >= 0.5 * high
        assert scene.part in scene.question


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_moves_by_itself(kind):
    model, data = set_scene(draw_scene(kind, 3))
    before = data.qpos.copy()
    mujoco.mj_step(model, data, nstep=200)
    np.testing.assert_allclose(data.qpos, before, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_both_instructions_and_several_colours_come_up(kind):
    layouts = [draw_layout(kind, random_generator(kind, 0, trial)) for trial in range(40)]
    assert len({layout.goal > layout.start for layout in layouts}) == 2
    assert {layout.part for layout in layouts} <= set(COLOURS)
    assert len({layout.part for layout in layouts}) >= 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_asked_part_is_seen_and_is_not_most_of_the_picture(kind):
    for seed in range(8):
        on_part, effort = see_grid(draw_scene(kind, seed))
        assert 0.005 <= on_part.mean() <= 0.25
        assert (effort[~on_part] == 0).all()


def test_an_unknown_kind_or_seed_is_named():
    with pytest.raises(UserError, match="'window' is unknown; use one of drawer"):
        draw_scene("window", 0)
    with pytest.raises(UserError, match="-1"):
        draw_scene("door", -1)
