"""Qwen3-VL's config.json and tensor names."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gmma.errors import UserError, gather
from gmma.families.qwen.checkpoint import QWEN3_DEFAULTS
from gmma.families.qwen2_5_vl.checkpoint import MODEL_KEYS, rotary, tower_sizes
from gmma.families.qwen3_vl.network import Qwen3VLConfig
from gmma.families.qwen3_vl.tower import Qwen3VisionConfig
from gmma.huggingface.decoder import check_decoder, decoder_rows, decoder_sizes
from gmma.huggingface.keys import MOST_TOKENS, Section
from gmma.huggingface.table import Row, Table, stacked_row
from gmma.models.decoder import DType

VISION_KEYS = ("deepstack_visual_indexes", "num_position_embeddings")  # besides those of any tower
VISION_DEFAULTS = {  # transformers': a config.json holds only what differs
    "depth": 27,
    "hidden_size": 1152,
    "num_heads": 16,
    "intermediate_size": 4304,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
}


def read_model_config(values: Mapping[str, Any], where: str, dtype: DType) -> Qwen3VLConfig:
    """Read the config of `Qwen3VLForConditionalGeneration`."""
    nested = Section(values=values, where=where)
    section = Section(values=nested.section("text_config"), where=f"{where}: text_config")
    sizes, bias = decoder_sizes(section, QWEN3_DEFAULTS), section.flag("attention_bias", False)
    *_, angles, vision = gather(
        lambda: nested.require_known(MODEL_KEYS),
        lambda: check_decoder(section, ("attention_bias",)),
        lambda: rotary(
            section,
            sizes["head_size"] // 2,
            base=5e5,
            sections=(24, 20, 20),
            interleaved=True,
        ),
        lambda: read_vision_config(
            Section(values=nested.section("vision_config"), where=f"{where}: vision_config"),
            sizes["width"],
            sizes["layers"],
        ),
    )
    return Qwen3VLConfig(
        **sizes,
        **angles,
        qkv_bias=bias,
        out_bias=bias,
        tied=nested.flag("tie_word_embeddings", False) | section.flag("tie_word_embeddings", False),
        vision=vision,
        image_token=nested.size("image_token_id", 151_655, MOST_TOKENS),
        dtype=dtype,
    )


def read_vision_config(section: Section, width: int, decoder_layers: int) -> Qwen3VisionConfig:
    """Return the config of the image tower, for a decoder of so many layers of this width."""
    sizes = read_tower(section, width)
    deep = deep_layers(section, sizes["layers"], decoder_layers)
    return Qwen3VisionConfig(**sizes, deep_layers=deep)


def read_tower(section: Section, width: int) -> dict[str, Any]:
    """Read all fields of a `Qwen3VisionConfig` but the layers of DeepStack."""
    sizes = tower_sizes(section, width, VISION_KEYS, VISION_DEFAULTS)
    places = section.size("num_position_embeddings", 2304)
    side = math.isqrt(places)
    if side**2 != places:
        raise section.refuse("num_position_embeddings", "squares of whole numbers there")
    return {**sizes, "table_side": side}


def deep_layers(section: Section, layers: int, decoder_layers: int) -> tuple[int, ...]:
    """Read which layers of the tower have features for the decoder's first layers."""
    found = section.get("deepstack_visual_indexes", (8, 16, 24))
    whole = isinstance(found, list | tuple) and all(type(i) is int for i in found)
    if not whole or list(found) != sorted({i for i in found if 0 <= i < layers}):
        rule = f"rising numbers of the tower's layers, 0 … {layers - 1}, there"
        raise section.refuse("deepstack_visual_indexes", rule)
    if len(found) > decoder_layers:
        raise UserError(
            f"{section.where}: deepstack_visual_indexes names {len(found)} layers, one for each of "
            f"the decoder's first, which has only {decoder_layers}; leave some away"
        )
    return tuple(found)


def qwen3_vl_table(config: Qwen3VLConfig) -> Table:
    """Return every tensor of a Qwen3-VL checkpoint."""
    prefixes = {"text": "model.language_model.", "head": "", "vision": "model.visual."}
    return Table(
        rows=(*decoder_rows(config), *vision_rows(config.vision, config.width)),
        markers={
            "text": "embed_tokens.weight",
            "head": "lm_head.weight",
            "vision": "patch_embed.proj.weight",
        },
        prefixes=prefixes,
        modules=prefixes,
    )


def vision_rows(c: Qwen3VisionConfig, out_width: int) -> tuple[Row, ...]:
    """Return the image tower and its mergers."""
    cell = c.merge**2 * c.width

    def part(ours: str, theirs: str, layers: int | None) -> Callable[..., Row]:
        return partial(stacked_row, "vision", f"params/vision/{ours}", theirs, layers)

    whole, merger = part("", "", None), part("merger/", "merger.", None)
    layer = part("blocks/", "blocks.{layer}.", c.layers)
    deep = part("deep_mergers/", "deepstack_merger_list.{layer}.", len(c.deep_layers))
    kernel = (c.width, c.channels, c.frames, c.patch_pixels, c.patch_pixels)
    merging = {"in": ("linear_fc1", (cell, cell)), "out": ("linear_fc2", (out_width, cell))}
    linears = {
        "qkv": ("attn.qkv", (3 * c.width, c.width)),
        "out": ("attn.proj", (c.width, c.width)),
        "mlp_in": ("mlp.linear_fc1", (c.mlp, c.width)),
        "mlp_out": ("mlp.linear_fc2", (c.width, c.mlp)),
    }
    norms = {"attention_norm": ("norm1", c.width), "mlp_norm": ("norm2", c.width)}
    rows = [whole("place", "pos_embed.weight", (c.table_side**2, c.width))]

    def add(
        row: Callable[..., Row], products: Mapping[str, Any], normed: Mapping[str, Any]
    ) -> None:
        for ours, (theirs, shape) in products.items():
            rows.append(row(f"{ours}/kernel", f"{theirs}.weight", shape, "linear"))
            rows.append(row(f"{ours}/bias", f"{theirs}.bias", shape[:1]))
        for ours, (theirs, size) in normed.items():
            rows.append(row(f"{ours}/scale", f"{theirs}.weight", (size,)))
            rows.append(row(f"{ours}/bias", f"{theirs}.bias", (size,)))

    add(whole, {"patch_embedding": ("patch_embed.proj", kernel)}, {})
    add(layer, linears, norms)
    add(merger, merging, {"norm": ("norm", c.width)})
    if c.deep_layers:
        add(deep, merging, {"norm": ("norm", cell)})
    return tuple(rows)
