"""Check a record's truth before anything is taught or judged by it."""

from collections.abc import Mapping
from typing import Any

from gmma.errors import UserError
from gmma.images.frames import AxisMap
from gmma.rewards.boxes import Box, read_gold_box
from gmma.tasks.records import spell_value

SLACK_PIXELS = 1.0  # how far a truth may stand over the image's edge: what rounding makes


def read_true_box(value: Any) -> Box | None:
    """Return a box `[x1, y1, x2, y2]` of a record, or None where it is none.

    UserError where it has no area, or its corners are not in this order: in an answer any two
    corners will do, but in a record other orders are other layouts.
    """
    box = read_gold_box(value)
    if box is None or (
        not isinstance(value, str) and any(isinstance(side, bool | str) for side in value)
    ):
        return None
    x1, y1, x2, y2 = box if isinstance(value, str) else map(float, value)
    if not (x1 < x2 and y1 < y2):
        raise UserError(
            f"the box {spell_value(value)} is empty or in another order than [x1, y1, x2, y2] with "
            "x1 < x2 and y1 < y2; is it [x, y, width, height]?"
        )
    return box


def read_flag(value: Any, what: str) -> bool:
    """Read true, false, 1 or 0. UserError for anything else; a text is never false."""
    if not isinstance(value, bool | int) or value not in (0, 1):
        raise UserError(f"{what} is {spell_value(value)}, not true or false")
    return bool(value)


def require_keys(value: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    """Raise UserError for a truth with a key that nothing would read."""
    unknown = [str(key) for key in value if key not in known]
    if unknown:
        raise UserError(f"{what} has unknown keys {', '.join(unknown)}; known are {known}")


def require_on_image(
    bounds: Box, size: tuple[int, int], units: AxisMap, frame: str, shown: Any
) -> None:
    """Raise UserError for a truth that is not on its image, or can hardly be in the units said.

    `bounds` is the box round it in pixels, `units` the map from the record's units to pixels. It
    may stand over an edge by a pixel. A truth all of whose numbers are at most 1 is in shares of
    the image, whatever the field `frame` says.
    """
    width, height = size
    x1, y1, x2, y2 = bounds
    one_x, one_y = units.point(1, 1)
    within_one = -one_x <= x1 and x2 <= one_x and -one_y <= y1 and y2 <= one_y
    if frame != "unit" and max(size) > 2 and within_one:
        raise UserError(
            f"no coordinate of the answer {spell_value(shown)} is above 1, on an image of {width} "
            f"x {height} pixels; if they run from 0 to 1, set task.records.frame = unit"
        )
    low, across, down = -SLACK_PIXELS, width + SLACK_PIXELS, height + SLACK_PIXELS
    if low <= x1 and low <= y1 and x2 <= across and y2 <= down:
        return
    hint = "mend the record, or say its units by task.records.frame (pixels, unit, thousandths)"
    if frame == "pixels" and min(x1, y1) >= 0 and max(x2, y2) <= 1000:
        hint = "if coordinates run from 0 to 1000, set task.records.frame = thousandths"
    if frame == "pixels" and min(x1, y1) >= low and x2 <= down and y2 <= across:
        hint += "; or they are of the picture before its EXIF orientation turned it upright"
    raise UserError(
        f"the answer {spell_value(shown)} lies outside its image: in pixels it spans "
        f"[{x1:g}, {y1:g}, {x2:g}, {y2:g}], and the upright image is {width} x {height}; {hint}"
    )
