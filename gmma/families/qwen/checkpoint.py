"""config.json of `Qwen2ForCausalLM` and `Qwen3ForCausalLM`, as in transformers."""

from collections.abc import Mapping
from typing import Any

from gmma.errors import gather
from gmma.families.llama.checkpoint import read_rotary
from gmma.families.llama.network import LlamaConfig
from gmma.huggingface.decoder import check_decoder, decoder_sizes, windowed_layers
from gmma.huggingface.keys import Section
from gmma.models.decoder import DType

QWEN2_KEYS = ("use_sliding_window",)  # besides those of every decoder
QWEN3_KEYS = (*QWEN2_KEYS, "attention_bias")
QWEN2_DEFAULTS = {  # transformers': a config.json holds only what differs
    "vocab_size": 151_936,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 22_016,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}
QWEN3_DEFAULTS = {**QWEN2_DEFAULTS, "head_dim": 128}
WINDOWED_FROM = 28  # transformers' max_window_layers


def read_qwen2_config(values: Mapping[str, Any], where: str, dtype: DType) -> LlamaConfig:
    """Read the config of `Qwen2ForCausalLM`: queries, keys and values have biases."""
    section = Section(values=values, where=where)
    read = read_text(section, QWEN2_KEYS, QWEN2_DEFAULTS)
    return LlamaConfig(**read, qkv_bias=True, dtype=dtype)


def read_qwen3_config(values: Mapping[str, Any], where: str, dtype: DType) -> LlamaConfig:
    """Read the config of `Qwen3ForCausalLM`: each query and key has a norm of its own."""
    section = Section(values=values, where=where)
    read = read_text(section, QWEN3_KEYS, QWEN3_DEFAULTS)
    bias = section.flag("attention_bias", False)
    return LlamaConfig(**read, head_norms=True, qkv_bias=bias, out_bias=bias, dtype=dtype)


def read_text(
    section: Section, keys: tuple[str, ...], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Read what both have, as fields of a `LlamaConfig`; UserError for what is not computed."""
    sizes = decoder_sizes(section, defaults)
    _, (base, scaling), windows = gather(
        lambda: check_decoder(section, keys),
        lambda: read_rotary(section),
        lambda: windowed_layers(section, sizes["layers"], WINDOWED_FROM),
    )
    tied = section.flag("tie_word_embeddings", False)
    return {**sizes, **windows, "rotary_base": base, "rotary_scaling": scaling, "tied": tied}
