"""Picture files of records: where they may lie, and that they are whole before anything is built.

A path is relative to the records' folder, or absolute. A relative one that leaves the folder by
`..` is refused unless the task's `outside_images` allows it: a file of records from elsewhere names
what will be read and stored.
"""

import io
import os
import struct
import warnings
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from gmma.errors import UserError
from gmma.images.common import eight_bits, upright
from gmma.tasks.records import spell_value

Outside = Literal["refuse", "allow"]
_LONGEST_PATH = 1024  # characters; what is longer, or begins so, is a picture and not a path to one
_ENCODED = ("data:", "iVBORw0KGgo", "/9j/")  # a data URL; base64 of PNG and of JPEG


def find_pictures(folder: Path, value: Any, what: str, outside: Outside) -> tuple[Path, ...]:
    """Return the files of one path or of a list of them. UserError, which calls it `what`."""
    names = value if isinstance(value, list) else [value]
    return tuple(find_picture(folder, name, what, outside) for name in names)


def find_picture(folder: Path, name: Any, what: str, outside: Outside) -> Path:
    """Find the file of one path. UserError if it is no path, leaves the folder, or is not there."""
    if not isinstance(name, str):
        raise UserError(f"{what} is a {type(name).__name__}, not a path: {spell_value(name)}")
    if len(name) > _LONGEST_PATH or name.startswith(_ENCODED):
        raise UserError(
            f"{what} is a text of {len(name)} characters, not a path: {spell_value(name)}. A "
            "picture inside the record (base64) is not read; save it as a file and give its path"
        )
    if name.startswith(("http://", "https://", "gs://", "s3://", "file://")):
        raise UserError(f"{what} is an address, not a path: {spell_value(name)}; fetch the file")
    leaves = os.path.normpath(name).split(os.sep)[0] == ".."
    if leaves and outside == "refuse":
        raise UserError(
            f"{what}: {name} leaves the folder {folder}; set the folder (images) higher up, give "
            "an absolute path, or set outside_images = allow"
        )
    path = folder / name
    try:
        found = path.is_file()
    except (OSError, ValueError):  # a name too long for the disk, or with a zero in it
        found = False
    if not found:
        raise UserError(f"{what}: no file {path}; set task.records.images to the folder of images")
    return path


def name_in(folder: Path, path: Path) -> str:
    """Return the path within the folder, or the whole one of a picture elsewhere."""
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return path.as_posix()


def open_picture(file: Path | bytes, where: str) -> Image.Image:
    """Open a picture, upright and whole. UserError naming the record where it is neither.

    A picture inside a record is the bytes of its file. One of more pixels than Pillow's limit
    (89,478,485) is refused before it is unpacked.
    """
    path = call_picture(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
                picture.load()
                return upright(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(
            f"{where}: {path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels ({error}); make it "
            "smaller: no model sees that many"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UserError(f"{where}: {path} is no whole picture ({error})") from error


def call_picture(file: Path | bytes) -> str:
    """Return what messages call a picture."""
    return f"a picture of {len(file)} bytes" if isinstance(file, bytes) else str(file)


def check_picture(file: Path | bytes, where: str) -> tuple[int, int]:
    """Return the upright width and height of a picture that `rgb_array` can read back."""
    picture = open_picture(file, where)
    try:
        return eight_bits(picture).size
    except UserError as error:
        raise UserError(f"{where}: {call_picture(file)}: {error}") from None


def read_picture(path: Path, where: str) -> bytes:
    """Read the bytes of a picture that can be decoded. UserError naming the record otherwise."""
    check_picture(path, where)
    return path.read_bytes()
