"""Where a run's files are, on a disk or in a bucket, and files that are whole or absent."""

import fcntl
import hashlib
import json
import os
import socket
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
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of this file within the block; a process that ends, however, lets it go.

    Another process that wants it waits, or gets UserError at once, with who has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{file.read().strip() or 'another process'} is at work here (lock {path}); wait "
                "until it has ended, or end it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def lock_of(directory: RunPath) -> Path:
    """The lock of a directory; that of a bucket's is on this machine, and holds on it alone."""
    if isinstance(directory, Path):
        return directory / "lock"
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"gmma-{os.getuid()}" / f"{name}.lock"


def move_directory(source: RunPath, target: RunPath) -> None:
    """Move a directory to a place where none is; in a bucket file by file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        source.rename(target)
        return
    for file in files_below(source):
        copy = target / str(file.relative_to(source))
        copy.parent.mkdir(parents=True, exist_ok=True)
        epath.Path(file).copy(copy)
    source.rmtree()


def files_below(directory: RunPath) -> Iterator[RunPath]:
    """Every file of a directory and of those in it; a bucket's paths have no `rglob`."""
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


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
