"""A hook of the site: a page named in the text, as `docs/tasks.md`, becomes a link to it."""

import re
from pathlib import PurePosixPath
from posixpath import relpath
from typing import Any

NAMED = re.compile(r"(?<!\[)`docs/([\w/]+\.(?:md|ipynb))`")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Link each named page; `--strict` then refuses one that is not there."""
    here = PurePosixPath(page.file.src_uri).parent
    return NAMED.sub(lambda found: f"[{found[0]}]({relpath(found[1], here)})", markdown)
