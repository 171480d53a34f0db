"""The tasks by name."""

from gmma.tasks.digits import DIGITS
from gmma.tasks.task import Task

TASKS: dict[str, Task] = {"digits": DIGITS}
