"""Tiny random models written and run by transformers, to compare ours with."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GEMMA_IMAGE, QWEN_IMAGE = 90, 91  # placeholder ids
VOCAB = 96

# layers, heads, kv heads, head size, width, kind of layers, window, options
GEMMA_TEXTS = [
    {"layers": 1, "heads": 4, "kv": 1, "head": 16, "width": 32, "window": 3},
    {"layers": 3, "heads": 4, "kv": 2, "head": 24, "width": 32, "window": 5, "pattern": 2},
    {"layers": 5, "heads": 2, "kv": 2, "head": 8, "width": 24, "window": 2, "pattern": 3},
    {"layers": 2, "heads": 6, "kv": 3, "head": 10, "width": 36, "window": 64, "tied": False},
    {"layers": 3, "heads": 4, "kv": 4, "head": 12, "width": 20, "window": 4, "final_softcap": 5.0},
    {"layers": 7, "heads": 2, "kv": 1, "head": 16, "width": 16, "window": 7, "factor": 8.0},
    {"layers": 2, "heads": 4, "kv": 2, "head": 16, "width": 32, "window": 1, "bias": True},
    {"layers": 3, "heads": 8, "kv": 2, "head": 6, "width": 24, "window": 6, "scalar": 20},
]
GEMMA_IMAGES = [
    {**GEMMA_TEXTS[0], "tokens": 4, "patches": 4, "tower": 1},
    {**GEMMA_TEXTS[1], "tokens": 16, "patches": 4, "tower": 2, "head_kept": True},
    {**GEMMA_TEXTS[2], "tokens": 9, "patches": 7, "tower": 3},
    {**GEMMA_TEXTS[3], "tokens": 4, "patches": 6, "tower": 1},
    {**GEMMA_TEXTS[5], "tokens": 1, "patches": 3, "tower": 2},
    {**GEMMA_TEXTS[7], "tokens": 25, "patches": 5, "tower": 1},
    {**GEMMA_TEXTS[4], "tokens": 4, "patches": 5, "tower": 2},
    {**GEMMA_TEXTS[6], "tokens": 9, "patches": 3, "tower": 1},
]
QWENS = [
    {"layers": 1, "heads": 2, "kv": 1, "width": 24, "sections": [2, 2, 2], "full": [0], "tower": 1},
    {"layers": 3, "heads": 4, "kv": 2, "width": 48, "sections": [1, 2, 3], "full": [1], "tower": 3},
    {"layers": 2, "heads": 4, "kv": 4, "width": 32, "sections": [2, 1, 1], "full": [], "tower": 2},
    {"layers": 5, "heads": 2, "kv": 1, "width": 32, "sections": [2, 3, 3], "tied": True},
    {"layers": 3, "heads": 6, "kv": 3, "width": 36, "sections": [1, 1, 1], "full": [0, 2]},
    {"layers": 2, "heads": 4, "kv": 1, "width": 40, "sections": [1, 2, 2], "window": 84},
    {"layers": 3, "heads": 3, "kv": 3, "width": 24, "sections": [2, 1, 1], "patch": 8, "merge": 3},
    {"layers": 4, "heads": 8, "kv": 2, "width": 64, "sections": [2, 1, 1], "epsilon": 1e-3},
]

# Images whose sides differ from the table of places, DeepStack from 0 to all layers of the decoder.
QWEN3_VLS = [
    {"layers": 2, "heads": 2, "kv": 1, "head": 12, "sections": [2, 2, 2], "deep": [0], "tower": 1},
    {"layers": 3, "heads": 4, "kv": 2, "head": 16, "sections": [4, 2, 2], "deep": [0, 1, 2]},
    {"layers": 3, "heads": 4, "kv": 4, "head": 8, "sections": [2, 1, 1], "deep": [1], "side": 3},
    {"layers": 5, "heads": 2, "kv": 1, "head": 16, "sections": [3, 3, 2], "tied": True},
    {"layers": 3, "heads": 6, "kv": 3, "head": 6, "sections": [1, 1, 1], "deep": [0, 2]},
    {"layers": 2, "heads": 4, "kv": 1, "head": 10, "sections": [1, 2, 2], "bias": True},
    {"layers": 3, "heads": 3, "kv": 3, "head": 8, "sections": [2, 1, 1], "patch": 8, "merge": 3},
    {"layers": 4, "heads": 8, "kv": 2, "head": 12, "sections": [1, 3, 2], "deep": [], "side": 1},
]

# Key heads, value heads and their sizes; kinds of layers: L(inear), F(ull). The last ones repeat no
# pattern. Grids as with Qwen3-VL. What a query reads of a random memory may be nearly zero and is
# then divided by its own size: with the published ε rounding alone moves transformers' own logits
# by 1e-3 between float32 and float64, and by 1.4e-4 where heads are as large as the first ones. So
# in float32 all have a larger one; the published one is held in float64.
SMOOTH = {"epsilon": 1e-2}
QWEN3_5S = [
    {"layers": 4, "heads": 2, "kv": 1, "head": 16, "sections": [1, 1, 0]}
    | {"linear": (2, 4, 64, 64), "width": 64, **SMOOTH},
    {"layers": 8, "heads": 4, "kv": 2, "head": 24, "sections": [1, 1, 1], "tied": True, "side": 3}
    | SMOOTH,
    {"kinds": "LFLF", "heads": 4, "kv": 4, "head": 32, "sections": [2, 1, 1], "taps": 3} | SMOOTH,
    {"kinds": "FLLFLL", "heads": 2, "kv": 1, "head": 24, "sections": [1, 1, 1], "tower": 1}
    | SMOOTH,
    {"kinds": "LF", "heads": 6, "kv": 3, "head": 12, "sections": [1, 1, 1], "partial": 0.5}
    | SMOOTH,
    {"layers": 4, "heads": 4, "kv": 1, "head": 16, "sections": [1, 0, 1], "bias": True, "side": 1}
    | SMOOTH,
    {"kinds": "LFLLF", "heads": 3, "kv": 3, "head": 8, "sections": [1, 0, 0]}
    | {"linear": (3, 3, 4, 10), **SMOOTH},
    {"layers": 7, "heads": 8, "kv": 2, "head": 8, "sections": [2, 1, 1], "partial": 1.0, "merge": 3}
    | SMOOTH,
]

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LLAMAS = [
    {"layers": 1, "heads": 4, "kv": 1, "width": 32},
    {"layers": 3, "heads": 9, "kv": 3, "width": 36, "tied": True},
    {"layers": 2, "heads": 4, "kv": 2, "width": 32, "rope": LLAMA3},
    {"layers": 5, "heads": 2, "kv": 2, "width": 16, "rope": LLAMA3, "tied": True, "base": 500.0},
    {"layers": 2, "heads": 6, "kv": 3, "width": 24, "head": 8, "rope": {**LLAMA3, "factor": 32.0}},
    {"layers": 4, "heads": 4, "kv": 4, "width": 40, "bias": True, "epsilon": 1e-3},
    {"layers": 2, "heads": 8, "kv": 2, "width": 64, "rope": {"rope_type": "linear", "factor": 4.0}},
    {"layers": 3, "heads": 3, "kv": 1, "width": 24, "head": 6, "base": 100_000.0},
]
QWEN2S = [
    {"layers": 1, "heads": 4, "kv": 1, "width": 32},
    {"layers": 3, "heads": 6, "kv": 3, "width": 36, "tied": True},
    {"layers": 3, "heads": 4, "kv": 2, "width": 32, "window": 5, "from": 1},
    {"layers": 3, "heads": 4, "kv": 4, "width": 24, "window": 3, "local": [1, 0, 1]},
    {"layers": 2, "heads": 8, "kv": 2, "width": 64, "base": 1e6, "tied": True},
    {"layers": 4, "heads": 2, "kv": 1, "width": 20, "epsilon": 1e-3},
    {"layers": 2, "heads": 7, "kv": 1, "width": 28, "window": 64, "from": 0},
    {"layers": 2, "heads": 4, "kv": 2, "width": 48, "rope": {"rope_type": "linear", "factor": 4.0}},
]
QWEN3S = [
    {"layers": 1, "heads": 4, "kv": 1, "width": 32, "head": 16},
    {"layers": 3, "heads": 6, "kv": 3, "width": 36, "head": 6, "tied": True},
    {"layers": 3, "heads": 4, "kv": 2, "width": 24, "head": 12, "window": 5, "from": 1},
    {"layers": 3, "heads": 4, "kv": 4, "width": 24, "head": 8, "window": 3, "local": [1, 0, 1]},
    {"layers": 2, "heads": 8, "kv": 2, "width": 20, "head": 10, "base": 1e6, "tied": True},
    {"layers": 4, "heads": 2, "kv": 1, "width": 28, "head": 20, "epsilon": 1e-3},
    {"layers": 2, "heads": 6, "kv": 2, "width": 32, "head": 4, "bias": True},
    {"layers": 2, "heads": 4, "kv": 2, "width": 48, "head": 12, "rope": LLAMA3},
]


def quiet() -> None:
    """transformers speaks of everything; a test is strict about warnings."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")


def gemma_text_keys(o: dict[str, Any]) -> dict[str, Any]:
    """Keys of Gemma3TextConfig."""
    keys = {
        "vocab_size": VOCAB,
        "hidden_size": o["width"],
        "intermediate_size": 40,
        "num_hidden_layers": o["layers"],
        "num_attention_heads": o["heads"],
        "num_key_value_heads": o["kv"],
        "head_dim": o["head"],
        "query_pre_attn_scalar": o.get("scalar", o["head"]),
        "sliding_window": o["window"],
        "sliding_window_pattern": o.get("pattern", 2),
        "final_logit_softcapping": o.get("final_softcap"),
        "attention_bias": o.get("bias", False),
        "tie_word_embeddings": o.get("tied", True),
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    if "factor" in o:
        keys["rope_scaling"] = {"rope_type": "linear", "factor": o["factor"]}
    return keys


def save_random(model: Any, directory: Path, seed: int) -> Any:
    """Fill every parameter at random, norms and biases too, and write the directory."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("A_log"):  # transformers draws it; a model's own start is not ours
                parameter.copy_(noise)
            elif parameter.ndim < 2:
                parameter += 0.2 * noise
            elif "embed" in name or "lm_head" in name or "proj_weight" in name:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
    model.tie_weights()
    model.save_pretrained(directory)
    return model.eval()


def gemma_text(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Gemma 3 text model."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    model = Gemma3ForCausalLM(Gemma3TextConfig(**gemma_text_keys(options)))
    return save_random(model, directory, seed)


def gemma_images(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Gemma 3 model with images."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=options["tower"],
        num_attention_heads=2,
        image_size=options.get("patch", 14) * options["patches"],
        patch_size=options.get("patch", 14),
        vision_use_head=options.get("head_kept", False),
    )
    config = Gemma3Config(
        text_config=gemma_text_keys(options),
        vision_config=vision,
        mm_tokens_per_image=options["tokens"],
        boi_token_index=88,
        eoi_token_index=89,
        image_token_index=GEMMA_IMAGE,
        tie_word_embeddings=options.get("tied", True),
    )
    return save_random(Gemma3ForConditionalGeneration(config), directory, seed)


def qwen(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Qwen2.5-VL model."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    o = {"tower": 2, "full": [1], "window": 56, "patch": 14, "merge": 2} | options
    text = {
        "vocab_size": VOCAB,
        "hidden_size": o["width"],
        "intermediate_size": 40,
        "num_hidden_layers": o["layers"],
        "num_attention_heads": o["heads"],
        "num_key_value_heads": o["kv"],
        "max_position_embeddings": 512,
        "rms_norm_eps": o.get("epsilon", 1e-5),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": o["sections"],
        },
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vision = {
        "depth": o["tower"],
        "hidden_size": o.get("tower_width", 32),
        "intermediate_size": 28,
        "num_heads": 2,
        "out_hidden_size": o["width"],
        "fullatt_block_indexes": o["full"],
        "patch_size": o["patch"],
        "spatial_merge_size": o["merge"],
        "window_size": o["window"] if o["patch"] == 14 else 48,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=QWEN_IMAGE,
        video_token_id=92,
        vision_start_token_id=93,
        vision_end_token_id=94,
        tie_word_embeddings=o.get("tied", False),
    )
    return save_random(Qwen2_5_VLForConditionalGeneration(config), directory, seed)


def qwen3_vl(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Qwen3-VL model."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    o = {"width": 24, "tower": 3, "deep": [0, 1], "patch": 16, "merge": 2, "side": 5} | options
    text = {
        "vocab_size": VOCAB,
        "hidden_size": o["width"],
        "intermediate_size": 40,
        "num_hidden_layers": o["layers"],
        "num_attention_heads": o["heads"],
        "num_key_value_heads": o["kv"],
        "head_dim": o["head"],
        "max_position_embeddings": 512,
        "attention_bias": o.get("bias", False),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": o["sections"],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": o.get("tied", False),
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vision = {
        "depth": o["tower"],
        "hidden_size": o.get("tower_width", 32),
        "intermediate_size": 28,
        "num_heads": 2,
        "out_hidden_size": o["width"],
        "patch_size": o["patch"],
        "spatial_merge_size": o["merge"],
        "num_position_embeddings": o["side"] ** 2,
        "deepstack_visual_indexes": o["deep"],
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=QWEN_IMAGE,
        video_token_id=92,
        vision_start_token_id=93,
        vision_end_token_id=94,
        tie_word_embeddings=o.get("tied", False),
    )
    return save_random(Qwen3VLForConditionalGeneration(config), directory, seed)


def qwen3_5_text_keys(o: dict[str, Any]) -> dict[str, Any]:
    """Keys of Qwen3_5TextConfig."""
    key_heads, value_heads, key_size, value_size = o.get("linear", (2, 4, 6, 8))
    kinds = {"L": "linear_attention", "F": "full_attention"}
    keys = {
        "vocab_size": VOCAB,
        "hidden_size": o.get("width", 24),
        "intermediate_size": 40,
        "num_hidden_layers": o.get("layers", len(o.get("kinds", ""))),
        "num_attention_heads": o["heads"],
        "num_key_value_heads": o["kv"],
        "head_dim": o["head"],
        "max_position_embeddings": 512,
        "attention_bias": o.get("bias", False),
        "rms_norm_eps": o.get("epsilon", 1e-6),
        "linear_conv_kernel_dim": o.get("taps", 4),
        "linear_key_head_dim": key_size,
        "linear_value_head_dim": value_size,
        "linear_num_key_heads": key_heads,
        "linear_num_value_heads": value_heads,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": o["sections"],
            "mrope_interleaved": True,
            "partial_rotary_factor": o.get("partial", 0.25),
        },
        "tie_word_embeddings": o.get("tied", False),
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if "kinds" in o:
        keys["layer_types"] = [kinds[kind] for kind in o["kinds"]]
    return keys


def qwen3_5(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Qwen3.5 with images."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    o = {"tower": 3, "patch": 16, "merge": 2, "side": 5} | options
    text = qwen3_5_text_keys(o)
    vision = {
        "depth": o["tower"],
        "hidden_size": o.get("tower_width", 32),
        "intermediate_size": 28,
        "num_heads": 2,
        "out_hidden_size": text["hidden_size"],
        "patch_size": o["patch"],
        "spatial_merge_size": o["merge"],
        "num_position_embeddings": o["side"] ** 2,
    }
    config = Qwen3_5Config(
        text_config=text,
        vision_config=vision,
        image_token_id=QWEN_IMAGE,
        video_token_id=92,
        vision_start_token_id=93,
        vision_end_token_id=94,
        tie_word_embeddings=o.get("tied", False),
    )
    return save_random(Qwen3_5ForConditionalGeneration(config), directory, seed)


def qwen3_5_text(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Qwen3.5 of text alone."""
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

    config = Qwen3_5TextConfig(**qwen3_5_text_keys(options))
    return save_random(Qwen3_5ForCausalLM(config), directory, seed)


@contextmanager
def in_float64(model: Any) -> Iterator[Any]:
    """The same model in float64, also where transformers' code names float32 as the wider type."""
    import torch

    held = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        wide = type(model)(model.config)
        wide.load_state_dict(model.state_dict())
        yield wide.double().eval()
    finally:
        torch.float32, torch.float, torch.Tensor.float = held


def qwen_text_keys(o: dict[str, Any]) -> dict[str, Any]:
    """Keys of Qwen2Config and Qwen3Config."""
    keys = {
        "vocab_size": VOCAB,
        "hidden_size": o["width"],
        "intermediate_size": 40,
        "num_hidden_layers": o["layers"],
        "num_attention_heads": o["heads"],
        "num_key_value_heads": o["kv"],
        "max_position_embeddings": 512,
        "rms_norm_eps": o.get("epsilon", 1e-6),
        "rope_parameters": {
            "rope_theta": o.get("base", 10_000.0),
            **o.get("rope", {"rope_type": "default"}),
        },
        "use_sliding_window": "window" in o,
        "sliding_window": o.get("window"),
        "max_window_layers": o.get("from", 28),
        "tie_word_embeddings": o.get("tied", False),
    }
    if "local" in o:
        kinds = ("full_attention", "sliding_attention")
        keys["layer_types"] = [kinds[local] for local in o["local"]]
    return keys


def qwen2(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Qwen2."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return save_random(Qwen2ForCausalLM(Qwen2Config(**qwen_text_keys(options))), directory, seed)


def qwen3(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Qwen3."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    keys = {"head_dim": options["head"], "attention_bias": options.get("bias", False)}
    config = Qwen3Config(**qwen_text_keys(options), **keys)
    return save_random(Qwen3ForCausalLM(config), directory, seed)


def llama(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    o = options
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=o["width"],
        intermediate_size=40,
        num_hidden_layers=o["layers"],
        num_attention_heads=o["heads"],
        num_key_value_heads=o["kv"],
        head_dim=o.get("head"),
        max_position_embeddings=512,
        rms_norm_eps=o.get("epsilon", 1e-5),
        rope_parameters={
            "rope_theta": o.get("base", 10_000.0),
            **o.get("rope", {"rope_type": "default"}),
        },
        attention_bias=o.get("bias", False),
        tie_word_embeddings=o.get("tied", False),
    )
    return save_random(LlamaForCausalLM(config), directory, seed)


def mistral(directory: Path, options: dict[str, Any], seed: int = 0) -> Any:
    """A Mistral whose layers all see a window."""
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=VOCAB,
        hidden_size=options["width"],
        intermediate_size=40,
        num_hidden_layers=options["layers"],
        num_attention_heads=options["heads"],
        num_key_value_heads=options["kv"],
        sliding_window=options["window"],
        max_position_embeddings=512,
    )
    return save_random(MistralForCausalLM(config), directory, seed)


def picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A smooth random picture, so that resizing matters."""
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(fine) + noise, 0, 255).astype(np.uint8))


def lay_out(
    rng: np.random.Generator, placeholders: Sequence[Sequence[int]], image_token: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of random text with runs of placeholders in it, left-aligned, and their lengths."""
    rows = []
    for counts in placeholders:
        row = list(rng.integers(3, 80, rng.integers(1, 6)))
        for count in counts:
            row += [88, *[image_token] * count, *rng.integers(3, 80, rng.integers(1, 4))]
        rows.append(row + list(rng.integers(3, 80, rng.integers(1, 9))))
    lengths = np.array([len(row) for row in rows])
    tokens = np.zeros((len(rows), lengths.max() + 2), np.int64)
    for filled, row in zip(tokens, rows, strict=True):
        filled[: len(row)] = row
    return tokens, lengths


def logits(model: Any, tokens: np.ndarray, lengths: np.ndarray, **inputs: Any) -> np.ndarray:
    """What transformers computes, rows padded on the right."""
    import torch

    mask = np.arange(tokens.shape[1]) < lengths[:, None]
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(tokens),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            **{name: torch.tensor(np.asarray(value)) for name, value in inputs.items()},
        )
    return out.logits.float().numpy()


def greedy(model: Any, prompt: np.ndarray, slots: int) -> list[int]:
    """The prompt and what transformers' generation says to it, until the slots are full."""
    import torch

    size = {"min_length": slots, "max_length": slots}
    ids = torch.tensor(prompt[None].astype(np.int64))
    mask = torch.ones_like(ids)
    out = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=0, **size
    )
    return out[0].tolist()


def gemma_processor(side: int, **options: Any) -> Any:
    """transformers' image processor of Gemma 3, PIL backend."""
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    half = [0.5, 0.5, 0.5]
    size = {"height": side, "width": side}
    return Gemma3ImageProcessorPil(size=size, image_mean=half, image_std=half, **options)


def qwen_processor(**options: Any) -> Any:
    """transformers' image processor of Qwen's families, PIL backend."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(**options)
