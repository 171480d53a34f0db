"""GSM8K: the tiny family on its short problems, or a ported backbone on all of them. Or sums.

    gmma train experiments/math.py
    gmma train experiments/math.py --variant grpo
    gmma train experiments/math.py --sft.steps 5 --rl.steps 5   # 3 busy minutes
    gmma train experiments/math.py --backbone qwen2_5_vl_3b --trained lora
    gmma train experiments/math.py --problems sums

GSM8K's records: `train.jsonl` and `test.jsonl` of github.com/openai/grade-school-math in
`data/gsm8k/`, or any that `--task.train-path` and `--task.test-path` name.

Tiny: two CPU cores. Run time and figure of the whole run: not run yet. A network of this size that
starts from nothing does not learn to reckon, so expect an accuracy near 0: it shows the line.

Sums, tiny: five numbers of one digit are added step by step, as a teacher shows it who counts one
too many in three of ten steps. A thought is eight times as long as its answer and decides it, and
the reward is 0 or 1.

Ported: needs the backbone's directory in `models/`, such as Qwen/Qwen2.5-VL-3B-Instruct in
`models/Qwen2.5-VL-3B-Instruct` (`gmma/run/variants.py` lists them). `docs/tpu.md` has the slices
that each is planned for. Not run on real weights, so no figure is expected. The paper's settings
are not known ([?]): every number here is our choice.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from gmma.config import (
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    OptimizerConfig,
    PhaseConfig,
    RewardConfig,
    RLConfig,
    TreeConfig,
    require,
)
from gmma.families.tiny.network import TinyConfig
from gmma.rewards.terms import RewardTerm
from gmma.run.variants import Backbone, Trained, Variant, as_variant, check_tiny, ported_t4a4
from gmma.tasks.mathematics import MathConfig
from gmma.tasks.sums import SumsConfig

Problems = Annotated[
    Literal["gsm8k", "sums"],
    tyro.conf.arg(help="gsm8k: word problems, from files. sums: drawn, for the tiny family alone"),
]


def experiment(
    variant: Variant = "t4a4",
    backbone: Backbone = "tiny",
    trained: Trained = "full",
    problems: Problems = "gsm8k",
) -> ExperimentConfig:
    """The records' own solutions are the thoughts of the warm start."""
    if problems == "sums":
        require(backbone == "tiny", "backbone", backbone, "tiny with problems sums")
        check_tiny(trained)
        t4a4 = sums_t4a4(f"sums_{variant}")
    elif backbone == "tiny":
        check_tiny(trained)
        t4a4 = tiny_t4a4(f"math_{variant}")
    else:
        t4a4 = ported_t4a4(
            backbone,
            trained,
            f"{backbone}_math_{variant}_{trained}",
            MathConfig(),
            "math",
            prompt_tokens=512,
            thought_tokens=512,
            answer_tokens=64,
            sft_steps=100,
        )
    return as_variant(t4a4, variant)


def tiny_t4a4(name: str) -> ExperimentConfig:
    """Problems of up to 150 characters, so that 64 prompt slots and 88 of a thought hold them."""
    return ExperimentConfig(
        name=name,
        task=MathConfig(
            train_path=Path("data/gsm8k/train.jsonl"),
            test_path=Path("data/gsm8k/test.jsonl"),
            held_out=64,
            longest_question=150,
            longest_thought=150,
            explain=False,
        ),
        model=TinyConfig(layers=3, width=128, heads=4, kv_heads=2, head_size=32, mlp=256, images=0),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=64, thought_tokens=88, answer_tokens=12
        ),
        rewards=RewardConfig(
            terms=(RewardTerm("math", weight=1.0), RewardTerm("format", weight=0.1))
        ),
        sft=PhaseConfig(
            steps=1000,
            batch_prompts=32,
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=200,
            batch_prompts=16,
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=160, batch_prompts=32),
        checkpoint=CheckpointConfig(every_steps=50),
    )


def sums_t4a4(name: str) -> ExperimentConfig:
    """Choose sizes for sums; nothing but the result is rewarded."""
    return ExperimentConfig(
        name=name,
        task=SumsConfig(),
        model=TinyConfig(layers=3, width=128, heads=4, kv_heads=2, head_size=32, mlp=256, images=0),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=10, thought_tokens=26, answer_tokens=3
        ),
        rewards=RewardConfig(terms=(RewardTerm("math", weight=1.0),)),
        sft=PhaseConfig(
            steps=600,
            batch_prompts=64,
            microbatches=2,
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=60,
            batch_prompts=32,
            microbatches=4,
            optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=10),
        ),
        evaluation=EvalConfig(examples=512),
        checkpoint=CheckpointConfig(every_steps=30),
    )
