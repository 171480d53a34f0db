"""Copies of what lies in a bucket, by its file system of fsspec: `gcsfs` for `gs://`.

    CACHE/objects/KEY         one version of one object, whole: it is renamed to this when it is
    CACHE/trees/DIGEST/NAME   a place as it was listed, of links to objects

A key is a hash of the object's path, generation and size. So an object that has not changed is not
fetched again with others of its folder that have, and one that has never stands for the new one.
"""

import base64
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from gmma.errors import DISK, UserError, os_error_text
from gmma.files import PARTIAL, check_bucket, locked, run_path, spell_bytes
from gmma.remote.listing import Listing, RemoteFile, check_names

AT_A_TIME = 16  # objects that are fetched side by side
SPARE_BYTES = 1 << 30  # that stay free on the disk
CHUNK_BYTES = 1 << 22
VERSIONS = ("generation", "ETag", "etag", "mtime", "created")  # the first that a listing has
SUMS = {"md5Hash": "md5", "crc32c": "crc32c"}  # of Cloud Storage, in base64


def file_system(place: str) -> Any:
    """Return the file system of a place. UserError where nothing that is installed reads it."""
    import fsspec  # slow, and only buckets need it

    check_bucket(run_path(place))
    scheme = place.partition("://")[0]
    return fsspec.filesystem("gcs" if scheme == "gs" else scheme)


def list_bucket(place: str) -> Listing:
    """List a folder or a file of a bucket. Raises UserError where there is none, or no access."""
    system = file_system(place)
    try:
        system.invalidate_cache()  # of what this process has seen there before
        found = system.find(place, detail=True)
    except Exception as error:  # whatever the file system raises: of the network, of permissions
        raise UserError(f"{place} cannot be read ({_spell(error)})") from error
    root = system._strip_protocol(place).rstrip("/")
    objects = {name: own for name, own in found.items() if own.get("type", "file") == "file"}
    is_file = list(objects) == [root]
    files = tuple(
        RemoteFile(
            name=name.rpartition("/")[2] if is_file else name.removeprefix(f"{root}/"),
            path=name,
            size=int(own["size"]),
            version=next(str(own[key]) for key in VERSIONS if own.get(key) is not None),
            sums={kind: own[key] for key, kind in SUMS.items() if own.get(key)},
        )
        for name, own in sorted(objects.items())
        if not name.endswith("/")  # what consoles make for an empty folder
    )
    check_names(place, files)
    return Listing(place=place, name=root.rpartition("/")[2], is_file=is_file, files=files)


def _spell(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {text[:300]}"


def copy_from_bucket(listing: Listing, cache: Path) -> Path:
    """Return the copy of what was listed, fetching what of it this machine does not have.

    One process of a machine fetches at a time; the others wait and find what it left. Raises
    UserError where an object cannot be fetched whole, or the disk has no room; what was fetched by
    then is kept.
    """
    tree = cache / "trees" / listing.digest
    if not tree.is_dir():
        with locked(cache / "lock", wait=True):
            if not tree.is_dir():  # another process may have been faster
                _fetch(listing, cache)
                _plant(listing, cache, tree)
    return tree / listing.name


def object_path(file: RemoteFile, cache: Path) -> Path:
    """Return where this version of an object is kept."""
    key = hashlib.sha256(f"{file.path}\n{file.version}\n{file.size}".encode()).hexdigest()
    return cache / "objects" / key[:2] / key


def _is_whole(file: RemoteFile, cache: Path) -> bool:
    path = object_path(file, cache)
    return path.is_file() and path.stat().st_size == file.size


def _fetch(listing: Listing, cache: Path) -> None:
    missing = [file for file in listing.files if not _is_whole(file, cache)]
    if not missing:
        return
    size, began = sum(file.size for file in missing), time.monotonic()
    free = shutil.disk_usage(cache).free
    if size + SPARE_BYTES > free:
        raise UserError(
            f"{listing.place} needs {spell_bytes(size)} more in {cache}, and {spell_bytes(free)} "
            "are free there; make room, or set GMMA_CACHE to a folder of another disk"
        )
    what = f"{len(missing)} of {len(listing.files)} files, {spell_bytes(size)}"
    print(f"copying {listing.place}: {what}", file=sys.stderr, flush=True)
    for file in missing:
        object_path(file, cache).parent.mkdir(parents=True, exist_ok=True)
    fetch = partial(_fetch_object, file_system(listing.place), listing.place, cache)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        waiting = [pool.submit(fetch, file) for file in missing]
        try:
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    seconds = time.monotonic() - began
    print(f"copied {listing.place} in {seconds:.0f} s", file=sys.stderr, flush=True)


def _fetch_object(system: Any, place: str, cache: Path, file: RemoteFile) -> None:
    """Fetch an object; its name appears when it is whole and on the disk."""
    path = object_path(file, cache)
    partial_path = path.with_name(path.name + PARTIAL)
    try:
        system.get_file(file.path, str(partial_path))
        _check_whole(file, place, partial_path)
        _sync(partial_path)
        partial_path.chmod(0o444)  # a change of the copy would be taken for the object
        partial_path.replace(path)
    except UserError:
        raise
    except Exception as error:  # as above, and of the disk
        if isinstance(error, OSError) and error.errno in DISK:
            raise UserError(os_error_text(error)) from error
        raise UserError(f"{place}: {file.name} cannot be fetched ({_spell(error)})") from error
    finally:
        with suppress(FileNotFoundError):
            partial_path.unlink()


def _check_whole(file: RemoteFile, place: str, path: Path) -> None:
    size = path.stat().st_size
    wrong = f"{size} bytes of {file.size}" if size != file.size else None
    for kind, expected in file.sums.items():
        count = hasher(kind)
        if wrong is None and count is not None and _sum(path, count()) != expected:
            wrong = f"another {kind} than the bucket says"
    if wrong:
        raise UserError(
            f"{place}: {file.name} came with {wrong}; it was changed meanwhile, or the network "
            "damaged it: start again"
        )


def hasher(kind: str) -> Callable[[], Any] | None:
    """Return what makes a hash of this kind; None where it is not installed."""
    if kind == "md5":
        return partial(hashlib.md5, usedforsecurity=False)
    with suppress(ImportError):  # comes with gcsfs
        import google_crc32c

        return google_crc32c.Checksum  # type: ignore[no-any-return]
    return None


def _sum(path: Path, digest: Any) -> str:
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return base64.b64encode(digest.digest()).decode()


def _sync(path: Path) -> None:
    """Wait until a file is on its disk, which may outlive this machine."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _plant(listing: Listing, cache: Path, tree: Path) -> None:
    """Make the tree of a listing, whole or not at all."""
    growing = tree.with_name(tree.name + PARTIAL)
    shutil.rmtree(growing, ignore_errors=True)  # of a process that was killed here
    root = growing if listing.is_file else growing / listing.name
    _link((object_path(file, cache), root / file.name) for file in listing.files)
    growing.replace(tree)


def _link(pairs: Iterable[tuple[Path, Path]]) -> None:
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
