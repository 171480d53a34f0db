"""A small random Qwen3.5 beside a Qwen3-VL of its size, on the trajectory scenes.

    python experiments/prepare/tiny_directory.py qwen3_5 models/tiny-qwen3_5
    python experiments/prepare/tiny_directory.py qwen3_vl models/tiny-qwen3_vl
    gmma train experiments/hybrid.py --family qwen3_5
    gmma train experiments/hybrid.py --family qwen3_vl

Every parameter is trained, the tower too, SFT and then T4A4. What it tells: that layers which keep
a state in place of keys learn in a tree as attention does. Figures stand in `docs/states.md`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from trajectory import tiny_t4a4

from gmma.config import ExperimentConfig, OptimizerConfig, PhaseConfig, RLConfig, TreeConfig
from gmma.families.pretrained import PretrainedConfig
from gmma.options.prompt import PromptConfig


def experiment(family: Literal["qwen3_5", "qwen3_vl"] = "qwen3_5") -> ExperimentConfig:
    """The tiny family's job with another model, and slots for texts of byte pairs."""
    scenes = tiny_t4a4(f"hybrid_{family}")
    return replace(
        scenes,
        model=PretrainedConfig(
            directory=Path(f"models/tiny-{family}"),
            dtype="float32",
            remat="none",
            freeze_vision=False,
        ),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=56, thought_tokens=40, answer_tokens=56
        ),
        sft=PhaseConfig(
            steps=200,
            batch_prompts=32,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=20, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=50,
            batch_prompts=16,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=5),
        ),
        prompt=PromptConfig(form="Think, then answer."),
        evaluation=replace(scenes.evaluation, examples=256),
    )
