"""gmma: GRPO-MA, K thoughts answered M times each, for vision-language models on TPU.

The names below are loaded when they are first used. Importing this package imports no JAX, so that
reward workers and `--help` start fast. (`train` is missing: `gmma.train` is a module.)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gmma.advantage import group_relative, multi_answer
    from gmma.config import ExperimentConfig
    from gmma.porting import load_pretrained, reference_logits, save_pretrained
    from gmma.rewards import REWARDS
    from gmma.tasks import TASKS
    from gmma.theory import gradient_spike_score, thought_advantage_variance
    from gmma.tree import TreeShape, attention_mask

__version__ = "0.1.0"
__all__ = [
    "REWARDS",
    "TASKS",
    "ExperimentConfig",
    "TreeShape",
    "attention_mask",
    "gradient_spike_score",
    "group_relative",
    "load_pretrained",
    "multi_answer",
    "reference_logits",
    "save_pretrained",
    "thought_advantage_variance",
]
_HOMES = {
    "REWARDS": "gmma.rewards",
    "TASKS": "gmma.tasks",
    "ExperimentConfig": "gmma.config",
    "TreeShape": "gmma.tree",
    "attention_mask": "gmma.tree",
    "gradient_spike_score": "gmma.theory",
    "group_relative": "gmma.advantage",
    "load_pretrained": "gmma.porting",
    "multi_answer": "gmma.advantage",
    "reference_logits": "gmma.porting",
    "save_pretrained": "gmma.porting",
    "thought_advantage_variance": "gmma.theory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gmma' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
