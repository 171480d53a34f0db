"""Experiment files: Python with a function `experiment()` or `sweep()`, and its parameters.

    def experiment(variant: Literal["t4a4", "grpo"] = "t4a4") -> ExperimentConfig: ...

The parameters of the function are options of the command line, beside the fields of what it
returns: `gmma train FILE --variant grpo --seed 3` calls it with `grpo`, then replaces the seed. A
parameter's type says which values it takes; its help is its line under `Args:` of the docstring, or
that of `Annotated[TYPE, tyro.conf.arg(help=...)]`.
"""

import dataclasses
import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_type_hints

import tyro

from gmma.config import ExperimentConfig, of_its_types
from gmma.errors import UserError
from gmma.options.arguments import OWN_OPTIONS
from gmma.options.parsing import CONVENTION, MARKERS

# What commands that read experiment files take from the line themselves.
TAKEN = {
    "help",
    "h",
    *(own.name for kind in OWN_OPTIONS.values() for own in dataclasses.fields(kind)),
}
RETURNED = "_returned_"  # beside the parameters, what they make: no name that a user would choose


def near_files(path: Path, home: Path) -> str:
    """Name the Python files of a folder that are nearest to a path, for a message."""
    names = sorted(file.name for file in home.glob("*.py"))
    if not names:
        return f"{home} holds no Python file"
    near = difflib.get_close_matches(f"{path.stem}.py", names, n=3, cutoff=0.4) or names[:3]
    more = f" and {len(names) - len(near)} more" if len(names) > len(near) else ""
    return f"{home} has {', '.join(str(home / name) for name in near)}{more}"


def load_module(path: Path) -> ModuleType:
    """Run an experiment file as a module. Raises UserError where it is none, or does not run."""
    if not path.is_file() or path.suffix != ".py":
        home = path if path.is_dir() else path.parent
        kind = "a directory" if path.is_dir() else "no Python file, *.py"
        wrong = f"{path} is {kind}" if path.exists() else f"no experiment file {path}"
        raise UserError(f"{wrong}; {near_files(path, home)}")
    # Under no name that anything else imports: experiments/code.py is not Python's `code`.
    spec = importlib.util.spec_from_file_location(f"experiment file {path.absolute()}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for the module of a class
    # What stands beside the file can be imported, by the file, by the names in its config, and by
    # workers. Last, so that no library reads experiments/code.py in place of Python's own `code`.
    beside = str(path.parent.absolute())
    if beside not in sys.path:
        sys.path.append(beside)
    with users_code(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def users_code(path: Path) -> Iterator[None]:
    """Turn what an experiment file's code raises in the block into a UserError with its line."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError) and error.filename:
            place = f"{error.filename}, line {error.lineno}"
        else:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == str(path)]
            place = f"{path}, line {lines[-1]}" if lines else str(path)
        said = error.msg if isinstance(error, SyntaxError) else error
        raise UserError(f"{place}: {type(error).__name__}: {said}") from error


@dataclass(frozen=True)
class Maker:
    """A function of an experiment file, and its parameters that a command line can name."""

    path: Path
    name: str
    call: Callable[..., Any]
    parameters: tuple[inspect.Parameter, ...]

    def __call__(self, **values: Any) -> Any:
        """Call it; whatever it raises becomes a UserError."""
        with users_code(self.path):
            return self.call(**values)


def load_maker(path: Path, name: str, returns: str) -> Maker:
    """Find the function `name` of an experiment file. Raises UserError where it has none."""
    call = getattr(load_module(path), name, None)
    if not callable(call):
        raise UserError(f"{path} has no function {name}() that returns {returns}")
    with users_code(path):
        known = inspect.signature(call, eval_str=True).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = tuple(parameter for parameter in known if parameter.kind in named)
    for one in parameters:
        if one.annotation is one.empty and one.default is one.empty:
            raise UserError(
                f"{path}: parameter {one.name} of {name}() has no type; annotate it, as in "
                f'{one.name}: Literal["a", "b"] = "a", so that the command line can read it'
            )
    return Maker(path=path, name=name, call=call, parameters=parameters)


def load_experiment(path: Path, **values: Any) -> ExperimentConfig:
    """Return the config that an experiment file makes of some values of its parameters."""
    return make_config(load_maker(path, "experiment", "an ExperimentConfig"), values)


def make_config(maker: Maker, values: dict[str, Any]) -> ExperimentConfig:
    """Call `experiment()`. Raises UserError unless it returns a config."""
    config = maker(**values)
    if not isinstance(config, ExperimentConfig):
        raise UserError(
            f"experiment() of {maker.path} returned {type(config).__name__}, not a config"
        )
    return of_its_types(config, maker.path)


def take_parameters(maker: Maker, arguments: Sequence[str], prog: str) -> dict[str, Any]:
    """Read the parameters from a command line and leave the rest; exit code 2 on a mistake."""
    if not maker.parameters:
        return {}

    def given(**values: Any) -> dict[str, Any]:
        return values

    documented = as_tyro_reads(given, maker.parameters, maker.call.__doc__)
    with CONVENTION:
        values, _ = tyro.cli(
            documented,
            args=list(arguments),
            prog=prog,
            config=MARKERS,
            return_unknown_args=True,
            add_help=False,  # the help of the whole line is printed when the fields are known
        )
    return values


def line_of(maker: Maker, values: dict[str, Any], default: Any) -> Callable[..., Any]:
    """Return a function by whose parameters tyro parses a whole line; it returns the fields.

    The parameters of the experiment stand beside the fields of `default` for help, and for the
    closest name to a wrong one. Raises UserError where one has the name of an option.
    """
    taken = TAKEN | set(option_names(type(default)))
    for parameter in maker.parameters:
        if parameter.name in taken:
            raise UserError(
                f"{maker.path}: the parameter {parameter.name!r} of {maker.name}() has the name of "
                "an option that is there already; rename it"
            )

    def fields(**values: Any) -> Any:
        return values[RETURNED]

    parameters = [
        parameter.replace(default=values[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in maker.parameters
    ]
    kind = Annotated[type(default), tyro.conf.arg(name="")]
    returned = inspect.Parameter(
        RETURNED, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
    )
    return as_tyro_reads(fields, (*parameters, returned), maker.call.__doc__)


def as_tyro_reads(
    function: Callable[..., Any], parameters: Sequence[inspect.Parameter], text: str | None
) -> Callable[..., Any]:
    """Give a function the parameters and the docstring that tyro makes options and help of."""
    documented: Any = function
    documented.__signature__ = inspect.Signature(parameters)
    documented.__annotations__ = {
        parameter.name: parameter.annotation
        for parameter in parameters
        if parameter.annotation is not inspect.Parameter.empty
    }
    documented.__doc__ = text
    return documented


def option_names(kind: type) -> Iterator[str]:
    """Yield the first parts of a dataclass's options, into fields whose options have no prefix."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hidden = (getattr(mark, "name", None) == "" for mark in _marks(hints[field.name]))
        if any(hidden):
            yield from option_names(hints[field.name].__origin__)
        else:
            yield field.name


def _marks(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())
