"""Llama and its likes: text alone."""

from gmma.families.family import Family
from gmma.families.llama.checkpoint import llama_table, read_model_config
from gmma.families.llama.network import LlamaDecoder
from gmma.huggingface.tokenizers import directory_tokenizer
from gmma.models.decoder import decoder_policy

LLAMA = Family(
    name="llama",
    read_config=read_model_config,
    table=llama_table,
    policy=lambda config: decoder_policy(LlamaDecoder(config)),
    tokenizer=directory_tokenizer,
)
