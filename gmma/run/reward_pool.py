"""`sample_pool`: rewards of many answers to each of a policy's thoughts, on prompts of a split."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from gmma.errors import UserError
from gmma.run.assembly import Parts, run_scorer, score_batch
from gmma.run.evaluate import grow_examples
from gmma.run.programs import make_grow
from gmma.types import Example, Params

UNHURRIED_SECONDS = 1e9  # a limit of a step that nothing reaches


@dataclass(frozen=True, kw_only=True)
class RewardPool:
    """Rewards of n answers to each of K thoughts of B prompts, and what they took."""

    rewards: Float[np.ndarray, "B K n"]  # NaN where an answer could not be scored
    counted: Bool[np.ndarray, "B K n"]  # in a tree's statistics, as a step of the run has it
    thought_tokens: float  # that the policy chose of a thought, on average
    answer_tokens: float  # and of an answer
    scoring_seconds: float  # per answer


def sample_pool(
    parts: Parts,
    params: Params,
    examples: Sequence[Example],
    *,
    thoughts: int,
    answers: int,
    seed: int,
) -> RewardPool:
    """Sample a pool with the run's sampling and reward.

    One rollout with M = `answers`: a thought is sampled once and branches into all its answers.
    """
    config = parts.config
    shape = replace(config.tree.shape, thoughts=thoughts, answers=answers)
    grow = make_grow(parts, shape, config.sampling, seed)
    rows = parts.mesh.size * max(1, 8 // parts.mesh.size)
    rewards, counted, of_thoughts, of_answers, seconds = [], [], [], [], 0.0
    # Scoring a pool may take longer than a training step; each answer still has its own limit.
    unhurried = replace(config, rewards=replace(config.rewards, step_seconds=UNHURRIED_SECONDS))
    with run_scorer(unhurried) as scorer:
        for place, start in enumerate(range(0, len(examples), rows)):
            part = list(examples[start : start + rows])
            full = part + [part[-1]] * (rows - len(part))  # one static shape
            rollout = grow_examples(parts, grow, params, full, place)
            started = time.perf_counter()
            scored = score_batch(parts, scorer, full, rollout, config.rl.steps)
            seconds += time.perf_counter() - started
            rewards.append(scored.scores.rewards[: len(part)])
            counted.append(scored.counted[: len(part)])
            of_thoughts.append(rollout.thought_sampled[: len(part)])
            of_answers.append(rollout.answer_lengths[: len(part)])
    asked = -(-len(examples) // rows) * rows * thoughts * answers
    return RewardPool(
        rewards=np.concatenate(rewards),
        counted=np.concatenate(counted),
        thought_tokens=float(np.concatenate(of_thoughts).mean()),
        answer_tokens=float(np.concatenate(of_answers).mean()),
        scoring_seconds=seconds / asked,
    )


def scored_prompts(rewards: Float[np.ndarray, "B K n"]) -> Float[np.ndarray, "b K n"]:
    """Keep the prompts with all their answers scored. UserError where there is none."""
    scored = rewards[np.isfinite(rewards).all(axis=(1, 2))]
    if not len(scored):
        count, answers = len(rewards), rewards.shape[2]
        raise UserError(f"none of {count} prompts has all its {answers} answers scored")
    return scored
