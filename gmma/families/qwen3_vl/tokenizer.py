"""Qwen3-VL's prompt and chat template: Qwen2.5-VL's, without a system's turn."""

from dataclasses import replace

from gmma.families.qwen2_5_vl.tokenizer import (
    QWEN_TEMPLATE,
    QWEN_TOKENIZER,
    QWEN_TURNS,
    qwen_chat,
)

QWEN3_VL_TOKENIZER = replace(
    QWEN_TOKENIZER,
    template=replace(QWEN_TEMPLATE, opening="<|im_start|>user\n"),
    chat=qwen_chat(QWEN_TURNS),
)
