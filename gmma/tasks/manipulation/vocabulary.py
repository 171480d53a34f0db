"""The task's own SentencePiece model, for families that bring none."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gmma.tasks.manipulation.dataset import ManipulationConfig, source, storage
from gmma.tasks.manipulation.teacher import demonstrate
from gmma.tasks.storage import dataset_directory
from gmma.tasks.vocabulary import wording
from gmma.text.prompt import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    THINK_CLOSE,
    THINK_OPEN,
    answer_text,
    prompt_text,
    thought_text,
)
from gmma.text.tokenizer import train_sentencepiece

_CORPUS_SCENES = 240


def tokenizer_path(config: ManipulationConfig, data_dir: Path) -> Path:
    """Return where `build` puts the SentencePiece model of this config."""
    form = f"{config.frame}_{'explained' if config.explain else 'bare'}_{config.vocab_size}"
    name = f"tokenizer_{form}{wording(config)}.model"
    return dataset_directory(storage(config, data_dir)) / name


def prepare_tokenizer(config: ManipulationConfig, data_dir: Path) -> None:
    """Train the model on the training split's text, where it is not there."""
    path = tokenizer_path(config, data_dir)
    if not path.exists():
        corpus = read_corpus(config, data_dir)
        train_sentencepiece(corpus, path, vocab_size=config.vocab_size, pieces=pieces_of(config))


def read_corpus(config: ManipulationConfig, data_dir: Path) -> Iterator[str]:
    """Yield the prompts and responses as the teacher writes them."""
    examples, rng = source(config, data_dir, "train"), np.random.default_rng(0)
    for index in range(min(len(examples), _CORPUS_SCENES)):
        example = examples[index]
        shown = demonstrate(config, example, rng)
        yield prompt_text(example.question)
        yield thought_text(shown.thought) + answer_text(shown.answer)


def pieces_of(config: ManipulationConfig) -> list[str]:
    """Return texts of one token each: an answer's frame, and coordinates if they are pixels."""
    side = config.image_pixels if config.frame == "pixels" else 9  # 0 … 1000 is spelt in digits
    return [
        *(str(n) for n in range(side + 1)),
        THINK_OPEN,
        THINK_CLOSE,
        f'{ANSWER_OPEN}{{"point": [',
        '], "action": "push"}' + ANSWER_CLOSE,
        '], "action": "pull"}' + ANSWER_CLOSE,
    ]
