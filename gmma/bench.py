"""`gmma bench`: what computing every token once is worth on the device at hand.

The same samples are laid out three ways, and each layout is a `TreeShape` of the same programs:

    tree           (P, T, A, K, M)      B rows        prompt and thoughts once
    prompt-shared  (P, T, A, K·M, 1)    B rows        prompt once, thoughts M times
    flat           (P, T, A, 1, 1)      B·K·M rows    everything K·M times

Layouts take turns within one process, so that a drift of the machine falls on all of them; the
figures are medians, and ratios are taken repeat by repeat. Weights and tokens are random, all slots
are full, and no stop string can be met, so a rollout always runs its T + A steps.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from gmma.config import ObjectiveConfig
from gmma.console import print_table
from gmma.models.policy import Policy
from gmma.models.tiny import TinyConfig, tiny_policy
from gmma.objective import policy_loss, token_weights
from gmma.sampling import SamplingConfig
from gmma.tree.layout import TreeShape
from gmma.tree.pack import pack_tree
from gmma.tree.rollout import grow_tree
from gmma.tree.stops import StopTable, TreeStops
from gmma.types import Advantages, PackedTree, Params, PromptBatch, TrainState, TreeRollout
from gmma.update import train_step

VOCABULARY = 256

# (P, T, A, K, M). The last one is the tree's worst: short prompts and thoughts, long answers.
CASES: tuple[TreeShape, ...] = (
    TreeShape(prompt=256, thought=64, answer=16, thoughts=4, answers=4),
    TreeShape(prompt=64, thought=64, answer=16, thoughts=4, answers=4),
    TreeShape(prompt=256, thought=16, answer=64, thoughts=4, answers=4),
    TreeShape(prompt=16, thought=8, answer=64, thoughts=4, answers=4),
)
STEP_SHAPES: tuple[TreeShape, ...] = tuple(
    TreeShape(prompt=256, thought=64, answer=16, thoughts=k, answers=m)
    for k, m in ((4, 1), (4, 4), (16, 1))
)


@dataclass(frozen=True, kw_only=True)
class BenchArguments:
    """Time rollout and update of the tiny family: tree against prompt-shared against flat rows."""

    batch_prompts: int = 4  # B
    repeats: int = 5  # timed runs of each program; the median is reported
    cases: int = len(CASES)  # how many of the table's shapes, from its start
    width: int = 128
    layers: int = 4
    output: Path | None = None  # JSON with every figure


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One program under the clock."""

    seconds: tuple[float, ...]  # per repeat
    temporary_bytes: int  # what the compiler allocates beside arguments and results

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


Program = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and its arguments


def layouts(shape: TreeShape) -> dict[str, TreeShape]:
    """The shapes under which the same samples are computed."""
    samples = shape.thoughts * shape.answers
    nodes = {"tree": (shape.thoughts, shape.answers), "prompt-shared": (samples, 1), "flat": (1, 1)}
    return {
        name: TreeShape(shape.prompt, shape.thought, shape.answer, thoughts=k, answers=m)
        for name, (k, m) in nodes.items()
    }


def rows_of(name: str, shape: TreeShape, batch: int) -> int:
    """Rows of a layout for `batch` prompts."""
    return batch * shape.thoughts * shape.answers if name == "flat" else batch


def random_prompts(key: PRNGKeyArray, slots: int, batch: int) -> PromptBatch:
    """Full prompts of random tokens."""
    tokens = jax.random.randint(key, (batch, slots), 0, VOCABULARY, jnp.int32)
    return PromptBatch(tokens=tokens, lengths=jnp.full(batch, slots, jnp.int32))


def random_packed(key: PRNGKeyArray, shape: TreeShape, batch: int) -> PackedTree:
    """Full trees of random tokens with random advantages, packed."""
    keys = jax.random.split(key, 4)
    nodes, leaves = (batch, shape.thoughts), (batch, shape.thoughts, shape.answers)
    rollout = TreeRollout(
        thoughts=jax.random.randint(keys[0], (*nodes, shape.thought), 0, VOCABULARY, jnp.int32),
        thought_lengths=jnp.full(nodes, shape.thought, jnp.int32),
        thought_sampled=jnp.full(nodes, shape.thought, jnp.int32),
        thought_logprobs=jnp.zeros((*nodes, shape.thought)),
        closed=jnp.ones(nodes, bool),
        answers=jax.random.randint(keys[1], (*leaves, shape.answer), 0, VOCABULARY, jnp.int32),
        answer_lengths=jnp.full(leaves, shape.answer, jnp.int32),
        answer_logprobs=jnp.zeros((*leaves, shape.answer)),
        finished=jnp.ones(leaves, bool),
    )
    advantages = Advantages(
        thought=jax.random.normal(keys[2], nodes), answer=jax.random.normal(keys[3], leaves)
    )
    return pack_tree(random_prompts(key, shape.prompt, batch), rollout, advantages)


def update_program(policy: Policy, params: Params, shape: TreeShape, batch: int) -> Program:
    """One optimiser update."""
    objective, optimizer = ObjectiveConfig(), optax.adamw(1e-4)
    state = TrainState(
        params=params,
        frozen={},
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
    )

    def update(state: TrainState, packed: PackedTree) -> TrainState:
        new, _ = train_step(
            state,
            packed,
            loss=lambda params, part, weights: policy_loss(
                policy, params, part, weights, objective
            ),
            weights=lambda whole: token_weights(whole.trained, shape, objective),
            optimizer=optimizer,
        )
        return new

    packed = random_packed(jax.random.key(1), shape, batch)
    return update, (state, packed)


def rollout_program(policy: Policy, params: Params, shape: TreeShape, batch: int) -> Program:
    """One rollout of T + A steps."""
    never = StopTable(table=jnp.zeros((2, VOCABULARY), jnp.int32))
    nothing = TreeStops(
        thought=never,
        answer=never,
        closing=jnp.zeros(0, jnp.int32),
        ends=jnp.zeros(VOCABULARY, bool),
    )

    def rollout(params: Params, prompts: PromptBatch, key: PRNGKeyArray) -> TreeRollout:
        return grow_tree(
            policy, params, prompts, key, shape=shape, sampling=SamplingConfig(), stops=nothing
        )

    prompts = random_prompts(jax.random.key(2), shape.prompt, batch)
    return rollout, (params, prompts, jax.random.key(3))


def time_programs(programs: dict[str, Program], repeats: int) -> dict[str, Timing]:
    """Compile each, run each once to warm up, then time them in turn, `repeats` rounds."""
    compiled = {}
    for name, (function, arguments) in programs.items():
        compiled[name] = jax.jit(function).lower(*arguments).compile()
        jax.block_until_ready(compiled[name](*arguments))
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, (_, arguments) in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(compiled[name](*arguments))
            seconds[name].append(time.perf_counter() - started)
    return {
        name: Timing(
            seconds=tuple(seconds[name]),
            temporary_bytes=temporary_bytes(compiled[name]),
        )
        for name in programs
    }


def temporary_bytes(compiled: Any) -> int:
    """Bytes that the compiler allocates beside arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes


def ratio(first: Timing, second: Timing) -> float:
    """Median over the rounds of first ÷ second."""
    pairs = zip(first.seconds, second.seconds, strict=True)
    return statistics.median(a / b for a, b in pairs)


def bench_layouts(
    policy: Policy, params: Params, shape: TreeShape, batch: int, repeats: int
) -> dict[str, dict[str, Timing]]:
    """Rollout and update of one shape in every layout."""
    makers = {"rollout": rollout_program, "update": update_program}
    return {
        kind: time_programs(
            {
                name: maker(policy, params, layout, rows_of(name, shape, batch))
                for name, layout in layouts(shape).items()
            },
            repeats,
        )
        for kind, maker in makers.items()
    }


def bench_steps(policy: Policy, params: Params, batch: int, repeats: int) -> dict[str, Timing]:
    """Rollout and update together, T4A1, T4A4 and T16A1 side by side."""

    def step_program(shape: TreeShape) -> Program:
        rollout, rollout_arguments = rollout_program(policy, params, shape, batch)
        update, update_arguments = update_program(policy, params, shape, batch)

        def step(grown: tuple[Any, ...], updated: tuple[Any, ...]) -> tuple[Any, Any]:
            return rollout(*grown), update(*updated)

        return step, (rollout_arguments, update_arguments)

    return time_programs({shape.label: step_program(shape) for shape in STEP_SHAPES}, repeats)


def layout_rows(
    shape: TreeShape, batch: int, kind: str, timings: dict[str, Timing]
) -> list[list[str]]:
    """Table rows of one program: milliseconds, distinct sampled tokens a second, memory, ratios."""
    tree, tokens = timings["tree"], batch * (shape.packed - shape.prompt)
    case = f"{shape.prompt}/{shape.thought}/{shape.answer} {shape.label}"
    return [
        [
            f"{case} {kind} {name}",
            f"{timing.median * 1e3:.1f}",
            f"{tokens / timing.median:.0f}",
            f"{timing.temporary_bytes / 2**20:.1f}",
            f"{ratio(timing, tree):.2f}",
            f"{timing.temporary_bytes / max(tree.temporary_bytes, 1):.2f}",
        ]
        for name, timing in timings.items()
    ]


def bench(arguments: BenchArguments) -> None:
    """Run the table, print it, and write it as JSON where asked."""
    heads = max(1, arguments.width // 32)
    config = TinyConfig(
        layers=arguments.layers,
        width=arguments.width,
        heads=heads,
        kv_heads=max(1, heads // 2),
        head_size=32,
        mlp=3 * arguments.width,
    )
    policy = tiny_policy(config, vocab_size=VOCABULARY, image_token=VOCABULARY - 1)
    params = policy.init(jax.random.key(0))
    batch, repeats = arguments.batch_prompts, arguments.repeats
    record: dict[str, Any] = {"device": jax.devices()[0].device_kind, "arguments": {}, "cases": []}
    rows = []
    for shape in CASES[: arguments.cases]:
        kinds = bench_layouts(policy, params, shape, batch, repeats)
        for kind, timings in kinds.items():
            rows += layout_rows(shape, batch, kind, timings)
            figures = {name: asdict(timing) for name, timing in timings.items()}
            record["cases"].append({"shape": asdict(shape), "program": kind, "layouts": figures})
    header = ["P/T/A, shape, program, layout", "ms", "tokens/s", "MiB", "time ÷ tree", "MiB ÷ tree"]
    print_table(f"{record['device']}, {batch} prompts, {repeats} repeats", header, rows)
    steps = bench_steps(policy, params, batch, repeats)
    record["steps"] = {name: asdict(timing) for name, timing in steps.items()}
    step_rows = [
        [name, f"{timing.median * 1e3:.1f}", f"{ratio(timing, steps['T4A4']):.2f}"]
        for name, timing in steps.items()
    ]
    print_table("one step: rollout and update", ["", "ms", "time ÷ T4A4"], step_rows)
    if arguments.output is not None:
        record["arguments"] = {k: str(v) for k, v in asdict(arguments).items()}
        arguments.output.write_text(json.dumps(record, indent=1))
        print(f"every figure: {arguments.output}")
