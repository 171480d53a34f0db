"""Scenes from seeds as a TFDS dataset, and the questions asked about them.

Scene i of a split has kind `kinds[i mod n]` and a scene seed out of a range of that split alone, so
no scene is in two splits, whatever their sizes. Stored are the picture, the question, and the
oracle's point and action; all else is drawn again from kind and seed when an answer is tried.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gmma.answers.reading import Reading
from gmma.errors import UserError
from gmma.simulator.attempt import Answer, format_answer
from gmma.simulator.policies import know_answer
from gmma.simulator.render import draw_picture, open_gl
from gmma.simulator.scene import KINDS
from gmma.simulator.sight import draw_scene
from gmma.tasks.configs import TaskConfig, require_asked
from gmma.tasks.storage import SPLITS, Storage, encode_png, read_split
from gmma.tasks.task import ExampleSource, join_words
from gmma.types import Example

_SEEDS_PER_SPLIT = 10**9
_SEEDS_PER_SET = 10**6
_HOW_TO_ANSWER = (
    "A suction cup touches one point of the image and pushes or pulls there, square to the "
    'surface. Answer with {{"point": [x, y], "action": "push"}} or "pull"; x runs right and y down '
    "from the top left corner, {unit}."
)


@dataclass(frozen=True, kw_only=True)
class ManipulationConfig(TaskConfig):
    """The scenes, their number, and the wording of the question."""

    name: Literal["manipulation"] = "manipulation"
    kinds: tuple[str, ...] = tuple(KINDS)  # kinds of object, in turn
    train_scenes: int = 2040
    validation_scenes: int = 240
    test_scenes: int = 240
    image_pixels: int = 224  # side of the square picture
    seed: int = 0  # 0 … 999: another set of scenes, which shares none with this one
    frame: Literal["pixels", "thousand"] = "pixels"  # coordinates of questions, thoughts, answers:
    # pixels of the picture, or 0 … 1000 along each side
    reading: Reading = "lenient"  # an answer in any common form, or "strict": the JSON object alone
    explain: bool = True  # say in the question what the answer looks like and in which frame
    vocab_size: int = 640  # upper bound of the SentencePiece vocabulary

    def __post_init__(self) -> None:
        require_asked(self, self.explain)
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
        """Return the number of scenes in a split."""
        return getattr(self, f"{split}_scenes")

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height of the picture in the units of an answer."""
        side = self.image_pixels if self.frame == "pixels" else 1000
        return side, side


def scene_name(config: ManipulationConfig, split: str, index: int) -> tuple[str, int]:
    """Return the kind and seed of scene `index` of a split."""
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


def storage(config: ManipulationConfig, data_dir: Path) -> Storage:
    """Describe the dataset on disk; reading it chooses the frame of the answers."""
    side = config.image_pixels
    counts = "_".join(str(config.count(split)) for split in SPLITS)
    name = (  # all that the stored scenes depend on
        f"manipulation_{'-'.join(config.kinds)}_{side}px_{counts}scenes_seed{config.seed}"
    )

    def records(split: str) -> Iterator[dict[str, Any]]:
        with open_gl((side, side)):
            for index in range(config.count(split)):
                yield draw_record(config, split, index)

    return Storage(
        name="manipulation",
        directory=Path(data_dir) / name,
        features={
            **{text: tfds.features.Text() for text in ("id", "question", "kind", "part", "action")},
            "image": tfds.features.Image(shape=(side, side, 3), encoding_format="png"),
            "seed": tfds.features.Scalar(dtype=np.int64),
            "point": tfds.features.Tensor(shape=(2,), dtype=np.int32),
        },
        records=records,
        description=__doc__ or "",
    )


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
    """Word the question with, if wanted, the form of the answer and the frame of coordinates."""
    if not config.explain:
        return question
    if config.instruction is not None:
        return join_words(question, [config.instruction])
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
    """Open random access to a split; raises UserError on an unknown split or before `build`.

    Columns: `kind` and `seed` name the scene, `frame_size` [w, h] is the picture's size in the
    units of an answer, `part` the colour asked for, and `answer` one right answer of many.
    """
    as_stored = {"image": tfds.decode.SkipDecoding()}
    return _Source(config, read_split(storage(config, data_dir), split, as_stored))
