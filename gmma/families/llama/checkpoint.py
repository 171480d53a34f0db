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
    sizes, bias = decoder_sizes(section, DEFAULTS), section.flag("attention_bias", False)
    window = section.size("sliding_window", NO_WINDOW, NO_WINDOW)
    return LlamaConfig(
        **sizes,
        rotary_base=base,
        rotary_scaling=scaling,
        local_layers=(window != NO_WINDOW,) * sizes["layers"],
        window=window,
        tied=section.flag("tie_word_embeddings", False),
        qkv_bias=bias,
        out_bias=bias,
        dtype=dtype,
    )


def read_rotary(section: Section) -> tuple[float, RotaryScaling | None]:
    """Read base and scaling of the rotary frequencies, from the old key or the new one."""
    old = section.section("rope_scaling")
    found = section.section("rope_parameters") | old
    kind = str(found.pop("rope_type", found.pop("type", "default")))
    fields = SCALINGS.get(kind, ("rope_theta",))  # no known kind has this field
    if set(found) - {"rope_theta"} != set(fields):
        rules = "; ".join(f"{n} with {', '.join(k) or 'no other key'}" for n, k in SCALINGS.items())
        raise section.refuse("rope_scaling" if old else "rope_parameters", f"rope_type {rules}")
    scaling = Section(values=found, where=f"{section.where}: rope_parameters")
    base = scaling.number("rope_theta", section.number("rope_theta", 10_000.0))
    return base, RotaryScaling(*(scaling.number(key, 0) for key in fields)) if fields else None


def llama_table(config: LlamaConfig) -> Table:
    """List every tensor of a Llama checkpoint."""
    prefixes = {"text": "model.", "head": ""}
    markers = {"text": "embed_tokens.weight", "head": "lm_head.weight"}
    return Table(rows=decoder_rows(config), markers=markers, prefixes=prefixes, modules=prefixes)
