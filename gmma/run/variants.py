"""Shared settings of experiments: parameters, those of a ported backbone, baselines.

Every number here is our choice: the paper's settings are not known to us.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gmma.config import (
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    LaunchConfig,
    MeshConfig,
    OptimizerConfig,
    PhaseConfig,
    RewardConfig,
    RLConfig,
    TaskConfig,
    TreeConfig,
    require,
)
from gmma.families.pretrained import PretrainedConfig
from gmma.options.networks import LoraConfig
from gmma.rewards.terms import RewardTerm

Variant = Annotated[
    Literal["t4a4", "grpo", "sft"],
    tyro.conf.arg(
        help="t4a4: GRPO-MA, four thoughts with four answers each. grpo: the GRPO baseline, as "
        "many responses, each after its own thought. sft: the SFT baseline, as many steps in all"
    ),
]
Backbone = Annotated[
    Literal[
        "tiny",
        "gemma3_4b",
        "gemma3_12b",
        "qwen2_5_vl_3b",
        "qwen2_5_vl_7b",
        "qwen3_vl_2b",
        "qwen3_vl_4b",
        "qwen3_vl_8b",
        "qwen3_5_0_8b",
        "qwen3_5_2b",
        "qwen3_5_4b",
    ],
    tyro.conf.arg(help="tiny starts from nothing; the others are read from models/"),
]
Trained = Annotated[
    Literal["full", "lora"],
    tyro.conf.arg(
        help="full: every parameter, but the image tower of a ported backbone. lora: adapters of a "
        "ported backbone"
    ),
]
DIRECTORIES = {
    "gemma3_4b": Path("models/gemma-3-4b-it"),
    "gemma3_12b": Path("models/gemma-3-12b-it"),
    "qwen2_5_vl_3b": Path("models/Qwen2.5-VL-3B-Instruct"),
    "qwen2_5_vl_7b": Path("models/Qwen2.5-VL-7B-Instruct"),
    "qwen3_vl_2b": Path("models/Qwen3-VL-2B-Instruct"),
    "qwen3_vl_4b": Path("models/Qwen3-VL-4B-Instruct"),
    "qwen3_vl_8b": Path("models/Qwen3-VL-8B-Instruct"),
    "qwen3_5_0_8b": Path("models/Qwen3.5-0.8B"),
    "qwen3_5_2b": Path("models/Qwen3.5-2B"),
    "qwen3_5_4b": Path("models/Qwen3.5-4B"),
}
UPDATES, UPDATE_PROMPTS = 500, 32  # of RL
# Trees of 5,120 slots that a rollout grows at a time, where more fit beside the parameters than
# those of an update, on the smallest slice that `docs/tpu.md` plans.
ROLLOUT_TREES = {
    "qwen2_5_vl_3b": 128,
    "qwen2_5_vl_7b": 128,
    "qwen3_vl_2b": 128,
    "qwen3_vl_4b": 64,
    "qwen3_vl_8b": 64,
}
# Templates that close an empty thought unless they are asked not to.
THINKING = {"qwen3_5_0_8b": True, "qwen3_5_2b": True}
# Full fine-tuning takes smaller steps than adapters do: (SFT, RL).
LEARNING_RATES = {"full": (1e-5, 1e-6), "lora": (1e-4, 1e-5)}


def ported_t4a4(
    backbone: str,
    trained: Trained,
    name: str,
    task: TaskConfig,
    reward: str,
    *,
    prompt_tokens: int,
    answer_tokens: int,
    thought_tokens: int = 256,
    sft_steps: int = 50,
) -> ExperimentConfig:
    """Configure GRPO-MA T4A4 of a ported backbone: a short warm start, then RL on one reward.

    The base is cut over all devices, as `docs/tpu.md` plans it.
    """
    sft_rate, rl_rate = LEARNING_RATES[trained]
    tree = TreeConfig(
        thoughts=4,
        answers=4,
        prompt_tokens=prompt_tokens,
        thought_tokens=thought_tokens,
        answer_tokens=answer_tokens,
    )
    grown = rollout_prompts(backbone, tree)
    return ExperimentConfig(
        name=name,
        task=task,
        model=PretrainedConfig(
            directory=DIRECTORIES[backbone],
            thinking=THINKING.get(backbone),
            lora=LoraConfig(rank=16, alpha=32.0) if trained == "lora" else None,
        ),
        tree=tree,
        rewards=RewardConfig(
            terms=(RewardTerm(reward, weight=1.0), RewardTerm("format", weight=0.1)), workers=8
        ),
        sft=PhaseConfig(
            steps=sft_steps,
            batch_prompts=32,
            microbatches=4,
            optimizer=OptimizerConfig(learning_rate=sft_rate, warmup_steps=10, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=UPDATES * UPDATE_PROMPTS // grown,
            batch_prompts=UPDATE_PROMPTS,
            rollout_prompts=grown if grown > UPDATE_PROMPTS else None,
            microbatches=4,
            optimizer=OptimizerConfig(learning_rate=rl_rate, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=256, batch_prompts=32, samples=4),
        checkpoint=CheckpointConfig(every_steps=25),
        launch=LaunchConfig(mesh=MeshConfig(data=1, fsdp=-1)),
        logprob_chunk_slots=512,
    )


def rollout_prompts(backbone: str, tree: TreeConfig) -> int:
    """Return the prompts of a rollout, whole updates: fewer where a tree has more slots.

    >>> [rollout_prompts("qwen2_5_vl_3b", TreeConfig(answer_tokens=size)) for size in (128, 768)]
    [128, 32]
    """
    slots = tree.thoughts * (tree.thought_tokens + tree.answers * tree.answer_tokens)
    packed = max(tree.prompt_tokens + slots, 5120)
    fitting = ROLLOUT_TREES.get(backbone, UPDATE_PROMPTS) * 5120 // packed
    return UPDATE_PROMPTS * max(fitting // UPDATE_PROMPTS, 1)


def check_tiny(trained: Trained) -> None:
    """Raise UserError where the tiny backbone is to be trained by adapters."""
    require(trained == "full", "trained", trained, "full with backbone tiny, which has no adapters")


def as_variant(t4a4: ExperimentConfig, variant: Variant) -> ExperimentConfig:
    """Return a T4A4 experiment as it is, or as one of its baselines."""
    return {"t4a4": lambda same: same, "grpo": as_grpo, "sft": as_sft}[variant](t4a4)


def as_grpo(t4a4: ExperimentConfig) -> ExperimentConfig:
    """Return the GRPO baseline: as many responses per prompt, each after a thought of its own."""
    tree = replace(t4a4.tree, thoughts=t4a4.tree.thoughts * t4a4.tree.answers, answers=1)
    return replace(t4a4, tree=tree, objective=replace(t4a4.objective, algorithm="grpo"))


def as_sft(t4a4: ExperimentConfig) -> ExperimentConfig:
    """Return the SFT baseline: the batches of warm start and RL together, all of imitation."""
    batches = t4a4.rl.steps * t4a4.rl.step_minibatches
    return replace(
        t4a4,
        sft=replace(t4a4.sft, steps=t4a4.sft.steps + batches),
        rl=replace(t4a4.rl, steps=0),
    )
