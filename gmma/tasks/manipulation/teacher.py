"""Make demonstrations and judge answers: the oracle, and the simulator's verdict."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gmma.errors import UserError
from gmma.rewards.manipulation import attempt_all
from gmma.simulator.attempt import Answer, format_answer, parse_answer
from gmma.simulator.policies import know_answer
from gmma.simulator.scene import Scene
from gmma.simulator.sight import draw_scene, is_hinged, visible_box
from gmma.tasks.task import Demonstration
from gmma.types import Example

FrameSize = tuple[int, int]


def scene_of(example: Example) -> tuple[Scene, FrameSize]:
    """Return the scene that an example shows, and its size in the units of an answer."""
    columns = example.columns
    width, height = columns["frame_size"]
    return draw_scene(columns["kind"], columns["seed"]), (width, height)


def demonstrate(config: Any, example: Example, rng: np.random.Generator) -> Demonstration:
    """Demonstrate an answer of the oracle, its point drawn anew from `rng`, and why; ours."""
    scene, frame = scene_of(example)
    answer = know_answer(scene, rng, frame)
    return Demonstration(thought=explain_answer(scene, answer, frame), answer=format_answer(answer))


def explain_answer(scene: Scene, answer: Answer, frame: FrameSize) -> str:
    """Say where the part is, how it moves, and why to push or to pull at the point."""
    x, y = (int(coordinate) for coordinate in answer.point)
    moves = "It turns on a hinge, and far from that" if is_hinged(scene) else "It slides, and"
    looks = "the way" if answer.action == "pull" else "against the way"
    return (
        f"The {scene.part} {scene.kind} is within {list(visible_box(scene, frame))}. "
        f"{moves} at [{x}, {y}] its surface looks {looks} it has to go: {answer.action}."
    )


def metrics(
    config: Any, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `success` (the joint reached its goal), `contact` (the right part) and `parsed`."""
    columns = [example.columns for example in examples]
    names = ("kind", "seed", "frame_size")
    kinds, seeds, frames = ([column[name] for column in columns] for name in names)
    outcomes = attempt_all(answers, kinds, seeds, frames, config.reading)
    for outcome, example in zip(outcomes, examples, strict=True):
        if outcome is None:
            raise UserError(f"record {example.id} names no scene: {dict(example.columns)}")
    tried = [outcome for outcome in outcomes if outcome is not None]
    return {
        "success": [float(outcome.success) for outcome in tried],
        "contact": [float(outcome.contact) for outcome in tried],
        "parsed": [float(parse_answer(answer, config.reading) is not None) for answer in answers],
    }
