"""The tasks by name."""

from gmma.tasks.digits import DIGITS
from gmma.tasks.manipulation import MANIPULATION
from gmma.tasks.task import Task

TASKS: dict[str, Task] = {"digits": DIGITS, "manipulation": MANIPULATION}
