"""A bucket that is a folder of this machine, behind fsspec: `gs://BUCKET/KEY` is a file in it.

What is fetched, written and listed is noted in `FOLDER.log`, a line each, so that several processes
can be watched. An object has a generation, which is another one whenever it is written.
"""

import base64
import hashlib
import os
import shutil
from pathlib import Path

import fsspec
from fsspec import AbstractFileSystem

FOLDER = "GMMA_TEST_BUCKET"  # in the environment of a process that has no other way to it


class Bucket(AbstractFileSystem):
    """What `gs://` leads to here."""

    protocol = ("gcs", "gs")
    cachable = False
    root = Path()

    @classmethod
    def _strip_protocol(cls, path):
        return str(path).removeprefix("gcs://").removeprefix("gs://").strip("/")

    def note(self, what, path):
        with self.root.with_suffix(".log").open("a") as log:
            log.write(f"{what} {path}\n")

    def info(self, path, **_):
        path = self._strip_protocol(path)
        place = self.root / path
        if place.is_dir():
            return {"name": path, "size": 0, "type": "directory"}
        content = place.read_bytes()  # FileNotFoundError as of a bucket
        return {
            "name": path,
            "size": len(content),
            "type": "file",
            "generation": str(place.stat().st_mtime_ns),
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
        }

    def ls(self, path, detail=True, **_):
        path = self._strip_protocol(path)
        place = self.root / path
        names = [f"{path}/{name}" for name in os.listdir(place)] if place.is_dir() else [path]
        return [self.info(name) for name in names] if detail else names

    def find(self, path, **options):
        self.note("list", self._strip_protocol(path))
        return super().find(path, **options)

    def get_file(self, rpath, lpath, **_):
        path = self._strip_protocol(rpath)
        self.note("get", path)
        shutil.copyfile(self.root / path, lpath)

    def _open(self, path, mode="rb", **_):
        path = self._strip_protocol(path)
        self.note("open" if "r" in mode else "write", path)
        if "r" not in mode:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        return (self.root / path).open(mode)


def open_bucket(folder):
    """Let `gs://` lead to this folder in this process; returns it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fsspec.register_implementation("gcs", type("Bucket", (Bucket,), {"root": folder}), clobber=True)
    return folder


def fetched(folder):
    """The paths that were fetched, in order."""
    log = Path(folder).with_suffix(".log")
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.partition(" ")[2] for line in lines if line.startswith("get ")]


if FOLDER in os.environ:
    open_bucket(os.environ[FOLDER])
