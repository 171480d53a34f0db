"""Listings of places elsewhere: which files there are, how large, and which version of each."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from gmma.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a place."""

    name: str  # within the place; of a place that is a file, its own name
    path: str  # by which the file system or the Hub knows it
    size: int  # bytes
    version: str  # another one where the content is another: a generation, a hash
    sums: Mapping[str, str] = field(default_factory=dict)  # md5, crc32c or sha256, as it is spelt


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A place, with what it held when it was looked at."""

    place: str  # gs://BUCKET/FOLDER, hf://OWNER/NAME
    name: str  # its last part
    is_file: bool
    files: tuple[RemoteFile, ...]
    revision: str = ""  # the commit of a repository of the Hub

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """Hash of names, sizes and versions: equal for equal content of the same place."""
        lines = sorted(f"{f.name}\t{f.size}\t{f.version}" for f in self.files)
        text = "\n".join([self.place, self.name, *lines])
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def check_names(place: str, files: tuple[RemoteFile, ...]) -> None:
    """Raise UserError where there is no file, or one whose name would lead out of the copy."""
    if not files:
        raise UserError(f"there is nothing at {place}; check the name, and that it is not empty")
    for file in files:
        if {"", ".", ".."} & set(file.name.split("/")) or not file.name.isprintable():
            raise UserError(
                f"{place} holds {file.name!r}, which is no name for a file on disk; rename it"
            )
