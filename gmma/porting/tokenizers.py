"""The tokenizers of both families: SentencePiece for Gemma, byte-level BPE for Qwen.

The files of a directory are read by the library they were made for; special tokens are found in the
text before it, as transformers does. Both become the same `Tokenizer` record.
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library
from tokenizers.models import BPE

from gmma.errors import UserError
from gmma.porting.keys import read_json
from gmma.tasks.prompt import PromptTemplate
from gmma.tokenizer import Tokenizer, load_sentencepiece

SPACE = "▁"  # SentencePiece writes a space so
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPECIAL = (  # behind the byte pairs, in this order
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
INSTRUCTION = (  # ours; asks for the form that `gmma/tasks/prompt.py` reads
    "Think first, inside <think> and </think>. "
    "Then give the final answer alone, inside <answer> and </answer>."
)
GEMMA_TEMPLATE = PromptTemplate(
    opening="<start_of_turn>user\n",
    image_open="\n\n<start_of_image>",
    image_close="<end_of_image>\n\n",
    whole_view="Here is the original image ",
    crop_views=" and here are some crops to help you see better ",
    next_crop=" ",
    closing=f"\n{INSTRUCTION}<end_of_turn>\n<start_of_turn>model\n<think>",
)
QWEN_TEMPLATE = PromptTemplate(
    opening="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
    image_open="<|vision_start|>",
    image_close="<|vision_end|>",
    closing=f"\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n<think>",
)


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """What a family's tokenizer is called in its directory, and the tokens it must have."""

    template: PromptTemplate
    turn_end: str  # ends a text, besides the end tokens of the configs
    image: str  # the placeholder; needed where the model sees images
    needed: tuple[str, ...]
    needed_for_images: tuple[str, ...]
    read: Callable[[Path], Tokenizer | None]  # None where the directory has no tokenizer


def load_tokenizer(
    directory: Path, files: TokenizerFiles, config: Mapping[str, Any], model: Any
) -> Tokenizer | None:
    """A directory's tokenizer, as long as the model's vocabulary; None where it has none.

    UserError where a special token of the family is missing or stands at another id.
    """
    found = files.read(directory)
    if found is None:
        return None
    sees = model.vision is not None
    ids = require_tokens(found, directory, files, sees)
    if sees and ids[files.image] != model.image_token:
        raise UserError(
            f"{directory}: the tokenizer has {files.image} at id {ids[files.image]}, config.json "
            f"at {model.image_token}; use the tokenizer that belongs to the weights"
        )
    ends = {*end_tokens(directory, config), ids[files.turn_end]}
    fitted = fit_vocabulary(found, model.vocab_size)
    return replace(
        fitted,
        stop_tokens=tuple(sorted({*fitted.stop_tokens, *ends} & set(range(model.vocab_size)))),
        image_token=model.image_token if sees else None,
    )


def require_tokens(
    tokenizer: Tokenizer, directory: Path, files: TokenizerFiles, sees: bool
) -> dict[str, int]:
    """The ids of the family's special tokens. UserError naming those that are missing."""
    ids: dict[str, int] = {}
    for token in (*files.needed, *(files.needed_for_images if sees else ())):
        try:
            encoded = tokenizer.encode(token)
        except UserError:
            encoded = []
        if len(encoded) == 1:
            ids[token] = encoded[0]
    wanted = {*files.needed, *(files.needed_for_images if sees else ())}
    missing = sorted(wanted - set(ids))
    if missing:
        raise UserError(
            f"the tokenizer of {directory} lacks {', '.join(missing)}; "
            "add the special tokens of the family, or copy the tokenizer of the original model"
        )
    return ids


def end_tokens(directory: Path, config: Mapping[str, Any]) -> list[int]:
    """End tokens of generation_config.json, else of config.json."""
    path = directory / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    text = config.get("text_config") or {}
    for values in (generation, config, text):
        ends = values.get("eos_token_id")
        if ends is not None:
            return list(ends) if isinstance(ends, list) else [ends]
    return []


def fit_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> Tokenizer:
    """As many ids as the model has: the ones that no token has add nothing to a text."""
    known = tokenizer.token_bytes[:vocab_size]
    padded = (*known, *(b"" for _ in range(vocab_size - len(known))))

    def decode(ids: Sequence[int]) -> str:  # a policy may sample an id that no token has
        return tokenizer.decode([i for i in ids if i < len(known)])

    return replace(tokenizer, decode=decode, token_bytes=padded, vocab_size=vocab_size)


def read_gemma(directory: Path) -> Tokenizer | None:
    """tokenizer.model by SentencePiece, else tokenizer.json by `tokenizers`."""
    if (directory / "tokenizer.model").is_file():
        return with_special_tokens(
            load_sentencepiece(directory / "tokenizer.model"), added_tokens(directory)
        )
    if (directory / "tokenizer.json").is_file():
        library = read_library(directory / "tokenizer.json")
        return library_tokenizer(library, sentencepiece_bytes, bos="<bos>", pad="<pad>")
    return None


def read_qwen(directory: Path) -> Tokenizer | None:
    """tokenizer.json, else vocab.json with merges.txt, else a tiktoken file of byte pairs."""
    tiktoken = sorted(directory.glob("*.tiktoken"))
    if (directory / "tokenizer.json").is_file():
        library = read_library(directory / "tokenizer.json")
    elif (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        vocab = read_json(directory / "vocab.json")
        lines = (directory / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#v")]
        library = byte_pairs(vocab, merges, added_tokens(directory))  # type: ignore[arg-type]
    elif tiktoken:
        library = byte_pairs(*tiktoken_pairs(tiktoken[0]), {})
    else:
        return None
    return library_tokenizer(library, byte_level_bytes, bos=None, pad="<|endoftext|>")


def read_library(path: Path) -> Library:
    """A tokenizer.json. UserError where it cannot be read."""
    try:
        return Library.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is no tokenizer of the `tokenizers` library ({error})") from error


def added_tokens(directory: Path) -> dict[str, int]:
    """Tokens that transformers adds to the model's own, with their ids."""
    path = directory / "tokenizer_config.json"
    listed = read_json(path).get("added_tokens_decoder", {}) if path.is_file() else {}
    found = {value["content"]: int(token) for token, value in listed.items()}
    path = directory / "added_tokens.json"
    return {**(read_json(path) if path.is_file() else {}), **found}


def with_special_tokens(tokenizer: Tokenizer, special: Mapping[str, int]) -> Tokenizer:
    """A tokenizer that finds `special` tokens in a text before anything else."""
    if not special:
        return tokenizer
    longest_first = sorted(special, key=len, reverse=True)
    pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
    size = max(tokenizer.vocab_size, *(token + 1 for token in special.values()))
    grown = fit_vocabulary(tokenizer, size)
    own = set(special.values())
    token_bytes = tuple(b"" if i in own else b for i, b in enumerate(grown.token_bytes))

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for part in filter(None, pattern.split(text)):
            ids += [special[part]] if part in special else tokenizer.encode(part)
        return ids

    return replace(
        grown,
        encode=encode,
        decode=lambda ids: tokenizer.decode([i for i in ids if i not in own]),
        token_bytes=token_bytes,
    )


def library_tokenizer(
    library: Library,
    piece_bytes: Callable[[str], bytes],
    *,
    bos: str | None,
    pad: str,
) -> Tokenizer:
    """The record of a tokenizer of the `tokenizers` library."""
    size = library.get_vocab_size()
    special = {i for i, token in library.get_added_tokens_decoder().items() if token.special}
    added = {i: token.content for i, token in library.get_added_tokens_decoder().items()}

    def bytes_of(token: int) -> bytes:
        if token in special:
            return b""
        piece = library.id_to_token(token)
        return added[token].encode() if token in added else piece_bytes(piece or "")

    begin = None if bos is None else library.token_to_id(bos)
    padding = library.token_to_id(pad)
    return Tokenizer(
        encode=lambda text: library.encode(text, add_special_tokens=False).ids,
        decode=lambda ids: library.decode([int(i) for i in ids], skip_special_tokens=True),
        token_bytes=tuple(bytes_of(token) for token in range(size)),
        vocab_size=size,
        pad=0 if padding is None else padding,
        bos=begin,
        stop_tokens=(),
        image_token=None,
    )


def sentencepiece_bytes(piece: str) -> bytes:
    """What a SentencePiece piece adds to a text."""
    byte = BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable character for every byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + i) for i, byte in enumerate(others)}


BYTE_OF = {character: byte for byte, character in byte_alphabet().items()}
CHARACTER_OF = byte_alphabet()


def byte_level_bytes(piece: str) -> bytes:
    """What a byte-level piece adds to a text."""
    return bytes(BYTE_OF[character] for character in piece)


def byte_pairs(
    vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], added: Mapping[str, int]
) -> Library:
    """Qwen's tokenizer from its vocabulary and merges."""
    library = Library(BPE(vocab=dict(vocab), merges=list(merges)))
    library.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    library.decoder = decoders.ByteLevel()
    names: Sequence[str] = sorted(added, key=added.__getitem__) if added else QWEN_SPECIAL
    library.add_special_tokens([AddedToken(name, special=True) for name in names])
    return library


def tiktoken_pairs(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges from a file of `base64 rank` lines.

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
    """The two parts that merging below `rank` leaves of a token."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[best] >= rank:
            raise UserError(f"token {token!r} of rank {rank} is no merge of two earlier tokens")
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


GEMMA_TOKENIZER = TokenizerFiles(
    template=GEMMA_TEMPLATE,
    turn_end="<end_of_turn>",
    image="<image_soft_token>",
    needed=("<start_of_turn>", "<end_of_turn>"),
    needed_for_images=("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    read=read_gemma,
)
QWEN_TOKENIZER = TokenizerFiles(
    template=QWEN_TEMPLATE,
    turn_end="<|im_end|>",
    image="<|image_pad|>",
    needed=("<|im_start|>", "<|im_end|>"),
    needed_for_images=("<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    read=read_qwen,
)
