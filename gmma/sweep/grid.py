"""A grid of runs as one program: answers per thought as data, runs along an axis.

A cell is a run of its own: parameters, optimiser, keys and M. All cells grow trees of the largest
M; a cell with fewer answers takes the loss and the credit off the others. Node (i, j) has the same
key whatever M is, siblings never see each other (law L3), and unused slots change nothing (law L4):
so a cell computes what its own run would. It takes the run's own steps (`train.rl_step`), whose two
large programs, rollout and update, a `Gang` of cells calls together. Cells need not be at the same
step, so each resumes from its own checkpoint; all call the same programs in the same order.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped, UInt

from gmma.config import ExperimentConfig, ObjectiveConfig, updates_per_step
from gmma.errors import UserError
from gmma.rollout import grow_rows, row_keys
from gmma.run.assembly import Parts
from gmma.run.programs import Programs, Trainer, make_programs, rl_loss
from gmma.tree.layout import join_levels, split_levels
from gmma.types import (
    Advantages,
    Metrics,
    PackedTree,
    Params,
    PromptBatch,
    PyTree,
    TrainState,
    TreeRollout,
    TreeShape,
)
from gmma.update import batch_weights, make_optimizer, train_step

Together = Callable[[Sequence[PyTree]], Sequence[PyTree]]  # arguments of all cells → results


class Gang:
    """Cells in threads of their own that call programs together, in the same order.

    The last cell to call runs the program for all. A cell that has left is stood in for by what
    another gives, so that the others go on; what comes out for it is dropped.
    """

    def __init__(self, cells: int) -> None:
        self.present = set(range(cells))
        self.changed = threading.Condition()
        self.given: dict[int, PyTree] = {}
        self.program: Together | None = None
        self.round = 0
        self.results: Sequence[PyTree] = ()
        self.error: BaseException | None = None
        self.cells = cells

    def call(self, cell: int, program: Together, argument: PyTree) -> Any:
        """Give a cell's argument, wait for the others, and return the cell's result."""
        with self.changed:
            if self.error is not None:
                raise self.error
            assert self.program in (None, program), "cells call the same programs in one order"
            self.given[cell], self.program = argument, program
            own = self.round
            if len(self.given) == len(self.present):
                self._run()
            else:
                self.changed.wait_for(lambda: self.round != own)
            if self.error is not None:
                raise self.error
            return self.results[cell]

    def leave(self, cell: int) -> None:
        """Take a cell out, at its end or because it failed."""
        with self.changed:
            self.present.discard(cell)
            if self.present and len(self.given) == len(self.present):
                self._run()

    def stop(self, error: BaseException) -> None:
        """Make every cell that waits, and every later call, raise an error."""
        with self.changed:
            self.error, self.given, self.round = error, {}, self.round + 1
            self.changed.notify_all()

    def _run(self) -> None:
        assert self.program is not None
        stand_in = next(iter(self.given.values()))
        try:
            self.results = self.program(
                [self.given.get(cell, stand_in) for cell in range(self.cells)]
            )
        except BaseException as error:
            self.error = error
        self.given, self.program, self.round = {}, None, self.round + 1
        self.changed.notify_all()


def together(program: Callable[..., PyTree]) -> Together:
    """Compile a program of one cell for all of them, along a leading axis."""

    def every(arguments: Sequence[tuple[Any, ...]]) -> list[PyTree]:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arguments)
        results = jax.vmap(lambda given: program(*given))(stacked)
        return [jax.tree.map(lambda leaf, at=at: leaf[at], results) for at in range(len(arguments))]

    return jax.jit(every)


def check_grid(config: ExperimentConfig) -> None:
    """Check that all cells call the same programs in the same order, or raise UserError."""
    unfit = {
        "objective.algorithm": (config.objective.algorithm, "grpo_ma"),
        "rl.dynamic_sampling": (config.rl.dynamic_sampling, False),
        "packing": (config.packing, "static"),
        "rollout_weights": (config.rollout_weights, "exact"),
    }
    for name, (value, wanted) in unfit.items():
        if value != wanted:
            raise UserError(
                f"{name} = {value}: one program for a grid of runs needs {wanted}; run the sweep "
                "without --one-program"
            )


def cell_rollout(parts: Parts, shape: TreeShape) -> Callable[..., TreeRollout]:
    """Make one cell's rollout with the keys of its own seed, as `run.programs.make_grow` has it."""
    grow = partial(
        grow_rows, parts.policy, shape=shape, sampling=parts.config.sampling, stops=parts.stops
    )

    def rollout(
        params: Params, prompts: PromptBatch, step: UInt[Array, ""], seed: UInt[Array, ""]
    ) -> TreeRollout:
        key = jax.random.fold_in(jax.random.key(seed), step)
        return grow(params, prompts, row_keys(key, prompts.tokens.shape[0]))

    return rollout


def cell_update(parts: Parts, shape: TreeShape) -> Callable[..., tuple[TrainState, Metrics]]:
    """Make one cell's update of a tree that has room for more answers than the cell has."""
    config, phase = parts.config, parts.config.rl
    step = partial(
        train_step,
        loss=rl_loss(config, parts.policy),
        optimizer=make_optimizer(phase.optimizer, phase.steps * updates_per_step(config)),
        microbatches=phase.microbatches,
    )
    weigh = partial(
        cell_weights, shape=shape, objective=config.objective, microbatches=phase.microbatches
    )

    def update(
        state: TrainState, packed: PackedTree, own: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        return step(state, packed, weights=partial(weigh, own=own))

    return update


def cell_programs(
    gang: Gang, cells: Sequence[Parts], trainer: Trainer
) -> list[tuple[Programs, Trainer]]:
    """Make what `train.rl_step` calls, for each cell; large programs are compiled once for all.

    `trainer` starts the states of all cells, which are alike.
    """
    counts = [own.config.tree.answers for own in cells]
    shape = replace(cells[0].config.tree.shape, answers=max(counts))
    grow_all = together(cell_rollout(cells[0], shape))
    update_all = together(cell_update(cells[0], shape))
    ordinary = make_programs(cells[0])  # credit at each M, packing at the largest
    cuts = {count: jax.jit(partial(first_answers, count)) for count in counts}
    widen = jax.jit(partial(with_room, shape.answers))

    def pack_wide(prompts: PromptBatch, rollout: TreeRollout, advantages: Advantages) -> PackedTree:
        return ordinary.pack(prompts, *widen(rollout, advantages))

    def programs_of(cell: int) -> tuple[Programs, Trainer]:
        cut, own = cuts[counts[cell]], jnp.asarray(counts[cell], jnp.int32)
        seed = jnp.asarray(cells[cell].config.seed, jnp.uint32)

        def grow(params: Params, prompts: PromptBatch, step: Any) -> TreeRollout:
            return cut(gang.call(cell, grow_all, (params, prompts, step, seed)))

        def update(state: TrainState, packed: PackedTree) -> tuple[TrainState, Metrics]:
            return gang.call(cell, update_all, (state, packed, own))

        own_programs = replace(ordinary, grow=grow, pack=pack_wide)
        return own_programs, replace(trainer, update=update)

    return [programs_of(cell) for cell in range(len(cells))]


def first_answers(own: int, rollout: TreeRollout) -> TreeRollout:
    """Cut a rollout to the first `own` answers of each thought."""
    return replace(
        rollout,
        answers=rollout.answers[:, :, :own],
        answer_lengths=rollout.answer_lengths[:, :, :own],
        answer_logprobs=rollout.answer_logprobs[:, :, :own],
        finished=rollout.finished[:, :, :own],
    )


def with_room(
    most: int, rollout: TreeRollout, advantages: Advantages
) -> tuple[TreeRollout, Advantages]:
    """Pad a rollout and its credit to `most` answers a thought; the added ones have no tokens."""

    def widen(values: Shaped[Array, "B K m *rest"]) -> Shaped[Array, "B K M *rest"]:
        room = [(0, 0), (0, 0), (0, most - values.shape[2])] + [(0, 0)] * (values.ndim - 3)
        return jnp.pad(values, room)

    wide = replace(
        rollout,
        answers=widen(rollout.answers),
        answer_lengths=widen(rollout.answer_lengths),
        answer_logprobs=widen(rollout.answer_logprobs),
        finished=widen(rollout.finished),
    )
    return wide, replace(advantages, answer=widen(advantages.answer))


def cell_weights(
    packed: PackedTree,
    *,
    own: Int[Array, ""],
    shape: TreeShape,
    objective: ObjectiveConfig,
    microbatches: int,
) -> Shaped[Array, "B S"]:
    """Weigh the tokens of a tree with `own` answers a thought, as `batch_weights` does.

    The constant 1/(K·M) of `grpo` and `dr_grpo` stands for the answers that there are; the other
    loss types count tokens, and what is masked has none.
    """
    weights = batch_weights(packed, config=objective, microbatches=microbatches)
    if objective.loss_type not in ("grpo", "dr_grpo"):
        return weights
    prompt, thought, answer = split_levels(weights, shape)
    return join_levels(prompt, thought, answer * (shape.answers / own.astype(answer.dtype)))
