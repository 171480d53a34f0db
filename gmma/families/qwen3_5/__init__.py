"""Qwen3.5, which Qwen3.6 and 3.8 of the dense kind are too: with images, and text alone."""

from dataclasses import replace
from functools import partial

from gmma.families.llama import LLAMA
from gmma.families.qwen.tokenizer import qwen_text_tokenizer
from gmma.families.qwen3_5.checkpoint import (
    qwen3_5_table,
    qwen3_5_text_table,
    read_model_config,
    read_text_config,
)
from gmma.families.qwen3_5.tokenizer import QWEN3_5_SPLIT, read_qwen3_5
from gmma.families.qwen3_vl import QWEN3_VL

QWEN3_5 = replace(  # Qwen3-VL's images, places and network, with other layers
    QWEN3_VL,
    name="qwen3_5",
    read_config=read_model_config,
    table=qwen3_5_table,
    tokenizer=read_qwen3_5,
)
QWEN3_5_TEXT = replace(
    LLAMA,
    name="qwen3_5_text",
    read_config=read_text_config,
    table=qwen3_5_text_table,
    tokenizer=partial(qwen_text_tokenizer, split=QWEN3_5_SPLIT),
)
