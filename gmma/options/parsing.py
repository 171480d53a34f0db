"""One convention of options for all commands.

Options are tyro's, made of dataclasses: `--tree.answers 8`. One that is true or false may stand
bare (`--resume` is `--resume True`). One of several values takes them one after another.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from gmma.errors import UserError
from gmma.options.arguments import OWN_OPTIONS
from gmma.options.checks import check_values

T = TypeVar("T")
MARKERS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)
CONVENTION = ConstructorRegistry()
TRUTHS = {"True": True, "False": False}


@CONVENTION.primitive_rule
def bare_or_with_a_value(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[bool] | None:
    """Take an option that is true or false with its value, or bare for True."""
    if info.type is not bool:
        return None

    def read(words: list[str]) -> bool:
        if words and words[0] not in TRUTHS:
            raise ValueError(f"{words[0]!r} is neither True nor False")
        return TRUTHS[words[0]] if words else True

    return PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[{True,False}]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


@CONVENTION.primitive_rule
def one_word(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[object] | None:
    """Take one word for what may be a text or a truth: a truth of a list is never bare.

    A word that Python reads as a truth, an integer or a finite number is one where that may stand.
    """
    union = get_origin(info.type) in (Union, UnionType)
    if not union or not {str, bool} <= set(get_args(info.type)):
        return None
    numbers = [kind for kind in (int, float) if kind in get_args(info.type)]

    def read(words: list[str]) -> object:
        if words[0] in TRUTHS:
            return TRUTHS[words[0]]
        for kind in numbers:
            with suppress(ValueError):
                number = kind(words[0])
                return number if math.isfinite(number) else words[0]
        return words[0]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="VALUE",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, get_args(info.type)),
        str_from_instance=lambda value: [str(value)],
    )


def parse(kind: Callable[..., T], arguments: Sequence[str], *, prog: str, default: Any = None) -> T:
    """Parse arguments into a dataclass, with help from field comments; exit code 2 on a mistake."""
    extra = {} if default is None else {"default": default}
    with CONVENTION:
        given: T = tyro.cli(kind, args=list(arguments), prog=prog, config=MARKERS, **extra)
    check_values(getattr(given, "own", given))  # an experiment beside its own has checked itself
    return given


def split_experiment(arguments: Sequence[str], command: str) -> tuple[Path, list[str]]:
    """Split off the experiment file, which comes first; help of the command alone needs no file."""
    usage = f"gmma {command} experiments/NAME.py [--parameter value …] [--field value …]"
    if arguments and arguments[0] in ("-h", "--help"):
        print("--help after the file lists the experiment's parameters and fields, too")
        parse(OWN_OPTIONS[command], ["--help"], prog=usage)
    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"which experiment? {usage}; --help after the file lists every option")
    return Path(arguments[0]), list(arguments[1:])
