"""Qwen3.5's config.json and tensor names, as in transformers.

Three layers of Gated DeltaNet to one of attention, which gates its heads' outputs and rotates a
quarter of a head; norms multiply by 1 + w. Its tower is Qwen3-VL's without DeepStack. What guesses
tokens ahead (`mtp.…`) is not read, as in transformers, and so not in an export either.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gmma.errors import UserError, gather
from gmma.families.llama.checkpoint import llama_table
from gmma.families.llama.network import LlamaConfig
from gmma.families.qwen2_5_vl.checkpoint import MODEL_KEYS, rotary
from gmma.families.qwen3_vl.checkpoint import qwen3_vl_table, read_tower
from gmma.families.qwen3_vl.network import Qwen3VLConfig
from gmma.families.qwen3_vl.tower import Qwen3VisionConfig
from gmma.huggingface.decoder import GLOBAL, check_decoder, decoder_sizes
from gmma.huggingface.keys import MOST_TOKENS, Section
from gmma.huggingface.table import Table
from gmma.models.decoder import DType
from gmma.models.hybrid import DeltaConfig

LINEAR = "linear_attention"
PARTIAL = "partial_rotary_factor"
TEXT_KEYS = (  # besides those of every decoder
    "attention_bias",
    "attn_output_gate",
    "full_attention_interval",
    "linear_conv_kernel_dim",
    "linear_key_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_value_head_dim",
    "mamba_ssm_dtype",
    "mtp_num_hidden_layers",
    "mtp_use_dedicated_embeddings",
    "output_gate_type",
    PARTIAL,
)
TEXT_DEFAULTS = {  # transformers': a config.json holds only what differs
    "vocab_size": 248_320,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 12_288,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}
COMPUTED = {  # the one value of a key that is computed
    "attn_output_gate": True,
    "hidden_act": "silu",
    "mamba_ssm_dtype": "float32",
    "output_gate_type": "swish",
}
GUESSING = ("mtp.",)  # transformers ignores them


def read_model_config(values: Mapping[str, Any], where: str, dtype: DType) -> Qwen3VLConfig:
    """Read the config of `Qwen3_5ForConditionalGeneration`."""
    nested = Section(values=values, where=where)
    section = Section(values=nested.section("text_config"), where=f"{where}: text_config")
    tower = Section(values=nested.section("vision_config"), where=f"{where}: vision_config")
    text, vision, _, _ = gather(
        lambda: read_text(section, (11, 11, 10)),
        lambda: read_tower(tower, decoder_sizes(section, TEXT_DEFAULTS)["width"]),
        lambda: tower.require("deepstack_visual_indexes", ([],)),
        lambda: nested.require_known(MODEL_KEYS),
    )
    return Qwen3VLConfig(
        **text,
        tied=nested.flag("tie_word_embeddings", False) | section.flag("tie_word_embeddings", False),
        vision=Qwen3VisionConfig(**vision, deep_layers=()),
        image_token=nested.size("image_token_id", 248_056, MOST_TOKENS),
        dtype=dtype,
    )


def read_text_config(values: Mapping[str, Any], where: str, dtype: DType) -> LlamaConfig:
    """Read the config of `Qwen3_5ForCausalLM`, whose tokens have one position."""
    section = Section(values=values, where=where)
    text = read_text(section, None)
    del text["rotary_sections"]
    tied = section.flag("tie_word_embeddings", False)
    return LlamaConfig(**text, head_norms=True, tied=tied, dtype=dtype)


def read_text(section: Section, sections: tuple[int, ...] | None) -> dict[str, Any]:
    """Read the decoder's fields; `sections` are those of the rotary pairs by default, None: one."""
    sizes, bias = decoder_sizes(section, TEXT_DEFAULTS), section.flag("attention_bias", False)
    rotated = rotary_size(section, sizes["head_size"])
    pairs = rotated // 2
    *_, angles, delta = gather(
        lambda: check_decoder(section, TEXT_KEYS),
        *(lambda key=key, one=one: section.require(key, (one,)) for key, one in COMPUTED.items()),
        lambda: rotary(
            section,
            pairs,
            base=1e4,
            sections=(pairs, 0, 0) if sections is None else sections,
            interleaved=True,
            also=(PARTIAL,),
        ),
        lambda: read_delta(section, sizes["layers"]),
    )
    return {
        **sizes,
        **angles,
        "qkv_bias": bias,
        "out_bias": bias,
        "norm_offset": 1.0,
        "out_gate": True,
        "rotary_size": rotated,
        "delta": delta,
    }


def rotary_size(section: Section, head_size: int) -> int:
    """Return how much of a head is rotated."""
    rope = {**section.section("rope_parameters"), **section.section("rope_scaling")}
    factor = rope.get(PARTIAL, section.get(PARTIAL, 0.25))
    number = type(factor) in (int, float) and 0 < factor <= 1
    rotated = int(head_size * factor) if number else 0
    if rotated < 2 or rotated % 2:
        raise UserError(
            f"{section.where}: {PARTIAL} = {factor!r} with heads of {head_size}; it must be above "
            "0 and at most 1, and leave an even part of a head"
        )
    return rotated


def read_delta(section: Section, layers: int) -> DeltaConfig | None:
    """Read which layers are Gated DeltaNet, and their sizes; None where no layer is.

    UserError where all are: a rollout's cache has at least one layer's keys.
    """
    interval = section.size("full_attention_interval", 4)
    kinds = section.get(
        "layer_types", [LINEAR if (i + 1) % interval else GLOBAL for i in range(layers)]
    )
    listed = isinstance(kinds, list | tuple) and all(kind in (LINEAR, GLOBAL) for kind in kinds)
    if not listed or len(kinds) != layers or GLOBAL not in kinds:
        rule = f"{layers} entries there, each {LINEAR} or {GLOBAL}, and one {GLOBAL} or more"
        raise UserError(f"{section.where}: layer_types = {kinds!r}; gmma implements {rule}")
    heads = section.size("linear_num_key_heads", 16)
    values = section.size("linear_num_value_heads", 32)
    if values % heads:
        raise UserError(
            f"{section.where}: linear_num_value_heads = {values} is no multiple of "
            f"linear_num_key_heads = {heads}; each key head serves a whole number of value heads"
        )
    found = DeltaConfig(
        layers=tuple(kind == LINEAR for kind in kinds),
        heads=heads,
        group=values // heads,
        key_size=section.size("linear_key_head_dim", 128),
        value_size=section.size("linear_value_head_dim", 128),
        taps=section.size("linear_conv_kernel_dim", 4),
    )
    return found if any(found.layers) else None


def qwen3_5_table(config: Qwen3VLConfig) -> Table:
    """Return every tensor of a checkpoint with images."""
    return replace(qwen3_vl_table(config), ignored=GUESSING)


def qwen3_5_text_table(config: LlamaConfig) -> Table:
    """Return every tensor of a checkpoint of text alone."""
    return replace(llama_table(config), ignored=GUESSING)
