"""Copies from the Hugging Face Hub, by its own library and in its own layout: `CACHE/hub`.

    hf://OWNER/NAME[@REVISION][/PATH]             of a model
    hf://datasets/OWNER/NAME[@REVISION][/PATH]    of a dataset

A private repository is read with the token in HF_TOKEN, or that of `hf auth login`.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from gmma.errors import UserError
from gmma.remote.listing import Listing, RemoteFile, check_names

# Of a whole model: what gmma reads. Repositories hold the same weights in other forms besides.
MODEL_FILES = (".json", ".safetensors", ".model", ".txt", ".jinja")
UNREAD = "consolidated"  # begins the names of weights in their authors' own layout
FORM = re.compile(
    r"hf://(?P<datasets>datasets/)?(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?"
    r"(/(?P<path>.+))?"
)


@dataclass(frozen=True, kw_only=True)
class HubPlace:
    """A repository of the Hub, or something in it."""

    repository: str
    kind: str  # model or dataset
    revision: str | None  # a branch, a tag, a commit; None: main
    path: str  # of a file or a folder; "" for all


def parse_hub(place: str) -> HubPlace:
    """Parse a place of the Hub. Raises UserError for another form.

    >>> parse_hub("hf://datasets/openai/gsm8k@main/main/train.parquet").path
    'main/train.parquet'
    """
    found = FORM.fullmatch(place)
    if found is None:
        raise UserError(
            f"{place} is no place of the Hub; write hf://OWNER/NAME, hf://OWNER/NAME@REVISION, or "
            "hf://datasets/OWNER/NAME/PATH"
        )
    return HubPlace(
        repository=found["repository"],
        kind="dataset" if found["datasets"] else "model",
        revision=found["revision"],
        path=(found["path"] or "").rstrip("/"),
    )


def list_hub(place: str) -> Listing:
    """List what a repository holds. Raises UserError where there is none, or no access."""
    from huggingface_hub import HfApi, constants  # slow, and only the Hub needs it

    at, api = parse_hub(place), HfApi()
    ask = api.dataset_info if at.kind == "dataset" else api.model_info
    try:
        info = ask(at.repository, revision=at.revision, files_metadata=True)
    except Exception as error:  # whatever the library raises: of the network, of access
        raise UserError(
            f"{place} cannot be read from {constants.ENDPOINT} ({_first_line(error)}); where the "
            "Hub cannot be reached, copy it to a bucket or a disk"
        ) from error
    files = tuple(
        RemoteFile(
            name=_name_in(one.rfilename, at.path),
            path=one.rfilename,
            size=one.size or 0,
            version=one.lfs.sha256 if one.lfs else str(one.blob_id),
        )
        for one in info.siblings or ()
        if _is_wanted(one.rfilename, at)
    )
    check_names(place, files)
    return Listing(
        place=place,
        name=(at.path or at.repository).rpartition("/")[2],
        is_file=[file.path for file in files] == [at.path],
        files=files,
        revision=info.sha or "",
    )


def _is_wanted(path: str, at: HubPlace) -> bool:
    if at.path:
        return path == at.path or path.startswith(f"{at.path}/")
    if at.kind == "dataset":
        return True
    return "/" not in path and path.endswith(MODEL_FILES) and not path.startswith(UNREAD)


def _name_in(path: str, folder: str) -> str:
    return path.removeprefix(f"{folder}/") if path != folder else path.rpartition("/")[2]


def copy_from_hub(listing: Listing, cache: Path) -> Path:
    """Return the copy of what was listed; the library fetches what this machine does not have.

    It keeps a half-fetched file apart, and lets one process fetch while others wait.
    """
    from huggingface_hub import snapshot_download

    at = parse_hub(listing.place)
    print(f"looking after {listing.place} in {cache / 'hub'}", file=sys.stderr, flush=True)
    try:
        home = snapshot_download(
            at.repository,
            repo_type=at.kind,
            revision=listing.revision,
            cache_dir=cache / "hub",
            allow_patterns=[file.path for file in listing.files],
        )
    except Exception as error:  # as above
        raise UserError(f"{listing.place} cannot be fetched ({_first_line(error)})") from error
    return Path(home) / at.path


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {text[:300]}"
