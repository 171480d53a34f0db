"""Rays, forces and outcomes on a door that a reader can check by hand.

The door is 1 m square, its hinge upright at x = −0.5, its front at y = −0.02 facing −y, the camera
3 m before its middle. With f = 112 / tan 20° pixels, the front at (x, z) is seen at column
112 + f·x / 2.98 and row 112 − f·(z − 1) / 2.98. A pull there has the effort x + 0.5 to open it.
"""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmma.simulator import mjcf
from gmma.simulator.attempt import (
    MISSED,
    Answer,
    attempt,
    format_answer,
    parse_answer,
    work_joint,
)
from gmma.simulator.scene import Scene, set_scene
from gmma.simulator.sight import draw_scene, push_effort, see

SIZE = (224, 224)
FOCAL = 112 / math.tan(math.radians(20))


def door_scene(start=0.0, goal=0.9):
    grey = (0.5, 0.5, 0.5)
    door = mjcf.jointed_body(
        "red",
        joint="hinge",
        axis=(0, 0, -1),
        at=(-0.5, 0, 1),
        high=1.5,
        arm=1.0,
        geoms=mjcf.box((1, 0.02, 1), (0.5, -0.01, 0), (0.8, 0.1, 0.1)),
    )
    wall = mjcf.box((0.5, 0.02, 1), (0.8, -0.01, 1), grey)
    bodies = door + wall + mjcf.look_from((0, -3, 1), (0, 0, 1), 40.0)
    text = mjcf.world(
        assets=mjcf.floor_texture(np.random.default_rng(0)), bodies=bodies, starts=(start,)
    )
    return Scene(
        kind="door", seed=0, mjcf=text, question="", part="red", start=start, goal=goal, arm=1.0
    )


def pixel_of(x, z):
    return 112 + FOCAL * x / 2.98, 112 - FOCAL * (z - 1) / 2.98


@settings(max_examples=30, deadline=None)
@given(x=st.floats(-0.45, 0.45), z=st.floats(0.55, 1.45))
def test_a_pixel_is_carried_back_to_the_point_it_shows(x, z):
    model, data = set_scene(door_scene())
    seen = see(model, data, np.array([pixel_of(x, z)]), SIZE)
    assert seen.body[0] == model.body("red").id
    half_pixel_metres = 0.5 * 2.98 / FOCAL
    np.testing.assert_allclose(seen.point[0], (x, -0.02, z), atol=half_pixel_metres * 1.001)
    np.testing.assert_allclose(seen.normal[0], (0, -1, 0), atol=1e-9)


def test_all_points_of_a_pixel_and_of_a_frame_twice_as_fine_are_one_point():
    model, data = set_scene(door_scene())
    coarse = see(model, data, np.array([(50.0, 60.0), (50.9, 60.2)]), SIZE).point
    np.testing.assert_array_equal(coarse[0], coarse[1])
    fine = see(model, data, np.array([(x, y) for x in (100, 101) for y in (120, 121)]), (448, 448))
    np.testing.assert_allclose(fine.point.mean(axis=0), coarse[0], atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(x=st.floats(-0.45, 0.45))
def test_effort_of_a_push_is_minus_the_distance_to_the_hinge(x):
    scene = door_scene()
    model, data = set_scene(scene)
    effort = push_effort(scene, model, data, see(model, data, np.array([pixel_of(x, 1)]), SIZE))
    assert effort[0] == pytest.approx(-(x + 0.5), abs=0.01)


def test_a_pull_far_from_the_hinge_opens_and_a_push_does_not():
    far = pixel_of(0.4, 1.2)
    opened = attempt(door_scene(), Answer(point=far, action="pull"))
    assert opened.success
    assert opened.contact
    assert opened.stage == 3
    assert 0.9 <= opened.displacement <= 1.5
    pushed = attempt(door_scene(), Answer(point=far, action="push"))
    assert (pushed.success, pushed.contact, pushed.stage) == (False, True, 1)
    assert pushed.displacement < 0.02


def test_near_the_hinge_friction_wins():
    near = attempt(door_scene(), Answer(point=pixel_of(-0.2, 1.0), action="pull"))  # effort 0.3
    assert (near.success, near.contact, near.stage) == (False, True, 1)
    assert near.displacement < 0.02


def test_an_open_door_is_closed_by_a_push_that_turns_with_it():
    scene = door_scene(start=0.9, goal=0.2)
    # At 0.9 rad the far edge is at x = −0.5 + cos 0.9, y = −sin 0.9; half a metre along is enough.
    along = 0.9
    x, y = -0.5 + along * math.cos(0.9) - 0.02 * math.sin(0.9), -along * math.sin(0.9)
    point = (112 + FOCAL * x / (3 + y), 112.0)
    assert attempt(scene, Answer(point=point, action="push")).success
    assert not attempt(scene, Answer(point=point, action="pull")).success


@pytest.mark.parametrize(
    "point",
    [pixel_of(0.8, 1.0), (3.0, 3.0), (-1.0, 50.0), (224.0, 50.0), (1e300, 50.0), (50.0, -0.001)],
    ids=["wall", "sky", "left", "right", "far", "above"],
)
@pytest.mark.parametrize("action", ["push", "pull"])
def test_elsewhere_nothing_happens(point, action):
    assert attempt(door_scene(), Answer(point=point, action=action)) == MISSED


@pytest.mark.parametrize("effort", [0.45, 0.5, 0.6])
def test_motion_follows_the_stated_friction_and_damping(effort):
    # The door: 0.02 m³ at 150 kg/m³, so I = 3/3 = 1 kg·m² about its edge. Friction is 0.4·10 N·m,
    # damping b = 0.6·10·0.35/1.5 = 1.4 N·m·s, so that I·q̈ + b·q̇ = 10·(e − 0.4) has, from rest,
    # q(t) = v·(t − τ·(1 − exp(−t/τ))) with v = 10·(e − 0.4)/b and τ = I/b.
    scene = door_scene(goal=99.0)
    model, data = set_scene(scene)
    point = np.array([effort - 0.5, -0.02, 1.0])
    moved = work_joint(scene, model, data, point, np.array([0.0, -mjcf.FORCE_NEWTONS, 0.0]))
    speed, lag = 10 * (effort - 0.4) / 1.4, 1 / 1.4
    expected = speed * (1.2 - lag * (1 - math.exp(-1.2 / lag)))
    assert moved == pytest.approx(expected, rel=0.01)


def test_the_same_answer_gives_the_same_bits_in_any_order():
    scenes = [draw_scene(kind, 1) for kind in ("drawer", "lid", "door")]
    points = [(x, y) for x in (90.0, 112.0) for y in (100.0, 140.0)]
    answers = [Answer(point=point, action="pull") for point in points]
    forth = [attempt(s, a) for s in scenes for a in answers]
    back = [attempt(s, a) for s in reversed(scenes) for a in reversed(answers)]
    assert forth == back[::-1]


@given(x=st.floats(0, 223.99), y=st.floats(0, 223.99), action=st.sampled_from(["push", "pull"]))
def test_what_is_written_is_read_back_to_the_pixel(x, y, action):
    text = format_answer(Answer(point=(x, y), action=action))
    assert parse_answer(text) == Answer(
        point=(float(math.floor(x)), float(math.floor(y))), action=action
    )
    assert json.loads(text)["action"] == action


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"point": [1, 2], "action": "pull"}', Answer(point=(1.0, 2.0), action="pull")),
        (' {"action":"push","point":[1.5,-2]}\n', Answer(point=(1.5, -2.0), action="push")),
        ("", None),
        ("pull 1 2", None),
        ('{"point": [1, 2]}', None),
        ('{"point": [1, 2], "action": "twist"}', None),
        ('{"point": [1, 2], "action": ["push"]}', None),
        ('{"point": [1, 2, 3], "action": "push"}', None),
        ('{"point": [true, 2], "action": "push"}', None),
        ('{"point": ["1", 2], "action": "push"}', None),
        ('{"point": [NaN, 2], "action": "push"}', None),
        ('{"point": [1e999, 2], "action": "push"}', None),
        ('{"point": [1' + "0" * 150 + ', 2], "action": "push"}', None),
        ('{"point": [1, 2], "action": "push", "why": ""}', None),
        ('[{"point": [1, 2], "action": "push"}]', None),
        ("[" * 200, None),
        ("[" * 100_000, None),
    ],
)
def test_the_strict_form_of_answers(text, answer):
    if answer is None and "000" in text:
        answer = parse_answer(text, "strict")  # a huge but finite number is a point, far outside
        assert answer is None or attempt(door_scene(), answer) == MISSED
    else:
        assert parse_answer(text, "strict") == answer


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(alphabet='{}[]":, 0123456789.eE+-pointacushl\\', max_size=60))
def test_reading_any_text_gives_an_answer_or_none(text):
    answer = parse_answer(text)
    assert answer is None or all(math.isfinite(coordinate) for coordinate in answer.point)


def test_ten_thousand_spoilt_answers_are_read_or_not_but_never_raise():
    rng = np.random.default_rng(0)
    good, read = '{"point": [12, 34.5], "action": "push"}', 0
    for _ in range(10_000):
        at, kept = rng.integers(len(good)), rng.integers(0, 3)
        spoilt = good[:at] + chr(rng.integers(0xD800)) + good[at + kept :]
        read += parse_answer(spoilt, "strict") is not None
        parse_answer(spoilt)
    assert 0 < read < 2_000  # digits may change
