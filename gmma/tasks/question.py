"""A question of the user's own, with images or none, and no truth: what `gmma sample` asks.

It is no task to train on, so it does not stand among the tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gmma.images.common import rgb_array
from gmma.tasks.configs import TaskConfig
from gmma.tasks.pictures import open_picture
from gmma.tasks.task import ExampleSource, Task
from gmma.types import Example


@dataclass(frozen=True, kw_only=True)
class QuestionConfig(TaskConfig):
    """The words and the images of the question."""

    name: str = "gmma.tasks.question:QUESTION"
    question: str
    images: tuple[Path, ...] = ()


def source(config: QuestionConfig, data_dir: Path, split: str) -> ExampleSource:
    """Return the one example, the same in every split. UserError for a file that is no picture."""
    images = tuple(rgb_array(open_picture(path, "--image")) for path in config.images)
    return [Example(question=config.question, images=images, columns={}, id="question")]


def metrics(
    config: QuestionConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `parsed`: whether anything was answered. There is no truth to compare with."""
    return {"parsed": [float(bool(answer.strip())) for answer in answers]}


QUESTION = Task(config=QuestionConfig, source=source, metrics=metrics, headline="parsed")
