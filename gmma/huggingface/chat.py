"""The chat template of an export: a trained model is asked as it was trained.

A run asks by `PromptTemplate`: images, question, instruction, and the opened thought. What is
written here makes of one turn of a user the same prompt, token by token, in transformers and vLLM
(`tests/porting/test_chat.py`). Further turns are laid out as the family lays them out.
"""

import json
from pathlib import Path

from gmma.files import write_whole
from gmma.huggingface.keys import read_json

TEMPLATE, OLD_TEMPLATE, TOKENIZER = (
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer_config.json",
)
DIFFERENCE = (
    "Other than the base model's template it puts the images of a turn before its text, adds the "
    "instruction of the training behind the last question, and opens the reply with <think>, so "
    "that what the model writes begins inside its thought"
)
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
QWEN_CHAT = """
{%- if messages[0].role != "system" -%}
  {{- "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n" -}}
{%- endif -%}
{%- for message in messages -%}
  {{- "<|im_start|>" + message.role + "\\n" + say(message.content) -}}
  {%- if loop.last and message.role == "user" -%}{{ "\\n$INSTRUCTION" }}{%- endif -%}
  {{- "<|im_end|>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|im_start|>assistant\\n<think>" }}{%- endif -%}
"""
GEMMA_CHAT = """
{{- bos_token -}}
{%- set turns = messages[1:] if messages[0].role == "system" else messages -%}
{%- for message in turns -%}
  {{- "<start_of_turn>" + ("model" if message.role == "assistant" else message.role) + "\\n" -}}
  {%- if loop.first and messages[0].role == "system" -%}
    {{- say(messages[0].content) + "\\n\\n" -}}
  {%- endif -%}
  {{- say(message.content) -}}
  {%- if loop.last and message.role == "user" -%}{{ "\\n$INSTRUCTION" }}{%- endif -%}
  {{- "<end_of_turn>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<start_of_turn>model\\n<think>" }}{%- endif -%}
"""


def chat_template(layout: str, *, instruction: str, image: str, strip: bool) -> str:
    """A family's template; `image` is what its processor replaces by the placeholders."""
    words = {"$INSTRUCTION": instruction, "$IMAGE": image, "$TRIM": " | trim" if strip else ""}
    text = CONTENT + layout
    for name, word in words.items():
        text = text.replace(name, word)
    return f"{{#- Written by gmma: the prompt of the training. {DIFFERENCE}. -#}}{text}".rstrip()


def write_chat_template(directory: Path, template: str) -> None:
    """Put a template wherever a directory has one, for transformers old and new."""
    write_whole(directory / TEMPLATE, template)
    for name in (OLD_TEMPLATE, TOKENIZER):
        path = directory / name
        if path.is_file():
            values = {**read_json(path), "chat_template": template}
            write_whole(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
