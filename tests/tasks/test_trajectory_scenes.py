"""Generated scenes: what is drawn is where the truth says it is."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from records import real

from gmma.errors import UserError
from gmma.images.frames import square_frame
from gmma.tasks import TASKS
from gmma.tasks.trajectory import TrajectoryConfig
from gmma.tasks.trajectory_scenes import (
    COLOURS,
    SceneConfig,
    arc,
    draw_path_scene,
    label_patches,
    photographs,
)

SCENES = SceneConfig(train_scenes=6, validation_scenes=3, test_scenes=3)


@pytest.mark.parametrize("seed", range(30))
def test_things_stand_where_the_truth_says_each_in_its_cell(seed):
    scene = draw_path_scene(SCENES, "train", np.random.default_rng(seed))
    for colour, (x, y) in scene.blocks.items():
        seen = scene.image[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
        assert (seen == COLOURS[colour]).all()
    x, y = scene.gripper.astype(int)
    assert (scene.image[y, x] == 0).all()
    points = [scene.gripper, *scene.blocks.values()]
    cells = {tuple((point // 24).astype(int)) for point in points}
    assert len(cells) == len(points)
    np.testing.assert_allclose(scene.path[0], scene.gripper)
    np.testing.assert_allclose(scene.path[-1], next(iter(scene.blocks.values())))


def test_an_arc_by_hand():
    """From (20, 80) to (60, 80), 40 apart: the middle is lifted by a quarter of the way."""
    config = replace(SCENES, waypoints=3)
    path = arc(np.array([20.0, 80.0]), np.array([60.0, 80.0]), config)
    np.testing.assert_allclose(path, [[20, 80], [40, 70], [60, 80]])
    assert arc(np.array([5.0, 3.0]), np.array([90.0, 3.0]), config).min() == 0  # kept on the image


def test_scenes_are_the_same_every_time_and_differ_by_split(tmp_path):
    config = TrajectoryConfig(scenes=SCENES)
    task = TASKS["trajectory"]
    sources = []
    for home in (tmp_path / "a", tmp_path / "b"):
        task.build(config, home)
        sources.append(task.source(config, home, "train"))
    for index in range(6):
        first, second = sources[0][index], sources[1][index]
        assert first.columns == second.columns
        np.testing.assert_array_equal(first.images[0], second.images[0])
    test = task.source(config, tmp_path / "a", "test")
    assert len(test) == 3
    assert (test[0].images[0] != sources[0][0].images[0]).any()
    question = sources[0][0].question
    (named,) = [colour for colour in COLOURS if colour in question]
    assert sources[0][0].columns["objects"][0]["label"] == named


def test_photographs_are_dealt_out_among_the_splits(tmp_path):
    for number in range(10):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
    dealt = {s: {p[0, 0, 0] for p in photographs(tmp_path, s)} for s in ("train", "validation")}
    assert dealt == {"train": {0, 1, 2, 5, 6, 7}, "validation": {3, 8}}
    assert {p[0, 0, 0] for p in photographs(tmp_path, "test")} == {4, 9}
    (tmp_path / "few").mkdir()
    config = TrajectoryConfig(scenes=replace(SCENES, backgrounds=tmp_path / "few"))
    with pytest.raises(UserError, match=r"0 photographs .* 5 or more"):
        TASKS["trajectory"].build(config, tmp_path)


def test_a_real_photograph_lies_behind(tmp_path):
    scenes = replace(SCENES, background_share=0.6, backgrounds=real("coco_permissive52/train"))
    scene = draw_path_scene(scenes, "test", np.random.default_rng(3))
    smooth = draw_path_scene(
        replace(SCENES, background_share=0.6), "test", np.random.default_rng(3)
    )
    assert scene.image.shape == smooth.image.shape == (96, 96, 3)
    detail = [np.abs(np.diff(s.image.astype(int), axis=0)).mean() for s in (scene, smooth)]
    assert detail[0] > 1.2 * detail[1]


def test_demonstrations_stray_as_far_as_they_should(tmp_path):
    """Ends within ±5 % of 100, points within ±10 % more, and with errors always another block."""
    exact = TrajectoryConfig(scenes=SCENES)
    task = TASKS["trajectory"]
    task.build(exact, tmp_path)
    example = task.in_frame(exact, task.source(exact, tmp_path, "train")[1], square_frame(100))
    truth = np.asarray(example.columns["answer"])
    said = task.demonstrate(exact, example, np.random.default_rng(0))
    assert np.abs(np.asarray(json.loads(said.answer)) - truth).max() <= 0.5
    goal = example.columns["objects"][0]["label"]
    assert said.thought.startswith(f"gripper at {round(truth[0, 0])}, {round(truth[0, 1])}; {goal}")
    noisy = replace(exact, end_noise=0.05, path_noise=0.1)
    for seed in range(50):
        told = task.demonstrate(noisy, example, np.random.default_rng(seed)).answer
        told = np.asarray(json.loads(told))
        inside = (truth > 16) & (truth < 84)  # where nothing is clipped
        assert np.abs(told - truth)[inside].max() <= 16
    wrong = replace(exact, thought_error_rate=1.0)
    told = json.loads(task.demonstrate(wrong, example, np.random.default_rng(0)).answer)
    others = [o["point"] for o in example.columns["objects"][1:]]
    assert min(np.abs(np.asarray(told[-1]) - other).max() for other in others) <= 1
    with pytest.raises(UserError, match="path_noise = 2"):
        TrajectoryConfig(path_noise=2)


def test_patches_say_what_stands_in_them():
    found = label_patches(SCENES, np.random.default_rng(0), 100, 48, 12)
    assert found.pixels.shape == (100, 12, 12, 3)
    assert found.labels.max(axis=0).tolist() <= [6, 11, 11]
    for pixels, (thing, x, y) in zip(found.pixels, found.labels, strict=True):
        if thing >= 2:  # a block's middle has its colour
            colour = np.asarray(list(COLOURS.values())[thing - 2])
            assert np.abs(pixels[y, x].astype(int) - colour).max() < 60
        assert (thing == 0) == (x == -1)
    share = (found.labels[:, 0] > 0).mean()
    assert 3 / 16 < share < 4.5 / 16  # gripper and two or three blocks on sixteen patches


@pytest.mark.parametrize(
    ("field", "value"),
    [("waypoints", 1), ("scene_pixels", 8), ("blocks_max", 1), ("test_scenes", 0), ("lift", 2)],
)
def test_wrong_fields_are_named(field, value):
    with pytest.raises(UserError, match=f"{field} is {value}"):
        SceneConfig(**{field: value})
