"""A grid of runs as one program: answers per thought as data, runs along an axis.

A cell is a run of its own: parameters, optimiser, keys and M. All cells grow trees of the largest
M; a cell with fewer answers takes the loss and the credit off the others. Node (i, j) has the same
key whatever M is, siblings never see each other (law L3), and unused slots change nothing (law L4):
so a cell computes what its own run would.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt

from gmma.config import ObjectiveConfig
from gmma.errors import UserError
from gmma.records.diagnostics import advantage_metrics
from gmma.rollout import grow_rows, row_keys
from gmma.run.assembly import Parts
from gmma.run.programs import credit, packing, rl_loss, start_state
from gmma.tree.layout import join_levels, split_levels
from gmma.types import Metrics, PackedTree, PromptBatch, PyTree, TreeRollout, TreeShape
from gmma.update import batch_weights, join_params, make_optimizer, train_step


@dataclass(frozen=True, kw_only=True)
class GridPrograms:
    """The programs that a step of all cells calls; every argument has a leading axis of cells."""

    start: Callable[[PyTree], PyTree]  # parameters → train states
    grow: Callable[..., TreeRollout]  # (states, prompts, seeds, step)
    learn: Callable[..., tuple[PyTree, Metrics]]  # (states, prompts, rollouts, rewards, counted, M)


def check_grid(objective: ObjectiveConfig) -> None:
    """Raise UserError unless the grid is on policy and holds no second set of parameters."""
    unfit = {
        "algorithm": (objective.algorithm, "grpo_ma"),
        "num_iterations": (objective.num_iterations, 1),
        "beta": (objective.beta, 0.0),
        "importance_cap": (objective.importance_cap, None),
    }
    for name, (value, wanted) in unfit.items():
        if value != wanted:
            raise UserError(
                f"objective.{name} = {value}: one program for a grid of runs needs {wanted}; run "
                "the sweep without --one-program"
            )


def grid_programs(parts: Parts, answers: int) -> GridPrograms:
    """Make programs for cells of up to so many answers, compiled once each, on one device."""
    config, policy = parts.config, parts.policy
    check_grid(config.objective)
    shape = replace(config.tree.shape, answers=answers)
    optimizer = make_optimizer(config.rl.optimizer, config.rl.steps)
    grow = partial(grow_rows, policy, shape=shape, sampling=config.sampling, stops=parts.stops)
    pack = packing(config)
    update = partial(
        train_step,
        loss=rl_loss(config, policy),
        optimizer=optimizer,
        microbatches=config.rl.microbatches,
    )

    def grow_cell(
        state: Any, prompts: PromptBatch, seed: UInt[Array, ""], step: UInt[Array, ""]
    ) -> TreeRollout:
        key = jax.random.fold_in(jax.random.key(seed), step)
        params = join_params(state.params, state.frozen)
        return grow(params, prompts, row_keys(key, prompts.tokens.shape[0]))

    def learn_cell(
        state: Any,
        prompts: PromptBatch,
        rollout: TreeRollout,
        rewards: Float[Array, "B K M"],
        counted: Bool[Array, "B K M"],
        own: Int[Array, ""],
    ) -> tuple[Any, Metrics]:
        advantages = credit(rewards, counted, objective=config.objective)
        packed = pack(prompts, first_answers(rollout, own), advantages)
        weigh = partial(cell_weights, own=own, shape=shape, parts=parts)
        state, metrics = update(state, packed, weights=weigh)
        return state, metrics | advantage_metrics(advantages, counted)

    return GridPrograms(
        start=jax.jit(jax.vmap(partial(start_state, parts, optimizer))),
        grow=jax.jit(jax.vmap(grow_cell, in_axes=(0, 0, 0, None))),
        learn=jax.jit(jax.vmap(learn_cell), donate_argnums=0),
    )


def first_answers(rollout: TreeRollout, own: Int[Array, ""]) -> TreeRollout:
    """Keep the first `own` answers of each thought of the rollout; the others have no tokens."""
    kept = jnp.arange(rollout.answers.shape[2]) < own
    lengths = jnp.where(kept[None, None], rollout.answer_lengths, 0)
    return replace(rollout, answer_lengths=lengths)


def cell_weights(
    packed: PackedTree, *, own: Int[Array, ""], shape: TreeShape, parts: Parts
) -> Shaped[Array, "B S"]:
    """Apply `batch_weights` to a tree with `own` answers a thought.

    The constant 1/(K·M) of `grpo` and `dr_grpo` stands for the answers that there are; the other
    loss types count tokens, and what is masked has none.
    """
    objective = parts.config.objective
    weights = batch_weights(packed, config=objective, microbatches=parts.config.rl.microbatches)
    if objective.loss_type not in ("grpo", "dr_grpo"):
        return weights
    prompt, thought, answer = split_levels(weights, shape)
    return join_levels(prompt, thought, answer * (shape.answers / own.astype(answer.dtype)))
