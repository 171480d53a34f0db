"""The simulator behind the signature of the text rewards."""

import subprocess
import sys
import time

import numpy as np

from gmma.rewards.manipulation import manipulation_contact_reward, manipulation_reward
from gmma.simulator.attempt import Answer, format_answer
from gmma.simulator.policies import know_answer
from gmma.simulator.sight import draw_scene

FRAME = [224, 224]


def oracle_text(kind, seed, action=None, size=(224, 224)):
    answer = know_answer(draw_scene(kind, seed), np.random.default_rng(0), size)
    return format_answer(Answer(point=answer.point, action=action or answer.action))


def score(reward, answers, kinds, seeds, frames):
    thoughts = [""] * len(answers)
    return reward(
        answers, thoughts=thoughts, kind=kinds, seed=seeds, frame_size=frames, part=[None]
    )


def test_success_contact_and_neither():
    right = oracle_text("drawer", 0)
    wrong = oracle_text("drawer", 0, "push" if "pull" in right else "pull")
    off = '{"point": [0, 223], "action": "pull"}'
    answers, count = [right, wrong, off, "nonsense", ""], 5
    scene = (["drawer"] * count, [0] * count, [FRAME] * count)
    assert score(manipulation_reward, answers, *scene) == [1, 0, 0, 0, 0]
    assert score(manipulation_contact_reward, answers, *scene) == [1, 1, 0, 0, 0]


def test_what_names_no_scene_is_none():
    answers = ['{"point": [1, 1], "action": "pull"}'] * 4
    kinds, seeds = ["window", "door", "door", "door"], [0, -1, "x", 0]
    frames = [FRAME, FRAME, FRAME, [224, 100]]
    assert score(manipulation_reward, answers, kinds, seeds, frames) == [None] * 4


def test_a_frame_of_1000_is_the_same_picture():
    size = (1000, 1000)
    text = oracle_text("lid", 3, size=size)
    assert score(manipulation_reward, [text], ["lid"], [3], [size]) == [1]


def test_the_order_changes_nothing():
    rng = np.random.default_rng(0)
    rows = [(k, s) for k in ("button", "lever", "door") for s in range(3)]
    answers = [oracle_text(kind, seed) for kind, seed in rows]
    order = rng.permutation(len(rows))
    kinds, seeds = zip(*rows, strict=True)
    values = score(manipulation_reward, answers, kinds, seeds, [FRAME] * 9)
    mixed = score(
        manipulation_reward,
        [answers[i] for i in order],
        [kinds[i] for i in order],
        [seeds[i] for i in order],
        [FRAME] * 9,
    )
    assert mixed == [values[i] for i in order]


def test_a_worker_needs_no_jax_and_starts_without_mujoco():
    code = (
        "import sys; from gmma.rewards.manipulation import manipulation_reward as r;"
        "assert 'mujoco' not in sys.modules;"
        "print(r(['x'], thoughts=[''], kind=['lid'], seed=[0], frame_size=[[224, 224]]));"
        "assert 'mujoco' in sys.modules and 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[0.0]\n", done.stderr


def test_a_hundred_attempts_a_second_on_two_cores():
    answers, seeds = [], []
    for seed in range(4):
        answers += [oracle_text("door", seed, action) for action in ("push", "pull")]
        answers += [f'{{"point": [{x}, 100], "action": "pull"}}' for x in range(60, 160, 10)]
        seeds += [seed] * 12
    began = time.process_time()
    score(manipulation_reward, answers, ["door"] * 48, seeds, [FRAME] * 48)
    assert 48 / (time.process_time() - began) >= 50  # of one core
