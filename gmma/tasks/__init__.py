"""The tasks by name."""

from gmma.tasks.affordance import AFFORDANCE
from gmma.tasks.code import CODE
from gmma.tasks.demand import DEMAND
from gmma.tasks.detection import DETECTION
from gmma.tasks.digits import DIGITS
from gmma.tasks.manipulation import MANIPULATION
from gmma.tasks.mathematics import MATH
from gmma.tasks.mixture import mixture_of
from gmma.tasks.ocr_vqa import OCR_VQA
from gmma.tasks.task import Task
from gmma.tasks.trajectory import TRAJECTORY

SINGLE_TASKS: dict[str, Task] = {
    "affordance": AFFORDANCE,
    "code": CODE,
    "demand": DEMAND,
    "detection": DETECTION,
    "digits": DIGITS,
    "manipulation": MANIPULATION,
    "math": MATH,
    "ocr_vqa": OCR_VQA,
    "trajectory": TRAJECTORY,
}
TASKS: dict[str, Task] = {**SINGLE_TASKS, "mixture": mixture_of(SINGLE_TASKS)}
