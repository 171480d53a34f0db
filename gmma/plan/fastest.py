"""Search the settings under which a step of RL is fastest on a slice: `gmma plan --advise`.

A step costs, for each minibatch of `batch_prompts` trees,

    seconds = rollout / minibatches + epochs · update + scoring, where the step scores

each by the serial estimate (`serial.py`). Tried are meshes, prompts of a rollout, where it holds
its parameters, microbatches of an update, and what the backward pass computes again. None of them
changes a gradient, but that a larger rollout makes its later minibatches older. The programs are
independent but for the mesh, so each is compiled once for each of its own settings.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from jax.sharding import Mesh

from gmma.config import ExperimentConfig
from gmma.errors import UserError
from gmma.hardware.sharding import batch_shards, check_batch, make_mesh, mesh_sizes
from gmma.plan.chips import GIB
from gmma.plan.cost import needed_programs
from gmma.plan.judge import ProgramPlan
from gmma.plan.programs import plan_parts
from gmma.plan.tpu_compiler import Slice, local_bytes
from gmma.run.programs import make_rl_trainer
from gmma.sweep.arms import changed

LARGEST_ROLLOUT = 8  # minibatches of a rollout at most, where the experiment does not say more
REMATS = ("none", "dots", "full")  # from the least work to the least memory
Changes = Mapping[str, Any]  # fields as the command line names them
Compile = Callable[[ExperimentConfig, str], ProgramPlan]  # of a program by its name


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One program under settings of its own, compiled."""

    changes: Changes
    plan: ProgramPlan


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings under which every program of a step of RL fits."""

    changes: Changes
    seconds: float  # of so many prompts as an update has
    shares: Mapping[str, float]  # of these seconds, by program


def with_changes(config: ExperimentConfig, changes: Changes) -> ExperimentConfig:
    """Lay changes over an experiment. UserError where they do not go together."""
    launch = {name: value for name, value in changes.items() if name.startswith("mesh.")}
    others = {name: value for name, value in changes.items() if name not in launch}
    return changed(config, {**others, **{f"launch.{k}": v for k, v in launch.items()}})


def meshes(config: ExperimentConfig, devices: int) -> list[Changes]:
    """Return the meshes to try: the experiment's own, then parameters cut over all devices.

    With 1, 2, 4 … of them within a layer, as far as its key heads can be dealt out.
    """
    own = mesh_sizes(config.launch.mesh, devices)
    tensors = [2**power for power in range(devices.bit_length()) if devices % 2**power == 0]
    wanted = [(1, devices // tensor, tensor) for tensor in tensors]
    found = dict.fromkeys([own, *wanted] if own is not None else wanted)
    return [dict(zip(("mesh.data", "mesh.fsdp", "mesh.tensor"), one, strict=True)) for one in found]


def rollouts(config: ExperimentConfig, mesh: Mesh) -> Iterator[list[Changes]]:
    """Yield settings of a rollout in lists, each from its smallest to its largest program.

    Dynamic sampling ties the size of a rollout to what a step learns from, so it is left alone.
    """
    rl = config.rl
    held = rl.grown_prompts // rl.batch_prompts
    sizes = [2**power for power in range(LARGEST_ROLLOUT.bit_length())]
    counts = [held] if rl.dynamic_sampling else sorted({held, *sizes})
    layouts = ("gathered", "sharded") if mesh.shape["tensor"] > 1 else ("gathered",)
    for layout in layouts:
        yield [
            {"rl.rollout_prompts": count * rl.batch_prompts, "rollout_params": layout}
            for count in counts
        ]


def updates(config: ExperimentConfig, mesh: Mesh) -> Iterator[list[Changes]]:
    """Yield settings of an update in lists, each from its smallest to its largest program."""
    rows = config.rl.batch_prompts // batch_shards(mesh)
    for remat in REMATS:
        yield [
            {"rl.microbatches": count, "model.remat": remat}
            for count in range(rows, 0, -1)
            if rows % count == 0
        ]


def try_growing(
    config: ExperimentConfig, name: str, lists: Iterator[list[Changes]], compiled: Compile
) -> Iterator[Tried]:
    """Compile each list until a program does not fit, for those behind it are larger."""
    for settings in lists:
        for changes in settings:
            tried = Tried(changes=changes, plan=compiled(with_changes(config, changes), name))
            yield tried
            if not tried.plan.fits:
                break


def held_bytes(config: ExperimentConfig, mesh: Mesh) -> int:
    """Return the bytes a device that parameters and the optimiser's state take by themselves."""
    state = make_rl_trainer(plan_parts(config, mesh)).abstract
    return local_bytes((state.params, state.frozen, state.opt_state))


def search(
    config: ExperimentConfig, on: Slice, compiled: Compile, say: Callable[[str], None] = print
) -> tuple[list[Choice], list[Tried]]:
    """Return every choice that fits, the fastest first, and every program that was tried."""
    usable = on.chip.program_gib * GIB / on.devices_per_chip
    choices: list[Choice] = []
    tried: list[Tried] = []
    for sizes in meshes(config, len(on.devices)):
        own = with_changes(config, sizes)
        mesh = make_mesh(own.launch.mesh, list(on.devices))
        try:
            check_batch(mesh, "rl.batch_prompts", config.rl.batch_prompts)
            check_batch(mesh, "sft.batch_prompts", config.sft.batch_prompts)
        except UserError as error:
            say(f"{as_options(sizes)} left out: {error}")
            continue
        # Microbatches are tried below; those of the experiment may not divide a mesh's rows.
        whole = with_changes(own, {"rl.microbatches": 1, "sft.microbatches": 1})
        if (held := held_bytes(whole, mesh)) > usable:
            say(f"{as_options(sizes)} left out: parameters and optimiser take {held / GIB:.1f} GiB")
            continue
        found = search_mesh(whole, mesh, compiled)
        tried += [replace(one, changes={**sizes, **one.changes}) for one in found]
        choices += [replace(one, changes={**sizes, **one.changes}) for one in combine(whole, found)]
    return sorted(choices, key=lambda choice: choice.seconds), tried


def search_mesh(config: ExperimentConfig, mesh: Mesh, compiled: Compile) -> list[Tried]:
    """Compile the programs of a step of RL on one mesh, under every setting that may fit."""
    found = [*try_growing(config, "rollout", rollouts(config, mesh), compiled)]
    if any(one.plan.fits for one in found):
        found += try_growing(config, "update", updates(config, mesh), compiled)
        found.append(Tried(changes={}, plan=compiled(config, "scoring")))
    return found


def combine(config: ExperimentConfig, tried: Sequence[Tried]) -> Iterator[Choice]:
    """Yield every rollout with every update, where both fit, and scoring where a step needs it."""
    fitting = [one for one in tried if one.plan.fits]
    scoring = [one.plan for one in fitting if one.plan.program == "scoring"]
    for rollout in (one for one in fitting if one.plan.program == "rollout"):
        for update in (one for one in fitting if one.plan.program == "update"):
            changes = {**rollout.changes, **update.changes}
            step = with_changes(config, changes)
            times = needed_programs(step)["RL"]
            plans = {plan.program: plan for plan in (rollout.plan, update.plan, *scoring)}
            if not times.keys() <= plans.keys():
                continue
            shares = {
                name: count * plans[name].serial.seconds / step.rl.step_minibatches
                for name, count in times.items()
            }
            yield Choice(changes=changes, seconds=sum(shares.values()), shares=shares)


def with_sft(
    config: ExperimentConfig, choices: Sequence[Choice], compiled: Compile
) -> Choice | None:
    """Return the first choice under which SFT fits too, in as few microbatches as that takes."""
    if not config.sft.steps:
        return choices[0] if choices else None
    known: dict[tuple[Any, ...], int | None] = {}
    for choice in choices:
        shared = {k: v for k, v in choice.changes.items() if k.startswith(("mesh", "model"))}
        place = tuple(shared.values())
        if place not in known:
            known[place] = sft_microbatches(with_changes(config, choice.changes), shared, compiled)
        if (count := known[place]) is not None:
            return replace(choice, changes={**choice.changes, "sft.microbatches": count})
    return None


def sft_microbatches(config: ExperimentConfig, shared: Changes, compiled: Compile) -> int | None:
    """Return the fewest microbatches with which a step of SFT fits; None: it fits with none."""
    shards = prod(v for k, v in shared.items() if k in ("mesh.data", "mesh.fsdp"))
    rows, left = divmod(config.sft.batch_prompts, shards)
    for count in range(1, rows + 1):
        if not left and rows % count == 0:
            plan = compiled(with_changes(config, {"sft.microbatches": count}), "sft")
            if plan.fits:
                return count
    return None


def as_options(changes: Changes) -> str:
    """Spell changes as options.

    >>> as_options({"mesh.fsdp": 8, "rl.rollout_prompts": 64})
    '--mesh.fsdp 8 --rl.rollout-prompts 64'
    """
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changes.items())
