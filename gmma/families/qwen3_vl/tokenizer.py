"""Qwen3-VL's prompt and chat template: Qwen2.5-VL's, without a system's turn."""

from dataclasses import replace

from gmma.families.qwen2_5_vl.tokenizer import (
    QWEN_TURNS,
    qwen_chat,
    qwen_template,
    qwen_tokenizer,
)
from gmma.huggingface.tokenizers import TokenizerFiles
from gmma.options.prompt import PromptConfig


def qwen3_vl_tokenizer(words: PromptConfig) -> TokenizerFiles:
    """Return Qwen3-VL's tokenizer and published prompt with a run's words."""
    return replace(
        qwen_tokenizer(words),
        template=qwen_template(words, opening="<|im_start|>user\n"),
        chat=qwen_chat(QWEN_TURNS, words),
    )
