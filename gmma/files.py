"""Files that are whole or absent, whenever the process dies."""

import json
from pathlib import Path
from typing import Any

from gmma.errors import UserError

PARTIAL = ".partial"  # ends the name of a file that is still being written


def write_whole(path: Path, text: str) -> None:
    """Replace `path` by a file with this text; a reader finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    partial.write_text(text)
    partial.replace(path)


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises UserError where it is absent or no JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); restore it, or give another run") from error
