"""Gemma's tokenizer, prompt and chat template."""

from pathlib import Path

from tokenizers import AddedToken

from gmma.huggingface.chat import behind, chat_template
from gmma.huggingface.tokenizers import (
    WORDS,
    TokenizerFiles,
    added_tokens,
    library_tokenizer,
    read_library,
    sentencepiece_bytes,
    sentencepiece_text,
    with_added_tokens,
)
from gmma.options.prompt import PromptConfig
from gmma.text.prompt import PromptTemplate
from gmma.text.tokenizer import Tokenizer, control_pieces, load_sentencepiece

GEMMA_IMAGE = "<start_of_image>"  # what its chat template shows; the processor adds the rest


def gemma_template(words: PromptConfig) -> PromptTemplate:
    """Return Gemma's published prompt with a run's words."""
    turns = "<end_of_turn>\n<start_of_turn>model\n"
    return PromptTemplate(
        opening="<start_of_turn>user\n",
        system=("<start_of_turn>user\n", "\n\n"),
        image_open="\n\n<start_of_image>",
        image_close="<end_of_image>\n\n",
        whole_view="Here is the original image ",
        crop_views=" and here are some crops to help you see better ",
        next_crop=" ",
        strip=True,
        strip_system=True,
        closing=f"{behind(words.spelt_form)}{turns}{words.tags.think[0]}",
        tags=words.tags,
    )


GEMMA_CHAT = """
{{- bos_token -}}
{%- set turns = messages[1:] if messages[0].role == "system" else messages -%}
{%- for message in turns -%}
  {{- "<start_of_turn>" + ("model" if message.role == "assistant" else message.role) + "\\n" -}}
  {%- if loop.first and messages[0].role == "system" -%}
    {{- say(messages[0].content) + "\\n\\n" -}}
  {%- endif -%}
  {{- say(message.content) -}}
  {%- if loop.last and message.role == "user" -%}{{ "$BEHIND" }}{%- endif -%}
  {{- "<end_of_turn>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<start_of_turn>model\\n$OPENED" }}{%- endif -%}
"""


def read_gemma(directory: Path) -> Tokenizer | None:
    """Read tokenizer.json by `tokenizers`, as transformers prefers; else tokenizer.model."""
    model = directory / "tokenizer.model"
    if (directory / "tokenizer.json").is_file():
        library = read_library(directory / "tokenizer.json")
        return library_tokenizer(
            library,
            sentencepiece_bytes,
            sentencepiece_text,
            bos="<bos>",
            pad="<pad>",
            end="<eos>",
        )
    if model.is_file():
        control = {
            token: AddedToken(piece, special=True) for piece, token in control_pieces(model).items()
        }
        return with_added_tokens(load_sentencepiece(model), control | added_tokens(directory))
    return None


def gemma_tokenizer(words: PromptConfig) -> TokenizerFiles:
    """Return Gemma's tokenizer and published prompt with a run's words."""
    template = gemma_template(words)
    return TokenizerFiles(
        template=template,
        chat=chat_template(
            GEMMA_CHAT,
            instruction=words.spelt_form,
            image=GEMMA_IMAGE,
            strip=template.strip,
            opened=words.tags.think[0],
        ),
        turn_end="<end_of_turn>",
        bos="<bos>",
        image="<image_soft_token>",
        shown_image=GEMMA_IMAGE,
        needed=("<start_of_turn>", "<end_of_turn>"),
        needed_for_images=("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        read=read_gemma,
    )


GEMMA_TOKENIZER = gemma_tokenizer(WORDS)
