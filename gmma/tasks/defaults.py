"""Defaults for what a task need not bring: its hash, picture and tokenizer, from its examples."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gmma.errors import UserError
from gmma.tasks.configs import TaskConfig
from gmma.tasks.records import fingerprint
from gmma.tasks.storage import SPLITS
from gmma.tasks.task import Demonstration, Task
from gmma.tasks.vocabulary import corpus_texts, prepare_vocabulary
from gmma.types import Example

_VOCABULARY = 1024  # upper bound of a tokenizer for the tiny family
_WIDTH, _LINE = 672, 18  # pixels of a picture, and of a line of text on it
_COLUMNS = 96  # characters of such a line


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


def draw_answers(
    task: Task[Any], config: TaskConfig, example: Example, answers: Sequence[str]
) -> Image.Image:
    """Return the task's picture of an example and its answers, or its images and the texts."""
    if task.draw is not None:
        return task.draw(config, example, answers)
    known = "answer" in example.columns
    truth = [f"truth: {example.columns['answer']}"] if known else []
    lines = [line for text in (example.question, *truth, *answers) for line in _wrapped(text)]
    images = [Image.fromarray(image) for image in example.images]
    scaled = [im.resize((_WIDTH, max(1, round(im.height * _WIDTH / im.width)))) for im in images]
    above = sum(image.height for image in scaled)
    picture = Image.new("RGB", (_WIDTH, above + _LINE * (len(lines) + 1)))
    top = 0
    for image in scaled:
        picture.paste(image, (0, top))
        top += image.height
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        pen.text((6, above + _LINE * number + 4), line, fill=(255, 255, 255), font_size=13)
    return picture


def _wrapped(text: str) -> Iterator[str]:
    for line in text.splitlines() or [""]:
        yield from (line[at : at + _COLUMNS] for at in range(0, max(len(line), 1), _COLUMNS))


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
