"""What a response says does not depend on how its tokens are cut: tags as text, added or special.

Stops and reader are tried together: tokens are cut into nodes by the table that `grow_tree` runs,
and what is read of the nodes must be what a regular expression reads of the whole text.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as model_format
from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as Library
from tokenizers.models import BPE

from gmma.errors import UserError
from gmma.families.gemma3.tokenizer import read_gemma
from gmma.families.qwen2_5_vl.tokenizer import read_qwen
from gmma.huggingface.tokenizers import (
    byte_alphabet,
    byte_level_bytes,
    library_tokenizer,
    with_added_tokens,
)
from gmma.scoring import read_texts
from gmma.text.prompt import TAGS, check_slots, check_tags, read_response
from gmma.text.tokenizer import Tokenizer, decoder_of, load_sentencepiece
from gmma.tree.stops import TreeStops
from tests.porting.directories import write_qwen_tokenizer
from tests.tree.scripted import grow_texts, score_spacings, stops_of

often = settings(max_examples=60)
WORDS = ("12.", "7", "so", " ", "\n", "\n\n", "é", "数", "🙂", "<", ">", "</", "answer", "think")
SAMPLES = (
    "</think><answer>12</answer>",
    "12.</think>\n<answer> [1, 2] </answer>\n",
    "so</think></answer><answer>é🙂</answer>",
)
Kept = dict[str, str]  # how a tokenizer has a tag: not at all, "added" or "special"
kept_tags = st.dictionaries(st.sampled_from(TAGS), st.sampled_from(["added", "special"]))
words = st.lists(st.sampled_from(WORDS), max_size=4).map("".join)


@st.composite
def responses(draw: st.DrawFn) -> str:
    """A thought that closes, and behind it an answer in some form, or none."""
    behind = st.lists(st.one_of(words, st.sampled_from(TAGS)), max_size=5).map("".join)
    answer = st.builds("{}<answer>{}</answer>{}".format, words, words, words)
    text = draw(words) + "</think>" + draw(st.one_of(answer, behind))
    return normalize("NFC", text)


# Reading


def said(text: str) -> tuple[str, str | None, bool]:
    """Thought, answer and whether the form is strict, of a whole text; written on its own."""
    thought, rest = text.split("</think>", 1)
    no_tag = r"((?:(?!</?answer>).)*)"
    found = re.match(rf"{no_tag}<answer>{no_tag}</answer>", rest, re.DOTALL)
    if found is None:
        return thought, None, False
    return thought, found[2], not found[1].strip()


def cut_into_nodes(stops: TreeStops, tokens: Sequence[int]) -> tuple[list[int], list[int]]:
    """The tokens of the thought and of the answer, as `append` ends them."""
    table, state, nodes = np.asarray(stops.path.table), 0, ([], [])
    for matched, node in zip((stops.thought_end, stops.path.matched), nodes, strict=True):
        for token in tokens[len(nodes[0]) :]:
            state = table[state, token]
            node.append(token)
            if state >= matched:
                break
    return nodes


def check_reading(tokenizer: Tokenizer, stops: TreeStops, text: str) -> None:
    """The tokenizer keeps the text, and the nodes say what it says."""
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    nodes = cut_into_nodes(stops, tokens)
    spelt = [b"".join(tokenizer.token_bytes[t] for t in node) for node in nodes]
    found = read_response(*spelt)
    assert (found.thought, found.answer, found.well_formed) == said(text)


# Vocabularies


def cut_up(text: str, cuts: Sequence[int]) -> Tokenizer:
    """Every piece between cuts of the bytes is a token of its own, in order of the text."""
    data = text.encode()
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    pieces = tuple(data[a:b] for a, b in pairwise(ends))
    return Tokenizer(
        encode=lambda text: list(range(len(pieces))),
        decode=decoder_of(pieces),
        token_bytes=pieces,
        vocab_size=len(pieces),
        pad=0,
        bos=None,
        stop_tokens=(),
        image_token=None,
    )


@often
@given(responses(), st.lists(st.integers(0, 200), max_size=12))
def test_any_cut_of_the_bytes_reads_as_the_text(text: str, cuts: list[int]) -> None:
    tokenizer = cut_up(text, cuts)
    check_reading(tokenizer, stops_of(tokenizer), text)


@st.composite
def byte_pair_tokenizers(draw: st.DrawFn) -> Tokenizer:
    """Merges of random neighbours in the samples, across every boundary of a tag."""
    spell = byte_alphabet()
    samples = [[spell[byte] for byte in sample.encode()] for sample in SAMPLES]
    merges: list[tuple[str, str]] = []
    steps = st.tuples(st.integers(0, len(SAMPLES) - 1), st.integers(0, 60))
    for row, place in draw(st.lists(steps, max_size=30)):
        sample = samples[row]
        if len(sample) > 1:
            at = place % (len(sample) - 1)
            pair = sample[at], sample[at + 1]
            merges.append(pair)
            samples = [merged(parts, pair) for parts in samples]
    pieces = dict.fromkeys([*spell.values(), *map("".join, merges)])
    library = Library(BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_tokens([added(tag, kind) for tag, kind in draw(kept_tags).items()])
    return library_tokenizer(library, byte_level_bytes, str.encode, pad="<pad>")


def merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Every occurrence of a pair as one piece."""
    found: list[str] = []
    for part in parts:
        if found and (found[-1], part) == pair:
            found[-1] += part
        else:
            found.append(part)
    return found


def added(tag: str, kind: str) -> AddedToken:
    return AddedToken(tag, special=kind == "special", normalized=False)


@often
@given(st.data(), byte_pair_tokenizers())
def test_byte_pairs_read_as_the_text(data: st.DataObject, tokenizer: Tokenizer) -> None:
    check_tags(tokenizer, "it")
    stops = stops_of(tokenizer)
    for text in data.draw(st.lists(responses(), min_size=1, max_size=4)):
        check_reading(tokenizer, stops, text)


def write_pieces(path: Path, model_type: int, pieces: dict[str, float], kept: Kept) -> None:
    """A SentencePiece model: bytes, the given pieces with their scores, tags of two kinds."""
    model, kinds = model_format.ModelProto(), model_format.ModelProto.SentencePiece
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = model_type, True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    tags = {
        tag: kinds.CONTROL if kind == "special" else kinds.USER_DEFINED
        for tag, kind in kept.items()
    }
    rows = [("<unk>", 0.0, kinds.UNKNOWN), ("<pad>", 0.0, kinds.CONTROL)]
    rows += [(tag, 0.0, kind) for tag, kind in tags.items()]
    rows += [(f"<0x{byte:02X}>", -90.0, kinds.BYTE) for byte in range(256)]
    rows += [(piece, score, kinds.NORMAL) for piece, score in pieces.items() if piece not in tags]
    for piece, score, kind in rows:
        model.pieces.add(piece=piece, score=score, type=kind)
    path.write_bytes(model.SerializeToString())


@st.composite
def scored_pieces(draw: st.DrawFn) -> dict[str, float]:
    """Parts of the samples and all their characters, each with a score."""
    joined = "".join(SAMPLES).replace(" ", "▁")
    parts = st.tuples(st.integers(0, len(joined) - 1), st.integers(1, 12))
    found = {joined[a : a + n] for a, n in draw(st.lists(parts, max_size=25))} | set(joined)
    random = draw(st.randoms(use_true_random=False))
    return {piece: -random.uniform(0, 9) for piece in sorted(found)}


@often
@given(st.data(), st.sampled_from([1, 2]), scored_pieces(), kept_tags, kept_tags)
def test_sentencepiece_reads_as_the_text(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    model_type: int,  # unigram, byte pairs
    pieces: dict[str, float],
    kept: Kept,
    beside: Kept,  # in tokenizer_config.json
) -> None:
    directory = tmp_path_factory.getbasetemp() / "pieces"
    directory.mkdir(exist_ok=True)
    write_pieces(directory / "tokenizer.model", model_type, pieces, kept)
    found = read_gemma(directory)
    assert found is not None
    entries = enumerate(beside.items(), found.vocab_size)
    tokenizer = with_added_tokens(found, {n: added(*entry) for n, entry in entries})
    check_tags(tokenizer, "it")
    stops = stops_of(tokenizer)
    for text in data.draw(st.lists(responses(), min_size=1, max_size=4)):
        check_reading(tokenizer, stops, text)


# Rollouts


def test_ten_spacings_are_read_with_a_small_vocabulary(tmp_path: Path) -> None:
    write_qwen_tokenizer(tmp_path)
    tokenizer = read_qwen(tmp_path)
    assert tokenizer is not None
    score_spacings(tokenizer, tokenizer.vocab_size + 3)


def test_an_answer_within_the_token_that_closes_the_thought_takes_one_token_more() -> None:
    """Its node is whole before it begins; a node has at least one token."""
    pieces = (b"a</think><answer>1</answer>", b"x")
    whole = Tokenizer(
        encode=lambda text: [0] if "1" in text else [1],
        decode=decoder_of(pieces),
        token_bytes=pieces,
        vocab_size=2,
        pad=0,
        bos=None,
        stop_tokens=(),
        image_token=None,
    )
    rollout, _ = grow_texts(whole, ["1"], 2)
    assert rollout.thought_lengths.tolist() == [[1, 1]]
    assert rollout.answer_lengths.tolist() == [[[1, 1], [1, 1]]]
    assert rollout.finished.all()
    assert read_texts(rollout, whole).answers == ((("1", "1"), ("1", "1")),)


# What is refused


def test_a_tag_that_is_lost_is_named() -> None:
    """An id that adds nothing where it stands for a tag, as control tokens once did."""
    names = dict(enumerate(TAGS))
    lost = Tokenizer(
        encode=lambda text: [n for n, tag in names.items() if tag in text],
        decode=lambda ids: "".join(names[i] for i in ids if i != 1),
        token_bytes=(b"<think>", b"", b"<answer>", b"</answer>"),
        vocab_size=4,
        pad=0,
        bos=None,
        stop_tokens=(),
        image_token=None,
    )
    with pytest.raises(UserError, match=r"it does not keep </think>: it is encoded as \[1\]"):
        check_tags(lost, "it")


def test_slots_hold_the_tags(tmp_path: Path) -> None:
    write_pieces(tmp_path / "some.model", 1, {"7": -1.0}, dict.fromkeys(TAGS, "added"))
    tokenizer = load_sentencepiece(tmp_path / "some.model")
    check_slots(tokenizer, 2, 3)
    with pytest.raises(UserError, match=r"tree.answer_tokens = 2 .*<answer>7</answer> has 3 tok"):
        check_slots(tokenizer, 2, 2)
    with pytest.raises(UserError, match=r"tree.thought_tokens = 1 leaves no room .* 1 tokens"):
        check_slots(tokenizer, 1, 3)
