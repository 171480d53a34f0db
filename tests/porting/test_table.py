"""The name table against real parameter trees (Gemma 3 4B, Qwen3 4B), and prefixes old and new."""

import json
import os
from pathlib import Path

import jax
import pytest
from flax.traverse_util import flatten_dict

import gmma
from gmma.errors import UserError
from gmma.families import find_family
from gmma.families.gemma3.checkpoint import gemma3_table, read_model_config
from gmma.families.qwen.checkpoint import read_qwen2_config, read_qwen3_config
from gmma.families.qwen2_5_vl.checkpoint import read_model_config as read_qwen_config
from gmma.huggingface.table import check_names, find_prefixes
from tests.porting import theirs

GEMMA_4B = {  # config.json of google/gemma-3-4b-it: what it leaves out has transformers' default
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
        "vision_use_head": False,
    },
}
GEMMA_1B = {  # google/gemma-3-1b-it, with the keys of its time
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "use_cache": True,
    "vocab_size": 262144,
}
QWEN_3B = {  # Qwen/Qwen2.5-VL-3B-Instruct: flat, as of old
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 2048,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
QWEN3_4B = {  # Qwen/Qwen3-4B
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2560,
    "initializer_range": 0.02,
    "intermediate_size": 9728,
    "max_position_embeddings": 40960,
    "max_window_layers": 36,
    "model_type": "qwen3",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN2_7B = {  # Qwen/Qwen2.5-7B-Instruct
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 152064,
}


def preset(name: str) -> dict:
    """The config of a published model, as gmma brings it."""
    return json.loads((Path(gmma.__file__).parent / "presets" / name / "config.json").read_text())


@pytest.mark.parametrize(
    ("name", "config", "count"), [("gemma3_4b", GEMMA_4B, 884), ("qwen3", QWEN3_4B, 399)]
)
def test_every_name_of_a_real_model_is_mapped(name: str, config: dict, count: int) -> None:
    path = Path(os.environ["GMMA_REAL_DATA"]) / "hf_param_trees" / f"{name}_hf_params.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    shapes = {name: tuple(shape) for name, shape in json.loads(path.read_text()).items()}
    family = find_family(config, "config.json")
    table = family.table(family.read_config(config, "config.json", "bfloat16"))
    places = table.places(find_prefixes(table, shapes))
    assert len(shapes) == count
    assert places.keys() == shapes.keys()
    check_names(places, shapes, str(path))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("Qwen3-VL-2B-Instruct", 625),
        ("Qwen3-VL-4B-Instruct", 713),
        ("Qwen3-VL-8B-Instruct", 750),
        ("Qwen3.5-0.8B", 473),
        ("Qwen3.5-2B", 617),
        ("Qwen3.5-4B", 723),
    ],
)
def test_every_name_of_qwen3_is_mapped(name: str, count: int) -> None:
    """The names and shapes are those of transformers' own model; nothing is allocated."""
    theirs.quiet()
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    values = preset(name)
    with torch.device("meta"):
        config = AutoConfig.for_model(**values)
        model = AutoModelForImageTextToText.from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    family = find_family(values, "config.json")
    config = family.read_config(values, "config.json", "bfloat16")
    table = family.table(config)
    places = table.places(find_prefixes(table, shapes))
    if config.tied:  # the files do not repeat it
        del shapes["lm_head.weight"]
    assert len(shapes) == count
    assert places.keys() - {"lm_head.weight"} == shapes.keys() - {"lm_head.weight"}
    check_names(places, shapes, name)


@pytest.mark.parametrize(
    "values",
    [
        *(GEMMA_4B, GEMMA_1B, QWEN_3B, QWEN3_4B, QWEN2_7B),
        *(preset(name) for name in ("Qwen3-VL-8B-Instruct", "Qwen3.5-4B")),
    ],
)
def test_table_covers_every_leaf_of_real_sizes(values: dict) -> None:
    """The table's leaves are those of the network, with their shapes; nothing is allocated."""
    family = find_family(values, "config.json")
    config = family.read_config(values, "config.json", "bfloat16")
    policy, table = family.policy(config), family.table(config)
    leaves = flatten_dict(jax.eval_shape(policy.init, jax.random.key(0)), sep="/")
    mapped = {row.path: row.leaf_shape for row in table.rows if not row.alias}
    assert mapped == {path: leaf.shape for path, leaf in leaves.items()}
    axes = flatten_dict(policy.logical_axes(), sep="/")
    assert axes.keys() == leaves.keys()
    assert all(len(axes[path]) == leaves[path].ndim for path in leaves)


def test_what_guesses_ahead_is_not_read() -> None:
    """Published Qwen3.5 files hold it, transformers ignores it; any other name is refused."""
    values = preset("Qwen3.5-0.8B")
    family = find_family(values, "config.json")
    table = family.table(family.read_config(values, "config.json", "bfloat16"))
    shapes = {name: place.row.shape for name, place in table.places(table.prefixes).items()}
    more = shapes | {"mtp.fc.weight": (1024, 2048), "mtp.embed_tokens.weight": (8, 8)}
    assert table.read_of(more) == shapes
    assert find_prefixes(table, table.read_of(more)) == table.prefixes
    with pytest.raises(UserError, match=r"1 unused: other\.weight"):
        check_names(table.places(table.prefixes), table.read_of({**more, "other.weight": (1,)}), "")


def test_real_configs_are_read() -> None:
    gemma = read_model_config(GEMMA_4B, "", "bfloat16")
    assert (gemma.heads, gemma.kv_heads, gemma.head_size, gemma.window) == (8, 4, 256, 1024)
    assert (gemma.rotary_factor, gemma.local_rotary_factor) == (8.0, 1.0)
    assert [i for i, local in enumerate(gemma.local_layers) if not local] == [5, 11, 17, 23, 29]
    qwen = read_qwen_config(QWEN_3B, "", "bfloat16")
    assert qwen.tied
    assert not any(qwen.local_layers)
    assert (qwen.vision.window_patches, qwen.vision.window_cells) == (64, 4)
    assert [i for i, full in enumerate(qwen.vision.full_layers) if full] == [7, 15, 23, 31]
    qwen3 = read_qwen3_config(QWEN3_4B, "", "bfloat16")
    assert (qwen3.heads, qwen3.head_size, qwen3.width, qwen3.rotary_base) == (32, 128, 2560, 1e6)
    assert (qwen3.head_norms, qwen3.qkv_bias, qwen3.tied) == (True, False, True)
    qwen2 = read_qwen2_config(QWEN2_7B, "", "bfloat16")
    assert (qwen2.head_size, qwen2.qkv_bias, qwen2.out_bias, qwen2.tied) == (
        128,
        True,
        False,
        False,
    )
    assert not any(qwen2.local_layers)
    windowed = read_qwen2_config(
        QWEN2_7B | {"use_sliding_window": True, "max_window_layers": 26}, "", "float32"
    )
    assert windowed.local_layers == (False,) * 26 + (True,) * 2
    assert windowed.window == 131_072


@pytest.mark.parametrize(
    ("text", "vision"),
    [
        ("language_model.model.", "vision_tower.vision_model."),
        ("language_model.model.", "vision_tower."),
        ("model.language_model.", "model.vision_tower.vision_model."),
    ],
)
def test_prefixes_are_found(text: str, vision: str) -> None:
    table = gemma3_table(read_model_config(GEMMA_4B, "", "float32"))
    names = [f"{text}embed_tokens.weight", f"{vision}embeddings.patch_embedding.weight"]
    found = find_prefixes(table, names)
    assert (found["text"], found["vision"]) == (text, vision)
    assert found["projector"] == "multi_modal_projector."  # absent: as transformers 5 writes it
