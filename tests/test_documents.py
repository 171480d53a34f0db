"""What documents say of names, pictures and links, held against what is there."""

import dataclasses
import re
import tomllib
import types
import typing
from pathlib import Path

import pytest

import gmma
from gmma.config import ExperimentConfig
from gmma.tasks.vqa import VqaConfig

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def kinds_of(kind: typing.Any) -> typing.Iterator[typing.Any]:
    """The classes that a field of this type may hold; a task stands for all of them."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType, typing.Annotated, tuple):
        for part in typing.get_args(kind):
            yield from kinds_of(part)
    else:
        yield kind


def find_field(path: str) -> list[typing.Any]:
    """The types of the field that a dotted path names, [] where there is none."""
    found: list[typing.Any] = [ExperimentConfig]
    for name in path.split("."):
        if name.isdecimal():  # a place in a tuple, whose types are known already
            continue
        hints = [typing.get_type_hints(one) for one in found if dataclasses.is_dataclass(one)]
        found = [kind for hint in hints if name in hint for kind in kinds_of(hint[name])]
        if path.startswith("task.") and name == "task":
            found = [VqaConfig]
    return found


def named_fields(page: str) -> list[str]:
    """What the first column of the page's tables names, but options of `gmma` itself."""
    columns = re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
    spans = [span for column in columns for span in re.findall(r"`([^`]+)`", column)]
    return [span for span in spans if not span.startswith("--")]


def test_each_name_of_gmma_is_a_field() -> None:
    page = (DOCS / "coming_from.md").read_text("utf-8")
    spans = named_fields(page)
    assert len(spans) > 50
    for field, _, value in (span.partition(" ") for span in spans):
        found = find_field(field)
        assert found, field
        literals = [one for one in found if typing.get_origin(one) is typing.Literal]
        if value and literals:
            assert value in typing.get_args(literals[0]), f"{field} {value}"


@pytest.mark.parametrize("wrong", ["objective.klimit", "rl.optimiser.learning_rate", "tasks"])
def test_a_wrong_name_would_be_seen(wrong: str) -> None:
    assert not find_field(wrong)


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {gmma.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    newest = re.findall(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest[0] == gmma.__version__


def test_a_wheel_has_every_file_of_the_package() -> None:
    """What setuptools takes: packages, which have an `__init__.py`, and the files named to it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    package = ROOT / "gmma"
    named = {path for pattern in settings["package-data"]["gmma"] for path in package.glob(pattern)}
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    code = [path for path in files if path.suffix == ".py"]
    assert {path for path in files if path.suffix != ".py"} <= named
    assert not [path for path in code if not (path.parent / "__init__.py").is_file()]
    assert len(named) > 10


def test_installation_lists_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    listed = re.findall(r"^\| `gmma\[(\w+)\]` \|", (DOCS / "install.md").read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(extras["optional-dependencies"])
