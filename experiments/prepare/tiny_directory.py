"""Make a small random model of Qwen3.5 or of Qwen3-VL, as a Hugging Face directory.

    python experiments/prepare/tiny_directory.py qwen3_5 models/tiny-qwen3_5
    python experiments/prepare/tiny_directory.py qwen3_vl models/tiny-qwen3_vl

`gmma train experiments/trajectory.py --on-scenes DIRECTORY` trains either. Both have the sizes
below, the same tower and the same tokenizer, byte pairs of the scenes' own words. Of Qwen3.5's four
layers one is of attention.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from gmma.families.qwen2_5_vl.tokenizer import QWEN_SPECIAL, QWEN_SPLIT
from gmma.huggingface.weights import write_params
from gmma.porting.pretrained import describe_pretrained

WIDTH, LAYERS, HEADS, HEAD, MLP = 128, 4, 4, 32, 256
PATCH, MERGE = 8, 2  # pixels, patches
WORDS = (
    "The gripper is at and the block is at <think> </think> <answer> </answer> red green blue "
    "yellow purple Move the gripper to the block. Answer with points of the path. [[0, 1], [2, 3]]"
)
ROTARY = {
    "rope_type": "default",
    "rope_theta": 10_000.0,
    "mrope_section": [6, 5, 5],
    "mrope_interleaved": True,
}
DECODERS: dict[str, dict[str, Any]] = {
    "qwen3_vl": {"rope_parameters": ROTARY},
    "qwen3_5": {
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "linear_num_key_heads": HEADS,
        "linear_num_value_heads": HEADS,
        "linear_key_head_dim": HEAD,
        "linear_value_head_dim": HEAD,
        "rope_parameters": ROTARY | {"partial_rotary_factor": 1.0},
    },
}


def write_tokenizer(out: Path) -> dict[str, int]:
    """Write a byte-level BPE as Qwen's; returns the ids of its special tokens."""
    library = Tokenizer(models.BPE())
    library.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([WORDS] * 8, trainer)
    library.add_special_tokens(list(QWEN_SPECIAL))
    library.save(str(out / "tokenizer.json"))
    return {token: library.token_to_id(token) for token in QWEN_SPECIAL}


def config_of(family: str, ids: dict[str, int]) -> dict[str, Any]:
    """Return config.json."""
    text = {
        "vocab_size": max(ids.values()) + 1,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "head_dim": HEAD,
        "intermediate_size": MLP,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "eos_token_id": ids["<|im_end|>"],
        **DECODERS[family],
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0] if family == "qwen3_vl" else [],
    }
    return {
        "model_type": family,
        "text_config": text,
        "vision_config": vision,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }


def processor() -> dict[str, Any]:
    """Return preprocessor_config.json: pictures of the scenes' size as they are."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": 48 * 48},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }


def main() -> None:
    """Write the directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("family", choices=sorted(DECODERS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.out.exists():
        sys.exit(f"{given.out} is there already")
    given.out.mkdir(parents=True)
    ids = write_tokenizer(given.out)
    for name, values in (
        ("config.json", config_of(given.family, ids)),
        ("preprocessor_config.json", processor()),
    ):
        (given.out / name).write_text(json.dumps(values, indent=2), encoding="utf-8")
    described = describe_pretrained(given.out)
    params = jax.jit(described.policy.init)(jax.random.key(given.seed))
    table = described.family.table(described.policy.config)
    write_params(given.out, params, table.places(table.prefixes))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{given.out}: {count:,} parameters")


if __name__ == "__main__":
    main()
