"""Defaults for what a task need not bring: its hash, picture and tokenizer, from its examples."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gmma.errors import UserError
from gmma.tasks.configs import TaskConfig
from gmma.tasks.page import TRUTH, Block, draw_page, put_above
from gmma.tasks.records import fingerprint
from gmma.tasks.storage import SPLITS
from gmma.tasks.task import Demonstration, Task
from gmma.tasks.vocabulary import corpus_texts, prepare_vocabulary
from gmma.types import Example

_VOCABULARY = 1024  # upper bound of a tokenizer for the tiny family
_ANSWER_LINES = 12  # of an answer's text in a picture


def hash_content(task: Task[Any], config: TaskConfig, data_dir: Path) -> str:
    """Return the task's hash of its records, or one of all examples of all splits."""
    if task.content is not None:
        return task.content(config, data_dir)
    digest = hashlib.sha256()
    for split in SPLITS:
        source = task.source(config, data_dir, split)
        digest.update(f"{split} {len(source)}\0".encode())
        for row in range(len(source)):
            example = source[row]
            plain = json.dumps(dict(example.columns), sort_keys=True, default=_spell)
            digest.update(json.dumps([example.id, example.question, plain]).encode())
            for image in example.images:
                digest.update(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def _spell(value: object) -> object:
    """Spell what JSON has not, alike in every process."""
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if type(value).__repr__ is object.__repr__:
        raise UserError(
            f"a column holds a {type(value).__name__}, which spells itself otherwise in every "
            "process; give the task a `content` of its own, or plain values to its columns"
        )
    return repr(value)


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer, and what a picture says of it."""

    answer: str  # "": there is none to read
    note: str = ""  # its reward, or a metric
    written: str | None = None  # where the form was broken, all that was written


def draw_answers(
    task: Task[Any], config: TaskConfig, example: Example, said: Sequence[Said] = ()
) -> Image.Image:
    """Return a picture of an example: all its images, question, truth, and answers with rewards.

    The task draws truth and answers on the first image, where it can; the page below says which
    colour is whose.
    """
    if task.part_of is not None:
        return draw_answers(*task.part_of(config, example), said)
    drawn = task.draw and task.draw(config, example, [one.answer for one in said])
    pictures = [drawn] if drawn else []
    pictures += [Image.fromarray(image) for image in example.images[len(pictures) :]]
    colour_of = task.answer_colour if drawn else None
    known = [example.columns[name] for name in ("answer",) if name in example.columns]
    truth = [Block(heading="truth", text=str(answer), colour=TRUTH) for answer in known]
    blocks = [
        Block(heading="question", text=example.question),
        *truth,
        *([Block(heading="colours", text=task.legend)] if drawn and task.legend else []),
        *(answer_block(at, one, colour_of and colour_of(at)) for at, one in enumerate(said)),
    ]
    return put_above(pictures, draw_page(blocks))


def answer_block(place: int, said: Said, swatch: tuple[int, int, int] | None) -> Block:
    """Return an answer's text under its number and note; where the form was broken, all of it."""
    heading = f"answer {place + 1}" + (f": {said.note}" if said.note else "")
    text = said.answer
    if said.written is not None:
        heading, text = f"{heading}; form broken, written:", said.written
    shown = text if text.strip() else "(nothing)"
    return Block(heading=heading, text=shown, swatch=swatch, most_lines=_ANSWER_LINES)


def own_tokenizer(task: Task[Any], config: TaskConfig, data_dir: Path) -> Path:
    """Return the SentencePiece model of a built task's own text, trained here if it brings none."""
    if task.tokenizer_path is not None:
        return task.tokenizer_path(config, data_dir)
    name = f"{fingerprint(config.name, hash_content(task, config, data_dir))}.model"
    path = Path(data_dir) / "tokenizers" / name

    def demonstrate(example: Example, rng: np.random.Generator) -> Demonstration | None:
        return None if task.demonstrate is None else task.demonstrate(config, example, rng)

    corpus = corpus_texts(task.source(config, data_dir, "train"), demonstrate)
    prepare_vocabulary(path, corpus, _VOCABULARY)
    return path
