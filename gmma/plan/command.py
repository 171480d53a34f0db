"""`gmma plan`: what an experiment needs of a TPU slice, before there is one.

Each program is compiled by the TPU's own compiler for a slice that is not there. What it says of
memory decides whether the program fits; what its text says of work, traffic and collectives
(`hlo.py`) and what is published of the chip (`chips.py`) give a bound on its time.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gmma.config import ExperimentConfig, RLConfig, job_to_json
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.files import read_json, write_whole
from gmma.hardware.sharding import make_mesh
from gmma.named import import_path, module_command
from gmma.options.arguments import PROGRAMS
from gmma.plan.chips import GIB, Chip
from gmma.plan.cost import ASSUMPTION, Spent, needed_programs, price_of_each, spend
from gmma.plan.hlo import Cost
from gmma.plan.programs import ProgramFacts, plan_parts
from gmma.plan.tpu_compiler import (
    Buffer,
    Compiled,
    Slice,
    count_chips,
    open_slice,
    read_dump,
    wait_for_dump,
)
from gmma.plan.worker import FACTS
from gmma.porting.pretrained import CONFIG
from gmma.records.console import print_table
from gmma.remote.copies import here
from gmma.rollout import ANSWERS, THOUGHTS

PRESETS = Path(__file__).parents[1] / "presets"
ASSUMPTIONS = (
    "HBM is what the compiler assigned, tiles' padding included, and what the run keeps there "
    "beside the program's arguments; usable is what the compiler grants a program.",
    "Every loop runs to its end: a rollout takes all T + A steps. Of a branch the dearest counts.",
    "Seconds are a lower bound, the largest of three: FLOPs of matrix products at the published "
    "bfloat16 peak; bytes to and from HBM at its published bandwidth; bytes that collectives send "
    "in rings, all links of the chip at once. Elementwise work and waiting are not in it.",
)
STATIC_ROWS = (
    "packing = ragged: planned with static rows, every slot filled, which is what a batch of full "
    "trees takes; a shorter row takes less."
)


@dataclass(frozen=True, kw_only=True)
class ProgramPlan:
    """One program on one slice; bytes and costs are per device."""

    program: str
    compile_seconds: float
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    resident_bytes: int  # of the run, beside the program
    need_bytes: int  # all of these
    usable_bytes: int
    fits: bool
    flops: float
    hbm_traffic_bytes: float
    sent_bytes: dict[str, float]  # by kind of collective
    bound_seconds: dict[str, float]  # by what bounds
    uncounted_kernels: int
    tokens: int  # sampled on the device, or packed and trained on
    bytes_per_token: float  # of the decoding loops; of the whole program where nothing is decoded
    nodes: int  # whose states a device holds at a time in a rollout, in layers that have no keys
    node_bytes: int  # of one node's state; 0: every layer has keys
    buffers: tuple[Buffer, ...]
    advice: str | None

    @property
    def spare(self) -> float:
        """Share of the usable memory that is left."""
        return 1 - self.need_bytes / self.usable_bytes

    @property
    def bound(self) -> tuple[str, float]:
        """Return the name and the seconds of the largest lower bound on a step's time."""
        return max(self.bound_seconds.items(), key=lambda item: item[1])


def with_preset(config: ExperimentConfig) -> tuple[ExperimentConfig, str | None]:
    """Return the experiment with gmma's preset in place of a model's directory that is not there.

    Also what to say of it, or None. Of a directory in a bucket or on the Hub config.json alone is
    fetched. Raises UserError where there is no preset of that name either.
    """
    model = config.model
    if not isinstance(model, PretrainedConfig):
        return config, None
    try:
        found, reason = here(model.directory / CONFIG).parent, "is not here"
    except UserError as error:
        found, reason = None, f"cannot be had ({error})"
    if found is not None and (found / CONFIG).is_file():
        return replace(config, model=replace(model, directory=found)), None
    preset = PRESETS / model.directory.name
    if not preset.is_dir():
        known = ", ".join(sorted(path.name for path in PRESETS.iterdir()))
        raise UserError(
            f"{model.directory} {reason}, and gmma has no preset of that name; give "
            f"--model.directory, with nothing but {CONFIG} in it, or a preset: {known}"
        )
    said = f"{model.directory} {reason}; planned with gmma's preset of {preset.name}"
    return replace(config, model=replace(model, directory=preset)), said


def bounds(cost: Cost, chip: Chip, devices_per_chip: int) -> dict[str, float]:
    """Return the seconds that a device of the chip takes at least, by each of its three limits."""
    return {
        "compute": cost.flops / chip.peak_flops * devices_per_chip,
        "HBM": cost.bytes / chip.hbm_bytes * devices_per_chip,
        "ICI": sum(cost.sent.values()) / chip.ici_bytes * devices_per_chip,
    }


def plan_program(
    facts: ProgramFacts, compiled: Compiled, config: ExperimentConfig, on: Slice
) -> ProgramPlan:
    """Judge one program."""
    cost = compiled.program.cost
    need = compiled.total_bytes + facts.resident_bytes
    usable = int(on.chip.program_gib * GIB / on.devices_per_chip)
    fits = compiled.fits_alone and need <= usable
    decoding = compiled.program.loops_named((THOUGHTS, ANSWERS))
    moved = decoding.bytes if facts.name == "rollout" else cost.bytes
    return ProgramPlan(
        program=facts.name,
        compile_seconds=round(compiled.seconds, 1),
        argument_bytes=compiled.argument_bytes,
        output_bytes=compiled.output_bytes,
        temporary_bytes=compiled.temporary_bytes,
        resident_bytes=facts.resident_bytes,
        need_bytes=need,
        usable_bytes=usable,
        fits=fits,
        flops=cost.flops,
        hbm_traffic_bytes=cost.bytes,
        sent_bytes=dict(cost.sent),
        bound_seconds=bounds(cost, on.chip, on.devices_per_chip),
        uncounted_kernels=cost.uncounted,
        tokens=facts.tokens,
        bytes_per_token=moved / facts.tokens,
        nodes=facts.nodes,
        node_bytes=facts.node_bytes,
        buffers=compiled.buffers,
        advice=None if fits else advise(facts, config, compiled, usable),
    )


def advise(facts: ProgramFacts, config: ExperimentConfig, compiled: Compiled, usable: int) -> str:
    """Return the next change that makes a program smaller, the cheapest in time first."""
    rows = facts.rows
    if facts.name == "rollout":
        copy = facts.copy_bytes
        if config.rollout_params == "gathered" and copy > usable // 3:
            return (
                f"rollout_params = sharded with mesh.tensor = 2 or more: the whole copy of the "
                f"parameters on each device takes {copy / GIB:.1f} GiB"
            )
        if rows > 1:
            field = "batch_prompts" if config.rl.rollout_prompts is None else "rollout_prompts"
            return f"a smaller rl.{field}: each device grows {rows} trees at a time"
        return "a larger mesh.tensor, so that a device holds less of the copy and of the caches"
    phase = "sft" if facts.name == "sft" else "rl"
    settings = getattr(config, phase)
    if facts.resident_bytes + compiled.argument_bytes > 0.8 * usable:
        held = (facts.resident_bytes + compiled.argument_bytes) / GIB
        return (
            f"parameters and optimiser alone take {held:.1f} GiB a device: more devices along "
            "mesh.fsdp, or adapters (model.lora)"
        )
    if facts.name != "scoring" and rows > 1:
        return f"{phase}.microbatches = {settings.microbatches * rows}: a row of a device at a time"
    if getattr(config.model, "remat", "none") != "full" and facts.name != "scoring":
        return "model.remat = full: a layer keeps only its input for the backward pass"
    if config.logprob_chunk_slots is None or config.logprob_chunk_slots > 128:
        return "logprob_chunk_slots = 128: logits of fewer slots at a time"
    if rows > 1:
        return f"a smaller {phase}.batch_prompts: each device holds {rows} rows at a time"
    return "a larger mesh.tensor: the activations of one row are cut too"


def plan_slice(
    config: ExperimentConfig, topology: str, names: Sequence[str], *, until_memory: bool
) -> Iterator[ProgramPlan]:
    """Compile these programs of an experiment for one slice, each in a process of its own."""
    on = open_slice(topology)
    plan_parts(config, make_mesh(config.launch.mesh, list(on.devices)))  # what the user got wrong
    for name in names:
        with tempfile.TemporaryDirectory() as home:
            source, dump = Path(home) / "config.json", Path(home) / "dump"
            source.write_text(json.dumps(job_to_json(config)))
            dump.mkdir()
            started = time.monotonic()
            command = module_command("gmma.plan.worker", str(source), topology, name, str(dump))
            environment = {**os.environ, "PYTHONPATH": import_path()}
            process = subprocess.Popen(command, env=environment)
            fits = wait_for_dump(process, dump, until_memory=until_memory)
            compiled = read_dump(dump, fits_alone=fits, seconds=time.monotonic() - started)
            yield plan_program(ProgramFacts(**read_json(dump / FACTS)), compiled, config, on)


def gib(size: float) -> str:
    """Convert bytes to GiB."""
    return f"{size / GIB:.2f}"


def memory_row(plan: ProgramPlan) -> list[str]:
    """Return one line of the table of memory."""
    verdict = "fits" if plan.fits else "does not fit"
    parts = (plan.argument_bytes, plan.output_bytes, plan.temporary_bytes, plan.resident_bytes)
    return [
        plan.program,
        *map(gib, parts),
        gib(plan.need_bytes),
        gib(plan.usable_bytes),
        f"{plan.spare:.0%}",
        verdict,
    ]


def work_row(plan: ProgramPlan) -> list[str]:
    """Return one line of the table of work and time."""
    limit, seconds = plan.bound
    kinds = ", ".join(
        f"{kind} {gib(size)}" for kind, size in sorted(plan.sent_bytes.items()) if size > 2**20
    )
    return [
        plan.program,
        f"{plan.flops / 1e12:.4g}",
        f"{plan.hbm_traffic_bytes / GIB:.4g}",
        kinds or "under 0.01",
        f"{seconds:.3f}",
        limit,
        f"{plan.bytes_per_token / 2**20:.3g}",
        f"{plan.compile_seconds:.0f}",
    ]


def print_plans(title: str, plans: list[ProgramPlan]) -> None:
    """Print two tables, and what to do about programs that do not fit."""
    header = ["GiB a device", "arguments", "outputs", "temporaries", "beside it", "needs"]
    print_table(title, [*header, "usable", "spare", ""], [memory_row(plan) for plan in plans])
    header = ["a device", "TFLOP", "HBM GiB", "sent GiB", "s ≥", "bound by", "MiB/token"]
    print_table(title, [*header, "seconds"], [work_row(plan) for plan in plans])
    for plan in (plan for plan in plans if not plan.fits):
        print(f"{plan.program} does not fit. Largest buffers:")
        for buffer in plan.buffers:
            print(f"  {gib(buffer.bytes)} GiB  {buffer.what}")
        print(f"  would make it smaller: {plan.advice}")
    for plan in (plan for plan in plans if plan.node_bytes):
        print(
            f"{plan.program}: {gib(plan.nodes * plan.node_bytes)} GiB of it are states of "
            f"{plan.nodes} answers, {plan.node_bytes / 2**20:.1f} MiB each, in place of keys"
        )
    for plan in (plan for plan in plans if plan.uncounted_kernels):
        print(f"{plan.program}: {plan.uncounted_kernels} kernel runs that do not say their cost")


def cost_plans(
    config: ExperimentConfig, plans: Sequence[ProgramPlan], chips: int, price: float
) -> tuple[list[Spent], list[str]]:
    """Return the costs that the plans of a slice give, and why others are not given."""
    seconds = {plan.program: plan.bound[1] for plan in plans if plan.fits}
    wanted = {program for own in needed_programs(config).values() for program in own}
    small = [plan.program for plan in plans if plan.program in wanted and not plan.fits]
    missing = sorted(wanted - {plan.program for plan in plans})
    reasons = [f"{program} does not fit" for program in small]
    reasons += [f"{program} was not planned" for program in missing]
    return list(spend(config, seconds, chips, price)), reasons


def print_costs(
    title: str, costs: Sequence[Spent], reasons: Sequence[str], price: float, chips: int
) -> None:
    """Print the table of costs, and what is not in it."""
    header = [f"at {price:g} a chip-hour, {chips} chips", "s ≥", "chip-hours ≥", "cost ≥"]
    rows = [[c.what, f"{c.seconds:,.3f}", f"{c.chip_hours:,.4g}", f"{c.cost:,.4g}"] for c in costs]
    if rows:
        print_table(title, header, rows)
    if reasons:
        print(f"no cost of the whole run: {', '.join(reasons)}")


def prompts_words(rl: RLConfig) -> str:
    """Say how many prompts a rollout has, and an update where it has fewer.

    >>> prompts_words(RLConfig(steps=1, batch_prompts=32, rollout_prompts=128))
    '128 prompts a rollout, 32 an update (4 of them)'
    """
    if rl.grown_prompts == rl.batch_prompts:
        return f"{rl.batch_prompts} prompts"
    of_step = f"{rl.batch_prompts} an update ({rl.step_minibatches} of them)"
    return f"{rl.grown_prompts} prompts a rollout, {of_step}"


def plan_record(plan: ProgramPlan) -> dict[str, Any]:
    """Return a plan as JSON values."""
    limit, seconds = plan.bound
    return {**asdict(plan), "spare": plan.spare, "bound_by": limit, "seconds_at_least": seconds}


def plan_experiment(
    config: ExperimentConfig,
    topologies: Sequence[str],
    output: Path | None,
    *,
    programs: Sequence[str] = PROGRAMS,
    until_memory: bool = False,
    prices: Sequence[float] = (),
) -> None:
    """Plan programs for every slice, print the tables, and write them where asked.

    `prices` are those of a chip-hour, one for all slices or one for each.
    """
    priced = price_of_each(prices, topologies)
    config, said = with_preset(config)
    if said is not None:
        print(said)
    if config.packing == "ragged":
        print(STATIC_ROWS)
    config = replace(config, packing="static")
    shape = config.tree.shape
    record: dict[str, Any] = {
        "experiment": config.name,
        "shape": asdict(shape),
        "rollout_prompts": config.rl.grown_prompts,
        "update_prompts": config.rl.batch_prompts,
        "slices": {},
    }
    for topology, price in zip(topologies, priced, strict=True):
        plans = []
        for plan in plan_slice(config, topology, programs, until_memory=until_memory):
            print(f"{topology} {plan.program}: {plan.compile_seconds:.0f} s", flush=True)
            plans.append(plan)
        label = f"{config.name} {shape.label}, P/T/A {shape.prompt}/{shape.thought}/{shape.answer}"
        title = f"{label}, {prompts_words(config.rl)} on {topology}"
        print_plans(title, plans)
        record["slices"][topology] = [plan_record(plan) for plan in plans]
        if price is not None:
            chips = count_chips(topology)
            costs, reasons = cost_plans(config, plans, chips, price)
            print_costs(title, costs, reasons, price, chips)
            record.setdefault("costs", {})[topology] = [asdict(spent) for spent in costs]
        if output is not None:
            write_whole(output, json.dumps(record, indent=1))
    for assumption in (*ASSUMPTIONS, *([ASSUMPTION] if prices else [])):
        print(f"* {assumption}")
    if output is not None:
        print(f"every figure: {output}")
