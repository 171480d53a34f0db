"""Ported models: Hugging Face directories in and out."""

from gmma.porting.adapters import save_adapters
from gmma.porting.pretrained import (
    Pretrained,
    load_pretrained,
    reference_logits,
    save_pretrained,
)

__all__ = ["Pretrained", "load_pretrained", "reference_logits", "save_adapters", "save_pretrained"]
