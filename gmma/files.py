"""Paths on a disk or in a bucket, and files that are whole or absent."""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Annotated, Any

import tyro
from etils import epath
from pydantic import PlainSerializer, PlainValidator

from gmma.errors import UserError, os_error_text

PARTIAL = ".partial"  # ends the name of a file that is still being written
NAME_BYTES = 200  # of a file's or directory's name; file systems have 255, endings take some
TRIAL_BYTES = 1 << 16
SCHEMES = ("gs", "s3", "az", "hf")  # that etils.epath knows
ONE_SLASH = re.compile(rf"({'|'.join(SCHEMES)}):/(?!/)")  # what a `Path` makes of a scheme's two


def run_path(text: str | PurePath) -> Path | epath.Path:
    """Return a path on disk, or with a scheme in a bucket: `gs://BUCKET/FOLDER`.

    So too where `Path("gs://BUCKET/FOLDER")` has lost one of its slashes.
    """
    text = ONE_SLASH.sub(r"\1://", str(text), count=1) if ONE_SLASH.match(str(text)) else text
    scheme, found, _ = str(text).partition("://")
    if not found:
        return Path(text)
    if scheme not in SCHEMES:
        raise UserError(f"{text}: nothing reads {scheme}://; give gs://BUCKET/FOLDER or a path")
    return epath.Path(text)


def spell_path(path: PurePath) -> str:
    """Return the text of a path, with its scheme whole."""
    return str(run_path(path))


_OPTION: tyro.constructors.PrimitiveConstructorSpec[Any] = (
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: run_path(words[0]),
        is_instance=lambda value: isinstance(value, PurePath),
        str_from_instance=lambda value: [spell_path(value)],
    )
)
_READ, _SPELT = PlainValidator(run_path), PlainSerializer(spell_path)
RunPath = Annotated[Path | epath.Path, _OPTION, _READ, _SPELT]
# Of what a task or a model reads, which may lie in a bucket or on the Hub too. Who reads it has a
# config with the copy's path in its place (`gmma/remote/copies.py`), so it is a `Path` to them.
SourcePath = Annotated[Path, _OPTION, _READ, _SPELT]


def spell_bytes(count: int) -> str:
    """Return a size as people say it.

    >>> spell_bytes(786), spell_bytes(8_140_000_000)
    ('786 bytes', '8.14 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def absolute(path: RunPath) -> RunPath:
    """Return the path from the root; a bucket's is that already."""
    return path.absolute() if isinstance(path, Path) else path


def check_bucket(path: RunPath) -> None:
    """Raise UserError where nothing that is installed reads a path with this scheme."""
    scheme, found, _ = str(path).partition("://")
    if isinstance(path, Path) or not found:
        return
    if importlib.util.find_spec("tensorflow") is not None:
        return
    import fsspec  # slow, and only buckets need it: help does not wait for it

    try:
        fsspec.get_filesystem_class("gcs" if scheme == "gs" else scheme)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{path}: nothing that is installed reads {scheme}:// ({error}); for gs:// pip install "
            "gcsfs, or give a path on disk"
        ) from error


def check_name(option: str, name: str) -> None:
    """Raise UserError unless this is a path below another one, of names that a disk takes."""
    parts = name.split("/")
    if not name or {"", ".", ".."} & set(parts) or not name.isprintable():
        raise UserError(
            f"{option} = {name!r}; it must be a name of printable characters, without .. and "
            "without / at its ends"
        )
    check_name_lengths(option, parts)


def check_name_lengths(option: str, parts: Iterable[str]) -> None:
    """Raise UserError for a name that is too long for a file system."""
    for part in parts:
        size = len(part.encode(errors="replace"))
        if size > NAME_BYTES:
            raise UserError(
                f"{option}: the name {part[:20]}… has {size} bytes; give one of {NAME_BYTES} or "
                "fewer"
            )


def check_output(option: str, path: RunPath, *, directory: bool = False) -> None:
    """Raise UserError if this file or directory could not be written; leaves nothing behind.

    Call it before the work that ends in the file. A nameless file is written into the nearest
    directory that exists, which tries permission, quota and space at once.
    """
    check_bucket(path)
    if not isinstance(path, Path):
        return
    if not str(path).isprintable():
        raise UserError(f"{option} = {str(path)!r}; it must be a path of printable characters")
    check_name_lengths(option, path.parts)
    kind = "directory" if directory else "file"
    if path.exists() and path.is_dir() != directory:
        other = "file" if directory else "directory"
        raise UserError(f"{option} = {path} is a {other}; give another path for the {kind}")
    home = path
    while not home.exists() or (home == path and not directory):
        home = home.parent
    if not home.is_dir():
        raise UserError(f"{option} = {path}: {home} is a file, not a directory; give another path")
    try:
        with tempfile.TemporaryFile(dir=home, buffering=0) as trial:
            trial.write(bytes(TRIAL_BYTES))
        if not directory and path.exists():
            path.open("ab").close()
    except OSError as error:
        raise UserError(
            f"{option} = {path} cannot be written ({error.strerror}); make room or give another "
            "path"
        ) from error


def write_whole(path: RunPath, text: str) -> None:
    """Replace `path` by a file with this text, as UTF-8; readers see the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(path, Path):
        path.write_text(text, encoding="utf-8")  # an object of a bucket appears when it is whole
        return
    partial = path.with_name(path.name + PARTIAL)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_json(path: RunPath) -> dict[str, Any]:
    """Read the object that a JSON file holds.

    Raises UserError where the file is absent, cannot be read, or holds anything else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(os_error_text(error)) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); restore it, or give another run") from error
    if not isinstance(found, dict):
        raise UserError(
            f"{path} holds a JSON {type(found).__name__}, not an object; restore it, or give "
            "another run"
        )
    return found


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of this file within the block; it ends with the process, however that ends.

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
        except OSError as error:
            raise UserError(
                f"{path} cannot be locked ({error.strerror}): its file system has no locks; put "
                "the run on another disk, or in a bucket"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def lock_of(directory: RunPath) -> Path:
    """Return the lock of a directory.

    That of a bucket's is on this machine, and holds on it alone.
    """
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
    """Yield every file of a directory and of those in it; a bucket's paths have no `rglob`."""
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


@contextmanager
def growing_files(run_dir: RunPath) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Yield a folder on disk for growing files, and a function that copies them to the run.

    A bucket takes whole objects only: files grow in a temporary folder, and are copied when asked
    and at the end. On a disk the folder is the run's own, and there is nothing to copy.
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
