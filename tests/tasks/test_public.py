"""COCO and RefCOCO as TFDS lays them out, in small: the same features, two images."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from gmma.errors import UserError
from gmma.tasks import TASKS
from gmma.tasks.detection import DetectionConfig
from gmma.tasks.manifest import RecordsConfig
from gmma.tasks.storage import Storage, prepare

BOX = tfds.features.BBox(ymin=0.25, xmin=0.1, ymax=0.75, xmax=0.5)  # of 60 × 40: [6, 10, 30, 30]
CROWD = tfds.features.BBox(ymin=0.0, xmin=0.0, ymax=0.1, xmax=1.0)


def png(shape):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, shape, np.uint8)).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def coco(split):
    for number in range(2):
        crowds = [False, True] if number == 0 else [True, True]
        yield {
            "image": png((40, 60, 3)),
            "image/filename": f"{number}.jpg",
            "image/id": number,
            "objects": [
                {"area": 1, "bbox": box, "id": i, "is_crowd": crowds[i], "label": i}
                for i, box in enumerate((BOX, CROWD))
            ],
        }


def ref_coco(split):
    yield {
        "image": png((40, 60, 3)),
        "image/id": 7,
        "objects": [
            {
                "area": 1,
                "bbox": BOX,
                "id": i,
                "mask": png((40, 60, 3)),
                "refexp": [{"refexp_id": j, "raw": f"thing {i}, words {j}"} for j in range(1 + i)],
            }
            for i in range(2)
        ],
    }


COCO = {
    "image": tfds.features.Image(encoding_format="png"),
    "image/filename": tfds.features.Text(),
    "image/id": np.int64,
    "objects": tfds.features.Sequence(
        {
            "area": np.int64,
            "bbox": tfds.features.BBoxFeature(),
            "id": np.int64,
            "is_crowd": np.bool_,
            "label": tfds.features.ClassLabel(names=["cup", "traffic light"]),
        }
    ),
}
REF_COCO = {
    "image": tfds.features.Image(encoding_format="png"),
    "image/id": np.int64,
    "objects": tfds.features.Sequence(
        {
            "area": np.int64,
            "bbox": tfds.features.BBoxFeature(),
            "id": np.int64,
            "mask": tfds.features.Image(encoding_format="png"),
            "refexp": tfds.features.Sequence({"refexp_id": np.int64, "raw": tfds.features.Text()}),
        }
    ),
}


def config_of(tmp_path, name, features, records):
    home = Storage(name=name, directory=tmp_path, features=features, records=records)
    return DetectionConfig(records=RecordsConfig(format=f"tfds_{name}", train=prepare(home)))


def test_coco_is_read_where_it_lies(tmp_path):
    config = config_of(tmp_path, "coco", COCO, coco)
    task = TASKS["detection"]
    task.build(config, tmp_path / "data")
    source = task.source(config, tmp_path / "data", "test")
    assert len(source) == 1  # an image of crowds alone asks for nothing
    example = source[0]
    assert example.question == "Find every cup in the image."
    (entry,) = example.columns["answer"]
    assert entry["label"] == "cup"
    assert entry["box"] == pytest.approx([6, 10, 30, 30])
    assert [e["label"] for e in example.columns["crowd"]] == ["traffic light"]
    assert example.images[0].shape == (40, 60, 3)
    assert task.tokenizer_path(config, tmp_path / "data").exists()


def test_each_expression_of_refcoco_is_a_record(tmp_path, monkeypatch):
    # TFDS reads sequences in sequences with NumPy, but asks TensorFlow for a type to write them.
    numpy_type = property(lambda info: info.np_dtype)
    monkeypatch.setattr(tfds.core.features.feature.TensorInfo, "dtype", numpy_type)
    config = config_of(tmp_path, "ref_coco", REF_COCO, ref_coco)
    source = TASKS["detection"].source(config, tmp_path / "data", "train")
    said = [source[i].question for i in range(len(source))]
    assert said == [
        f"Find this object in the image: {words}."
        for words in ("thing 0, words 0", "thing 1, words 0", "thing 1, words 1")
    ]
    assert source[2].id == "7/1/1"
    assert source[2].columns["answer"][0]["box"] == pytest.approx([6, 10, 30, 30])


def test_what_is_not_prepared_says_how(tmp_path):
    config = DetectionConfig(records=RecordsConfig(format="tfds_coco", train=tmp_path))
    with pytest.raises(UserError, match="tfds build NAME --file_format=array_record"):
        TASKS["detection"].build(config, tmp_path)


def test_a_limit_of_objects_that_would_not_hold_is_refused(tmp_path):
    records = RecordsConfig(format="tfds_coco", train=tmp_path)
    with pytest.raises(UserError, match="most_objects = 3 leaves nothing out"):
        DetectionConfig(most_objects=3, records=records)
