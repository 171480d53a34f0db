"""The configs of the tasks, each with a `name` of its own that tells them apart."""

from gmma.tasks.affordance import AffordanceConfig
from gmma.tasks.code import CodeConfig
from gmma.tasks.demand import DemandConfig
from gmma.tasks.detection import DetectionConfig
from gmma.tasks.digits import DigitsConfig
from gmma.tasks.manipulation.dataset import ManipulationConfig
from gmma.tasks.mathematics import MathConfig
from gmma.tasks.ocr_vqa import OcrVqaConfig
from gmma.tasks.trajectory import TrajectoryConfig

SingleTaskConfig = (
    AffordanceConfig
    | CodeConfig
    | DemandConfig
    | DetectionConfig
    | DigitsConfig
    | ManipulationConfig
    | MathConfig
    | OcrVqaConfig
    | TrajectoryConfig
)
