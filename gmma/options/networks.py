"""Options that several networks have: types, what is computed again, kernels, adapters."""

import re
from dataclasses import dataclass
from typing import Literal

from gmma.errors import UserError

# Attention of packed trees: by levels, or by a TPU kernel; `auto` takes the kernel on TPUs.
# `splash_interpreted` is the kernel as plain operations, on any device, for tests.
Attention = Literal["auto", "dense", "splash", "splash_interpreted"]
Remat = Literal["none", "dots", "dots_except_up", "dots_except_mlp", "full"]
DType = Literal["float32", "bfloat16", "float64"]
# What a rollout reads: the trainer's own numbers; adapters merged into the weights they belong to,
# in the activations' type; or these rounded to 8 bits
RolloutWeights = Literal["exact", "merged", "int8"]


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A user's word on how large images are seen; None: as the processor's file has it."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    pan_and_scan: bool | None = None

    def __post_init__(self) -> None:
        for name in ("min_pixels", "max_pixels"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise UserError(f"model.{name} = {limit}; it must be 1 or more")


AS_FILED = Resolution()


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The linear layers that get adapters, and the adapters' size."""

    rank: int = 16
    # α: the adapter's share is α / rank, multiplied into `a` at the start (our choice), so that
    # exported adapters have α = rank.
    alpha: float = 16.0
    # Regular expressions that match a whole path, such as `blocks/query` or `vision/blocks/out`; in
    # a stack of two kinds of layers `blocks/full/query`, `blocks/delta/qkv`. The default leaves out
    # `rate` and `decay`: with an output a head they are hardly larger than their adapters.
    patterns: tuple[str, ...] = (
        r"blocks/(\w+/)?(query|key|value|qkv|out_gate|out)",
        r"blocks/(\w+/)?mlp/(gate|up|down)",
    )

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"lora.rank = {self.rank}; it must be 1 or more")
        if not self.alpha > 0:
            raise UserError(f"lora.alpha = {self.alpha}; it must be above 0")
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(
                    f"lora.patterns: {pattern!r} is no regular expression ({error})"
                ) from None
