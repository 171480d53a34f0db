"""Tokenizers against golden encodings of real files, and against transformers on random text."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from gmma.answers.boxes import parse_detections
from gmma.errors import UserError
from gmma.families.gemma3.tokenizer import GEMMA_TOKENIZER, read_gemma
from gmma.families.qwen2_5_vl.tokenizer import (
    QWEN_SPECIAL,
    QWEN_TOKENIZER,
    read_qwen,
    tiktoken_pairs,
)
from gmma.huggingface.tokenizers import GROUNDING, load_tokenizer
from gmma.text.prompt import prompt_tokens
from gmma.text.tokenizer import Tokenizer
from tests.porting import theirs
from tests.porting.directories import (
    GEMMA_SPECIAL,
    write_gemma_tokenizer,
    write_qwen_tokenizer,
)
from tests.tree.scripted import score_spacings

DATA = Path(os.environ["GMMA_REAL_DATA"])
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="session")
def real_qwen() -> Tokenizer:
    if not (DATA / "qwen_bpe").is_dir():
        pytest.skip(f"{DATA / 'qwen_bpe'} is not there")
    found = read_qwen(DATA / "qwen_bpe")
    assert found is not None
    return found


def test_qwen_golden_encodings(real_qwen: Tokenizer) -> None:
    golden = json.loads((DATA / "qwen_bpe" / "golden.json").read_text())
    for case in golden["cases"]:
        assert real_qwen.encode(case["text"]) == case["ids"]
        assert real_qwen.decode(case["ids"]) == case["text"]
        joined = b"".join(real_qwen.token_bytes[i] for i in case["ids"])
        assert joined.decode() == case["text"]
    for token, number in (golden["special_tokens"] | golden["qwen2_5_vl_extra_ids"]).items():
        assert real_qwen.encode(token) == [number]
        assert real_qwen.token_bytes[number] == (token.encode() if token in GROUNDING else b"")
    check = golden["hf_transformers_check"]
    assert real_qwen.encode(check["prompt"])[:14] == check["ids_prefix"]
    assert real_qwen.encode("") == []
    assert real_qwen.decode([]) == ""


def test_labels_and_boxes_of_qwen_are_read_from_a_rollout(real_qwen: Tokenizer) -> None:
    """Its marks round them are special tokens; without them the two run together."""
    form = "<|object_ref_start|>{}<|object_ref_end|><|box_start|>({},{}),({},{})<|box_end|>"
    text = form.format("cup", 1, 2, 3, 4) + form.format("dog", 5, 6, 7, 8)
    decoded = real_qwen.decode(real_qwen.encode(text))
    assert decoded == text
    assert parse_detections(decoded) == [("cup", (1, 2, 3, 4)), ("dog", (5, 6, 7, 8))]


def said_of(reference: Any, ids: list[int]) -> str:
    """What transformers decodes without special tokens, but for the marks, which gmma keeps."""
    silent = set(reference.convert_tokens_to_ids(sorted(set(QWEN_SPECIAL) - set(GROUNDING))))
    return reference.decode([token for token in ids if token not in silent])


def test_qwen_prompt_with_images(real_qwen: Tokenizer, tmp_path: Path) -> None:
    """System, user, vision start, placeholders, vision end, as transformers' own test has it."""
    golden = json.loads((DATA / "qwen_bpe" / "golden.json").read_text())
    tokenizer = prepared(real_qwen, QWEN_TOKENIZER, image_token=151655, vocab_size=152064)
    row = prompt_tokens("Where?", [[3], [2]], tokenizer, QWEN_TOKENIZER.template)
    assert row[:14] == golden["hf_transformers_check"]["ids_prefix"]
    assert row[14:23] == [151652, *[151655] * 3, 151653, 151652, *[151655] * 2, 151653]
    assert tokenizer.decode(row[23:]).startswith("Where?\n")
    assert tokenizer.decode(row).endswith("assistant\n<think>")
    assert len(tokenizer.token_bytes) == 152064
    assert tokenizer.decode([152063, *tokenizer.encode("a"), 151999]) == "a"
    assert tokenizer.stop_tokens == (151645,)
    with pytest.raises(UserError, match="image placeholder"):
        prompt_tokens("Where is <|image_pad|>?", [[3]], tokenizer, QWEN_TOKENIZER.template)


def test_ten_spacings_are_read_with_the_vocabulary_of_qwen(real_qwen: Tokenizer) -> None:
    """From `grow_tree` to `score_answers`."""
    cut = [real_qwen.decode([t]) for t in real_qwen.encode("</think><answer>12</answer>")]
    assert "><" in cut  # this token belongs to thought and answer
    score_spacings(real_qwen, 152_064)


def prepared(
    found: Tokenizer, files: Any, *, image_token: int | None, vocab_size: int, sees: bool = True
) -> Tokenizer:
    """What `load_tokenizer` makes of a tokenizer that was read."""
    from dataclasses import replace

    vision = True if sees else None
    model = SimpleNamespace(vision=vision, image_token=image_token, vocab_size=vocab_size)
    read = replace(files, read=lambda directory: found)
    made = load_tokenizer(Path("nowhere"), read, {}, model)
    assert made is not None
    return made


def test_sentencepiece_model_of_the_library() -> None:
    path = DATA / "sentencepiece_test" / "test_model.model"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    from gmma.text.tokenizer import load_sentencepiece

    tokenizer = load_sentencepiece(path)
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    botchan = (path.parent / "botchan.txt").read_text(encoding="utf-8-sig").splitlines()
    for line in botchan[:400]:
        known = "".join(c for c in line if library.unk_id() not in library.encode(c))
        assert tokenizer.encode(known) == library.encode(known)
        assert tokenizer.decode(tokenizer.encode(known)).strip() == " ".join(known.split())
    assert tokenizer.encode("") == []


@pytest.fixture(scope="session")
def small_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gemma")
    write_gemma_tokenizer(directory)
    return directory


@given(text=ANY_TEXT)
def test_gemma_round_trip(small_gemma: Path, text: str) -> None:
    tokenizer = read_gemma(small_gemma)
    assert tokenizer is not None
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.replace("▁", " ")
    assert b"".join(tokenizer.token_bytes[i] for i in ids).decode() == text.replace("▁", " ")


def test_gemma_prompt(small_gemma: Path) -> None:
    """Begin, turn, image between its markers, question; what adjoins is encoded in one piece."""
    tokenizer = read_gemma(small_gemma)
    assert tokenizer is not None
    ids = {token: tokenizer.encode(token)[0] for token in GEMMA_SPECIAL}
    image = ids["<image_soft_token>"]
    ready = prepared(tokenizer, GEMMA_TOKENIZER, image_token=image, vocab_size=600)
    row = prompt_tokens("Where?", [[2]], ready, GEMMA_TOKENIZER.template)
    head = [2, ids["<start_of_turn>"], *ready.encode("user\n\n\n"), ids["<start_of_image>"]]
    assert row[: len(head) + 3] == [*head, image, image, ids["<end_of_image>"]]
    assert ready.decode(row).endswith("model\n<think>")
    assert ready.stop_tokens == (1, ids["<end_of_turn>"])


@pytest.fixture(scope="session")
def small_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("qwen")
    write_qwen_tokenizer(directory)
    return directory


@given(text=ANY_TEXT)
def test_qwen_round_trip(small_qwen: Path, text: str) -> None:
    from unicodedata import normalize

    tokenizer = read_qwen(small_qwen)
    assert tokenizer is not None
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == normalize("NFC", text)
    assert b"".join(tokenizer.token_bytes[i] for i in ids).decode() == normalize("NFC", text)


def test_added_tokens_that_are_text_add_their_text(small_qwen: Path) -> None:
    tokenizer = read_qwen(small_qwen)
    assert tokenizer is not None
    (token,) = tokenizer.encode("<tool_call>")
    assert tokenizer.token_bytes[token] == b"<tool_call>"


def test_missing_special_tokens_are_named(small_qwen: Path, tmp_path: Path) -> None:
    values = json.loads((small_qwen / "tokenizer.json").read_text())
    kept = [t for t in values["added_tokens"] if t["content"] != "<|vision_start|>"]
    values["added_tokens"] = kept
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    model = SimpleNamespace(vision=True, image_token=0, vocab_size=600)
    with pytest.raises(UserError, match=r"lacks <\|vision_start\|>; add the special tokens"):
        load_tokenizer(tmp_path, QWEN_TOKENIZER, {}, model)
    with pytest.raises(UserError, match=r"has <\|image_pad\|> at id \d+, config.json at 0"):
        load_tokenizer(small_qwen, QWEN_TOKENIZER, {}, model)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="is no tokenizer"):
        load_tokenizer(tmp_path, QWEN_TOKENIZER, {}, model)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_qwen_equals_transformers(small_qwen: Path) -> None:
    theirs.quiet()
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(tokenizer_file=str(small_qwen / "tokenizer.json"))
    tokenizer = read_qwen(small_qwen)
    assert tokenizer is not None

    @given(st.lists(st.one_of(ANY_TEXT, st.sampled_from(QWEN_SPECIAL)), max_size=5))
    def check(parts: list[str]) -> None:
        text = "".join(parts)
        ids = tokenizer.encode(text)
        assert ids == reference(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == said_of(reference, ids)

    check()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_the_real_qwen_equals_transformers(real_qwen: Tokenizer) -> None:
    """Its vocabulary and merges in transformers' own class: its split, its normal form."""
    theirs.quiet()
    from transformers import Qwen2Tokenizer

    vocab, merges = tiktoken_pairs(DATA / "qwen_bpe" / "qwen.tiktoken")
    reference = Qwen2Tokenizer(vocab=vocab, merges=merges)
    reference.add_special_tokens({"additional_special_tokens": list(QWEN_SPECIAL)})

    @given(st.lists(st.one_of(ANY_TEXT, st.sampled_from(QWEN_SPECIAL)), max_size=5))
    def check(parts: list[str]) -> None:
        text = "".join(parts)
        ids = real_qwen.encode(text)
        assert ids == reference(text, add_special_tokens=False)["input_ids"]
        assert real_qwen.decode(ids) == said_of(reference, ids)

    check()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_gemma_equals_transformers(small_gemma: Path, tmp_path: Path) -> None:
    """transformers turns the SentencePiece file into its own kind; ids must be the same."""
    theirs.quiet()
    from transformers import GemmaTokenizer

    reference = GemmaTokenizer.from_pretrained(small_gemma)
    reference.save_pretrained(tmp_path)
    by_library, by_model = read_gemma(tmp_path), read_gemma(small_gemma)
    assert by_library is not None
    assert by_model is not None

    @given(st.lists(st.one_of(ANY_TEXT, st.sampled_from(list(GEMMA_SPECIAL))), max_size=5))
    def check(parts: list[str]) -> None:
        text = "".join(parts)
        ids = reference(text, add_special_tokens=False)["input_ids"]
        assert by_library.encode(text) == ids
        assert by_model.encode(text) == ids

    check()
