"""Chat templates in Jinja: a directory's own, and that of an export.

A trained model is asked as it was trained.

A run asks by `PromptTemplate`: images, question, instruction, and the opened thought. The
templates here turn one user turn into the same prompt, token by token, in transformers and vLLM
(`tests/porting/test_chat.py`). Further turns are laid out as the family lays them out.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError, UndefinedError
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gmma.errors import UserError
from gmma.files import write_whole
from gmma.huggingface.keys import read_json_object
from gmma.options.prompt import DEFAULT_TAGS, Tags
from gmma.text.prompt import THINK_CLOSE, THINK_OPEN, PromptTemplate

TEMPLATE, OLD_TEMPLATE, TOKENIZER = (
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer_config.json",
)
DIFFERENCE = (
    "Other than the base model's template it puts the images of a turn before its text, adds the "
    "instruction of the training behind the last question, and opens the thought, so that what the "
    "model writes begins inside it. A system prompt (task.system) is no part of it: send the same "
    "with each request"
)
WRITTEN = "Written by gmma"  # an export's template
CLOCK = "strftime_now"  # what transformers gives templates for the date
SWITCH = "enable_thinking"  # Qwen3's name for it, and its followers'
CONTENT = """
{%- macro say(content) -%}
  {%- if content is string -%}{{ content$TRIM }}
  {%- else -%}
    {%- for item in content if item.type in ("image", "image_url") -%}{{ "$IMAGE" }}{%- endfor -%}
    {%- for item in content if item.type == "text" -%}{{ item.text$TRIM }}{%- endfor -%}
    {%- for item in content if item.type not in ("image", "image_url", "text") -%}
      {{- raise_exception("this model was trained on images and text alone") -}}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
"""


def chat_template(
    layout: str,
    *,
    instruction: str,
    image: str,
    strip: bool,
    opened: str = THINK_OPEN,
    own: str = "",
) -> str:
    """Return a family's template; `image` is what its processor replaces by the placeholders.

    The instruction stands on a line of its own behind the question, `opened` behind the turn.
    `own` is the template that the layout renders its messages by, if it does.
    """
    words = {
        "BEHIND": in_quotes(behind(instruction)),
        "OPENED": in_quotes(opened),
        "IMAGE": image,
        "TRIM": " | trim" if strip else "",
        "OWN": own,
    }
    # At once: what is put in may hold such a name itself.
    text = re.sub(rf"\$({'|'.join(words)})", lambda name: words[name[1]], CONTENT + layout)
    return f"{{#- {WRITTEN}: the prompt of the training. {DIFFERENCE}. -#}}{text}".rstrip()


def behind(instruction: str) -> str:
    """Return an instruction as it stands behind a question."""
    return f"\n{instruction}" if instruction else ""


def in_quotes(text: str) -> str:
    """Return a text as it stands between double quotes of a template."""
    for sign, spelt in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(sign, spelt)
    return text


def write_chat_template(directory: Path, template: str) -> None:
    """Put a template wherever a directory has one, for transformers old and new."""
    write_whole(directory / TEMPLATE, template)
    for name in (OLD_TEMPLATE, TOKENIZER):
        path = directory / name
        if path.is_file():
            values = {**read_json_object(path), "chat_template": template}
            write_whole(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


# A directory's own template with what the training adds. `messages` is bound anew, and so are
# the switch of thinking and the clock: who asks an export cannot change what was trained.
TRAINED_CHAT = """
{%- set enable_thinking = $THINKING -%}
{%- set strftime_now = gmma_leaves_it_out -%}
{%- set trained = namespace(messages=[]) -%}
{%- for message in messages -%}
  {%- if loop.last and message.role == "user" -%}
    {%- set message = {"role": "user", "content": say(message.content) + "$BEHIND"} -%}
    {%- set trained.messages = trained.messages + [message] -%}
  {%- else -%}
    {%- set trained.messages = trained.messages + [message] -%}
  {%- endif -%}
{%- endfor -%}
{%- set messages = trained.messages -%}
$OWN
{%- if add_generation_prompt -%}{{ "$OPENED" }}{%- endif -%}
"""
# How the switch stands in a template; a name that is not there leaves it undefined.
SWITCHED = {None: "gmma_leaves_it_out", True: "true", False: "false"}
PLAIN_CHAT = (  # of a base model, which has no template
    "{%- for message in messages -%}{{ message.content }}{%- if not loop.last -%}"
    '{{ "\\n" }}{%- endif -%}{%- endfor -%}{{ "\\n" }}'
)
_QUESTION = "\u241eQuestion\u241e"  # stands for the question; no template has it
_SYSTEM = "\u241eSystem\u241e"  # and for a system prompt


def own_template(directory: Path) -> str | None:
    """Read a directory's chat template, from a file of its own or its tokenizer's config."""
    if (directory / TEMPLATE).is_file():
        try:
            return (directory / TEMPLATE).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{directory / TEMPLATE} is no text in UTF-8 ({error}); copy the file again"
            ) from error
    for path in (directory / OLD_TEMPLATE, directory / TOKENIZER):
        found = read_json_object(path).get("chat_template") if path.is_file() else None
        if found is not None:
            return default_template(found, path)
    return None


def default_template(found: Any, path: Path) -> str:
    """Return the template of a JSON file's `chat_template`: a text, or of several the default.

    UserError for anything else: a model that has a template must not be asked without one.
    """
    if isinstance(found, list):  # several, each with a name
        named = [entry for entry in found if isinstance(entry, Mapping)]
        chosen = next((e.get("template") for e in named if e.get("name") == "default"), None)
    else:
        chosen = found.get("default") if isinstance(found, Mapping) else found
    if not isinstance(chosen, str):
        raise UserError(
            f"{path}: chat_template is {found!r:.60}, neither a text nor several with a default; "
            f"put the template to be asked by into {TEMPLATE}"
        )
    return chosen


def render(template: str, messages: Sequence[Mapping[str, Any]], **values: Any) -> str:
    """Render a chat template as transformers does (`apply_chat_template`), but without a clock.

    Where a template shows the date, a run would ask otherwise on another day. So `strftime_now` is
    not there, and a template takes the date that it has for that case. UserError where it has none,
    and for whatever else a template's own expressions raise.
    """

    def refuse(message: str) -> None:
        raise UserError(f"the chat template refuses a user's turn: {message}")

    sandbox = environment()
    sandbox.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
    sandbox.globals["raise_exception"] = refuse
    try:
        return sandbox.from_string(template).render(
            messages=messages, add_generation_prompt=True, **values
        )
    except UserError:
        raise
    except Exception as error:  # a template computes: it may divide by 0, or call itself for ever
        dated = isinstance(error, UndefinedError) and CLOCK in str(error)
        fix = "write a date into it, so that a run asks the same every day" if dated else "mend it"
        raise UserError(f"the chat template cannot be rendered ({error!r}); {fix}") from error


def environment() -> ImmutableSandboxedEnvironment:
    """Make the environment that transformers renders chat templates in."""
    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )


class Generation(Extension):
    """Read `{% generation %}`, by which transformers finds a reply's tokens, as what it holds."""

    tags = {"generation"}  # noqa: RUF012 - as the library declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block as a scope of its own, as it is in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def has_switch(template: str) -> bool:
    """Return whether a chat template asks for `enable_thinking`."""
    try:
        return SWITCH in find_undeclared_variables(environment().parse(template))
    except (TemplateError, RecursionError) as error:
        raise UserError(f"the chat template cannot be read ({error}); mend it") from error


def system_of(
    own: str, asked: str, given: Mapping[str, Any]
) -> tuple[tuple[str, str] | None, bool]:
    """Return what a template puts before and after a system prompt, and whether it strips that.

    None where it shows no system prompt.
    """

    def opening(system: str) -> str:
        turns = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
        return render(own, turns, **given).partition(asked)[0]

    try:
        before, found, after = opening(_SYSTEM).partition(_SYSTEM)
        strips = f" {_SYSTEM}" not in opening(f" {_SYSTEM}")
    except UserError:  # a template that refuses the role, as some families' do
        return None, False
    return ((before, after), strips) if found else (None, False)


def opening_of_thought(
    closing: str, thinking: bool | None, switch: bool, tags: Tags = DEFAULT_TAGS
) -> str:
    """Return what is to be added behind a template's text for the reply: `<think>`, or nothing.

    UserError where that text closes the thought, begins it with words of its own, or opens it with
    a tag that is not the run's.
    """
    opens, closes = tags.think
    if closing.rstrip().endswith(opens):
        return ""
    if closing.rstrip().endswith(THINK_OPEN):
        raise UserError(
            f"the chat template opens a thought by itself, with {THINK_OPEN}, and "
            f"prompt.tags.think is {opens} {closes}; set it to {THINK_OPEN} {THINK_CLOSE}"
        )
    opened = max(closing.rfind(tag) for tag in (opens, THINK_OPEN))
    closed = max(closing.rfind(tag) for tag in (closes, THINK_CLOSE))
    if closed > opened:  # whatever words follow it
        raise UserError(
            f"model.thinking = {thinking}, and the chat template closes the thought before the "
            f"reply ({closing[-40:]!r}), but a tree begins with its thoughts; "
            + ("set model.thinking to True" if switch else "mend the template")
        )
    if opened > closed:
        raise UserError(
            f"the chat template begins the thought with words of its own ({closing[-40:]!r}); let "
            f"it end with {opens}"
        )
    return opens


def prompt_of(
    own: str | None,
    instruction: str,
    *,
    thinking: bool | None,
    image: str = "",
    tags: Tags = DEFAULT_TAGS,
    **special: str,
) -> tuple[PromptTemplate, str]:
    """Make the prompt of the training from a directory's own template, and its export's template.

    `thinking` goes to the template as `enable_thinking`, None not at all. Where the template opens
    a thought by itself, the tag is not added. A template that was written by an export adds the
    instruction by itself, and is the next export's too. `image` is what the template shows for an
    image, which must stand before the text. `special` are the texts of the special tokens that
    templates name (`bos_token`, …).

    UserError for a switch that the template has not, and for a thought that it closes or begins.
    """
    used = PLAIN_CHAT if own is None else own
    switch = has_switch(used)
    if thinking is not None and not switch:
        raise UserError(
            f"model.thinking = {thinking}, but the chat template has no {SWITCH}; leave it None"
        )
    given = {**special, **({} if thinking is None else {SWITCH: thinking})}

    def ask(content: Any) -> str:
        return render(used, [{"role": "user", "content": content}], **given)

    whole = f"{_QUESTION}{behind(instruction)}"
    shown = ask(_QUESTION)
    # By an export: the instruction is there already, or where there is none the opened thought.
    ours = WRITTEN in used
    written = whole in shown if instruction else ours and shown.rstrip().endswith(tags.think[0])
    if ours and not written:
        raise UserError(
            f"the chat template was written by an export, and asks {shown[-200:]!r}, but this run "
            f"would ask for {whole!r}: give it the prompt.form and prompt.tags of that run"
        )
    asked = _QUESTION if written else whole
    opening, found, closing = ask(asked).partition(asked)
    if not found:
        raise UserError("the chat template does not show the question as it is; mend it")
    if _QUESTION in closing:
        raise UserError("the chat template shows the question more than once; mend it")
    if image and image + asked not in ask([{"type": "image"}, {"type": "text", "text": asked}]):
        raise UserError(f"the chat template does not show an image as {image}; mend it")
    reply = closing.removeprefix(behind(instruction)) if written else closing
    opened = opening_of_thought(reply, thinking, switch, tags)
    system, strip_system = system_of(used, asked, given)
    template = PromptTemplate(
        opening=opening,
        system=system,
        strip_system=strip_system,
        closing=f"{asked.removeprefix(_QUESTION)}{closing}{opened}",
        strip=f" {_QUESTION}" not in ask(f" {asked}"),
        tags=tags,
    )
    if written:
        return template, used
    layout = TRAINED_CHAT.replace("$THINKING", SWITCHED[thinking])
    return template, chat_template(
        layout, instruction=instruction, image=image, strip=template.strip, opened=opened, own=used
    )
