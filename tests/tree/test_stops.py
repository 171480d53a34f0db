"""The stop automaton against a slow string matcher."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmma.errors import UserError
from gmma.tree.stops import stop_table

TAGS = ("</think>", "</answer>", "aab", "aaaa", "abab", "abacabad", "é", "<é>é", "\U0001f600!")


@st.composite
def vocabularies(draw: st.DrawFn, tag: str) -> list[bytes]:
    """Pieces that overlap the tag in every way: substrings of the tag doubled, cut anywhere, also
    within a character, alone or behind and before other bytes; single bytes; nothing."""
    source = tag.encode() * 2
    cuts = st.tuples(*[st.integers(0, len(source))] * 2).map(sorted)
    part = cuts.map(lambda cut: source[slice(*cut)])
    noise = st.sampled_from([b"", b"x", b" ", b"\n", source[:1], source[-1:]])
    piece = st.tuples(noise, part, noise).map(b"".join)
    return draw(st.lists(piece, min_size=1, max_size=12)) + [bytes([b]) for b in set(source)]


@settings(max_examples=300)
@given(st.data(), st.sampled_from(TAGS))
def test_same_stop_as_a_string_search(data: st.DataObject, tag: str) -> None:
    pieces = data.draw(vocabularies(tag))
    tokens = data.draw(st.lists(st.integers(0, len(pieces) - 1), max_size=30))
    stop = stop_table(tag, pieces)
    table, state, text = np.asarray(stop.table), 0, b""
    for token in tokens:
        state = table[state, token]
        text += pieces[token]
        assert (state == stop.matched) == (tag.encode() in text)


@settings(max_examples=100)
@given(st.data(), st.text("ab", min_size=1, max_size=6))
def test_same_stop_for_tags_that_repeat_themselves(data: st.DataObject, tag: str) -> None:
    pieces = data.draw(st.lists(st.text("abc", max_size=7).map(str.encode), min_size=2))
    tokens = data.draw(st.lists(st.integers(0, len(pieces) - 1), max_size=20))
    table, state, text = np.asarray(stop_table(tag, pieces).table), 0, b""
    for token in tokens:
        state = table[state, token]
        text += pieces[token]
        assert (state == len(tag)) == (tag.encode() in text)


def test_every_way_to_cut_the_tag_stops() -> None:
    """All 2^7 tokenisations of `</think>`."""
    tag = b"</think>"
    for cut in range(2 ** (len(tag) - 1)):
        ends = [n + 1 for n in range(len(tag)) if n == len(tag) - 1 or cut >> n & 1]
        pieces = [tag[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        states = run(np.asarray(stop_table(tag.decode(), pieces).table), range(len(pieces)))
        assert states.index(len(tag)) == len(pieces) - 1


def run(table: np.ndarray, tokens: range) -> list[int]:
    """The states after each token."""
    state, states = 0, []
    for token in tokens:
        state = int(table[state, token])
        states.append(state)
    return states


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(UserError, match="stop string is empty"):
        stop_table("", [b"a"])
