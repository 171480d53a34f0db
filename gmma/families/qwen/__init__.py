"""Qwen2, which Qwen2.5 has too, and Qwen3: text alone.

Llama's decoder and tensor names with other switches; `checkpoint.py` sets them.
"""

from dataclasses import replace

from gmma.families.llama import LLAMA
from gmma.families.qwen.checkpoint import read_qwen2_config, read_qwen3_config
from gmma.families.qwen.tokenizer import qwen_text_tokenizer

QWEN2 = replace(LLAMA, name="qwen2", read_config=read_qwen2_config, tokenizer=qwen_text_tokenizer)
QWEN3 = replace(QWEN2, name="qwen3", read_config=read_qwen3_config)
