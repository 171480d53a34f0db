"""Our logits are transformers' on random models: text, one image, several, mixed rows, padding."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from gmma.families.qwen2_5_vl.tower import QwenImages
from gmma.models.lora import LoraConfig, add_adapters, merge_adapters
from gmma.porting import load_pretrained, reference_logits, save_adapters, save_pretrained
from gmma.porting.pretrained import Pretrained, image_example, plain_logits
from gmma.tree.layout import prompt_only
from gmma.types import TreeInputs
from tests.porting import theirs

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
QWEN_TIED = {**theirs.QWENS[0], "tied": True}
TOLERANCE = 1e-4  # absolute, float32; written once, never relaxed


@pytest.fixture(autouse=True)
def _quiet() -> None:
    theirs.quiet()


def require_close(
    ours: np.ndarray, reference: np.ndarray, lengths: np.ndarray, bound: float = TOLERANCE
) -> None:
    """Equal on every valid position, and not because all is zero."""
    valid = np.arange(ours.shape[1]) < lengths[:, None]
    assert np.abs(reference[valid]).max() > 0.5
    worst = np.abs(ours - reference)[valid].max()
    print(f"largest difference {worst:.1e} of {np.abs(reference[valid]).max():.1f}")
    assert worst <= bound


def greedy(pretrained: Pretrained, prompt: np.ndarray, slots: int) -> list[int]:
    """The prompt and what the model says to it, until the slots are full."""
    row = np.zeros((1, slots), np.int64)
    row[0, : len(prompt)] = prompt
    for length in range(len(prompt), slots):
        found = reference_logits(pretrained, row, lengths=np.array([length]))
        row[0, length] = found[0, length - 1].argmax()
    return row[0].tolist()


@pytest.mark.parametrize("options", theirs.GEMMA_TEXTS)
def test_gemma_text(options: dict, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = theirs.gemma_text(tmp_path, options)
    tokens, lengths = rng.integers(3, 80, (3, 17)), np.array([17, 9, 2])
    ours = reference_logits(load_pretrained(tmp_path), tokens, lengths=lengths)
    require_close(ours, theirs.logits(model, tokens, lengths), lengths)


@pytest.mark.parametrize("options", theirs.GEMMA_IMAGES)
def test_gemma_images(options: dict, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = theirs.gemma_images(tmp_path, options)
    sizes = [[(40, 60)], [], [(70, 30), (56, 56), (20, 90)]]
    rows = [[theirs.picture(rng, *size) for size in row] for row in sizes]
    counts = [[options["tokens"]] * len(row) for row in rows]
    tokens, lengths = theirs.lay_out(rng, counts, theirs.GEMMA_IMAGE)
    processor = theirs.gemma_processor(14 * options["patches"])
    pixels = np.concatenate([np.array(processor(row)["pixel_values"]) for row in rows if row])
    reference = theirs.logits(
        model,
        tokens,
        lengths,
        pixel_values=pixels,
        token_type_ids=(tokens == theirs.GEMMA_IMAGE).astype(int),
    )
    pretrained = load_pretrained(tmp_path)
    require_close(reference_logits(pretrained, tokens, rows, lengths), reference, lengths)


@pytest.mark.parametrize(
    ("write", "options"),
    [
        *((theirs.qwen, options) for options in theirs.QWENS),
        *((theirs.qwen3_vl, options) for options in theirs.QWEN3_VLS[:3]),
        *((theirs.qwen3_5, options) for options in theirs.QWEN3_5S[:2]),
        *(
            pytest.param(write, options, marks=pytest.mark.slow)
            for write, rest in (
                (theirs.qwen3_vl, theirs.QWEN3_VLS[3:]),
                (theirs.qwen3_5, theirs.QWEN3_5S[2:]),
            )
            for options in rest
        ),
    ],
)
def test_qwen(write, options: dict, tmp_path: Path) -> None:
    """One image, three that are wide and tall, and none; then text alone."""
    rng = np.random.default_rng(2)
    model = write(tmp_path, options)
    vision = model.config.vision_config
    processor = theirs.qwen_processor(
        patch_size=vision.patch_size, merge_size=vision.spatial_merge_size
    )
    processor.save_pretrained(tmp_path)
    sizes = [[(100, 160)], [(60, 60), (57, 200), (84, 130)], []]
    rows = [[theirs.picture(rng, *size) for size in row] for row in sizes]
    found = [[processor([image]) for image in row] for row in rows]
    grids = [[np.array(f["image_grid_thw"])[0] for f in row] for row in found]
    counts = [[int(g.prod()) // vision.spatial_merge_size**2 for g in row] for row in grids]
    tokens, lengths = theirs.lay_out(rng, counts, theirs.QWEN_IMAGE)
    reference = theirs.logits(
        model,
        tokens,
        lengths,
        pixel_values=np.concatenate([np.array(f["pixel_values"]) for row in found for f in row]),
        image_grid_thw=np.concatenate([np.stack(row) for row in grids if row]),
        mm_token_type_ids=(tokens == theirs.QWEN_IMAGE).astype(int),
    )
    pretrained = load_pretrained(tmp_path)
    require_close(reference_logits(pretrained, tokens, rows, lengths), reference, lengths)
    text = rng.integers(3, 80, (2, 9))
    lengths = np.array([9, 4])
    require_close(
        reference_logits(pretrained, text, lengths=lengths),
        theirs.logits(model, text, lengths),
        lengths,
    )


FEW_QWEN3_5S = [
    pytest.param(options, marks=[pytest.mark.slow] if number else [])
    for number, options in enumerate(theirs.QWEN3_5S)
]


@pytest.mark.parametrize("options", FEW_QWEN3_5S)
def test_qwen3_5_text(options: dict, tmp_path: Path) -> None:
    """Rows of two chunks and a half, and of one token more than a chunk, as transformers cuts."""
    rng = np.random.default_rng(8)
    model = theirs.qwen3_5_text(tmp_path, options)
    tokens, lengths = rng.integers(3, 80, (2, 161)), np.array([161, 65])
    ours = reference_logits(load_pretrained(tmp_path), tokens, lengths=lengths)
    require_close(ours, theirs.logits(model, tokens, lengths), lengths)


@pytest.mark.parametrize("options", FEW_QWEN3_5S)
def test_qwen3_5_text_in_float64(options: dict, tmp_path: Path) -> None:
    """The same rows with the published ε: 1e-9 where both compute everything in float64."""
    rng = np.random.default_rng(8)
    model = theirs.qwen3_5_text(tmp_path, options | {"epsilon": 1e-6})
    tokens, lengths = rng.integers(3, 80, (2, 161)), np.array([161, 65])
    with jax.enable_x64(True):
        ours = wide_logits(load_pretrained(tmp_path, "float64"), tokens, lengths)
    with theirs.in_float64(model) as wide:
        reference = theirs.logits(wide, tokens, lengths)
    assert ours.dtype == reference.dtype == np.float64
    require_close(ours, reference, lengths, 1e-9)


@pytest.mark.parametrize("options", FEW_QWEN3_5S)
def test_qwen3_5_in_float64(options: dict, tmp_path: Path) -> None:
    """An image, two, and none: 1e-9 where both compute everything in float64; the published ε."""
    rng = np.random.default_rng(9)
    model = theirs.qwen3_5(tmp_path, options | {"epsilon": 1e-6})
    vision = model.config.vision_config
    sides = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size}
    theirs.qwen_processor(**sides).save_pretrained(tmp_path)
    sizes = [[(100, 160)], [(57, 200), (84, 130)], []]
    rows = [[theirs.picture(rng, *size) for size in row] for row in sizes]
    with jax.enable_x64(True):
        pretrained = load_pretrained(tmp_path, "float64")
        arrays = pretrained.processor.to_arrays([image_example(row, 0) for row in rows])
        grids, pixels = their_images(arrays, sides["merge_size"], vision.temporal_patch_size)
        counts = [[int(grid.prod()) // sides["merge_size"] ** 2 for grid in row] for row in grids]
        tokens, lengths = theirs.lay_out(rng, counts, theirs.QWEN_IMAGE)
        ours = wide_logits(pretrained, tokens, lengths, arrays)
    with theirs.in_float64(model) as wide:
        reference = theirs.logits(
            wide,
            tokens,
            lengths,
            pixel_values=pixels,
            image_grid_thw=np.concatenate([np.stack(row) for row in grids if row]),
            mm_token_type_ids=(tokens == theirs.QWEN_IMAGE).astype(int),
        )
    assert ours.dtype == reference.dtype == np.float64
    require_close(ours, reference, lengths, 1e-9)


def wide_logits(
    pretrained: Pretrained,
    tokens: np.ndarray,
    lengths: np.ndarray,
    arrays: QwenImages | None = None,
) -> np.ndarray:
    """Logits in the type of the parameters, where `reference_logits` gives float32."""
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    inputs = TreeInputs(
        tokens=tokens.astype(np.int32),
        positions=positions,
        valid=positions < lengths[:, None],
        images=arrays,
        shape=prompt_only(tokens.shape[1]),
    )
    return np.asarray(plain_logits(pretrained.policy, pretrained.params, inputs))


def their_images(arrays: QwenImages, merge: int, frames: int) -> tuple[list, np.ndarray]:
    """Grids of a batch's images, a list a row, and their pixels as transformers lays them out."""
    grids, patches = [], []
    for image, place, pixels in zip(arrays.image, arrays.place, arrays.patches, strict=True):
        numbers = range(1, image.max() + 1)
        sides = [place[image == n].max(axis=0) + 1 for n in numbers]
        grids.append([np.array([1, *side]) for side in sides])
        still = pixels[image > 0].reshape((image > 0).sum(), 3, 1, pixels.shape[-1] // 3)
        patches.append(
            np.repeat(still, frames, axis=2).reshape(len(still), frames * pixels.shape[-1])
        )
    return grids, np.concatenate(patches)


@pytest.mark.parametrize("options", theirs.LLAMAS)
def test_llama(options: dict, tmp_path: Path) -> None:
    """Rows long enough that Llama 3's scaling bends slow frequencies."""
    rng = np.random.default_rng(6)
    model = theirs.llama(tmp_path, options)
    tokens, lengths = rng.integers(3, 80, (3, 41)), np.array([41, 19, 2])
    ours = reference_logits(load_pretrained(tmp_path), tokens, lengths=lengths)
    require_close(ours, theirs.logits(model, tokens, lengths), lengths)


@pytest.mark.parametrize(
    ("write", "options"),
    [*((theirs.qwen2, o) for o in theirs.QWEN2S), *((theirs.qwen3, o) for o in theirs.QWEN3S)],
)
def test_qwen_text(write, options: dict, tmp_path: Path) -> None:
    """Rows longer than the windows."""
    rng = np.random.default_rng(8)
    model = write(tmp_path, options)
    tokens, lengths = rng.integers(3, 80, (3, 19)), np.array([19, 8, 2])
    ours = reference_logits(load_pretrained(tmp_path), tokens, lengths=lengths)
    require_close(ours, theirs.logits(model, tokens, lengths), lengths)


@pytest.mark.parametrize("window", [3, None])
def test_mistral(window: int | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    options = {"layers": 2, "heads": 4, "kv": 2, "width": 32, "window": window}
    model = theirs.mistral(tmp_path, options)
    tokens, lengths = rng.integers(3, 80, (2, 17)), np.array([17, 6])
    ours = reference_logits(load_pretrained(tmp_path), tokens, lengths=lengths)
    require_close(ours, theirs.logits(model, tokens, lengths), lengths)


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (theirs.llama, theirs.LLAMAS[2]),
        (theirs.llama, theirs.LLAMAS[3]),
        (theirs.gemma_text, theirs.GEMMA_TEXTS[3]),
        (theirs.gemma_images, theirs.GEMMA_IMAGES[1]),
        (theirs.qwen, theirs.QWENS[1]),
        (theirs.qwen, theirs.QWENS[3]),
        (theirs.qwen2, theirs.QWEN2S[3]),
        (theirs.qwen3, theirs.QWEN3S[4]),
        (theirs.qwen3_vl, theirs.QWEN3_VLS[3]),
        (theirs.qwen3_5, theirs.QWEN3_5S[6]),
    ],
)
def test_export_loads(write, options: dict, tmp_path: Path) -> None:
    """import → export → transformers loads → the same logits; the files hold the same tensors."""
    from safetensors.numpy import load_file

    rng = np.random.default_rng(3)
    first, second = tmp_path / "first", tmp_path / "second"
    model = write(first, options)
    save_pretrained(second, load_pretrained(first))
    before, after = (load_file(d / "model.safetensors") for d in (first, second))
    assert {n: t.shape for n, t in before.items()} == {n: t.shape for n, t in after.items()}
    assert all(np.array_equal(before[n], after[n]) for n in before)
    again, info = type(model).from_pretrained(second, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens, lengths = rng.integers(3, 80, (2, 11)), np.array([11, 5])
    reference = theirs.logits(model, tokens, lengths)
    require_close(theirs.logits(again.eval(), tokens, lengths), reference, lengths)


@pytest.mark.parametrize(
    ("write", "options"), [(theirs.gemma_images, theirs.GEMMA_IMAGES[0]), (theirs.qwen, QWEN_TIED)]
)
def test_a_head_of_its_own_beside_a_tied_config(write, options: dict, tmp_path: Path) -> None:
    """The weight in the file counts, as in transformers; so it does after an export."""
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(5)
    first, second = tmp_path / "first", tmp_path / "second"
    model = write(first, options)
    tensors = load_file(first / "model.safetensors")
    shape = model.get_input_embeddings().weight.shape
    head = rng.normal(size=tuple(shape)).astype(np.float32)
    save_file({**tensors, "lm_head.weight": head}, first / "model.safetensors", {"format": "pt"})
    config = json.loads((first / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = config.pop("tie_word_embeddings")
    (first / "config.json").write_text(json.dumps(config))
    again = type(model).from_pretrained(first).eval()
    tokens, lengths = rng.integers(3, 80, (2, 11)), np.array([11, 5])
    reference = theirs.logits(again, tokens, lengths)
    assert np.abs(reference - theirs.logits(model, tokens, lengths)).max() > 0.1
    pretrained = load_pretrained(first)
    require_close(reference_logits(pretrained, tokens, lengths=lengths), reference, lengths)
    save_pretrained(second, pretrained)
    exported = type(model).from_pretrained(second).eval()
    require_close(theirs.logits(exported, tokens, lengths), reference, lengths)


@pytest.mark.parametrize(
    ("write", "options", "patterns"),
    [
        (theirs.gemma_text, theirs.GEMMA_TEXTS[1], ("blocks/(query|out)", "blocks/mlp/down")),
        (theirs.gemma_images, theirs.GEMMA_IMAGES[0], ("blocks/value", "vision/blocks/query")),
        (theirs.qwen, theirs.QWENS[1], ("blocks/key", "vision/blocks/qkv", "vision/merger_in")),
        (theirs.qwen2, theirs.QWEN2S[1], ("blocks/(query|key|value)",)),
        (theirs.qwen3, theirs.QWEN3S[1], ("blocks/(query|out)", "blocks/mlp/up")),
        (
            theirs.qwen3_vl,
            theirs.QWEN3_VLS[1],
            ("blocks/key", "vision/blocks/mlp_in", "vision/(deep_mergers|merger)/in"),
        ),
        (
            theirs.qwen3_5,
            theirs.QWEN3_5S[1],
            ("blocks/delta/(qkv|out_gate|rate|out)", "blocks/full/(query|out)", "vision/merger/in"),
        ),
    ],
)
def test_adapters_load_in_peft(write, options: dict, patterns: tuple, tmp_path: Path) -> None:
    """LoRA export → peft loads → the same logits; so does the merged export in transformers."""
    import peft

    rng = np.random.default_rng(4)
    base, adapters, merged = (tmp_path / name for name in ("base", "adapters", "merged"))
    model = write(base, options)
    pretrained = load_pretrained(base)
    config = LoraConfig(rank=3, alpha=6.0, patterns=patterns)
    params = add_adapters(pretrained.params, config, jax.random.key(0))
    noise = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype) / 3, params["lora"])
    adapted = replace(pretrained, params={**params, "lora": noise})
    tokens, lengths = rng.integers(3, 80, (2, 11)), np.array([11, 5])
    ours = reference_logits(adapted, tokens, lengths=lengths)
    assert np.abs(ours - theirs.logits(model, tokens, lengths)).max() > 0.1
    save_adapters(adapters, adapted)
    save_pretrained(merged, replace(adapted, params=merge_adapters(adapted.params)))
    again = type(model).from_pretrained(merged).eval()
    require_close(ours, theirs.logits(again, tokens, lengths), lengths)
    wrapped = peft.PeftModel.from_pretrained(model, adapters).eval()
    require_close(ours, theirs.logits(wrapped, tokens, lengths), lengths)
    said = greedy(adapted, tokens[0, :4], 34)
    for exported in (again, wrapped):
        assert theirs.greedy(exported, tokens[0, :4], 34) == said
