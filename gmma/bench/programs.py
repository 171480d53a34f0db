"""The programs that `gmma bench` times, on random weights and tokens, and the clock.

A program takes what it holds (parameters, or a training state), donated, and gives it back with its
result: programs that take turns share one copy. No stop string can be met, so a rollout always
runs its T + A steps.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int, PRNGKeyArray

from gmma.config import MeshConfig, ObjectiveConfig
from gmma.hardware.sharding import decode_params, make_mesh
from gmma.models.policy import Policy
from gmma.objective import policy_loss, token_weights
from gmma.rollout import grow_tree
from gmma.sampling import SamplingConfig
from gmma.tree.lengths import draw_lognormal
from gmma.tree.pack import pack_tree
from gmma.tree.rows import row_slots
from gmma.tree.stops import StopTable, TreeStops
from gmma.types import (
    Advantages,
    PackedTree,
    Params,
    PromptBatch,
    TrainState,
    TreeRollout,
    TreeShape,
)
from gmma.update import train_step


class Program(NamedTuple):
    """`function(held, *arguments)` gives what it holds back, and its result."""

    function: Callable[..., tuple[Any, Any]]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One program under the clock."""

    seconds: tuple[float, ...]  # per repeat
    peak_bytes: int  # on the device: arguments, results and temporaries, what is donated once
    temporary_bytes: int  # what the compiler allocates beside arguments and results

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


def random_prompts(
    key: PRNGKeyArray, slots: int, lengths: Int[np.ndarray, "B"], vocab_size: int
) -> PromptBatch:
    """Draw prompts of random tokens."""
    tokens = jax.random.randint(key, (len(lengths), slots), 0, vocab_size, jnp.int32)
    return PromptBatch(tokens=tokens, lengths=jnp.asarray(lengths))


def random_advantages(key: PRNGKeyArray, shape: TreeShape, batch: int) -> Advantages:
    """Draw advantages of both signs."""
    for_thoughts, for_answers = jax.random.split(key)
    nodes = (batch, shape.thoughts)
    return Advantages(
        thought=jax.random.normal(for_thoughts, nodes),
        answer=jax.random.normal(for_answers, (*nodes, shape.answers)),
    )


class NodeLengths(NamedTuple):
    """Tokens of each node."""

    prompt: Int[np.ndarray, "B"]
    thoughts: Int[np.ndarray, "B K"]
    answers: Int[np.ndarray, "B K M"]


def draw_lengths(shape: TreeShape, batch: int, mean: float) -> NodeLengths:
    """Draw lognormal lengths, σ = 0.5, whose mean is this share of a node's slots; cut there.

    They are the same in every run.
    """
    rng = np.random.default_rng(0)

    def draw(slots: int, *size: int) -> Int[np.ndarray, "*size"]:
        return draw_lognormal(rng, mean * slots, slots, size, spread=0.5)

    return NodeLengths(
        prompt=draw(shape.prompt, batch),
        thoughts=draw(shape.thought, batch, shape.thoughts),
        answers=draw(shape.answer, batch, shape.thoughts, shape.answers),
    )


def mean_slots(
    lengths: NodeLengths, microbatches: int, choices: Sequence[int], packed: int
) -> float:
    """Return the slots of a ragged row, the mean over microbatches; each has those of its own."""
    prompt, thoughts, answers = lengths
    tokens = prompt + thoughts.sum(axis=1) + answers.sum(axis=(1, 2))
    longest = [int(tokens[at::microbatches].max()) for at in range(microbatches)]
    return statistics.mean(row_slots(tree, choices) or packed for tree in longest)


def full_lengths(shape: TreeShape, batch: int) -> NodeLengths:
    """Return the lengths of nodes that fill their slots."""
    nodes = (batch, shape.thoughts)
    return NodeLengths(
        prompt=np.full(batch, shape.prompt, np.int32),
        thoughts=np.full(nodes, shape.thought, np.int32),
        answers=np.full((*nodes, shape.answers), shape.answer, np.int32),
    )


def random_packed(
    key: PRNGKeyArray, shape: TreeShape, lengths: NodeLengths, vocab_size: int
) -> PackedTree:
    """Draw trees of random tokens with random advantages, packed."""
    keys, batch = jax.random.split(key, 4), len(lengths.prompt)
    nodes, leaves = (batch, shape.thoughts), (batch, shape.thoughts, shape.answers)
    tokens = partial(jax.random.randint, minval=0, maxval=vocab_size, dtype=jnp.int32)
    rollout = TreeRollout(
        thoughts=tokens(keys[0], (*nodes, shape.thought)),
        thought_lengths=jnp.asarray(lengths.thoughts),
        thought_sampled=jnp.asarray(lengths.thoughts),
        thought_logprobs=jnp.zeros((*nodes, shape.thought)),
        closed=jnp.ones(nodes, bool),
        answers=tokens(keys[1], (*leaves, shape.answer)),
        answer_lengths=jnp.asarray(lengths.answers),
        answer_logprobs=jnp.zeros((*leaves, shape.answer)),
        finished=jnp.ones(leaves, bool),
    )
    prompts = random_prompts(keys[2], shape.prompt, lengths.prompt, vocab_size)
    return pack_tree(prompts, rollout, random_advantages(keys[3], shape, batch))


def bench_state(params: Params) -> TrainState:
    """Return a training state of AdamW with every parameter trained."""
    return TrainState(
        params=params,
        frozen={},
        opt_state=optax.adamw(1e-4).init(params),
        step=jnp.zeros((), jnp.int32),
    )


def take_update(
    policy: Policy,
    state: TrainState,
    packed: PackedTree,
    *,
    chunk_slots: int | None,
    microbatches: int,
    row_lengths: int | None = None,
) -> TrainState:
    """Take one optimiser update of GRPO-MA."""
    objective = ObjectiveConfig()
    new, _ = train_step(
        state,
        packed,
        loss=partial(policy_loss, policy, config=objective, chunk_slots=chunk_slots),
        weights=lambda whole: token_weights(whole.trained, whole.inputs.shape, objective),
        optimizer=optax.adamw(1e-4),
        microbatches=microbatches,
        row_lengths=row_lengths,
    )
    return new


def grow(
    policy: Policy, params: Params, prompts: PromptBatch, key: PRNGKeyArray, shape: TreeShape
) -> TreeRollout:
    """Grow one rollout of T + A steps, with parameters as a run casts them; consumes the key."""
    # Each state stays what it is: thought, answer, match.
    never = StopTable(table=jnp.tile(jnp.arange(3)[:, None], policy.vocab_size))
    nothing = TreeStops(
        path=never,
        closing=jnp.zeros(0, jnp.int32),
        ends=jnp.zeros(policy.vocab_size, bool),
        thought_end=1,
    )
    cast = decode_params(policy, params, make_mesh(MeshConfig(), jax.devices()[:1]))
    return grow_tree(
        policy, cast, prompts, key, shape=shape, sampling=SamplingConfig(), stops=nothing
    )


def update_program(
    policy: Policy,
    shape: TreeShape,
    lengths: NodeLengths,
    **options: Any,
) -> Program:
    """Make the program of one update; it holds the state."""

    def update(state: TrainState, packed: PackedTree) -> tuple[TrainState, None]:
        return take_update(policy, state, packed, **options), None

    packed = random_packed(jax.random.key(1), shape, lengths, policy.vocab_size)
    return Program(update, (packed,))


def rollout_program(policy: Policy, shape: TreeShape, lengths: NodeLengths) -> Program:
    """Make the program of one rollout; it holds the parameters."""

    def rollout(
        params: Params, prompts: PromptBatch, key: PRNGKeyArray
    ) -> tuple[Params, TreeRollout]:
        return params, grow(policy, params, prompts, key, shape)

    prompts = random_prompts(jax.random.key(2), shape.prompt, lengths.prompt, policy.vocab_size)
    return Program(rollout, (prompts, jax.random.key(3)))


def step_program(policy: Policy, shape: TreeShape, batch: int, **options: Any) -> Program:
    """Make the program of a rollout and an update from it; it holds the training state."""

    def step(
        state: TrainState, prompts: PromptBatch, key: PRNGKeyArray
    ) -> tuple[TrainState, TreeRollout]:
        for_rollout, for_advantages = jax.random.split(key)
        rollout = grow(policy, state.params, prompts, for_rollout, shape)
        packed = pack_tree(prompts, rollout, random_advantages(for_advantages, shape, batch))
        return take_update(policy, state, packed, **options), rollout

    full = full_lengths(shape, batch).prompt
    prompts = random_prompts(jax.random.key(4), shape.prompt, full, policy.vocab_size)
    return Program(step, (prompts, jax.random.key(5)))


def time_programs(
    programs: dict[str, Program], held: Any, repeats: int
) -> tuple[dict[str, Timing], Any]:
    """Compile each, run each once to warm up, then time them in turn, `repeats` rounds.

    What they hold goes from one to the next, donated, and is given back at the end.
    """
    compiled = {
        name: jax.jit(program.function, donate_argnums=0).lower(held, *program.arguments).compile()
        for name, program in programs.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(repeats + 1):
        for name, program in programs.items():
            started = time.perf_counter()
            held, result = jax.block_until_ready(compiled[name](held, *program.arguments))
            del result
            if number:
                seconds[name].append(time.perf_counter() - started)
    timings = {
        name: Timing(seconds=tuple(seconds[name]), **memory_of(compiled[name])) for name in programs
    }
    return timings, held


def memory_of(compiled: Any) -> dict[str, int]:
    """Return the bytes that a program needs on its device, as the compiler says."""
    found = compiled.memory_analysis()
    lasting = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return {
        "peak_bytes": lasting + found.temp_size_in_bytes,
        "temporary_bytes": found.temp_size_in_bytes,
    }


def ratio(first: Timing, second: Timing) -> float:
    """Return the median over the rounds of first ÷ second."""
    pairs = zip(first.seconds, second.seconds, strict=True)
    return statistics.median(a / b for a, b in pairs)
