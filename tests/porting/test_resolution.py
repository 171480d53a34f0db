"""A user's resolution reaches the processor, is checked, and is written into an export."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.images.processor import ImageProcessor
from gmma.options.networks import AS_FILED, Resolution
from gmma.porting.image_tokens import image_tokens
from gmma.porting.pretrained import (
    copy_companions,
    describe_pretrained,
    image_processor,
    source_of,
    write_config,
)
from gmma.run.backbone import check_resolution
from gmma.run.data import batch_prompts, smaller_images
from gmma.text.tokenizer import Tokenizer
from gmma.types import Example
from tests.porting import theirs
from tests.porting.test_golden import GOLDEN

QWENS = ("qwen2_5_vl", "qwen3_vl")  # patches of 4 pixels, cells of 8; 64 … 4096 pixels


def processor_at(family: str, wanted: Resolution) -> ImageProcessor:
    found = image_processor(describe_pretrained(GOLDEN / family), None, wanted)
    assert found is not None
    return found


def pixels(width: int, height: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize("family", QWENS)
def test_limits_bound_the_tokens(family: str) -> None:
    """80 × 40: 10 × 5 cells; then √(3200/1024) smaller, 5 × 2; 8 × 8 grows to 16 × 16."""
    for wanted, large, small in (
        (AS_FILED, 50, 1),
        (Resolution(max_pixels=1024), 10, 1),
        (Resolution(min_pixels=256), 50, 4),
    ):
        found = processor_at(family, wanted)
        assert found.view_tokens(pixels(80, 40)) == (large,)
        assert found.view_tokens(pixels(8, 8)) == (small,)
    assert image_tokens(GOLDEN / family, (None, 1024), ((80, 40), (8, 8))) == [[50, 1], [10, 1]]


@pytest.mark.parametrize(("width", "height"), [(800, 8), (12, 1500), (640, 64), (300, 200)])
@pytest.mark.parametrize("family", QWENS)
def test_what_is_advised_makes_an_image_fit(family: str, width: int, height: int) -> None:
    """A strip is one token wide, however small: 800 × 8 at 4096 pixels is 80 × 1 tokens, not 64."""
    image = pixels(width, height)
    found, room = processor_at(family, AS_FILED), 30
    assert sum(found.view_tokens(image)) > room
    example = Example(question="?", images=(image,), columns={}, id="0")
    advice = smaller_images(
        example, [found.view_tokens(image)], 100, 100 - sum(found.view_tokens(image)) + room, found
    )
    (most,) = re.findall(r"model.max_pixels to at most (\d+)$", advice)
    least = (
        Resolution(min_pixels=int(most), max_pixels=int(most))
        if "min" in advice
        else Resolution(max_pixels=int(most))
    )
    assert sum(processor_at(family, least).view_tokens(image)) <= room


def test_pan_and_scan_is_more_views() -> None:
    for asked, views in ((None, 1), (False, 1), (True, 1 + 2)):
        found = processor_at("gemma3", Resolution(pan_and_scan=asked))
        assert found.view_tokens(pixels(600, 300)) == (4,) * views


WRONG = (
    ("gemma3", {"max_pixels": 9}, "model.max_pixels = 9: this model does not have it"),
    ("qwen3_vl", {"pan_and_scan": True}, "model.pan_and_scan = True: this model does not"),
    ("qwen2_5_vl", {"min_pixels": 5000}, "5000 pixels at least and 4096 at most"),
    ("qwen3_vl", {"min_pixels": 1, "max_pixels": 60}, "than a cell's 64: set model.min_pixels"),
    ("qwen3_vl", {"max_pixels": 0}, "model.max_pixels = 0; it must be 1 or more"),
)


@pytest.mark.parametrize(("family", "wanted", "message"), WRONG)
def test_what_no_processor_can_do_is_refused(family: str, wanted: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        processor_at(family, Resolution(**wanted))


def test_a_limit_that_fills_the_prompt_is_refused() -> None:
    wanted = PretrainedConfig(directory=GOLDEN / "qwen3_vl", max_pixels=2048).resolution
    found = processor_at("qwen3_vl", wanted)  # 2048 / 8² = 32 tokens
    check_resolution(wanted, found, 33)
    check_resolution(AS_FILED, processor_at("qwen3_vl", AS_FILED), 33)  # the records are asked
    rule = "an image may have 32 tokens, but there are 32 prompt slots; set model.max_pixels to "
    with pytest.raises(UserError, match=f"{rule}at most 1984, or tree.prompt_tokens above 32"):
        check_resolution(wanted, found, 32)


def test_a_prompt_that_does_not_fit_says_what_to_set() -> None:
    """60 tokens of text and twice 50 of images: 30 slots an image are left of 120."""
    words = Tokenizer(
        encode=lambda text: [1] * 60 * ("?" in text),
        decode=lambda ids: "",
        token_bytes=(b"",) * 3,
        vocab_size=3,
        pad=0,
        bos=None,
        stop_tokens=(),
        image_token=2,
    )
    row = Example(question="?", images=(pixels(80, 40),) * 2, columns={}, id="r7")
    expected = (
        r"record r7 has 160 tokens \(100 of images: 50 of 80 × 40 pixels, 50 of 80 × 40 pixels\), "
        "but there are 120 prompt slots; set tree.prompt_tokens to at least 160, or "
        "model.max_pixels to at most 1920"
    )
    for family in QWENS:
        processor = processor_at(family, AS_FILED)
        with pytest.raises(UserError, match=expected):
            batch_prompts([row], words, prompt_slots=120, processor=processor)
    smaller = processor_at("qwen3_vl", Resolution(max_pixels=1920))
    assert sum(smaller.view_tokens(row.images[0])) <= 30


def export(base: Path, out: Path, wanted: Resolution) -> None:
    """All of an export but the weights."""
    out.mkdir(exist_ok=True)
    described = describe_pretrained(base)
    write_config(out, described.config)
    copy_companions(replace(source_of(described, {}), resolution=wanted), out)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(
    ("family", "wanted"),
    [
        ("qwen2_5_vl", Resolution(min_pixels=256, max_pixels=1024)),
        ("qwen3_vl", Resolution(max_pixels=1024)),
        ("gemma3", Resolution(pan_and_scan=True)),
    ],
)
def test_an_export_says_it(family: str, wanted: Resolution, joint: bool, tmp_path: Path) -> None:
    """In the file that the directory has; and read again it is the same processor."""
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(GOLDEN / family, base)
    if joint:
        values = json.loads((base / "preprocessor_config.json").read_text())
        (base / "preprocessor_config.json").unlink()
        (base / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    export(base, out, wanted)
    assert (out / "processor_config.json").is_file() == joint
    assert (out / "preprocessor_config.json").is_file() != joint
    again = image_processor(describe_pretrained(out), None)
    asked = image_processor(describe_pretrained(base), None, wanted)
    assert again is not None
    assert asked is not None
    for size in ((80, 40), (8, 8), (600, 300)):
        assert again.view_tokens(pixels(*size)) == asked.view_tokens(pixels(*size))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_the_export(tmp_path: Path) -> None:
    theirs.quiet()
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    export(GOLDEN / "qwen3_vl", tmp_path, Resolution(min_pixels=256, max_pixels=1024))
    reference = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    for size, grid in (((80, 40), [1, 4, 10]), ((8, 8), [1, 4, 4])):
        assert np.array(reference(theirs.picture(rng, *size))["image_grid_thw"]).tolist() == [grid]
