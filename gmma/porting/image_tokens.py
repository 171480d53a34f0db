"""Tokens of images by their size and by `model.max_pixels`: the tables of `docs/tasks.md`.

python -c 'from gmma.porting.image_tokens import show; show("gmma/presets/Qwen3-VL-4B-Instruct")'
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gmma.options.networks import AS_FILED, Resolution
from gmma.porting.pretrained import describe_pretrained, image_processor

LIMITS = (None, 1024 * 1024, 768 * 768, 512 * 512, 320 * 320)  # max_pixels; None: the file's
SIZES = ((320, 240), (640, 480), (1280, 720), (1920, 1080), (3840, 2160))  # width, height


def image_tokens(
    directory: str | Path,
    limits: Sequence[int | None] = LIMITS,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> list[list[int]]:
    """Count the tokens of an image of each size under each `max_pixels`, of a model's directory.

    A limit below the file's `min_pixels` brings that down too.
    """
    described = describe_pretrained(directory)
    rows = []
    for limit in limits:
        wanted = AS_FILED if limit is None else Resolution(min_pixels=1, max_pixels=limit)
        processor = image_processor(described, None, wanted)
        assert processor is not None
        images = (np.zeros((height, width, 3), np.uint8) for width, height in sizes)
        rows.append([sum(processor.view_tokens(image)) for image in images])
    return rows


def show(directory: str | Path) -> None:
    """Print the table of a model's directory."""
    cells = [[f"{limit:,}" if limit else "as filed" for limit in LIMITS]]
    cells += [[f"{n:,}" for n in column] for column in zip(*image_tokens(directory), strict=True)]
    print("| `max_pixels` |", " | ".join(f"{w} × {h}" for w, h in SIZES), "|")
    print("|---" * len(cells) + "|")
    for row in zip(*cells, strict=True):
        print("|", " | ".join(row), "|")
