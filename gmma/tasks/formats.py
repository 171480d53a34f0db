"""Other layouts of records, turned into that of a manifest (`gmma.tasks.manifest`).

Each function takes what the file holds, and its path, and gives manifest records; what it cannot
read is a UserError. Questions are ours where the layout brings none.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gmma.errors import UserError
from gmma.files import read_json
from gmma.tasks.records import read_number, require_text, spell_value
from gmma.tasks.truths import read_flag

CLASSES = "classes.json"
AFFORDANCES = {
    "grasp": "grasp it by",
    "cut": "cut with",
    "scoop": "scoop with",
    "contain": "put things into",
    "pound": "pound with",
    "support": "lay things on",
    "wrap-grasp": "wrap the hand around",
}


def manifest_rows(document: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a manifest as they are."""
    if not isinstance(document, list):
        raise UserError(f"{path} holds a {type(document).__name__}, not a list of records")
    yield from document


def coco_rows(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Read COCO instances: one record per image that has boxes, asked for the shown categories.

    Boxes become `[x1, y1, x2, y2]`; a crowd region stays in the answer with `crowd`.
    """
    try:
        names = _one_each(
            ((category["id"], category["name"]) for category in document["categories"]),
            f"{path}: categories of id",
        )
        images = _one_each(
            ((image["id"], image) for image in document["images"]), f"{path}: images of id"
        )
        annotations = list(document["annotations"])
    except (KeyError, TypeError) as error:
        if isinstance(document, list):
            raise UserError(
                f"{path} is no COCO instances file but a list of {len(document)} records; is "
                "task.records.format = manifest meant?"
            ) from error
        raise UserError(
            f"{path} is no COCO instances file: {type(error).__name__} {error}; it needs images, "
            "annotations with bbox, and categories"
        ) from error
    found: dict[Any, list[dict]] = {image: [] for image in images}
    for number, annotation in enumerate(annotations):
        try:
            found[annotation["image_id"]].append(_coco_entry(annotation, names))
        except (KeyError, TypeError, ValueError, UserError) as error:
            name = annotation.get("id") if isinstance(annotation, Mapping) else None
            why = f"no {error}" if isinstance(error, KeyError) else error
            raise UserError(
                f"annotation {number} (id {name}) of {path}: {why}; it needs bbox [x, y, width, "
                "height], and the ids of an image and of a category"
            ) from error
    order = list(names.values())
    for image, entries in found.items():
        if any("crowd" not in entry for entry in entries):
            yield {
                "id": image,
                "question": coco_question(entries, order),
                "question_type": "detection",
                "answer": entries,
                "image": images[image].get("file_name"),
                **_size_of(images[image]),
            }


def _one_each(pairs: Iterable[tuple[Any, Any]], what: str) -> dict[Any, Any]:
    """Make a dictionary of pairs. UserError where a key stands twice."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UserError(f"{what} {spell_value(key)}: there are two; give each its own")
        found[key] = value
    return found


def _coco_entry(annotation: Mapping[str, Any], names: Mapping[Any, str]) -> dict[str, Any]:
    x, y, width, height = (read_number(side, "a side of bbox") for side in annotation["bbox"])
    crowd = read_flag(annotation.get("iscrowd", 0), "iscrowd")
    label = require_text(names[annotation["category_id"]], "the category's name")
    box = [x, y, x + width, y + height]
    return {"label": label, "box": box} | ({"crowd": True} if crowd else {})


def _size_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image's size that a row gives, where it gives one."""
    return {key: row[key] for key in ("width", "height") if key in row}


def coco_question(entries: Sequence[Mapping[str, Any]], order: Sequence[str]) -> str:
    """Ask for the categories of the entries that are no crowd, in the data set's order."""
    asked = {entry["label"] for entry in entries if "crowd" not in entry}
    return f"Find every {spell_list(sorted(asked, key=order.index))} in the image."


def spell_list(words: Sequence[str]) -> str:
    """Spell a list of words as one reads it aloud.

    >>> spell_list(["cup", "bowl", "spoon"]), spell_list(["cup"])
    ('cup, bowl and spoon', 'cup')
    """
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def umd_rows(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Read part affordances as in the UMD data set: one record per affordance of a frame.

    `classes.json` beside the file names the mask values. The box is that of the largest component.
    """
    values = _class_values(path.parent / CLASSES)
    for row in _rows(document, path, ("id", "tool", "image", "mask", "affordances")):
        if not isinstance(row["affordances"], Mapping):
            raise UserError(f"{path}: frame {row['id']}: affordances are no object of regions")
        for name, region in row["affordances"].items():
            boxed = isinstance(region, Mapping) and "main_bbox_xyxy" in region
            if name not in values or not boxed:
                raise UserError(f"{path}: frame {row['id']} has no class or no box for {name!r}")
            yield {
                "id": f"{row['id']}/{name}",
                "question": f"Find the part of the {row['tool']} to {AFFORDANCES.get(name, name)}.",
                "question_type": "affordance",
                "answer": region["main_bbox_xyxy"],
                "image": row["image"],
                "mask": row["mask"],
                "mask_value": values[name],
                **_size_of(row),
            }


def _class_values(path: Path) -> dict[str, int]:
    """Map names to values in the mask."""
    try:
        named = [
            (require_text(name, f"{path}: the name of {value}"), int(value))
            for value, name in read_json(path).items()
        ]
    except ValueError as error:
        raise UserError(f'{path} is no object of {{"value": "name"}} ({error})') from error
    return _one_each(named, f"{path}: values of name")


def demand_rows(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Read demands over photographs: any of the boxes and any of the names is right."""
    wanted = ("image", "demand", "target_categories", "boxes_xyxy")
    for number, row in enumerate(_rows(document, path, wanted)):
        yield {
            "id": number,
            "question": row["demand"],
            "question_type": "demand",
            "answer": {"boxes": row["boxes_xyxy"], "names": row["target_categories"]},
            "image": row["image"],
            **_size_of(row),
        }


def ocr_vqa_rows(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Read questions about text in an image, with a list of accepted answers."""
    for number, row in enumerate(_rows(document, path, ("image", "question", "answers"))):
        yield {
            "id": number,
            "question": row["question"],
            "question_type": "ocr_vqa",
            "answer": row["answers"],
            "image": row["image"],
        }


def files_beside(format: str, path: Path) -> tuple[Path, ...]:
    """Return the files that a layout reads beside the one of its records, where they are."""
    classes = path.parent / CLASSES
    return (classes,) if format == "umd" and classes.is_file() else ()


def _rows(document: Any, path: Path, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(manifest_rows(document, path)):
        missing = [key for key in wanted if not isinstance(row, Mapping) or key not in row]
        if missing:
            raise UserError(f"record {number} of {path} has no {', '.join(missing)}")
        yield row


FORMATS: dict[str, Callable[[Any, Path], Iterator[Mapping[str, Any]]]] = {
    "manifest": manifest_rows,
    "coco": coco_rows,
    "umd": umd_rows,
    "demand": demand_rows,
    "ocr_vqa": ocr_vqa_rows,
}
