"""Every visual task from record to picture, in every frame; augmentation keeps truth in step."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import ANSWERS, TASKS_WITH_RECORDS, drawn_config, real, real_config

from gmma.answers.boxes import parse_box
from gmma.answers.points import parse_point, parse_points
from gmma.errors import UserError
from gmma.families.gemma3.images import GemmaImageConfig, gemma_processor
from gmma.families.qwen2_5_vl.images import QwenImageConfig, image_size, qwen_processor
from gmma.families.qwen2_5_vl.tower import QwenVisionConfig
from gmma.families.qwen3_vl.images import qwen3_vl_processor
from gmma.huggingface.processors import BICUBIC, CLIP_MEAN, CLIP_STD, HALF
from gmma.images.common import PixelConfig
from gmma.images.frames import STORED_PIXELS, THOUSANDTHS, AxisMap, between, square_frame
from gmma.images.processor import fixed_size_processor
from gmma.rewards import REWARDS
from gmma.tasks import TASKS
from gmma.tasks.augment import (
    AugmentConfig,
    augment_example,
    crop_example,
    draw_crop,
    flip_example,
    swap_sides,
)
from gmma.text.prompt import answer_text, prompt_text, thought_text
from gmma.text.tokenizer import load_sentencepiece

FRAMES = {"pixels": STORED_PIXELS, "thousandths": THOUSANDTHS, "square": square_frame(48)}
REWARD = {
    "detection": "detection",
    "affordance": "box_iou",
    "affordance_points": "affordance_points",
    "demand": "demand",
    "ocr_vqa": "anls",
    "trajectory": "trajectory",
}
WORST = {"kld": 20.0, "nss": -2.0, "dfd": 1414.0, "hd": 1414.0, "rmse": 1414.0, "end_point": 1414.0}


def reward_of(name, answer, example):
    columns = {key: [value] for key, value in example.columns.items()}
    (value,) = REWARDS[REWARD[name]]([answer], thoughts=[""], **columns)
    return value


def spell(name, answer):
    """The truth of a record as an answer."""
    if name == "affordance_points":
        return "[[10, 12], [20.5, 25.5]]"
    if name == "demand":
        return str(answer["boxes"][1])
    return answer[0] if name == "ocr_vqa" else json.dumps(answer)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Config and data directory of each task over drawn records, built once."""
    built = {}
    for name in TASKS_WITH_RECORDS:
        folder = tmp_path_factory.mktemp(name)
        config = drawn_config(folder, name)
        TASKS[config.name].build(config, folder)
        built[name] = (config, folder)
    return built


@pytest.mark.parametrize("name", TASKS_WITH_RECORDS)
def test_the_truth_itself_earns_everything_in_pixels(drawn, name):
    config, folder = drawn[name]
    task = TASKS[config.name]
    example = task.source(config, folder, "test")[0]
    assert example.columns["image_size"] == example.columns["pixels"] == [60, 40]
    answer = spell(name, ANSWERS[name])
    assert reward_of(name, answer, example) == 1.0
    assert reward_of(name, "", example) == 0.0
    measured = task.metrics(config, [answer, ""], [example, example])
    assert measured[task.headline] == [1.0, 0.0]
    assert measured["parsed"] == [1.0, 0.0]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", TASKS_WITH_RECORDS)
def test_a_record_becomes_prompt_demonstration_reward_metrics_and_picture(drawn, name, frame):
    config, folder = drawn[name]
    task = TASKS[config.name]
    example = task.in_frame(config, task.source(config, folder, "train")[3], FRAMES[frame])
    width, height = FRAMES[frame].size(60, 40)
    assert example.columns["image_size"] == [width, height]
    if name != "ocr_vqa":
        said = "0 to 1000" if frame == "thousandths" else f"{width} x {height} image"
        assert said in example.question
    shown = task.demonstrate(config, example, np.random.default_rng(0))
    least = 0.85 if frame == "square" else 0.95  # coordinates are spelt in whole numbers
    assert reward_of(name, shown.answer, example) >= least
    measured = task.metrics(config, [shown.answer, "?!"], [example, example])
    assert measured[task.headline][0] >= least
    assert {len(values) for values in measured.values()} == {2}
    for metric, worst in WORST.items():
        if metric in measured:
            assert abs(measured[metric][1]) >= abs(worst)
            assert measured[metric][1] * np.sign(worst) > measured[metric][0] * np.sign(worst)
    drawn = task.draw(config, example, [shown.answer, "?!"])
    assert drawn is None if name == "ocr_vqa" else drawn.width == 672


@pytest.mark.parametrize("name", TASKS_WITH_RECORDS)
def test_the_tokenizer_spells_every_text(drawn, name):
    config, folder = drawn[name]
    task = TASKS[config.name]
    tokenizer = load_sentencepiece(task.tokenizer_path(config, folder))
    example = task.in_frame(config, task.source(config, folder, "test")[0], square_frame(48))
    shown = task.demonstrate(config, example, np.random.default_rng(0))
    for text in (
        prompt_text(example.question),
        thought_text(shown.thought),
        answer_text(shown.answer),
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", TASKS_WITH_RECORDS)
def test_real_records_go_the_whole_way(name, tmp_path):
    config = real_config(name)
    task = TASKS[config.name]
    task.build(config, tmp_path)
    for split in ("train", "validation", "test"):
        source = task.source(config, tmp_path, split)
        for index in range(len(source)):
            example = task.in_frame(config, source[index], THOUSANDTHS)
            shown = task.demonstrate(config, example, np.random.default_rng(index))
            assert reward_of(name, shown.answer, example) > 0.9
            (parsed,) = task.metrics(config, [shown.answer], [example])["parsed"]
            assert parsed == 1.0
        task.draw(config, example, [shown.answer])


def test_real_splits_share_no_picture(tmp_path):
    config = real_config("demand")
    task = TASKS["demand"]
    task.build(config, tmp_path)
    seen = {}
    for split in ("train", "validation", "test"):
        source = task.source(config, tmp_path, split)
        seen[split] = {source[i].images[0].tobytes() for i in range(len(source))}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]


sizes = st.tuples(st.integers(20, 2000), st.integers(20, 2000))


@settings(max_examples=100)
@given(size=sizes, frame=st.sampled_from(sorted(FRAMES)), share=st.tuples(*[st.floats(0, 1)] * 4))
def test_frames_convert_there_and_back(size, frame, share):
    """In each frame the image goes from 0 to its size, and a truth comes back where it was."""
    place = between(size, FRAMES[frame].size(*size))
    assert place.point(*size) == pytest.approx(FRAMES[frame].size(*size))
    assert place.point(0, 0) == (0, 0)
    box = [side * part for side, part in zip(size * 2, share, strict=True)]
    there = place.box(box)
    x1, y1, x2, y2 = box
    ordered = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    assert place.inverse().box(there) == pytest.approx(ordered, abs=1e-9)


def pixels(mean, std, resample):
    return PixelConfig(mean=mean, std=std, resample=resample)


def test_each_family_speaks_its_own_frame():
    """Qwen2.5-VL in pixels of the image it sees, Qwen3-VL and Gemma in thousandths, tiny in pixels
    of its square.
    """
    tower = QwenVisionConfig(layers=1, width=8, heads=1, mlp=8, full_layers=(False,))
    config = QwenImageConfig(pixels=pixels(CLIP_MEAN, CLIP_STD, BICUBIC), vision=tower)
    qwen = qwen_processor(config).frame
    for width, height in ((640, 428), (30, 999), (1280, 720)):
        seen = image_size(np.zeros((height, width, 3), np.uint8), config)
        assert qwen.size(width, height) == seen[::-1]
        assert f"{seen[1]} x {seen[0]} image" in qwen.words(width, height)
    gemma = GemmaImageConfig(pixels=pixels(HALF, HALF, BICUBIC), side=56)
    assert qwen3_vl_processor(config).frame.size(640, 428) == (1000, 1000)
    assert gemma_processor(gemma, 4).frame.size(640, 428) == (1000, 1000)
    assert fixed_size_processor(16, 48).frame.size(640, 428) == (48, 48)


def test_the_tiny_processor_resizes_photographs_and_leaves_squares_alone(drawn):
    config, folder = drawn["demand"]
    example = TASKS["demand"].source(config, folder, "test")[0]
    arrays = fixed_size_processor(16, 48).to_arrays([example])
    assert arrays.shape == (1, 1, 48, 48, 3)
    assert arrays.mean() == pytest.approx(example.images[0].mean() / 255, abs=0.01)
    square = replace(example, images=(example.images[0][:40, :40],))
    exact = fixed_size_processor(16, 40).to_arrays([square])
    np.testing.assert_array_equal(exact[0, 0] * 255, square.images[0].astype(np.float32))


def marked(example):
    """The example on a black image whose truth box is painted white."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[6:30, 4:24] = 255
    return replace(example, images=(image,))


def white_box(image):
    rows, columns = np.nonzero(image[..., 0])
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_changed_images_keep_their_truth_in_step(drawn, seed):
    """Wherever flip and crop take the painted box, its coordinates and its mask go with it."""
    config, folder = drawn["affordance_points"]
    task = TASKS["affordance"]
    always = AugmentConfig(flip_rate=0.5, crop_rate=1.0, crop_least=0.4)
    config = replace(config, augment=always)
    example = marked(task.source(config, folder, "train")[0])
    changed = task.augment(config, example, np.random.default_rng(seed))
    (image,) = changed.images
    assert [image.shape[1], image.shape[0]] == changed.columns["pixels"]
    assert changed.columns["box"] == white_box(image)
    np.testing.assert_array_equal(changed.columns["mask"], image[..., 0] > 0)
    np.testing.assert_array_equal(changed.columns["answer"], image[..., 0] > 0)
    assert image.shape[0] >= 0.4 * 40
    assert image.shape[1] >= 0.4 * 60
    framed = task.in_frame(config, changed, THOUSANDTHS)
    shown = task.demonstrate(config, framed, np.random.default_rng(0))
    assert reward_of("affordance_points", shown.answer, framed) == 1.0


def test_a_mirror_exchanges_sides_in_words_labels_and_places(drawn):
    config, folder = drawn["detection"]
    task = TASKS["detection"]
    config = replace(config, augment=AugmentConfig(flip_rate=1.0))
    example = task.source(config, folder, "train")[0]
    changed = task.augment(config, example, np.random.default_rng(0))
    assert changed.question == example.question.replace("left", "right")
    assert changed.columns["answer"] == [
        {"label": "cup", "box": [36, 6, 56, 30]},
        {"label": "right shoe", "box": [16, 8, 30, 20]},
    ]
    np.testing.assert_array_equal(changed.images[0], example.images[0][:, ::-1])
    again = task.augment(config, changed, np.random.default_rng(0))
    assert again.columns == dict(example.columns)
    assert again.question == example.question
    path_config, folder = drawn["trajectory"]
    path_config = replace(path_config, augment=AugmentConfig(flip_rate=1.0))
    path = TASKS["trajectory"].source(path_config, folder, "train")[0]
    mirrored = TASKS["trajectory"].augment(path_config, path, np.random.default_rng(0))
    assert mirrored.columns["answer"] == [[56, 6], [40, 12], [16, 30]]


def test_text_is_never_mirrored_or_cut_and_nothing_changes_unless_asked(drawn):
    config, folder = drawn["ocr_vqa"]
    example = TASKS["ocr_vqa"].source(config, folder, "train")[0]
    often = replace(config, augment=AugmentConfig(flip_rate=1.0, crop_rate=1.0))
    rng = np.random.default_rng(0)
    changed = TASKS["ocr_vqa"].augment(often, example, rng)
    np.testing.assert_array_equal(changed.images[0], example.images[0])
    for name, (own, place) in drawn.items():
        task = TASKS[own.name]
        example = task.source(own, place, "train")[0]
        assert task.augment(own, example, rng) is example, name


def test_colours_change_pixels_and_nothing_else(drawn):
    config, folder = drawn["demand"]
    config = replace(config, augment=AugmentConfig(colour_rate=1.0))
    example = TASKS["demand"].source(config, folder, "train")[0]
    changed = TASKS["demand"].augment(config, example, np.random.default_rng(1))
    assert (changed.images[0] != example.images[0]).any()
    assert changed.columns == example.columns
    with pytest.raises(UserError, match=r"augment\.flip_rate = 2"):
        AugmentConfig(flip_rate=2)


def test_sides_in_words():
    assert swap_sides("LEFT hand, the left-hand side") == "Right hand, the right-hand side"
    assert swap_sides("what is left over is bright") == "what is right over is bright"
    assert swap_sides("左边的杯子") == "右边的杯子"


def test_detection_over_a_split(drawn):
    """Twelve equal images, half of them answered exactly: precision 1 at half the recall."""
    config, folder = drawn["detection"]
    task = TASKS["detection"]
    source = task.source(config, folder, "test")
    examples = [task.in_frame(config, source[i], THOUSANDTHS) for i in range(12)]
    exact = [json.dumps(e.columns["answer"]) if i % 2 else "[]" for i, e in enumerate(examples)]
    picks = np.stack([np.full(12, 1), np.full(12, 0), np.arange(12)])
    found = task.corpus(config, exact, examples, picks)
    assert set(found) == {"AP", "AP50", "AP75"}
    for figure in found.values():
        assert figure.value == pytest.approx(51 / 101)  # recall levels 0, 0.01 … 0.5 of 101
        assert figure.resampled == pytest.approx([1.0, 0.0, 51 / 101])


def test_a_crowd_counts_neither_way(tmp_path):
    config = drawn_config(tmp_path, "detection")
    rows = json.loads(config.records.train.read_text())
    for row in rows:
        row["answer"] = [
            *ANSWERS["detection"],
            {"label": "cup", "box": [0, 30, 60, 40], "crowd": True},
        ]
    config.records.train.write_text(json.dumps(rows))
    task = TASKS["detection"]
    task.build(config, tmp_path)
    example = task.source(config, tmp_path, "test")[0]
    assert example.columns["answer"] == ANSWERS["detection"]
    inside = [*ANSWERS["detection"], {"label": "cup", "box": [10, 31, 20, 39]}]
    figures = task.corpus(config, [json.dumps(inside)], [example], np.zeros((1, 1), int))
    assert figures["AP"].value == pytest.approx(1.0)


def test_the_answers_of_a_published_model_are_read():
    """Six answers of RoboBrain 2.0, quoted by its authors: boxes, paths in parentheses, points."""
    readers = {"affordance": parse_box, "grounding": parse_box, "trajectory": parse_points}
    for row in json.loads(real("robobrain_demo/demo.json").read_text()):
        read = readers.get(row["task"], parse_points)
        found = np.asarray(read(row["example_model_answer"]))
        assert found.dtype == np.float64, row
        width, height = row["size"]
        assert (found.reshape(-1, 2) <= (width, height)).all()
    assert parse_point("(376, 309)") == (376, 309)


def test_too_many_objects_are_left_out(tmp_path):
    config = drawn_config(tmp_path, "detection", most_objects=1)
    rows = json.loads(config.records.train.read_text())
    rows[4]["answer"] = ANSWERS["detection"][:1]
    config.records.train.write_text(json.dumps(rows))
    TASKS["detection"].build(config, tmp_path)
    assert len(TASKS["detection"].source(config, tmp_path, "train")) == 1


@settings(max_examples=50, deadline=None)
@given(
    x=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    y=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    least=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_crop_holds_all_of_the_truth(drawn, x, y, least, seed):
    config, folder = drawn["affordance"]
    task = TASKS["affordance"]
    example = task.source(config, folder, "train")[0]
    box = [float(min(x)), float(min(y)), float(max(x)), float(max(y))]
    example = replace(example, columns={**example.columns, "box": box, "answer": box})
    geometry = task.augment.args[0].geometry
    window = draw_crop(
        AugmentConfig(crop_least=least), geometry, example, np.random.default_rng(seed)
    )
    x1, y1, x2, y2 = window
    assert 0 <= x1 <= box[0]
    assert box[2] <= x2 <= 60
    assert 0 <= y1 <= box[1]
    assert box[3] <= y2 <= 40
    assert x2 - x1 >= least * 60 - 1e-9
    cropped = crop_example(geometry, example, window)
    assert cropped.columns["box"] == [box[0] - x1, box[1] - y1, box[2] - x1, box[3] - y1]
    assert flip_example(geometry, cropped).images[0].shape == (y2 - y1, x2 - x1, 3)
    assert augment_example(AugmentConfig(), geometry, example, np.random.default_rng(0)) is example


def test_axis_maps_compose_with_their_inverse():
    mirror = AxisMap(scale=(-1.0, 2.0), shift=(60.0, 1.0))
    assert mirror.box([4, 6, 24, 30]) == (36, 13, 56, 61)
    assert mirror.inverse().box(mirror.box([4, 6, 24, 30])) == (4, 6, 24, 30)
