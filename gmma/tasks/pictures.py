"""Picture files of records: where they may lie, and that they are whole before anything is built.

A path is relative to the records' folder, or absolute. A relative one that leaves the folder by
`..` is refused unless the task's `outside_images` allows it: a file of records from elsewhere names
what will be read and stored.
"""

import base64
import binascii
import io
import os
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from PIL import Image

from gmma.errors import UserError
from gmma.images.common import eight_bits, upright
from gmma.tasks.records import spell_value

Outside = Literal["refuse", "allow"]
_LONGEST_PATH = 1024  # characters; what is longer, or begins so, is a picture and not a path to one
# A data URL; base64 of PNG, JPEG, GIF and of RIFF, which WebP is
_ENCODED = ("data:", "iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_FILE_URL = "file://"


def find_pictures(folder: Path, value: Any, what: str, outside: Outside) -> tuple[Path, ...]:
    """Return the files of one path or of a list of them. UserError, which calls it `what`."""
    names = value if isinstance(value, list) else [value]
    return tuple(find_picture(folder, name, what, outside) for name in names)


def find_picture(folder: Path, name: Any, what: str, outside: Outside) -> Path:
    """Find the file of one path. UserError if it is no path, leaves the folder, or is not there."""
    if not isinstance(name, str):
        raise UserError(f"{what} is a {type(name).__name__}, not a path: {spell_value(name)}")
    if is_encoded(name):
        raise UserError(
            f"{what} is a text of {len(name)} characters, not a path: {spell_value(name)}. A "
            "picture inside the record (base64) is not read; save it as a file and give its path"
        )
    if name.startswith(_FILE_URL):
        name = unquote(name.removeprefix(_FILE_URL))
    if name.startswith(("http://", "https://", "gs://", "s3://")):
        raise UserError(
            f"{what} is an address, not a path: {spell_value(name)}; fetch the file and give its "
            "path"
        )
    leaves = os.path.normpath(name).split(os.sep)[0] == ".."
    if leaves and outside == "refuse":
        raise UserError(
            f"{what}: {name} leaves the folder {folder}; set the folder (images) higher up, give "
            "an absolute path, or set outside_images = allow"
        )
    path = folder / name
    try:
        found = path.is_file()
    except PermissionError as error:
        raise UserError(f"{what}: {path} cannot be read ({error.strerror}); permit it") from error
    except (OSError, ValueError):  # a name too long for the disk, or with a zero in it
        found = False
    if not found:
        slashes = ", and write its path with /" if "\\" in name else ""
        raise UserError(
            f"{what}: no file {path}; set task.records.images to the folder of images{slashes}"
        )
    return path


def is_encoded(text: str) -> bool:
    """Return whether a text is a picture in base64, and not a path to one."""
    return len(text) > _LONGEST_PATH or text.startswith(_ENCODED)


def decode_picture(text: str, what: str) -> bytes:
    """Return the bytes of a picture in base64 or a data URL. UserError, which calls it `what`."""
    try:
        return base64.b64decode(re.sub(r"\s", "", _DATA_URL.sub("", text, 1)), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(
            f"{what} is a text of {len(text)} characters, neither a path nor a picture in base64 "
            f"({error}): {spell_value(text)}; save the picture as a file and give its path"
        ) from None


def looks_like_picture(value: Any) -> bool:
    """Return whether a value of a record is a picture: its path, its bytes, or a list of these."""
    if isinstance(value, list):
        return any(map(looks_like_picture, value))
    if isinstance(value, Mapping):
        return looks_like_picture(value.get("bytes")) or looks_like_picture(value.get("path"))
    if isinstance(value, bytes):
        return value.startswith(_MAGIC)
    if not isinstance(value, str) or "\n" in value:
        return False
    return value.startswith("data:image/") or value.lower().endswith(_SUFFIXES)


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
                frames = getattr(picture, "n_frames", 1)
                if frames > 1 and picture.format != "MPO":  # a telephone's, the first is the whole
                    raise UserError(
                        f"{where}: {path} has {frames} frames or pages; save the one that is meant "
                        "as a picture of its own"
                    )
                picture.load()
                return upright(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(
            f"{where}: {path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels ({error}); make it "
            "smaller: no model sees that many"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        # Pillow calls bytes by their place in memory
        why = "no format that Pillow knows" if "<_io.BytesIO" in str(error) else error
        raise UserError(
            f"{where}: {path} is no whole picture ({why}); fetch it again, or save it as PNG"
        ) from error


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
