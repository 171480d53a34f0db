"""The K×M tree: its static shape and mask here; growth in `rollout`, packing in `pack`."""

from gmma.tree.layout import TreeShape
from gmma.tree.mask import attention_mask

__all__ = ["TreeShape", "attention_mask"]
