"""What experiments have in common: a ported backbone's settings, and the baselines of a T4A4 run.

Every number here is our choice: the paper's settings are not known to us.
"""

from dataclasses import replace
from pathlib import Path

from gmma.config import (
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    LaunchConfig,
    MeshConfig,
    OptimizerConfig,
    PhaseConfig,
    RewardConfig,
    TaskConfig,
    TreeConfig,
)
from gmma.families.pretrained import PretrainedConfig
from gmma.models.lora import LoraConfig
from gmma.rewards.terms import RewardTerm

GEMMA = Path("models/gemma-3-4b-it")
QWEN = Path("models/Qwen2.5-VL-3B-Instruct")


def lora_t4a4(
    directory: Path,
    name: str,
    task: TaskConfig,
    reward: str,
    *,
    prompt_tokens: int,
    answer_tokens: int,
    thought_tokens: int = 256,
    sft_steps: int = 50,
) -> ExperimentConfig:
    """GRPO-MA T4A4 of a ported backbone with adapters: a short warm start, then RL on one reward.

    The base is cut over all devices, as `docs/tpu.md` plans it.
    """
    return ExperimentConfig(
        name=name,
        task=task,
        model=PretrainedConfig(directory=directory, lora=LoraConfig(rank=16, alpha=32.0)),
        tree=TreeConfig(
            thoughts=4,
            answers=4,
            prompt_tokens=prompt_tokens,
            thought_tokens=thought_tokens,
            answer_tokens=answer_tokens,
        ),
        rewards=RewardConfig(
            terms=(RewardTerm(reward, weight=1.0), RewardTerm("format", weight=0.1)), workers=8
        ),
        sft=PhaseConfig(
            steps=sft_steps,
            batch_prompts=32,
            microbatches=4,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10, schedule="cosine"),
        ),
        rl=PhaseConfig(
            steps=500,
            batch_prompts=32,
            microbatches=4,
            optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=256, batch_prompts=32, samples=4),
        checkpoint=CheckpointConfig(every_steps=50),
        launch=LaunchConfig(mesh=MeshConfig(data=1, fsdp=-1)),
        logprob_chunk_slots=512,
    )


def as_grpo(base: ExperimentConfig) -> ExperimentConfig:
    """The GRPO baseline: as many responses per prompt, each after a thought of its own."""
    tree = replace(base.tree, thoughts=base.tree.thoughts * base.tree.answers, answers=1)
    return replace(
        base,
        name=base.name.replace("_t4a4", "_grpo"),
        tree=tree,
        objective=replace(base.objective, algorithm="grpo"),
    )


def as_sft(base: ExperimentConfig) -> ExperimentConfig:
    """The SFT baseline: as many steps as warm start and RL together, all of imitation."""
    return replace(
        base,
        name=base.name.replace("_t4a4", "_sft"),
        sft=replace(base.sft, steps=base.sft.steps + base.rl.steps),
        rl=replace(base.rl, steps=0),
    )
