"""The tasks by name."""

from typing import TYPE_CHECKING, Any

from gmma.errors import UserError
from gmma.named import Named

if TYPE_CHECKING:
    from gmma.tasks.task import Task

TASKS: "Named[Task[Any]]" = Named(
    "task",
    {
        "affordance": "gmma.tasks.affordance:AFFORDANCE",
        "code": "gmma.tasks.code:CODE",
        "demand": "gmma.tasks.demand:DEMAND",
        "detection": "gmma.tasks.detection:DETECTION",
        "digits": "gmma.tasks.digits:DIGITS",
        "manipulation": "gmma.tasks.manipulation:MANIPULATION",
        "math": "gmma.tasks.mathematics:MATH",
        "mixture": "gmma.tasks.mixture:MIXTURE",
        "ocr_vqa": "gmma.tasks.ocr_vqa:OCR_VQA",
        "sums": "gmma.tasks.sums:SUMS",
        "trajectory": "gmma.tasks.trajectory:TRAJECTORY",
        "vqa": "gmma.tasks.vqa:VQA",
    },
)


def find_task(name: str) -> "Task[Any]":
    """Return the task of that name: gmma's, or a user's own as `module:NAME`.

    Raises UserError where there is none, or what is there is no `Task` with a `TaskConfig`.
    """
    from gmma.tasks.configs import TaskConfig
    from gmma.tasks.task import Task

    task = TASKS.find(name)
    if not isinstance(task, Task):
        raise UserError(f"task '{name}' is a {type(task).__name__}, not a gmma.tasks.task.Task")
    if not (isinstance(task.config, type) and issubclass(task.config, TaskConfig)):
        raise UserError(
            f"task '{name}': its config is no subclass of gmma.tasks.configs.TaskConfig"
        )
    return task
