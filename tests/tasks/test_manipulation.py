"""The manipulation dataset: seeds per split, right answers in either frame, thoughts, pictures."""

from dataclasses import replace

import numpy as np
import pytest

from gmma.errors import UserError
from gmma.simulator.attempt import parse_answer
from gmma.simulator.render import open_gl
from gmma.simulator.scene import KINDS
from gmma.tasks.manipulation import MANIPULATION
from gmma.tasks.manipulation.dataset import SPLITS, ManipulationConfig, scene_name
from gmma.text.prompt import answer_text, thought_text
from gmma.text.tokenizer import load_sentencepiece

CONFIG = ManipulationConfig(train_scenes=12, validation_scenes=6, test_scenes=6, image_pixels=112)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("manipulation")
    try:
        with open_gl((112, 112)):
            pass
    except UserError as error:
        pytest.skip(f"needs OpenGL: {error}")
    MANIPULATION.build(CONFIG, path)
    return path


def examples_of(config, data_dir, split):
    records = MANIPULATION.source(config, data_dir, split)
    return [records[i] for i in range(len(records))]


def test_splits_have_their_sizes_every_kind_and_no_scene_in_common(data_dir):
    seen = {}
    for split in SPLITS:
        examples = examples_of(CONFIG, data_dir, split)
        assert len(examples) == CONFIG.count(split)
        assert [e.columns["kind"] for e in examples[:6]] == list(KINDS)
        seen[split] = {(e.columns["kind"], e.columns["seed"]) for e in examples}
        assert len(seen[split]) == len(examples)
    assert not seen["train"] & seen["validation"]
    assert not (seen["train"] | seen["validation"]) & seen["test"]


def test_sets_of_different_seeds_share_no_scene():
    last = scene_name(replace(CONFIG, train_scenes=10**6, kinds=("door",)), "train", 10**6 - 1)
    first = scene_name(replace(CONFIG, seed=1, kinds=("door",)), "train", 0)
    assert last[1] < first[1]
    assert scene_name(replace(CONFIG, seed=999), "train", 0)[1] + 10**6 <= 10**9


def test_an_example_holds_picture_question_and_columns(data_dir):
    example = MANIPULATION.source(CONFIG, data_dir, "train")[0]
    assert example.id == "train/0"
    assert example.images[0].shape == (112, 112, 3)
    assert example.images[0].std() > 10
    assert "drawer. A suction cup" in example.question
    assert "in pixels of the 112 x 112 image" in example.question
    assert set(example.columns) == {"answer", "kind", "seed", "part", "frame_size"}
    bare = MANIPULATION.source(replace(CONFIG, explain=False), data_dir, "train")[0]
    assert bare.question == example.question.partition(" A suction")[0]


@pytest.mark.parametrize("frame", ["pixels", "thousand"])
def test_the_stored_answers_and_the_demonstrations_succeed(data_dir, frame):
    config = replace(CONFIG, frame=frame)
    examples = examples_of(config, data_dir, "train")
    stored = [example.columns["answer"] for example in examples]
    shown = [MANIPULATION.demonstrate(config, e, np.random.default_rng(1)) for e in examples]
    for answers in (stored, [demonstration.answer for demonstration in shown]):
        values = MANIPULATION.metrics(config, answers, examples)
        assert all(np.mean(values[name]) == 1 for name in ("success", "contact", "parsed"))
    for demonstration, example in zip(shown, examples, strict=True):
        answer = parse_answer(demonstration.answer)
        assert demonstration.thought.startswith(f"The {example.columns['part']} ")
        assert demonstration.thought.endswith(f": {answer.action}.")
        x1, y1, x2, y2 = map(int, demonstration.thought.split("[")[1].split("]")[0].split(","))
        assert x1 <= answer.point[0] <= x2
        assert y1 <= answer.point[1] <= y2


def test_metrics_count_what_cannot_be_read_at_the_worst(data_dir):
    examples = examples_of(CONFIG, data_dir, "test")[:2]
    values = MANIPULATION.metrics(CONFIG, ["", '{"point": [0, 0], "action": "push"}'], examples)
    assert values == {"success": [0, 0], "contact": [0, 0], "parsed": [0, 1]}


def test_the_drawing_shows_guesses(data_dir):
    example = MANIPULATION.source(CONFIG, data_dir, "train")[1]
    plain = np.asarray(MANIPULATION.draw(CONFIG, example, []))
    guessed = np.asarray(MANIPULATION.draw(CONFIG, example, [example.columns["answer"], "?"]))
    x, y = (int((c + 0.5) * 6) for c in parse_answer(example.columns["answer"]).point)
    assert plain.shape == (672, 672, 3)
    assert (plain[y - 6 : y + 6, x - 6 : x + 6] != guessed[y - 6 : y + 6, x - 6 : x + 6]).any()
    np.testing.assert_array_equal(plain[-1], guessed[-1])


@pytest.mark.parametrize("frame", ["pixels", "thousand"])
def test_the_tokenizer_spells_every_text_and_an_answer_in_few_tokens(data_dir, frame):
    config = replace(CONFIG, frame=frame)
    MANIPULATION.build(config, data_dir)
    tokenizer = load_sentencepiece(MANIPULATION.tokenizer_path(config, data_dir))
    for example in examples_of(config, data_dir, "test"):
        shown = MANIPULATION.demonstrate(config, example, np.random.default_rng(0))
        for text in (example.question, thought_text(shown.thought), answer_text(shown.answer)):
            assert tokenizer.decode(tokenizer.encode(text)) == text
        most = 5 if frame == "pixels" else 11  # opening, x, comma, y, closing
        assert len(tokenizer.encode(answer_text(shown.answer))) <= most + 1


def test_wrong_fields_are_named(tmp_path):
    for fields, message in (
        ({"kinds": ("window",)}, "window"),
        ({"kinds": ()}, "name each once"),
        ({"train_scenes": 0}, "train_scenes is 0"),
        ({"image_pixels": 8}, "image_pixels is 8"),
        ({"seed": 1000}, "seed is 1000"),
    ):
        with pytest.raises(UserError, match=message):
            ManipulationConfig(**fields)
    with pytest.raises(UserError, match="build it first"):
        MANIPULATION.source(CONFIG, tmp_path, "train")
    with pytest.raises(UserError, match="no split 'dev'"):
        MANIPULATION.source(CONFIG, tmp_path, "dev")
