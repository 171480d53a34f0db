"""A SentencePiece model of a task's own text, for the family that brings none."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmma.tasks.configs import TaskConfig
from gmma.tasks.records import fingerprint
from gmma.tasks.task import Demonstration, ExampleSource
from gmma.text.prompt import TAGS, answer_text, prompt_text, split_at_images, thought_text
from gmma.text.tokenizer import train_free_text_sentencepiece

_CORPUS_EXAMPLES = 4096

Demonstrate = Callable[[Any, np.random.Generator], Demonstration | None]


def prepare_vocabulary(
    path: Path, corpus: Iterator[str], vocab_size: int, pieces: Sequence[str] = ()
) -> None:
    """Train a tokenizer that can spell any text, where it is not there yet."""
    if not path.exists():
        wanted = [*TAGS, *pieces]
        train_free_text_sentencepiece(corpus, path, vocab_size=vocab_size, pieces=wanted)


def wording(config: TaskConfig) -> str:
    """Return what names the words of a config among the vocabularies of its task; "" for none."""
    words = (config.system, config.instruction)
    return "" if words == (None, None) else f"_{fingerprint(*words)}"


def corpus_texts(source: ExampleSource, demonstrate: Demonstrate) -> Iterator[str]:
    """Yield the prompts and responses of the first examples, as the trainer will see them."""
    rng = np.random.default_rng(0)
    for index in range(min(len(source), _CORPUS_EXAMPLES)):
        example = source[index]
        asked = "".join(split_at_images(example.question, len(example.images)))
        yield prompt_text(asked, system=example.system)
        shown = demonstrate(example, rng)
        if shown is not None:
            yield thought_text(shown.thought) + answer_text(shown.answer)
