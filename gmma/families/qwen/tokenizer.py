"""Qwen's tokenizer with the directory's own chat template."""

from dataclasses import replace
from pathlib import Path

from gmma.families.qwen2_5_vl.tokenizer import QWEN_SPLIT, read_qwen
from gmma.huggingface.tokenizers import WORDS, TokenizerFiles, directory_tokenizer
from gmma.options.prompt import PromptConfig


def qwen_text_tokenizer(
    directory: Path,
    thinking: bool | None = None,
    words: PromptConfig = WORDS,
    *,
    split: str = QWEN_SPLIT,
) -> TokenizerFiles:
    """Read a directory's tokenizer from tokenizer.json, else from vocab.json and merges.txt.

    Where the template ends turns by `<|im_end|>`, that ends a text too: the base models name
    another end token. Models of others on Qwen's weights may end turns otherwise.
    """
    files = directory_tokenizer(directory, thinking, words)
    turns = tuple(t for t in ("<|im_start|>", "<|im_end|>") if t in files.template.closing)
    return replace(
        files,
        needed=turns,
        turn_end="<|im_end|>" if "<|im_end|>" in turns else None,
        read=lambda place: files.read(place) or read_qwen(place, split),
    )
