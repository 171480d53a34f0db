"""Qwen2.5-VL."""

from gmma.families.family import Family
from gmma.families.qwen2_5_vl.checkpoint import qwen_table, read_model_config
from gmma.families.qwen2_5_vl.images import qwen_full_bucket, qwen_image_processor, with_pixels
from gmma.families.qwen2_5_vl.network import empty_images, qwen_policy
from gmma.families.qwen2_5_vl.tokenizer import qwen_tokenizer
from gmma.huggingface.tokenizers import asked_as_published

QWEN2_5_VL = Family(
    name="qwen2_5_vl",
    read_config=read_model_config,
    table=qwen_table,
    policy=qwen_policy,
    tokenizer=asked_as_published(qwen_tokenizer),
    processor=qwen_image_processor,
    resize=with_pixels,
    full_bucket=qwen_full_bucket,
    empty_images=lambda config, batch, windows: empty_images(config.vision, batch, windows),
)
