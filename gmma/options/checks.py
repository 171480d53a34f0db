"""Checks of the values that a command line or a config brings."""

import math
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

from gmma.errors import UserError

SPLITS = ("train", "validation", "test")  # of every task


def require(holds: bool, field_name: str, value: object, rule: str) -> None:
    """Raise a `UserError` that names the field, its value and the rule."""
    if not holds:
        raise UserError(f"{field_name} = {value}; it must be {rule}")


LARGEST_INT = 2**31 - 1  # steps, sizes and counts are int32 on the devices
LARGEST_SEED = 2**32 - 1  # of a JAX key
LARGEST_FLOAT = 3.4028234e38  # float32's; beyond it a device has infinity


def check_values(held: Any, place: str = "") -> None:
    """Raise UserError for a value that no run could use, anywhere in a dataclass.

    Numbers are finite and fit the devices, seeds are no less than 0, paths are printable, texts can
    be written as UTF-8. What a field of its own must be, its own dataclass says.
    """
    if is_dataclass(held):
        for part in fields(held):
            check_values(getattr(held, part.name), f"{place}.{part.name}".lstrip("."))
    elif isinstance(held, tuple | list):
        for index, one in enumerate(held):
            check_values(one, f"{place}.{index}")
    elif isinstance(held, float):
        holds = math.isfinite(held) and abs(held) <= LARGEST_FLOAT
        require(holds, place, held, f"a finite number, up to {LARGEST_FLOAT:.2g}")
    elif isinstance(held, int) and place.rpartition(".")[2] == "seed":
        require(0 <= held <= LARGEST_SEED, place, held, f"within 0 … {LARGEST_SEED}")
    elif isinstance(held, int) and ".options." not in place:
        require(abs(held) <= LARGEST_INT, place, held, f"{LARGEST_INT} or less")
    elif isinstance(held, PurePath):
        require(str(held).isprintable(), place, repr(str(held)), "a path of printable characters")
    elif isinstance(held, str):
        whole = held.isascii() or held.encode("utf-8", "ignore").decode() == held
        require(
            whole and "\0" not in held,
            place,
            repr(held),
            "text that UTF-8 can write, without U+0000",
        )


def check_split(split: str) -> None:
    """Raise UserError for a split that no task has."""
    if split not in SPLITS:
        raise UserError(f"no split {split!r}; choose one of {', '.join(SPLITS)}")
