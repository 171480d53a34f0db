"""Word problems with a pretrained network: SmolLM2-135M-Instruct, on two CPU cores.

    python experiments/prepare/word_problems.py svamp.jsonl
    gmma train experiments/word_problems.py

The first command fetches the model and makes the records; it says what it needs. A short SFT on
the problems teaches the form, then T4A4 learns from right or wrong alone. Held out are 300 of
SVAMP's problems. A thought says what to reckon, the answer reckons it, so that answers to one
thought differ. Of 16 trees that are grown, more than half have no two rewards that differ, so an
update is of 8, those that do first (dynamic sampling).

What two seeds came to stands in `docs/results.md`, what was tried before in `experiments/LOG.md`.
`experiments/prepare/transformers_accuracy.py` measures an export.
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
from gmma.families.pretrained import PretrainedConfig
from gmma.options.networks import LoraConfig
from gmma.rewards.terms import RewardTerm
from gmma.run.variants import Variant, as_variant
from gmma.tasks.mathematics import MathConfig


def experiment(variant: Variant = "t4a4") -> ExperimentConfig:
    """Train adapters in float32; the slots of thoughts are three times those of answers."""
    t4a4 = ExperimentConfig(
        name=f"word_problems_{variant}",
        task=MathConfig(
            train_path=Path("data/word_problems/train.jsonl"),
            test_path=Path("data/word_problems/test.jsonl"),
            held_out=32,
            explain=False,  # the prompt's own instruction says how to answer
        ),
        model=PretrainedConfig(
            directory=Path("models/SmolLM2-135M-Instruct"),
            dtype="float32",
            lora=LoraConfig(rank=16, alpha=32.0),
            remat="none",
        ),
        tree=TreeConfig(
            thoughts=4, answers=4, prompt_tokens=128, thought_tokens=36, answer_tokens=13
        ),
        rewards=RewardConfig(terms=(RewardTerm("math", weight=1.0),)),
        sft=PhaseConfig(
            steps=40,
            batch_prompts=8,
            optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=4, schedule="cosine"),
        ),
        rl=RLConfig(
            steps=56,
            batch_prompts=8,
            rollout_prompts=16,
            minibatches=1,
            dynamic_sampling=True,
            max_rollouts=1,
            microbatches=4,
            optimizer=OptimizerConfig(learning_rate=2.5e-4, warmup_steps=4, schedule="cosine"),
        ),
        evaluation=EvalConfig(examples=300, batch_prompts=50, samples=2),
        checkpoint=CheckpointConfig(every_steps=20),
        logprob_chunk_slots=512,
        samples_every_steps=20,
    )
    return as_variant(t4a4, variant)
