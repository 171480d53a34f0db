"""Published capabilities of TPU chips, and the memory that the compiler leaves to a program.

Source: Google Cloud documentation, "TPU architecture", the pages of v4, v5e, v5p and v6e. Where a
page gives the interconnect in both directions, half of it is what a chip sends. Memory for programs
is what the compiler of libtpu 0.0.52 says is available when a program does not fit.
"""

from dataclasses import dataclass

from gmma.errors import UserError

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip."""

    name: str
    peak_flops: float  # bfloat16, a second
    hbm_gib: float  # published size
    program_gib: float  # of it, what a program can have
    hbm_bytes: float  # a second, between main memory and the chip
    ici_bytes: float  # a second, sent over all its links


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            peak_flops=275e12,
            hbm_gib=32,
            program_gib=30.5,
            hbm_bytes=1200e9,
            ici_bytes=300e9,
        ),
        Chip(
            name="v5e",
            peak_flops=197e12,
            hbm_gib=16,
            program_gib=15.75,
            hbm_bytes=819e9,
            ici_bytes=200e9,
        ),
        Chip(
            name="v5p",
            peak_flops=459e12,
            hbm_gib=95,
            program_gib=95.73,
            hbm_bytes=2765e9,
            ici_bytes=600e9,
        ),
        Chip(
            name="v6e",
            peak_flops=918e12,
            hbm_gib=32,
            program_gib=31.24,
            hbm_bytes=1640e9,
            ici_bytes=400e9,
        ),
    )
}


def chip_of(topology: str) -> Chip:
    """Return the chip of a topology such as `v5e:2x4`."""
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise UserError(
            f"topology {topology!r}: no chip {name!r}; write KIND:SHAPE with a kind of "
            f"{', '.join(CHIPS)}, such as v5e:2x4 or v5p:2x2x1"
        )
    return CHIPS[name]
