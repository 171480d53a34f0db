"""Command lines that begin with an experiment file: read before JAX is imported for any work."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from gmma.config import ExperimentConfig, options_to_json
from gmma.errors import CODE_USER_ERROR
from gmma.options.arguments import FetchOptions, PlanOptions, TrainOptions
from gmma.options.foreign import meant_lines
from gmma.options.parsing import parse, split_experiment
from gmma.run.experiments import line_of, load_maker, make_config, take_parameters

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """The options of `gmma train`, and the experiment."""

    own: Annotated[TrainOptions, tyro.conf.arg(name="")] = field(default_factory=TrainOptions)
    base: Annotated[ExperimentConfig, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    """The options of `gmma plan`, and the experiment."""

    own: Annotated[PlanOptions, tyro.conf.arg(name="")] = field(default_factory=PlanOptions)
    base: Annotated[ExperimentConfig, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class FetchArguments:
    """The options of `gmma fetch`, and the experiment."""

    own: Annotated[FetchOptions, tyro.conf.arg(name="")] = field(default_factory=FetchOptions)
    base: Annotated[ExperimentConfig, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class Line(Generic[T]):
    """A line that has been read: its experiment file, and what it says of that."""

    path: Path
    parameters: Mapping[str, Any]  # of `experiment()`, those that are not its defaults
    made: ExperimentConfig  # by the file, of these parameters
    given: T  # the command's arguments, with the line's fields laid over what the file made


def read_line(around: Callable[..., T], path: Path, arguments: Sequence[str], prog: str) -> Line[T]:
    """Read a line with an experiment file; `around(base=…)` holds its experiment and options."""
    maker = load_maker(path, "experiment", "an ExperimentConfig")
    values = take_parameters(maker, arguments, prog)
    made = make_config(maker, values)
    with meaning(arguments, [*(one.name for one in maker.parameters), *paths_of(made)]):
        given: T = parse(line_of(maker, values, around(base=made)), arguments, prog=prog)
    chosen = [one.name for one in maker.parameters if values[one.name] != one.default]
    return Line(
        path=path, parameters={name: values[name] for name in chosen}, made=made, given=given
    )


@contextmanager
def meaning(arguments: Sequence[str], known: Sequence[str]) -> Iterator[None]:
    """Say behind the parser's message which options may be meant by those that are not known."""
    try:
        yield
    except SystemExit as end:
        if end.code == CODE_USER_ERROR:
            for line in meant_lines(arguments, known):
                print(line, file=sys.stderr)
        raise


def paths_of(config: ExperimentConfig) -> list[str]:
    """Return the fields of an experiment as options name them."""

    def paths(held: Any, path: str) -> Iterator[str]:
        pairs = enumerate(held) if isinstance(held, list) else held.items()
        for name, value in pairs:
            own = f"{path}.{name}".lstrip(".")
            yield own
            if isinstance(value, dict | list):
                yield from paths(value, own)

    return list(paths(options_to_json(config), ""))


def train_line(arguments: Sequence[str]) -> Line[TrainArguments]:
    """Read the line of `gmma train`."""
    path, rest = split_experiment(arguments, "train")
    return read_line(TrainArguments, path, rest, f"gmma train {path}")


def plan_line(arguments: Sequence[str]) -> Line[PlanArguments]:
    """Read the line of `gmma plan`."""
    path, rest = split_experiment(arguments, "plan")
    return read_line(PlanArguments, path, rest, f"gmma plan {path}")


def fetch_line(arguments: Sequence[str]) -> Line[FetchArguments]:
    """Read the line of `gmma fetch`."""
    path, rest = split_experiment(arguments, "fetch")
    return read_line(FetchArguments, path, rest, f"gmma fetch {path}")


def resolve(arguments: Sequence[str]) -> tuple[ExperimentConfig, bool]:
    """Return the experiment of a line of `gmma train`, and whether `--resume` was given."""
    given = train_line(arguments).given
    return given.base, given.own.resume


def parse_experiment(path: Path, arguments: Sequence[str], *, prog: str) -> ExperimentConfig:
    """Make the experiment of a file with its parameters, and lay the other arguments over it."""

    def alone(*, base: ExperimentConfig) -> ExperimentConfig:
        return base

    return read_line(alone, path, arguments, prog).given


def difference_lines(line: Line[TrainArguments]) -> list[str]:
    """Say which experiment file a run is of, and each field in which it differs from the file's."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in line.parameters.items()]
    changes = list(changed_fields(options_to_json(line.made), options_to_json(line.given.base)))
    file = shlex.join([str(line.path), *given])
    return [f"{file}, {'with' if changes else 'as it stands'}", *(f"  {one}" for one in changes)]


def changed_fields(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Say of each value that differs what it is and what it was.

    >>> list(changed_fields({"tree": {"answers": 4}, "x": 0}, {"tree": {"answers": 8}, "x": 0}))
    ['tree.answers = 8 (the file has 4)']
    """
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        pairs = [(name, before[name], after[name]) for name in after]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(str(at), *both) for at, both in enumerate(zip(before, after, strict=True))]
    else:
        yield f"{path} = {spelt(after)} (the file has {spelt(before)})"
        return
    for name, old, new in pairs:
        yield from changed_fields(old, new, f"{path}.{name}".lstrip("."))


def spelt(value: Any) -> str:
    """Spell a value as the command line takes it, or as JSON where it takes several."""
    if isinstance(value, dict | list):
        return json.dumps(value)
    return str(value) if value != "" else "''"
