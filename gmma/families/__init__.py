"""The model families by the `model_type` of a config.json; one folder a family."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gmma.errors import UserError
from gmma.named import Named

if TYPE_CHECKING:
    from gmma.families.family import Family

FAMILIES: "Named[Family[Any]]" = Named(
    "model family",
    {
        "gemma3": "gmma.families.gemma3:GEMMA3",
        "gemma3_text": "gmma.families.gemma3:GEMMA3_TEXT",
        "llama": "gmma.families.llama:LLAMA",
        "mistral": "gmma.families.llama:LLAMA",
        "qwen2": "gmma.families.qwen:QWEN2",
        "qwen2_5_vl": "gmma.families.qwen2_5_vl:QWEN2_5_VL",
        "qwen3": "gmma.families.qwen:QWEN3",
        "qwen3_5": "gmma.families.qwen3_5:QWEN3_5",
        "qwen3_5_text": "gmma.families.qwen3_5:QWEN3_5_TEXT",
        "qwen3_vl": "gmma.families.qwen3_vl:QWEN3_VL",
    },
)


def find_family(
    config: Mapping[str, Any], where: str, architecture: str | None = None
) -> "Family[Any]":
    """Return the family that `architecture` names, or else the `model_type` of a config.json.

    Raises UserError where there is none of that name; `where` is the file of the config.
    """
    from gmma.families.family import Family  # which imports the networks

    kind = config.get("model_type")
    if architecture is None and (not isinstance(kind, str) or kind not in FAMILIES):
        raise UserError(
            f"{where}: model_type = {kind!r}; gmma implements {', '.join(sorted(FAMILIES))}; your "
            "own family comes in by model.architecture = module:NAME (docs/extending.md)"
        )
    name = architecture or str(kind)
    family = FAMILIES.find(name)
    if not isinstance(family, Family):
        raise UserError(f"model family '{name}' is a {type(family).__name__}, not a Family")
    return family
