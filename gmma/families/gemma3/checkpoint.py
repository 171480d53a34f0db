"""Gemma 3's config.json and tensor names."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from gmma.errors import UserError, gather
from gmma.families.gemma3.network import Gemma3Config
from gmma.families.gemma3.tower import SiglipConfig
from gmma.huggingface.decoder import (
    GLOBAL,
    LOCAL,
    check_decoder,
    decoder_rows,
    decoder_sizes,
    listed_local_layers,
)
from gmma.huggingface.keys import MOST_LAYERS, MOST_TOKENS, Section
from gmma.huggingface.table import Row, Table, stacked_row
from gmma.models.decoder import NO_WINDOW, DType
from gmma.models.layers import ACTIVATIONS

TEXT_KEYS = (  # besides those of every decoder
    "attention_bias",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "rope_local_base_freq",
    "sliding_window_pattern",
    "_sliding_window_pattern",
    "use_bidirectional_attention",
)
TEXT_DEFAULTS = {  # transformers': a config.json holds only what differs
    "vocab_size": 262_208,
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
}
VISION_KEYS = [
    "attention_dropout",
    "hidden_act",
    "hidden_size",
    "image_size",
    "intermediate_size",
    "layer_norm_eps",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
    "vision_use_head",
]
ROTARY_KEYS = {"rope_type", "type", "factor", "rope_theta"}
MODEL_KEYS = [
    "image_token_index",
    "mm_tokens_per_image",
    "text_config",
    "tie_word_embeddings",
    "vision_config",
]


def read_text_config(values: Mapping[str, Any], where: str, dtype: DType) -> Gemma3Config:
    """Read the config of `Gemma3ForCausalLM`."""
    section = Section(values=values, where=where)
    gather(
        lambda: check_decoder(section, TEXT_KEYS, "hidden_activation"),
        lambda: section.require("use_bidirectional_attention", (False,)),
    )
    sizes, get = decoder_sizes(section, TEXT_DEFAULTS, "hidden_activation"), section.get
    layers, bias = sizes["layers"], section.flag("attention_bias", False)
    old = section.size("_sliding_window_pattern", 6)
    every = section.size("sliding_window_pattern", old)
    local = listed_local_layers(section, layers)
    unlimited = values.get("sliding_window", 4096) is None
    everywhere, inside = rotaries(section)
    return Gemma3Config(
        **sizes,
        local_layers=tuple((i + 1) % every != 0 for i in range(layers)) if local is None else local,
        window=NO_WINDOW if unlimited else section.size("sliding_window", 4096),
        query_scale=section.number("query_pre_attn_scalar", 256) ** -0.5,
        rotary_base=everywhere.base,
        rotary_factor=everywhere.factor,
        local_rotary_base=inside.base,
        local_rotary_factor=inside.factor,
        final_softcap=get("final_logit_softcapping", None),
        tied=section.flag("tie_word_embeddings", True),
        qkv_bias=bias,
        out_bias=bias,
        dtype=dtype,
    )


class Rotary(NamedTuple):
    """Base of the rotary frequencies, and what positions are divided by."""

    base: float
    factor: float


def rotaries(section: Section) -> tuple[Rotary, Rotary]:
    """Return rotary settings of global and of local layers, from the old keys or the new one."""
    both = section.section("rope_parameters")
    nested = Section(values=both, where=f"{section.where}: rope_parameters")
    everywhere, old, local = (
        nested.section(GLOBAL),
        section.section("rope_scaling"),
        nested.section(LOCAL),
    )
    for name, found in (
        ("rope_parameters", everywhere),
        ("rope_scaling", old),
        ("rope_parameters", local),
    ):
        kind = found.get("rope_type", found.get("type", "default"))
        if kind not in ("default", "linear") or set(found) - ROTARY_KEYS:
            raise section.refuse(name, "rope_type default or linear there")
    scaling = Section(values={**everywhere, **old}, where=f"{section.where}: rope_parameters")
    inside = Section(values=local, where=f"{nested.where}: {LOCAL}")
    return (
        Rotary(
            scaling.number("rope_theta", section.number("rope_theta", 1e6)),
            scaling.number("factor", 1.0),
        ),
        Rotary(
            inside.number("rope_theta", section.number("rope_local_base_freq", 1e4)),
            inside.number("factor", 1.0),
        ),
    )


def read_vision_config(values: Mapping[str, Any], where: str) -> SiglipConfig:
    """Return the config of the SigLIP tower."""
    section = Section(values=values, where=where)
    gather(
        lambda: section.require_known(VISION_KEYS),
        lambda: section.require("attention_dropout", (0.0,)),
        lambda: section.require("hidden_act", tuple(ACTIVATIONS)),
    )
    get = section.get
    return SiglipConfig(
        layers=section.size("num_hidden_layers", 12, MOST_LAYERS),
        width=section.size("hidden_size", 768),
        heads=section.size("num_attention_heads", 12),
        mlp=section.size("intermediate_size", 3072),
        image_pixels=section.size("image_size", 224),
        patch_pixels=section.size("patch_size", 16),
        channels=section.size("num_channels", 3),
        epsilon=section.number("layer_norm_eps", 1e-6),
        activation=get("hidden_act", "gelu_pytorch_tanh"),
        pooling_head=get("vision_use_head", True),
    )


def read_model_config(values: Mapping[str, Any], where: str, dtype: DType) -> Gemma3Config:
    """Return the config of `Gemma3ForConditionalGeneration`."""
    section = Section(values=values, where=where)
    text = section.section("text_config")
    # transformers 5 looks at this level alone.
    text["tie_word_embeddings"] = section.get("tie_word_embeddings", True)
    text.pop("final_logit_softcapping", None)  # this class of transformers never applies it
    _, decoder, vision = gather(
        lambda: section.require_known(MODEL_KEYS),
        lambda: read_text_config(text, f"{where}: text_config", dtype),
        lambda: read_vision_config(section.section("vision_config"), f"{where}: vision_config"),
    )
    tokens = section.size("mm_tokens_per_image", 256)
    side = int(tokens**0.5)
    if side**2 != tokens or side > vision.side or vision.side // (vision.side // side) != side:
        raise UserError(
            f"{where}: mm_tokens_per_image = {tokens} with {vision.side} × {vision.side} patches "
            "an image; it must be a square that the patches pool into"
        )
    return replace(
        decoder,
        vision=vision,
        image_tokens=tokens,
        image_token=section.size("image_token_index", 262_144, MOST_TOKENS),
    )


def gemma3_table(config: Gemma3Config) -> Table:
    """Return every tensor of a Gemma 3 checkpoint."""
    rows = decoder_rows(config)
    markers = {"text": "embed_tokens.weight", "head": "lm_head.weight"}
    prefixes = modules = {"text": "model.", "head": ""}
    if config.vision is not None:
        rows += (*vision_rows(config.vision), *projector_rows(config, config.vision.width))
        markers |= {
            "vision": "embeddings.patch_embedding.weight",
            "projector": "mm_soft_emb_norm.weight",
        }
        prefixes = {
            "text": "language_model.model.",
            "head": "",
            "vision": "vision_tower.",
            "projector": "multi_modal_projector.",
        }
        modules = {
            "text": "model.language_model.",
            "head": "",
            "vision": "model.vision_tower.",
            "projector": "model.multi_modal_projector.",
        }
    return Table(rows=rows, markers=markers, prefixes=prefixes, modules=modules)


def vision_rows(c: SiglipConfig) -> tuple[Row, ...]:
    """Return the SigLIP tower, its pooling head included where the checkpoint carries one."""
    whole = partial(Row, part="vision")
    layer = partial(
        stacked_row, "vision", "params/vision/blocks/", "encoder.layers.{layer}.", c.layers
    )
    square = (c.width, c.width)
    linears = {
        "query": ("self_attn.q_proj", square),
        "key": ("self_attn.k_proj", square),
        "value": ("self_attn.v_proj", square),
        "out": ("self_attn.out_proj", square),
        "mlp_in": ("mlp.fc1", (c.mlp, c.width)),
        "mlp_out": ("mlp.fc2", (c.width, c.mlp)),
    }
    base, embed = "params/vision/", "embeddings.patch_embedding"
    kernel = (c.width, c.channels, c.patch_pixels, c.patch_pixels)
    place = (c.side**2, c.width)
    rows = [
        whole(
            path=f"{base}patch_embedding/kernel",
            name=f"{embed}.weight",
            shape=kernel,
            layout="linear",
        ),
        whole(path=f"{base}patch_embedding/bias", name=f"{embed}.bias", shape=(c.width,)),
        whole(path=f"{base}place", name="embeddings.position_embedding.weight", shape=place),
        whole(path=f"{base}norm/scale", name="post_layernorm.weight", shape=(c.width,)),
        whole(path=f"{base}norm/bias", name="post_layernorm.bias", shape=(c.width,)),
    ]
    for ours, (theirs, shape) in linears.items():
        rows.append(layer(f"{ours}/kernel", f"{theirs}.weight", shape, "linear"))
        rows.append(layer(f"{ours}/bias", f"{theirs}.bias", shape[:1]))
    for ours, theirs in {"attention_norm": "layer_norm1", "mlp_norm": "layer_norm2"}.items():
        rows.append(layer(f"{ours}/scale", f"{theirs}.weight", (c.width,)))
        rows.append(layer(f"{ours}/bias", f"{theirs}.bias", (c.width,)))
    return (*rows, *(pooling_rows(c) if c.pooling_head else ()))


def pooling_rows(c: SiglipConfig) -> tuple[Row, ...]:
    """Return the tower's pooling head, carried as it is."""
    d, mlp = c.width, c.mlp
    tensors = {
        "probe": ("probe", (1, 1, d)),
        "in_kernel": ("attention.in_proj_weight", (3 * d, d)),
        "in_bias": ("attention.in_proj_bias", (3 * d,)),
        "out_kernel": ("attention.out_proj.weight", (d, d)),
        "out_bias": ("attention.out_proj.bias", (d,)),
        "norm_scale": ("layernorm.weight", (d,)),
        "norm_bias": ("layernorm.bias", (d,)),
        "mlp_in_kernel": ("mlp.fc1.weight", (mlp, d)),
        "mlp_in_bias": ("mlp.fc1.bias", (mlp,)),
        "mlp_out_kernel": ("mlp.fc2.weight", (d, mlp)),
        "mlp_out_bias": ("mlp.fc2.bias", (d,)),
    }
    return tuple(
        Row(path=f"params/vision/head/{ours}", part="vision", name=f"head.{theirs}", shape=shape)
        for ours, (theirs, shape) in tensors.items()
    )


def projector_rows(c: Gemma3Config, width: int) -> tuple[Row, ...]:
    """Return the rows from the tower to the decoder; the projection is stored input first."""
    return (
        Row(
            path="params/projector/out/kernel",
            part="projector",
            name="mm_input_projection_weight",
            shape=(width, c.width),
        ),
        Row(
            path="params/projector/norm/scale",
            part="projector",
            name="mm_soft_emb_norm.weight",
            shape=(width,),
        ),
    )
