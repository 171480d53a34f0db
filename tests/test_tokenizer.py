"""Facts about the SentencePiece record: what each id adds to the text, round trips, errors."""

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from gmma.errors import UserError
from gmma.text.tokenizer import (
    load_sentencepiece,
    train_free_text_sentencepiece,
    train_sentencepiece,
)
from gmma.tree.stops import stop_table

CORPUS = ["Where is the 7?", "3 at 12, 0; 7 at 25, 38</think>", "a b  c"] * 4
PIECES = ["</think>", "12", "25", ", 38", "7 at "]
PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_sentencepiece(CORPUS, path, vocab_size=160, pieces=PIECES)
    return path


@pytest.fixture(scope="module")
def tokenizer(model_path):
    return load_sentencepiece(model_path)


def test_given_pieces_are_single_tokens_and_the_longest_wins(tokenizer):
    ids = tokenizer.encode("7 at 25, 38</think>")
    assert [tokenizer.token_bytes[i] for i in ids] == [b"7 at ", b"25", b", 38", b"</think>"]


@settings(max_examples=200, deadline=None)
@given(text=PRINTABLE)
def test_round_trip_of_printable_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes[i] for i in ids).decode() == text


def test_ids_that_mean_something(tokenizer):
    assert (tokenizer.pad, tokenizer.bos, tokenizer.stop_tokens) == (0, None, (2,))
    assert tokenizer.vocab_size == len(tokenizer.token_bytes) <= 160
    for control in (tokenizer.pad, tokenizer.image_token, *tokenizer.stop_tokens):
        assert tokenizer.token_bytes[control] == b""
    assert tokenizer.image_token not in tokenizer.encode("<image><pad></s>")


def test_training_is_deterministic(model_path, tmp_path):
    train_sentencepiece(iter(CORPUS), tmp_path / "again.model", vocab_size=160, pieces=PIECES)
    assert (tmp_path / "again.model").read_bytes() == model_path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.model"]  # no partial file stays


def test_unknown_characters_are_named(tokenizer):
    with pytest.raises(UserError, match="'é'"):
        tokenizer.encode("café")


def test_missing_file_broken_file_and_small_vocabulary(tmp_path):
    with pytest.raises(UserError, match="no tokenizer at"):
        load_sentencepiece(tmp_path / "nothing.model")
    broken = tmp_path / "broken.model"
    for content in (b"", b"not a model"):
        broken.write_bytes(content)
        with pytest.raises(UserError, match="is not a SentencePiece model"):
            load_sentencepiece(broken)
    with pytest.raises(UserError, match="larger vocab_size"):
        train_sentencepiece(CORPUS, tmp_path / "small.model", vocab_size=20)
    assert not (tmp_path / "small.model").exists()


def test_unknown_stop_piece(model_path):
    with pytest.raises(UserError, match="<end_of_turn>"):
        load_sentencepiece(model_path, stop_pieces=("<end_of_turn>",))


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",))) | st.text("▁ a"))
def test_byte_fallback_spells_any_text(byte_tokenizer, text):
    assert byte_tokenizer.decode(byte_tokenizer.encode(text)) == text


def test_byte_pieces_carry_their_byte(byte_tokenizer):
    ids = byte_tokenizer.encode("é")
    assert [byte_tokenizer.token_bytes[i] for i in ids] == [b"\xc3", b"\xa9"]
    assert byte_tokenizer.bos == 1
    assert byte_tokenizer.pad == 0


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("bytes") / "bytes"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(prefix),
        vocab_size=290,
        hard_vocab_limit=False,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    return load_sentencepiece(prefix.with_suffix(".model"))


@pytest.fixture(scope="module")
def free_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("free") / "free.model"
    corpus = [*CORPUS, "def f(x):\n    return x + 12", "naïve café"]
    train_free_text_sentencepiece(corpus, path, vocab_size=420, pieces=["</think>", "\n    "])
    return path


@pytest.fixture(scope="module")
def free_tokenizer(free_path):
    return load_sentencepiece(free_path)


ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)))


@settings(max_examples=500, deadline=None)
@given(
    text=ANY_TEXT | st.text("▁ \n\t\r\x00<>0xE2a1") | st.sampled_from(["<image>", "<0xE2>", "</s>"])
)
def test_free_text_survives_whatever_it_is(free_tokenizer, text):
    ids = free_tokenizer.encode(text)
    assert free_tokenizer.decode(ids) == text
    assert b"".join(free_tokenizer.token_bytes[i] for i in ids) == text.encode()
    assert free_tokenizer.image_token not in ids


def test_free_text_has_one_token_a_digit_and_keeps_its_pieces(free_tokenizer):
    ids = free_tokenizer.encode("x + 12\n    </think>")
    tail = [free_tokenizer.token_bytes[i] for i in ids[-4:]]
    assert tail == [b"1", b"2", b"\n    ", b"</think>"]


@settings(max_examples=200, deadline=None)
@given(before=ANY_TEXT, inside=st.sampled_from(["", "é", "\n"]), after=ANY_TEXT)
def test_a_stop_string_is_found_among_byte_pieces(free_tokenizer, stops, before, inside, after):
    """The table over tokens ends in the match if and only if the text contains the stop string."""
    for stop, (table, matched) in stops.items():
        text = f"{before}{stop[:3]}{inside}{stop[3:]}{after}"
        state = 0
        for token in free_tokenizer.encode(text):
            state = table[state][token]
        assert (state == matched) == (stop in text)


@pytest.fixture(scope="module")
def stops(free_tokenizer):
    tables = {stop: stop_table(stop, free_tokenizer.token_bytes) for stop in ("</think>", "ß→é")}
    return {stop: (table.table.tolist(), table.matched) for stop, table in tables.items()}


def test_a_lone_surrogate_is_no_text(free_tokenizer):
    with pytest.raises(UserError, match="lone surrogate"):
        free_tokenizer.encode("a\ud800")
