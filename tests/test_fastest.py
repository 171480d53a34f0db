"""`gmma plan --advise`: its choice is the fastest of all, and no program is compiled twice."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from slices import made_up_plan, needs_libtpu
from tiny_run import TINY

from gmma.cli import command_plan
from gmma.config import ExperimentConfig, MeshConfig, options_to_json, with_launch
from gmma.errors import UserError
from gmma.plan import command, fastest
from gmma.plan.chips import chip_of
from gmma.plan.command import advise_slice, plan_slice
from gmma.plan.fastest import LARGEST_ROLLOUT, REMATS, combine, search, try_growing, with_changes
from gmma.plan.judge import ProgramPlan
from gmma.plan.tpu_compiler import Slice, open_slice
from gmma.run.experiments import load_experiment

HERE = Slice(
    topology="v5e:2x4", chip=chip_of("v5e:2x4"), devices=jax.devices()[:8], devices_per_chip=1
)
Compiled = Callable[[ExperimentConfig, str], ProgramPlan]


def made_up_compiler(seed: int, usable: int) -> tuple[Compiled, list[str]]:
    """Programs of random seconds, which grow with what one device holds at a time."""
    rng, known, asked = np.random.default_rng(seed), dict[str, ProgramPlan](), list[str]()
    held = {"none": 3, "dots": 2, "full": 1}

    def compiled(config: ExperimentConfig, name: str) -> ProgramPlan:
        mesh = config.launch.mesh
        shards = mesh.data * mesh.fsdp
        need = {
            "rollout": config.rl.grown_prompts / shards
            + 4 * (config.rollout_params == "gathered") / mesh.tensor,
            "update": held[config.model.remat]
            * config.rl.batch_prompts
            / shards
            / config.rl.microbatches,
            "sft": held[config.model.remat]
            * config.sft.batch_prompts
            / shards
            / config.sft.microbatches,
            "scoring": 1,
        }[name]
        key = json.dumps([name, options_to_json(config)])
        asked.append(key)
        if key not in known:
            plan = made_up_plan(name, float(rng.uniform(1, 2)), fits=need <= usable)
            known[key] = replace(plan, need_bytes=int(10 * need), usable_bytes=10 * usable)
        return known[key]

    return compiled, asked


def every_choice(config: ExperimentConfig, compiled: Compiled) -> dict[float, list[str]]:
    """Seconds of each combination that fits, by brute force."""
    found: dict[float, list[str]] = {}
    sizes = [2**power for power in range(LARGEST_ROLLOUT.bit_length())]
    layouts = ("gathered", "sharded")
    for tensor, size, layout, remat in itertools.product((1, 2, 4, 8), sizes, layouts, REMATS):
        if layout == "sharded" and tensor == 1:
            continue
        rows = config.rl.batch_prompts // (8 // tensor)
        for count in (n for n in range(1, rows + 1) if rows % n == 0):
            mesh = {"mesh.data": 1, "mesh.fsdp": 8 // tensor, "mesh.tensor": tensor}
            rollout = {"rl.rollout_prompts": size * config.rl.batch_prompts}
            rollout |= {"rollout_params": layout}
            update = {"rl.microbatches": count, "model.remat": remat}
            whole = with_changes(config, {**mesh, "rl.microbatches": 1, "sft.microbatches": 1})
            plans = [
                compiled(with_changes(whole, rollout), "rollout"),
                compiled(with_changes(whole, update), "update"),
                *([compiled(whole, "scoring")] if size > 1 else []),
            ]
            if all(plan.fits for plan in plans):
                first, *others = (plan.serial.seconds for plan in plans)
                seconds = first / size + sum(others)
                found.setdefault(seconds, []).append(json.dumps({**mesh, **rollout, **update}))
    return found


@pytest.mark.parametrize(("seed", "usable"), [(0, 4), (1, 6), (2, 40)])
def test_the_choice_is_the_fastest_of_all(seed: int, usable: int, monkeypatch: Any) -> None:
    """On eight devices, whatever the seconds are, where memory grows as it does."""
    monkeypatch.setattr(fastest, "held_bytes", lambda config, mesh: 0)
    config = load_experiment(TINY)
    config = replace(
        config,
        rl=replace(config.rl, batch_prompts=16),
        sft=replace(config.sft, batch_prompts=16),
    )
    config = with_launch(config, mesh=MeshConfig(data=1, fsdp=8))
    compiled, asked = made_up_compiler(seed, usable)
    choices, tried = search(config, HERE, compiled)
    assert len(set(asked)) == len(asked)  # each program once
    best = every_choice(config, compiled)
    assert len(choices) == sum(map(len, best.values()))
    assert choices[0].seconds == pytest.approx(min(best))
    assert json.dumps(dict(choices[0].changes)) in best[min(best)]
    assert [one.seconds for one in choices] == sorted(one.seconds for one in choices)
    assert sum(not one.plan.fits for one in tried) <= 4 * (2 + len(REMATS))  # one a list


def test_what_holds_no_parameters_is_not_compiled(
    monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mesh is left out by arithmetic alone, and the line says what it would have to hold."""
    monkeypatch.setattr(fastest, "held_bytes", lambda config, mesh: 2**40)
    compiled, asked = made_up_compiler(0, 1)
    config = with_launch(load_experiment(TINY), mesh=MeshConfig(data=8))
    assert search(config, HERE, compiled) == ([], [])
    assert not asked
    assert "parameters and optimiser take 1024.0 GiB" in capsys.readouterr().out


def test_the_line_says_what_to_add(monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """SFT gets as few microbatches as it fits with; where nothing fits, it says what would."""
    monkeypatch.setattr(fastest, "held_bytes", lambda config, mesh: 0)
    monkeypatch.setattr(command, "open_slice", lambda topology: HERE)
    config = with_launch(load_experiment(TINY), mesh=MeshConfig(data=1, fsdp=8))
    config = replace(
        config,
        rl=replace(config.rl, batch_prompts=16),
        sft=replace(config.sft, batch_prompts=64),
    )
    for usable in (6, 1):
        compiled, _ = made_up_compiler(0, usable)
        monkeypatch.setattr(
            command,
            "plan_slice",
            lambda c, t, names, compiled=compiled, **_: [compiled(c, names[0])],
        )
        if usable > 1:
            record = advise_slice(config, "v5e:2x4")
            said = capsys.readouterr().out.splitlines()
            line = said[said.index("the fastest that fits, SFT too: add") + 1].split()
            found = dict(zip(line[::2], line[1::2], strict=True))
            best = record["best"]["changes"]
            assert found["--rl.rollout-prompts"] == str(best["rl.rollout_prompts"])
            chosen = with_changes(config, best)
            assert compiled(chosen, "sft").fits
            fewer = {"sft.microbatches": max(1, best["sft.microbatches"] // 2)}
            assert (
                best["sft.microbatches"] == 1
                or not compiled(with_changes(chosen, fewer), "sft").fits
            )
        else:
            assert advise_slice(config, "v5e:2x4")["best"] is None
            assert "nothing that was tried fits v5e:2x4; rollout: None" in capsys.readouterr().out


def test_advice_is_about_whole_steps_of_rl() -> None:
    for more in (["--program", "update"], ["--price", "1"]):
        with pytest.raises(UserError, match=f"--advise and {more[0]} exclude each other"):
            command_plan([str(TINY), "--topology", "v5e:2x4", "--advise", *more])
    with pytest.raises(UserError, match=r"--advise with rl.steps = 0"):
        command_plan([str(TINY), "--topology", "v5e:2x4", "--advise", "--rl.steps", "0"])


@needs_libtpu
def test_on_a_chip_it_is_the_fastest_of_every_program_there_is(tmp_path: Path) -> None:
    """Each rollout and each update compiled for one chip, what was left out too."""
    config = load_experiment(TINY)
    config = with_launch(config, mesh=MeshConfig(), data_dir=tmp_path)
    known: dict[str, ProgramPlan] = {}

    def compiled(config: ExperimentConfig, name: str) -> ProgramPlan:
        key = json.dumps([name, options_to_json(config)])
        if key not in known:
            (known[key],) = plan_slice(config, "v5e:1x1", [name], until_memory=True)
        return known[key]

    on = open_slice("v5e:1x1")
    choices, tried = search(config, on, compiled)
    (mesh,) = fastest.meshes(config, 1)
    whole = with_changes(config, {**mesh, "rl.microbatches": 1, "sft.microbatches": 1})
    rows = config.rl.batch_prompts
    lists = [
        ("rollout", {"rl.rollout_prompts": n * rows, "rollout_params": "gathered"})
        for n in range(1, LARGEST_ROLLOUT + 1)
        if n & (n - 1) == 0
    ]
    lists += [
        ("update", {"rl.microbatches": n, "model.remat": remat})
        for remat in REMATS
        for n in range(1, rows + 1)
        if rows % n == 0
    ]
    every = [one for name, c in lists for one in try_growing(whole, name, iter([[c]]), compiled)]
    every.append(fastest.Tried(changes={}, plan=compiled(whole, "scoring")))
    assert len(every) == len(tried)
    assert choices[0].seconds == min(one.seconds for one in combine(whole, every))
