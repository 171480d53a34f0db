"""Keys of config.json and tensor names that the decoders of Hugging Face directories share."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gmma.errors import UserError, gather
from gmma.huggingface.keys import MOST, MOST_LAYERS, MOST_TOKENS, Section
from gmma.huggingface.table import Layers, Row, stacked_row
from gmma.models.decoder import NO_WINDOW, DecoderConfig
from gmma.models.hybrid import runs_of
from gmma.models.layers import ACTIVATIONS

LOCAL, GLOBAL = "sliding_attention", "full_attention"
DECODER_KEYS = (  # of the text section, in every family
    "attention_dropout",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "vocab_size",
)


def check_decoder(
    section: Section, known: Sequence[str] = (), activation: str = "hidden_act"
) -> None:
    """Refuse keys that are neither every decoder's nor `known`, and what no decoder computes."""
    gather(
        lambda: section.require_known((*DECODER_KEYS, activation, *known)),
        lambda: section.require("attention_dropout", (0.0,)),
        lambda: section.require(activation, tuple(ACTIVATIONS)),
    )


def decoder_sizes(
    section: Section, defaults: Mapping[str, Any], activation: str = "hidden_act"
) -> dict[str, Any]:
    """Read the sizes that every decoder has, as fields of a `DecoderConfig`.

    `defaults` are transformers' for the family: a config.json holds only what differs. Heads of
    keys default to those of queries, the head size to width / heads, where `defaults` has neither.
    """

    def size(key: str, otherwise: int = 0, most: int = MOST) -> int:
        return section.size(key, defaults.get(key, otherwise), most)

    width, heads = size("hidden_size"), size("num_attention_heads")
    shared = section.values.get("num_key_value_heads", heads)
    # null in place of a number: as many as of queries
    kv_heads = heads if shared is None else size("num_key_value_heads", heads)
    head_size = size("head_dim", width // heads)
    if heads % kv_heads or head_size % 2:
        raise UserError(
            f"{section.where}: num_attention_heads = {heads}, num_key_value_heads = {kv_heads}, "
            f"heads of {head_size}; the first must be a multiple of the second, and the size of a "
            "head (head_dim, or else hidden_size / num_attention_heads) even"
        )
    return {
        "vocab_size": size("vocab_size", most=MOST_TOKENS),
        "layers": size("num_hidden_layers", most=MOST_LAYERS),
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_size": head_size,
        "mlp": size("intermediate_size"),
        "epsilon": section.number("rms_norm_eps", defaults["rms_norm_eps"]),
        "activation": section.get(activation, defaults[activation]),
    }


def listed_local_layers(section: Section, layers: int) -> tuple[bool, ...] | None:
    """Read from `layer_types` which layers see a window; None where they are not listed."""
    kinds = section.get("layer_types", None)
    if kinds is None:
        return None
    listed = isinstance(kinds, list | tuple) and all(kind in (LOCAL, GLOBAL) for kind in kinds)
    if not listed or len(kinds) != layers:
        raise section.refuse("layer_types", f"{layers} entries, each {LOCAL} or {GLOBAL}")
    return tuple(kind == LOCAL for kind in kinds)


def windowed_layers(section: Section, layers: int, first: int) -> dict[str, Any]:
    """Read the windows of Qwen's decoders, as fields of a `DecoderConfig`.

    Where `use_sliding_window` says so, the layers that are listed see a window, or without a list
    those from `max_window_layers` on, `first` by default. UserError for a list without a window.
    """
    window = section.values.get("sliding_window", 4096)  # transformers' default; null: no window
    listed, start = listed_local_layers(section, layers), section.get("max_window_layers", first)
    if type(start) is not int:
        raise section.refuse("max_window_layers", "a whole number there")
    if window is None or not section.flag("use_sliding_window", False):
        if any(listed or ()):
            rule = f"{LOCAL} only beside use_sliding_window and a sliding_window"
            raise section.refuse("layer_types", rule)
        return {"local_layers": (False,) * layers}
    return {
        "local_layers": tuple(i >= start for i in range(layers)) if listed is None else listed,
        "window": section.size("sliding_window", window, NO_WINDOW),
    }


def decoder_rows(c: DecoderConfig) -> tuple[Row, ...]:
    """List the tensors of the decoder (part `text`) and its head (part `head`)."""
    embedding = (c.vocab_size, c.width)
    head = partial(Row, part="head", name="lm_head.weight", shape=embedding)
    rows = [
        Row(path="params/embedding", part="text", name="embed_tokens.weight", shape=embedding),
        Row(path="params/final_norm/scale", part="text", name="norm.weight", shape=(c.width,)),
        head(path="params/embedding", alias=True)
        if c.tied
        else head(path="params/head/kernel", layout="linear"),
    ]
    if c.delta is None:
        return (*rows, *attention_rows(c, "params/blocks/", c.layers))
    runs, repeats = runs_of(c.delta.layers)
    for run in runs:
        layers = Layers((repeats, run.count), (c.layers // repeats, 1), run.first)
        kind = delta_rows if run.delta else attention_rows
        rows += kind(c, f"params/blocks/{run.name}/", layers)
    return tuple(rows)


def attention_rows(c: DecoderConfig, base: str, layers: int | Layers) -> list[Row]:
    """List the tensors of a stack of layers with attention."""
    query, key = c.heads * c.head_size, c.kv_heads * c.head_size
    products = {  # ours: theirs, shape, whether there is a bias
        "query": ("self_attn.q_proj", (query * (2 if c.out_gate else 1), c.width), c.qkv_bias),
        "key": ("self_attn.k_proj", (key, c.width), c.qkv_bias),
        "value": ("self_attn.v_proj", (key, c.width), c.qkv_bias),
        "out": ("self_attn.o_proj", (c.width, query), c.out_bias),
    }
    norms = {"attention_norm": ("input_layernorm", c.width)}
    if c.out_norms:
        norms |= {
            "attention_out_norm": ("post_attention_layernorm", c.width),
            "mlp_norm": ("pre_feedforward_layernorm", c.width),
            "mlp_out_norm": ("post_feedforward_layernorm", c.width),
        }
    else:
        norms |= {"mlp_norm": ("post_attention_layernorm", c.width)}
    if c.head_norms:
        norms |= {
            "query_norm": ("self_attn.q_norm", c.head_size),
            "key_norm": ("self_attn.k_norm", c.head_size),
        }
    row = partial(stacked_row, "text", base, "layers.{layer}.", layers)
    rows = mlp_rows(c, row)
    for ours, (theirs, shape, biased) in products.items():
        rows.append(row(f"{ours}/kernel", f"{theirs}.weight", shape, "linear"))
        if biased:
            rows.append(row(f"{ours}/bias", f"{theirs}.bias", shape[:1]))
    return [*rows, *(row(f"{o}/scale", f"{t}.weight", (size,)) for o, (t, size) in norms.items())]


def mlp_rows(c: DecoderConfig, row: Callable[..., Row]) -> list[Row]:
    """List the tensors of a stack's gated MLPs."""
    shapes = {"gate": (c.mlp, c.width), "up": (c.mlp, c.width), "down": (c.width, c.mlp)}
    return [
        row(f"mlp/{name}/kernel", f"mlp.{name}_proj.weight", shape, "linear")
        for name, shape in shapes.items()
    ]


def delta_rows(c: DecoderConfig, base: str, layers: int | Layers) -> list[Row]:
    """List the tensors of a stack of layers with a state in place of keys (Gated DeltaNet)."""
    d = c.delta
    assert d is not None
    mixed, values = d.heads * d.channels, d.heads * d.group * d.value_size
    parts = (d.key_size, d.key_size, d.group * d.value_size)
    row = partial(stacked_row, "text", base, "layers.{layer}.", layers)
    products = {
        "out_gate": ("in_proj_z", (values, c.width)),
        "rate": ("in_proj_b", (d.heads * d.group, c.width)),
        "decay": ("in_proj_a", (d.heads * d.group, c.width)),
        "out": ("out_proj", (c.width, values)),
    }
    norms = {
        "attention_norm": ("input_layernorm", c.width),
        "mlp_norm": ("post_attention_layernorm", c.width),
        "out_norm": ("linear_attn.norm", d.value_size),
    }
    vectors = {"decay_log": "linear_attn.A_log", "decay_bias": "linear_attn.dt_bias"}
    qkv, taps = "linear_attn.in_proj_qkv.weight", "linear_attn.conv1d.weight"
    return [
        *mlp_rows(c, row),
        row("qkv/kernel", qkv, (mixed, c.width), "linear", parts),
        row("taps", taps, (mixed, 1, d.taps), "linear", parts),
        *(
            row(f"{o}/kernel", f"linear_attn.{t}.weight", s, "linear")
            for o, (t, s) in products.items()
        ),
        *(row(f"{o}/scale", f"{t}.weight", (size,)) for o, (t, size) in norms.items()),
        *(row(ours, theirs, (d.heads * d.group,)) for ours, theirs in vectors.items()),
    ]
