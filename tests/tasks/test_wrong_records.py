"""Records as people have them: each gives the right value, or one message with file and record."""

import base64
import io
import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import tiny_digits
from PIL import Image
from records import ANSWERS, CONFIGS, TASKS_WITH_RECORDS, real, write_manifest
from text_data import MATH, MBPP, write_jsonl

from gmma import commands
from gmma.config import LaunchConfig
from gmma.errors import UserError
from gmma.images.common import rgb_array
from gmma.images.processor import fixed_size_processor
from gmma.rewards.anls import anls
from gmma.run.data import batch_prompts
from gmma.tasks import TASKS
from gmma.tasks.defaults import draw_answers
from gmma.tasks.exercises import read_exercise
from gmma.tasks.formats import FORMATS
from gmma.tasks.manifest import RecordsConfig, read_document, read_manifest
from gmma.tasks.mathematics import MathConfig, read_problem
from gmma.tasks.records import read_record_file
from gmma.tasks.visual import demonstrations, storage
from gmma.text.tokenizer import load_sentencepiece

NAN = float("nan")
HALF = json.loads('"\\ud83d"')
EXIF_ORIENTATION = 0x0112
SIDES = (60, 40)  # of the drawn pictures


def config_of(path, name="trajectory", **fields):
    records = RecordsConfig(train=path, validation=path, test=path, validation_share=0, **fields)
    return CONFIGS[name](records=records)


def rows_of(config, folder, split="train"):
    """What would be stored of a config's records."""
    task = TASKS[config.name]
    return list(storage(task.content.args[0], config, folder).records(split))


def change(folder, name, number=3, count=5, **fields):
    """A manifest of drawn records, one of which is changed."""
    path = write_manifest(folder, name, count=count)
    rows = json.loads(path.read_text())
    rows[number] |= fields
    path.write_text(json.dumps(rows))
    return path


def refused(config, folder, *words):
    """The message of a refusal, which names the file, the record and these words."""
    with pytest.raises(UserError) as error:
        rows_of(config, folder)
    message = str(error.value)
    assert "record 3 of" in message
    assert str(config.records.train) in message
    for word in words:
        assert word in message, message
    return message


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("thought", None, ["thought is a NoneType, not a string: null"]),
        ("thought", NAN, ["thought is a float", "NaN"]),
        ("thought", ["a", "b"], ["thought is a list", '["a", "b"]']),
        ("thought", "<think>It is there.</think>", ["thought holds the tag <think>"]),
        ("thought", "It is.</think><answer>[1, 2]", ["thought holds the tag </think>"]),
        ("thought", f"It {HALF}", ["thought holds half of a UTF-16 pair", "ud83d"]),
        ("answer", [[1, 2], [3, NAN]], ["answer"]),
        ("id", None, ["id is null"]),
        ("id", ["a"], ["id is"]),
        ("question", " ", ["question is blank"]),
        ("question", f"{HALF}?", ["question holds half"]),
        ("question_type", 3, ["question_type is a int"]),
        ("width", 60, ["width alone"]),
        ("mask", None, ["mask is a NoneType, not a path"]),
        ("mask_value", "3", ["mask_value"]),
        ("image", {"bytes": "…"}, ["image is a dict, not a path"]),
        ("image", "../0.png", ["leaves the folder", "outside_images"]),
        ("image", "a/../../0.png", ["leaves the folder"]),
        ("image", "x" * 400 + ".png", ["no file"]),
        ("image", "a\0b.png", ["no file"]),
        ("image", "https://example.org/0.png", ["an address, not a path"]),
        ("image", base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 60).decode(), ["base64"]),
        ("image", "data:image/png;base64,AAAA", ["base64"]),
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path, field, value, words):
    refused(config_of(change(tmp_path, "trajectory", **{field: value})), tmp_path, *words)


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("detection", [{"label": "cup", "box": [4, 6, 24, 30], "crowd": "false"}], ["crowd"]),
        ("detection", [{"label": "cup", "box": [4, 6, 24, 30], "iscrowd": 1}], ["iscrowd"]),
        ("detection", [{"label": "cup", "box": [4, 6, 70, 30]}], ["outside", "60 x 40"]),
        ("detection", [{"label": "cup", "box": [4, 6, 4, 30]}], ["empty"]),
        ("detection", [{"label": "cup", "box": [24, 30, 4, 6]}], ["another order"]),
        ("detection", [{"label": "cup", "box": [40, 6, 10, 12]}], ["[x, y, width, height]"]),
        ("detection", [{"label": "a</answer>", "box": [4, 6, 9, 9]}], ["the tag </answer>"]),
        ("affordance", [4, 6, 24, 400], ["outside", "thousandths"]),
        ("affordance", [0.1, 0.2, 0.3, 0.4], ["frame = unit"]),
        ("affordance", [-40, -30, -10, -2], ["outside"]),
        ("affordance", [4, 6, 24, True], ["is no box"]),
        ("affordance", [4, 6, 24, NAN], ["is no box"]),
        ("affordance", [6, 4, 30, 58], ["EXIF"]),
        ("trajectory", [[0.1, 0.2], [0.9, 1.0]], ["frame = unit"]),
        ("trajectory", [[10, 20], [10, 2000]], ["outside"]),
        ("trajectory", {"path": [[1, 2]], "object": []}, ["unknown keys object"]),
        ("trajectory", {"path": [[9, 9]], "objects": [{"label": "a"}]}, ["the point null"]),
        ("demand", {"boxes": [[4, 6, 24, 30]], "names": "cup"}, ["list"]),
        ("demand", {"boxes": [[4, 6, 24, 30]], "names": None}, ["list"]),
        ("demand", {"boxes": [[70, 6, 90, 30]], "names": ["cup"]}, ["outside"]),
        ("demand", {"box": [[4, 6, 24, 30]]}, ["unknown keys box"]),
        ("ocr_vqa", ["EXIT", " "], ["accepted text is blank"]),
        ("ocr_vqa", "<answer>EXIT", ["the tag <answer>"]),
        ("ocr_vqa", 10, ["no text"]),
    ],
)
def test_a_truth_that_is_none_is_refused_and_may_be_left_out(tmp_path, name, answer, words, capsys):
    path = change(tmp_path, name, answer=answer)
    refused(config_of(path, name), tmp_path, *words)
    assert len(rows_of(config_of(path, name, wrong_truths="leave_out"), tmp_path)) == 4
    assert "train: 1 of 5 records left out; the first: record 3" in capsys.readouterr().err


def test_a_truth_may_stand_over_the_edge_by_a_pixel(tmp_path):
    path = change(tmp_path, "affordance", answer=[-0.4, 6, 60.7, 41])
    assert len(rows_of(config_of(path, "affordance"), tmp_path)) == 5


@pytest.mark.parametrize("name", TASKS_WITH_RECORDS)
@pytest.mark.parametrize("frame", ["unit", "thousandths"])
def test_a_field_says_the_units(tmp_path, name, frame):
    """Truths in other units are stored in pixels; the truth of a mask is in pixels already."""
    scale = {"unit": 1, "thousandths": 1000}[frame]
    factors = [scale / SIDES[0], scale / SIDES[1]]

    def scaled(value):
        if isinstance(value, dict):
            return {key: scaled(entry) for key, entry in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], int):
            return [side * factors[place % 2] for place, side in enumerate(value)]
        return [scaled(entry) for entry in value] if isinstance(value, list) else value

    path = change(tmp_path, name, answer=scaled(ANSWERS[name]))
    rows = rows_of(config_of(path, name, frame=frame, wrong_truths="leave_out"), tmp_path)
    (row,) = [row for row in rows if row["id"] == "3"]
    visual = TASKS[CONFIGS[name]().name].content.args[0]
    columns = visual.read_truth(CONFIGS[name](), json.loads(row["answer"]), np.ones((40, 60), bool))
    expected = visual.read_truth(CONFIGS[name](), ANSWERS[name], np.ones((40, 60), bool))
    for key in ("answer", "box", "crowd", "objects"):
        assert str(np.round(flat(columns.get(key)), 6)) == str(np.round(flat(expected.get(key)), 6))
    with pytest.raises(UserError, match="says nothing of format = tfds_coco"):
        RecordsConfig(format="tfds_coco", frame=frame)


def flat(value):
    """The numbers of a truth, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | np.ndarray):
        return [number for entry in value for number in flat(entry)]
    return [] if isinstance(value, str | None) else [float(value)]


def test_a_picture_is_turned_upright_as_its_exif_says(tmp_path):
    """A file of 40 × 60 that viewers show as 60 × 40: truth, size and mask are of the latter."""
    path = write_manifest(tmp_path, "affordance_points", count=4)
    shown = np.zeros((40, 60, 3), np.uint8)
    shown[6:30, 4:24] = 255
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # turn clockwise to show
    Image.fromarray(np.rot90(shown)).save(tmp_path / "3.png", exif=exif)
    rows = json.loads(path.read_text())
    rows[3] |= {"width": 60, "height": 40}
    path.write_text(json.dumps(rows))
    config = config_of(path, "affordance_points")
    task = TASKS["affordance"]
    task.build(config, tmp_path)
    example = task.source(config, tmp_path, "train")[3]
    np.testing.assert_array_equal(example.images[0], shown)
    assert example.columns["image_size"] == [60, 40]
    assert shown[example.columns["mask"]].min() == 255
    rows[3] |= {"width": 40, "height": 60}
    path.write_text(json.dumps(rows))
    refused(config, tmp_path, "says that its image is 40 x 60", "3.png is 60 x 40", "EXIF")


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),
        (np.array([[0, 128 * 257, 32767]], np.int32), [0, 128, 127]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 200, 255]], np.uint8), [0, 200, 255]),
    ],
)
def test_wide_pictures_are_scaled_by_one_rule(tmp_path, values, grey):
    Image.fromarray(values).save(tmp_path / "wide.tiff")
    found = rgb_array(Image.open(tmp_path / "wide.tiff"))
    assert found[0].tolist() == [[value] * 3 for value in grey]


@pytest.mark.parametrize("worst", [np.float32(1.5), np.float32(np.nan), np.int32(70000)])
def test_pictures_whose_white_nobody_knows_are_refused(tmp_path, worst):
    path = change(tmp_path, "ocr_vqa", image="wide.tiff")
    picture = np.zeros((40, 60), worst.dtype)
    picture[2, 3] = worst
    Image.fromarray(picture).save(tmp_path / "wide.tiff")
    refused(config_of(path, "ocr_vqa"), tmp_path, "wide.tiff", "its values run from")


def test_a_picture_over_the_limit_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = change(tmp_path, "ocr_vqa", image="large.png")
    Image.new("L", (70, 50)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 40)
    message = refused(config_of(path, "ocr_vqa"), tmp_path, "large.png")
    assert "more than 2,400 pixels" in message


def test_a_mask_of_another_size_is_refused_when_it_is_loaded(tmp_path):
    path = change(tmp_path, "affordance_points", mask="small.png")
    Image.new("L", (20, 10), 3).save(tmp_path / "small.png")
    config = config_of(path, "affordance_points")
    refused(config, tmp_path, "small.png is 20 x 10", "is 60 x 40")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("region.jpg", None, ["region.jpg is a JPEG", "PNG"]),
        ("region.jpg", 255, ["region.jpg is a JPEG", "PNG"]),
        ("soft.png", None, ["soft.png has 3 values, 0 to 255", "mask_value"]),
        ("inside.png", None, ["inside.png has 2 values, 1 to 255", "mask_value"]),
    ],
)
def test_a_mask_whose_region_is_not_clear_is_refused(tmp_path, name, value, words):
    """A JPEG blurs the edges: there 100 pixels become 175 that are not 0."""
    region = np.zeros((40, 60), np.uint8)
    region[10:20, 10:20] = 255
    inside = np.maximum(region, 1)
    soft = region.copy()
    soft[9] = 128
    masks = {"region": region, "soft": soft, "inside": inside, "sharp": region > 0}
    path = change(tmp_path, "affordance_points", mask=name, mask_value=value)
    Image.fromarray(masks[name.split(".")[0]]).save(tmp_path / name)
    Image.fromarray(masks["sharp"]).save(tmp_path / "sharp.png")
    rows = json.loads(path.read_text())
    if value is None:
        del rows[3]["mask_value"]
    path.write_text(json.dumps(rows))
    refused(config_of(path, "affordance_points"), tmp_path, *words)
    rows[3] = {**rows[3], "mask": "sharp.png"}
    rows[3].pop("mask_value", None)
    path.write_text(json.dumps(rows))
    stored = rows_of(config_of(path, "affordance_points"), tmp_path)[3]["mask"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored))), region)


def test_pictures_lie_where_their_paths_say(tmp_path):
    """Absolute paths work from anywhere; `..` works within the folder, and out of it if allowed."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    path = write_manifest(inside, "ocr_vqa", count=3)
    Image.new("RGB", (9, 8), "red").save(outside / "red.png")
    rows = json.loads(path.read_text())
    rows[0]["image"] = str(outside / "red.png")
    rows[1]["image"] = "none/../1.png"
    path.write_text(json.dumps(rows))
    (inside / "none").mkdir()
    config = config_of(path, "ocr_vqa")
    first, second, _ = rows_of(config, tmp_path)
    assert first["images"] == [(outside / "red.png").read_bytes()]
    assert second["images"] == [(inside / "1.png").read_bytes()]
    shared = RecordsConfig(train=path, test_share=0.4)  # splits hash the path
    assert sum(len(read_manifest(shared, split)) for split in ("train", "test")) <= 3
    rows[2]["image"] = "../out/red.png"
    path.write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"record 2 of .* leaves the folder"):
        rows_of(config, tmp_path)
    allowed = replace(config, records=replace(config.records, outside_images="allow"))
    assert rows_of(allowed, tmp_path)[2]["images"] == first["images"]


def coco(folder, **changes):
    """A COCO file of one drawn picture."""
    Image.new("RGB", SIDES).save(folder / "a.jpg")
    image = {"id": 7, "file_name": "a.jpg", "width": 60, "height": 40}
    annotation = {"id": 1, "image_id": 7, "category_id": 2, "bbox": [4, 6, 20, 24], "iscrowd": 0}
    document = {
        "images": [image | changes.get("image", {}), *changes.get("images", [])],
        "annotations": [annotation | changes.get("annotation", {})],
        "categories": [{"id": 2, "name": "cup"}, *changes.get("categories", [])],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(document))
    return CONFIGS["detection"](
        records=RecordsConfig(format="coco", train=path, validation=path, test=path)
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": {"width": 640, "height": 480}}, ["record 0", "640 x 480", "60 x 40"]),
        ({"annotation": {"bbox": [0.1, 0.1, 0.2, 0.2]}}, ["record 0", "frame = unit"]),
        ({"annotation": {"bbox": [4, 6, 0, 24]}}, ["record 0", "empty"]),
        ({"annotation": {"bbox": [40, 6, 40, 24]}}, ["record 0", "outside"]),
        ({"annotation": {"bbox": [4, 6, 20]}}, ["annotation 0 (id 1)"]),
        ({"annotation": {"bbox": [4, 6, 20, "24"]}}, ["annotation 0 (id 1)", "finite number"]),
        ({"annotation": {"iscrowd": "false"}}, ["annotation 0 (id 1)", "iscrowd"]),
        ({"annotation": {"image_id": 8}}, ["annotation 0 (id 1)", "no 8"]),
        ({"images": [{"id": 7, "file_name": "b.jpg"}]}, ["images of id 7: there are two"]),
        ({"categories": [{"id": 2, "name": "dog"}]}, ["categories of id 2: there are two"]),
    ],
)
def test_a_coco_file_that_disagrees_with_itself_is_refused(tmp_path, changes, words):
    config = coco(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        rows_of(config, tmp_path)
    for word in [*words, str(config.records.train)]:
        assert word in str(error.value)


def test_a_coco_file_that_agrees_is_read(tmp_path):
    (row,) = rows_of(coco(tmp_path), tmp_path)
    assert json.loads(row["answer"]) == [{"label": "cup", "box": [4, 6, 24, 30]}]


def test_real_files_agree_with_their_pictures(tmp_path):
    """Sizes and boxes of COCO, UMD and the demands hold; RoboBrain's answers are on the image."""
    coco_file = real("coco_permissive52/instances_train.json")
    umd_file = real("umd_affordance30/annotations.jsonl")
    need_file, photographs = real("demand_seed/demand_train.jsonl"), coco_file.parent
    for name, form, file, images in (
        ("detection", "coco", coco_file, None),
        ("affordance", "umd", umd_file, None),
        ("demand", "demand", need_file, photographs),
    ):
        given = len(list(FORMATS[form](read_document(file), file)))
        records = RecordsConfig(
            format=form, train=file, validation=file, test=file, images=images, validation_share=0
        )
        config = CONFIGS[name](records=records)
        assert len(rows_of(config, tmp_path)) == given
        wrong = replace(config, records=replace(records, frame="unit"))
        with pytest.raises(UserError, match=rf"record 0 of {file} .*outside its image"):
            rows_of(wrong, tmp_path)
    demo = real("robobrain_demo/demo.json")
    rows = [
        {
            "question": row["prompt"],
            "answer": row["example_model_answer"],
            "question_type": row["task"],
            "image": row["image"],
            "width": row["size"][0],
            "height": row["size"][1],
        }
        for row in json.loads(demo.read_text())
        if row["task"] == "trajectory"
    ]
    path = tmp_path / "robobrain.json"
    path.write_text(json.dumps(rows))
    assert len(rows_of(config_of(path, images=demo.parent), tmp_path)) == len(rows) > 0


def test_episodes_of_bridge_make_a_manifest(tmp_path):
    """Frames of real episodes, paths relative to their folder, in shares of the image."""
    file = real("bridge/episodes.jsonl")
    rows = [
        {
            "question": episode["instruction"],
            "answer": [[0.2, 0.3], [0.5, 0.5], [0.8, 0.4]],
            "question_type": "trajectory",
            "image": episode["images"][0],
        }
        for episode in map(json.loads, file.read_text().splitlines())
    ]
    path = tmp_path / "bridge.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"record 0 of .*frame = unit"):
        rows_of(config_of(path, images=file.parent), tmp_path)
    stored = rows_of(config_of(path, images=file.parent, frame="unit"), tmp_path)
    with Image.open(file.parent / rows[0]["image"]) as picture:
        width, height = picture.size
    first = json.loads(stored[0]["answer"])["path"]
    assert first[1] == pytest.approx([width / 2, height / 2])
    assert len(stored) == len(rows) == 19


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PAR1" + b"\0" * 40, ["a Parquet file", "read_parquet"]),
        ('{"a": 1}'.encode("utf-16"), ["UTF-16", "iconv"]),
        ('{"a": 1}'.encode("utf-16-le"), ["UTF-16", "iconv"]),
        (b"\x1f\x8b\x08\0\0", ["gzip"]),
        (b"PK\x03\x04\0\0", ["ZIP"]),
        (b'{"question": "caf\xe9"}', ["no text in UTF-8", "byte 17 is 0xe9"]),
        (b'{"a": ' + b"9" * 5000 + b"}", ["JSON"]),
        (b"[" * 200_000, ["JSON"]),
    ],
)
def test_a_file_of_another_kind_says_what_it_is(tmp_path, data, words):
    path = tmp_path / "records.jsonl"
    path.write_bytes(data)
    for read in (lambda: read_record_file(path, "train"), lambda: read_document(path)):
        with pytest.raises(UserError) as error:
            read()
        for word in [*words, str(path)]:
            assert word in str(error.value)


def test_a_mark_of_utf_8_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "1?", "answer": "1"}\n')
    assert read_record_file(path, "train") == [{"question": "1?", "answer": "1"}]
    assert read_document(path) == [{"question": "1?", "answer": "1"}]


PROBLEM = MappingProxyType({"question": "1 + 1?", "answer": "2"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": None}, "answer is a NoneType, neither a text nor a number: null"),
        ({"answer": NAN}, "answer is NaN"),
        ({"answer": ["2"]}, "answer is a list"),
        ({"answer": True}, "answer is a bool"),
        ({"answer": " "}, "answer is blank"),
        ({"answer": "It is two. ####"}, "the result in answer is blank"),
        ({"answer": "2</answer>"}, "answer holds the tag </answer>"),
        ({"thought": None}, "thought is a NoneType"),
        ({"thought": NAN}, "thought is a float"),
        ({"thought": ["a"]}, "thought is a list"),
        ({"thought": "<think>one and one"}, "thought holds the tag <think>"),
        ({"question": None}, "question is a NoneType"),
        ({"question": HALF}, "question holds half of a UTF-16 pair"),
        ({"image": "none.png"}, "image: no file"),
        ({"images": ["../x.png"]}, "images: ../x.png leaves the folder"),
        ({"image": None}, "image is a NoneType, not a path"),
    ],
)
def test_a_problem_of_another_kind_is_named(tmp_path, change, words):
    path = write_jsonl(tmp_path / "a.jsonl", [PROBLEM.copy(), PROBLEM.copy(), PROBLEM | change])
    config = MathConfig(train_path=path, test_path=None, held_out=1)
    with pytest.raises(UserError) as error:
        TASKS["math"].build(config, tmp_path)
    assert f"record 2 of {path}, line 3: {words}" in str(error.value)


def test_the_named_column_is_the_truth():
    """`answer` counts; a solution counts where it marks its result; its whole text never does."""
    (released,) = MATH
    solution = released["solution"]
    for record, thought, answer in (
        ({"problem": "?", "solution": solution, "answer": "0.25"}, solution, "0.25"),
        ({"problem": "?", "solution": "A long way.", "answer": "7"}, "A long way.", "7"),
        ({"problem": "?", "answer": "7"}, "", "7"),
        ({"question": "?", "solution": "So $7$ is \\boxed{7}."}, "So $7$ is \\boxed{7}.", "7"),
        ({"question": "?", "thought": "mine", "solution": "x", "answer": 12.0}, "mine", "12"),
        ({"question": "?", "thought": "mine", "answer": "theirs\n#### 1,000"}, "mine", "1000"),
        ({"question": "?", "thought": " ", "answer": "7"}, "", "7"),
    ):
        problem = read_problem(record)
        assert (problem.thought, problem.answer) == (thought, answer), record
    with pytest.raises(UserError, match="solution marks no result"):
        read_problem({"problem": "?", "solution": "The sum of the two roots of it is thus seven"})
    with pytest.raises(UserError, match="has the fields question, problem, answer"):
        read_problem({"question": "?", "problem": "?", "answer": "7"})
    for answer in (None, "x", NAN, "inf"):
        record = {"Body": "b", "Question": "q", "Equation": "1", "Answer": answer}
        with pytest.raises(UserError, match="Answer"):
            read_problem(record)


def test_a_problem_is_asked_with_its_pictures(tmp_path):
    """With pictures or without; each is in the prompt, and drawn above the page."""
    Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    rows = [{"question": f"{n} + 1?", "answer": n + 1} for n in range(9)]
    for row in rows[::2]:
        row["image"] = "red.png"
    rows[2]["image"] = [str(tmp_path / "red.png"), "red.png"]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    config = MathConfig(train_path=path, test_path=path, held_out=1, vocab_size=400, explain=False)
    task = TASKS["math"]
    task.build(config, tmp_path)
    source = task.source(config, tmp_path, "test")
    examples = [source[row] for row in range(9)]
    assert [len(example.images) for example in examples] == [1, 0, 2, 0, 1, 0, 1, 0, 1]
    assert examples[2].images[1].shape == (20, 30, 3)
    assert examples[2].images[1][0, 0].tolist() == [255, 0, 0]
    tokenizer = load_sentencepiece(task.tokenizer_path(config, tmp_path))
    prompts = batch_prompts(
        examples, tokenizer, prompt_slots=48, processor=fixed_size_processor(16, 8, images=2)
    )
    assert (prompts.tokens == tokenizer.image_token).sum(axis=1).tolist() == [
        16 * len(example.images) for example in examples
    ]
    pictures = [draw_answers(task, config, example) for example in examples[:2]]
    assert pictures[0].height > pictures[1].height + 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": None}, "code is a NoneType"),
        ({"code": "def add_1(x:"}, "the solution is no Python"),
        ({"text": NAN}, "text is a float"),
        ({"test_list": "assert add_1(1) == 2"}, "test_list is"),
        ({"test_list": []}, "test_list is empty"),
        ({"test_list": [None]}, "a test of test_list is a NoneType"),
        ({"test_setup_code": None}, "test_setup_code is null"),
        ({"image": "a.png"}, "has image, which this task does not show"),
    ],
)
def test_an_exercise_of_another_kind_is_named(tmp_path, change, words):
    path = write_jsonl(tmp_path / "a.jsonl", [MBPP[0] | change])
    with pytest.raises(UserError, match=rf"record 0 of {path}, line 1:? ?{words}"):
        read_exercise(read_record_file(path, "train")[0], 1)


def test_pictures_of_gmma_data_overwrite_no_other_tasks(tmp_path, monkeypatch, capsys):
    """Two tasks whose records have the same ids: each has its four pictures. No model is there."""

    def no_model(config):
        raise UserError("no model")

    monkeypatch.setattr(commands, "assemble_host", no_model)
    shown = []
    for name in ("ocr_vqa", "demand"):
        folder = tmp_path / name
        folder.mkdir()
        task = config_of(write_manifest(folder, name, count=4), name)
        config = replace(
            tiny_digits.experiment(), task=task, launch=LaunchConfig(data_dir=tmp_path)
        )
        monkeypatch.setattr(commands, "parse_experiment", lambda *_, found=config, **__: found)
        commands.data_command(["x.py"])
        printed = capsys.readouterr().out
        shown += [line.split()[1] for line in printed.splitlines() if "  picture" in line]
    assert len(set(shown)) == 8
    assert len(list((tmp_path / "shown").rglob("*.png"))) == 8


TRACE = "There."


@pytest.mark.parametrize(
    ("traces", "field", "kind", "taught"),
    [
        (2, None, "own", [0, 1]),
        (0, None, "made", [0, 1, 2, 3, 4]),
        (2, "own", "own", [0, 1]),
        (0, "own", "own", []),
        (2, "made", "made", [0, 1, 2, 3, 4]),
        (2, "none", "none", []),
    ],
)
def test_a_field_says_which_traces_are_taught(tmp_path, traces, field, kind, taught):
    """By default a record without a trace is not taught one that was made up, where any has one."""
    path = write_manifest(tmp_path, "ocr_vqa", count=5)
    rows = json.loads(path.read_text())
    for row in rows[:traces]:
        row["thought"] = TRACE
    path.write_text(json.dumps(rows))
    config = replace(config_of(path, "ocr_vqa"), demonstrations=field)
    task = TASKS["ocr_vqa"]
    task.build(config, tmp_path)
    assert demonstrations(task.content.args[0], config, tmp_path) == kind
    assert list(task.demonstrated_rows(config, tmp_path)) == taught
    source = task.source(config, tmp_path, "train")
    for row in range(5):
        shown = task.demonstrate(config, source[row], np.random.default_rng(0))
        made = None if row not in taught else "The text reads EXIT."
        assert (shown and shown.thought) == (TRACE if row < traces and row in taught else made)


def test_anls_folds_runs_of_spaces():
    assert anls("way   OUT\n", ["Way out"]) == 1.0
    assert anls("Way out", ["Way \t out"]) == 1.0
    assert anls("Wayout", ["Way out"]) == pytest.approx(1 - 1 / 7)
