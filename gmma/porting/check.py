"""Everything that is wrong with a Hugging Face directory, found before anything is read of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gmma.errors import UserError, UserErrors, problems_of
from gmma.families import find_family
from gmma.families.family import Family
from gmma.huggingface.keys import read_json_object
from gmma.huggingface.tokenizers import load_tokenizer
from gmma.huggingface.weights import shard_files, tensor_shapes
from gmma.porting.pretrained import (
    CONFIG,
    Described,
    has_own_head,
    image_processor,
    match_names,
)
from gmma.text.prompt import check_tags
from gmma.text.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The content of a directory."""

    family: str  # model_type
    layers: int
    vocab_size: int
    tensors: int
    shards: tuple[Path, ...]
    sees_images: bool
    tied: bool  # the head is the embedding


def check_directory(directory: str | Path, architecture: str | None = None) -> Findings:
    """Check config, weights, names and shapes, tokenizer, image processor; no weight is read.

    One UserError lists all problems. Where config.json cannot be read, the names of the tensors,
    the tokenizer and the processor cannot be judged, and the error says so.
    """
    directory, problems = Path(directory), list[str]()
    where = directory / CONFIG
    config = read_json_object(where)
    family = find_family(config, str(where), architecture)

    def attempt(step: Callable[[], T]) -> T | None:
        try:
            return step()
        except UserError as error:
            problems.extend(problems_of(error))
            return None

    files = attempt(partial(shard_files, directory))
    shapes = attempt(partial(tensor_shapes, files)) if files else None
    model = attempt(partial(family.read_config, config, str(where), "float32"))
    if model is None:
        problems.append(
            "names, shapes, tokenizer and processor were not checked: they depend on it"
        )
        raise UserErrors(problems)
    if model.tied and has_own_head(directory, family, model):
        model = replace(model, tied=False)
    described = Described(
        directory=directory,
        config=config,
        family=family,
        policy=family.policy(model),
        tokenizer=attempt(partial(need_tokenizer, directory, family, config, model)),
    )
    if shapes is not None:
        attempt(partial(match_names, described, shapes))
    attempt(partial(image_processor, described, None))
    if problems:
        raise UserErrors(problems)
    assert files is not None
    assert shapes is not None
    return Findings(
        family=str(config["model_type"]),
        layers=model.layers,
        vocab_size=model.vocab_size,
        tensors=len(shapes),
        shards=tuple(files),
        sees_images=model.vision is not None,
        tied=model.tied,
    )


def need_tokenizer(
    directory: Path, family: Family, config: Mapping[str, Any], model: Any
) -> Tokenizer:
    """Return the directory's tokenizer. UserError where it has none, or one that loses a tag.

    Nor is it with one that loses a tag of the response.
    """
    found = load_tokenizer(directory, family.tokenizer(directory), config, model)
    if found is None:
        raise UserError(f"{directory} has no tokenizer; copy that of the original model")
    check_tags(found, f"the tokenizer of {directory}")
    return found
