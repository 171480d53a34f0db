"""An export is asked as its run asked: the chat template makes the trained prompt."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmma.families import find_family
from gmma.huggingface.chat import OLD_TEMPLATE, TEMPLATE, TOKENIZER, write_chat_template
from gmma.huggingface.tokenizers import INSTRUCTION, TokenizerFiles
from gmma.text.prompt import prompt_text, prompt_tokens
from tests.porting import theirs
from tests.porting.directories import write_gemma_tokenizer, write_qwen_tokenizer
from tests.porting.test_tokenizers import prepared

WRITERS = {"gemma3": write_gemma_tokenizer, "qwen2_5_vl": write_qwen_tokenizer}
QUESTIONS = ("Where is the cup?", "  What is 7 + 5?\n", "Two\n\nlines  of it", "é 数 🙂?", "\t")
ANY_QUESTION = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>▁"))
over_families = pytest.mark.parametrize("family", WRITERS)


def tokenizer_files(family: str) -> TokenizerFiles:
    """The family's, which are the same in every directory."""
    return find_family({"model_type": family}, "here").tokenizer(Path())


def turn(question: str, images: int) -> list[dict[str, Any]]:
    """One turn of a user, its images behind its text: the template puts them before it."""
    content = [{"type": "text", "text": question}, *[{"type": "image"}] * images]
    return [{"role": "user", "content": content}]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@over_families
def test_the_template_of_an_export_is_the_trained_prompt(family: str, tmp_path: Path) -> None:
    """Token by token, the placeholders put in as the family's processor does."""
    theirs.quiet()
    from transformers import GemmaTokenizer, PreTrainedTokenizerFast

    ids = WRITERS[family](tmp_path)
    files = tokenizer_files(family)
    found = files.read(tmp_path)
    assert found is not None
    ours = prepared(found, files, image_token=ids[files.image], vocab_size=max(ids.values()) + 3)
    write_chat_template(tmp_path, files.chat)
    if family == "gemma3":
        reference = GemmaTokenizer.from_pretrained(tmp_path)
        marker = "<start_of_image>"
        views = f"\n\n<start_of_image>{files.image * 3}<end_of_image>\n\n"
    else:
        reference = PreTrainedTokenizerFast.from_pretrained(tmp_path)
        marker, views = files.image, files.image * 3
    assert reference.chat_template == files.chat

    @settings(max_examples=30)
    @given(st.one_of(st.sampled_from(QUESTIONS), ANY_QUESTION), st.integers(0, 2))
    def check(question: str, images: int) -> None:
        text = reference.apply_chat_template(
            turn(question, images), add_generation_prompt=True, tokenize=False
        )
        assert text.count(marker) == images
        tokens = reference(text.replace(marker, views), add_special_tokens=False)["input_ids"]
        assert tokens == prompt_tokens(question, [[3]] * images, ours, files.template)

    check()
    plain = [{"role": "user", "content": QUESTIONS[1]}]
    text = reference.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)
    begin = "<bos>" if family == "gemma3" else ""
    assert text == begin + prompt_text(QUESTIONS[1], files.template)
    with pytest.raises(Exception, match="images and text alone"):
        reference.apply_chat_template(
            [{"role": "user", "content": [{"type": "video"}]}], tokenize=False
        )


@over_families
def test_a_template_replaces_the_one_of_the_base(family: str, tmp_path: Path) -> None:
    """In every file where some version of transformers looks for it; and it says what it is."""
    chat = tokenizer_files(family).chat
    for name in (OLD_TEMPLATE, TOKENIZER):
        (tmp_path / name).write_text(json.dumps({"chat_template": "base", "kept": 1}))
    write_chat_template(tmp_path, chat)
    assert (tmp_path / TEMPLATE).read_text() == chat
    for name in (OLD_TEMPLATE, TOKENIZER):
        assert json.loads((tmp_path / name).read_text()) == {"chat_template": chat, "kept": 1}
    assert chat.startswith("{#- Written by gmma: the prompt of the training. Other than the base")
    assert INSTRUCTION in chat


def test_a_question_is_stripped_where_the_family_strips_it(tmp_path: Path) -> None:
    """As each family's own chat template does: Gemma trims, Qwen keeps."""
    asked = {family: prompt_text("  a b\n", tokenizer_files(family).template) for family in WRITERS}
    assert "user\na b\n" + INSTRUCTION in asked["gemma3"]
    assert "user\n  a b\n\n" + INSTRUCTION in asked["qwen2_5_vl"]
