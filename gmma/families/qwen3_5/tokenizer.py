"""Qwen3.5's prompt and chat template: Qwen3-VL's, a turn's text stripped, the thought opened."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from gmma.families.qwen2_5_vl.tokenizer import QWEN_IMAGE, QWEN_TURNS, read_qwen
from gmma.families.qwen3_vl.tokenizer import qwen3_vl_tokenizer
from gmma.huggingface.chat import chat_template, own_template
from gmma.huggingface.tokenizers import WORDS, TokenizerFiles, asked_as_published
from gmma.options.prompt import PromptConfig

QWEN3_5_SPLIT = (  # letters keep their marks
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen3_5_tokenizer(words: PromptConfig) -> TokenizerFiles:
    """Return Qwen3.5's tokenizer and published prompt with a run's words."""
    files = qwen3_vl_tokenizer(words)
    template = replace(
        files.template, closing=f"{files.template.closing}\n", strip=True, strip_system=True
    )
    chat = chat_template(
        QWEN_TURNS,
        instruction=words.spelt_form,
        image=QWEN_IMAGE,
        strip=True,
        opened=f"{words.tags.think[0]}\n",
    )
    return replace(
        files, template=template, chat=chat, read=partial(read_qwen, split=QWEN3_5_SPLIT)
    )


def read_qwen3_5(
    directory: Path, thinking: bool | None = None, words: PromptConfig = WORDS
) -> TokenizerFiles:
    """Read a directory's prompt; without a template the published one, which opens a thought."""
    told = None if thinking and own_template(directory) is None else thinking
    return asked_as_published(qwen3_5_tokenizer)(directory, told, words)
