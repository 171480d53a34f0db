"""`gmma plan`: what an experiment needs of a TPU slice, before there is one.

Each program is compiled by the TPU's own compiler for a slice that is not there. What it says of
memory decides whether the program fits; what its text says of work, traffic and collectives
(`hlo.py`) and what is published of the chip (`chips.py`) give a bound on its time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gmma.config import ExperimentConfig, RLConfig, job_to_json
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.files import read_json, write_whole
from gmma.hardware.sharding import check_batch, decode_layout, make_mesh
from gmma.named import import_path, module_command
from gmma.options.arguments import PROGRAMS
from gmma.plan.chips import chip_of
from gmma.plan.cost import ASSUMPTION, Spent, needed_programs, price_of_each, spend
from gmma.plan.fastest import (
    Tried,
    as_options,
    find_obstacle,
    find_own,
    fit_words,
    search,
    with_sft,
    with_steps,
)
from gmma.plan.judge import ProgramPlan, plan_program
from gmma.plan.lengths import FULL_TREES, Expected, LengthModel, expect
from gmma.plan.programs import ProgramFacts, plan_parts
from gmma.plan.tables import print_choices, print_costs, print_plans, row_words, step_words
from gmma.plan.tpu_compiler import Compiled, count_chips, open_slice, read_dump, wait_for_dump
from gmma.plan.worker import FACTS
from gmma.porting.pretrained import CONFIG
from gmma.remote.copies import here
from gmma.run.programs import check_packing

PRESETS = Path(__file__).parents[1] / "presets"
ASSUMPTIONS = (
    "HBM is what the compiler assigned, tiles' padding included, and what the run keeps there "
    "beside the program's arguments; usable is what the compiler grants a program.",
    "A branch counts as often as it runs; where that is not known, the dearest counts.",
    "Seconds are a lower bound, the largest of these: FLOPs of matrix products at the published "
    "bfloat16 peak; bytes to and from HBM at its published bandwidth; bytes that collectives send "
    "in rings, all links of the chip at once; bytes to other slices at a chip's share of the data "
    "center network (DCN). Elementwise work and waiting are not in it.",
    'One after another: each scheduled instruction at its roofline, 1.2 µs at least ("small"), and '
    'collectives that nothing runs beside, with all that goes to other slices ("waiting"). An '
    "estimate, not a bound; of peak counts every FLOP of a matrix product, for empty slots and "
    "recomputed ones too.",
)
OF_FULL_TREES = "Every loop runs to its end: a rollout takes all T + A steps."
STATIC_ROWS = (
    "packing = ragged: planned with static rows, every slot filled, which is what a batch of full "
    "trees takes; a shorter row takes less. --mean-lengths plans one."
)
OF_LENGTHS = (
    "Lengths are lognormal, each node's its own, with these means before they are cut to their "
    "slots and σ = {spread:g}; prompts fill theirs. A level of a rollout ends with the longest row "
    "of all devices. Ragged rows have the least length that is no shorter than a microbatch's on "
    "average; their kernel visits as much as in a few drawn trees. Memory is that of static rows, "
    "the largest branch of the program."
)


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


def plan_slice(
    config: ExperimentConfig,
    topology: str,
    names: Sequence[str],
    *,
    until_memory: bool,
    lengths: LengthModel | None = None,
) -> Iterator[ProgramPlan]:
    """Compile these programs of an experiment for one slice, each in a process of its own.

    Without `lengths` every slot is filled.
    """
    on = open_slice(topology)
    mesh = make_mesh(config.launch.mesh, list(on.devices))
    if "sft" in names:
        check_batch(mesh, "sft.batch_prompts", config.sft.batch_prompts, config.sft.microbatches)
    # What the user got wrong is said here, where it is one message
    check_packing(config.packing, plan_parts(config, mesh).policy)
    decode_layout(config.rollout_params, config.rollout_tensor, mesh, config.rl.grown_prompts)
    static = replace(config, packing="static")  # of ragged rows, the worker is told the slots

    def compiled(name: str, expected: Expected) -> tuple[ProgramFacts, Compiled]:
        with tempfile.TemporaryDirectory() as home:
            source, dump = Path(home) / "config.json", Path(home) / "dump"
            source.write_text(json.dumps(job_to_json(static)))
            dump.mkdir()
            started = time.monotonic()
            told = (str(source), topology, name, str(dump), str(expected.row_slots or 0))
            command = module_command("gmma.plan.worker", *told)
            environment = {**os.environ, "PYTHONPATH": import_path()}
            process = subprocess.Popen(command, env=environment)
            fits = wait_for_dump(process, dump, until_memory=until_memory)
            found = read_dump(
                dump,
                fits_alone=fits,
                seconds=time.monotonic() - started,
                turns=expected.turns,
                row_blocks=expected.row_blocks,
            )
            return ProgramFacts(**read_json(dump / FACTS)), found

    for name in names:
        expected = expect(config, name, lengths)
        facts, own = compiled(name, expected)
        # Of ragged rows the program holds every length as a branch, up to that of static rows.
        largest = own if expected.row_slots is None else compiled(name, FULL_TREES)[1]
        yield plan_program(facts, own, config, on, expected, largest=largest)


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
    found = {"spare": plan.spare, "bound_by": limit, "seconds_at_least": seconds}
    return {**asdict(plan), **found, "serial_seconds": plan.serial.seconds}


def advise_slice(
    config: ExperimentConfig, topology: str, lengths: LengthModel | None = None
) -> dict[str, Any]:
    """Print what makes a step of RL fastest on a slice; return every figure as JSON values.

    Raises UserError for an experiment that has no RL.
    """
    if not config.rl.steps:
        raise UserError("--advise with rl.steps = 0: it is about the steps of RL; give them")
    on = open_slice(topology)

    def compiled(config: ExperimentConfig, name: str) -> ProgramPlan | None:
        try:
            (plan,) = plan_slice(config, topology, [name], until_memory=True, lengths=lengths)
        except UserError as error:
            tell(str(error))
            return None
        return plan

    choices, tried = search(config, on, compiled, tell)
    best, of_sft = with_sft(config, choices, compiled, tell)
    tried += of_sft
    if not tried:
        raise UserError(f"nothing could be tried on {topology}; the lines above say why")
    print_choices(f"{config.name} {config.tree.shape.label} on {topology}", choices, tried)
    if best is None:
        print(nothing_fits(topology, tried))
    else:
        best = replace(best, changes=with_steps(config, best.changes))
        own = find_own(config, on, choices)
        of_own = "not among what fits" if own is None else f"{own.seconds:.3f} s"
        print(
            f"the fastest that fits: {best.seconds:.3f} s for the {config.rl.batch_prompts} "
            f"prompts of an update (the experiment's own settings: {of_own}); add\n"
            f"    {as_options(best.changes)}"
        )
        if best.changes.get("rollout_weights", config.rollout_weights) != config.rollout_weights:
            print("its rollouts read other weights than are trained, so a run with it learns else")
    return {
        "tried": [{"changes": one.changes, **plan_record(one.plan)} for one in tried],
        "choices": [asdict(one) for one in choices],
        "best": best and asdict(best),
    }


def tell(words: str) -> None:
    """Say what a search has done, beside the tables."""
    print(words, file=sys.stderr, flush=True)


def nothing_fits(topology: str, tried: Sequence[Tried]) -> str:
    """Say that nothing fits, and of the program that is in the way what would help."""
    none = f"no settings that were tried fit {topology} with all programs"
    obstacle = find_obstacle(tried)
    if obstacle is None:
        return f"{none}: each fits by itself, but not beside minibatches that wait, or not with SFT"
    return (
        f"{none}. In the way is {obstacle.plan.program}, at best {as_options(obstacle.changes)}: "
        f"{fit_words(obstacle.plan)}; {obstacle.plan.advice}"
    )


def save(record: Mapping[str, Any], output: Path | None) -> None:
    """Write what is known so far, so that a later slice that fails loses nothing."""
    if output is not None:
        write_whole(output, json.dumps(record, indent=1))


def plan_experiment(
    config: ExperimentConfig,
    topologies: Sequence[str],
    output: Path | None,
    *,
    programs: Sequence[str] = PROGRAMS,
    until_memory: bool = False,
    prices: Sequence[float] = (),
    advise: bool = False,
    lengths: LengthModel | None = None,
) -> None:
    """Plan programs for every slice, print the tables, and write them where asked.

    `prices` are those of a chip-hour, one for all slices or one for each. `advise` searches
    settings in place of planning the experiment's own. Without `lengths` every slot is filled.
    """
    priced = price_of_each(prices, topologies)
    config, said = with_preset(config)
    if said is not None:
        print(said)
    if config.packing == "ragged" and lengths is None:
        print(STATIC_ROWS)
        config = replace(config, packing="static")
    shape = config.tree.shape
    record: dict[str, Any] = {
        "experiment": config.name,
        "shape": asdict(shape),
        "rollout_prompts": config.rl.grown_prompts,
        "update_prompts": config.rl.batch_prompts,
        "lengths": lengths and asdict(lengths),
        "slices": {},
    }
    for topology, price in zip(topologies, priced, strict=True):
        if advise:
            record["slices"][topology] = advise_slice(config, topology, lengths)
            save(record, output)
            continue
        plans = []
        planned = plan_slice(config, topology, programs, until_memory=until_memory, lengths=lengths)
        for plan in planned:
            print(f"{topology} {plan.program}: {plan.compile_seconds:.0f} s", flush=True)
            plans.append(plan)
        label = f"{config.name} {shape.label}, P/T/A {shape.prompt}/{shape.thought}/{shape.answer}"
        title = f"{label}, {prompts_words(config.rl)} on {topology}"
        print_plans(title, plans)
        for words in (step_words(config, plans), row_words(config, plans, chip_of(topology))):
            if words is not None:
                print(words)
        record["slices"][topology] = [plan_record(plan) for plan in plans]
        if price is not None:
            chips = count_chips(topology)
            costs, reasons = cost_plans(config, plans, chips, price)
            print_costs(title, costs, reasons, price, chips)
            record.setdefault("costs", {})[topology] = [asdict(spent) for spent in costs]
        save(record, output)
    of_lengths = OF_FULL_TREES if lengths is None else OF_LENGTHS.format(spread=lengths.spread)
    assumed = [*ASSUMPTIONS, of_lengths, *([ASSUMPTION] if prices else [])]
    for assumption in assumed:
        print(f"* {assumption}")
    if output is not None:
        print(f"every figure: {output}")
