"""Qwen3.5's prompt and chat template: Qwen3-VL's, a turn's text stripped, the thought opened."""

from dataclasses import replace
from functools import partial

from gmma.families.qwen2_5_vl.tokenizer import QWEN_IMAGE, QWEN_TURNS, read_qwen
from gmma.families.qwen3_vl.tokenizer import QWEN3_VL_TOKENIZER
from gmma.huggingface.chat import chat_template
from gmma.huggingface.tokenizers import INSTRUCTION

QWEN3_5_SPLIT = (  # letters keep their marks
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN3_5_TEMPLATE = replace(
    QWEN3_VL_TOKENIZER.template,
    closing=f"{QWEN3_VL_TOKENIZER.template.closing}\n",
    strip=True,
    strip_system=True,
)
QWEN3_5_TOKENIZER = replace(
    QWEN3_VL_TOKENIZER,
    template=QWEN3_5_TEMPLATE,
    chat=chat_template(
        QWEN_TURNS.replace("<think>", "<think>\\n"),
        instruction=INSTRUCTION,
        image=QWEN_IMAGE,
        strip=True,
    ),
    read=partial(read_qwen, split=QWEN3_5_SPLIT),
)
