"""Tokenizers of Hugging Face directories: SentencePiece or byte-level BPE.

A directory's files are read by the library they were made for. Added tokens are found in the text
first, as in transformers. Every tokenizer becomes one `Tokenizer` record, whose `token_bytes` alone
say what a token adds to a text: nothing for a special token, its own text for any other. The four
tags of a response are text even where a tokenizer makes them special. So are the marks that Qwen
writes boxes in: without them labels and boxes would run together. A family's own files, prompt and
chat template are in its folder (`gmma/families/NAME/tokenizer.py`).
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tokenizers import AddedToken
from tokenizers import Tokenizer as Library

from gmma.errors import UserError
from gmma.huggingface.chat import TOKENIZER, own_template, prompt_of
from gmma.huggingface.keys import read_json_object
from gmma.options.prompt import PromptConfig
from gmma.text.prompt import TAGS, PromptTemplate
from gmma.text.tokenizer import Tokenizer, decoder_of, require_unicode

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
WORDS = PromptConfig()
INSTRUCTION = WORDS.spelt_form  # ours; asks for the form that `gmma/text/prompt.py` reads


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """A family's tokenizer: its prompt, its special tokens, and the reader of its files."""

    template: PromptTemplate
    chat: str  # the same as a chat template in Jinja
    turn_end: str | None  # ends a text, besides the end tokens of the configs
    bos: str = ""  # the begin token's text, where the family's prompts always have it
    image: str = ""  # the placeholder; needed where the model sees images
    shown_image: str = ""  # what chat templates show for an image
    needed: tuple[str, ...] = ()
    needed_for_images: tuple[str, ...] = ()
    read: Callable[[Path], Tokenizer | None]  # None where the directory has no tokenizer


class ReadTokenizer(Protocol):
    """Describe a directory's tokenizer and prompt.

    `thinking` is `prompt_of`'s; `words` is a third argument only where a run has words of its own.
    """

    def __call__(
        self, directory: Path, thinking: bool | None = None, words: PromptConfig = WORDS
    ) -> TokenizerFiles: ...


def tokenizer_files(
    read: ReadTokenizer, directory: Path, thinking: bool | None, words: PromptConfig
) -> TokenizerFiles:
    """Describe a directory's tokenizer and prompt with a run's words.

    UserError where the family of the user's own takes no words, and the run has some.
    """
    if words == WORDS:
        return read(directory, thinking)
    try:
        inspect.signature(read).bind(directory, thinking, words)
    except TypeError as error:
        raise UserError(
            f"the model family's tokenizer takes no prompt.form and no prompt.tags ({error}); give "
            "it a third parameter, words (docs/extending.md), or leave them at their defaults"
        ) from error
    return read(directory, thinking, words)


def load_tokenizer(
    directory: Path, files: TokenizerFiles, config: Mapping[str, Any], model: Any
) -> Tokenizer | None:
    """Load a directory's tokenizer, as long as the model's vocabulary; None where it has none.

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
    """Return the ids of the family's special tokens. UserError naming those that are missing."""
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
    generation = read_json_object(path) if path.is_file() else {}
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


def without_begin(template: PromptTemplate, begin: str) -> PromptTemplate:
    """Return a template without the begin token's text before everything."""
    system = template.system
    if system is not None:
        system = (system[0].removeprefix(begin), system[1])
    return replace(template, opening=template.opening.removeprefix(begin), system=system)


def asked_as_published(
    published: TokenizerFiles | Callable[[PromptConfig], TokenizerFiles],
) -> ReadTokenizer:
    """Let a directory's own chat template make the prompt; where it has none, the published one.

    Of that stays how images are shown. It is a function of a run's words, or fixed.
    """

    def read(
        directory: Path, thinking: bool | None = None, words: PromptConfig = WORDS
    ) -> TokenizerFiles:
        own, fixed = own_template(directory), isinstance(published, TokenizerFiles)
        files = published if isinstance(published, TokenizerFiles) else published(words)
        if own is None and thinking is None:
            if fixed and words != WORDS:
                raise UserError(
                    f"{directory} has no chat template, and its family's prompt is fixed: leave "
                    "prompt.form and prompt.tags at their defaults, or give it a template"
                )
            return files
        named = special_texts(directory) | {"bos_token": files.bos}
        with named_in_errors(directory):
            found, chat = prompt_of(
                own,
                words.spelt_form,
                thinking=thinking,
                image=files.shown_image,
                tags=words.tags,
                **named,
            )
            if not found.opening.startswith(files.bos):
                raise UserError(f"the chat template does not begin with {files.bos}; mend it")
        found = without_begin(found, files.bos)  # `prompt_tokens` puts it there
        made = replace(
            files.template,
            opening=found.opening,
            system=found.system,
            strip_system=found.strip_system,
            closing=found.closing,
            strip=found.strip,
            tags=found.tags,
        )
        return replace(files, template=made, chat=chat)

    return read


@contextmanager
def named_in_errors(directory: Path) -> Iterator[None]:
    """Say in a UserError of which directory it speaks."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{directory}: {error}") from error


def special_texts(directory: Path) -> dict[str, str]:
    """Read the special tokens that chat templates name from tokenizer_config.json."""
    path = directory / TOKENIZER
    listed = read_json_object(path) if path.is_file() else {}
    return {key: token_text(listed.get(key)) for key in ("bos_token", "eos_token", "pad_token")}


def directory_tokenizer(
    directory: Path, thinking: bool | None = None, words: PromptConfig = WORDS
) -> TokenizerFiles:
    """Read a directory's own tokenizer from tokenizer.json, with its chat template.

    For families whose models differ in both. The begin token stands in the prompt where the
    template, or without one the tokenizer, puts it.
    """
    named = special_texts(directory)
    bos, end, pad = named.values()
    own = own_template(directory)
    with named_in_errors(directory):
        template, chat = prompt_of(
            own, words.spelt_form, thinking=thinking, tags=words.tags, **named
        )
    begins = bool(bos) and template.opening.startswith(bos)
    if begins:  # `prompt_tokens` puts it there
        template = without_begin(template, bos)

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
    """Read the text of a special token of tokenizer_config.json: plain, or an entry with flags."""
    found = entry.get("content") if isinstance(entry, dict) else entry
    return found if isinstance(found, str) else ""


def read_library(path: Path) -> Library:
    """Return a tokenizer.json. UserError where it cannot be read."""
    try:
        return Library.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is no tokenizer of the `tokenizers` library ({error})") from error


def added_tokens(directory: Path) -> dict[int, AddedToken]:
    """Read the tokens, by id, that transformers adds to the model's or finds in a text first."""
    path = directory / "tokenizer_config.json"
    listed = read_json_object(path).get("added_tokens_decoder") or {} if path.is_file() else {}
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
    """Let a SentencePiece tokenizer find `added` tokens in a text before anything else.

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

    silent = {token: entry.content for token, entry in added.items() if not adds_text(entry)}
    return replace(
        grown,
        encode=encode,
        decode=decoder_of(token_bytes),
        token_bytes=tuple(token_bytes),
        names={**tokenizer.names, **silent},
    )


def spellings(token: AddedToken) -> set[str]:
    """Return how a token is written: a normalised one also with spaces for their signs."""
    return {token.content} | ({token.content.replace(SPACE, " ")} if token.normalized else set())


def token_pattern(text: str, token: AddedToken) -> str:
    """Return a regular expression for one token, without groups."""
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
    """Return the record of a tokenizer of the `tokenizers` library.

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
        names={token: entry.content for token, entry in added.items() if not adds_text(entry)},
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
    """Make GPT-2's printable character of every byte (Radford et al. 2019, `bytes_to_unicode`)."""
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
