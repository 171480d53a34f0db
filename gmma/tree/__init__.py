"""The K×M tree: its static shape and mask here; growth in `rollout`, packing in `pack`."""

from gmma.tree.mask import attention_mask
from gmma.types import TreeShape

__all__ = ["TreeShape", "attention_mask"]
