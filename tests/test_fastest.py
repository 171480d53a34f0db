"""`gmma plan --advise`: its choice is the fastest of all, and no program is compiled twice."""

import itertools
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from slices import made_up_plan, needs_libtpu
from tiny_run import TINY

from gmma.cli import command_plan
from gmma.config import (
    ExperimentConfig,
    MeshConfig,
    updates_per_step,
    with_launch,
)
from gmma.errors import UserError
from gmma.hardware.sharding import make_mesh
from gmma.plan import command
from gmma.plan.chips import chip_of
from gmma.plan.command import advise_slice, plan_slice
from gmma.plan.fastest import (
    LARGEST_ROLLOUT,
    REMATS,
    Choice,
    Tried,
    as_options,
    check_mesh,
    find_obstacle,
    find_own,
    meshes,
    search,
    with_changes,
    with_steps,
)
from gmma.plan.judge import ProgramPlan
from gmma.plan.programs import plan_parts, plan_programs
from gmma.plan.serial import Serial
from gmma.plan.tpu_compiler import Slice, open_slice
from gmma.run.experiments import load_experiment
from gmma.run.lines import plan_line

HERE = Slice(
    topology="v5e:2x4", chip=chip_of("v5e:2x4"), devices=jax.devices()[:8], devices_per_chip=1
)
Compiled = Callable[[ExperimentConfig, str], ProgramPlan | None]
SIZES = [2**power for power in range(LARGEST_ROLLOUT.bit_length())]


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The dataset of the tiny job is built once, in a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fastest"))
        yield


def job(**rl: Any) -> ExperimentConfig:
    """The tiny job with 16 prompts, parameters cut over eight devices."""
    config = load_experiment(TINY)
    config = replace(
        config,
        rl=replace(config.rl, **{"batch_prompts": 16} | rl),
        sft=replace(config.sft, batch_prompts=64),
        model=replace(config.model, heads=4, kv_heads=2),
    )
    return with_launch(config, mesh=MeshConfig(data=1, fsdp=8))


def quiet(words: str) -> None:
    """Says nothing."""


def devices_of_a_copy(config: ExperimentConfig) -> int:
    """Over how many devices a rollout cuts each."""
    if config.rollout_params == "gathered":
        return 1
    return config.rollout_tensor or config.launch.mesh.tensor


def need_of(config: ExperimentConfig, name: str) -> tuple[float, float]:
    """What a program takes of a device, and of it minibatches that wait; in made-up units."""
    mesh, rl = config.launch.mesh, config.rl
    shards = mesh.data * mesh.fsdp
    held = 3 - REMATS.index(config.model.remat) / 2
    waiting = 1.5 * (rl.step_minibatches - 1) * rl.batch_prompts / shards
    tensor = devices_of_a_copy(config)
    everywhere = rl.grown_prompts % 8 == 0
    trees = rl.grown_prompts / (8 / tensor if everywhere or tensor > 1 else shards)
    copy = 4 / tensor
    need = {
        "rollout": trees + copy,
        "scoring": 1 + waiting,
        "update": held * rl.batch_prompts / shards / rl.microbatches + waiting,
        "sft": held * config.sft.batch_prompts / shards / config.sft.microbatches,
    }
    return need[name], 0.0 if name in ("rollout", "sft") else waiting


def made_up_compiler(seed: int, usable: float) -> tuple[Compiled, list[str]]:
    """Programs of random seconds, each with the need above; what waits changes no seconds."""
    known, asked = dict[str, float](), list[str]()
    rng = np.random.default_rng(seed)

    def compiled(config: ExperimentConfig, name: str) -> ProgramPlan:
        mesh, rl = config.launch.mesh, config.rl
        own = {
            "rollout": (rl.grown_prompts, devices_of_a_copy(config)),
            "update": (rl.microbatches, config.model.remat, updates_per_step(config) > 1),
            "scoring": (updates_per_step(config) > 1,),
            "sft": (config.sft.microbatches, config.model.remat),
        }[name]
        key = json.dumps([name, mesh.data, mesh.fsdp, mesh.tensor, *own])
        asked.append(key)
        need, waiting = (round(1000 * part) for part in need_of(config, name))
        plan = made_up_plan(
            name, known.setdefault(key, float(rng.uniform(1, 2))), fits=need <= 1000 * usable
        )
        return replace(
            plan,
            fits_alone=need - waiting <= 1000 * usable,
            need_bytes=need,
            waiting_bytes=waiting,
            usable_bytes=round(1000 * usable),
            advice="fewer of them",
        )

    return compiled, asked


def every_choice(
    config: ExperimentConfig, compiled: Compiled, devices: int = 8
) -> dict[str, float]:
    """Seconds of each combination that fits: all its programs under all of its settings."""
    found: dict[str, float] = {}
    for tensor, size, held, remat in itertools.product((1, 2), SIZES, (1, 2), REMATS):
        rows = config.rl.batch_prompts // (devices // tensor)
        for count in (n for n in range(1, rows + 1) if rows % n == 0):
            changes = {"mesh.data": 1, "mesh.fsdp": devices // tensor, "mesh.tensor": tensor}
            changes |= {"rl.rollout_prompts": size * config.rl.batch_prompts}
            changes |= {"rollout_params": "gathered" if held == 1 else "sharded"}
            changes |= {"rollout_tensor": 2} if held == 2 and tensor == 1 else {}
            changes |= {"rl.microbatches": count, "model.remat": remat}
            whole = with_changes(config, {**changes, "sft.microbatches": 1})
            scored = size > 1 or config.objective.beta > 0
            names = ("rollout", "update", *(("scoring",) if scored else ()))
            plans = [compiled(whole, name) for name in names]
            if all(plan is not None and plan.fits for plan in plans):
                first, *others = (plan.serial.seconds for plan in plans if plan is not None)
                found[json.dumps(changes)] = first / size + sum(others)
    return found


def check_choices(
    config: ExperimentConfig, choices: Sequence[Choice], best: dict[str, float]
) -> None:
    """They are those of an exhaustive list, in the order of their seconds.

    Left out are none but rollouts of a single update, where these cannot be the fastest.
    """
    found = {json.dumps(dict(choice.changes)): choice.seconds for choice in choices}
    assert found == pytest.approx({name: best[name] for name in found})
    assert [one.seconds for one in choices] == sorted(found.values())
    assert choices[0].seconds == pytest.approx(min(best.values()))
    left_out = [json.loads(name)["rl.rollout_prompts"] for name in best.keys() - found.keys()]
    assert set(left_out) <= {config.rl.batch_prompts}
    if updates_per_step(config) == 1:  # then none is
        assert not left_out


@pytest.mark.parametrize(
    ("seed", "usable", "beta"), [(0, 6, 0.0), (1, 8, 0.1), (2, 13, 0.0), (3, 40, 0.1)]
)
def test_the_choice_is_the_fastest_of_all(seed: int, usable: int, beta: float) -> None:
    """On eight devices, whatever the seconds are, where memory grows as it does.

    With β a step of one update scores the reference alone, and others old log-probs too.
    """
    config = job()
    config = replace(config, objective=replace(config.objective, beta=beta))
    compiled, asked = made_up_compiler(seed, usable)
    choices, tried = search(config, HERE, compiled, quiet)
    assert len(set(asked)) == len(asked)  # each program once
    best = every_choice(config, compiled)
    assert best
    check_choices(config, choices, best)
    lists = 2 * 2 + 2 * 2 * len(REMATS)  # rollouts on two meshes, in two layouts; updates of both
    assert sum(not one.plan.fits_alone for one in tried) <= lists


@pytest.mark.slow
@needs_libtpu
def test_of_a_small_job_the_choice_is_the_fastest_of_an_exhaustive_list() -> None:
    """By the TPU's own compiler, on four chips. The programs of every combination are lowered, and
    those that differ from all before are compiled.
    """
    topology, known = "v5e:2x2", dict[tuple[str, str], ProgramPlan]()
    on = open_slice(topology)
    config = with_launch(job(batch_prompts=4), mesh=MeshConfig(data=1, fsdp=4))

    def compiled(config: ExperimentConfig, name: str) -> ProgramPlan:
        parts = plan_parts(config, make_mesh(config.launch.mesh, list(on.devices)))
        (own,) = (program for program in plan_programs(parts) if program.name == name)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            traced = own.jitted.trace(*own.arguments)
        key = (name, traced.lower(lowering_platforms=("tpu",)).as_text())
        if key not in known:
            (known[key],) = plan_slice(config, topology, [name], until_memory=True)
        plan = known[key]
        assert plan.need_bytes + own.resident_bytes < plan.usable_bytes / 2  # nothing is left out
        return plan

    choices, _ = search(config, on, compiled, quiet)
    few = len(known)
    best = every_choice(config, compiled, devices=4)
    assert len(best) > 50
    assert few < len(known)  # what the search takes for alike and the exhaustive list does not
    check_choices(config, choices, best)


def test_a_single_update_is_looked_at_where_it_may_be_the_fastest() -> None:
    """Or where the experiment has one. Its program is its own, and each of two meshes asks."""
    made_up, asked = made_up_compiler(0, 40)

    def slow_to_grow(config: ExperimentConfig, name: str) -> ProgramPlan | None:
        plan = made_up(config, name)
        assert plan is not None
        return plan if name != "rollout" else replace(plan, serial=Serial(large=8.0))

    said: list[str] = []
    config = job(rollout_prompts=64)
    choices, _ = search(config, HERE, slow_to_grow, said.append)
    assert sum("a single update on a rollout is left out" in words for words in said) == 2
    check_choices(config, choices, every_choice(config, slow_to_grow))
    assert len({choice.changes["rl.rollout_prompts"] for choice in choices}) == 3
    for config, compiled in ((job(rollout_prompts=64), made_up), (job(), slow_to_grow)):
        asked.clear()
        choices, _ = search(config, HERE, compiled, quiet)
        assert {choice.changes["rl.rollout_prompts"] for choice in choices} == {16, 32, 64, 128}
        kinds = [json.loads(key)[-1] for key in asked if key.startswith('["update"')]
        assert kinds.count(True) == kinds.count(False) > 0


def test_what_waits_decides_between_rollouts() -> None:
    """An update that has no room beside eight minibatches may have it beside fewer."""
    compiled, _ = made_up_compiler(0, 8)
    choices, tried = search(job(), HERE, compiled, quiet)
    fitting = {
        (choice.changes["rl.microbatches"], choice.changes["model.remat"]): set[int]()
        for choice in choices
    }
    for choice in choices:
        settings = (choice.changes["rl.microbatches"], choice.changes["model.remat"])
        fitting[settings].add(choice.changes["rl.rollout_prompts"])
    assert len(set(map(len, fitting.values()))) > 1
    assert any(one.plan.fits_alone and not one.plan.fits for one in tried)


def changed_fields(config: ExperimentConfig) -> set[str]:
    """The fields that the choices of a search name."""
    choices, _ = search(config, HERE, made_up_compiler(0, 40)[0], quiet)
    assert choices
    return {name for choice in choices for name in choice.changes}


def test_settings_that_go_together_alone_are_searched() -> None:
    """With minibatches given, with dynamic sampling, and with a loss that microbatches change."""
    assert "rl.minibatches" not in changed_fields(job())
    assert "rl.minibatches" in changed_fields(job(rollout_prompts=64, minibatches=4))
    sampled = job(rollout_prompts=64, minibatches=2, dynamic_sampling=True)
    choices, _ = search(sampled, HERE, made_up_compiler(0, 40)[0], quiet)
    assert {choice.changes["rl.rollout_prompts"] for choice in choices} == {64}
    config = job(microbatches=2)
    bnpo = replace(config, objective=replace(config.objective, loss_type="bnpo"))
    choices, _ = search(bnpo, HERE, made_up_compiler(0, 40)[0], quiet)
    assert {choice.changes["rl.microbatches"] for choice in choices} == {2}


def test_a_mesh_is_left_out_before_anything_is_compiled(monkeypatch: Any) -> None:
    """What `gmma train` refuses, what has no room for parameters, what cuts key-value heads."""
    said: list[str] = []
    compiled, asked = made_up_compiler(0, 40)
    search(job(), HERE, compiled, said.append)
    heads = "--mesh.data 1 --mesh.fsdp 2 --mesh.tensor 4 is left out: 2 key-value heads cannot be"
    assert any(words.startswith(heads) for words in said)
    own = with_launch(job(), mesh=MeshConfig(data=1, fsdp=2, tensor=4))
    assert any("--mesh.tensor 4" in words and "GiB" in words for words in told_of(own))
    uneven = replace(job(), evaluation=replace(job().evaluation, batch_prompts=4))
    assert any(
        "evaluation.batch_prompts = 4 is not divisible" in words for words in told_of(uneven)
    )
    unused = replace(job(), sft=replace(job().sft, steps=0, batch_prompts=3))
    assert not any("sft.batch_prompts" in words for words in told_of(unused))
    small = replace(HERE, chip=replace(HERE.chip, program_gib=1e-6))
    asked.clear()
    assert search(job(), small, compiled, said.append) == ([], [])
    assert not asked
    assert any("parameters and optimiser take" in words for words in said)


def told_of(config: ExperimentConfig) -> list[str]:
    """What a search says."""
    said: list[str] = []
    search(config, HERE, made_up_compiler(0, 40)[0], said.append)
    return said


def test_the_run_stays_as_long() -> None:
    """In updates, as nearly as whole steps can."""
    config = job(steps=9)
    assert with_steps(config, {"rl.rollout_prompts": 64}) == {
        "rl.rollout_prompts": 64, "rl.steps": 3
    }  # fmt: skip
    assert with_steps(config, {"rl.microbatches": 2}) == {"rl.microbatches": 2}


@pytest.mark.parametrize("usable", [6, 2, 0.5])
def test_the_line_says_what_to_add(
    usable: float, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """SFT gets as few microbatches as it fits with; where nothing fits, it says what would."""
    monkeypatch.setattr(command, "open_slice", lambda topology: HERE)
    config, (compiled, _) = job(), made_up_compiler(0, usable)
    monkeypatch.setattr(command, "plan_slice", lambda c, t, names, **_: [compiled(c, names[0])])
    record = advise_slice(config, "v5e:2x4")
    said = capsys.readouterr().out
    if usable < 6:
        assert record["best"] is None
        assert "no settings that were tried fit v5e:2x4 with all programs" in said
        assert "In the way is rollout, at best --mesh.data 1 --mesh.fsdp 8 --mesh.tensor 1" in said
        assert "GiB, does not fit; fewer of them" in said
        return
    best = record["best"]["changes"]
    line = shlex.split(said.splitlines()[-1])
    read = plan_line([str(TINY), *line]).given.base
    assert read == with_changes(load_experiment(TINY), best)
    chosen = with_changes(config, best)
    for name in ("rollout", "scoring", "update", "sft"):
        assert need_of(chosen, name)[0] <= usable
    more = with_changes(chosen, {"sft.microbatches": max(1, best["sft.microbatches"] // 2)})
    assert best["sft.microbatches"] == 1 or need_of(more, "sft")[0] > usable
    assert any(one["program"] == "sft" for one in record["tried"])


def test_what_is_in_the_way_is_named() -> None:
    """A program that fits under no settings, not one that is only nearer to fitting."""

    def tried(program: str, need: int, waiting: int = 0) -> Tried:
        plan = made_up_plan(program, 1.0, fits=need <= 100)
        plan = replace(plan, need_bytes=need, waiting_bytes=waiting, usable_bytes=100)
        alone = need - waiting <= 100
        return Tried(changes={"mesh.fsdp": 8}, plan=replace(plan, fits_alone=alone))

    grown = [tried("rollout", 80), tried("rollout", 101)]
    found = find_obstacle([*grown, tried("update", 150), tried("update", 130)])
    assert found is not None
    assert (found.plan.program, found.plan.need_bytes) == ("update", 130)
    assert find_obstacle([*grown, tried("update", 130, waiting=40)]) is None
    sft = find_obstacle([*grown, tried("update", 90), tried("sft", 120)])
    assert sft is not None
    assert sft.plan.program == "sft"


def test_a_users_mistake_is_no_fault_of_a_mesh(tmp_path: Path) -> None:
    """It is said once and ends the search, as it ends a plan."""
    config = load_experiment(Path(__file__).parent.parent / "experiments/math.py")
    config = with_launch(config, data_dir=tmp_path)
    with pytest.raises(UserError, match=r"gsm8k"):
        search(config, HERE, made_up_compiler(0, 40)[0], quiet)


def test_rounded_weights_are_tried_where_the_objective_corrects_for_them() -> None:
    """A rollout of 8 bits takes no more than half of the other's time here."""
    config, tried = job(), {}

    def compiled(config: ExperimentConfig, name: str) -> ProgramPlan:
        light = config.rollout_weights == "int8"
        return made_up_plan(name, 0.1 if light else 0.3)

    for cap in (None, 2.0):
        objective = replace(config.objective, importance_cap=cap)
        choices, found = search(replace(config, objective=objective), HERE, compiled, quiet)
        tried[cap] = {one.changes.get("rollout_weights") for one in found}
        assert choices[0].changes.get("rollout_weights") == (None if cap is None else "int8")
    assert tried == {None: {None}, 2.0: {None, "exact", "int8"}}


def test_a_compiler_that_fails_ends_nothing(
    monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its candidate is left out, and what it said is told."""
    monkeypatch.setattr(command, "open_slice", lambda topology: HERE)
    compiled, _ = made_up_compiler(0, 40)

    def plan(config: ExperimentConfig, topology: str, names: list[str], **_: Any) -> list[Any]:
        if names == ["update"] and config.model.remat == "dots":
            raise UserError("the compilation ended with code 134")
        return [compiled(config, names[0])]

    monkeypatch.setattr(command, "plan_slice", plan)
    record = advise_slice(job(), "v5e:2x4")
    assert {one["changes"]["model.remat"] for one in record["choices"]} == {*REMATS} - {"dots"}
    said = capsys.readouterr().err
    assert "the compilation ended with code 134" in said
    assert "--mesh.tensor 1: update --rl.microbatches 2 --model.remat dots is left out" in said
    monkeypatch.setattr(command, "plan_slice", lambda *_, **__: fail())
    with pytest.raises(UserError, match="nothing could be tried on v5e:2x4"):
        advise_slice(job(), "v5e:2x4")


def fail() -> None:
    """Does what a broken compiler does."""
    raise UserError("the compilation ended with code 134")


def test_the_experiments_own_settings_are_among_the_choices() -> None:
    config = job(microbatches=2)
    choices, _ = search(config, HERE, made_up_compiler(0, 40)[0], quiet)
    own = find_own(config, HERE, choices)
    assert own is not None
    assert own.changes["rl.rollout_prompts"] == 16
    assert own.changes["rl.microbatches"] == 2
    assert find_own(config, HERE, []) is None
    elsewhere = with_launch(config, mesh=MeshConfig(data=2, fsdp=8))
    assert find_own(elsewhere, HERE, choices) is None  # a mesh of other slices


def test_a_rollouts_own_layout_is_searched_and_said_on_the_line() -> None:
    """One that does not divide a slice's devices is left out, and no choice keeps it."""
    cut = replace(job(), rollout_params="sharded", rollout_tensor=2)
    compiled, _ = made_up_compiler(0, 40)
    choices, _ = search(cut, HERE, compiled, quiet)
    own = find_own(cut, HERE, choices)
    assert own is not None
    assert {"rollout_params": "sharded"}.items() <= own.changes.items()
    assert "rollout_tensor" not in own.changes  # it is the experiment's
    whole = next(c for c in choices if c.changes["rollout_params"] == "gathered")
    assert whole.changes["rollout_tensor"] is None
    assert with_changes(cut, whole.changes).rollout_tensor is None
    assert "--rollout-tensor None" in as_options(whole.changes)
    wide = replace(job(), rollout_params="sharded", rollout_tensor=16)
    choices, _ = search(wide, HERE, compiled, quiet)
    assert choices
    assert all(with_changes(wide, c.changes).rollout_tensor in (None, 2) for c in choices)


def test_advice_is_about_whole_steps_of_rl() -> None:
    for more in (["--program", "update"], ["--price", "1"]):
        with pytest.raises(UserError, match=f"--advise and {more[0]} exclude each other"):
            command_plan([str(TINY), "--topology", "v5e:2x4", "--advise", *more])
    with pytest.raises(UserError, match=r"--advise with rl.steps = 0"):
        command_plan([str(TINY), "--topology", "v5e:2x4", "--advise", "--rl.steps", "0"])


def test_each_slice_has_the_parameters_of_a_mesh_that_is_searched() -> None:
    config = with_launch(job(batch_prompts=32), mesh=MeshConfig(data=1, fsdp=-1))
    sizes = [tuple(mesh.values()) for mesh in meshes(config, 8, slices=2)]
    assert sizes == [(2, 4, 1), (2, 2, 2), (2, 1, 4)]


@needs_libtpu
def test_a_mesh_that_the_links_or_the_hosts_do_not_take_is_refused() -> None:
    """Two devices of a layer are half a side of 4 × 4 chips; all sixteen are on several hosts."""
    on, said = open_slice("v5e:4x4"), list[str]()
    config = with_launch(job(), mesh=MeshConfig(data=1, fsdp=16))
    config = replace(config, evaluation=replace(config.evaluation, batch_prompts=16))
    for sizes in meshes(config, 16):
        try:
            check_mesh(with_changes(config, sizes), on)
        except UserError as error:
            said.append(str(error))
    assert any("cannot be laid on the links of these 16 devices" in words for words in said)
    assert any("spreads a row of the batch over" in words for words in said)
