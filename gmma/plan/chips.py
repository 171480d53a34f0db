"""Published capabilities of TPU chips, and the memory that the compiler leaves to a program.

Source: Google Cloud documentation, "TPU architecture", the pages of v4, v5e, v5p and v6e. Where a
page gives the interconnect in both directions, half of it is what a chip sends. To another slice a
chip sends its 256th of the data center network's bandwidth per pod. Memory for programs is what the
compiler of libtpu 0.0.52 says is available when a program does not fit.
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
    dcn_bytes: float | None = None  # a second, sent to other slices; None: not published


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
            dcn_bytes=6.4e12 / 8 / 256,
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
            dcn_bytes=25.6e12 / 8 / 256,
        ),
    )
}


def chip_of(topology: str) -> Chip:
    """Return the chip of a topology such as `v5e:2x4`, or `2*v5e:2x4` of several slices."""
    slices, shape = slices_of(topology)
    name = shape.partition(":")[0]
    if name not in CHIPS:
        raise UserError(
            f"topology {topology!r}: no chip {name!r}; write KIND:SHAPE with a kind of "
            f"{', '.join(CHIPS)}, such as v5e:2x4 or v5p:2x2x1"
        )
    if slices > 1 and CHIPS[name].dcn_bytes is None:
        known = ", ".join(chip.name for chip in CHIPS.values() if chip.dcn_bytes)
        raise UserError(
            f"topology {topology!r}: how fast slices of {name} are joined is not published; "
            f"plan one slice, or several of {known}"
        )
    return CHIPS[name]


def slices_of(topology: str) -> tuple[int, str]:
    """Return the number of slices, and what each is.

    >>> slices_of("2*v5e:4x4"), slices_of("v5e:2x4")
    ((2, 'v5e:4x4'), (1, 'v5e:2x4'))
    """
    count, times, shape = topology.rpartition("*")
    if not times:
        return 1, topology
    if not count.isdecimal() or int(count) < 1:
        raise UserError(
            f"topology {topology!r}: {count!r} is no number of slices; write COUNT*KIND:SHAPE, "
            "such as 2*v5e:4x4"
        )
    return int(count), shape
