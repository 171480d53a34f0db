"""Makes the golden directories: tiny random models and the logits that transformers gives them.

    python -m tests.porting.make_golden [NAME…]     needs torch, transformers; see CONTRIBUTING.md

Kept in the repository so that porting is tested where torch is not installed.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.porting import theirs

GOLDEN = Path(__file__).parent / "golden"
GEMMA = {
    **{"layers": 3, "heads": 4, "kv": 2, "head": 6, "width": 20, "window": 3, "pattern": 2},
    **{"tokens": 4, "patches": 4, "patch": 6, "tower": 1, "factor": 4.0},
}
QWEN = {
    **{"layers": 2, "heads": 2, "kv": 1, "width": 16, "sections": [1, 1, 2], "full": [1]},
    **{"tower": 2, "tower_width": 16, "patch": 4, "merge": 2},
}
QWEN3_VL = {
    **{"layers": 3, "heads": 2, "kv": 1, "head": 8, "width": 16, "sections": [2, 1, 1]},
    **{"deep": [0, 2], "side": 3, "tower": 3, "tower_width": 16, "patch": 4, "merge": 2},
}
QWEN3_5 = {
    **{"layers": 4, "heads": 2, "kv": 1, "head": 16, "width": 16, "sections": [1, 1, 0]},
    **{"linear": (2, 4, 6, 5), "side": 3, "tower": 2, "tower_width": 16, "patch": 4, "merge": 2},
    **theirs.SMOOTH,
}
SIZES = ([(30, 20)], [], [(24, 24), (17, 40)])


def pictures(rng: np.random.Generator) -> list[list[Any]]:
    """Rows with one image, none and two."""
    return [[theirs.picture(rng, *size) for size in row] for row in SIZES]


def keep(directory: Path, rows: list, tokens: Any, lengths: Any, logits: Any) -> None:
    """Inputs and logits beside the model."""
    images = {
        f"image_{r}_{i}": np.asarray(image)
        for r, row in enumerate(rows)
        for i, image in enumerate(row)
    }
    np.savez_compressed(
        directory / "logits.npz", tokens=tokens, lengths=lengths, logits=logits, **images
    )


def make_gemma(directory: Path) -> None:
    """A Gemma 3 model with images."""
    rng = np.random.default_rng(0)
    model = theirs.gemma_images(directory, GEMMA)
    processor = theirs.gemma_processor(GEMMA["patch"] * GEMMA["patches"])
    processor.save_pretrained(directory)
    rows = pictures(rng)
    counts = [[GEMMA["tokens"]] * len(row) for row in rows]
    tokens, lengths = theirs.lay_out(rng, counts, theirs.GEMMA_IMAGE)
    pixels = np.concatenate([np.array(processor(row)["pixel_values"]) for row in rows if row])
    kinds = (tokens == theirs.GEMMA_IMAGE).astype(int)
    found = theirs.logits(model, tokens, lengths, pixel_values=pixels, token_type_ids=kinds)
    keep(directory, rows, tokens, lengths, found)


def make_qwen(directory: Path) -> None:
    """A Qwen2.5-VL model."""
    make_of_cells(directory, theirs.qwen, QWEN)


def make_qwen3_vl(directory: Path) -> None:
    """A Qwen3-VL model."""
    half = [0.5, 0.5, 0.5]
    make_of_cells(directory, theirs.qwen3_vl, QWEN3_VL, image_mean=half, image_std=half)


def make_qwen3_5(directory: Path) -> None:
    """A Qwen3.5 model."""
    half = [0.5, 0.5, 0.5]
    make_of_cells(directory, theirs.qwen3_5, QWEN3_5, image_mean=half, image_std=half)


def make_of_cells(directory: Path, write: Any, options: dict[str, Any], **pixels: Any) -> None:
    """A model that sees images of any size."""
    rng = np.random.default_rng(1)
    model = write(directory, options)
    processor = theirs.qwen_processor(
        patch_size=options["patch"],
        merge_size=options["merge"],
        min_pixels=64,
        max_pixels=4096,
        **pixels,
    )
    processor.save_pretrained(directory)
    rows = pictures(rng)
    found = [[processor([image]) for image in row] for row in rows]
    grids = [[np.array(f["image_grid_thw"])[0] for f in row] for row in found]
    counts = [[int(g.prod()) // options["merge"] ** 2 for g in row] for row in grids]
    tokens, lengths = theirs.lay_out(rng, counts, theirs.QWEN_IMAGE)
    logits = theirs.logits(
        model,
        tokens,
        lengths,
        pixel_values=np.concatenate([np.array(f["pixel_values"]) for row in found for f in row]),
        image_grid_thw=np.concatenate([np.stack(row) for row in grids if row]),
        mm_token_type_ids=(tokens == theirs.QWEN_IMAGE).astype(int),
    )
    keep(directory, rows, tokens, lengths, logits)


if __name__ == "__main__":
    theirs.quiet()
    makers = {
        "gemma3": make_gemma,
        "qwen2_5_vl": make_qwen,
        "qwen3_vl": make_qwen3_vl,
        "qwen3_5": make_qwen3_5,
    }
    for name in sys.argv[1:] or makers:
        (GOLDEN / name).mkdir(parents=True, exist_ok=True)
        makers[name](GOLDEN / name)
