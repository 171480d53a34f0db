"""Task `trajectory`: the path of a robot's gripper through the image.

    question  Move the gripper to the red block.
    thought   gripper at 12, 30; red at 33, 41
    answer    [[12, 30], [19, 26], [26, 30], [33, 41]]

Records are scenes with exact truth (`gmma.tasks.trajectory_scenes`), or a manifest whose answers
are lists of `[x, y]` in pixels. Distances are reported in a frame of 0 … 1000 along each side of
the image, the one that public evaluators of ShareRobot use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gmma.answers.boxes import Box
from gmma.answers.points import parse_path, read_gold_points
from gmma.errors import UserError
from gmma.images.frames import WHOLE_IMAGE_UNITS, AxisMap, between, spell_point
from gmma.rewards.trajectory import path_distances, trajectory_reward
from gmma.tasks.augment import Geometry
from gmma.tasks.drawing import TRUTH_COLOUR, Board, guess_colour, note_unreadable
from gmma.tasks.records import refuse_tags, require_text, spell_value
from gmma.tasks.storage import Storage
from gmma.tasks.task import Demonstration, Patches
from gmma.tasks.trajectory_scenes import COLOURS, SceneConfig, label_patches, scene_storage
from gmma.tasks.truths import require_keys
from gmma.tasks.visual import (
    Visual,
    VisualConfig,
    bounds_of,
    records_storage,
    traced,
    visual_task,
)
from gmma.text.prompt import ANSWER_CLOSE, ANSWER_OPEN
from gmma.types import Example

WORST_DISTANCE = WHOLE_IMAGE_UNITS * 2**0.5  # from corner to corner
FIRST, GOAL = "gripper", "goal"  # what a thought calls the ends of a path of unnamed things


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig(VisualConfig):
    """Paths, from generated scenes or from records, and how far demonstrations stray."""

    name: Literal["trajectory"] = "trajectory"  # which task this is
    source: Literal["scenes", "records"] = "scenes"  # generated, or the files of `records`
    scenes: SceneConfig = field(default_factory=SceneConfig)
    end_noise: float = 0.0  # a demonstration's thought has the path's ends off by up to ± this
    # share of the image's side, uniformly, and its answer follows the thought
    path_noise: float = 0.0  # each of its answer's points is off by up to ± this share more
    thought_error_rate: float = 0.0  # share of demonstrations that go to another object, if any

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("end_noise", "path_noise", "thought_error_rate"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"trajectory: {name} = {value}; it must lie within 0 … 1")


def storage(config: TrajectoryConfig, data_dir: Path) -> Storage:
    """Return the scenes, or the records."""
    if config.source == "scenes":
        return scene_storage(config.scenes, data_dir)
    return records_storage(VISUAL, config, data_dir)


def read_truth(config: TrajectoryConfig, answer: Any, mask: np.ndarray | None) -> dict[str, Any]:
    """Read the columns `answer`, the path, and `objects`, each `{"label", "point"}`.

    An answer is the path, or `{"path", "objects"}`; the object that the path goes to comes first.
    """
    whole = answer if isinstance(answer, Mapping) else {"path": answer}
    require_keys(whole, ("path", "objects"), "the answer")
    path = read_gold_points(whole.get("path"))
    if path is None or not len(path):
        raise UserError(f"the answer {str(answer)[:80]} is no list of [x, y] with a point in it")
    return {"answer": path.tolist(), "objects": read_objects(whole.get("objects", []))}


def read_objects(objects: Any) -> list[dict[str, Any]]:
    """Read the objects of an answer, each `{"label", "point"}`. UserError for anything else."""
    if not isinstance(objects, list) or not all(isinstance(o, Mapping) for o in objects):
        raise UserError(f"the objects {spell_value(objects)} are no list of label and point")
    found = []
    for entry in objects:
        require_keys(entry, ("label", "point"), "an object of the answer")
        label = refuse_tags(require_text(entry.get("label"), "an object's label"), "its label")
        point = read_gold_points([entry.get("point")])
        if point is None:
            raise UserError(f"the point {spell_value(entry.get('point'))} of {label} is no [x, y]")
        found.append({"label": label, "point": point[0].tolist()})
    return found


def place(answer: Any, units: AxisMap) -> dict[str, Any]:
    """Convert path and objects of a record to other units."""
    columns = read_truth(TrajectoryConfig(), answer, None)
    moved = move(columns, units)
    return {"path": moved["answer"], "objects": moved["objects"]}


def move(columns: Mapping[str, Any], place: AxisMap) -> dict[str, Any]:
    """Move path and objects to another frame."""
    objects = [o | {"point": list(place.point(*o["point"]))} for o in columns["objects"]]
    return {"answer": place.points(columns["answer"]), "objects": objects}


def bounds(columns: Mapping[str, Any]) -> Box | None:
    """Return the box round path and objects."""
    return bounds_of([*columns["answer"], *(o["point"] for o in columns["objects"])])


def instruct(config: TrajectoryConfig) -> str:
    """Tell the model how to answer."""
    return "Answer with the path of the gripper, a list of points [[x, y], ...] in order."


@traced
def demonstrate(
    config: TrajectoryConfig, example: Example, rng: np.random.Generator
) -> Demonstration:
    """Say where the path begins and ends, then the path, as an imprecise teacher would tell; ours.

    The ends in the thought are off by uniform noise, sometimes the goal is another object, and the
    answer is the true path bent to these ends, off by noise of its own: a right answer takes a
    right thought, and the same thought has better and worse answers.
    """
    size = np.asarray(example.columns["image_size"], float)
    path, objects = np.asarray(example.columns["answer"]), example.columns["objects"]
    label, goal = (objects[0]["label"], path[-1]) if objects else (GOAL, path[-1])
    if len(objects) > 1 and rng.random() < config.thought_error_rate:
        other = objects[int(rng.integers(1, len(objects)))]
        goal = np.asarray(other["point"])
    ends = np.stack([path[0], goal]) + config.end_noise * size * rng.uniform(-1, 1, (2, 2))
    ends = np.asarray([spell_point(end, size) for end in ends])
    along = np.linspace(0, 1, len(path))[:, None]
    bent = path + (1 - along) * (ends[0] - path[0]) + along * (ends[1] - path[-1])
    bent += config.path_noise * size * rng.uniform(-1, 1, path.shape)
    named = [f"{name} at {x}, {y}" for name, (x, y) in zip((FIRST, label), ends, strict=True)]
    answer = [spell_point(point, size) for point in bent]
    return Demonstration(thought="; ".join(named), answer=str(answer))


def metrics(
    config: TrajectoryConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `dfd`, `hd`, `rmse`, `end_point`, `score` and `parsed`.

    The distances are in thousandths of the image's sides. `score` is the reward (1 is best, unlike
    the others).

    No distance is above that from corner to corner, which an answer that cannot be read has.
    """
    columns = [example.columns for example in examples]
    scores = trajectory_reward(
        answers,
        thoughts=[""] * len(answers),
        answer=[c["answer"] for c in columns],
        image_size=[c["image_size"] for c in columns],
        reading=config.reading,
    )
    found = [
        measure_path(parse_path(answer, config.reading), example)
        for answer, example in zip(answers, examples, strict=True)
    ]
    names = ("dfd", "hd", "rmse", "end_point")
    distances = {name: [row[i] for row in found] for i, name in enumerate(names)}
    return {
        "score": [score or 0.0 for score in scores],
        **distances,
        "parsed": [float(parse_path(answer, config.reading) is not None) for answer in answers],
    }


def measure_path(path: np.ndarray | None, example: Example) -> tuple[float, ...]:
    """Return DFD, HD, RMSE and end-point distance, in thousandths of the image's sides."""
    if path is None:
        return (WORST_DISTANCE,) * 4
    place = between(example.columns["image_size"], (WHOLE_IMAGE_UNITS, WHOLE_IMAGE_UNITS))
    said = np.asarray(place.points(path.tolist()))
    truth = np.asarray(place.points(example.columns["answer"]))
    return tuple(min(float(d), WORST_DISTANCE) for d in path_distances(said, truth))


def draw(config: TrajectoryConfig, example: Example, answers: Sequence[str], board: Board) -> None:
    """Draw the true path in green, each answer's in its own colour; the last point has a ring."""
    board.path(example.columns["answer"], TRUTH_COLOUR, width=5)
    paths = [parse_path(answer, config.reading) for answer in answers]
    for number, path in enumerate(paths):
        if path is not None:
            board.path(path.tolist(), guess_colour(number))
    note_unreadable(board, sum(path is None for path in paths))


def patches(
    config: TrajectoryConfig, rng: np.random.Generator, count: int, patch_pixels: int
) -> Patches:
    """Patches of scenes, whatever the records: a stem that has seen colours and a gripper."""
    return label_patches(config.scenes, rng, count, config.tiny_pixels, patch_pixels)


VISUAL = Visual(
    name="trajectory",
    config=TrajectoryConfig,
    read_truth=read_truth,
    place=place,
    storage=storage,
    geometry=Geometry(move=move, bounds=bounds),
    instruct=instruct,
    demonstrate=demonstrate,
    metrics=metrics,
    form=lambda config: "points",
    headline="score",
    draw=draw,
    patches=patches,
    pieces=(
        f"{ANSWER_OPEN}[[",
        f"]]{ANSWER_CLOSE}",
        "], [",
        *(f"{name} at " for name in (FIRST, GOAL, *COLOURS)),
        "; ",
    ),
)
TRAJECTORY = visual_task(VISUAL)
