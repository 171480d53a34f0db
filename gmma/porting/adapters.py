"""Adapters in PEFT's format, so that `peft` loads them onto the base model of transformers."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from gmma.errors import UserError
from gmma.huggingface.table import Row
from gmma.huggingface.weights import in_their_order
from gmma.porting.pretrained import Pretrained
from gmma.types import Array

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_adapters(directory: str | Path, pretrained: Pretrained) -> None:
    """Write adapter_config.json and adapter_model.safetensors; α = rank: ours hold the factor.

    UserError where there are no adapters, or one on a layer that is no linear layer of theirs.
    """
    directory = Path(directory)
    adapters = flatten_dict(pretrained.params.get("lora", {}), sep="/")
    if not adapters:
        raise UserError("the parameters hold no collection `lora`; export the whole model instead")
    source = pretrained.source
    table = source.family.table(pretrained.policy.config)
    rows = {row.path: row for row in table.rows}
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(name.removesuffix("/a") for name in adapters if name.endswith("/a")):
        row = rows[f"params/{path}/kernel"]
        pair = adapters[f"{path}/a"], adapters[f"{path}/b"]
        tensors |= adapter_tensors(row, table.modules[row.part], *pair)
    rank = min(tensors[name].shape[0] for name in tensors if name.endswith("lora_A.weight"))
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    config = adapter_config(tensors, rank, str(source.directory))
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def adapter_tensors(row: Row, prefix: str, a: Array, b: Array) -> dict[str, np.ndarray]:
    """Return the tensors of one of our adapters, one pair per layer."""
    if row.layout != "linear" or len(row.shape) != 2:
        raise UserError(
            f"{row.path} is {row.name} in transformers, which peft cannot adapt; export the merged "
            "model instead"
        )
    found = {}
    for index, layer in row.stack.numbers().items():
        down, up = (np.asarray(x[index] if index else x, np.float32).T for x in (a, b))
        name = prefix + row.name.format(layer=layer).removesuffix(".weight")
        for kind, value in {"A": down, "B": in_their_order(up, row)}.items():
            key = f"base_model.model.{name}.lora_{kind}.weight"
            found[key] = np.ascontiguousarray(value)
    return found


def adapter_config(tensors: Mapping[str, np.ndarray], rank: int, base: str) -> dict[str, object]:
    """Return the adapter_config.json that PEFT reads."""
    head, tail = "base_model.model.", ".lora_A.weight"
    modules = [n.removeprefix(head).removesuffix(tail) for n in tensors if n.endswith(tail)]
    return {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(modules),
        "task_type": "CAUSAL_LM",
    }
