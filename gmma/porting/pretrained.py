"""A Hugging Face model directory in and out, and the plain forward that is compared with theirs."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from PIL import Image

from gmma.errors import UserError
from gmma.families import find_family
from gmma.families.family import Family, one_resolution
from gmma.huggingface.keys import read_json_object
from gmma.huggingface.processors import read_image_section, write_image_section
from gmma.huggingface.table import Place, check_names, find_prefixes
from gmma.huggingface.tokenizers import WORDS, load_tokenizer, tokenizer_files
from gmma.huggingface.weights import (
    read_params,
    same_values,
    shard_files,
    tensor_shapes,
    write_params,
)
from gmma.images.common import rgb_array
from gmma.images.processor import ImageProcessor
from gmma.models.decoder import DType
from gmma.models.layers import Attention, Remat
from gmma.models.policy import Policy
from gmma.options.networks import AS_FILED, Resolution
from gmma.options.prompt import PromptConfig
from gmma.text.prompt import PromptTemplate
from gmma.text.tokenizer import Tokenizer, with_spoken
from gmma.tree.layout import prompt_only
from gmma.types import Example, Params, PyTree, TreeInputs

CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The origin of a model: what an export needs beside the parameters."""

    directory: Path
    config: Mapping[str, Any]  # config.json
    family: Family
    prefixes: Mapping[str, str]  # of the checkpoint's names
    thinking: bool | None = None  # the switch of its chat template
    resolution: Resolution = AS_FILED  # laid over the processor's file
    words: PromptConfig = WORDS  # of the run


@dataclass(frozen=True, kw_only=True)
class Described:
    """A model directory but for its weights."""

    directory: Path
    config: Mapping[str, Any]  # config.json
    family: Family
    policy: Policy
    tokenizer: Tokenizer | None  # None where the directory has none
    thinking: bool | None = None  # the switch of its chat template
    words: PromptConfig = WORDS  # of the run

    @property
    def template(self) -> PromptTemplate:
        """The text around the images and the question of a prompt."""
        read = self.family.tokenizer
        return tokenizer_files(read, self.directory, self.thinking, self.words).template


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model directory, loaded."""

    policy: Policy
    params: Params
    tokenizer: Tokenizer | None  # None where the directory has none
    processor: ImageProcessor | None  # None for a model without images
    template: PromptTemplate
    source: Source


def describe_pretrained(
    directory: str | Path,
    dtype: DType = "float32",
    *,
    remat: Remat = "none",
    attention: Attention = "auto",
    architecture: str | None = None,
    thinking: bool | None = None,
    words: PromptConfig = WORDS,
) -> Described:
    """Read config and tokenizer of a directory; of its weights only whether the head is its own.

    `dtype` is that of the activations; `remat` and `attention` as in `models/layers.py`;
    `architecture` names the family, which else config.json does (`families.find_family`);
    `thinking` is the switch of its chat template (`huggingface/chat.py: prompt_of`); `words` are a
    run's own. UserError for a config that we do not implement, for a tokenizer that lacks a special
    token of its family, and for a chat template that leaves no room for a thought.
    """
    directory = Path(directory)
    config = read_json_object(directory / CONFIG)
    family = find_family(config, str(directory / CONFIG), architecture)
    sizes = family.read_config(config, str(directory / CONFIG), dtype)
    if sizes.tied and has_own_head(directory, family, sizes):
        sizes, config = replace(sizes, tied=False), untied(config)
    model = replace(sizes, remat=remat, attention=attention)
    files = tokenizer_files(family.tokenizer, directory, thinking, words)
    tokenizer = load_tokenizer(directory, files, config, model)
    return Described(
        directory=directory,
        config=config,
        family=family,
        policy=family.policy(model),
        tokenizer=None if tokenizer is None else with_spoken(tokenizer, words.tags.all),
        thinking=thinking,
        words=words,
    )


def has_own_head(directory: Path, family: Family, model: Any) -> bool:
    """Return whether the files hold a head although the config ties it to the embedding.

    Then the files count and not the config, as in transformers 5. Where there are none, or they
    cannot be read, the config counts; what is wrong with them is said when they are needed.
    """
    try:
        files = shard_files(directory)
        shapes = tensor_shapes(files)
    except UserError:
        return False
    table = family.table(model)
    shapes = table.read_of(shapes)
    prefixes = find_prefixes(table, shapes)
    path = next(row.path for row in table.rows if row.alias)
    head, embedding = sorted(
        (row for row in table.rows if row.path == path), key=lambda row: not row.alias
    )
    names = [prefixes[row.part] + row.name for row in (head, embedding)]
    stored = [shapes.get(name) for name in names]
    return None not in stored and stored[0] == stored[1] and not same_values(files, *names)


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json that does not tie head and embedding, on either level."""
    text = config.get("text_config")
    nested = {"text_config": {**text, "tie_word_embeddings": False}} if text else {}
    return {**config, "tie_word_embeddings": False, **nested}


def image_processor(
    described: Described, buckets: Sequence[int] | None, resolution: Resolution = AS_FILED
) -> ImageProcessor | None:
    """Return the directory's image processor; None for a model without images.

    `resolution` is laid over what its file says. UserError where the family does not have it.
    """
    section, family = read_image_section(described.directory), described.family
    if resolution != AS_FILED:
        where = f"{section.where}, with the fields of the model laid over it"
        values = family.resize(section.values, resolution)
        section = replace(section, values=values, where=where)
    processor = family.processor(section, described.policy.config, buckets)
    if processor is None:
        one_resolution({}, resolution)
    return processor


def read_weights(
    described: Described, dtype_of: Callable[[str], str], shardings: PyTree | None = None
) -> tuple[Params, Source]:
    """Read the parameters of a directory, each tensor straight to its devices in its type.

    UserError for a missing or truncated file, and for names or shapes that do not match.
    """
    files = shard_files(described.directory)
    source, places = match_names(described, tensor_shapes(files))
    return read_params(files, places, dtype_of, shardings), source


def check_weights(described: Described) -> None:
    """Raise UserError where `read_weights` would; reads only headers."""
    match_names(described, tensor_shapes(shard_files(described.directory)))


def match_names(
    described: Described, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Source, dict[str, Place]]:
    """Return the destinations of a checkpoint's tensors. UserError listing what does not match."""
    table = described.family.table(described.policy.config)
    shapes = table.read_of(shapes)
    prefixes = find_prefixes(table, shapes)
    places = table.places(prefixes)
    check_names(places, shapes, str(described.directory))
    source = source_of(described, prefixes)
    return source, places


def source_of(described: Described, prefixes: Mapping[str, str]) -> Source:
    """Keep of a directory what the way back needs."""
    return Source(
        directory=described.directory,
        config=described.config,
        family=described.family,
        prefixes=prefixes,
        thinking=described.thinking,
        words=described.words,
    )


def load_pretrained(
    directory: str | Path,
    dtype: DType = "float32",
    *,
    shardings: Callable[[Policy], PyTree] | None = None,
    image_buckets: Sequence[int] | None = None,
    architecture: str | None = None,
) -> Pretrained:
    """Load a model from a Hugging Face directory: config, *.safetensors, tokenizer, processor.

    `dtype` is that of parameters and activations. `shardings` turns the policy into a tree of
    shardings like its parameters. `image_buckets` are the sizes that the images of a row are padded
    to (images for Gemma, windows for Qwen2.5-VL, tokens for Qwen3-VL). `architecture` as in
    `describe_pretrained`. UserError for a config that we do not implement, a missing or truncated
    file, names that do not match.
    """
    described = describe_pretrained(directory, dtype, architecture=architecture)
    placed = None if shardings is None else shardings(described.policy)
    params, source = read_weights(described, lambda path: dtype, placed)
    return Pretrained(
        policy=described.policy,
        params=params,
        tokenizer=described.tokenizer,
        template=described.template,
        processor=image_processor(described, image_buckets),
        source=source,
    )


def save_pretrained(
    directory: str | Path, pretrained: Pretrained, dtype: DType | None = None
) -> None:
    """Write a directory that transformers loads: the source's config and tokenizer, our parameters.

    Tensors keep the source's names; their type is `dtype`, or that of the parameters. UserError
    where there are adapters, which such a directory cannot hold.
    """
    if "lora" in pretrained.params:
        raise UserError("the parameters hold adapters; merge them, or export them by themselves")
    directory = Path(directory)
    source = pretrained.source
    if directory.resolve() == source.directory.resolve():
        raise UserError(f"{directory} is where the model came from; export to another directory")
    directory.mkdir(parents=True, exist_ok=True)
    table = source.family.table(pretrained.policy.config)
    write_params(directory, pretrained.params, table.places(source.prefixes), dtype)
    held = str(jax.tree.leaves(pretrained.params["params"])[0].dtype)
    config = dict(source.config)
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype or held
    write_config(directory, config)
    copy_companions(source, directory)


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    """Write a directory's config.json."""
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def copy_companions(source: Source, directory: Path) -> None:
    """Copy a model's files beside its config and weights into another directory.

    The processor's file says at which resolution the model was trained.
    """
    for path in companion_files(source.directory):
        shutil.copyfile(path, directory / path.name)
    if source.resolution != AS_FILED:
        values = read_image_section(directory).values
        write_image_section(directory, source.family.resize(values, source.resolution))


def chat_of(source: Source) -> str:
    """Return the chat template with which a run from this directory was trained."""
    read = source.family.tokenizer
    return tokenizer_files(read, source.directory, source.thinking, source.words).chat


def companion_files(directory: Path) -> list[Path]:
    """Tokenizer, processor, template and generation files of a model directory."""
    kept = (".json", ".model", ".txt", ".jinja", ".tiktoken")
    return [
        path
        for path in sorted(directory.iterdir())
        if path.suffix in kept and path.name != CONFIG and "safetensors" not in path.name
    ]


def reference_logits(
    pretrained: Pretrained,
    tokens: Int[np.ndarray, "B N"],
    images: Sequence[Sequence[Image.Image]] | None = None,
    lengths: Int[np.ndarray, "B"] | None = None,
) -> Float[np.ndarray, "B N V"]:
    """Compute the plain forward of one sequence a row, left-aligned; float32.

    `images` holds a list of PIL images per row, whose placeholder tokens the row already holds;
    `lengths` the true lengths, all N by default. UserError where placeholders and images disagree.
    """
    tokens = np.asarray(tokens, np.int32)
    batch, slots = tokens.shape
    lengths = np.full(batch, slots) if lengths is None else np.asarray(lengths)
    rows = images if images is not None else [[] for _ in range(batch)]
    examples = [image_example(row, i) for i, row in enumerate(rows)]
    check_placeholders(pretrained, tokens, examples)
    arrays = None
    if pretrained.processor is not None:
        arrays = pretrained.processor.to_arrays(examples)
    positions = np.broadcast_to(np.arange(slots, dtype=np.int32), (batch, slots))
    inputs = TreeInputs(
        tokens=jnp.asarray(tokens),
        positions=jnp.asarray(positions),
        valid=jnp.asarray(positions < lengths[:, None]),
        images=arrays,
        shape=prompt_only(slots),
    )
    return np.asarray(plain_logits(pretrained.policy, pretrained.params, inputs), np.float32)


@partial(jax.jit, static_argnums=0)
def plain_logits(policy: Policy, params: Params, inputs: TreeInputs) -> Float[Array, "B S V"]:
    """Compute logits of every slot."""
    return policy.unembed(params, policy.forward(params, inputs))


def image_example(images: Sequence[Image.Image], row: int) -> Example:
    """Return a record with nothing but images."""
    pixels = tuple(rgb_array(image) for image in images)
    return Example(question="", images=pixels, columns={}, id=f"row {row}")


def check_placeholders(
    pretrained: Pretrained, tokens: Int[np.ndarray, "B N"], examples: Sequence[Example]
) -> None:
    """Check that every row holds as many placeholders as its images have tokens."""
    if len(examples) != len(tokens):
        raise UserError(f"{len(tokens)} rows of tokens but {len(examples)} rows of images")
    for row, example in zip(tokens, examples, strict=True):
        if not example.images:
            continue
        if pretrained.processor is None:
            raise UserError(f"{example.id} has images, but this model has no image tower")
        views = [pretrained.processor.view_tokens(image) for image in example.images]
        needed = sum(map(sum, views))
        held = int((row == pretrained.policy.config.image_token).sum())
        if needed != held:
            raise UserError(
                f"{example.id} holds {held} image placeholders and its {len(example.images)} "
                f"images have {needed} tokens; repeat the placeholder once per token"
            )
