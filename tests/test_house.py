"""Laws of the house: imports go down, few modules at the top, a short README, plain docstrings."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "gmma"
# From the ground up, as CONTRIBUTING.md has it: a floor imports from those above it in this list,
# and from its own line only within one folder.
FLOORS = (
    ("errors", "intervals", "masked", "theory", "types"),
    ("files", "named"),
    ("remote",),
    ("options",),
    ("sampling", "advantage", "surrogate", "answers", "text", "tree"),
    ("simulator", "models"),
    ("rewards", "rollout"),
    ("images",),
    ("tasks", "huggingface"),
    ("families",),
    ("config",),
    ("hardware", "objective"),
    ("records",),
    ("scoring", "update", "porting"),
    ("run",),
    ("train", "bench", "plan"),
    ("commands",),
    ("sweep", "variance"),
    ("advise",),
    ("report",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
TOP_MODULES = 20


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, tests left out."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """The folder or the module at the top that a module belongs to; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return {name for name in found if name in known}


def arrows() -> list[tuple[str, str]]:
    """(importer, imported) between modules of different rooms."""
    known = modules()
    return [
        (module, other)
        for module, path in known.items()
        for other in imports(path, known)
        if room(module) != room(other) and room(other)
    ]


def test_every_room_has_its_floor():
    rooms = {room(module) for module in modules()} - {""}
    assert rooms == set(HEIGHT)


def test_imports_go_down():
    """Then there is no circle between folders either."""
    climbs = [
        f"{module} imports {other}"
        for module, other in arrows()
        if room(module) and HEIGHT[room(module)] <= HEIGHT[room(other)]
    ]
    assert not climbs


def test_the_readme_is_short_and_maps_every_folder():
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert max(map(len, text.splitlines())) <= 120
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert not [name for name in folders if f"{name}/`" not in text]


def test_few_modules_stand_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= TOP_MODULES


def test_a_climb_would_be_seen(tmp_path):
    """The reading of imports sees the three ways to write one."""
    file = tmp_path / "a.py"
    file.write_text(
        "import gmma.train\n"
        "from gmma import commands\n"
        "def late():\n    from gmma.run.programs import make_grow\n"
    )
    assert imports(file, modules()) == {"gmma.train", "gmma.commands", "gmma.run.programs"}


TWISTED = {"What", "Where", "How", "Whether", "Of", "Those", "Which", "Who", "When", "From", "That"}


def test_docstrings_say_it_at_once():
    """A docstring opens with a verb, or names its subject (CONTRIBUTING.md)."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
    opening = [
        (path.relative_to(PACKAGE), getattr(node, "name", ""), text.split()[0].strip(",.:;"))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds) and (text := ast.get_docstring(node))
    ]
    assert len(opening) > 1000
    assert not [found for found in opening if found[2] in TWISTED]
