"""Search the settings under which a step of RL is fastest on a slice: `gmma plan --advise`.

The seconds of `batch_prompts` trees are

    rollout / minibatches + scoring + epochs · update

each by the serial estimate (`serial.py`); nothing is scored where a step has one update and β = 0.
Searched are meshes, prompts of a rollout, where it holds its parameters, microbatches of an update,
and rematerialisation; weights in 8 bits where the objective corrects for the sampler. No gradient
is changed by the others, but that a larger rollout makes its later minibatches older. Programs
share the mesh, and an update leaves room for the minibatches that wait: so each program is compiled
once for each of its own settings, scoring and update also for a rollout of a single update.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, get_args

from jax.sharding import Mesh, NamedSharding

from gmma.config import ExperimentConfig, RolloutLayout, updates_per_step
from gmma.errors import UserError
from gmma.hardware.hosts import check_hosts
from gmma.hardware.sharding import (
    batch_shards,
    check_batch,
    count_slices,
    decode_layout,
    make_mesh,
    mesh_sizes,
    rollout_mesh,
)
from gmma.options.changes import changed
from gmma.options.networks import Remat
from gmma.plan.chips import GIB
from gmma.plan.cost import needed_programs
from gmma.plan.judge import ProgramPlan
from gmma.plan.programs import plan_parts
from gmma.plan.tpu_compiler import Slice, local_bytes
from gmma.run.assembly import Parts
from gmma.run.programs import make_rl_trainer

LARGEST_ROLLOUT = 8  # minibatches of a rollout, beside the experiment's own number
REMATS: tuple[Remat, ...] = get_args(Remat)  # from the least work to the least memory
Changes = Mapping[str, Any]  # fields as the command line names them
# A program of an experiment by its name; None: the compiler failed, and said why
Compile = Callable[[ExperimentConfig, str], ProgramPlan | None]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One program under settings of its own, compiled."""

    changes: Changes
    plan: ProgramPlan
    several: bool | None = None  # of scoring and update: whether a rollout has several updates


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings under which every program of a step of RL fits."""

    changes: Changes
    seconds: float  # of so many prompts as an update has
    shares: Mapping[str, float]  # of these seconds, by program


def with_changes(config: ExperimentConfig, changes: Changes) -> ExperimentConfig:
    """Lay changes over an experiment. UserError where they do not go together."""
    launch = {f"launch.{k}": v for k, v in changes.items() if k.startswith("mesh.")}
    others = {name: value for name, value in changes.items() if not name.startswith("mesh.")}
    return changed(config, {**launch, **others})


def search(
    config: ExperimentConfig, on: Slice, compiled: Compile, say: Say = print
) -> tuple[list[Choice], list[Tried]]:
    """Return every choice that fits, the fastest first, and every program that was compiled.

    `say` is told what is left out and why, and what came of each compilation.
    """
    choices: list[Choice] = []
    tried: list[Tried] = []
    slices = count_slices(on.devices)
    for sizes in meshes(config, len(on.devices), slices):
        # Microbatches are searched below; those of the experiment may not divide a mesh's rows.
        free = {"rl.microbatches": 1} if may_cut(config) else {}
        whole = with_changes(config, {**sizes, **free, "sft.microbatches": 1})
        try:
            mesh = check_mesh(whole, on)
        except UserError as error:
            say(f"{as_options(sizes)} is left out: {error}")
            continue
        parts = plan_parts(whole, mesh)
        if (
            fault := find_fault(parts, on, mesh_sizes(config.launch.mesh, len(on.devices), slices))
        ) is not None:
            say(f"{as_options(sizes)} is left out: {fault}")
            continue
        found = search_mesh(parts, compiled, partial(say_of, say, as_options(sizes)))
        tried += [replace(one, changes={**sizes, **one.changes}) for one in found]
        choices += [replace(one, changes={**sizes, **one.changes}) for one in combine(whole, found)]
    return sorted(choices, key=lambda choice: choice.seconds), tried


def say_of(say: Say, place: str, words: str) -> None:
    """Say words of a place."""
    say(f"{place}: {words}")


def meshes(config: ExperimentConfig, devices: int, slices: int = 1) -> list[Changes]:
    """Return the experiment's own mesh, and parameters cut over all devices of a slice.

    Of these, 1, 2, 4 … are within a layer.
    """
    own = mesh_sizes(config.launch.mesh, devices, slices)
    each = devices // slices
    tensors = [2**power for power in range(each.bit_length()) if each % 2**power == 0]
    wanted = [(slices, each // tensor, tensor) for tensor in tensors]
    found = dict.fromkeys([own, *wanted] if own is not None else wanted)
    return [dict(zip(("mesh.data", "mesh.fsdp", "mesh.tensor"), one, strict=True)) for one in found]


def check_mesh(config: ExperimentConfig, on: Slice) -> Mesh:
    """Return an experiment's mesh. UserError where `gmma train` refuses it."""
    mesh = make_mesh(config.launch.mesh, list(on.devices))
    check_hosts(mesh.devices)
    check_batch(mesh, "evaluation.batch_prompts", config.evaluation.batch_prompts)
    for name, phase in (("sft", config.sft), ("rl", config.rl)):
        if phase.steps:
            check_batch(mesh, f"{name}.batch_prompts", phase.batch_prompts, phase.microbatches)
    return mesh


def find_fault(parts: Parts, on: Slice, own: tuple[int, ...] | None) -> str | None:
    """Say why a mesh is of no use, by arithmetic; None: it may be.

    Key-value heads must be dealt out evenly, unless the mesh is the experiment's own.
    """
    heads, tensor = parts.policy.config.kv_heads, parts.mesh.shape["tensor"]
    if heads % tensor and own != parts.mesh.devices.shape:
        return f"{heads} key-value heads cannot be dealt out to {tensor} devices"
    state = make_rl_trainer(parts).abstract
    held = local_bytes((state.params, state.frozen, state.opt_state))
    usable = on.chip.program_gib * GIB / on.devices_per_chip
    if held <= usable:
        return None
    return f"parameters and optimiser take {held / GIB:.2f} of {usable / GIB:.2f} GiB a device"


def may_cut(config: ExperimentConfig) -> bool:
    """Return whether microbatches leave the loss as it is: `bnpo` divides by a microbatch's own."""
    return config.objective.loss_type != "bnpo"


def rollouts(parts: Parts) -> Iterator[list[Changes]]:
    """Yield settings of a rollout in lists, each from the fewest trees a device to the most.

    Dynamic sampling ties the size of a rollout to what a step learns from, so it is left alone.
    """
    rl, mesh = parts.config.rl, parts.mesh
    held = rl.grown_prompts // rl.batch_prompts
    sizes = [2**power for power in range(LARGEST_ROLLOUT.bit_length())]
    counts = [held] if rl.dynamic_sampling else sorted({held, *sizes})
    whole = {} if rl.dynamic_sampling or rl.minibatches is None else {"rl.minibatches": None}

    for tensor, weights in product(tensors(parts), rounded_or_not(parts.config)):
        held_in: RolloutLayout = "gathered" if tensor == 1 else "sharded"
        copies = batch_shards(mesh) if tensor == 1 else mesh.size // tensor
        trees = partial(trees_of, held_in, tensor, mesh)
        own = None if tensor in (1, mesh.shape["tensor"]) else tensor
        cut = {} if own == parts.config.rollout_tensor else {"rollout_tensor": own}
        fixed = {**whole, "rollout_params": held_in, **cut, **weights}
        prompts = (n * rl.batch_prompts for n in counts)
        grown = sorted((count for count in prompts if count % copies == 0), key=trees)
        yield [{"rl.rollout_prompts": count, **fixed} for count in grown]


def trees_of(held_in: RolloutLayout, tensor: int, mesh: Mesh, prompts: int) -> int:
    """Return how many trees a device of a rollout grows, or devices that share a copy do."""
    layout = decode_layout(held_in, tensor if held_in == "sharded" else None, mesh, prompts)
    return NamedSharding(layout.mesh, layout.prompts).shard_shape((prompts,))[0]


def tensors(parts: Parts) -> list[int]:
    """Return over how many devices a rollout may cut each copy of its parameters.

    1, 2, 4 … of a slice, those that nest with the mesh and to which key-value heads are dealt out
    evenly; these do not matter for the mesh's tensor and the experiment's own rollout_tensor.
    Prompts of an evaluation are dealt out, too.
    """
    config, mesh = parts.config, parts.mesh
    devices, heads = mesh.size // count_slices(mesh.devices.flat), parts.policy.config.kv_heads
    own = {mesh.shape["tensor"], config.rollout_tensor or 1}
    powers = {2**power for power in range(devices.bit_length()) if heads % 2**power == 0}
    return [1] + [
        tensor
        for tensor in sorted(own | powers - {1})
        if tensor > 1
        and nests(mesh, tensor)
        and config.evaluation.batch_prompts % (mesh.size // tensor) == 0
    ]


def nests(mesh: Mesh, tensor: int) -> bool:
    """Return whether a rollout may have so many devices to a copy beside a mesh."""
    try:
        rollout_mesh(mesh, tensor)
    except UserError:
        return False
    return True


def rounded_or_not(config: ExperimentConfig) -> list[Changes]:
    """Return what a rollout may read: also 8 bits, where the objective corrects for the sampler."""
    if config.objective.importance_cap is None:
        return [{}]
    return [{"rollout_weights": kind} for kind in dict.fromkeys((config.rollout_weights, "int8"))]


def updates(parts: Parts) -> Iterator[list[Changes]]:
    """Yield settings of an update in lists, each from the fewest rows at a time to the most."""
    rl = parts.config.rl
    rows = rl.batch_prompts // batch_shards(parts.mesh)
    counts = [n for n in range(rows, 0, -1) if rows % n == 0]
    for remat in REMATS:
        yield [
            {"rl.microbatches": n, "model.remat": remat}
            for n in (counts if may_cut(parts.config) else [rl.microbatches])
        ]


def search_mesh(parts: Parts, compiled: Compile, say: Say) -> list[Tried]:
    """Compile the programs of a step of RL on one mesh, under every setting that may be fastest.

    Scoring and updates are compiled beside the most minibatches that may wait; `combine` reckons
    with fewer. An update that is its rollout's only one reads no old log-probs, and is a program of
    its own.
    """
    config = parts.config
    found = [*try_growing(config, "rollout", rollouts(parts), compiled, say)]
    grown = sorted((one for one in found if one.plan.fits), key=prompts_of, reverse=True)
    for several in (True, False):
        alike = [one for one in grown if has_several(config, one.changes) == several]
        if not alike:
            continue
        if not several and (words := why_outrun(config, alike, found)) is not None:
            say(words)
            continue
        own = with_changes(config, alike[0].changes)
        largest: Changes = {"rl.rollout_prompts": prompts_of(alike[0])}
        lists = {"scoring": iter([[largest]]), "update": updates(parts)}
        for name in (name for name in lists if name in needed_programs(own)["RL"]):
            tried = try_growing(own, name, lists[name], compiled, say)
            found += [replace(one, several=several) for one in tried]
    return found


def prompts_of(rollout: Tried) -> int:
    """Return the prompts of a rollout."""
    count: int = rollout.changes["rl.rollout_prompts"]
    return count


def has_several(config: ExperimentConfig, changes: Changes) -> bool:
    """Return whether a rollout under some changes has more than one update."""
    return updates_per_step(with_changes(config, changes)) > 1


def why_outrun(
    config: ExperimentConfig, single: Sequence[Tried], found: Sequence[Tried]
) -> str | None:
    """Say why rollouts of a single update cannot be the fastest; None: they may be.

    Where they alone take longer than a whole step. Those of the experiment itself are looked at.
    """
    fastest = min((choice.seconds for choice in combine(config, found)), default=math.inf)
    alone = min(one.plan.serial.seconds for one in single)
    if alone < fastest or updates_per_step(config) == 1:
        return None
    return (
        f"a single update on a rollout is left out: growing takes {alone:.3f} s, as many prompts "
        f"of larger rollouts {fastest:.3f} s with their updates"
    )


def try_growing(
    config: ExperimentConfig,
    name: str,
    lists: Iterator[list[Changes]],
    compiled: Compile,
    say: Say,
) -> Iterator[Tried]:
    """Compile each list until a program is too large, for those behind it are larger."""
    for settings in lists:
        for changes in settings:
            plan = compiled(with_changes(config, changes), name)
            if plan is None:
                say(f"{name} {as_options(changes)} is left out")
                continue
            say(f"{name} {as_options(changes)}: {fit_words(plan)}")
            yield Tried(changes=changes, plan=plan)
            if not fits_beside(plan, 0):
                break


def fits_beside(plan: ProgramPlan, waiting_bytes: int) -> bool:
    """Return whether a program fits where so many bytes of minibatches wait in place of its own."""
    need = plan.need_bytes - plan.waiting_bytes + waiting_bytes
    return plan.fits_alone and need <= plan.usable_bytes


def combine(config: ExperimentConfig, tried: Sequence[Tried]) -> Iterator[Choice]:
    """Yield every rollout with every update, where both fit, and scoring where a step needs it."""
    grown = [one for one in tried if one.plan.program == "rollout" and one.plan.fits]
    most = max((minibatches_of(config, one.changes) for one in grown), default=1)
    for rollout in grown:
        count = minibatches_of(config, rollout.changes)
        several = has_several(config, rollout.changes)
        others = [one for one in tried if one.several == several]
        scoring = [one for one in others if one.plan.program == "scoring"]
        for update in (one for one in others if one.plan.program == "update"):
            changes = {**rollout.changes, **update.changes}
            times = needed_programs(with_changes(config, changes))["RL"]
            plans = {one.plan.program: one.plan for one in (*scoring, rollout, update)}
            if not times.keys() <= plans.keys():
                continue
            # A minibatch less waits for each that a rollout has less.
            beside = {
                name: plans[name].waiting_bytes * (count - 1) // max(most - 1, 1) for name in times
            }
            if all(fits_beside(plans[name], waiting) for name, waiting in beside.items()):
                shares = {
                    name: runs * plans[name].serial.seconds / count for name, runs in times.items()
                }
                yield Choice(changes=changes, seconds=sum(shares.values()), shares=shares)


def minibatches_of(config: ExperimentConfig, changes: Changes) -> int:
    """Return the minibatches of a step under some changes."""
    return with_changes(config, changes).rl.step_minibatches


def with_sft(
    config: ExperimentConfig, choices: Sequence[Choice], compiled: Compile, say: Say = print
) -> tuple[Choice | None, list[Tried]]:
    """Return the first choice under which SFT fits too, in as few microbatches as that takes.

    None where it fits with none, and the programs that were compiled for it.
    """
    if not config.sft.steps:
        return (choices[0] if choices else None), []
    tried: list[Tried] = []
    known: dict[tuple[Any, ...], Changes | None] = {}
    for choice in choices:
        shared = {k: v for k, v in choice.changes.items() if k.startswith(("mesh", "model"))}
        place = tuple(shared.values())
        if place not in known:
            rows = config.sft.batch_prompts // (shared["mesh.data"] * shared["mesh.fsdp"])
            counts = [{"sft.microbatches": n} for n in range(1, rows + 1) if rows % n == 0]
            own = with_changes(config, choice.changes)
            known[place] = None
            for count in counts:
                (*found,) = try_growing(own, "sft", iter([[count]]), compiled, say)
                tried += [replace(one, changes={**shared, **count}) for one in found]
                if found and found[0].plan.fits:
                    known[place] = count
                    break
        if (fitting := known[place]) is not None:
            return replace(choice, changes={**choice.changes, **fitting}), tried
    return None, tried


def with_steps(config: ExperimentConfig, changes: Changes) -> Changes:
    """Add the steps of RL that make as many updates as the experiment's own, or a few more."""
    own, new = config.rl.step_minibatches, minibatches_of(config, changes)
    return {**changes, "rl.steps": -(-config.rl.steps * own // new)} if own != new else changes


def find_own(config: ExperimentConfig, on: Slice, choices: Sequence[Choice]) -> Choice | None:
    """Return the choice that is the experiment as it stands; None where it is not among them."""

    def settings(one: ExperimentConfig) -> tuple[Any, ...]:
        sizes = mesh_sizes(one.launch.mesh, len(on.devices), count_slices(on.devices))
        rl = (one.rl.grown_prompts, one.rl.step_minibatches, one.rl.microbatches)
        own = one.rollout_tensor or (sizes or (1,))[-1]
        tensor = 1 if one.rollout_params == "gathered" else own
        return sizes, rl, tensor, one.rollout_weights, getattr(one.model, "remat", None)

    wanted = settings(config)
    same = (c for c in choices if settings(with_changes(config, c.changes)) == wanted)
    return next(same, None)


def find_obstacle(tried: Sequence[Tried]) -> Tried | None:
    """Return what is nearest to fitting of a program that fits under no settings of its mesh.

    None where on some mesh every program fits by itself.
    """
    found = []
    for sizes in {mesh_of(one): None for one in tried}:
        for name in ("rollout", "scoring", "update", "sft"):
            own = [one for one in tried if mesh_of(one) == sizes and one.plan.program == name]
            if own and not any(fits_beside(one.plan, 0) for one in own):
                found.append(min(own, key=need_alone))
                break
        else:
            return None
    return min(found, key=need_alone, default=None)


def mesh_of(one: Tried) -> tuple[Any, ...]:
    """Return the mesh that a program was compiled for."""
    return tuple(value for name, value in one.changes.items() if name.startswith("mesh."))


def need_alone(one: Tried) -> int:
    """Return the bytes that a program needs with no minibatch that waits."""
    return one.plan.need_bytes - one.plan.waiting_bytes


def fit_words(plan: ProgramPlan) -> str:
    """Say what a program needs of what there is, and its seconds."""
    need = (plan.need_bytes - plan.waiting_bytes) / GIB
    waiting = f" and {plan.waiting_bytes / GIB:.2f} that wait" if plan.waiting_bytes else ""
    verdict = f"{plan.serial.seconds:.3f} s" if fits_beside(plan, 0) else "does not fit"
    return f"{need:.2f}{waiting} of {plan.usable_bytes / GIB:.2f} GiB, {verdict}"


def as_options(changes: Changes) -> str:
    """Spell changes as options.

    >>> as_options({"mesh.fsdp": 8, "rl.rollout_prompts": 64})
    '--mesh.fsdp 8 --rl.rollout-prompts 64'
    """
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changes.items())
