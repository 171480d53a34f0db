"""The tasks by name."""

from gmma.tasks.code import CODE
from gmma.tasks.digits import DIGITS
from gmma.tasks.manipulation import MANIPULATION
from gmma.tasks.mathematics import MATH
from gmma.tasks.task import Task

TASKS: dict[str, Task] = {
    "code": CODE,
    "digits": DIGITS,
    "manipulation": MANIPULATION,
    "math": MATH,
}
