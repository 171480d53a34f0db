"""Scenes from seeds as a TFDS dataset, and the questions asked about them.

Scene i of a split has kind `kinds[i mod n]` and a scene seed out of a range of that split alone, so
no scene is in two splits, whatever their sizes. Stored are the picture, the question, and the
oracle's point and action; all else is drawn again from kind and seed when an answer is tried.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gmma.errors import UserError
from gmma.simulator.attempt import Answer, format_answer
from gmma.simulator.policies import know_answer
from gmma.simulator.render import draw_picture, open_gl
from gmma.simulator.scene import KINDS
from gmma.simulator.sight import draw_scene
from gmma.tasks.task import ExampleSource
from gmma.types import Example

SPLITS = ("train", "validation", "test")
_SEEDS_PER_SPLIT = 10**9
_SEEDS_PER_SET = 10**6
_HOW_TO_ANSWER = (
    "A suction cup touches one point of the image and pushes or pulls there, square to the "
    'surface. Answer with {{"point": [x, y], "action": "push"}} or "pull"; x runs right and y down '
    "from the top left corner, {unit}."
)


@dataclass(frozen=True, kw_only=True)
class ManipulationConfig:
    """Which scenes, how many, and how the question is put."""

    name: Literal["manipulation"] = "manipulation"
    kinds: tuple[str, ...] = tuple(KINDS)  # kinds of object, in turn
    train_scenes: int = 2040
    validation_scenes: int = 240
    test_scenes: int = 240
    image_pixels: int = 224  # side of the square picture
    seed: int = 0  # 0 … 999: another set of scenes, which shares none with this one
    frame: Literal["pixels", "thousand"] = "pixels"  # coordinates of questions, thoughts, answers:
    # pixels of the picture, or 0 … 1000 along each side
    explain: bool = True  # say in the question what the answer looks like and in which frame
    vocab_size: int = 640  # upper bound of the SentencePiece vocabulary

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise UserError(
                f"manipulation: kinds is {self.kinds}; name each once, of {', '.join(KINDS)}"
            )
        for split in SPLITS:
            self._require(1 <= self.count(split) <= _SEEDS_PER_SET, f"{split}_scenes", "1 … 10^6")
        self._require(32 <= self.image_pixels <= 1024, "image_pixels", "within 32 … 1024")
        self._require(0 <= self.seed < 1000, "seed", "within 0 … 999")

    def _require(self, holds: bool, field: str, rule: str) -> None:
        if not holds:
            raise UserError(f"manipulation: {field} is {getattr(self, field)}; it must be {rule}")

    def count(self, split: str) -> int:
        """Scenes in a split."""
        return getattr(self, f"{split}_scenes")

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height of the picture in the units of an answer."""
        side = self.image_pixels if self.frame == "pixels" else 1000
        return side, side


def scene_name(config: ManipulationConfig, split: str, index: int) -> tuple[str, int]:
    """Kind and seed of scene `index` of a split."""
    row, kind = divmod(index, len(config.kinds))
    first = SPLITS.index(split) * _SEEDS_PER_SPLIT + config.seed * _SEEDS_PER_SET
    return config.kinds[kind], first + row


def draw_record(config: ManipulationConfig, split: str, index: int) -> dict[str, Any]:
    """Record `index` of `split`; inside `open_gl`. Only the picture depends on the OpenGL."""
    kind, seed = scene_name(config, split, index)
    scene, size = draw_scene(kind, seed), (config.image_pixels, config.image_pixels)
    answer = know_answer(scene, np.random.default_rng((seed, index)), size)
    return {
        "id": f"{split}/{index}",
        "image": encode_png(draw_picture(scene, size)),
        "question": scene.question,
        "kind": kind,
        "seed": seed,
        "part": scene.part,
        "point": np.asarray(answer.point, np.int32),
        "action": answer.action,
    }


def encode_png(picture: np.ndarray) -> io.BytesIO:
    """The PNG file of uint8[H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


class _ManipulationBuilder(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # known to TFDS's __init_subclass__
):
    """The dataset on disk; the frame of the answers is chosen when it is read."""

    VERSION = tfds.core.Version("1.0.0")  # raise it when a scene of the same seed changes
    name = "manipulation"

    def __init__(self, *, scenes: ManipulationConfig, data_dir: Path) -> None:
        self.scenes = scenes
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        side = self.scenes.image_pixels
        texts = ("id", "question", "kind", "part", "action")
        features = {
            **{name: tfds.features.Text() for name in texts},
            "image": tfds.features.Image(shape=(side, side, 3), encoding_format="png"),
            "seed": tfds.features.Scalar(dtype=np.int64),
            "point": tfds.features.Tensor(shape=(2,), dtype=np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        with open_gl((self.scenes.image_pixels, self.scenes.image_pixels)):
            for index in range(self.scenes.count(split)):
                yield index, draw_record(self.scenes, split, index)


def _builder(config: ManipulationConfig, data_dir: Path) -> _ManipulationBuilder:
    counts = "_".join(str(config.count(split)) for split in SPLITS)
    name = (  # all that the stored scenes depend on
        f"manipulation_{'-'.join(config.kinds)}_{config.image_pixels}px_{counts}scenes"
        f"_seed{config.seed}"
    )
    return _ManipulationBuilder(scenes=config, data_dir=Path(data_dir) / name)


def is_prepared(builder: _ManipulationBuilder) -> bool:
    """Whether the whole dataset is on disk."""
    return (Path(builder.data_dir) / "dataset_info.json").exists()


def prepare_scenes(config: ManipulationConfig, data_dir: Path) -> Path:
    """Draws the scenes, some ten a second on one core, where they are not there; their directory.

    TFDS writes to a temporary directory and renames it, so an interrupted build leaves nothing that
    could be taken for whole. Raises UserError where pictures cannot be drawn.
    """
    builder = _builder(config, data_dir)
    if not is_prepared(builder):
        tfds.disable_progress_bar()
        with (
            tempfile.TemporaryDirectory() as downloads,  # TFDS wants a place even for no download
            contextlib.redirect_stdout(io.StringIO()),  # and announces it
        ):
            try:
                builder.download_and_prepare(file_format="array_record", download_dir=downloads)
            except OSError:
                if not is_prepared(builder):  # else another process was faster
                    raise
    if not is_prepared(builder):
        raise UserError(f"{builder.data_dir} is not a whole dataset; delete it and build again")
    return Path(builder.data_dir)


def scenes_directory(config: ManipulationConfig, data_dir: Path) -> Path:
    """Where `prepare_scenes` puts the dataset of this config."""
    return Path(_builder(config, data_dir).data_dir)


@dataclass(frozen=True)
class _Source:
    config: ManipulationConfig
    records: Any  # TFDS's random access to one split

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Example:
        record = self.records[index]
        return Example(
            question=pose_question(self.config, record["question"].decode()),
            images=(np.asarray(Image.open(io.BytesIO(record["image"]))),),
            columns=_columns(self.config, record),
            id=record["id"].decode(),
        )


def pose_question(config: ManipulationConfig, question: str) -> str:
    """The question with, if wanted, the form of the answer and the frame of its coordinates."""
    if not config.explain:
        return question
    side = config.image_pixels
    units = {
        "pixels": f"in pixels of the {side} x {side} image",
        "thousand": "each from 0 to 1000 across the image",
    }
    return f"{question} {_HOW_TO_ANSWER.format(unit=units[config.frame])}"


def _columns(config: ManipulationConfig, record: Mapping[str, Any]) -> dict[str, Any]:
    scale = config.frame_size[0] / config.image_pixels
    x, y = ((record["point"] + 0.5) * scale).tolist()  # the middle of the pixel
    answer = Answer(point=(x, y), action=record["action"].decode())
    return {
        "answer": format_answer(answer),
        "kind": record["kind"].decode(),
        "seed": int(record["seed"]),
        "part": record["part"].decode(),
        "frame_size": list(config.frame_size),
    }


def source(config: ManipulationConfig, data_dir: Path, split: str) -> ExampleSource:
    """Random access to a split; raises UserError on an unknown split or before `build`.

    Columns: `kind` and `seed` name the scene, `frame_size` [w, h] is the picture's size in the
    units of an answer, `part` the colour asked for, and `answer` one right answer of many.
    """
    if split not in SPLITS:
        raise UserError(f"manipulation has no split {split!r}; choose one of {', '.join(SPLITS)}")
    builder = _builder(config, data_dir)
    if not is_prepared(builder):
        raise UserError(
            f"no dataset at {builder.data_dir}; build it first (gmma data manipulation)"
        )
    as_stored = {"image": tfds.decode.SkipDecoding()}
    return _Source(config, builder.as_data_source(split, decoders=as_stored))
