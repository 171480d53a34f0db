"""Any records: each layout gives the right record, each broken file one message."""

import builtins
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from vqa_files import BROKEN, BROKEN_FILES, READ, plain, rows, saved, write_pictures

from gmma.errors import UserError
from gmma.images.frames import STORED_PIXELS, THOUSANDTHS
from gmma.rewards.terms import RewardTerm
from gmma.tasks.layouts import Keys
from gmma.tasks.storage import SPLITS
from gmma.tasks.vqa import VQA, VqaConfig, VqaFiles
from gmma.tasks.vqa_records import read_records, storage

SEED = 1  # of the hash that parts the two pictures
FILES = ("order", "frame", "layout", "wrong_truths")


def config_of(path, **fields):
    """A config that takes all records for every split."""
    places = {name: fields.pop(name) for name in FILES if name in fields}
    files = VqaFiles(train=path, validation=path, test=path, **places)
    return VqaConfig(records=files, **fields)


def rows_of(config, folder):
    return list(storage(config, folder).records("train"))


@pytest.mark.parametrize("name", READ)
def test_a_layout_is_read(name, tmp_path):
    """Question, pictures, answer in pixels, and what else the record brings."""
    case = READ[name]
    write_pictures(tmp_path)
    row = rows_of(config_of(case.write(tmp_path), **case.fields), tmp_path)[0]
    held = json.loads(row["answer"])
    assert row["question"] == case.question
    shown = [np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0] // 10 for data in row["images"]]
    assert tuple(shown) == case.images
    if isinstance(held["answer"], list) and isinstance(case.answer[0], int | list):
        np.testing.assert_allclose(held["answer"], case.answer, atol=1e-9)
    else:
        assert held["answer"] == case.answer
    assert row["thought"] == case.thought
    assert held["system"] == case.system
    assert tuple(held["choices"]) == case.choices
    for key, value in case.rest:
        assert held["rest"][key] == value


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_is_one_message(name, tmp_path):
    write, fields, words = BROKEN[name]
    write_pictures(tmp_path)
    path = write(tmp_path)
    with pytest.raises(UserError) as error:
        rows_of(config_of(path, **{"kind": "box", **fields}), tmp_path)
    for word in (f"record 3 of {path}", *words):
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_is_one_message(name, tmp_path):
    file, content, words = BROKEN_FILES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError) as error:
        rows_of(config_of(tmp_path / file), tmp_path)
    for word in (file, *words):
        assert word in str(error.value), str(error.value)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    imported = builtins.__import__

    def without_arrow(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return imported(name, *rest)

    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(builtins, "__import__", without_arrow)
    words = r"a.parquet is a Parquet file.*pip install 'gmma\[parquet\]'"
    with pytest.raises(UserError, match=words):
        rows_of(config_of(tmp_path / "a.parquet"), tmp_path)


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no records: neither dataset_info"):
        rows_of(config_of(tmp_path), tmp_path)
    with pytest.raises(UserError, match="no records at"):
        rows_of(config_of(tmp_path / "none.json"), tmp_path)


def test_wrong_truths_may_be_left_out(tmp_path, capsys):
    write_pictures(tmp_path)
    path = rows(plain(), plain(answer="cup"))(tmp_path)
    assert len(rows_of(config_of(path, kind="box", wrong_truths="leave_out"), tmp_path)) == 1
    assert "train: 1 of 2 records left out; the first: record 1 of" in capsys.readouterr().err


def test_splits_go_by_pictures_and_folders_keep_their_own(tmp_path):
    write_pictures(tmp_path)
    path = rows(*[plain(image=f"{n % 2}.png", id=n) for n in range(40)])(tmp_path)
    files = VqaFiles(train=path, validation_share=0.0, test_share=0.5, seed=SEED)
    config = VqaConfig(kind="box", records=files)
    for split in ("train", "test"):
        assert len({record.place for record in read_records(config, split)}) == 1
    home = saved({"question": "?", "answer": "so"}, splits=SPLITS)(tmp_path)
    own = VqaConfig(records=VqaFiles(train=home))
    assert [len(read_records(own, split)) for split in SPLITS] == [1, 1, 1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Records of every form in one dataset of boxes, built."""
    folder = tmp_path_factory.mktemp("vqa")
    write_pictures(folder)
    listed = [plain(id=n, level=n, kind="mine") for n in range(3)] + [plain(thought="There.")]
    config = config_of(rows(*listed)(folder), kind="box", system="Be brief.")
    VQA.build(config, folder)
    return config, folder, VQA.source(config, folder, "train")


def test_an_example_is_asked_in_a_frame(built):
    config, _, source = built
    example = VQA.in_frame(config, source[0], THOUSANDTHS)
    assert example.question == (
        "Where? Answer with the box [x1, y1, x2, y2]. "
        "Coordinates run from 0 to 1000 across the image, x to the right and y down."
    )
    assert example.system == "Be brief."
    np.testing.assert_allclose(example.columns["answer"], [50, 100, 500, 500])
    found = VQA.metrics(config, ["[50, 100, 500, 500]", "no"], [example] * 2)
    assert found.keys() == {"score", "parsed", "right_at_half"}
    for values in found.values():
        np.testing.assert_allclose(values, [1, 0])
    own = replace(config, instruction="Say [x1, y1, x2, y2].", explain="all", system="")
    asked = VQA.in_frame(own, VQA.source(own, built[1], "train")[0], STORED_PIXELS)
    assert asked.question.startswith("Where? Say [x1, y1, x2, y2]. Coordinates are pixels")
    assert asked.system == ""


def test_other_keys_are_columns_of_every_record(built):
    _, _, source = built
    assert [source[row].columns["level"] for row in range(4)] == [0, 1, 2, None]
    assert source[0].columns["kind"] == "box"  # gmma's own
    assert source[0].columns["record_kind"] == "mine"


def test_demonstrations_are_the_records_own_or_made(built):
    config, folder, _ = built
    assert list(VQA.demonstrated_rows(config, folder)) == [3]
    made = replace(config, demonstrations="made")
    assert len(VQA.demonstrated_rows(made, folder)) == 4
    shown = VQA.demonstrate(made, VQA.source(made, folder, "train")[0], np.random.default_rng(0))
    assert (shown.thought, shown.answer) == ("It is around [16, 12].", "[3, 4, 30, 20]")
    assert not len(VQA.demonstrated_rows(replace(config, demonstrations="none"), folder))


def test_a_picture_of_truth_and_answers(built):
    config, _, source = built
    for kind, truth, answer in (
        ("box", [3, 4, 30, 20], "[1, 2, 3, 4]"),
        ("boxes", [[3, 4, 30, 20]], "[[1, 2, 3, 4], [5, 6, 7, 8]]"),
        ("points", [[3, 4]], "[[1, 2]]"),
        ("text", ["cup"], "a cup"),
    ):
        columns = {**source[0].columns, "kind": kind, "answer": truth}
        example = replace(source[0], columns=columns)
        drawn = VQA.draw(replace(config, kind=kind), example, [answer, "?"])
        assert drawn.width >= 600
        bare = replace(example, images=(), columns={**columns, "image_size": None})
        if kind == "text":
            assert VQA.draw(replace(config, kind=kind), bare, [answer]).width >= 600


GRADES = [  # kind, truth, answers and their score
    ("text", ["Cup", "mug"], {"cup": 1, " MUG ": 1, "cups": 0, "": 0}),
    ("choice", "B", {"B": 1, "(b)": 1, "The answer is B.": 1, "dog": 1, "A": 0, "A or B": 0}),
    ("box", [0, 0, 10, 10], {"[0, 0, 10, 10]": 1, "[0, 0, 10, 5]": 0.5, "cup": 0}),
    (
        "boxes",
        [[0, 0, 10, 10], [20, 0, 30, 10]],
        {
            "[[20, 0, 30, 10], [0, 0, 10, 10]]": 1,
            "[[0, 0, 10, 10]]": 0.5,
            "[0, 0, 10, 10]": 0.5,
            "[[0, 0, 10, 10], [20, 0, 30, 10], [1, 1, 2, 2], [3, 3, 4, 4]]": 0.5,
            "none": 0,
        },
    ),
    ("points", [[0, 0], [30, 40]], {"[[30, 40], [0, 0]]": 1, "[[0, 0]]": 0.5, "[[0, 3]]": 0.2}),
]


@pytest.mark.parametrize(("kind", "truth", "answers"), GRADES)
def test_scores_by_hand(built, kind, truth, answers):
    """The diagonal of a 30 x 40 image is 50, so a point 3 off has 1 − 3 / 5 = 0.4 of its share."""
    config, _, source = built
    columns = {"answer": truth, "kind": kind, "choices": ["cat", "dog"] * (kind == "choice")}
    columns |= {"image_size": [30, 40], "pixels": [30, 40]}
    example = replace(source[0], columns={**source[0].columns, **columns})
    found = VQA.metrics(replace(config, kind=kind), list(answers), [example] * len(answers))
    np.testing.assert_allclose(found["score"], list(answers.values()), atol=1e-9)


def test_terms_get_the_options_of_the_task():
    config = VqaConfig(kind="number", relative_tolerance=0.01, reading="strict")
    assert VQA.term_options(config, RewardTerm("vqa")) == (
        ("reading", "strict"),
        ("relative_tolerance", 0.01),
    )
    assert VQA.term_options(config, RewardTerm("answer_form")) == (("form", "number"),)
    assert VQA.term_options(config, RewardTerm("boxes")) == (("reading", "strict"),)
    assert VQA.term_options(config, RewardTerm("exact")) == ()


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match=r"relative_tolerance is 2"):
        VqaConfig(relative_tolerance=2.0)
    flips = replace(VqaConfig().augment, flip_rate=0.5)
    with pytest.raises(UserError, match=r"flip_rate = 0.5.*set it to 0"):
        VqaConfig(augment=flips)
    assert Keys() == VqaConfig().keys
