"""Other layouts of records, turned into that of a manifest (`gmma.tasks.manifest`).

Each function takes what the file holds, and its path, and gives manifest records; what it cannot
read is a UserError. Questions are ours where the layout brings none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gmma.errors import UserError
from gmma.files import read_json

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
    """A manifest: a list of records."""
    if not isinstance(document, list):
        raise UserError(f"{path} holds a {type(document).__name__}, not a list of records")
    yield from document


def coco_rows(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    """COCO instances: one record per image that has boxes, asked for the categories it shows.

    Boxes become `[x1, y1, x2, y2]`; a crowd region stays in the answer with `crowd`.
    """
    try:
        names = {category["id"]: category["name"] for category in document["categories"]}
        found: dict[Any, list[dict]] = {image["id"]: [] for image in document["images"]}
        for annotation in document["annotations"]:
            x, y, width, height = annotation["bbox"]
            entry = {
                "label": names[annotation["category_id"]],
                "box": [x, y, x + width, y + height],
            }
            crowd = {"crowd": True} if annotation.get("iscrowd", 0) else {}
            found[annotation["image_id"]].append(entry | crowd)
        files = {image["id"]: image["file_name"] for image in document["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no COCO instances file: {type(error).__name__} {error}; it needs images, "
            "annotations with bbox, and categories"
        ) from error
    order = list(names.values())
    for image, entries in found.items():
        if any("crowd" not in entry for entry in entries):
            yield {
                "id": image,
                "question": coco_question(entries, order),
                "question_type": "detection",
                "answer": entries,
                "image": files[image],
            }


def coco_question(entries: Sequence[Mapping[str, Any]], order: Sequence[str]) -> str:
    """Asks for the categories of the entries that are no crowd, in the data set's order."""
    asked = {entry["label"] for entry in entries if "crowd" not in entry}
    return f"Find every {spell_list(sorted(asked, key=order.index))} in the image."


def spell_list(words: Sequence[str]) -> str:
    """Words as one reads them aloud.

    >>> spell_list(["cup", "bowl", "spoon"]), spell_list(["cup"])
    ('cup, bowl and spoon', 'cup')
    """
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def umd_rows(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Part affordances as in the UMD data set: one record per affordance of a frame.

    `classes.json` beside the file names the mask values. The box is that of the largest component.
    """
    values = {name: int(value) for value, name in read_json(path.parent / "classes.json").items()}
    for row in _rows(document, path, ("id", "tool", "image", "mask", "affordances")):
        for name, region in row["affordances"].items():
            if name not in values or "main_bbox_xyxy" not in region:
                raise UserError(f"{path}: frame {row['id']} has no class or no box for {name!r}")
            yield {
                "id": f"{row['id']}/{name}",
                "question": f"Find the part of the {row['tool']} to {AFFORDANCES.get(name, name)}.",
                "question_type": "affordance",
                "answer": region["main_bbox_xyxy"],
                "image": row["image"],
                "mask": row["mask"],
                "mask_value": values[name],
            }


def demand_rows(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Demands over photographs: any of the boxes and any of the names is right."""
    wanted = ("image", "demand", "target_categories", "boxes_xyxy")
    for number, row in enumerate(_rows(document, path, wanted)):
        yield {
            "id": number,
            "question": row["demand"],
            "question_type": "demand",
            "answer": {"boxes": row["boxes_xyxy"], "names": row["target_categories"]},
            "image": row["image"],
        }


def ocr_vqa_rows(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Questions about text in an image, with a list of accepted answers."""
    for number, row in enumerate(_rows(document, path, ("image", "question", "answers"))):
        yield {
            "id": number,
            "question": row["question"],
            "question_type": "ocr_vqa",
            "answer": row["answers"],
            "image": row["image"],
        }


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
