"""Qwen2.5-VL's config.json and tensor names."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gmma.errors import UserError, gather
from gmma.families.qwen2_5_vl.network import QwenConfig
from gmma.families.qwen2_5_vl.tower import QwenVisionConfig
from gmma.huggingface.decoder import (
    check_decoder,
    decoder_rows,
    decoder_sizes,
    windowed_layers,
)
from gmma.huggingface.keys import MOST, MOST_LAYERS, MOST_TOKENS, Section
from gmma.huggingface.table import Row, Table, stacked_row
from gmma.models.decoder import DType
from gmma.models.layers import ACTIVATIONS

TEXT_KEYS = ("use_sliding_window",)  # besides those of every decoder
TEXT_DEFAULTS = {  # transformers': a config.json holds only what differs
    "vocab_size": 152_064,
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 29_568,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}
WINDOWED_FROM = 80  # transformers' max_window_layers
TOWER_KEYS = (  # of the vision section, in every family of Qwen's
    "depth",
    "hidden_act",
    "hidden_size",
    "in_channels",
    "intermediate_size",
    "num_heads",
    "out_hidden_size",
    "patch_size",
    "rope_parameters",
    "spatial_merge_size",
    "temporal_patch_size",
)
VISION_KEYS = ("fullatt_block_indexes", "in_chans", "spatial_patch_size", "window_size")
VISION_DEFAULTS = {
    "depth": 32,
    "hidden_size": 3584,
    "num_heads": 16,
    "intermediate_size": 3420,
    "patch_size": 14,
    "hidden_act": "silu",
}
MODEL_KEYS = (
    "image_token_id",
    "text_config",
    "tie_word_embeddings",
    "vision_config",
)
ROTARY_KEYS = {"rope_type", "type", "rope_theta", "mrope_section", "mrope_interleaved"}


def read_vision_config(section: Section, width: int) -> QwenVisionConfig:
    """Return the config of the image tower, whose tokens are `width` wide."""
    sizes = tower_sizes(section, width, VISION_KEYS, VISION_DEFAULTS)
    section.require("spatial_patch_size", (sizes["patch_pixels"],))
    full = section.get("fullatt_block_indexes", (7, 15, 23, 31))
    window = section.size("window_size", 112) // sizes["merge"] // sizes["patch_pixels"]
    layers = tuple(i in full for i in range(sizes["layers"]))
    return QwenVisionConfig(**sizes, full_layers=layers, window_cells=window)


def tower_sizes(
    section: Section, width: int, known: Sequence[str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the fields of a `CellTowerConfig`, for tokens that are `width` wide.

    `known` are the keys of the family beside those of every tower, `defaults` transformers'.
    """
    gather(
        lambda: section.require_known((*TOWER_KEYS, *known)),
        lambda: section.require("hidden_act", tuple(ACTIVATIONS)),
        lambda: section.require("out_hidden_size", (width,)),
    )
    rope = section.section("rope_parameters")
    if set(rope) - ROTARY_KEYS or rope.get("rope_type", "axial") != "axial":
        raise section.refuse("rope_parameters", "rope_type axial there")

    def size(key: str, most: int = MOST) -> int:
        return section.size(key, defaults[key], most)

    tower, heads = size("hidden_size"), size("num_heads")
    if tower % (4 * heads):  # half of a head turns with the row, half with the column
        raise UserError(
            f"{section.where}: hidden_size = {tower} with num_heads = {heads}; hidden_size must be "
            f"a multiple of 4 · num_heads, {4 * heads}"
        )
    return {
        "layers": size("depth", MOST_LAYERS),
        "width": tower,
        "heads": heads,
        "mlp": size("intermediate_size"),
        "patch_pixels": size("patch_size"),
        "frames": section.size("temporal_patch_size", 2),
        "merge": section.size("spatial_merge_size", 2),
        "channels": section.size("in_channels", section.size("in_chans", 3)),
        "activation": section.get("hidden_act", defaults["hidden_act"]),
        "rotary_base": Section(values=rope, where=section.where).number("rope_theta", 1e4),
    }


def read_model_config(values: Mapping[str, Any], where: str, dtype: DType) -> QwenConfig:
    """Read the config of `Qwen2_5_VLForConditionalGeneration`.

    The text keys are nested, or flat as of old.
    """
    nested = Section(values=values, where=where)
    text = nested.section("text_config")
    section = Section(values=text, where=f"{where}: text_config") if text else nested
    sizes = decoder_sizes(section, TEXT_DEFAULTS)
    *_, angles, windows, vision = gather(
        lambda: nested.require_known(MODEL_KEYS) if text else None,
        lambda: check_decoder(section, TEXT_KEYS if text else (*TEXT_KEYS, *MODEL_KEYS)),
        lambda: rotary(section, sizes["head_size"] // 2),
        lambda: windowed_layers(section, sizes["layers"], WINDOWED_FROM),
        lambda: read_vision_config(
            Section(values=nested.section("vision_config"), where=f"{where}: vision_config"),
            sizes["width"],
        ),
    )
    return QwenConfig(
        **sizes,
        **angles,
        **windows,
        tied=nested.flag("tie_word_embeddings", False) | section.flag("tie_word_embeddings", False),
        vision=vision,
        image_token=nested.size("image_token_id", 151_655, MOST_TOKENS),
        dtype=dtype,
    )


def rotary(
    section: Section,
    pairs: int,
    *,
    base: float = 1e6,
    sections: tuple[int, ...] = (16, 24, 24),
    interleaved: bool = False,
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the base and sections, from the old keys or the new one; defaults as given.

    `also` are keys beside them that the caller reads.
    """
    found: dict[str, Any] = {}
    for name in ("rope_parameters", "rope_scaling"):
        own = section.section(name)
        kind = own.get("rope_type", own.get("type", "default"))
        if kind not in ("default", "mrope") or set(own) - ROTARY_KEYS - set(also):
            raise section.refuse(name, "rope_type default (mrope of old) there")
        if own.get("mrope_interleaved", interleaved) is not interleaved:
            raise section.refuse(name, f"mrope_interleaved {str(interleaved).lower()} there")
        found |= own
    given = found.get("mrope_section", sections)
    whole = isinstance(given, list | tuple) and {type(n) for n in given} == {int}
    if not whole or min(given) < 0 or (interleaved and len(given) != 3):
        count = "three whole numbers" if interleaved else "whole numbers"
        raise UserError(
            f"{section.where}: mrope_section {given!r}; it must be {count}, none below 0"
        )
    sections = tuple(given)
    if sum(sections) != pairs:
        raise UserError(
            f"{section.where}: mrope_section {list(sections)} adds up to {sum(sections)}; it must "
            f"add up to {pairs}, the pairs of a head that are rotated"
        )
    rope = Section(values=found, where=f"{section.where}: rope_parameters")
    base = rope.number("rope_theta", section.number("rope_theta", base))
    return {"rotary_sections": sections, "rotary_base": base}


def qwen_table(config: QwenConfig) -> Table:
    """Return every tensor of a Qwen2.5-VL checkpoint."""
    return Table(
        rows=(*decoder_rows(config), *vision_rows(config.vision, config.width)),
        markers={
            "text": "embed_tokens.weight",
            "head": "lm_head.weight",
            "vision": "patch_embed.proj.weight",
        },
        prefixes={"text": "model.", "head": "", "vision": "visual."},
        modules={"text": "model.language_model.", "head": "", "vision": "model.visual."},
    )


def vision_rows(c: QwenVisionConfig, out_width: int) -> tuple[Row, ...]:
    """Return the image tower and its merger."""
    cell = c.merge**2 * c.width
    linears = {
        "qkv": ("attn.qkv", (3 * c.width, c.width)),
        "out": ("attn.proj", (c.width, c.width)),
        "mlp/gate": ("mlp.gate_proj", (c.mlp, c.width)),
        "mlp/up": ("mlp.up_proj", (c.mlp, c.width)),
        "mlp/down": ("mlp.down_proj", (c.width, c.mlp)),
    }
    whole = partial(Row, part="vision")
    layer = partial(stacked_row, "vision", "params/vision/blocks/", "blocks.{layer}.", c.layers)
    base, kernel = "params/vision/", (c.width, c.channels, c.frames, *2 * (c.patch_pixels,))
    rows = [
        whole(
            path=f"{base}patch_embedding/kernel",
            name="patch_embed.proj.weight",
            shape=kernel,
            layout="linear",
        ),
        whole(path=f"{base}merger_norm/scale", name="merger.ln_q.weight", shape=(c.width,)),
    ]
    for ours, (theirs, shape) in linears.items():
        rows.append(layer(f"{ours}/kernel", f"{theirs}.weight", shape, "linear"))
        rows.append(layer(f"{ours}/bias", f"{theirs}.bias", shape[:1]))
    for ours, theirs in {"attention_norm": "norm1", "mlp_norm": "norm2"}.items():
        rows.append(layer(f"{ours}/scale", f"{theirs}.weight", (c.width,)))
    for ours, (theirs, out) in {"merger_in": ("0", cell), "merger_out": ("2", out_width)}.items():
        path, name = f"{base}{ours}", f"merger.mlp.{theirs}"
        weight = whole(path=f"{path}/kernel", name=f"{name}.weight", shape=(out, cell))
        rows.append(replace(weight, layout="linear"))
        rows.append(whole(path=f"{path}/bias", name=f"{name}.bias", shape=(out,)))
    return tuple(rows)
