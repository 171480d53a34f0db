"""`gmma bench`: what computing every token once is worth on the device at hand.

The same samples are laid out three ways, and each layout is a `TreeShape` of the same programs:

    tree           (P, T, A, K, M)      B rows        prompt and thoughts once
    prompt-shared  (P, T, A, K·M, 1)    B rows        prompt once, thoughts M times
    flat           (P, T, A, 1, 1)      B·K·M rows    everything K·M times

Then trees whose nodes are not full are laid out in two ways: `static`, every node in slots of its
own, and `ragged`, the tokens alone (`gmma/tree/rows.py`). Their rollout is one program for both,
and is timed beside the updates.

Layouts take turns within one process, so that a drift of the machine falls on all of them; the
figures are medians, and ratios are taken repeat by repeat. Weights and tokens are random.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax

from gmma.bench.programs import (
    Program,
    Timing,
    bench_state,
    draw_lengths,
    full_lengths,
    mean_slots,
    ratio,
    rollout_program,
    step_program,
    time_programs,
    update_program,
)
from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.files import check_output, write_whole
from gmma.models.policy import Policy
from gmma.options.arguments import BenchArguments
from gmma.records.console import print_table
from gmma.tree.rows import row_choices
from gmma.types import Params, TreeShape

Kinds = dict[str, dict[str, Timing]]  # program → layout → timing


@dataclass(frozen=True, kw_only=True)
class BenchModel:
    """A decoder of random weights, and the sizes of the trees that it is timed on."""

    config: TinyConfig
    vocab_size: int
    # (P, T, A); the first is that of the steps too, the last the tree's worst corner: short
    # prompts and thoughts, long answers
    sizes: tuple[tuple[int, int, int], ...]
    chunk_slots: int | None = None  # logits of so many slots exist at a time


LARGE: dict[str, Any] = {"kv_heads": 2, "dtype": "bfloat16", "images": 0}
LARGE_SIZES = ((1024, 512, 128), (64, 32, 512))
MODELS: dict[str, BenchModel] = {
    "tiny": BenchModel(
        config=TinyConfig(
            layers=4, width=128, heads=4, kv_heads=2, head_size=32, mlp=384, images=0
        ),
        vocab_size=256,
        sizes=((256, 64, 16), (64, 64, 16), (256, 16, 64), (16, 8, 64)),
    ),
    # 0.6 and 3.4 billion parameters: the decoders of Qwen2.5 0.5B and 3B, with a head of their own
    "0.5b": BenchModel(
        config=TinyConfig(layers=24, width=896, heads=14, head_size=64, mlp=4864, **LARGE),
        vocab_size=151_936,
        sizes=LARGE_SIZES,
        chunk_slots=128,
    ),
    "3b": BenchModel(
        config=TinyConfig(layers=36, width=2048, heads=16, head_size=128, mlp=11_008, **LARGE),
        vocab_size=151_936,
        sizes=LARGE_SIZES,
        chunk_slots=128,
    ),
}


def layouts(shape: TreeShape) -> dict[str, TreeShape]:
    """Return the shapes under which the same samples are computed."""
    samples = shape.thoughts * shape.answers
    nodes = {"tree": (shape.thoughts, shape.answers), "prompt-shared": (samples, 1), "flat": (1, 1)}
    return {
        name: TreeShape(shape.prompt, shape.thought, shape.answer, thoughts=k, answers=m)
        for name, (k, m) in nodes.items()
    }


def rows_of(name: str, shape: TreeShape, batch: int) -> int:
    """Count the rows of a layout for `batch` prompts."""
    return batch * shape.thoughts * shape.answers if name == "flat" else batch


def bench_layouts(
    policy: Policy, params: Params, shape: TreeShape, arguments: BenchArguments, options: Any
) -> tuple[Kinds, Params]:
    """Rollout and update of one shape in every layout; the parameters come back, trained a bit."""

    def each(make: Any, **options: Any) -> dict[str, Program]:
        return {
            name: make(
                policy,
                layout,
                full_lengths(layout, rows_of(name, shape, arguments.batch_prompts)),
                **options,
            )
            for name, layout in layouts(shape).items()
        }

    rollout, params = time_programs(each(rollout_program), params, arguments.repeats)
    update, state = time_programs(
        each(update_program, **options), bench_state(params), arguments.repeats
    )
    return {"rollout": rollout, "update": update}, state.params


def bench_packings(
    policy: Policy, params: Params, shape: TreeShape, arguments: BenchArguments, options: Any
) -> tuple[Kinds, float, Params]:
    """Rollout of partly filled trees, and their update static and ragged; slots; parameters.

    Slots are those of a ragged row, the mean over microbatches.
    """
    lengths = draw_lengths(shape, arguments.batch_prompts, arguments.filled)
    choices = row_choices(shape.packed, arguments.row_lengths)
    slots = mean_slots(lengths, arguments.microbatches, choices, shape.packed)
    grown = {"either": rollout_program(policy, shape, lengths)}
    rollout, params = time_programs(grown, params, arguments.repeats)
    updated = {
        name: update_program(policy, shape, lengths, row_lengths=count, **options)
        for name, count in {"static": None, "ragged": arguments.row_lengths}.items()
    }
    update, state = time_programs(updated, bench_state(params), arguments.repeats)
    return {"rollout": rollout, "update": update}, slots, state.params


def bench_steps(
    policy: Policy,
    params: Params,
    size: tuple[int, int, int],
    arguments: BenchArguments,
    options: Any,
) -> dict[str, Timing]:
    """Rollout and update together: T4A4 beside T4A1 and T16A1, or their like."""
    k, m = arguments.thoughts, arguments.answers
    shapes = [
        TreeShape(*size, thoughts=thoughts, answers=answers)
        for thoughts, answers in dict.fromkeys(((k, m), (k, 1), (k * m, 1)))
    ]
    programs = {
        shape.label: step_program(policy, shape, arguments.batch_prompts, **options)
        for shape in shapes
    }
    timings, _ = time_programs(programs, bench_state(params), arguments.repeats)
    return timings


def case_label(shape: TreeShape) -> str:
    """`P/T/A TkAm`."""
    return f"{shape.prompt}/{shape.thought}/{shape.answer} {shape.label}"


def layout_rows(shape: TreeShape, batch: int, kinds: Kinds) -> list[list[str]]:
    """Make a case's table rows: milliseconds, distinct sampled tokens a second, memory, ratios."""
    tokens = batch * (shape.packed - shape.prompt)
    return [
        [
            f"{case_label(shape)} {kind} {name}",
            f"{timing.median * 1e3:.1f}",
            f"{tokens / timing.median:.0f}",
            f"{timing.peak_bytes / 2**20:.1f}",
            f"{ratio(timing, timings['tree']):.2f}",
            f"{timing.peak_bytes / timings['tree'].peak_bytes:.2f}",
        ]
        for kind, timings in kinds.items()
        for name, timing in timings.items()
    ]


def packing_rows(shape: TreeShape, slots: float, kinds: Kinds) -> list[list[str]]:
    """Make a case's table rows: slots of a tree, milliseconds, memory, and how much faster."""
    return [
        [
            f"{case_label(shape)} {kind} {name}",
            f"{slots if name == 'ragged' else shape.packed:.0f}",
            f"{timing.median * 1e3:.1f}",
            f"{timing.peak_bytes / 2**20:.1f}",
            f"{ratio(timings['static'], timing):.2f}" if "static" in timings else "",
        ]
        for kind, timings in kinds.items()
        for name, timing in timings.items()
    ]


def bench(arguments: BenchArguments) -> None:
    """Run the table, print it, and write it as JSON where asked."""
    if arguments.output is not None:
        check_output("output", arguments.output)
    model = MODELS[arguments.model]
    config = replace(model.config, dtype=arguments.dtype or model.config.dtype)
    policy = tiny_policy(config, vocab_size=model.vocab_size, image_token=model.vocab_size - 1)
    params = jax.jit(policy.init)(jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    options = {"chunk_slots": model.chunk_slots, "microbatches": arguments.microbatches}
    record: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "parameters": count,
        "arguments": {name: str(value) for name, value in asdict(arguments).items()},
        "cases": [],
    }
    rows, ragged = [], []
    for size in model.sizes[: arguments.cases]:
        shape = TreeShape(*size, thoughts=arguments.thoughts, answers=arguments.answers)
        kinds, params = bench_layouts(policy, params, shape, arguments, options)
        rows += layout_rows(shape, arguments.batch_prompts, kinds)
        packings, slots, params = bench_packings(policy, params, shape, arguments, options)
        ragged += packing_rows(shape, slots, packings)
        record["cases"].append(
            {
                "shape": asdict(shape),
                "programs": to_json(kinds),
                "row_slots": slots,
                "packings": to_json(packings),
            }
        )
    print_table(
        f"{record['device']}, {count / 1e6:.1f}M parameters, {config.dtype}, "
        f"{arguments.batch_prompts} prompts, {arguments.repeats} repeats",
        [
            "P/T/A, shape, program, layout",
            "ms",
            "tokens/s",
            "peak MiB",
            "time ÷ tree",
            "peak ÷ tree",
        ],
        rows,
    )
    print_table(
        f"nodes of lognormal lengths (σ = 0.5), their mean {arguments.filled:g} of the slots",
        ["P/T/A, shape, program, packing", "slots", "ms", "peak MiB", "static's time ÷ own"],
        ragged,
    )
    steps = bench_steps(policy, params, model.sizes[0], arguments, options)
    record["steps"] = to_json({"step": steps})["step"]
    tree = next(iter(steps.values()))
    print_table(
        "one step: rollout and update",
        ["", "ms", "time ÷ tree", "peak MiB"],
        [
            [name, f"{t.median * 1e3:.1f}", f"{ratio(t, tree):.2f}", f"{t.peak_bytes / 2**20:.1f}"]
            for name, t in steps.items()
        ],
    )
    if arguments.output is not None:
        write_whole(arguments.output, json.dumps(record, indent=1))
        print(f"every figure: {arguments.output}")


def to_json(kinds: Kinds) -> dict[str, Any]:
    """Return every timing, with its median, as JSON values."""
    return {
        kind: {name: {**asdict(t), "median": t.median} for name, t in timings.items()}
        for kind, timings in kinds.items()
    }
