"""A run asks as its model's own chat template does, and its export as the run did."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmma.errors import UserError
from gmma.families import find_family
from gmma.families.pretrained import PretrainedConfig
from gmma.hardware.sharding import make_mesh
from gmma.huggingface.chat import (
    OLD_TEMPLATE,
    TEMPLATE,
    TOKENIZER,
    own_template,
    prompt_of,
    render,
    write_chat_template,
)
from gmma.huggingface.tokenizers import INSTRUCTION, TokenizerFiles
from gmma.options.prompt import PromptConfig, Tags
from gmma.plan.programs import plan_parts
from gmma.porting.checkpoints import read_trained
from gmma.porting.pretrained import chat_of, describe_pretrained, source_of
from gmma.run.backbone import pretrained_backbone
from gmma.run.experiments import load_experiment
from gmma.tasks import find_task
from gmma.text.prompt import prompt_text, prompt_tokens
from gmma.text.tokenizer import shown
from tests.porting import theirs
from tests.porting.directories import write_gemma_tokenizer, write_qwen_tokenizer
from tests.porting.test_tokenizers import prepared

WRITERS = {
    "gemma3": write_gemma_tokenizer,
    "qwen2_5_vl": write_qwen_tokenizer,
    "qwen3_5": write_qwen_tokenizer,
}
QUESTIONS = ("Where is the cup?", "  What is 7 + 5?\n", "Two\n\nlines  of it", "é 数 🙂?", "\t")
ANY_QUESTION = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>▁"))
over_families = pytest.mark.parametrize("family", WRITERS)
TINY = Path(__file__).parents[1] / "tiny_digits.py"
PUBLISHED = Path(__file__).parent / "chat_templates"
ASKED = {  # template: family, switch, what the prompt begins with, whether it opens a thought
    "qwen2_5": ("qwen2", None, "system\nYou are Qwen, created by Alibaba Cloud.", False),
    "qwen3": ("qwen3", None, "user\n", False),
    "qwen3 thinking": ("qwen3", True, "user\n", False),
    "deepseek_r1_distill": ("qwen2", None, "<｜User｜>", True),
    "smollm2": ("llama", None, "system\nYou are a helpful AI assistant named SmolLM", False),
    "qwen2_5_vl": ("qwen2_5_vl", None, "system\nYou are a helpful assistant.", False),
    "qwen3_vl": ("qwen3_vl", None, "user\n", False),
    "gemma3": ("gemma3", None, "user\n", False),
    "qwen3_5": ("qwen3_5", None, "user\n", True),
}
over_published = pytest.mark.parametrize("name", ASKED)
# As Qwen3's thinking models have it, and as models that think only where they are asked to.
OPENS = PUBLISHED.joinpath("qwen3.jinja").read_text().split("{%- if enable_thinking is")[0] + (
    "{{- '<think>\\n' }}{%- endif %}"
)
CLOSES = OPENS.replace(
    "{{- '<think>\\n' }}",
    "{{- '<think>\\n' if enable_thinking is true else '<think>\\n\\n</think>\\n\\n' }}",
)


# With all that means something between the quotes of a template.
OWN_TAGS = Tags(think=("<reasoning>", "</reasoning>"), answer=('[a"{{', "}}a]"))
OWN_WORDS = PromptConfig(form='Say \\n "why",\nthen {{ what }}.', tags=OWN_TAGS)


def tokenizer_files(family: str, words: PromptConfig | None = None) -> TokenizerFiles:
    """The family's, which are the same in every directory."""
    read = find_family({"model_type": family}, "here").tokenizer
    return read(Path()) if words is None else read(Path(), None, words)


def turn(question: str, images: int) -> list[dict[str, Any]]:
    """One turn of a user, its images behind its text: the template puts them before it."""
    content = [{"type": "text", "text": question}, *[{"type": "image"}] * images]
    return [{"role": "user", "content": content}]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@over_families
@pytest.mark.parametrize("words", [None, OWN_WORDS, PromptConfig(form="")])
def test_the_template_of_an_export_is_the_trained_prompt(
    family: str, words: PromptConfig | None, tmp_path: Path
) -> None:
    """Token by token, the placeholders put in as the family's processor does."""
    theirs.quiet()
    from transformers import GemmaTokenizer, PreTrainedTokenizerFast

    ids = WRITERS[family](tmp_path)
    files = tokenizer_files(family, words)
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


def published_directory(name: str, directory: Path) -> tuple[TokenizerFiles, dict[str, int]]:
    """A tokenizer beside a published template, as its family reads it; the special tokens' ids."""
    family, thinking, *_ = ASKED[name]
    ids = WRITERS.get(family, write_qwen_tokenizer)(directory)
    config = directory / TOKENIZER
    values = json.loads(config.read_text()) if config.is_file() else {"eos_token": "<|im_end|>"}
    begin = {"gemma3": "<bos>", "deepseek_r1_distill": "<|endoftext|>"}.get(name)
    config.write_text(json.dumps({**values, "bos_token": begin}))
    own = (PUBLISHED / f"{name.split()[0]}.jinja").read_text(encoding="utf-8")
    (directory / TEMPLATE).write_text(own, encoding="utf-8")
    return find_family({"model_type": family}, "here").tokenizer(directory, thinking), ids


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@over_published
def test_the_prompt_is_that_of_the_published_template(name: str, tmp_path: Path) -> None:
    """Token by token, up to the instruction and the opened thought; so is the export's."""
    theirs.quiet()
    from transformers import GemmaTokenizer, PreTrainedTokenizerFast

    family, thinking, begins, opens = ASKED[name]
    files, ids = published_directory(name, tmp_path)
    found = files.read(tmp_path)
    assert found is not None
    sees = bool(files.image)
    room = {"image_token": ids.get(files.image), "vocab_size": max(ids.values()) + 3}
    ours = prepared(found, files, sees=sees, **room)
    kind = GemmaTokenizer if family == "gemma3" else PreTrainedTokenizerFast
    reference = kind.from_pretrained(tmp_path)
    marker, views = {
        "gemma3": ("<start_of_image>", f"\n\n<start_of_image>{files.image * 3}<end_of_image>\n\n")
    }.get(family, (files.image, files.image * 3))
    switch = {} if thinking is None else {"enable_thinking": thinking}

    def ask(content: Any, **options: Any) -> list[int]:
        turns = [{"role": "user", "content": content}]
        text = reference.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, **options
        )
        whole = text.replace(marker, views) if sees else text
        return reference(whole, add_special_tokens=False)["input_ids"]

    def content_of(text: str, images: int) -> Any:
        items = [*[{"type": "image"}] * images, {"type": "text", "text": text}]
        return items if sees else text

    added = [] if opens else ours.encode("<think>")

    @settings(max_examples=20)
    @given(st.one_of(st.sampled_from(QUESTIONS), ANY_QUESTION), st.integers(0, 2 if sees else 0))
    def check(question: str, images: int) -> None:
        prompt = prompt_tokens(question, [[3]] * images, ours, files.template)
        with_ours = f"{files.template.ask(question)}\n{INSTRUCTION}"
        reference.chat_template = (tmp_path / TEMPLATE).read_text(encoding="utf-8")
        if files.template.ask(question):  # else Gemma's strips what ours begins with
            assert [*ask(content_of(with_ours, images), **switch), *added] == prompt
        bare = replace(
            files.template, closing=files.template.closing.replace(f"\n{INSTRUCTION}", "")
        )
        plain = prompt_tokens(question, [[3]] * images, ours, bare)
        assert [*ask(content_of(question, images), **switch), *added] == plain
        reference.chat_template = files.chat
        if files.template.ask(question) or images:
            assert ask(content_of(question, images)) == prompt
            assert ask(content_of(question, images), enable_thinking=False) == prompt

    check()
    reference.chat_template = files.chat
    turns = [{"role": "user", "content": "Where?"}]
    text = reference.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    said = shown(ours, prompt_tokens("Where?", [], ours, files.template))
    assert said == text
    assert begins in said[:80]


@over_published
def test_a_prompt_opens_one_thought(name: str, tmp_path: Path) -> None:
    """And what an export writes is read back as the same prompt, whatever the switch was."""
    files, _ = published_directory(name, tmp_path)
    reply = files.template.closing.removeprefix(f"\n{INSTRUCTION}")
    assert reply.rstrip().endswith("<think>")
    assert reply.count("think>") == 1
    write_chat_template(tmp_path, files.chat)
    again = find_family({"model_type": ASKED[name][0]}, "here").tokenizer(tmp_path)
    assert again.template == files.template
    assert again.chat == files.chat


@over_published
def test_a_run_s_own_words_stand_in_place_of_ours(name: str, tmp_path: Path) -> None:
    """An export of it is read back with the same words alone."""
    family, _, _, opens = ASKED[name]
    usual, _ = published_directory(name, tmp_path)
    read = find_family({"model_type": family}, "here").tokenizer
    if opens:
        with pytest.raises(UserError, match=r"opens a thought by itself.*prompt\.tags\.think"):
            read(tmp_path, None, OWN_WORDS)
    words = replace(OWN_WORDS, tags=Tags()) if opens else OWN_WORDS
    thinking = ASKED[name][1]
    files = read(tmp_path, thinking, words)
    expected = usual.template.closing.replace(INSTRUCTION, OWN_WORDS.form)
    assert files.template.closing == expected.replace("<think>", words.tags.think[0])
    assert files.template == replace(
        usual.template, closing=files.template.closing, tags=words.tags
    )
    write_chat_template(tmp_path, files.chat)
    again = read(tmp_path, None, words)
    assert again.template == files.template
    assert again.chat == files.chat
    with pytest.raises(UserError, match=r"was written by an export.*prompt\.form and prompt\.tags"):
        read(tmp_path)


def test_words_that_are_names_in_our_templates_stay_words(tmp_path: Path) -> None:
    """What stands for the prompt's parts there is put in at once, not one after the other."""
    words = PromptConfig(form="Say $OPENED, $OWN or $IMAGE.")
    published_directory("qwen2_5_vl", tmp_path)
    read = find_family({"model_type": "qwen2_5_vl"}, "here").tokenizer
    for own in (True, False):
        if not own:
            (tmp_path / TEMPLATE).unlink()
        files = read(tmp_path, None, words)
        text = render(files.chat, [{"role": "user", "content": "Where?"}])
        assert text.endswith(f"Where?{files.template.closing}")
        assert words.form in files.template.closing


def test_an_export_without_an_instruction_is_known_by_the_thought_that_it_opens(
    tmp_path: Path,
) -> None:
    """Also where its base opens the thought, and a line behind it."""
    published_directory("qwen3", tmp_path)
    (tmp_path / TEMPLATE).write_text(OPENS)
    read = find_family({"model_type": "qwen3"}, "here").tokenizer
    words = PromptConfig(form="")
    files = read(tmp_path, None, words)
    assert files.template.closing.endswith("assistant\n<think>\n")
    write_chat_template(tmp_path, files.chat)
    again = read(tmp_path, None, words)
    assert (again.template, again.chat) == (files.template, files.chat)


def test_a_template_that_opens_a_thought_keeps_its_own(tmp_path: Path) -> None:
    published_directory("qwen3", tmp_path)
    read = find_family({"model_type": "qwen3"}, "here").tokenizer
    for own, thinking in ((OPENS, None), (CLOSES, True)):
        (tmp_path / TEMPLATE).write_text(own)
        closing = read(tmp_path, thinking).template.closing
        assert closing == f"\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n<think>\n"


@pytest.mark.parametrize(
    ("name", "own", "thinking", "message"),
    [
        ("qwen3", None, False, r"model.thinking = False, and .* closes .*; set model.thinking to"),
        ("qwen3", CLOSES, None, r"model.thinking = None, and .* closes .*; set model.thinking to"),
        ("qwen3", OPENS.replace("<think>", "<think></think>"), None, "mend the template"),
        ("qwen3", OPENS.replace("<think>", "<think></think>Answer:"), None, "mend the template"),
        ("qwen3", OPENS, True, "= True, but the chat template has no enable_thinking; leave it"),
        ("qwen2_5_vl", None, False, "= False, but the chat template has no enable_thinking"),
        ("qwen2_5_vl", "{{ messages[0].content + '' }}", None, "cannot be rendered"),
        ("qwen2_5_vl", "{{ messages[0].content }}", None, "does not show an image as <|vision_sta"),
        ("gemma3", "{{ messages[0].content }}", None, "does not show an image as <start_of_image>"),
        ("qwen3", "{% if %}", None, "the chat template cannot be read"),
        ("qwen3", "{{ 'What?' }}", None, "does not show the question"),
        ("qwen3", "{{ messages[0].content * 2 }}", None, "shows the question more than once"),
        ("qwen3", OPENS + "Okay", None, "begins the thought with words of its own"),
        ("qwen3", "{{ 1 / 0 }}", None, "cannot be rendered .*division by zero"),
        ("qwen3", "{{ '{x}'.format(y=1) }}", None, "cannot be rendered .*KeyError"),
        (
            "qwen3",
            "{% for i in range(10 ** 9) %}{% endfor %}",
            None,
            "cannot be rendered .*too big",
        ),
        ("qwen3", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", None, "rendered .*recursion"),
    ],
)
def test_templates_that_leave_no_room_for_a_thought_are_refused(
    name: str, own: str | None, thinking: bool | None, message: str, tmp_path: Path
) -> None:
    published_directory(name, tmp_path)
    if own is not None:
        (tmp_path / TEMPLATE).write_text(own)
    read = find_family({"model_type": ASKED[name][0]}, "here").tokenizer
    with pytest.raises(UserError, match=message.replace("|", r"\|")) as caught:
        read(tmp_path, thinking)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    "held", [5, ["x"], [{"template": "x"}], [{"name": "rag", "template": "x"}], {"rag": "x"}]
)
def test_a_template_that_is_none_is_not_passed_over(held: Any, tmp_path: Path) -> None:
    """A model that has one would be asked as one without."""
    (tmp_path / TOKENIZER).write_text(json.dumps({"chat_template": held}))
    with pytest.raises(UserError, match="neither a text nor several with a default; put the"):
        own_template(tmp_path)
    (tmp_path / TEMPLATE).write_bytes(b"\xe9")
    with pytest.raises(UserError, match=r"chat_template.jinja is no text in UTF-8"):
        own_template(tmp_path)


def test_of_several_templates_the_default_counts(tmp_path: Path) -> None:
    listed = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    for held in (listed, {"rag": "r", "default": "d"}):
        (tmp_path / TOKENIZER).write_text(json.dumps({"chat_template": held}))
        assert own_template(tmp_path) == "d"


@pytest.mark.parity
def test_marks_of_a_reply_are_read_as_transformers_reads_them() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template = "{% set n = 1 %}a{% generation %}{% set n = 2 %} {{ n }}b{% endgeneration %}{{ n }}"
    assert render(template, []) == render_jinja_template([[]], chat_template=template)[0][0]


def test_without_a_template_there_is_no_switch(tmp_path: Path) -> None:
    for family in ("gemma3", "qwen3"):
        with pytest.raises(UserError, match="has no enable_thinking; leave it None"):
            find_family({"model_type": family}, "here").tokenizer(tmp_path, True)


QWEN3 = {  # a config.json
    "model_type": "qwen3",
    "vocab_size": 600,
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 16,
}


def test_the_switch_of_a_config_reaches_the_template(tmp_path: Path) -> None:
    """In a run, a plan, and the export of a run."""
    published_directory("qwen3", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    model = PretrainedConfig(directory=tmp_path, thinking=False)
    config = replace(load_experiment(TINY), model=model)
    for reads in (
        lambda: pretrained_backbone(config, model, find_task(config.task.name)),
        lambda: plan_parts(config, make_mesh(config.launch.mesh)),
        lambda: read_trained(tmp_path, model, None),
    ):
        with pytest.raises(
            UserError, match=r"model\.thinking = False, and the chat template closes"
        ):
            reads()
    (tmp_path / TEMPLATE).write_text(CLOSES)
    described = describe_pretrained(tmp_path, thinking=True)
    assert described.template.closing.endswith("assistant\n<think>\n")
    assert "enable_thinking = true" in chat_of(source_of(described, {}))


@over_families
def test_a_system_prompt_stands_where_the_family_has_it(family: str) -> None:
    files = tokenizer_files(family)
    for system in ("Be brief.", " Be brief.\n"):
        turns = [{"role": "system", "content": system}, {"role": "user", "content": "Why?"}]
        asked = prompt_text("Why?", files.template, system)
        assert asked == render(files.chat, turns, bos_token="")
        assert asked != prompt_text("Why?", files.template)


@pytest.mark.parametrize("trims", [True, False])
def test_a_system_prompt_is_stripped_where_the_template_strips_it(trims: bool) -> None:
    """Whatever it does to a question: Gemma's trims questions alone. The export asks the same."""
    said = "turn.content" if trims else "turn.content if turn.role == 'system' else turn.content"
    own = f"{{%- for turn in messages -%}}{{{{ ({said} | trim) + '|' }}}}{{%- endfor -%}}"
    template, chat = prompt_of(own, INSTRUCTION, thinking=None)
    system = " Be brief.\n"
    turns = [{"role": "system", "content": system}, {"role": "user", "content": " Why? "}]
    asked = prompt_text(" Why? ", template, system)
    assert asked == render(chat, turns)
    assert asked.startswith("Be brief.|Why?" if trims else " Be brief.\n|Why?")


DATED = (  # as Llama 3's: a date of its own where there is no clock
    "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}"
    "{% else %}{% set day = '26 Jul 2024' %}{% endif %}"
    "Today: {{ day }} {{ messages[0].content }} Reply:"
)


def test_a_run_is_asked_the_same_on_every_day() -> None:
    prompt, exported = prompt_of(DATED, "Think.", thinking=None)
    assert prompt.opening == "Today: 26 Jul 2024 "
    turn = [{"role": "user", "content": "Why?"}]
    asked = render(exported, turn, strftime_now=lambda form: "29 Nov 2026")  # as transformers has
    assert asked == prompt_text("Why?", prompt)


def test_a_template_that_needs_a_clock_is_refused() -> None:
    with pytest.raises(UserError, match=r"strftime_now. is undefined.*write a date into it"):
        prompt_of("{{ strftime_now('%Y') }} {{ messages[0].content }}", "Think.", thinking=None)
