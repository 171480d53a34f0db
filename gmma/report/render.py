"""One HTML page from a template and data: scripts, styles and pictures inside, no request."""

import base64
import html
import io
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from gmma.errors import UserError
from gmma.files import RunPath, read_json
from gmma.records.metrics import Record

PAGE_BYTES = 15_000_000  # a page stays below
TREE_BYTES = 8_000_000  # of it for trees and their pictures; too many are left out evenly
CURVE_VALUES = 400_000  # of it for curves, about 9 bytes each
PICTURE_BYTES = 300_000  # a larger picture becomes a JPEG of at most PICTURE_SIDE pixels' width
PICTURE_SIDE = 1280
UPLOT = "uplot-1.6.32"  # npm package uplot, MIT; its licence lies beside it
STYLES = (f"{UPLOT}/uPlot.min.css", "report.css")
SCRIPTS = (f"{UPLOT}/uPlot.iife.min.js", "base.js", "charts.js", "trees.js", "run.js", "sweep.js")


def render_page(data: dict[str, Any]) -> str:
    """Render the page that shows `data`. Raises UserError if it is too large to open well."""
    parts = {
        "title": html.escape(data.get("title", data["name"])),
        "style": "\n".join(map(read_part, STYLES)),
        "script": "\n".join(map(read_part, SCRIPTS)),
        "licence": html.escape(read_part(f"{UPLOT}/LICENSE")),
        "data": embed(data),
    }
    # One pass: what run text brings in is never taken for a place to fill.
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], read_part("page.html"))
    size = len(page.encode())
    if size >= PAGE_BYTES:
        raise UserError(
            f"the page of {data['name']} would have {size:,} bytes, the limit is {PAGE_BYTES:,}; "
            "its texts alone are too many: report on single runs"
        )
    return page


def read_part(name: str) -> str:
    """Return a file of the page's folder."""
    return files("gmma.report").joinpath("page", name).read_text(encoding="utf-8")


def embed(data: Any) -> str:
    """Spell JSON for a script element: no `<`, ASCII only, null for what is not finite.

    >>> embed({"x": "</script>", "y": float("nan")})
    '{"x":"\\\\u003c/script>","y":null}'
    """
    text = json.dumps(finite(data), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def finite(value: Any) -> Any:
    """Replace numbers that JSON has not by None, and cut the others to six digits."""
    if isinstance(value, dict):
        return {str(key): finite(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [finite(own) for own in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def thin(records: Sequence[Record], rows: int) -> list[Record]:
    """Reduce records to at most `rows` that keep the look of every curve.

    Each bucket of steps leaves two rows, and a metric puts its lowest and highest value of the
    bucket into them in the order in which they came: no spike is lost, nothing is averaged.
    """
    if len(records) <= rows:
        return list(records)
    thinned: list[Record] = []
    for bucket in np.array_split(np.arange(len(records)), max(1, rows // 2)):
        own = [records[place] for place in bucket]
        halves: list[Record] = [{"step": own[0]["step"]}, {"step": own[len(own) // 2]["step"]}]
        for name in dict.fromkeys(name for record in own for name in record if name != "step"):
            held = [record[name] for record in own if record.get(name) is not None]
            held = [value for value in held if isinstance(value, str) or math.isfinite(value)]
            if not held:
                continue
            low, high = held.index(min(held)), held.index(max(held))
            halves[0][name] = held[min(low, high)]
            if name == "phase" or low != high:
                halves[1][name] = held[max(low, high)]
        thinned += halves if len(own) > 1 else own
    return thinned


def read_tree(directory: RunPath) -> dict[str, Any] | None:
    """Return a logged tree with its picture as a data URI; None where the files are not whole."""
    if not (directory / "tree.json").exists():
        return None
    tree: dict[str, Any] = {"record": read_json(directory / "tree.json")}
    picture = directory / "image.png"
    if picture.exists():
        tree["image"] = picture_uri(picture.read_bytes())
    return tree


def picture_uri(png: bytes) -> str:
    """Return a picture as a data URI, made smaller where it is large."""
    if len(png) <= PICTURE_BYTES:
        return "data:image/png;base64," + base64.b64encode(png).decode()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((PICTURE_SIDE, 4 * PICTURE_SIDE))  # a page of answers below may be long
    written = io.BytesIO()
    picture.save(written, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def fit_trees(trees: list[dict[str, Any]], limit: int = TREE_BYTES) -> list[dict[str, Any]]:
    """Drop every second tree, keeping the last, until the rest fits; all if one does not.

    >>> fit_trees([{"step": 1}, {"step": 2}, {"step": 3}], limit=25)
    [{'step': 1}, {'step': 3}]
    """
    while trees and sum(len(embed(tree)) for tree in trees) > limit:
        trees = trees[::-2][::-1] if len(trees) > 1 else []
    return trees
