"""The model families by the `model_type` of a config.json; one folder a family."""

import importlib
from collections.abc import Mapping
from typing import Any

from gmma.errors import UserError
from gmma.families.family import Family

FAMILIES: dict[str, str] = {  # model_type: where its `Family` is, as module:NAME
    "gemma3": "gmma.families.gemma3:GEMMA3",
    "gemma3_text": "gmma.families.gemma3:GEMMA3_TEXT",
    "llama": "gmma.families.llama:LLAMA",
    "mistral": "gmma.families.llama:LLAMA",
    "qwen2_5_vl": "gmma.families.qwen2_5_vl:QWEN2_5_VL",
}


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """Find the family of a config.json. UserError where there is none."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"{where}: model_type = {kind!r}; gmma implements {', '.join(sorted(FAMILIES))}"
        )
    module, _, name = FAMILIES[kind].partition(":")
    family: Family = getattr(importlib.import_module(module), name)
    return family
