"""Records of your own, of any layout and any kind of answer: the tiny family or a ported backbone.

    gmma data experiments/vqa.py --task.kind choice --task.records.train mine.jsonl
    gmma train experiments/vqa.py --task.kind choice --task.records.train mine.jsonl
    gmma train experiments/vqa.py --backbone qwen2_5_vl_3b --trained lora --task.kind number

`docs/tasks.md` (Any records: `vqa`) says what a file may hold. Without a file of its own a split
takes a tenth of the training file.
Tiny: a CPU; it starts from nothing, so expect to see the line and no skill. Ported: adapters are
planned for a slice of eight TPU v5e (`docs/tpu.md`); not run on real weights, so no figure is
expected. Every number here is our choice.
"""

from pathlib import Path

from gmma.config import (
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    OptimizerConfig,
    PhaseConfig,
    RewardConfig,
    RLConfig,
    TreeConfig,
)
from gmma.families.tiny.network import TinyConfig
from gmma.rewards.terms import RewardTerm
from gmma.run.variants import Backbone, Trained, Variant, as_variant, check_tiny, ported_t4a4
from gmma.tasks.vqa import VqaConfig, VqaFiles


def experiment(
    variant: Variant = "t4a4", backbone: Backbone = "tiny", trained: Trained = "full"
) -> ExperimentConfig:
    """The reward `vqa` is that of the kind of answers; any other goes by its name."""
    task = VqaConfig(records=VqaFiles(train=Path("data/vqa/train.jsonl")))
    if backbone == "tiny":
        check_tiny(trained)
        t4a4 = tiny_t4a4(f"vqa_{variant}", task)
    else:
        t4a4 = ported_t4a4(
            backbone,
            trained,
            f"{backbone}_vqa_{variant}_{trained}",
            task,
            "vqa",
            prompt_tokens=1536,
            answer_tokens=64,
        )
    return as_variant(t4a4, variant)


def tiny_t4a4(name: str, task: VqaConfig) -> ExperimentConfig:
    """One image a record at most, and a few hundred short records."""
    return ExperimentConfig(
        name=name,
        task=task,
        model=TinyConfig(layers=3, width=128, heads=4, kv_heads=2, head_size=32, mlp=256),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=128, thought_tokens=64, answer_tokens=24
        ),
        rewards=RewardConfig(terms=(RewardTerm("vqa"), RewardTerm("format", weight=0.1))),
        sft=PhaseConfig(
            steps=300,
            batch_prompts=16,
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=20, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=100,
            batch_prompts=16,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=64, batch_prompts=16),
        checkpoint=CheckpointConfig(every_steps=50),
    )
