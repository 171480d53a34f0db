"""Writes a random checkpoint of two gigabytes and more, to measure an import with.

    python -m tests.porting.large DIRECTORY
    gmma port import DIRECTORY OUT

Gemma 3 1B with a few layers more, bfloat16, in shards of at most 800 MB.
"""

import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from gmma.families.gemma3.checkpoint import gemma3_table, read_text_config
from gmma.huggingface.weights import INDEX, cut_shards
from tests.porting.test_table import GEMMA_1B

LAYERS, SHARD_BYTES = 30, 800 * 10**6


def write_large(directory: Path) -> int:
    """The directory, config.json and shards; returns the bytes of its tensors."""
    config = {**GEMMA_1B, "num_hidden_layers": LAYERS}
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    table = gemma3_table(read_text_config(config, "config.json", "bfloat16"))
    places = table.places(table.prefixes)
    sizes = {n: 2 * int(np.prod(p.row.shape)) for n, p in places.items() if not p.row.alias}
    shards = cut_shards(sizes, SHARD_BYTES)
    rng, weight_map = np.random.default_rng(0), {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        shapes = {name: places[name].row.shape for name in names}
        tensors = {n: rng.standard_normal(s, np.float32) for n, s in shapes.items()}
        narrow = {n: (x * 0.02).astype(ml_dtypes.bfloat16) for n, x in tensors.items()}
        save_file(narrow, directory / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index))
    return sum(sizes.values())


if __name__ == "__main__":
    print(f"{write_large(Path(sys.argv[1])) / 1e9:.2f} GB")
