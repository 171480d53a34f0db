"""GRPO-MA T4A4 on GSM8K: Gemma 3 4B, adapters alone trained.

    gmma train experiments/gemma3_4b_math_t4a4_lora.py

Needs google/gemma-3-4b-it in `models/gemma-3-4b-it`
and `train.jsonl` and `test.jsonl` of GSM8K in `data/gsm8k`.
Hardware: planned for a slice of eight TPU v5e (`docs/tpu.md`). Not run on real weights, so no
figure is expected. The paper's settings are not known ([?]): every number here is our choice.
"""

from gmma.config import ExperimentConfig
from gmma.run.variants import GEMMA, lora_t4a4
from gmma.tasks.mathematics import MathConfig


def experiment() -> ExperimentConfig:
    """The records' own solutions are the thoughts of the warm start."""
    return lora_t4a4(
        GEMMA,
        "gemma3_4b_math_t4a4_lora",
        MathConfig(),
        "math",
        prompt_tokens=512,
        thought_tokens=512,
        answer_tokens=64,
        sft_steps=100,
    )
