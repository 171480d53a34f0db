"""`tiny_digits.py` with four updates a step, on trees of up to three rollouts.

gmma train tests/tiny_minibatches.py --dies-at 7    # killed as its seventh update of RL begins
"""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import tiny_digits

import gmma.train
from gmma.config import CheckpointConfig, ExperimentConfig, ObjectiveConfig, RewardConfig, RLConfig
from gmma.rewards.terms import RewardTerm
from gmma.run.programs import Trainer, make_rl_trainer


def experiment(dies_at: int = 0) -> ExperimentConfig:
    """Two minibatches, twice over; a checkpoint every other step.

    Args:
        dies_at: update of RL at which the process kills itself, from 1; 0: none
    """
    if dies_at:
        killed = partial(os.kill, os.getpid(), signal.SIGKILL)
        gmma.train.make_rl_trainer = lambda parts: ending(make_rl_trainer(parts), dies_at, killed)
    return replace(
        tiny_digits.experiment(),
        name="minibatches",
        rewards=RewardConfig(terms=(RewardTerm("often_alike:odd"),), workers=0),
        objective=ObjectiveConfig(beta=0.1, num_iterations=2, scale_rewards="batch"),
        sft=replace(tiny_digits.experiment().sft, steps=0),
        rl=RLConfig(
            steps=6,
            batch_prompts=8,
            rollout_prompts=16,
            dynamic_sampling=True,
            max_rollouts=3,
        ),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=9),
    )


def ending(trainer: Trainer, at: int, end: Callable[[], Any]) -> Trainer:
    """The trainer, which calls `end` as its update `at` begins, from 1."""
    left = at

    def update(*given: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            end()
        return trainer.update(*given)

    return replace(trainer, update=update)
