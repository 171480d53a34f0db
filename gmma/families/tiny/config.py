"""Options of the tiny family."""

from dataclasses import dataclass, field
from typing import Literal

from gmma.errors import UserError
from gmma.options.networks import Attention, Remat
from gmma.options.prompt import TinyTemplate
from gmma.options.resuming import ChangesNoNumber


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Sizes of the tiny family."""

    family: Literal["tiny"] = "tiny"  # which network this is
    layers: int = 4  # L
    width: int = 128  # D
    heads: int = 4  # query heads
    kv_heads: int = 2  # key and value heads, shared by heads/kv_heads query heads each
    head_size: int = 32  # width of a head, of queries, keys and values alike
    mlp: int = 384  # hidden width of the gated MLP
    rotary_base: float = 10_000.0  # the slowest rotation takes about so many positions a turn
    images: int = 1  # of a prompt at most; prompts with fewer may share its batch; 0: text alone
    image_pixels: int = 48  # side of the square image
    patch_pixels: int = 12  # side of a patch; an image is (image_pixels / patch_pixels)² tokens
    embedding_scale: float = 0.5  # standard deviation of token and place embeddings at the start
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"  # of activations
    # What is computed again in the backward pass (`stack_blocks`)
    remat: ChangesNoNumber[Remat] = "full"
    # Of packed trees: by levels, or by a TPU kernel (`layers.py`)
    attention: ChangesNoNumber[Attention] = "auto"
    template: TinyTemplate = field(default_factory=TinyTemplate)  # of its prompts
    # Steps of teaching the patch stem on labelled patches of the task before anything else, as a
    # ported backbone comes with a trained vision tower; 0: none
    stem_steps: int = 300

    def __post_init__(self) -> None:
        if self.stem_steps < 0:
            raise UserError(f"stem_steps = {self.stem_steps}; it must be 0 (none) or more")
        if self.images < 0:
            raise UserError(f"images = {self.images}; it must be 0 (text alone) or more")
        sizes = ("layers", "width", "heads", "kv_heads", "head_size", "mlp")
        for name in (*sizes, "image_pixels", "patch_pixels"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}; it must be 1 or more")
        for name in ("rotary_base", "embedding_scale"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} = {getattr(self, name)}; it must be above 0")
        if self.head_size % 2:
            raise UserError(
                f"head_size = {self.head_size}; it must be even: rotary positions turn pairs"
            )
        if self.heads % self.kv_heads:
            raise UserError(
                f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}; "
                "each key head serves a whole number of query heads"
            )
        if self.image_pixels % self.patch_pixels:
            raise UserError(
                f"image_pixels = {self.image_pixels} is not a multiple of "
                f"patch_pixels = {self.patch_pixels}"
            )

    @property
    def image_tokens(self) -> int:
        """Tokens of one image."""
        return (self.image_pixels // self.patch_pixels) ** 2
