"""Gemma 3, with and without images."""

from dataclasses import replace

from gmma.families.family import Family
from gmma.families.gemma3.checkpoint import gemma3_table, read_model_config, read_text_config
from gmma.families.gemma3.images import gemma_full_bucket, gemma_image_processor, with_pan_and_scan
from gmma.families.gemma3.network import empty_images, gemma3_policy
from gmma.families.gemma3.tokenizer import gemma_tokenizer
from gmma.huggingface.tokenizers import asked_as_published

GEMMA3 = Family(
    name="gemma3",
    read_config=read_model_config,
    table=gemma3_table,
    policy=gemma3_policy,
    tokenizer=asked_as_published(gemma_tokenizer),
    processor=gemma_image_processor,
    resize=with_pan_and_scan,
    full_bucket=gemma_full_bucket,
    empty_images=empty_images,
)
GEMMA3_TEXT = replace(GEMMA3, name="gemma3_text", read_config=read_text_config)
