"""The digits dataset: disjoint digits, boxes that fit, the same bytes every time, honest noise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from gmma.answers.boxes import parse_box
from gmma.errors import UserError
from gmma.tasks import TASKS
from gmma.tasks.digits import (
    SPLITS,
    DigitsConfig,
    asked_label,
    build,
    demonstrate,
    digit_pools,
    draw,
    metrics,
    source,
    tokenizer_path,
)
from gmma.text.prompt import answer_text, prompt_text, thought_text
from gmma.text.tokenizer import load_sentencepiece

CONFIG = DigitsConfig(train_scenes=32, validation_scenes=8, test_scenes=8)
EXACT = replace(CONFIG, point_noise_pixels=0, box_noise_pixels=0, thought_error_rate=0.0)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits")
    build(CONFIG, path)
    return path


def examples_of(data_dir, split):
    records = source(CONFIG, data_dir, split)
    return [records[i] for i in range(len(records))]


@pytest.fixture(scope="module")
def train(data_dir):
    return examples_of(data_dir, "train")


def test_the_task_is_listed():
    assert TASKS["digits"].config is DigitsConfig


def test_splits_have_their_sizes_and_share_no_digit_image(data_dir):
    used = {}
    for split in SPLITS:
        examples = examples_of(data_dir, split)
        assert len(examples) == getattr(CONFIG, f"{split}_scenes")
        assert len({example.id for example in examples}) == len(examples)
        used[split] = {digit for example in examples for digit in example.columns["digits"]}
    assert not used["train"] & used["test"]
    assert not used["train"] & used["validation"]
    assert not used["validation"] & used["test"]


def test_pools_partition_the_1797_images():
    rows = [np.concatenate(pool.rows) for pool in digit_pools().values()]
    assert sorted(np.concatenate(rows)) == list(range(1797))
    assert min(len(part) for part in rows) > 150
    target = load_digits().target
    for pool in digit_pools().values():
        assert all((target[part] == label).all() for label, part in enumerate(pool.rows))


def test_the_canvas_is_its_digits_at_their_points_and_nothing_else(train):
    digits = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    for example in train:
        expected = np.zeros((48, 48), np.uint8)
        for (x, y), digit in zip(example.columns["points"], example.columns["digits"], strict=True):
            expected[y : y + 8, x : x + 8] = digits[digit]
        (image,) = example.images
        assert image.dtype == np.uint8
        assert image.shape == (48, 48, 3)
        assert (image == expected[:, :, None]).all()


def test_the_answer_is_the_box_of_the_digit_asked_for(train):
    target = load_digits().target
    for example in train:
        columns = example.columns
        x1, y1, x2, y2 = columns["answer"]
        assert (x2 - x1, y2 - y1) == (8, 8)
        assert min(x1, y1) >= 0
        assert max(x2, y2) <= 48
        asked = columns["points"].index([x1, y1])
        assert example.question == f"Where is the {target[columns['digits'][asked]]}?"
        assert asked_label(example) == columns["labels"][asked]
        assert columns["labels"] == target[columns["digits"]].tolist()


def test_digits_stand_in_distinct_cells_and_have_distinct_classes(train):
    for example in train:
        cells = [(y // 12, x // 12) for x, y in example.columns["points"]]
        assert cells == sorted(set(cells))
        assert len(cells) in (2, 3)
        assert all(x % 12 <= 4 and y % 12 <= 4 for x, y in example.columns["points"])
        assert len(set(example.columns["labels"])) == len(cells)


def test_building_again_elsewhere_gives_the_same_records_and_tokenizer(data_dir, train, tmp_path):
    build(CONFIG, tmp_path)
    for first, second in zip(train, examples_of(tmp_path, "train"), strict=True):
        assert (first.question, first.columns, first.id) == (
            second.question,
            second.columns,
            second.id,
        )
        assert (first.images[0] == second.images[0]).all()
    tokenizers = [tokenizer_path(CONFIG, path).read_bytes() for path in (data_dir, tmp_path)]
    assert tokenizers[0] == tokenizers[1]


def test_a_second_build_touches_nothing_and_noise_needs_no_build(data_dir):
    def stamps():
        return {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}

    before = stamps()
    build(CONFIG, data_dir)
    build(replace(EXACT, thought_error_rate=0.5), data_dir)
    assert stamps() == before


def test_other_scenes_have_another_home(data_dir):
    for change in ({"seed": 1}, {"train_scenes": 33}, {"digits_max": 4}, {"cell_pixels": 13}):
        with pytest.raises(UserError, match="no dataset at"):
            source(replace(CONFIG, **change), data_dir, "train")


def test_an_interrupted_build_is_no_dataset(tmp_path, monkeypatch):
    def cut_short(config, split, index):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gmma.tasks.digits.draw_scene", cut_short)
        with pytest.raises(KeyboardInterrupt):
            build(CONFIG, tmp_path)
    with pytest.raises(UserError, match="no dataset at"):
        source(CONFIG, tmp_path, "train")
    build(CONFIG, tmp_path)
    tokenizer_path(CONFIG, tmp_path).unlink()  # killed between the dataset and its tokenizer
    build(CONFIG, tmp_path)
    assert tokenizer_path(CONFIG, tmp_path).exists()
    assert len(source(CONFIG, tmp_path, "train")) == 32


def test_exact_demonstrations_say_the_truth(train):
    for example in train:
        shown = demonstrate(EXACT, example, np.random.default_rng(0))
        assert parse_box(shown.answer) == tuple(example.columns["answer"])
        named = list(zip(example.columns["labels"], example.columns["points"], strict=True))
        named.sort(key=lambda pair: pair[0] != asked_label(example))  # stable: the others in order
        assert shown.thought == "; ".join(f"{label} at {x}, {y}" for label, (x, y) in named)


def point_named(thought: str, label: int) -> tuple[int, int]:
    (place,) = [part for part in thought.split("; ") if part.startswith(f"{label} at ")]
    x, y = place.removeprefix(f"{label} at ").split(", ")
    return int(x), int(y)


@settings(max_examples=100, deadline=None)
@given(
    index=st.integers(0, 31),
    seed=st.integers(0, 2**32),
    point_noise=st.integers(0, 3),
    box_noise=st.integers(0, 3),
    error_rate=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_noise_keeps_its_bounds(train, index, seed, point_noise, box_noise, error_rate):
    example = train[index]
    config = replace(
        CONFIG,
        point_noise_pixels=point_noise,
        box_noise_pixels=box_noise,
        thought_error_rate=error_rate,
    )
    shown = demonstrate(config, example, np.random.default_rng(seed))
    assert shown == demonstrate(config, example, np.random.default_rng(seed))
    x1, y1, x2, y2 = parse_box(shown.answer)
    assert (x2 - x1, y2 - y1) == (8, 8)
    assert min(x1, y1) >= 0
    assert max(x2, y2) <= 48
    x, y = point_named(shown.thought, asked_label(example))
    assert max(abs(x - x1), abs(y - y1)) <= box_noise
    truths = {
        label: max(abs(x - u), abs(y - v)) <= point_noise
        for label, (u, v) in zip(example.columns["labels"], example.columns["points"], strict=True)
    }
    right = truths[asked_label(example)]
    assert any(truths.values())
    assert error_rate == 0.5 or right == (error_rate == 0.0)


def test_metrics_count_what_cannot_be_read_as_worst(train):
    truth = str(train[0].columns["answer"])
    answers = [truth, "nowhere", ""]
    measured = metrics(CONFIG, answers, [train[0]] * 3)
    assert measured == {name: [1.0, 0.0, 0.0] for name in ("iou", "acc_0.7", "parsed")}


def test_the_picture_shows_truth_and_guess(train):
    example = train[0]
    x1, y1, _, _ = example.columns["answer"]
    other = "[0, 0, 8, 8]" if (x1, y1) != (0, 0) else "[40, 40, 48, 48]"
    picture = np.asarray(draw(CONFIG, example, [other, "no box", "[9, 9, 1, 1]"]))
    assert picture.shape == (384, 384, 3)
    coloured = {tuple(p) for p in picture.reshape(-1, 3) if len(set(p)) > 1}
    assert len(coloured) == 3  # truth, first answer, third answer


@pytest.mark.parametrize(
    "box", ["[5, 5, 5, 5]", "[5, 5, 5, 9]", "[5, 5, 9, 5]", f"[5, 5, {9**40}, 9]"]
)
def test_a_box_that_is_empty_or_far_too_large_is_drawn_too(train, box):
    """A policy says such things, and its samples are drawn while it trains."""
    without, drawn = (np.asarray(draw(CONFIG, train[0], said)) for said in ([], [box]))
    assert (without != drawn).any()


def test_every_text_of_the_task_survives_its_tokenizer_and_is_short(data_dir, train):
    tokenizer = load_sentencepiece(tokenizer_path(CONFIG, data_dir))
    for example in train:
        shown = demonstrate(CONFIG, example, np.random.default_rng(0))
        texts = (
            prompt_text(example.question),
            thought_text(shown.thought),
            answer_text(shown.answer),
        )
        for text, most in zip(texts, (8, 12, 6), strict=True):
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) == text
            assert len(ids) <= most


@settings(max_examples=100, deadline=None)
@given(numbers=st.lists(st.integers(0, 48), min_size=4, max_size=4))
def test_an_answer_has_one_token_per_number(data_dir, numbers):
    tokenizer = load_sentencepiece(tokenizer_path(CONFIG, data_dir))
    text = answer_text(str(numbers))
    assert len(tokenizer.encode(text)) == 6
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_unknown_split_and_unbuilt_dataset(data_dir, tmp_path):
    with pytest.raises(UserError, match="train, validation, test"):
        source(CONFIG, data_dir, "trian")
    with pytest.raises(UserError, match="no dataset at"):
        source(CONFIG, tmp_path, "train")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cells_per_side", 0),
        ("cell_pixels", 7),
        ("digits_min", 1),
        ("digits_max", 1),
        ("digits_max", 11),
        ("train_scenes", 0),
        ("seed", -1),
        ("box_noise_pixels", -1),
        ("thought_error_rate", 1.5),
    ],
)
def test_bad_fields_are_named_with_their_value(field, value):
    with pytest.raises(UserError, match=f"{field} is {value}"):
        DigitsConfig(**{field: value})


def test_a_vocabulary_too_small_for_the_canvas(tmp_path):
    with pytest.raises(UserError, match="larger vocab_size"):
        build(replace(CONFIG, vocab_size=100), tmp_path)
