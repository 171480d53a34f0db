"""The authors' released schema, other layouts, splits; what is wrong is named with its record."""

import json
import os
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image
from records import CONFIGS, drawn_config, real, real_config, write_manifest

from gmma.errors import UserError
from gmma.tasks import TASKS
from gmma.tasks.formats import FORMATS
from gmma.tasks.manifest import RecordsConfig, read_back, read_document, read_manifest
from gmma.tasks.storage import dataset_directory, prepare, read_content, read_split
from gmma.tasks.trajectory import TrajectoryConfig
from gmma.tasks.visual import storage


def rows_of(path):
    return json.loads(path.read_text())


def write_rows(path, rows):
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def manifest(tmp_path):
    return write_manifest(tmp_path, "trajectory", count=40)


def test_a_released_record_is_read_as_it_stands(tmp_path):
    """The shape of the one on the data set's card: no thought, a number as id, a deep path."""
    folder = tmp_path / "images/rt_frames_success_1/0_rt#episode_1"
    folder.mkdir(parents=True)
    Image.new("RGB", (320, 256), "white").save(folder / "frame_0.jpg", quality=90)
    record = {
        "id": 4852,
        "question": "Reach for the cup.",
        "answer": [[128, 121], [176, 116], [200, 90]],
        "question_type": "trajectory-sharerobot",
        "image": "rt_frames_success_1/0_rt#episode_1/frame_0.jpg",
    }
    path = write_rows(tmp_path / "train.json", [record])
    lines = tmp_path / "test.jsonl"
    lines.write_text(json.dumps(record) + "\n\n" + json.dumps({**record, "id": 7}))
    records = RecordsConfig(
        train=path, validation=path, test=lines, images=tmp_path / "images",
        question_type="trajectory-sharerobot", validation_share=0,
    )  # fmt: skip
    config = TrajectoryConfig(source="records", records=records)
    task = TASKS["trajectory"]
    task.build(config, tmp_path)
    example = task.source(config, tmp_path, "train")[0]
    assert example.id == "4852"
    assert example.columns["answer"] == [[128, 121], [176, 116], [200, 90]]
    assert example.columns["image_size"] == [320, 256]
    test = task.source(config, tmp_path, "test")
    assert [test[i].id for i in range(len(test))] == ["4852", "7"]


def test_files_keep_their_bytes(manifest, tmp_path):
    config = TrajectoryConfig(source="records", records=RecordsConfig(train=manifest))
    task = TASKS["trajectory"]
    task.build(config, tmp_path)
    source = task.source(config, tmp_path, "train")
    for index in range(len(source)):
        stored = bytes(source.records[index]["images"][0])
        assert stored == (tmp_path / f"{source[index].id}.png").read_bytes()


def test_a_share_is_drawn_by_a_seeded_hash_of_the_picture(manifest):
    """Splits partition the records, stay when records are added, and differ by seed."""
    config = RecordsConfig(train=manifest, validation_share=0.25, test_share=0.25)
    splits = ("train", "validation", "test")
    taken = {split: {r.id for r in read_manifest(config, split)} for split in splits}
    assert sorted(map(int, set.union(*taken.values()))) == list(range(40))
    assert sum(map(len, taken.values())) == 40
    other = replace(config, seed=1)
    assert {r.id for r in read_manifest(other, "test")} != taken["test"]
    write_rows(manifest, rows_of(manifest)[:20])
    fewer = {r.id for r in read_manifest(config, "test")}
    assert fewer == {name for name in taken["test"] if int(name) < 20}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "none.png"}, r"record 3 of .* \(id 3\): image: no file .*none\.png"),
        ({"image": 7}, r"record 3 .*image is a int, not a path"),
        ({"question": None}, "record 3 .*question is a NoneType, not a string"),
        ({"answer": "far away"}, r"record 3 .*answer far away is no list of \[x, y\]"),
        ({"answer": []}, "record 3 .*with a point in it"),
        ({"answer": [[1, 2, 3]]}, "record 3 .*is no list"),
        ({"answers": 1}, "record 3 .*unknown keys answers"),
        ({"image": []}, "record 3 .*has no image"),
        ({"image": "broken.png"}, "record 3 .*no whole picture"),
    ],
)
def test_a_wrong_record_is_named(manifest, tmp_path, change, message):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows = rows_of(manifest)
    rows[3] |= change
    records = RecordsConfig(train=write_rows(manifest, rows), validation=manifest, test=manifest)
    config = TrajectoryConfig(source="records", records=records)
    with pytest.raises(UserError, match=message):
        TASKS["trajectory"].build(config, tmp_path)


def test_missing_and_unknown_keys(manifest):
    rows = rows_of(manifest)
    config = RecordsConfig(train=manifest, unknown_keys="ignore")
    write_rows(manifest, [row | {"source": "somewhere"} for row in rows])
    assert read_manifest(config, "train")
    with pytest.raises(UserError, match="unknown keys source"):
        read_manifest(RecordsConfig(train=manifest), "train")
    del rows[0]["answer"]
    write_rows(manifest, rows)
    with pytest.raises(UserError, match=r"record 0 .* has no answer"):
        read_manifest(config, "train")
    write_rows(manifest, [7])
    with pytest.raises(UserError, match=r"record 0 of .* is a int, not an object"):
        read_manifest(config, "train")


def test_unknown_keys_are_columns_where_they_are_kept(manifest, tmp_path):
    """Null where only other records have them; a name of gmma's or of the task's has a prefix."""
    rows = [row | {"step": n, "taught": "yes"} for n, row in enumerate(rows_of(manifest))]
    rows[1]["level"] = [4]
    write_rows(manifest, rows)
    records = RecordsConfig(train=manifest, test=manifest, validation=manifest, unknown_keys="keep")
    config = TrajectoryConfig(source="records", records=records)
    task = TASKS["trajectory"]
    task.build(config, tmp_path)
    source = task.source(config, tmp_path, "test")
    columns = [source[row].columns for row in range(len(source))]
    assert [own["record_step"] for own in columns] == list(range(len(rows)))
    assert [own["level"] for own in columns[:2]] == [None, [4]]
    assert columns[0]["record_taught"] == "yes"
    assert columns[0]["taught"] is not columns[0]["record_taught"]
    assert "step" not in columns[0]


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"no records at .*train\.json"):
        read_document(tmp_path / "train.json")
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{')
    with pytest.raises(UserError, match=r"bad\.jsonl is no JSONL"):
        read_document(tmp_path / "bad.jsonl")
    with pytest.raises(UserError, match="not a list of records"):
        list(FORMATS["manifest"]({"a": 1}, tmp_path))
    with pytest.raises(UserError, match="no COCO instances file"):
        list(FORMATS["coco"]({"images": []}, tmp_path))
    with pytest.raises(UserError, match=r"record 0 .* has no demand"):
        list(FORMATS["demand"]([{"image": "x"}], tmp_path))
    with pytest.raises(UserError, match="leave something to train on"):
        RecordsConfig(validation_share=0.5, test_share=0.5)


def test_an_empty_split_is_refused(manifest):
    config = RecordsConfig(train=manifest, validation_share=0, question_type="trajectory")
    with pytest.raises(UserError, match=r"of the 40 records .* none .* in split validation"):
        read_manifest(config, "validation")
    with pytest.raises(UserError, match="none of type box"):
        read_manifest(replace(config, question_type="box"), "train")


def test_a_trace_of_the_record_is_what_is_imitated(manifest, tmp_path):
    rows = [row | {"thought": f"It is number {row['id']}."} for row in rows_of(manifest)]
    write_rows(manifest, rows)
    config = TrajectoryConfig(source="records", records=RecordsConfig(train=manifest))
    task = TASKS["trajectory"]
    task.build(config, tmp_path)
    example = task.source(config, tmp_path, "train")[0]
    shown = task.demonstrate(config, example, np.random.default_rng(0))
    assert shown.thought == f"It is number {example.id}."


def test_a_changed_manifest_is_another_dataset(manifest, tmp_path):
    config = TrajectoryConfig(source="records", records=RecordsConfig(train=manifest))
    task = TASKS["trajectory"]
    task.build(config, tmp_path)
    write_rows(manifest, rows_of(manifest)[1:])
    with pytest.raises(UserError, match="no dataset at"):
        task.source(config, tmp_path, "train")


def drawn_storage(config, folder):
    return storage(TASKS[config.name].content.args[0], config, folder)


def written_at(kept):
    return (dataset_directory(kept) / "dataset_info.json").stat().st_mtime_ns


def test_a_changed_picture_or_mask_is_another_dataset(tmp_path, capsys):
    """Their bytes are stored; what only looks newer is built again, with the same hash."""
    config = drawn_config(tmp_path, "affordance_points")
    kept = drawn_storage(config, tmp_path)
    prepare(kept)
    before, written = read_content(kept), written_at(kept)
    prepare(kept)
    assert written_at(kept) == written
    (tmp_path / "4.png").unlink()  # is in the dataset
    prepare(kept)
    assert written_at(kept) == written
    Image.new("RGB", (60, 40), "blue").save(tmp_path / "4.png")
    assert "is built anew" not in capsys.readouterr().err
    prepare(kept)
    painted = read_content(kept)
    assert painted.digest != before.digest
    assert bytes(read_split(kept, "test")[4]["images"][0]) == (tmp_path / "4.png").read_bytes()
    Image.new("L", (60, 40), 3).save(tmp_path / "mask.png")
    prepare(kept)
    assert read_content(kept).digest not in (painted.digest, before.digest)
    assert read_back(read_split(kept, "train")[0]).mask.all()
    found, built = read_content(kept), written_at(kept)
    os.utime(tmp_path / "3.png", (1, 1))
    prepare(kept)
    assert written_at(kept) != built
    assert read_content(kept) == found
    assert "is built anew" in capsys.readouterr().err
    (tmp_path / "3.png").write_bytes(b"")
    for _ in range(2):  # nothing is lost, and nothing old is taken for new
        with pytest.raises(UserError, match=r"3\.png is no whole picture"):
            prepare(kept)
        assert read_content(kept) == found


def test_changed_classes_are_another_dataset(tmp_path):
    path = umd(tmp_path)
    config = affordance(path)
    first = drawn_storage(config, tmp_path).directory
    (tmp_path / "classes.json").write_text('{"2": "grasp", "1": "cut"}')
    assert drawn_storage(config, tmp_path).directory != first


def umd(folder, affordances=MappingProxyType({"grasp": {"main_bbox_xyxy": [4, 6, 24, 30]}})):
    """A UMD file of one drawn frame."""
    Image.new("RGB", (60, 40)).save(folder / "a.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[6:30, 4:24] = 1
    Image.fromarray(mask).save(folder / "mask.png")
    row = {"id": "a", "tool": "cup", "image": "a.png", "mask": "mask.png"}
    (folder / "classes.json").write_text('{"1": "grasp", "2": "cut"}')
    return write_rows(folder / "umd.json", [row | {"affordances": dict(affordances)}])


def affordance(path):
    records = RecordsConfig(format="umd", train=path, validation=path, test=path)
    return CONFIGS["affordance"](records=records)


@pytest.mark.parametrize("region", [None, "main_bbox_xyxy", 5, ["main_bbox_xyxy"], {}])
def test_a_region_that_is_no_object_is_refused(tmp_path, region):
    path = umd(tmp_path, {"grasp": region})
    with pytest.raises(UserError, match=r"umd\.json: frame a has no class or no box for 'grasp'"):
        read_manifest(affordance(path).records, "train")


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({"1": ["grasp"]}, "the name of 1 is a list, not a string"),
        ({"1": None}, "the name of 1 is a NoneType"),
        ({"one": "grasp"}, "no object of"),
        ({"1": "grasp", "2": "cut", "3": "grasp"}, 'values of name "grasp": there are two'),
    ],
)
def test_classes_that_name_no_values_are_refused(tmp_path, classes, words):
    path = umd(tmp_path)
    assert read_manifest(affordance(path).records, "train")
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    with pytest.raises(UserError, match=rf"classes\.json.*{words}"):
        read_manifest(affordance(path).records, "train")


def test_coco_boxes_become_corners():
    """The first box of COCO image 30 there: x 204.86, y 31.02, width 254.88, height 324.12."""
    path = real("coco_permissive52/instances_train.json")
    rows = list(FORMATS["coco"](read_document(path), path))
    assert len(rows) == 25
    (first,) = [row for row in rows if row["id"] == 30]
    assert first["question"] == "Find every potted plant and vase in the image."
    assert first["answer"][0] == {
        "label": "potted plant",
        "box": [204.86, 31.02, pytest.approx(459.74), pytest.approx(355.14)],
    }


def test_an_affordance_mask_is_the_pixels_of_its_class(tmp_path):
    config = real_config("affordance_points")
    task = TASKS["affordance"]
    task.build(config, tmp_path)
    source = task.source(config, tmp_path, "train")
    example = source[0]
    x1, y1, x2, y2 = map(int, example.columns["box"])
    mask = example.columns["mask"]
    assert mask.shape == (323, 323)
    assert mask[y1:y2, x1:x2].sum() > 0.9 * mask.sum()  # stray specks apart
    assert mask[y1:y2, x1:x2].any(axis=0).mean() > 0.9


def test_a_mask_without_its_value_is_refused(tmp_path):
    config = drawn_config(tmp_path, "affordance_points")
    rows = rows_of(config.records.train)
    rows[2]["mask_value"] = 9
    write_rows(config.records.train, rows)
    with pytest.raises(UserError, match=r"\(id 2\): mask .* has no pixel of value 9"):
        TASKS["affordance"].build(config, tmp_path)
    del rows[2]["mask"], rows[2]["mask_value"]
    rows[2]["answer"] = [0, 0, 9, 9]
    write_rows(config.records.train, rows)
    with pytest.raises(UserError, match=r"\(id 2\): form = points, but the record has no mask"):
        TASKS["affordance"].build(config, tmp_path)
