"""Any records: each layout gives the right record, each broken file one message."""

import builtins
import io
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vqa_files import (
    BROKEN,
    BROKEN_FILES,
    ODD,
    READ,
    parquet,
    picture,
    plain,
    prepared,
    rows,
    saved,
    write_pictures,
)

from gmma.cli import main
from gmma.errors import UserError
from gmma.images.common import outline_of, read_rgb
from gmma.images.frames import STORED_PIXELS, THOUSANDTHS
from gmma.rewards.terms import RewardTerm
from gmma.tasks.layouts import Keys
from gmma.tasks.storage import SPLITS, is_no_advice
from gmma.tasks.tables import own_split, read_rows
from gmma.tasks.task import ask
from gmma.tasks.vqa import VQA, VqaConfig, VqaFiles
from gmma.tasks.vqa_records import read_records, storage, unread_keys
from gmma.types import Example

SEED = 1  # of the hash that parts the two pictures
FILES = ("order", "frame", "layout", "wrong_truths")
# One of these begins what a message says to do
FIXES = ("set ", "can name", "give ", "say it", "make ", "leave", "save", "write", "fetch", "keep ")
FIXES += ("mend", "use ", "unpack", "may be named", "must be named", "iconv", "rename")


def config_of(path, **fields):
    """A config that takes all records for every split."""
    places = {name: fields.pop(name) for name in FILES if name in fields}
    files = VqaFiles(train=path, validation=path, test=path, **places)
    return VqaConfig(records=files, **fields)


def rows_of(config, folder):
    return list(storage(config, folder).records("train"))


@pytest.mark.parametrize("name", [*READ, *ODD])
def test_a_layout_is_read(name, tmp_path):
    """Question, pictures, answer in pixels, and what else the record brings."""
    case = {**READ, **ODD}[name]
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
    assert any(word in str(error.value) for word in FIXES), str(error.value)


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


def test_a_file_of_json_in_a_folder_is_named(tmp_path):
    file = rows(plain())(tmp_path)
    with pytest.raises(UserError, match=f"holds no records: .* perhaps {file}"):
        rows_of(config_of(tmp_path), tmp_path)


def test_a_pipe_is_refused(tmp_path):
    """Opening it would wait for a writer, for ever."""
    os.mkfifo(tmp_path / "mine.jsonl")
    with pytest.raises(UserError, match="a pipe or a device; write the records to a file"):
        rows_of(config_of(tmp_path / "mine.jsonl"), tmp_path)


def test_two_columns_of_one_name_are_refused(tmp_path):
    """A row would keep the last of them, unsaid."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = ["question", "answer", "answer"]
    pq.write_table(pa.table([["Why?"], ["so"], ["no"]], names=names), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet has several columns named 'answer'"):
        rows_of(config_of(tmp_path / "a.parquet"), tmp_path)


def test_a_picture_in_a_record_is_not_called_by_its_place_in_memory(tmp_path):
    path = rows({"question": "?", "answer": "a", "image": "data:text/plain;base64,aGk="})(tmp_path)
    with pytest.raises(UserError, match=r"a picture of 2 bytes is no whole picture \(no format"):
        rows_of(config_of(path), tmp_path)


def test_what_may_not_be_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read all
    with pytest.raises(UserError, match=r"the folder .* cannot be read \(no permission\)"):
        rows_of(config_of(tmp_path), tmp_path)
    monkeypatch.undo()
    path = rows(plain())(tmp_path)
    write_pictures(tmp_path)
    closed = PermissionError(13, "Permission denied")
    monkeypatch.setattr(Path, "is_file", lambda file: raise_it(closed, file.suffix == ".png"))
    with pytest.raises(UserError, match=r"record 0 .*/0\.png cannot be read \(Permission denied\)"):
        read_records(config_of(path, kind="box"), "train")


def raise_it(error, wrong):
    if wrong:
        raise error
    return True


def test_wrong_truths_may_be_left_out(tmp_path, capsys):
    write_pictures(tmp_path)
    path = rows(plain(), plain(answer="cup"), plain(answer=None))(tmp_path)
    assert len(rows_of(config_of(path, kind="box", wrong_truths="leave_out"), tmp_path)) == 1
    assert "train: 2 of 3 records left out; the first: record 1 of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "part", ["question", "images", "answer", "thought", "choices", "system", "id"]
)
def test_a_named_key_that_no_record_has_is_refused(part, tmp_path):
    write_pictures(tmp_path)
    path = rows(plain(thought="hm", answer="B", choices=["a", "b"]))(tmp_path)
    config = config_of(path, kind="choice", keys=Keys(**{part: "thougt"}))
    with pytest.raises(
        UserError, match=rf"thougt.*task\.keys\.{part}|task\.keys\.{part} = thougt"
    ) as it:
        rows_of(config, tmp_path)
    for key in ("question", "answer", "image", "thought", "choices"):
        assert key in str(it.value)


def test_the_order_of_a_box_under_bbox_must_be_said(tmp_path):
    write_pictures(tmp_path)
    path = rows({"question": "Where?", "image": "0.png", "it": {"bbox": [3, 4, 27, 16]}})(tmp_path)
    named = config_of(path, kind="box", keys=Keys(answer="it.bbox"))
    with pytest.raises(UserError, match=r"box under bbox, which may be.*order = xywh or xyxy"):
        rows_of(named, tmp_path)
    told = replace(named, records=replace(named.records, order="xywh"))
    (row,) = rows_of(told, tmp_path)
    assert json.loads(row["answer"])["answer"] == [3, 4, 30, 20]


def test_layouts_may_be_mixed_in_a_file(tmp_path):
    layouts = [READ[name] for name in ("plain", "accepted_texts", "llava", "swift")]
    write_pictures(tmp_path)
    listed = [row for case in layouts for row in json_rows(case.write(tmp_path))]
    found = rows_of(config_of(rows(*listed, name="all.jsonl")(tmp_path)), tmp_path)
    assert [row["question"] for row in found] == [case.question for case in layouts]


def json_rows(path):
    text = path.read_text()
    return (
        [json.loads(line) for line in text.splitlines()]
        if path.suffix == ".jsonl"
        else json.loads(text)
    )


SHARDS = {  # files of a folder, and the splits that are drawn from them
    ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"): {"train": (0, 1)},
    ("main/train-0.parquet", "main/test-0.parquet"): {"train": (0,), "test": (1,)},
    ("my_train_0.parquet", "my_train_1.parquet", "my_dev.parquet"): {
        "train": (0, 1),
        "validation": (2,),
    },
    ("Test/0.parquet", "train/0.parquet"): {"train": (1,), "test": (0,)},
    ("a.parquet", "b/pretrained.parquet"): {"": (0, 1)},  # parts of one
}


@pytest.mark.parametrize("files", SHARDS)
def test_parquet_files_are_of_the_split_that_a_word_of_their_names_says(files, tmp_path):
    for number, name in enumerate(files):
        parquet({"question": str(number), "answer": "so"}, name=f"hub/{name}")(tmp_path)
    folder, wanted = tmp_path / "hub", SHARDS[files]
    assert {split for split in SPLITS if own_split(folder, split)} == wanted.keys() - {""}
    for split, numbers in wanted.items():
        asked = [row["question"] for _, row in read_rows(folder, split or "train")]
        assert sorted(asked) == list(map(str, numbers))


def test_folders_that_may_be_other_datasets_are_not_mixed(tmp_path):
    for name in ("main/train-0", "socratic/train-0"):
        parquet({"question": "?", "answer": "so"}, name=f"hub/{name}.parquet")(tmp_path)
    with pytest.raises(UserError, match=r"in several folders, main, socratic.*give one of these"):
        read_rows(tmp_path / "hub", "train")


def test_a_dataset_of_tfds_is_named_after_its_records_and_must_be_random_access(tmp_path):
    home = prepared(tmp_path)
    config = config_of(home)
    before = storage(config, tmp_path).directory
    (shard,) = home.glob("*train.array_record*")
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert storage(config, tmp_path).directory != before
    shard.write_bytes(content)
    assert storage(config, tmp_path).directory == before
    info = home / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(UserError, match=r"cannot be read at random.*--file_format=array_record"):
        read_rows(home, "train")


PICTURES = {  # how a picture of 60 x 40 is saved, and the red of its first pixel as it is seen
    "turned.jpg": (lambda at: turned().save(at, exif=exif_of(6)), 10),
    "print.jpg": (lambda at: Image.fromarray(picture(1)).convert("CMYK").save(at), 10),
    "wide.png": (lambda at: Image.fromarray(np.full((40, 60), 2570, np.uint16)).save(at), 10),
    "clear.png": (lambda at: Image.new("RGBA", (60, 40), (0, 0, 0, 0)).save(at), 255),
    "named.txt": (lambda at: Image.fromarray(picture(1)).save(at, "WEBP", lossless=True), 10),
}


def turned():
    return Image.fromarray(picture(1)).transpose(Image.Transpose.ROTATE_90)


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_any_form_are_seen_upright_in_colours(name, tmp_path):
    write, red = PICTURES[name]
    write(tmp_path / name)
    (row,) = rows_of(config_of(rows(plain(image=name))(tmp_path), kind="box"), tmp_path)
    (data,) = row["images"]
    assert read_rgb(data).shape == outline_of(data).shape == (40, 60, 3)
    assert abs(int(read_rgb(data)[0, 0, 0]) - red) <= 2


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
    example = ask(VQA, config, source[0], THOUSANDTHS)
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
    asked = ask(VQA, own, VQA.source(own, built[1], "train")[0], STORED_PIXELS)
    assert asked.question.startswith("Where? Say [x1, y1, x2, y2]. Coordinates are pixels")
    assert asked.system == ""


def test_other_keys_are_columns_of_every_record(built):
    _, _, source = built
    assert [source[row].columns["level"] for row in range(4)] == [0, 1, 2, None]
    assert source[0].columns["kind"] == "box"  # gmma's own
    assert source[0].columns["record_kind"] == "mine"


def test_a_key_that_is_read_is_a_column_of_its_own_name_too(tmp_path):
    """As the record has it: a reward of TRL's names it so. Images and turns are none."""
    row = {"q": "?", "gold": 1, "opts": ["a", "b"], "uid": "u", "why": "So.", "pics": "0.png"}
    write_pictures(tmp_path)
    named = Keys(
        question="q", answer="gold", choices="opts", id="uid", thought="why", images="pics"
    )
    path = rows(row)(tmp_path)
    (held,) = rows_of(config_of(path, kind="choice", keys=named), tmp_path)
    own = json.loads(held["answer"])
    assert own["rest"] == {"q": "?", "gold": 1, "opts": ["a", "b"], "uid": "u", "why": "So."}
    assert (own["answer"], held["thought"]) == ("B", "So.")
    usual = rows({"problem": "?", "solution": "7", "level": 3})(tmp_path)
    (held,) = rows_of(config_of(usual, kind="number"), tmp_path)
    assert json.loads(held["answer"])["rest"] == {"problem": "?", "solution": "7", "level": 3}


def test_what_nothing_reads_is_told(built, tmp_path, capsys):
    config, _, source = built
    assert unread_keys(config, source[0]) == ["level", "record_kind"]
    known = rows({"problem": "?", "solution": "7", "uid": 3, "why": "So."})(tmp_path)
    named = config_of(known, kind="number", keys=Keys(id="uid"))
    VQA.build(named, tmp_path)
    assert unread_keys(named, VQA.source(named, tmp_path, "train")[0]) == ["why"]
    assert not is_no_advice(logging.makeLogRecord({"msg": "OpenCV is not installed. We …"}))
    assert is_no_advice(logging.makeLogRecord({"msg": "a dataset is broken"}))


def test_choices_that_no_record_has_are_warned_of(tmp_path, capsys):
    bare = {"question": "Which?", "answer": "B"}
    listed = {"question": "Which? A. a cat B. a dog", "answer": "B", "tags": ["x", "y"]}
    for row, count in ((bare, 1), (listed, 0)):
        rows_of(config_of(rows(row)(tmp_path), kind="choice"), tmp_path)
        assert capsys.readouterr().err.count("warning: no record has choices") == count


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
        assert (drawn is None) == (kind == "text")  # words stand below the image
        bare = replace(example, images=(), columns={**columns, "image_size": None})
        assert VQA.draw(replace(config, kind=kind), bare, [answer]) is None


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
    with pytest.raises(UserError, match=r"keys.choices = it, but task.kind = text has no choices"):
        VqaConfig(keys=Keys(choices="it"))
    with pytest.raises(UserError, match=r"task.keys.answer are both q; give each its own key"):
        VqaConfig(keys=Keys(question="q", answer="q"))
    flips = replace(VqaConfig().augment, flip_rate=0.5)
    with pytest.raises(UserError, match=r"flip_rate = 0.5.*set it to 0"):
        VqaConfig(augment=flips)
    assert Keys() == VqaConfig().keys


def test_a_system_prompt_has_no_place_for_an_image():
    asked = Example(question="Why?", images=(), columns={}, id="7", system="See <image>.")
    config = VqaConfig(explain="nothing")
    task = replace(VQA, in_frame=None)
    assert ask(task, config, asked, STORED_PIXELS).system == asked.system  # there a word
    shown = replace(asked, images=(picture(1),))
    with pytest.raises(UserError, match=r"system prompt of record 7 = .* in the question"):
        ask(task, config, shown, STORED_PIXELS)


def test_what_a_terminal_would_obey_is_spelled(tmp_path, capsys, monkeypatch):
    """A record from elsewhere must not clear the screen, nor hide what stands before it."""
    monkeypatch.chdir(tmp_path)
    sly = "Why\x1b[2J\r\x9b\u202e?"
    path = rows({"question": sly, "answer": f"so{sly}", "thought": f"hm{sly}", "id": sly})(tmp_path)
    places = [word for split in SPLITS for word in (f"--task.records.{split}", str(path))]
    experiment = Path(__file__).parents[2] / "experiments/vqa.py"
    main(["data", str(experiment), *places, "--tree.prompt-tokens", "600"])
    said = capsys.readouterr().out
    assert r"question  Why\x1b[2J\r\x9b\u202e?" in said
    assert r"Why\x1b[2J\r\x9b\u202e? Answer" in said  # in the prompt
    assert [sign for sign in said if not (sign.isprintable() or sign == "\n")] == []
