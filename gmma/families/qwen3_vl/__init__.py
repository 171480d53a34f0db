"""Qwen3-VL."""

from gmma.families.family import Family
from gmma.families.qwen2_5_vl.images import with_pixels
from gmma.families.qwen2_5_vl.network import empty_images
from gmma.families.qwen3_vl.checkpoint import qwen3_vl_table, read_model_config
from gmma.families.qwen3_vl.images import qwen3_vl_full_bucket, qwen3_vl_image_processor
from gmma.families.qwen3_vl.network import qwen3_vl_policy
from gmma.families.qwen3_vl.tokenizer import qwen3_vl_tokenizer
from gmma.huggingface.tokenizers import asked_as_published

QWEN3_VL = Family(
    name="qwen3_vl",
    read_config=read_model_config,
    table=qwen3_vl_table,
    policy=qwen3_vl_policy,
    tokenizer=asked_as_published(qwen3_vl_tokenizer),
    processor=qwen3_vl_image_processor,
    resize=with_pixels,
    full_bucket=qwen3_vl_full_bucket,
    empty_images=lambda config, batch, cells: empty_images(config.vision, batch, cells),
)
