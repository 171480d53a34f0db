"""The gripper's path to a block: the tiny family on generated scenes, a ported backbone on records.

    gmma train experiments/trajectory.py --task.scenes.backgrounds FOLDER_OF_PHOTOGRAPHS
    gmma train experiments/trajectory.py --variant grpo
    gmma train experiments/trajectory.py --backbone qwen2_5_vl_3b --trained lora

    python experiments/prepare/tiny_directory.py qwen3_5 models/tiny-qwen3_5
    gmma train experiments/trajectory.py --on-scenes models/tiny-qwen3_5

Tiny: a small model names where gripper and block are, then the path. Without the folder backgrounds
are smooth noise. Hardware: two CPU cores. Run time and figures stand in `LOG.md`. The teacher is
imprecise on purpose: its points stray, and one thought in seven goes to another block, so that RL
has something to mend.

A small model's directory takes the tiny family's place on the scenes, all of it trained: so are two
families compared at one size (`docs/states.md`).

Ported: needs the backbone's directory in `models/`, such as Qwen/Qwen2.5-VL-3B-Instruct in
`models/Qwen2.5-VL-3B-Instruct` (`gmma/run/variants.py` lists them), and the manifests of
trajectories and their images in `data/ShareRobot`. `docs/tpu.md` has the slices that each is
planned for. Not run on real weights, so no figure is expected. The paper's settings are not known
([?]): every number here is our choice.
"""

from dataclasses import replace
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
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.families.tiny.network import TinyConfig
from gmma.options.prompt import PromptConfig
from gmma.rewards.terms import RewardTerm
from gmma.run.variants import Backbone, Trained, Variant, as_variant, check_tiny, ported_t4a4
from gmma.tasks.manifest import RecordsConfig
from gmma.tasks.trajectory import TrajectoryConfig
from gmma.tasks.trajectory_scenes import SceneConfig


def experiment(
    variant: Variant = "t4a4",
    backbone: Backbone = "tiny",
    trained: Trained = "full",
    on_scenes: Path | None = None,
) -> ExperimentConfig:
    """A short warm start teaches the form of thought and answer; the paths come by RL."""
    if backbone == "tiny":
        check_tiny(trained)
        t4a4 = tiny_t4a4(f"trajectory_{variant}")
        if on_scenes is not None:
            t4a4 = small_t4a4(t4a4, on_scenes, f"{on_scenes.name}_trajectory_{variant}")
    elif on_scenes is not None:
        raise UserError("--on-scenes names a small model of its own; leave --backbone at tiny")
    else:
        t4a4 = ported_t4a4(
            backbone,
            trained,
            f"{backbone}_trajectory_{variant}_{trained}",
            share_robot(),
            "trajectory",
            prompt_tokens=1024,
            thought_tokens=512,
            answer_tokens=128,
        )
    return as_variant(t4a4, variant)


def share_robot() -> TrajectoryConfig:
    """Read the paths of ShareRobot's manifests."""
    return TrajectoryConfig(
        source="records",
        records=RecordsConfig(
            train=Path("data/ShareRobot/grpo_sharerobot_trajectory_train.json"),
            test=Path("data/ShareRobot/grpo_sharerobot_trajectory_test.json"),
            images=Path("data/ShareRobot/trajectory/images"),
            question_type="trajectory-sharerobot",
        ),
    )


def tiny_t4a4(name: str) -> ExperimentConfig:
    """Sizes and rates tried on two CPU cores."""
    return ExperimentConfig(
        name=name,
        task=TrajectoryConfig(
            scenes=SceneConfig(waypoints=3, blocks_max=2, scene_pixels=48, background_share=0.2),
            explain="nothing",
            end_noise=0.02,
            path_noise=0.08,
            thought_error_rate=0.15,
        ),
        model=TinyConfig(layers=3, width=128, heads=4, kv_heads=2, head_size=32, mlp=256),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=25, thought_tokens=9, answer_tokens=11
        ),
        rewards=RewardConfig(
            terms=(RewardTerm("trajectory", weight=1.0), RewardTerm("format", weight=0.1))
        ),
        sft=PhaseConfig(
            steps=800,
            batch_prompts=64,
            microbatches=2,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=200,
            batch_prompts=32,
            microbatches=2,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=512),
        checkpoint=CheckpointConfig(every_steps=50),
    )


def small_t4a4(tiny: ExperimentConfig, directory: Path, name: str) -> ExperimentConfig:
    """Train a small model of a ported family; its byte pairs need more slots than words do."""
    return replace(
        tiny,
        name=name,
        model=PretrainedConfig(directory=directory, dtype="float32", freeze_vision=False),
        tree=replace(tiny.tree, prompt_tokens=56, thought_tokens=40, answer_tokens=56),
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
        evaluation=EvalConfig(examples=256),
    )
