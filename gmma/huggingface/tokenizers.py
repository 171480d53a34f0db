"""The tokenizers of the families: SentencePiece for Gemma, byte-level BPE for Qwen, or either.

The files of a directory are read by the library they were made for; added tokens are found in the
text before it, as transformers does. All become the same `Tokenizer` record, whose `token_bytes`
alone say what a token adds to a text: special tokens nothing, all others their own text. The four
tags of a response are text even where a tokenizer has made them special, and so are the marks that
Qwen writes boxes in, without which labels and boxes run together.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library
from tokenizers.models import BPE

from gmma.errors import UserError
from gmma.huggingface.chat import (
    GEMMA_CHAT,
    QWEN_CHAT,
    TOKENIZER,
    chat_template,
    own_template,
    prompt_of,
)
from gmma.huggingface.keys import read_json
from gmma.text.prompt import TAGS, PromptTemplate
from gmma.text.tokenizer import (
    Tokenizer,
    control_pieces,
    decoder_of,
    load_sentencepiece,
    require_unicode,
)

GROUNDING = (  # Qwen's marks round a label, a box and a quadrangle
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
)
ADDED_FLAGS = ("special", "lstrip", "rstrip", "single_word")
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
    *GROUNDING,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
INSTRUCTION = (  # ours; asks for the form that `gmma/text/prompt.py` reads
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
    strip=True,
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
    """File names of a family's tokenizer in its directory, and the tokens it must have."""

    template: PromptTemplate
    chat: str  # the same as a chat template in Jinja
    turn_end: str | None  # ends a text, besides the end tokens of the configs
    image: str = ""  # the placeholder; needed where the model sees images
    needed: tuple[str, ...] = ()
    needed_for_images: tuple[str, ...] = ()
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
    ends = end_tokens(directory, config, min(found.vocab_size, model.vocab_size))
    ends += [] if files.turn_end is None else [ids[files.turn_end]]
    return replace(
        fit_vocabulary(found, model.vocab_size),
        stop_tokens=tuple(sorted({*found.stop_tokens, *ends})),
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


def end_tokens(directory: Path, config: Mapping[str, Any], known: int) -> list[int]:
    """End tokens of generation_config.json, else of config.json.

    UserError for an id that is not among the `known` ones: nothing could ever end by it.
    """
    path = directory / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    where = directory / "config.json"
    text = config.get("text_config") or {}
    for file, values in ((path, generation), (where, config), (where, text)):
        ends = values.get("eos_token_id")
        if ends is None:
            continue
        listed = ends if isinstance(ends, list) else [ends]
        wrong = [end for end in listed if type(end) is not int or not 0 <= end < known]
        if wrong:
            raise UserError(
                f"{file}: eos_token_id = {ends!r}, but {', '.join(map(repr, wrong))} is no token: "
                f"model and tokenizer share the ids 0 … {known - 1}; use the file and the "
                "tokenizer that belong to the weights"
            )
        return listed
    return []


def fit_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> Tokenizer:
    """Give the tokenizer as many ids as the model has.

    An id without a token adds nothing to a text: a policy may sample one. Raises UserError for a
    text that needs a token which the model does not have.
    """
    known = tokenizer.token_bytes[:vocab_size]
    padded = (*known, *(b"" for _ in range(vocab_size - len(known))))

    def encode(text: str) -> list[int]:
        ids = tokenizer.encode(text)
        if max(ids, default=0) >= vocab_size:
            raise UserError(
                f"{text!r} holds token {max(ids)}, but the model has the ids 0 … {vocab_size - 1}; "
                "leave the token out, or use the tokenizer that belongs to the weights"
            )
        return ids

    return replace(
        tokenizer,
        encode=encode,
        decode=decoder_of(padded),
        token_bytes=padded,
        vocab_size=vocab_size,
    )


def read_gemma(directory: Path) -> Tokenizer | None:
    """tokenizer.json by `tokenizers`, which transformers prefers; else tokenizer.model."""
    model = directory / "tokenizer.model"
    if (directory / "tokenizer.json").is_file():
        library = read_library(directory / "tokenizer.json")
        return library_tokenizer(
            library,
            sentencepiece_bytes,
            sentencepiece_text,
            bos="<bos>",
            pad="<pad>",
            end="<eos>",
        )
    if model.is_file():
        control = {
            token: AddedToken(piece, special=True) for piece, token in control_pieces(model).items()
        }
        return with_added_tokens(load_sentencepiece(model), control | added_tokens(directory))
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
    return library_tokenizer(library, byte_level_bytes, str.encode, pad="<|endoftext|>")


def directory_tokenizer(directory: Path) -> TokenizerFiles:
    """Read a directory's own tokenizer from tokenizer.json, with its chat template.

    For families whose models differ in both. The begin token stands in the prompt where the
    template, or without one the tokenizer, puts it.
    """
    path = directory / TOKENIZER
    listed = read_json(path) if path.is_file() else {}
    named = {key: token_text(listed.get(key)) for key in ("bos_token", "eos_token", "pad_token")}
    bos, end, pad = named.values()
    template, chat = prompt_of(own_template(directory), INSTRUCTION, **named)
    begins = bool(bos) and template.opening.startswith(bos)
    if begins:  # `prompt_tokens` puts it there
        template = replace(template, opening=template.opening.removeprefix(bos))

    def read(directory: Path) -> Tokenizer | None:
        if not (directory / "tokenizer.json").is_file():
            return None
        library = read_library(directory / "tokenizer.json")
        added = library.encode("", add_special_tokens=True).tokens if not template.opening else []
        by_bytes = "ByteLevel" in json.dumps(json.loads(library.to_str())["decoder"])
        return library_tokenizer(
            library,
            byte_level_bytes if by_bytes else sentencepiece_bytes,
            str.encode if by_bytes else sentencepiece_text,
            bos=bos if begins or bos in added else None,
            pad=pad or end,
            end=end or None,
        )

    return TokenizerFiles(template=template, chat=chat, turn_end=None, read=read)


def token_text(entry: Any) -> str:
    """The text of a special token in tokenizer_config.json: plain, or an entry with its flags."""
    found = entry.get("content") if isinstance(entry, dict) else entry
    return found if isinstance(found, str) else ""


def read_library(path: Path) -> Library:
    """A tokenizer.json. UserError where it cannot be read."""
    try:
        return Library.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is no tokenizer of the `tokenizers` library ({error})") from error


def added_tokens(directory: Path) -> dict[int, AddedToken]:
    """Tokens that transformers adds to the model's own, or finds in a text before it, by id."""
    path = directory / "tokenizer_config.json"
    listed = read_json(path).get("added_tokens_decoder") or {} if path.is_file() else {}
    found = {}
    try:
        for token, entry in listed.items():
            flags = {name: bool(entry.get(name, False)) for name in ADDED_FLAGS}
            normalized = bool(entry.get("normalized", not flags["special"]))
            found[int(token)] = AddedToken(entry["content"], normalized=normalized, **flags)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: added_tokens_decoder is no table of ids and tokens, each with a content "
            f"({error!r}); copy the file of the original model"
        ) from error
    return found


def adds_text(token: AddedToken) -> bool:
    """Return whether a token's text is said; a special token's only if it is a tag or mark."""
    said = token.content in GROUNDING or any(tag in token.content for tag in TAGS)
    return said or not token.special


def with_added_tokens(tokenizer: Tokenizer, added: Mapping[int, AddedToken]) -> Tokenizer:
    """A SentencePiece tokenizer that finds `added` tokens in a text before anything else.

    The longest one where several begin. White space beside a token goes with it where its flags
    `lstrip` and `rstrip` say so.
    """
    if not added:
        return tokenizer
    ids = {text: token for token, entry in added.items() for text in spellings(entry)}
    entries = {text: added[token] for text, token in ids.items()}
    longest_first = sorted(entries, key=len, reverse=True)
    pattern = re.compile(
        "(" + "|".join(token_pattern(text, entries[text]) for text in longest_first) + ")"
    )
    grown = fit_vocabulary(tokenizer, max(tokenizer.vocab_size, *(token + 1 for token in added)))
    token_bytes = list(grown.token_bytes)
    for token, entry in added.items():
        token_bytes[token] = sentencepiece_text(entry.content) if adds_text(entry) else b""

    def encode(text: str) -> list[int]:
        found: list[int] = []
        for place, part in enumerate(pattern.split(text)):
            if place % 2:
                found.append(ids[part] if part in ids else ids[part.strip()])
            elif part:
                found += tokenizer.encode(part)
        return found

    return replace(
        grown, encode=encode, decode=decoder_of(token_bytes), token_bytes=tuple(token_bytes)
    )


def spellings(token: AddedToken) -> set[str]:
    """Return how a token is written: a normalised one also with spaces for their signs."""
    return {token.content} | ({token.content.replace(SPACE, " ")} if token.normalized else set())


def token_pattern(text: str, token: AddedToken) -> str:
    """A regular expression for one token, without groups."""
    word = ("(?<!\\w)", "(?!\\w)") if token.single_word else ("", "")
    left, right = ("\\s*" if strips else "" for strips in (token.lstrip, token.rstrip))
    return f"{left}{word[0]}{re.escape(text)}{word[1]}{right}"


def library_tokenizer(
    library: Library,
    piece_bytes: Callable[[str], bytes],
    added_bytes: Callable[[str], bytes],
    *,
    pad: str,
    bos: str | None = None,
    end: str | None = None,
) -> Tokenizer:
    """The record of a tokenizer of the `tokenizers` library.

    `piece_bytes` says what a piece of the model adds to a text, `added_bytes` what the text of an
    added token does.
    """
    added = library.get_added_tokens_decoder()
    size = 1 + max(library.get_vocab(with_added_tokens=True).values(), default=-1)

    def bytes_of(token: int) -> bytes:
        if token in added:
            return added_bytes(added[token].content) if adds_text(added[token]) else b""
        piece = library.id_to_token(token)
        return b"" if piece is None else piece_bytes(piece)  # ids may leave gaps

    def encode(text: str) -> list[int]:
        require_unicode(text)
        return library.encode(text, add_special_tokens=False).ids

    token_bytes = tuple(bytes_of(token) for token in range(size))
    ends = None if end is None else library.token_to_id(end)
    return Tokenizer(
        encode=encode,
        decode=decoder_of(token_bytes),
        token_bytes=token_bytes,
        vocab_size=size,
        pad=library.token_to_id(pad) or 0,
        bos=None if bos is None else library.token_to_id(bos),
        stop_tokens=() if ends is None else (ends,),
        image_token=None,
    )


def sentencepiece_text(text: str) -> bytes:
    """Return what an added token adds to a text, where a space has its own sign."""
    return text.replace(SPACE, " ").encode()


def sentencepiece_bytes(piece: str) -> bytes:
    """Return the bytes that a SentencePiece piece adds to a text."""
    byte = BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else sentencepiece_text(piece)


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable character for every byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + i) for i, byte in enumerate(others)}


BYTE_OF = {character: byte for byte, character in byte_alphabet().items()}
CHARACTER_OF = byte_alphabet()


def byte_level_bytes(piece: str) -> bytes:
    """Return the bytes of a byte-level piece; any other piece adds itself, as in `tokenizers`."""
    if not BYTE_OF.keys() >= set(piece):
        return piece.encode()
    return bytes(BYTE_OF[character] for character in piece)


def byte_pairs(
    vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], added: Mapping[int, AddedToken]
) -> Library:
    """Qwen's tokenizer from its vocabulary and merges.

    UserError where the library would give an added token another id than it has.
    """
    library = Library(BPE(vocab=dict(vocab), merges=list(merges)))
    library.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
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
    chat=chat_template(
        GEMMA_CHAT, instruction=INSTRUCTION, image="<start_of_image>", strip=GEMMA_TEMPLATE.strip
    ),
    turn_end="<end_of_turn>",
    image="<image_soft_token>",
    needed=("<start_of_turn>", "<end_of_turn>"),
    needed_for_images=("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    read=read_gemma,
)
QWEN_TOKENIZER = TokenizerFiles(
    template=QWEN_TEMPLATE,
    chat=chat_template(
        QWEN_CHAT,
        instruction=INSTRUCTION,
        image="<|vision_start|><|image_pad|><|vision_end|>",
        strip=QWEN_TEMPLATE.strip,
    ),
    turn_end="<|im_end|>",
    image="<|image_pad|>",
    needed=("<|im_start|>", "<|im_end|>"),
    needed_for_images=("<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    read=read_qwen,
)
