"""The records of the task `vqa`: from any layout to a dataset on disk, in pixels."""

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from gmma.answers.math_text import find_answer, marks_answer
from gmma.errors import UserError, printable
from gmma.images.frames import between
from gmma.rewards.terms import RESERVED
from gmma.tasks.kinds import KINDS, KindName, Order, list_choices, read_choices
from gmma.tasks.layouts import (
    ANSWERS,
    BARE_BOXES,
    CHOICES,
    EXPRESSIONS,
    LAYOUTS,
    LISTED,
    THOUGHTS,
    Keys,
    Laid,
    LayoutName,
    lay_out,
)
from gmma.tasks.manifest import FEATURES, TruthError, stored_form
from gmma.tasks.pictures import check_picture, decode_picture, find_picture, is_encoded, name_in
from gmma.tasks.records import fingerprint, named_columns, refuse_tags, spell_value
from gmma.tasks.splits import FilesConfig, PixelSize, drawn_split, require_kept
from gmma.tasks.storage import SPLITS, Storage
from gmma.tasks.tables import own_split, read_rows, source_files
from gmma.tasks.truths import require_on_image
from gmma.tasks.turns import find_key, split_response
from gmma.tasks.visual import AskedConfig, bounds_of
from gmma.text.prompt import IMAGE_MARK
from gmma.types import Example

PICTURE_KEYS = ("bytes", "path", "url")  # of an object that stands for a picture
OWN_COLUMNS = RESERVED | {  # of an example, and what scoring adds
    *("answer", "choices", "kind", "image_size", "pixels", "thought", "taught"),
    *("question", "images", "id", "prompts", "completions"),
}


@dataclass(frozen=True, kw_only=True)
class VqaFiles(FilesConfig):
    """Places of the records, their layout and units, and how they are split."""

    layout: LayoutName = "auto"  # of a record (`gmma.tasks.layouts`); auto: the first that fits
    # Numbers of a box: corners, or corner, width and height. None: xyxy, but of a key `bbox` or
    # `box` it must be said, for both are in use there
    order: Order | None = None


@dataclass(frozen=True, kw_only=True)
class VqaConfig(AskedConfig):
    """Records of any layout, and the kind of their answers."""

    name: Literal["vqa"] = "vqa"  # which task this is
    kind: KindName = "text"  # of the answers (`gmma.tasks.kinds`)
    records: VqaFiles = field(default_factory=VqaFiles)
    keys: Keys = field(default_factory=Keys)
    # What `score` measures: a reward of gmma, or your own as module:function; "": the reward `vqa`
    metric: str = ""
    relative_tolerance: float = 0.0  # a number is right within this share of the true one

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.relative_tolerance < 1:
            raise UserError(
                f"vqa: relative_tolerance is {self.relative_tolerance}; it must be within [0, 1)"
            )
        if self.keys.question and self.keys.question == self.keys.answer:
            raise UserError(
                f"vqa: task.keys.question and task.keys.answer are both {self.keys.question}; give "
                "each its own key (the answer may also be the last turn of a conversation)"
            )
        if self.keys.choices and self.kind != "choice":
            raise UserError(
                f"vqa: task.keys.choices = {self.keys.choices}, but task.kind = {self.kind} has no "
                "choices; set task.kind = choice, or leave it out"
            )
        if self.augment.flip_rate:
            raise UserError(
                f"vqa: augment.flip_rate = {self.augment.flip_rate}, but a question of any kind "
                "may be about text or sides, which a mirror changes; set it to 0"
            )


@dataclass(frozen=True, kw_only=True)
class VqaRecord:
    """One record, its texts and paths checked; whether the answer is one of its kind is not."""

    id: str
    question: str
    pictures: tuple[Path | bytes, ...]
    laid: Laid
    place: str  # what splits go by: its first picture, or its question


def storage(config: VqaConfig, data_dir: Path) -> Storage:
    """Describe the dataset on disk, named after the content of the files of the records."""
    paths = dict.fromkeys(config.records.file_of(split) for split in SPLITS)
    files = [file for path in paths for file in source_files(path)]
    name = f"vqa_{fingerprint(config.records, config.keys, config.kind, *files)}"
    file = functools.cache(functools.partial(read_file, config))  # splits share one
    read = functools.cache(lambda split: read_records(config, split, file))

    @functools.cache
    def columns() -> dict[str, None]:
        every = [record for split in SPLITS for record in read(split)]
        require_named(config.keys, every)
        if config.kind == "choice" and all(
            record.laid.choices is None and not LISTED.search(record.question) for record in every
        ):
            print(
                "warning: no record has choices, and no question lists any: --task.keys.choices "
                f"NAME says where they are; the keys are {', '.join(every[0].laid.keys)}",
                file=sys.stderr,
            )
        return dict.fromkeys(key for record in every for key in rest_of(record))

    def records(split: str) -> Iterator[dict[str, Any]]:
        left_out: list[str] = []
        for record in read(split):
            try:
                yield stored(record, config, columns())
            except TruthError as error:
                if config.records.wrong_truths == "refuse":
                    raise UserError(
                        f"{error}; mend it, or leave such records out: "
                        "task.records.wrong_truths = leave_out"
                    ) from None
                left_out.append(str(error))
        if left_out:
            print(
                f"{split}: {len(left_out)} of {len(read(split))} records left out; the first: "
                f"{left_out[0]}",
                file=sys.stderr,
            )

    def pictures() -> Iterator[Path]:
        for split in SPLITS:
            for record in read(split):
                yield from (file for file in record.pictures if isinstance(file, Path))

    return Storage(
        name="vqa",
        directory=Path(data_dir) / name,
        features=FEATURES,
        records=records,
        version="1.2.0",  # what is read has changed
        files=pictures,
        description=__doc__ or "",
    )


ReadFile = Callable[[Path, str], list[VqaRecord]]


def read_records(config: VqaConfig, split: str, read: ReadFile | None = None) -> list[VqaRecord]:
    """Read a split's records in the order of its file. UserError naming a wrong record.

    `read` is `read_file` of this config, or what keeps what that gave.
    """
    files = config.records
    own = [
        name
        for name in SPLITS[1:]
        if getattr(files, name) is not None or own_split(files.train, name) is not None
    ]
    path = files.file_of(split)
    read = functools.partial(read_file, config) if read is None else read
    kept = records = read(path, split if split in own else "train")
    if split not in own:
        kept = [r for r in records if drawn_split(files, r.place, own) == split]
    require_kept(files, split, kept, len(records))
    return kept


def read_file(config: VqaConfig, path: Path, split: str) -> list[VqaRecord]:
    """Read all records of a file, or those of a split of a folder that has it."""
    files = config.records
    folder = (path if path.is_dir() else path.parent) if files.images is None else files.images
    return [
        check_record(laid, str(number), folder, config)
        for number, (where, row) in enumerate(read_rows(path, split))
        for laid in lay_out(row, where, files.layout, config.keys, config.kind)
    ]


def require_named(keys: Keys, records: Sequence[VqaRecord]) -> None:
    """Raise UserError where the config names a key that no record of any split has."""
    for part, key in vars(keys).items():
        if key and not any(part in record.laid.named for record in records):
            seen = list(dict.fromkeys(name for record in records for name in record.laid.keys))
            near = get_close_matches(key, seen, 1)
            meant = f"; is it {near[0]!r}?" if near else ""
            raise UserError(
                f"task.keys.{part} = {key}, but no record has a value there; their keys are "
                f"{', '.join(seen)}{meant}"
            )


def check_record(laid: Laid, number: str, folder: Path, config: VqaConfig) -> VqaRecord:
    """Check a record's marks and order, find its pictures. UserError naming it and its key."""
    outside = config.records.outside_images
    pictures = tuple(
        read_picture_value(folder, value, f"{laid.where}: image", outside) for value in laid.images
    )
    own = laid.answer_key.rpartition(".")[2]
    if own in BARE_BOXES and "box" in config.kind and config.records.order is None:
        raise UserError(
            f"{laid.where} has its box under {own}, which may be [x, y, width, height] or "
            "[x1, y1, x2, y2]; say it by task.records.order = xywh or xyxy"
        )
    first = pictures[0] if pictures else laid.question.encode()
    place = name_in(folder, first) if isinstance(first, Path) else hashlib.sha256(first).hexdigest()
    return VqaRecord(
        id=number if laid.id is None else printable(str(laid.id)),
        question=laid.question,
        pictures=pictures,
        laid=laid,
        place=place,
    )


def read_picture_value(folder: Path, value: Any, what: str, outside: Any) -> Path | bytes:
    """Return a picture's bytes where the record holds them, or the file of its path."""
    if isinstance(value, Mapping):
        held = find_key(value, PICTURE_KEYS)
        if not held.key:
            raise UserError(
                f"{what} is {spell_value(value)}, with nothing under {' or '.join(PICTURE_KEYS)}; "
                "give a path, or name the key: task.keys.images"
            )
        value = held.value
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and is_encoded(value):
        return decode_picture(value, what)
    return find_picture(folder, value, what, outside)


def require_marks(question: str, images: int, where: str) -> None:
    """Raise UserError where a question says `<image>`, but not as often as there are images."""
    marks = question.count(IMAGE_MARK)
    if marks not in (0, images):
        raise UserError(
            f"{where}: the question says {IMAGE_MARK} {marks} times and the record has {images} "
            "images; say it once for each or not at all, and see that task.keys.images names the "
            "key of the images"
        )


def rest_of(record: VqaRecord) -> dict[str, Any]:
    """Return the keys of a record as columns: what JSON can hold of them.

    Parts that gmma has a column of that name for are left out. Names are those of `named_columns`.
    """
    kept = {}
    own = {key: value for key, value in record.laid.own.items() if key not in OWN_COLUMNS}
    for key, value in {**own, **record.laid.rest}.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):  # bytes, dates: nothing that a reward compares
            continue
        kept[key] = value
    return named_columns(kept, OWN_COLUMNS, record.laid.where)


def unread_keys(config: VqaConfig, example: Example) -> list[str]:
    """Return the columns of an example that are keys of its record, and no part of it."""
    usual = (*ANSWERS, *EXPRESSIONS, *THOUGHTS, *CHOICES, "question_id")
    known = {*usual, *(key for layout in LAYOUTS.values() for key in layout.question)}
    known |= {*OWN_COLUMNS, *vars(config.keys).values()}
    return [name for name in example.columns if name not in known]


def stored(record: VqaRecord, config: VqaConfig, columns: Mapping[str, None]) -> dict[str, Any]:
    """Return a record as it is stored, its truth in pixels. TruthError where that is wrong."""
    laid = record.laid
    sizes = [check_picture(file, laid.where) for file in record.pictures]
    try:
        choices = [] if laid.choices is None else read_choices(laid.choices)
        thought, answer = solve(laid, config.kind)
        truth = read_truth_of(answer, choices, sizes, config)
    except UserError as error:
        raise TruthError(f"{laid.where}: {error}") from None
    question = list_choices(record.question, choices) if choices else record.question
    require_marks(question, len(sizes), laid.where)
    return stored_form(
        id=record.id,
        question=question,
        answer={
            "answer": truth,
            "choices": choices,
            "system": laid.system,
            "rest": {**dict.fromkeys(columns), **rest_of(record)},
        },
        images=[f if isinstance(f, bytes) else f.read_bytes() for f in record.pictures],
        thought=thought,
    )


def solve(laid: Laid, kind: str) -> tuple[str, Any]:
    """Return a record's reasoning trace, "" for none, and its answer.

    Both may stand in one text: between tags, or for numbers and choices a solution that marks its
    result. UserError for a solution that marks none, and for a trace that is no text.
    """
    thought, answer = laid.thought, laid.answer
    if not isinstance(thought, str):
        raise UserError(f"the thought is {spell_value(thought)}, a {type(thought).__name__}")
    if isinstance(answer, str):
        before, answer = split_response(answer)
        if not before and kind in ("number", "choice"):
            solution = answer
            if marks_answer(solution):
                before = solution.partition("####")[0].strip() if "####" in solution else solution
                answer = find_answer(solution)
                before = "" if before == answer else before
            elif laid.solved and " " in solution.strip():
                raise UserError(
                    "the solution marks no result (\\boxed{…}, ####), and its whole text is none: "
                    f"{spell_value(solution)}; name the result's key by task.keys.answer"
                )
        thought = thought or before
    thought, inside = split_response(thought) if thought.strip() else ("", "")
    thought = thought or inside
    return refuse_tags(thought, "the thought"), answer


def read_truth_of(
    answer: Any, choices: Sequence[str], sizes: Sequence[PixelSize], config: VqaConfig
) -> Any:
    """Return the truth of a record's answer, in pixels of its first image; UserError if wrong."""
    kind, files = KINDS[config.kind], config.records
    truth = kind.read(answer, files.order or "xyxy", choices)
    if kind.move is None:
        return truth
    if not sizes:
        raise UserError(
            f"the record has no image, and its answer is a {config.kind} on one; task.keys.images "
            "can name the key"
        )
    units = between(files.frame_size(sizes[0]), sizes[0])
    truth = kind.move(truth, units)
    if (bounds := bounds_of(kind.corners(truth))) is not None:
        require_on_image(bounds, sizes[0], units, files.frame, answer)
    return truth
