"""The K×M tree: its static shape, who attends to whom, packing, and where its texts stop."""

from gmma.tree.mask import attention_mask
from gmma.types import TreeShape

__all__ = ["TreeShape", "attention_mask"]
