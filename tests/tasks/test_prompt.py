"""What the form of a response is, case by case."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmma.errors import UserError
from gmma.text.prompt import (
    PromptTemplate,
    answer_text,
    is_well_formed,
    parse_answer,
    prompt_text,
    prompt_tokens,
    read_response,
    thought_text,
)
from gmma.text.tokenizer import Tokenizer

FREE = st.text(st.characters(exclude_characters="<>", exclude_categories=("Cs",)))


def byte_tokenizer(*, bos: int | None, image_token: int | None) -> Tokenizer:
    return Tokenizer(
        encode=lambda text: list(text.encode()),
        decode=lambda ids: bytes(ids).decode(),
        token_bytes=tuple(bytes([i]) for i in range(256)),
        vocab_size=260,
        pad=256,
        bos=bos,
        stop_tokens=(258,),
        image_token=image_token,
    )


@settings(max_examples=100, deadline=None)
@given(text=FREE)
def test_written_thoughts_and_answers_are_read_back(text):
    found = read_response(thought_text(text).encode(), answer_text(text).encode())
    assert (found.thought, found.answer, found.well_formed) == (text, text, True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>[1, 2]</answer>", "[1, 2]"),
        (" \n<answer>7</answer>\n", "7"),
        ("<answer></answer>", ""),
        ("<answer>7</answer>, and more", "7"),
        ("<answer>7</answer><answer>8</answer>", "7"),
        ("<answer>7<answer>8</answer>", None),
        ("so <answer>7</answer>", "7"),
        ("<answer> and <answer>7</answer>", None),
        ("<answer>7", None),
        ("<answer>[[1, 2, 3, 4], [5, 6", "[[1, 2, 3, 4]]"),
        (
            '<answer>[{"box": [1, 2], "label": "a ] cup"}, {"bo',
            '[{"box": [1, 2], "label": "a ] cup"}]',
        ),
        ("<answer>```json\n[(0.1, 0.2), (0.3", "```json\n[(0.1, 0.2)]"),
        ("<answer>[1, 2, 33", None),
        ("<answer>(1, 2), [3", None),
        ("<answer>[1], [2", None),
        ("7</answer>", None),
        ("7", None),
        ("", None),
    ],
)
def test_parse_answer(text, answer):
    assert parse_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("<answer>7</answer>", True),
        (" \n<answer>7</answer> and more", True),
        ("so <answer>7</answer>", False),
        ("<answer>7", False),
        ("<answer>[[1, 2], [3", False),
        ("", False),
    ],
)
def test_words_before_the_answer_cost_the_form_alone(text, whole):
    assert is_well_formed(text) == whole


def test_images_stand_before_the_question_inside_the_template():
    tokenizer = byte_tokenizer(bos=257, image_token=259)
    template = PromptTemplate(opening="U", image_open="[", image_close="]", closing="!")
    tokens = prompt_tokens("q", [[2], [1]], tokenizer, template)
    assert tokens == [257, *b"U[", 259, 259, *b"][", 259, *b"]q!"]
    assert prompt_text("q", template) == "Uq!"


def test_crops_stand_behind_the_whole_image_each_in_its_own_markers():
    tokenizer = byte_tokenizer(bos=None, image_token=259)
    template = PromptTemplate(
        image_open="[", image_close="]", whole_view="W", crop_views="C", next_crop="N", closing="!"
    )
    tokens = prompt_tokens("q", [[1, 1, 1], [1]], tokenizer, template)
    assert tokens == [*b"W[", 259, *b"]C[", 259, *b"]N[", 259, *b"][", 259, *b"]q!"]


def test_tiny_prompt_is_images_question_and_opening_tag():
    tokenizer = byte_tokenizer(bos=None, image_token=259)
    assert prompt_tokens("q", [[3]], tokenizer) == [259, 259, 259, *b"q<think>"]


def test_images_without_image_token():
    with pytest.raises(UserError, match="2 images"):
        prompt_tokens("q", [[3], [3]], byte_tokenizer(bos=None, image_token=None))


def test_images_stand_where_the_question_says():
    tokenizer = byte_tokenizer(bos=None, image_token=259)
    template = PromptTemplate(opening="U", image_open="[", image_close="]", closing="!")
    tokens = prompt_tokens("a <image> b <image>", [[2], [1]], tokenizer, template)
    assert tokens == [*b"Ua [", 259, 259, *b"] b [", 259, *b"]!"]
    assert prompt_tokens("<image>", [], tokenizer, template) == [*b"U<image>!"]  # a word
    with pytest.raises(UserError, match="says <image> 1 times and the record has 2 images"):
        prompt_tokens("a <image>", [[2], [1]], tokenizer, template)


def test_a_system_prompt_stands_in_place_of_the_opening():
    tokenizer = byte_tokenizer(bos=None, image_token=259)
    template = PromptTemplate(opening="U", system=("S", "U"), closing="!", strip_system=True)
    assert prompt_tokens("q", [], tokenizer, template, " be brief ") == [*b"Sbe briefUq!"]
    assert prompt_tokens("q", [[1]], tokenizer, system="s") == [*b"s\n", 259, *b"q<think>"]
    assert prompt_text("q", template, "s") == "SsUq!"
    with pytest.raises(UserError, match="shows no system prompt"):
        prompt_tokens("q", [], tokenizer, PromptTemplate(), "s")
