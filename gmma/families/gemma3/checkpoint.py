"""Gemma 3's config.json and tensor names."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

from gmma.errors import UserError, gather
from gmma.families.gemma3.network import NO_WINDOW, Gemma3Config
from gmma.families.gemma3.tower import SiglipConfig
from gmma.huggingface.keys import MOST_LAYERS, MOST_TOKENS, Section
from gmma.huggingface.table import Layout, Row, Table
from gmma.models.layers import ACTIVATIONS

DType = Literal["float32", "bfloat16", "float64"]
LOCAL, GLOBAL = "sliding_attention", "full_attention"
# The defaults are transformers': a config.json holds only what differs.
TEXT_KEYS = [
    "attention_bias",
    "attention_dropout",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "head_dim",
    "hidden_activation",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "query_pre_attn_scalar",
    "rms_norm_eps",
    "rope_local_base_freq",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "sliding_window_pattern",
    "_sliding_window_pattern",
    "tie_word_embeddings",
    "use_bidirectional_attention",
    "vocab_size",
]
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
    """The config of `Gemma3ForCausalLM`."""
    section = Section(values=values, where=where)
    gather(
        lambda: section.require_known(TEXT_KEYS),
        lambda: section.require("attention_dropout", (0.0,)),
        lambda: section.require("use_bidirectional_attention", (False,)),
        lambda: section.require("hidden_activation", tuple(ACTIVATIONS)),
    )
    get = section.get
    layers = section.size("num_hidden_layers", 26, MOST_LAYERS)
    unlimited = values.get("sliding_window", 4096) is None
    everywhere, inside = rotaries(section)
    return Gemma3Config(
        vocab_size=section.size("vocab_size", 262_208, MOST_TOKENS),
        layers=layers,
        width=section.size("hidden_size", 2304),
        heads=section.size("num_attention_heads", 8),
        kv_heads=section.size("num_key_value_heads", 4),
        head_size=section.size("head_dim", 256),
        mlp=section.size("intermediate_size", 9216),
        local_layers=local_layers(section, layers),
        window=NO_WINDOW if unlimited else section.size("sliding_window", 4096),
        query_scale=section.number("query_pre_attn_scalar", 256) ** -0.5,
        rotary_base=everywhere.base,
        rotary_factor=everywhere.factor,
        local_rotary_base=inside.base,
        local_rotary_factor=inside.factor,
        epsilon=section.number("rms_norm_eps", 1e-6),
        activation=get("hidden_activation", "gelu_pytorch_tanh"),
        final_softcap=get("final_logit_softcapping", None),
        tied=get("tie_word_embeddings", True),
        attention_bias=get("attention_bias", False),
        dtype=dtype,
    )


def local_layers(section: Section, layers: int) -> tuple[bool, ...]:
    """Which layers see a window: listed, or all but every n-th."""
    kinds = section.get("layer_types", None)
    if kinds is None:
        old = section.size("_sliding_window_pattern", 6)
        every = section.size("sliding_window_pattern", old)
        return tuple((i + 1) % every != 0 for i in range(layers))
    if len(kinds) != layers or not set(kinds) <= {LOCAL, GLOBAL}:
        raise section.refuse("layer_types", f"{layers} entries, each {LOCAL} or {GLOBAL}")
    return tuple(kind == LOCAL for kind in kinds)


class Rotary(NamedTuple):
    """Base of the rotary frequencies, and what positions are divided by."""

    base: float
    factor: float


def rotaries(section: Section) -> tuple[Rotary, Rotary]:
    """Of global and of local layers, from the old keys or the new one."""
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
    """The config of the SigLIP tower."""
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
    """The config of `Gemma3ForConditionalGeneration`."""
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
    """Every tensor of a Gemma 3 checkpoint."""
    rows = text_rows(config)
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


def text_rows(c: Gemma3Config) -> tuple[Row, ...]:
    """The decoder and its head."""
    query, key = c.heads * c.head_size, c.kv_heads * c.head_size
    linears = {
        "attention/query": ("self_attn.q_proj", (query, c.width)),
        "attention/key": ("self_attn.k_proj", (key, c.width)),
        "attention/value": ("self_attn.v_proj", (key, c.width)),
        "attention/out": ("self_attn.o_proj", (c.width, query)),
        "mlp/gate": ("mlp.gate_proj", (c.mlp, c.width)),
        "mlp/up": ("mlp.up_proj", (c.mlp, c.width)),
        "mlp/down": ("mlp.down_proj", (c.width, c.mlp)),
    }
    norms = {
        "attention_norm": ("input_layernorm", c.width),
        "attention_out_norm": ("post_attention_layernorm", c.width),
        "mlp_norm": ("pre_feedforward_layernorm", c.width),
        "mlp_out_norm": ("post_feedforward_layernorm", c.width),
        "query_norm": ("self_attn.q_norm", c.head_size),
        "key_norm": ("self_attn.k_norm", c.head_size),
    }
    layer = partial(stacked, "text", "params/blocks/", "layers.{layer}.", c.layers)
    embedding = (c.vocab_size, c.width)
    head = partial(Row, part="head", name="lm_head.weight", shape=embedding)
    rows = [
        Row(path="params/embedding", part="text", name="embed_tokens.weight", shape=embedding),
        Row(path="params/final_norm/scale", part="text", name="norm.weight", shape=(c.width,)),
        head(path="params/embedding", alias=True)
        if c.tied
        else head(path="params/head/kernel", layout="linear"),
    ]
    for ours, (theirs, shape) in linears.items():
        name = ours.removeprefix("attention/")
        rows.append(layer(f"{name}/kernel", f"{theirs}.weight", shape, "linear"))
        if c.attention_bias and ours.startswith("attention/"):
            rows.append(layer(f"{name}/bias", f"{theirs}.bias", shape[:1]))
    rows += [layer(f"{ours}/scale", f"{t}.weight", (size,)) for ours, (t, size) in norms.items()]
    return tuple(rows)


def stacked(
    part: str,
    base: str,
    their_base: str,
    layers: int,
    path: str,
    name: str,
    shape: tuple[int, ...],
    layout: Layout = "same",
) -> Row:
    """A row of a stack of layers."""
    return Row(
        path=base + path,
        part=part,
        name=their_base + name,
        shape=shape,
        layout=layout,
        layers=layers,
    )


def vision_rows(c: SiglipConfig) -> tuple[Row, ...]:
    """The SigLIP tower, its pooling head included where the checkpoint carries one."""
    whole = partial(Row, part="vision")
    layer = partial(stacked, "vision", "params/vision/blocks/", "encoder.layers.{layer}.", c.layers)
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
    """The tower's pooling head, carried as it is."""
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
    """From the tower to the decoder; the projection is stored input first."""
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
