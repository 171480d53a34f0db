"""Files of records in the layouts that people have, each made in a folder with its pictures.

`READ` are files with what their first record says, a layout each; `ODD` are others that are read as
well. `RUN` are those that are trained on: `READ`, and forty records of which some do not fit.
`BROKEN` are files with what a refusal says.
"""

import base64
import io
import json
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gmma.tasks.layouts import Keys
from gmma.tasks.storage import Storage, encode_png, prepare

SIDES = (60, 40)


def picture(number):
    """A picture that its number tells from others."""
    return np.full((SIDES[1], SIDES[0], 3), 10 * number, np.uint8)


def png(number):
    return encode_png(picture(number)).getvalue()


class Case(NamedTuple):
    """A file, the config that reads it, and what its first record is."""

    write: Any  # folder → path
    fields: dict
    question: str
    images: tuple[int, ...]  # numbers of its pictures
    answer: Any  # in pixels
    thought: str = ""
    system: str = ""
    choices: tuple[str, ...] = ()
    rest: tuple = ()  # of keys and values


def rows(*listed, name="mine.json"):
    """Write rows as JSON or JSON lines."""

    def write(folder):
        path = folder / name
        if name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in listed))
        else:
            path.write_text(json.dumps(listed))
        return path

    return write


def parquet(*listed, name="mine.parquet"):
    def write(folder):
        import pyarrow as pa
        import pyarrow.parquet as pq

        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(listed)), folder / name)
        return folder / name.split("/")[0]

    return write


def saved(*listed, splits=()):
    """As `save_to_disk` of `datasets` leaves a dataset, or several as splits."""

    def write(folder):
        import pyarrow as pa

        home = folder / "saved"
        for split in splits or ("",):
            own = home / split
            own.mkdir(parents=True)
            table = pa.Table.from_pylist(list(listed))
            with (
                pa.OSFile(str(own / "data-00000-of-00001.arrow"), "wb") as sink,
                pa.ipc.new_stream(sink, table.schema) as stream,
            ):
                stream.write_table(table)
            files = [{"filename": "data-00000-of-00001.arrow"}]
            (own / "state.json").write_text(json.dumps({"_data_files": files, "_split": None}))
            (own / "dataset_info.json").write_text("{}")
        if splits:
            (home / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
        return home

    return write


def text(content, name="mine.jsonl"):
    """Write a file of these bytes."""

    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def with_image(name, make, **fields):
    """A record whose picture `make(path)` writes."""

    def write(folder):
        make(folder / name)
        return third(plain(image=name, **fields))(folder)

    return write


def tfds_of(features, make):
    """As TFDS prepares a dataset: `make()` gives a record each time, BytesIO can be read once."""

    def write(folder):
        return prepare(
            Storage(
                name="who",
                directory=folder / "tfds",
                features=features,
                records=lambda split: iter([make() for _ in range(4)]),
            )
        )

    return write


FEATURE = tfds.features
prepared = tfds_of(
    {
        "question": FEATURE.Text(),
        "answer": FEATURE.Text(),
        "image": FEATURE.Image(shape=(None, None, 3)),
    },
    lambda: {"question": "Who?", "answer": "me", "image": io.BytesIO(png(0))},
)
nested = tfds_of(
    {
        "messages": FEATURE.Sequence({"role": FEATURE.Text(), "content": FEATURE.Text()}),
        "answer": FEATURE.ClassLabel(names=["cat", "dog"]),
        "shots": FEATURE.Sequence(FEATURE.Image(shape=(None, None, 3))),
        "more": {"level": np.int64},
    },
    lambda: {
        "messages": [{"role": "user", "content": "Which?"}],
        "answer": "dog",
        "shots": [io.BytesIO(png(1)), io.BytesIO(png(0))],
        "more": {"level": 3},
    },
)
boxed = tfds_of(
    {
        "objects": {"box": FEATURE.BBoxFeature(), "name": FEATURE.Text()},
        "image": FEATURE.Image(shape=(None, None, 3)),
    },
    lambda: {
        "objects": {"box": FEATURE.BBox(ymin=0.1, xmin=0.05, ymax=0.5, xmax=0.5), "name": "cup"},
        "image": io.BytesIO(png(1)),
    },
)


HUMAN = {"from": "human", "value": "<image>\nWhat is it?"}
PARTS = [
    {"type": "image", "image": "1.png"},
    {"type": "text", "text": "or "},
    {"type": "image", "image": "0.png"},
    {"type": "text", "text": "?"},
]
BOX = {"kind": "box"}
READ = {
    "plain": Case(
        rows({"question": "Why?", "answer": "so", "image": "1.png", "level": 3}),
        {},
        *("Why?", (1,), ["so"]),
        rest=(("level", 3),),
    ),
    "no_image": Case(
        rows({"question": "2 + 2?", "answer": 4}), {"kind": "number"}, "2 + 2?", (), "4"
    ),
    "accepted_texts": Case(
        rows({"query": "Say", "answers": ["a", 7], "images": []}, name="mine.jsonl"),
        {},
        *("Say", (), ["a", "7"]),
    ),
    "own_keys": Case(
        rows({"q": "Why?", "truth": {"said": "so"}, "shots": ["0.png", "1.png"], "why": "hm"}),
        {"keys": Keys(question="q", answer="truth.said", images="shots", thought="why")},
        *("Why?", (0, 1), ["so"], "hm"),
    ),
    "llava": Case(
        rows(
            {"id": "x", "image": "1.png", "conversations": [HUMAN, {"from": "gpt", "value": "cup"}]}
        ),
        {},
        *("<image>\nWhat is it?", (1,), ["cup"]),
    ),
    "vlm_r1": Case(
        rows(
            {
                "image": ["0.png"],
                "conversations": [
                    {"from": "human", "value": "<image>Where?"},
                    {"from": "gpt", "value": "<think>there</think><answer>[3, 4, 30, 20]</answer>"},
                ],
            }
        ),
        BOX,
        *("<image>Where?", (0,), [3, 4, 30, 20], "there"),
    ),
    "swift": Case(
        rows(
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "<image>How many?"},
                ],
                "images": [{"path": "1.png", "bytes": None}],
                "solution": "Two and one.\n#### 3",
            }
        ),
        {"kind": "number"},
        *("<image>How many?", (1,), "3", "Two and one.", "Be brief."),
    ),
    "parts": Case(
        rows({"messages": [{"role": "user", "content": PARTS}], "answer": "both"}),
        {},
        *("<image>or <image>?", (1, 0), ["both"]),
    ),
    "trl": Case(
        rows(
            {
                "prompt": [{"role": "user", "content": [{"type": "image"}, PARTS[1]]}],
                "image": "1.png",
                "completion": [{"role": "assistant", "content": "yes"}],
            }
        ),
        {},
        *("<image>or ", (1,), ["yes"]),
    ),
    "verl": Case(
        rows(
            {
                "prompt": [{"role": "user", "content": "1 + 1?"}],
                "reward_model": {"style": "rule", "ground_truth": "2"},
                "data_source": "sums",
            }
        ),
        {"kind": "number"},
        *("1 + 1?", (), "2"),
        rest=(
            ("data_source", "sums"),
            ("reward_model", {"style": "rule", "ground_truth": "2"}),
        ),
    ),
    "geometry3k": Case(
        rows({"problem": "<image>Find x.", "images": ["0.png"], "answer": "2 \\sqrt { 221 }"}),
        {"kind": "number"},
        *("<image>Find x.", (0,), "2 \\sqrt { 221 }"),
    ),
    "open_r1": Case(
        rows({"problem": "1/2 of 1/2?", "solution": "It is $\\boxed{\\frac14}$."}),
        {"kind": "number"},
        *("1/2 of 1/2?", (), "\\frac14", "It is $\\boxed{\\frac14}$."),
    ),
    "choice_of_texts": Case(
        rows({"question": "Which?", "choices": ["cat", "dog"], "answer": 1, "image": "0.png"}),
        {"kind": "choice"},
        *("Which?\nA. cat\nB. dog\n", (0,), "B"),
        choices=("cat", "dog"),
    ),
    "choice_of_columns": Case(
        rows({"question": "Which?", "A": "cat", "B": "dog", "C": "", "answer": "dog"}),
        {"kind": "choice"},
        *("Which?\nA. cat\nB. dog\n", (), "B"),
        choices=("cat", "dog"),
    ),
    "refcoco_xywh": Case(
        rows({"sentences": [{"sent": "left cup"}], "bbox": [3, 4, 27, 16], "file_name": "1.png"}),
        {**BOX, "order": "xywh"},
        *("Find this object in the image: left cup.", (1,), [3, 4, 30, 20]),
    ),
    "refcoco_unit": Case(
        rows({"expression": "cup.", "bbox": [0.05, 0.1, 0.5, 0.5], "image": "1.png"}),
        {**BOX, "order": "xyxy", "frame": "unit"},
        *("Find this object in the image: cup.", (1,), [3, 4, 30, 20]),
    ),
    "refcoco_thousandths": Case(
        rows({"ref": "cup", "bbox": [50, 100, 450, 400], "image": "0.png"}),
        {**BOX, "order": "xywh", "frame": "thousandths"},
        *("Find this object in the image: cup.", (0,), [3, 4, 30, 20]),
    ),
    "boxes_of_a_thousand": Case(
        rows(
            {
                "question": "Cups?",
                "answer": '```json\n[{"bbox_2d": [50, 100, 500, 500], "label": "cup"}]\n```',
                "image": "0.png",
            }
        ),
        {"kind": "boxes", "frame": "thousandths"},
        *("Cups?", (0,), [[3, 4, 30, 20]]),
    ),
    "points": Case(
        rows({"question": "Point.", "answer": [{"x": 50, "y": 25}], "image": "0.png"}),
        {"kind": "points", "frame": "thousandths"},
        *("Point.", (0,), [[3, 1]]),
    ),
    "parquet": Case(
        parquet({"problem": "Who?", "answer": "me", "images": [{"bytes": png(1), "path": None}]}),
        {},
        *("Who?", (1,), ["me"]),
    ),
    "parquet_folder": Case(
        parquet(
            {"question": "Who?", "answer": "me", "image": {"bytes": png(0), "path": "x"}},
            name="hub/data/train-00000-of-00001.parquet",
        ),
        {},
        *("Who?", (0,), ["me"]),
    ),
    "datasets": Case(
        saved({"question": "Who?", "answer": "me", "image": {"bytes": png(1), "path": None}}),
        {},
        *("Who?", (1,), ["me"]),
    ),
    "datasets_splits": Case(
        saved({"question": "Who?", "answer": "me"}, splits=("train", "validation", "test")),
        {},
        *("Who?", (), ["me"]),
    ),
    "tfds": Case(prepared, {}, "Who?", (0,), ["me"]),
}

LONG, STRIP = 7, 21  # of the forty records


def forty(folder):
    """Forty records, of which one is far too long and another shows a strip."""
    strip = np.full((4, 1000, 3), 10, np.uint8)
    Image.fromarray(strip).save(folder / "strip.png")
    record = {"question": "Who?", "answer": "me", "image": "1.png", "thought": "so"}
    listed = [record | {"id": number} for number in range(40)]
    listed[LONG]["question"] = "Who? " * 300
    listed[STRIP]["image"] = "strip.png"
    return rows(*listed)(folder)


RUN = {
    **READ,
    "forty": Case(forty, {"too_long": "leave_out"}, *("Who?", (1,), ["me"], "so")),
}


SO = {"question": "Why?", "answer": "so"}
TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "so"}]
CAT_OR_DOG = ("Which?\nA. cat\nB. dog\n", (), "B")
ENCODED = base64.b64encode(png(1)).decode()


def of_cat_or_dog(choices, answer="B"):
    """A question with its options in some form."""
    return Case(
        rows({"question": "Which?", "choices": choices, "answer": answer}),
        {"kind": "choice"},
        *CAT_OR_DOG,
        choices=("cat", "dog"),
    )


ODD = {
    "keys_in_any_script": Case(
        rows({"вопрос": "Где?", "ответ": "там", "фото": "1.png"}),
        {"keys": Keys(question="вопрос", answer="ответ", images="фото")},
        *("Где?", (1,), ["там"]),
    ),
    "windows_text": Case(
        text(b"\xef\xbb\xbf\r\n" + json.dumps(SO).encode() + b"\r\n\r\n"), {}, "Why?", (), ["so"]
    ),
    "a_picture_in_base64": Case(rows(SO | {"image": ENCODED}), {}, "Why?", (1,), ["so"]),
    "a_data_url": Case(
        rows(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "Is "},
                            {
                                "type": "image_url",
                                "image_url": {"url": f"data:image/png;base64,{ENCODED}"},
                            },
                            {"type": "text", "text": "a cup?"},
                        ],
                    },
                    {"role": "assistant", "content": "yes"},
                ]
            }
        ),
        {},
        *("Is <image>a cup?", (1,), ["yes"]),
    ),
    "a_file_url": Case(
        lambda folder: rows(SO | {"image": f"file://{folder}/1.png"})(folder),
        {},
        *("Why?", (1,), ["so"]),
    ),
    "nulls_for_pictures": Case(
        parquet(
            SO | {"images": [{"bytes": None, "path": "0.png"}, {"bytes": None, "path": None}]},
            name="A.PARQUET",
        ),
        {},
        *("Why?", (0,), ["so"]),
    ),
    "named_images_are_null": Case(
        rows(SO | {"shots": {"all": None}}), {"keys": Keys(images="shots.all")}, "Why?", (), ["so"]
    ),
    "answers_of_people": Case(
        rows({"question": "Why?", "answers": [{"answer": "so", "id": 1}, {"answer": "thus"}]}),
        {},
        *("Why?", (), ["so", "thus"]),
    ),
    "a_thought_in_the_reply": Case(
        rows(
            {
                "messages": [
                    {"role": "user", "content": "Why?"},
                    {"role": "assistant", "content": "<think>hm</think><answer>s</answer>"},
                ],
                "solution": "so",
            }
        ),
        {},
        *("Why?", (), ["so"], "hm"),
    ),
    "choices_of_something_else": Case(
        rows(SO | {"choices": "none", "system": 3}),
        {},
        *("Why?", (), ["so"]),
        rest=(("record_choices", "none"), ("system", 3)),
    ),
    "a_caption_and_a_box_beside": Case(
        rows(SO | {"caption": "a cup", "bbox": [1, 2, 3, 4]}),
        {},
        *("Why?", (), ["so"]),
        rest=(("caption", "a cup"), ("bbox", [1, 2, 3, 4])),
    ),
    "choices_by_letter": of_cat_or_dog({"b": "dog", "a": "cat"}, "b"),
    "choices_with_labels": of_cat_or_dog({"label": ["A", "B"], "text": ["cat", "dog"]}),
    "choices_in_python": of_cat_or_dog("['cat', 'dog']"),
    "choices_in_json": of_cat_or_dog('["cat", "dog"]'),
    "choices_on_lines": of_cat_or_dog("A. cat\n B. dog\n", "B. dog"),
    "choices_with_small_letters": of_cat_or_dog(["(a) cat", "(b) dog"], 1.0),
    "choices_that_parquet_filled": Case(
        parquet(
            {"question": "Which?", "choices": {"A": "cat", "B": "dog"}, "answer": "B"},
            {"question": "Which?", "choices": {"A": "a", "B": "b", "C": "c"}, "answer": "C"},
        ),
        {"kind": "choice"},
        *CAT_OR_DOG,
        choices=("cat", "dog"),
    ),
    "the_same_key_twice_with_one_value": Case(
        text(b'{"question": "Why?", "answer": "so", "answer": "so"}'), {}, "Why?", (), ["so"]
    ),
    "turns_as_json": Case(
        rows({"messages": json.dumps(TURNS), "image": "1.png"}), {}, "Why?", (1,), ["so"]
    ),
    "turns_in_python": Case(rows({"conversations": str(TURNS)}), {}, "Why?", (), ["so"]),
    "turns_a_list_a_key": Case(
        rows({"conversations": {"from": ["human", "gpt"], "value": ["Why?", "so"]}}),
        {},
        *("Why?", (), ["so"]),
    ),
    "a_prompt_as_json": Case(
        rows({"prompt": json.dumps(TURNS[:1]), "answer": "so"}), {}, "Why?", (), ["so"]
    ),
    "a_whole_number_of_many_digits": Case(
        rows({"question": "10^400?", "answer": 10**400}),
        {"kind": "number"},
        *("10^400?", (), f"1{'0' * 400}"),
    ),
    "a_float_of_many_digits": Case(
        rows({"question": "How many?", "answer": 1e23}), {}, "How many?", (), ["1e+23"]
    ),
    "tfds_nested": Case(
        nested,
        {"keys": Keys(images="shots")},
        *("Which?", (1, 0), ["dog"]),
        rest=(("more", {"level": 3}),),
    ),
    "tfds_box": Case(
        boxed,
        {
            **BOX,
            "order": "xyxy",
            "frame": "unit",
            "keys": Keys(question="objects.name", answer="objects.box"),
        },
        *("cup", (1,), [3, 4, 30, 20]),
    ),
}


def plain(**fields):
    """A record that is right but for these fields."""
    return {"question": "Where?", "answer": [3, 4, 30, 20], "image": "0.png"} | fields


def deep(count):
    """Lists within each other."""
    return [deep(count - 1)] if count else []


def third(bad, good=None):
    """Three records that are right and one that is not."""
    return rows(*[good or plain()] * 3, bad)


def said(*contents):
    """A conversation, the user first."""
    roles = ("user", "assistant") * len(contents)
    turns = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return {"messages": turns}


BROKEN = {
    "unknown": (third({"qestion": "?", "anwser": 1}), {}, ["qestion, anwser", "nearest layout"]),
    "misspelt": (
        third({"qestion": "?", "answer": 1}),
        {},
        ["nearest layout is plain", "no question", "--task.keys.question qestion"],
    ),
    "no_answer": (
        third({"conversations": [HUMAN], "image": "0.png"}),
        {},
        ["conversations has no turn of the assistant", "no answer", "task.keys.answer"],
    ),
    "two_questions": (third(said("a", "b", "c", "d")), {}, ["2 turns of the user", "exchange"]),
    "a_role": (
        third({"messages": [{"role": "tool", "content": "x"}], "answer": 1}),
        {},
        ["turn 0", "role tool", "system, user or assistant"],
    ),
    "a_video": (
        third({"question": "?", "answer": 1, "videos": ["x.mp4"]}),
        {},
        ["has videos", "still images alone", "frames of it"],
    ),
    "a_sound": (
        third({"question": "?", "answer": 1, "audio": {"path": "x.wav"}}),
        {},
        ["has audio", "still images alone", "as text"],
    ),
    "a_part": (
        third(said([{"type": "video", "video": "x.mp4"}], "x")),
        {},
        ["turn 0", "video", "text and image"],
    ),
    "marks": (third(plain(question="<image> or <image>?")), {}, ["<image> 2 times", "1 images"]),
    "marks_alone": (
        third({"question": "<image>?", "answer": 1}, {"question": "?", "answer": 1}),
        {"kind": "number"},
        ["<image> 1 times", "0 images", "task.keys.images"],
    ),
    "a_mark_in_a_choice": (
        third(
            plain(question="<image>?", choices=["<image>", "no"], answer="A"),
            plain(choices=["a", "b"], answer="B"),
        ),
        {"kind": "choice"},
        ["<image> 2 times", "1 images"],
    ),
    "an_image_under_another_key": (
        third({"question": "?", "answer": 1, "shot": "0.png"}, {"question": "?", "answer": 1}),
        {"kind": "number"},
        ["no image under images or", 'shot looks like one: "0.png"', "--task.keys.images shot"],
    ),
    "blank": (third(plain(question=" ")), {}, ["question is blank"]),
    "null_question": (third(plain(question=None)), {}, ["no question", "question is null"]),
    "null_answer": (third(plain(answer=None)), {}, ["the answer null is no box"]),
    "half_a_character": (
        third(plain(note="\ud83d")),
        {},
        ["note holds half of a UTF-16 pair", "write the whole character"],
    ),
    "missing_picture": (third(plain(image="7.png")), {}, ["image: no file", "7.png"]),
    "a_path_of_windows": (third(plain(image="a\\\\0.png")), {}, ["no file", "its path with /"]),
    "no_base64": (
        third(plain(image="data:image/png;base64,?")),
        {},
        ["neither a path nor a picture in base64", "give its path"],
    ),
    "an_object_for_a_picture": (
        third(plain(image={"file": "0.png"})),
        {},
        ['image is {"file": "0.png"}', "nothing under bytes or path or url"],
    ),
    "frames": (
        with_image(
            "two.gif",
            lambda path: Image.new("L", SIDES).save(
                path, save_all=True, append_images=[Image.new("L", SIDES, 9)]
            ),
        ),
        {},
        ["two.gif has 2 frames", "save the one"],
    ),
    "url": (third(plain(image="https://a.org/0.png")), {}, ["an address", "fetch the file"]),
    "half_a_picture": (third(plain(image="half.png")), {}, ["half.png is no whole picture"]),
    "no_picture": (
        third({"question": "?", "answer": [1, 2, 3, 4]}),
        {},
        ["no image", "box", "task.keys.images"],
    ),
    "no_box": (third(plain(answer="the cup")), {}, ["the cup", "no box of four numbers"]),
    "order": (
        third(plain(answer=[30, 20, 10, 10])),
        {},
        ["[x, y, width, height]", "task.records.order = xywh"],
    ),
    "off": (third(plain(answer=[3, 4, 700, 20])), {}, ["outside", "60 x 40", "thousandths"]),
    "a_bbox_beside_a_question": (
        third({"question": "Where?", "bbox": [1, 2, 3, 4], "image": "0.png"}),
        {},
        ["nearest layout is plain", "no answer", "task.keys.answer"],
    ),
    "order_of_sides": (
        third(plain(answer=[3, 4, -2, 5])),
        {"order": "xywh"},
        ["[3, 4, -2, 5] is no [x, y, width, height]", "task.records.order = xyxy"],
    ),
    "units": (third(plain(answer=[0.1, 0.2, 0.3, 0.4])), {}, ["frame = unit"]),
    "refcoco": (
        third({"expression": "cup", "bbox": [1, 2, 3, 4], "image": "0.png"}),
        {},
        ["may be [x, y, width, height] or", "task.records.order = xywh"],
    ),
    "a_box_for_a_text": (
        third({"expression": "cup", "bbox": [1, 2, 3, 4], "image": "0.png"}),
        {"kind": "text"},
        ["expressions and a box under bbox", "task.kind is text", "task.kind = box"],
    ),
    "numbers_for_a_text": (
        third(plain(), plain(answer=["so"])),
        {"kind": "text"},
        ["[3, 4, 30, 20] is a list without a text", "set task.kind"],
    ),
    "no_expression": (
        third({"sentences": [], "bbox": [1, 2, 3, 4], "image": "0.png"}),
        {"order": "xyxy"},
        ["sentences is an empty list", "give it an expression"],
    ),
    "a_system_prompt": (
        third(plain(said=["Be brief."]), plain(said="Be brief.")),
        {"keys": Keys(system="said")},
        ['said is ["Be brief."]', "as a text"],
    ),
    "labels": (
        third(
            plain(answer=[{"box": [1, 2, 3, 4], "label": name} for name in "ab"]),
            plain(answer=[[1, 2, 3, 4]]),
        ),
        {"kind": "boxes"},
        ["labels", "task detection"],
    ),
    "choice": (
        third(plain(answer="bird", choices=["cat", "dog"]), plain(answer="B", choices=["a", "b"])),
        {"kind": "choice"},
        ['"bird" is none of the choices', "letter"],
    ),
    "a_text_without_choices": (
        third(plain(answer="bird"), plain(answer="B")),
        {"kind": "choice"},
        ['"bird" is no letter', "no choices", "task.keys.choices"],
    ),
    "choices_under_a_key_that_is_not_read": (
        third(plain(opts=["a", "b"], answer="B"), plain(choices=["a", "b"], answer="B")),
        {"kind": "choice"},
        ["no choices under choices or options", "opts looks like", "--task.keys.choices opts"],
    ),
    "choices_that_read_alike": (
        third(plain(answer="A", choices=["cat", "Cat"]), plain(answer="B", choices=["a", "b"])),
        {"kind": "choice"},
        ["more than one reads 'cat'", "leave one"],
    ),
    "a_place_and_a_text": (
        third(plain(answer=2, choices=["1", "2", "3"]), plain(answer="B", choices=["a", "b"])),
        {"kind": "choice"},
        ["text of option B", "option C", "in brackets"],
    ),
    "a_letter_and_a_text": (
        third(plain(answer="A", choices=["O", "A"]), plain(answer="B", choices=["a", "c"])),
        {"kind": "choice"},
        ["text of option B", "option A"],
    ),
    "one_choice": (
        third(plain(answer="A", choices=["cat"]), plain(answer="B", choices=["a", "b"])),
        {"kind": "choice"},
        ["2 to 26 texts"],
    ),
    "number": (
        third(plain(answer=[1]), plain(answer=1)),
        {"kind": "number"},
        ["the answer is a list, not a string"],
    ),
    "words": (
        third(plain(answer="many"), plain(answer="twelve")),
        {"kind": "number"},
        ['"many" is no number and no expression'],
    ),
    "no_result": (
        third({"problem": "?", "solution": "We do not know it"}, plain(answer="1")),
        {"kind": "number"},
        ["marks no result", "task.keys.answer"],
    ),
    "null": (
        third(plain(answer=[None]), plain(answer="so")),
        {"kind": "text"},
        ["answer is a NoneType"],
    ),
    "tag": (
        third(plain(answer="a</answer>b"), plain(answer="so")),
        {"kind": "text"},
        ["holds the tag </answer>"],
    ),
    "a_column_under_two_names": (
        third(plain(task="a", record_task="b")),
        {},
        ["the keys task and record_task", "rename one"],
    ),
    "an_image_of_the_system": (
        third({"messages": [{"role": "system", "content": PARTS[:1]}, *TURNS]}, SO),
        {"kind": "text"},
        ["turn 0, of the system, has an image", "user's turn"],
    ),
    "an_image_for_an_answer": (
        third(said("a", PARTS[:1]), SO),
        {"kind": "text"},
        ["of the assistant, has an image"],
    ),
    "an_image_for_a_completion": (
        third({"prompt": "a", "completion": said(PARTS[:1])["messages"]}, SO),
        {"kind": "text"},
        ["completion has an image", "leave the record away"],
    ),
    "a_side_that_no_float_holds": (
        third(plain(answer=[3, 4, 10**400, 20])),
        {},
        ["a side of the box is 1000", "finite"],
    ),
    "a_point_that_no_float_holds": (
        third(plain(answer=[[10**400, 2]]), plain(answer=[[1, 2]])),
        {"kind": "points"},
        ["is no list of points"],
    ),
    "deep": (third(plain(x=deep(101))), {}, ["more than 100 lists or objects", "in fewer"]),
    "no_object": (third(7), {}, ["record 3", ", 7, is of type int", "give an object"]),
}
BROKEN_FILES = {
    "not_json": ("mine.json", b'{"a": 1}\n{"a": 2}', ["no JSON", "named .jsonl"]),
    "an_object": ("mine.json", b'{"data": [1]}', ["holds a dict", "under 'data'"]),
    "empty": ("mine.json", b"[]", ["holds no records"]),
    "a_line": ("mine.jsonl", b'{"question": "?", "answer": 1}\n{"q', ["line 2", "no JSON"]),
    "a_list_of_lines": ("mine.jsonl", b'[{"question": "?"}]', ["line 1", "must be named .json"]),
    "a_list_over_lines": ("mine.jsonl", b'[\n{"question": "?"}]', ["line 1", "be named .json"]),
    "packed": ("mine.jsonl.gz", b"\x1f\x8b\x08", ["gzip", "unpack it"]),
    "an_arrow_stream": ("a.arrow", b"\xff" * 4 + b"\0", ["an Arrow stream", "give its folder"]),
    "a_key_of_two_values": (
        "mine.jsonl",
        b'{"question": "Why?", "answer": "so", "answer": "no"}',
        ["line 1", '"answer" twice, with "so" and "no"', "keep one"],
    ),
    "a_key_of_two_values_in_a_list": (
        "mine.json",
        b'[{"question": "Why?", "answer": {"is": 1, "is": 2}}]',
        ['"is" twice, with 1 and 2', "keep one"],
    ),
    "turns_of_a_key_of_two_values": (
        "mine.jsonl",
        rb'{"messages": "[{\"role\": \"user\", \"content\": \"a\", \"content\": \"b\"}]", '
        b'"answer": 1}',
        ["record 0", '"content" twice, with "a" and "b"', "keep one"],
    ),
    "bzip2": ("mine.jsonl.bz2", b"BZh91AY&SY", ["bzip2", "unpack it"]),
    "xz": ("mine.jsonl.xz", b"\xfd7zXZ\0", ["by xz", "unpack it"]),
    "one_object": ("mine.json", b'{"question": "?", "answer": 1}', ["holds a dict", ".jsonl"]),
    "no_parquet": ("mine.parquet", b"PAR1", ["no whole Parquet file"]),
    "no_text": ("mine.json", b"\xff\xfe[\0", ["UTF-16"]),
}


def write_pictures(folder):
    """Pictures 0.png and 1.png, and half.png, which is cut."""
    for number in (0, 1):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    (folder / "half.png").write_bytes(png(0)[:60])
