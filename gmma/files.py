"""Where a run's files are, on a disk or in a bucket, and files that are whole or absent."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Annotated, Any

import tyro
from etils import epath
from pydantic import PlainSerializer, PlainValidator

from gmma.errors import UserError

PARTIAL = ".partial"  # ends the name of a file that is still being written


def run_path(text: str | PurePath) -> Path | epath.Path:
    """A path on disk, or with a scheme in a bucket: `gs://BUCKET/FOLDER`."""
    return epath.Path(text) if "://" in str(text) else Path(text)


RunPath = Annotated[
    Path | epath.Path,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: run_path(words[0]),
        is_instance=lambda value: isinstance(value, PurePath),
        str_from_instance=lambda value: [str(value)],
    ),
    PlainValidator(run_path),
    PlainSerializer(str),
]


def absolute(path: RunPath) -> RunPath:
    """The path from the root; a bucket's is that already."""
    return path.absolute() if isinstance(path, Path) else path


def write_whole(path: RunPath, text: str) -> None:
    """Replace `path` by a file with this text; a reader finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(path, Path):
        path.write_text(text)  # an object of a bucket appears when it is whole
        return
    partial = path.with_name(path.name + PARTIAL)
    partial.write_text(text)
    partial.replace(path)


def read_json(path: RunPath) -> Any:
    """What a JSON file holds. Raises UserError where it is absent or no JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); restore it, or give another run") from error


@contextmanager
def growing_files(run_dir: RunPath) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder on disk for a run's files that grow, and what brings them to the run's directory.

    A bucket takes whole objects only: files grow in a temporary folder, and are copied when asked
    and at the end. On a disk the folder is the run's own, and there is nothing to bring.
    """
    if isinstance(run_dir, Path):
        yield run_dir, lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="gmma-") as name:
        folder = Path(name)

        def bring() -> None:
            for file in folder.rglob("*"):
                if file.is_file():
                    copy = run_dir / str(file.relative_to(folder))
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes(file.read_bytes())

        try:
            yield folder, bring
        finally:
            bring()
