"""Qwen's tokenizer, prompt and chat template."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library
from tokenizers.models import BPE

from gmma.errors import UserError
from gmma.huggingface.chat import behind, chat_template
from gmma.huggingface.keys import read_json_object
from gmma.huggingface.tokenizers import (
    CHARACTER_OF,
    GROUNDING,
    WORDS,
    TokenizerFiles,
    added_tokens,
    byte_level_bytes,
    library_tokenizer,
    read_library,
)
from gmma.options.prompt import PromptConfig
from gmma.text.prompt import PromptTemplate
from gmma.text.tokenizer import Tokenizer

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPECIAL = (  # behind the byte pairs, in this order
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *GROUNDING,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"  # in its chat template
QWEN_OPENING = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"


def qwen_template(words: PromptConfig, opening: str = QWEN_OPENING) -> PromptTemplate:
    """Return Qwen's published prompt with a run's words."""
    turns = "<|im_end|>\n<|im_start|>assistant\n"
    return PromptTemplate(
        opening=opening,
        system=("<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n"),
        image_open="<|vision_start|>",
        image_close="<|vision_end|>",
        closing=f"{behind(words.spelt_form)}{turns}{words.tags.think[0]}",
        tags=words.tags,
    )


QWEN_TEMPLATE = qwen_template(WORDS)
QWEN_TURNS = """
{%- for message in messages -%}
  {{- "<|im_start|>" + message.role + "\\n" + say(message.content) -}}
  {%- if loop.last and message.role == "user" -%}{{ "$BEHIND" }}{%- endif -%}
  {{- "<|im_end|>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|im_start|>assistant\\n$OPENED" }}{%- endif -%}
"""
QWEN_CHAT = """
{%- if messages[0].role != "system" -%}
  {{- "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n" -}}
{%- endif -%}
""" + QWEN_TURNS.lstrip()


def read_qwen(directory: Path, split: str = QWEN_SPLIT) -> Tokenizer | None:
    """Read tokenizer.json, else vocab.json with merges.txt, else a tiktoken file of byte pairs.

    `split` says where a text is cut before its bytes are paired; a tokenizer.json says it itself.
    """
    tiktoken = sorted(directory.glob("*.tiktoken"))
    if (directory / "tokenizer.json").is_file():
        library = read_library(directory / "tokenizer.json")
    elif (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        vocab, added = read_json_object(directory / "vocab.json"), added_tokens(directory)
        with copied_whole(f"{directory}: vocab.json and merges.txt"):
            lines = (directory / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [tuple(line.split(" ")) for line in lines if line and line[:2] != "#v"]
            library = byte_pairs(vocab, merges, added, split)  # type: ignore[arg-type]
    elif tiktoken:
        with copied_whole(str(tiktoken[0])):
            library = byte_pairs(*tiktoken_pairs(tiktoken[0]), {}, split)
    else:
        return None
    return library_tokenizer(library, byte_level_bytes, str.encode, pad="<|endoftext|>")


@contextmanager
def copied_whole(files: str) -> Iterator[None]:
    """Turn what damaged files of byte pairs raise in the block into a UserError."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # the library raises nothing narrower
        raise UserError(
            f"{files}: no byte pairs of a tokenizer ({error}); copy them from the original model"
        ) from error


def byte_pairs(
    vocab: Mapping[str, int],
    merges: Iterable[tuple[str, str]],
    added: Mapping[int, AddedToken],
    split: str = QWEN_SPLIT,
) -> Library:
    """Return Qwen's tokenizer from its vocabulary and merges.

    UserError where the library would give an added token another id than it has.
    """
    library = Library(BPE(vocab=dict(vocab), merges=list(merges)))
    library.normalizer = normalizers.NFC()
    pieces = pre_tokenizers.Split(Regex(split), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([pieces, bytes_only])
    library.decoder = decoders.ByteLevel()
    first = 1 + max(vocab.values(), default=-1)
    special = [AddedToken(name, special=True) for name in QWEN_SPECIAL]
    named = dict(sorted(added.items())) if added else dict(enumerate(special, first))
    library.add_tokens(list(named.values()))
    for token, entry in named.items():
        if library.token_to_id(entry.content) != token:
            raise UserError(
                f"tokenizer_config.json has {entry.content!r} at id {token}, but behind vocab.json "
                f"it comes to {library.token_to_id(entry.content)}; copy both files of one model, "
                "or its tokenizer.json"
            )
    return library


def tiktoken_pairs(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary and merges from a file of `base64 rank` lines.

    A token of rank r was made by merging the pair of earlier tokens into which the merges of lower
    rank cut it; running them on its bytes recovers the pair.
    """
    ranks: dict[bytes, int] = {}
    for line in path.read_bytes().splitlines():
        encoded, number = line.split()
        ranks[base64.b64decode(encoded)] = int(number)

    def spell(token: bytes) -> str:
        return "".join(CHARACTER_OF[byte] for byte in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = last_pair(token, rank, ranks)
            merges.append((spell(left), spell(right)))
    return {spell(token): rank for token, rank in ranks.items()}, merges


def last_pair(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two parts that merging below `rank` leaves of a token."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[best] >= rank:
            raise UserError(f"token {token!r} of rank {rank} is no merge of two earlier tokens")
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def qwen_chat(layout: str, words: PromptConfig) -> str:
    """Return the chat template of an export, its turns laid out as given."""
    return chat_template(
        layout,
        instruction=words.spelt_form,
        image=QWEN_IMAGE,
        strip=QWEN_TEMPLATE.strip,
        opened=words.tags.think[0],
    )


def qwen_tokenizer(words: PromptConfig) -> TokenizerFiles:
    """Return Qwen2.5-VL's tokenizer and published prompt with a run's words."""
    return TokenizerFiles(
        template=qwen_template(words),
        chat=qwen_chat(QWEN_CHAT, words),
        turn_end="<|im_end|>",
        image="<|image_pad|>",
        shown_image=QWEN_IMAGE,
        needed=("<|im_start|>", "<|im_end|>"),
        needed_for_images=("<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
        read=read_qwen,
    )


QWEN_TOKENIZER = qwen_tokenizer(WORDS)
