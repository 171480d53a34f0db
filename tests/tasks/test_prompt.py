"""What the form of a response is, case by case."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmma.errors import UserError
from gmma.options.prompt import PromptConfig, Tags, TinyTemplate
from gmma.text.prompt import (
    TINY_TEMPLATE,
    PromptTemplate,
    answer_text,
    is_well_formed,
    parse_answer,
    prompt_text,
    prompt_tokens,
    read_response,
    thought_text,
    tiny_template,
)
from gmma.text.tokenizer import Tokenizer, missing_signs, with_pieces, with_spoken

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


OTHER = [
    Tags(think=("<reasoning>", "</reasoning>"), answer=("<result>", "</result>")),
    Tags(think=("[[a", "a]]"), answer=("\\boxed{", "}!!")),
]


@pytest.mark.parametrize("tags", OTHER)
@settings(max_examples=30, deadline=None)
@given(text=FREE.filter(lambda text: "a" not in text and "}" not in text and "\\" not in text))
def test_other_tags_are_read_alike(tags, text):
    thought, answer = thought_text(text, tags), answer_text(text, tags)
    found = read_response(thought.encode(), answer.encode(), tags)
    assert (found.thought, found.answer, found.well_formed) == (text, text, True)
    assert parse_answer(f"<answer>{text}</answer>", tags) is None
    assert not is_well_formed(f"so {answer}", tags)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"think": ("<t", "</t>")}, "prompt.tags.think = .* of 3 characters or more"),
        ({"answer": ("<a> ", "</a>")}, "without white space around"),
        ({"think": ("<answer>", "</think>")}, "of which none is part of another, as <answer> is"),
        ({"answer": ("answer", "</answer>")}, "as answer is"),
        ({"think": ("<image>", "</image>")}, "prompt.tags = .* texts without <image>"),
    ],
)
def test_tags_that_could_not_be_told_apart_are_refused(tags, message):
    with pytest.raises(UserError, match=message):
        Tags(**tags)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PromptConfig(form="Look at the <image> first."),
        *(lambda name=name: TinyTemplate(**{name: "<image>"}) for name in ("opening", "closing")),
        *(
            lambda name=name: TinyTemplate(**{name: ("", "<image>")})
            for name in ("system", "image")
        ),
    ],
)
def test_words_that_promise_an_image_where_none_will_stand_are_refused(make):
    with pytest.raises(UserError, match=r"(form|template\.\w+) = .*<image>.* in the question"):
        make()


def test_a_form_that_a_template_would_strip_is_refused():
    with pytest.raises(
        UserError, match=r"prompt.form = 'Say why.*; it must be a text without white"
    ):
        PromptConfig(form="Say why.\n")


def test_the_tiny_family_is_asked_in_words_of_the_run():
    texts = TinyTemplate(opening="O", system=("<", ">"), image=("[", "]"), closing="C")
    words = PromptConfig(form="Say why.", tags=OTHER[0])
    template = tiny_template(texts, words)
    tokenizer = byte_tokenizer(bos=None, image_token=259)
    tokens = prompt_tokens("q", [[1]], tokenizer, template)
    assert tokens == [*b"O[", 259, *b"]q\nSay why.C<reasoning>"]
    assert prompt_text("q", template, "s") == "<s>q\nSay why.C<reasoning>"
    assert tiny_template(TinyTemplate(), PromptConfig()) == TINY_TEMPLATE


def test_a_vocabulary_gets_what_it_lacks():
    letters = byte_tokenizer(bos=None, image_token=None)

    def encode(text):
        try:
            return list(text.encode("ascii"))
        except UnicodeEncodeError:
            raise UserError(text) from None

    known = replace(letters, encode=encode, vocab_size=256)
    assert missing_signs(known, ["aé\n", "é数"]) == ["é", "数"]
    assert with_pieces(known, []) is known
    grown = with_pieces(known, ["<r>", "<r>>", "é"])
    assert grown.vocab_size == 259
    assert grown.encode("a<r>>é<r>") == [97, 257, 258, 256]
    assert grown.decode(grown.encode("a<r>>é<r>")) == "a<r>>é<r>"


def test_control_tokens_that_are_tags_are_said():
    letters = replace(byte_tokenizer(bos=None, image_token=None), names={1: "<r>", 2: "<end>"})
    silent = replace(letters, token_bytes=tuple(b"" for _ in range(256)))
    spoken = with_spoken(silent, ["<r>"])
    assert spoken.decode([1, 2]) == "<r>"
    assert spoken.names == {2: "<end>"}


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
