"""Image processors equal transformers', on photographs and on random sizes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmma.errors import UserError
from gmma.families.gemma3.images import (
    GemmaImageConfig,
    PanAndScan,
    crops,
    gemma_arrays,
    gemma_pixels,
)
from gmma.families.qwen2_5_vl.images import (
    QwenImageConfig,
    cell_patches,
    cells_of,
    qwen_arrays,
    smart_size,
)
from gmma.families.qwen2_5_vl.tower import QwenVisionConfig
from gmma.families.qwen3_vl.images import MAX_PIXELS, MIN_PIXELS
from gmma.families.qwen3_vl.tower import Qwen3VisionConfig, grid_sizes, stretched_places
from gmma.huggingface.processors import BICUBIC, BILINEAR, CLIP_MEAN, CLIP_STD, HALF
from gmma.images.common import PixelConfig
from gmma.types import Example
from tests.porting import theirs

PHOTOS = sorted((Path(os.environ["GMMA_REAL_DATA"]) / "photos").glob("*.jpg"))
SIZES = [(30, 50), (224, 100), (57, 401), (333, 333), (20, 900)]
TOLERANCE = 1e-5
TOWER = QwenVisionConfig(layers=1, width=8, heads=1, mlp=8, full_layers=(False,))
QWEN = QwenImageConfig(
    pixels=PixelConfig(mean=CLIP_MEAN, std=CLIP_STD, resample=BICUBIC), vision=TOWER
)
QWEN3 = QwenImageConfig(
    pixels=PixelConfig(mean=HALF, std=HALF, resample=BICUBIC),
    vision=Qwen3VisionConfig(layers=1, width=8, heads=1, mlp=8, patch_pixels=16, deep_layers=()),
    min_pixels=MIN_PIXELS,
    max_pixels=MAX_PIXELS,
)
GEMMA = GemmaImageConfig(pixels=PixelConfig(mean=HALF, std=HALF, resample=BILINEAR), side=224)


def images() -> list[Image.Image]:
    """The four photographs, sizes that are hard, sizes at random."""
    if len(PHOTOS) != 4:
        pytest.skip(f"the photographs are not in {os.environ['GMMA_REAL_DATA']}/photos")
    rng = np.random.default_rng(0)
    photos = [Image.open(path).convert("RGB") for path in PHOTOS]
    drawn = [tuple(map(int, rng.integers(20, 700, 2))) for _ in range(8)]
    return photos + [theirs.picture(rng, *size) for size in (*SIZES, *drawn)]


def example(*pictures: Image.Image, name: str = "r7") -> Example:
    pixels = tuple(np.asarray(p) for p in pictures)
    return Example(question="", images=pixels, columns={}, id=name)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_gemma_pixels_equal_transformers() -> None:
    theirs.quiet()
    processor = theirs.gemma_processor(224)
    for image in images():
        expected = np.array(processor(image)["pixel_values"])[0]
        assert np.abs(gemma_pixels(np.asarray(image), GEMMA) - expected).max() <= TOLERANCE


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_pan_and_scan_equals_transformers() -> None:
    theirs.quiet()
    options = {
        "pan_and_scan_min_crop_size": 64,
        "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    }
    processor = theirs.gemma_processor(56, do_pan_and_scan=True, **options)
    config = PanAndScan(min_crop_pixels=64, max_crops=4, min_ratio=1.2)
    ours = GemmaImageConfig(pixels=GEMMA.pixels, side=56, pan_and_scan=config)
    for image in images():
        expected = np.array(processor(image)["pixel_values"])
        found = gemma_arrays([example(image)], ours)
        assert found is not None
        assert np.abs(found[0, : len(expected)] - expected).max() <= TOLERANCE
        assert not found[0, len(expected) :].any()


def as_theirs(
    cells: np.ndarray, vision: QwenVisionConfig
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Our cells in the layout of `pixel_values`, a still image being equal frames; the grid."""
    rows, columns, per_cell, _ = cells.shape
    still = cells.reshape(rows * columns * per_cell, vision.channels, 1, -1)
    frames = np.repeat(still, vision.frames, axis=2)
    return frames.reshape(len(still), -1), (1, rows * vision.merge, columns * vision.merge)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", [QWEN, QWEN3], ids=["qwen2_5_vl", "qwen3_vl"])
def test_qwen_patches_equal_transformers(config: QwenImageConfig) -> None:
    theirs.quiet()
    vision, pixels = config.vision, config.pixels
    processor = theirs.qwen_processor(
        patch_size=vision.patch_pixels,
        size={"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels},
        image_mean=list(pixels.mean),
        image_std=list(pixels.std),
    )
    for image in images():
        expected = processor(image)
        patches, grid = as_theirs(cell_patches(np.asarray(image), config), vision)
        assert grid == tuple(np.array(expected["image_grid_thw"])[0])
        assert np.abs(patches - np.array(expected["pixel_values"])).max() <= TOLERANCE


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [1, 2, 5, 48])
def test_stretched_places_equal_transformers(side: int) -> None:
    """Of two images in a row, tall and wide; the second row's is larger, or lies along an edge."""
    import torch
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    rng = np.random.default_rng(0)
    table = rng.normal(size=(side**2, 3)).astype(np.float32)
    rows = [[(200, 70), (64, 300)], [(500, 400), (32, 90)]]
    config = replace(QWEN3, min_pixels=32 * 32)
    batch = [example(*(theirs.picture(rng, *size) for size in row)) for row in rows]
    found = qwen_arrays(batch, config)
    assert found is not None
    place, image = found.place.reshape(2, -1, 2), found.image.reshape(2, -1)
    ours = stretched_places(table, place, grid_sizes(place, image, found.image.shape[1]))
    for row, own in enumerate(batch):
        grids = [(1, *(2 * n for n in cells_of(pixels, config))) for pixels in own.images]
        indices, weights = get_vision_interpolation_indices_and_weights(
            torch.tensor(grids), side, align_corners=True, spatial_merge_size=2
        )
        expected = (table[indices.numpy()] * weights.numpy()[..., None]).sum(axis=1)
        assert len(expected) == (image[row] > 0).sum()
        assert np.abs(np.asarray(ours)[row, : len(expected)] - expected).max() <= TOLERANCE


def test_smart_size_by_hand() -> None:
    """The first is transformers' own test; then the budget binds above, and below."""
    assert smart_size(561, 278, 28, 3136, 1003520) == (560, 280)
    assert smart_size(1024, 1024, 28, 3136, 1003520) == (980, 980)  # ⌊1024/√(1024²/1003520)/28⌋·28
    assert smart_size(28, 28, 28, 3136, 1003520) == (56, 56)
    with pytest.raises(UserError, match="201 × 1 pixels"):
        smart_size(1, 201, 28, 3136, 1003520)


def test_figures_that_transformers_tests_itself_with() -> None:
    path = Path(os.environ["GMMA_REAL_DATA"]) / "hf_goldens" / "goldens.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    resize, shapes = json.loads(path.read_text())["items"]
    given = resize["input"]
    found = smart_size(given["height"], given["width"], given["factor"], 3136, 1003520)
    assert list(found) == resize["output"]
    limits = {name: shapes["config"][name] for name in ("min_pixels", "max_pixels")}
    cells = cell_patches(np.zeros((1024, 1024, 3), np.uint8), replace(QWEN, **limits))
    patches, grid = as_theirs(cells, TOWER)
    assert list(patches.shape) == shapes["pixel_values_shape"]
    assert [list(grid)] == shapes["image_grid_thw"]
    assert [7 * len(patches), patches.shape[1]] == shapes["batch_of_7"]["pixel_values_shape"]


def test_crops_of_a_wide_image() -> None:
    """1000 × 400: ratio 2.5 rounds half up to 3 crops of ⌈1000/3⌉ = 334 pixels."""
    image = np.zeros((400, 1000, 3), np.uint8)
    found = crops(image, PanAndScan())
    assert [c.shape[:2] for c in found] == [(400, 334), (400, 334), (400, 332)]
    assert crops(image[:, :450], PanAndScan()) == []


def test_windows_hold_every_patch_once() -> None:
    """56 × 140 pixels are 2 × 5 cells: two windows, the second with one column of cells."""
    rng = np.random.default_rng(0)
    image = theirs.picture(rng, 140, 56)
    found = qwen_arrays([example(image), example()], QWEN)
    assert found is not None
    assert found.image.shape == (2, 2, 64)
    assert found.image.sum(axis=2).tolist() == [[32, 8], [0, 0]]
    cells = found.patches[0].reshape(-1, 4, 588)[found.feature[0, :10]]
    assert np.array_equal(cells, cell_patches(np.asarray(image), QWEN).reshape(10, 4, 588))
    assert found.shift.tolist() == [5 - 10, 0]
    assert found.offset[0, 9].tolist() == [0, 1, 4]


def test_image_that_fits_no_bucket_is_named() -> None:
    rng = np.random.default_rng(0)
    many = example(*(theirs.picture(rng, 60, 60) for _ in range(3)))
    with pytest.raises(UserError, match="record r7 has 3 images, and the largest bucket holds 2"):
        gemma_arrays([many], GEMMA, (1, 2))
    with pytest.raises(UserError, match="record r7 has 3 image windows"):
        qwen_arrays([many], QWEN, (1, 2))
    with pytest.raises(UserError, match="record r7 has 192 image cells"):  # 3 · 256²/32²
        qwen_arrays([many], QWEN3, (64, 128))


def test_buckets_are_the_only_shapes() -> None:
    rng = np.random.default_rng(0)
    for count in range(1, 6):
        batch = [example(*(theirs.picture(rng, 20, 20) for _ in range(count))), example()]
        found = gemma_arrays(batch, GEMMA, (2, 6))
        assert found is not None
        assert found.shape[1] == (2 if count <= 2 else 6)
    padded = gemma_arrays([example()], GEMMA, (2, 6))
    assert padded is not None
    assert padded.shape[1] == 2
    assert gemma_arrays([example()], GEMMA, (0, 2)) is None
