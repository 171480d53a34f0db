"""Tokenizers as records of plain functions: nothing else knows which library reads the file."""

import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import sentencepiece

from gmma.errors import UserError, printable

PAD_PIECE = "<pad>"
END_PIECE = "</s>"
IMAGE_PIECE = "<image>"
_SPACE = "▁"  # SentencePiece writes a space so


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """The interface of a tokenizer to gmma: two functions and the ids that mean something."""

    encode: Callable[[str], list[int]]  # no begin, no end; UserError on unknown text
    decode: Callable[[Sequence[int]], str]  # `token_bytes` joined, as text (`decoder_of`)
    token_bytes: tuple[bytes, ...]  # what each id adds to the text, UTF-8; b"" for control tokens
    names: Mapping[int, str] = field(default_factory=dict)  # of control tokens, for people
    vocab_size: int
    pad: int  # fills unused slots, which never change a result (law L4)
    bos: int | None
    stop_tokens: tuple[int, ...]  # ids that end any text
    image_token: int | None  # one per image feature; never produced by `encode`


def decoder_of(token_bytes: Sequence[bytes]) -> Callable[[Sequence[int]], str]:
    """Make the function from ids to text. Bytes are joined first: tokens may cut a character."""
    return lambda ids: b"".join(token_bytes[i] for i in ids).decode(errors="replace")


def shown(tokenizer: Tokenizer, ids: Sequence[int], *, fold_images: bool = False) -> str:
    """Return a text with its control tokens by their names, for a person to read (`printable`).

    With `fold_images` the slots of an image are one word: `[256 x <image>]`.
    """
    named = []
    for token, run in groupby(ids):
        count = len(list(run))
        name = tokenizer.names.get(token, "").encode() or tokenizer.token_bytes[token]
        folded = fold_images and token == tokenizer.image_token
        named.append(b"[%d x %s]" % (count, name) if folded else name * count)
    return printable(b"".join(named).decode(errors="replace"))


def with_spoken(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokenizer:
    """Let control tokens that hold one of these texts say their own text, as any other token."""
    said = {i: n for i, n in tokenizer.names.items() if any(text in n for text in texts)}
    token_bytes = [
        said[token].encode() if token in said else spelt
        for token, spelt in enumerate(tokenizer.token_bytes)
    ]
    return replace(
        tokenizer,
        decode=decoder_of(token_bytes),
        token_bytes=tuple(token_bytes),
        names={token: name for token, name in tokenizer.names.items() if token not in said},
    )


def with_pieces(tokenizer: Tokenizer, pieces: Sequence[str]) -> Tokenizer:
    """Add tokens, each for one text, which are found in a text before anything else."""
    if not pieces:
        return tokenizer
    ids = {piece: tokenizer.vocab_size + place for place, piece in enumerate(pieces)}
    longest_first = sorted(ids, key=len, reverse=True)
    pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
    token_bytes = (*tokenizer.token_bytes, *(piece.encode() for piece in pieces))

    def encode(text: str) -> list[int]:
        found: list[int] = []
        for part in pattern.split(text):
            found += [ids[part]] if part in ids else tokenizer.encode(part) if part else []
        return found

    return replace(
        tokenizer,
        encode=encode,
        decode=decoder_of(token_bytes),
        token_bytes=token_bytes,
        vocab_size=len(token_bytes),
    )


def missing_signs(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Return the characters of some texts that a tokenizer cannot spell, in order."""

    def spells(sign: str) -> bool:
        try:
            return bool(tokenizer.encode(sign))
        except UserError:
            return False

    return [sign for sign in dict.fromkeys("".join(texts)) if not spells(sign)]


def require_unicode(text: str) -> None:
    """Raise UserError for a lone surrogate, which is no Unicode text: it has no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{text!r} is not Unicode text: it holds a lone surrogate") from error


def load_sentencepiece(
    path: Path, *, image_piece: str = IMAGE_PIECE, stop_pieces: Sequence[str] = ()
) -> Tokenizer:
    """Return the tokenizer of a SentencePiece model file.

    `stop_pieces` end a text besides the model's own end piece. A model without a pad piece pads
    with its unknown piece. Raises UserError where the file is missing or is no model.
    """
    model = _read_model(Path(path))
    pieces = tuple(model.id_to_piece(i) for i in range(model.vocab_size()))
    named = {piece: i for i, piece in enumerate(pieces)}
    missing = [piece for piece in stop_pieces if piece not in named]
    if missing:
        raise UserError(f"tokenizer {path} has no piece {missing[0]!r}; check stop_pieces")
    token_bytes = tuple(_piece_bytes(model, i) for i in range(len(pieces)))
    end = (model.eos_id(),) if model.eos_id() >= 0 else ()
    return Tokenizer(
        encode=lambda text: _encode_known(model, text),
        decode=decoder_of(token_bytes),
        token_bytes=token_bytes,
        names={i: piece for i, piece in enumerate(pieces) if model.is_control(i)},
        vocab_size=len(pieces),
        pad=model.pad_id() if model.pad_id() >= 0 else model.unk_id(),
        bos=model.bos_id() if model.bos_id() >= 0 else None,
        stop_tokens=(*end, *(named[piece] for piece in stop_pieces)),
        image_token=named.get(image_piece),
    )


def control_pieces(path: Path) -> dict[str, int]:
    """Return the pieces of a SentencePiece model that stand for no text, with their ids."""
    model = _read_model(Path(path))
    ids = filter(model.is_control, range(model.vocab_size()))
    return {model.id_to_piece(token): token for token in ids}


def train_sentencepiece(
    corpus: Iterable[str], path: Path, *, vocab_size: int, pieces: Sequence[str] = ()
) -> None:
    """Train a BPE model on `corpus` and write it to `path`, whole or not at all; deterministic.

    `pieces` become single tokens wherever they occur, the longest first. Every printable ASCII
    character is in the vocabulary, and no text is normalised, so decode(encode(text)) == text.
    `vocab_size` is an upper bound: a small corpus runs out of pairs to merge. Raises UserError if
    it cannot hold the pieces and the characters.
    """
    _train(corpus, path, vocab_size=vocab_size, pieces=pieces, split_by_whitespace=False)


def train_free_text_sentencepiece(
    corpus: Iterable[str], path: Path, *, vocab_size: int, pieces: Sequence[str] = ()
) -> None:
    """Train for text of any kind: what no piece spells is spelt by its UTF-8 bytes.

    So decode(encode(text)) == text for any Unicode. Pieces stay within words, and every digit is a
    token of its own, as arithmetic wants it.
    """
    _train(
        corpus,
        path,
        vocab_size=vocab_size,
        pieces=pieces,
        split_by_whitespace=True,
        split_digits=True,
        byte_fallback=True,
    )


def _train(
    corpus: Iterable[str],
    path: Path,
    *,
    vocab_size: int,
    pieces: Sequence[str],
    **options: Any,  # SentencePiece's own
) -> None:
    ascii_needed = "".join(c for c in map(chr, range(0x21, 0x7F)) if c not in pieces)
    buffer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus),
            model_writer=buffer,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            user_defined_symbols=[piece.replace(" ", _SPACE) for piece in pieces],
            required_chars=ascii_needed,
            character_coverage=1.0,
            control_symbols=[IMAGE_PIECE],
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=2,
            pad_piece=PAD_PIECE,
            eos_piece=END_PIECE,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            num_threads=1,
            minloglevel=2,
            **options,
        )
    except RuntimeError as error:
        raise UserError(
            f"SentencePiece could not train a vocabulary of {vocab_size} that holds {len(pieces)} "
            f"given pieces and {len(ascii_needed)} characters ({error}); set a larger vocab_size"
        ) from error
    _write_whole(Path(path), buffer.getvalue())


def _read_model(path: Path) -> sentencepiece.SentencePieceProcessor:
    if not path.is_file():
        raise UserError(f"no tokenizer at {path}; build the dataset first (gmma data)")
    proto = path.read_bytes()
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(proto)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} ({len(proto)} bytes) is not a SentencePiece model; replace it by a whole one"
        ) from error
    return model


def _piece_bytes(model: sentencepiece.SentencePieceProcessor, token: int) -> bytes:
    if model.is_control(token):
        return b""
    if model.is_unknown(token):
        return model.decode([token]).encode()
    piece = model.id_to_piece(token)
    if model.is_byte(token):
        return bytes([int(piece[1:-1], 16)])  # "<0x0A>"
    return piece.replace(_SPACE, " ").encode()


def _encode_known(model: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
    """Encode a text; SentencePiece's own sign for a space is spelt by its bytes, if it has them."""
    require_unicode(text)
    mark = [model.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]
    if _SPACE in text and all(map(model.is_byte, mark)):
        first, *others = (_encode_known(model, part) for part in text.split(_SPACE))
        return first + [token for part in others for token in (*mark, *part)]
    ids = model.encode(text)
    if model.unk_id() in ids:
        unknown = sorted({c for c in text if model.unk_id() in model.encode(c)})
        raise UserError(
            f"the tokenizer knows no token for {''.join(unknown)!r} in {text!r}; "
            "use other characters or a tokenizer with byte fallback"
        )
    return ids


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
