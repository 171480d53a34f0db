"""Checksums of a checkpoint's files: written before it counts, compared before it is read.

    write_checksums   the last file of a checkpoint before Orbax commits it
    find_damage       which of its files are not as they were written

Every committed checkpoint has them. One without them is damaged, or of a gmma that wrote none: its
progress says whether checksums belong to it. The progress holds the checkpoint's number, too, so
that a copy under another number is noticed.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any

from etils import epath

from gmma.files import RunPath, files_below

CHECKSUMS = "checksums.json"
PROMISE = "checksums"  # in a checkpoint's progress: it has some
STEP = "step"  # there, too: the number of the checkpoint
PROGRESS = PurePath("progress", "metadata")
STEP_METADATA = "_CHECKPOINT_METADATA"  # Orbax adds the time of the commit to it
COMMITTED = "commit_success.txt"  # comes with the commit, and says nothing else
BLOCK_BYTES = 16 * 2**20
SMALL_BYTES = 2**16
THREADS = 8  # files read at a time: from a bucket, one alone is slow


def write_checksums(checkpoint: RunPath) -> None:
    """Write size and SHA-256 of every file of a checkpoint that will not change any more."""
    files = list(_files(checkpoint))
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(lambda file: _sum(checkpoint, file), files)
        sums = dict(zip(map(str, files), found, strict=True))
    held = {"files": sums, "sha256": _sum_of_values(sums)}
    (checkpoint / CHECKSUMS).write_text(json.dumps(held, indent=1))


def find_damage(
    checkpoint: RunPath, *, share: tuple[int, int] = (0, 1), small: bool = False
) -> list[str]:
    """List how a checkpoint differs from what was written, a phrase a file; [] without checksums.

    Each of (index, count) hosts reads its own files. With `small` only sizes are compared, and the
    contents of files up to `SMALL_BYTES`: what Orbax reads first.
    """
    try:
        progress = json.loads((checkpoint / PROGRESS).read_bytes())
        promised, number = progress.get(PROMISE, False), str(progress.get(STEP, checkpoint.name))
    except FileNotFoundError:
        promised, number = False, checkpoint.name  # parameters alone
    except (ValueError, AttributeError):
        return [f"{PROGRESS} is no JSON"]
    if number != checkpoint.name:
        return [f"it is checkpoint {number}"]
    try:
        held = json.loads((checkpoint / CHECKSUMS).read_bytes())
        damaged = _sum_of_values(held["files"]) != held["sha256"]
    except FileNotFoundError:
        return [f"{CHECKSUMS} is missing"] if promised else []
    except (ValueError, KeyError, TypeError):
        damaged = True
    if damaged:
        return [f"{CHECKSUMS} is damaged"]
    index, count = share
    own = [(PurePath(name), tuple(found)) for name, found in held["files"].items()][index::count]
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(lambda one: _differs(checkpoint, one[0], one[1], small), own)
        return [phrase for phrase in found if phrase]


def _differs(
    checkpoint: RunPath, file: PurePath, expected: tuple[Any, ...], small: bool
) -> str | None:
    path = checkpoint / file
    if not path.is_file():
        return f"{file} is missing"
    size = epath.Path(path).stat().length
    if str(file) != STEP_METADATA and size != expected[0]:
        return f"{file} has {size} bytes, not {expected[0]}"
    if small and size > SMALL_BYTES:
        return None
    return None if _sum(checkpoint, file) == expected else f"{file} holds other bytes"


def _files(checkpoint: RunPath) -> Iterator[PurePath]:
    """Yield the files of a checkpoint by their place in it."""
    for path in files_below(checkpoint):
        file = PurePath(str(path.relative_to(checkpoint)))
        if str(file) not in (CHECKSUMS, COMMITTED):
            yield file


def _sum(checkpoint: RunPath, file: PurePath) -> tuple[int, str]:
    """Return the size in bytes and SHA-256."""
    path = checkpoint / file
    if str(file) == STEP_METADATA:
        return _sum_without_commit(path)
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _sum_without_commit(path: RunPath) -> tuple[int, str]:
    """Return the checksum of Orbax's own metadata without the time of the commit."""
    try:
        held = json.loads(path.read_bytes())
        held.pop("commit_timestamp_nsecs", None)
    except (ValueError, AttributeError):
        return 0, "no JSON"
    return 0, _sum_of_values(held)


def _sum_of_values(values: Any) -> str:
    """Hash JSON values by SHA-256."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
