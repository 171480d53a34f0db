"""Llama's config.json and tensor names."""

from collections.abc import Mapping
from typing import Any

from gmma.errors import gather
from gmma.families.llama.network import LlamaConfig, RotaryScaling
from gmma.huggingface.decoder import check_decoder, decoder_rows, decoder_sizes
from gmma.huggingface.keys import Section
from gmma.huggingface.table import Table
from gmma.models.decoder import NO_WINDOW, DType

KEYS = ("attention_bias", "mlp_bias", "pretraining_tp", "rope_interleaved", "is_llama_config")
DEFAULTS = {  # transformers': a config.json holds only what differs
    "vocab_size": 32_000,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11_008,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
SCALINGS = {"default": (), "linear": ("factor",), "llama3": LLAMA3}  # fields of `RotaryScaling`


def read_model_config(values: Mapping[str, Any], where: str, dtype: DType) -> LlamaConfig:
    """Read the config of `LlamaForCausalLM` or `MistralForCausalLM`."""
    section = Section(values=values, where=where)
    *_, (base, scaling) = gather(
        lambda: check_decoder(section, KEYS),
        lambda: section.require("mlp_bias", (False,)),
        lambda: section.require("rope_interleaved", (False,)),
        lambda: read_rotary(section),
    )
    sizes, get = decoder_sizes(section, DEFAULTS), section.get
    window, bias = get("sliding_window", NO_WINDOW), get("attention_bias", False)
    return LlamaConfig(
        **sizes,
        rotary_base=base,
        rotary_scaling=scaling,
        local_layers=(window != NO_WINDOW,) * sizes["layers"],
        window=window,
        tied=get("tie_word_embeddings", False),
        qkv_bias=bias,
        out_bias=bias,
        dtype=dtype,
    )


def read_rotary(section: Section) -> tuple[float, RotaryScaling | None]:
    """Read base and scaling of the rotary frequencies, from the old key or the new one."""
    found = {**section.get("rope_parameters", {}), **section.get("rope_scaling", {})}
    kind = found.pop("rope_type", found.pop("type", "default"))
    base = found.pop("rope_theta", section.get("rope_theta", 10_000.0))
    found.pop("type", None)
    if set(found) != set(SCALINGS.get(kind, ("unknown",))):
        key = "rope_scaling" if section.get("rope_scaling", None) else "rope_parameters"
        rules = "; ".join(f"{name} with {', '.join(keys)}" for name, keys in SCALINGS.items())
        raise section.refuse(key, f"rope_type {rules}")
    values = [found[name] for name in SCALINGS[kind]]
    return base, RotaryScaling(*values) if values else None


def llama_table(config: LlamaConfig) -> Table:
    """List every tensor of a Llama checkpoint."""
    prefixes = {"text": "model.", "head": ""}
    markers = {"text": "embed_tokens.weight", "head": "lm_head.weight"}
    return Table(rows=decoder_rows(config), markers=markers, prefixes=prefixes, modules=prefixes)
