"""`gmma plan`: the TPU compiler's word on programs for slices that are not there."""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from slices import made_up_plan, needs_libtpu
from tiny_run import TINY

import gmma
from gmma import commands
from gmma.cli import command_plan
from gmma.config import ExperimentConfig, LaunchConfig, MeshConfig, with_launch
from gmma.errors import UserError
from gmma.hardware.sharding import make_mesh, rollout_mesh
from gmma.plan import command
from gmma.plan.chips import chip_of
from gmma.plan.command import cost_plans, plan_experiment, plan_slice, with_preset
from gmma.plan.cost import price_of_each
from gmma.plan.hlo import BETWEEN_SLICES
from gmma.plan.judge import ProgramPlan, plan_program
from gmma.plan.programs import Planned, plan_parts, plan_programs
from gmma.plan.tpu_compiler import Slice, compile_program, local_bytes, open_slice, read_dump
from gmma.porting.pretrained import describe_pretrained
from gmma.run.experiments import load_experiment

PRESETS = Path(gmma.__file__).parent / "presets"


@pytest.fixture(scope="module", autouse=True)
def no_cache() -> Iterator[None]:
    """What is compiled for a slice that is not there cannot be read back from a cache."""
    held = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", held)
    compilation_cache.reset_cache()


def test_a_missing_compiler_is_named_with_its_install_command(monkeypatch: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'gmma\[tpu\]'"):
        open_slice("v5e:2x4")


def test_a_chip_that_is_none() -> None:
    assert chip_of("v6e:2x4").peak_flops == 918e12
    with pytest.raises(UserError, match=r"no chip 'v9'; .* v4, v5e, v5p, v6e"):
        chip_of("v9:2x4")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gemma-3-4b-it", 4_300_079_472),
        ("gemma-3-12b-it", 12_187_325_040),
        ("Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        ("Qwen2.5-VL-7B-Instruct", 8_292_166_656),
        ("Qwen3-VL-2B-Instruct", 2_127_532_032),
        ("Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen3-VL-8B-Instruct", 8_767_123_696),
        # Without what guesses ahead: the files have 873,438,784, 2,274,069,824 and 4,659,865,088.
        ("Qwen3.5-0.8B", 852_985_920),
        ("Qwen3.5-2B", 2_213_241_664),
        ("Qwen3.5-4B", 4_539_265_536),
    ],
)
def test_presets_have_the_published_sizes(name: str, parameters: int) -> None:
    policy = describe_pretrained(PRESETS / name).policy
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@needs_libtpu
def test_a_slice_that_is_none() -> None:
    with pytest.raises(UserError, match=r"'v5e:3x3' is none that libtpu knows"):
        open_slice("v5e:3x3")


def test_slices_and_programs_are_given_again_for_further_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever they stand among the experiment's own options."""
    found: dict[str, Any] = {}

    def plan(config: Any, topologies: Any, output: Any, **options: Any) -> None:
        found.update(options, config=config, topologies=topologies, output=output)

    monkeypatch.setattr(commands, "plan_experiment", plan)
    line = "--topology v5e:2x4 --mesh.fsdp 4 --until-memory --topology v4:2x2x1 --program sft"
    command_plan([str(TINY), *line.split()])
    assert found["topologies"] == ("v5e:2x4", "v4:2x2x1")
    assert found["config"].launch.mesh.fsdp == 4
    assert (found["programs"], found["until_memory"], found["output"]) == (("sft",), True, None)
    assert found["prices"] == ()
    command_plan([str(TINY), *line.split(), "--price", "1.2", "--price", "3"])
    assert found["prices"] == (1.2, 3.0)
    with pytest.raises(UserError, match="no program 'nothing'; choose from rollout"):
        command_plan([str(TINY), "--topology", "v5e:2x4", "--program", "nothing"])
    with pytest.raises(UserError, match="which slice"):
        command_plan([str(TINY)])
    with pytest.raises(SystemExit, match="2"):
        command_plan([str(TINY), "--json"])


def test_ragged_rows_are_planned_as_static_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """And one line says so, where the experiment asks for them."""
    for packing in ("static", "ragged"):
        plan_experiment(replace(load_experiment(TINY), packing=packing), (), None)
        said = "packing = ragged: planned with static rows" in capsys.readouterr().out
        assert said == (packing == "ragged")


def test_a_model_that_is_not_here_is_planned_with_its_preset(tmp_path: Path) -> None:
    """By the name of its directory; a directory that is here is taken as it is."""
    path = Path(__file__).parent.parent / "experiments/math.py"
    config = load_experiment(path, backbone="qwen3_vl_4b", trained="lora")
    planned, said = with_preset(config)
    assert planned.model.directory == PRESETS / "Qwen3-VL-4B-Instruct"
    assert said == (
        "models/Qwen3-VL-4B-Instruct is not here; planned with gmma's preset of "
        "Qwen3-VL-4B-Instruct"
    )
    assert replace(planned, model=config.model) == config
    assert with_preset(planned) == (planned, None)
    other = replace(config, model=replace(config.model, directory=tmp_path / "llama"))
    with pytest.raises(UserError, match=r"llama is not here, and gmma has no preset .*gemma-3"):
        with_preset(other)
    tiny = load_experiment(path)
    assert with_preset(tiny) == (tiny, None)


def test_costs_are_seconds_times_chips_times_price(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Scoring costs nothing where nothing is scored, and each update of a rollout counts."""
    config = load_experiment(Path(__file__).parent.parent / "experiments/digits.py")
    config = replace(config, sft=replace(config.sft, steps=100), rl=replace(config.rl, steps=1000))
    seconds = {"rollout": 6.0, "scoring": 2.0, "update": 3.0, "sft": 1.8}
    plans = [made_up_plan(*item) for item in seconds.items()]
    costs, reasons = cost_plans(config, plans, 8, 1.2)
    found = [(cost.what, round(cost.seconds, 6), round(cost.cost, 6)) for cost in costs]
    assert found == [
        ("SFT step", 1.8, round(1.8 * 8 / 3600 * 1.2, 6)),
        ("RL step", 9.0, 0.024),
        ("run of 100 SFT steps and 1,000 RL steps", 9180.0, 24.48),
    ]
    assert not reasons
    thrice = replace(config, objective=replace(config.objective, num_iterations=3))
    assert cost_plans(thrice, plans, 8, 1.2)[0][1].seconds == 6 + 2 + 3 * 3
    larger = replace(config, rl=replace(config.rl, rollout_prompts=4 * config.rl.batch_prompts))
    assert cost_plans(larger, plans, 8, 1.2)[0][1].seconds == 6 + 4 * 2 + 4 * 3
    alone = replace(config, sft=replace(config.sft, steps=0))
    assert [cost.what for cost in cost_plans(alone, plans[:3], 8, 1)[0]] == [
        "RL step", "run of 1,000 RL steps"
    ]  # fmt: skip
    assert [cost.what for cost in cost_plans(config, plans[2:], 8, 1)[0]] == ["SFT step"]
    assert cost_plans(config, plans[2:], 8, 1)[1] == ["rollout was not planned"]
    large = [made_up_plan("rollout", 6.0, fits=False), *plans[1:]]
    assert cost_plans(config, large, 8, 1)[1] == ["rollout does not fit"]
    monkeypatch.setattr(command, "plan_slice", lambda *_, **__: iter(plans))
    plan_experiment(config, ["v5e:2x4", "v5p:2x2x1"], tmp_path / "plan.json", prices=[1.2])
    printed = capsys.readouterr().out
    assert "at 1.2 a chip-hour, 8 chips" in printed
    assert "at 1.2 a chip-hour, 4 chips" in printed
    assert "24.48" in printed
    assert "a step of RL, one instruction after another: 9 s: rollout 67%, update 33%" in printed
    assert (
        "rollout: 8 rows a weight read while thoughts grow, 32 while answers do; on v5e" in printed
    )
    kept = json.loads((tmp_path / "plan.json").read_text())["costs"]
    assert [kept[on][-1]["cost"] for on in kept] == pytest.approx([24.48, 12.24])


def test_a_price_that_is_none() -> None:
    slices = ("v5e:2x4", "v6e:2x4", "v5p:2x2x1")
    assert price_of_each((), slices) == [None] * 3
    assert price_of_each((1.5,), slices) == [1.5] * 3
    assert price_of_each((1.5, 2, 3), slices) == [1.5, 2, 3]
    with pytest.raises(UserError, match="2 times --price for 3 times --topology"):
        price_of_each((1.5, 2), slices)
    for price in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="above 0"):
            price_of_each((price,), slices)


def small(tmp_path: Path, **changes: Any) -> ExperimentConfig:
    """The default job on few scenes, in bfloat16, on 2 × 2 × 2 chips."""
    config = load_experiment(Path(__file__).parent.parent / "experiments/digits.py")
    scenes = {"train_scenes": 64, "validation_scenes": 4, "test_scenes": 4}
    return replace(
        config,
        model=replace(config.model, dtype="bfloat16", layers=2),
        task=replace(config.task, **scenes),
        launch=LaunchConfig(mesh=MeshConfig(data=2, fsdp=2, tensor=2), data_dir=tmp_path),
        **changes,
    )


def plan_here(planned: Planned, config: ExperimentConfig, on: Slice, dump: Path) -> ProgramPlan:
    """A program planned in this process."""
    dump.mkdir()
    fits = compile_program(planned.jitted, planned.arguments, dump)
    return plan_program(planned, read_dump(dump, fits_alone=fits, seconds=1.0), config, on)


@needs_libtpu
def test_a_rollout_gathers_a_copy_in_the_type_of_the_activations(tmp_path: Path) -> None:
    """`sharded` gathers over fsdp alone, so that half a copy lies on a device; no float32 masters
    travel in either layout."""
    on, sent = open_slice("v5e:2x4"), {}
    layouts: dict[str, dict[str, Any]] = {
        "gathered": {},
        "sharded": {"rollout_params": "sharded"},
        "its own": {"rollout_params": "sharded", "rollout_tensor": 4},
    }
    for layout, fields in layouts.items():
        config = small(tmp_path, **fields)
        planned = next(
            plan_programs(plan_parts(config, make_mesh(config.launch.mesh, list(on.devices))))
        )
        plan = plan_here(planned, config, on, tmp_path / layout)
        assert plan.fits
        assert plan.spare > 0.9
        assert plan.resident_bytes > 0
        assert set(plan.bound_seconds) == {"compute", "HBM", "ICI"}
        sent[layout] = plan.sent_bytes.get("all-gather", 0)
        moved = sum(plan.sent_bytes.get(kind, 0) for kind in ("all-to-all", "collective-permute"))
        copy = planned.copy_bytes
    assert copy / 2 < sent["gathered"] < copy
    assert sent["sharded"] < copy / 2
    assert sent["its own"] + moved < copy  # laid out anew, but no float32 masters either


@needs_libtpu
def test_a_program_that_does_not_fit_is_a_verdict(tmp_path: Path) -> None:
    """The compiler's error becomes buffers and advice."""
    on, config = open_slice("v5e:2x2"), small(tmp_path)
    mesh = Mesh(np.asarray(on.devices), ("x",))
    side = 100_000
    square = jax.ShapeDtypeStruct(
        (side, side), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec())
    )
    planned = Planned(
        name="update",
        jitted=jax.jit(lambda x: jnp.sin(x) @ x),
        arguments=(square,),
        resident_bytes=0,
        rows=1,
        tokens=1,
    )
    plan = plan_here(planned, config, on, tmp_path / "dump")
    assert not plan.fits
    assert plan.need_bytes >= 2 * local_bytes(square) > plan.usable_bytes
    assert plan.buffers[0].bytes >= local_bytes(square)
    assert "mesh.fsdp" in str(plan.advice)
    assert plan.flops == 2 * side**3


@needs_libtpu
def test_an_update_is_planned_in_a_process_that_writes_no_code(tmp_path: Path) -> None:
    """On a mesh cut over fsdp no activation is summed over the whole batch: what is reduced are
    gradients, and they are smaller than one layer's activations of all rows."""
    config = small(tmp_path)
    config = with_launch(config, mesh=MeshConfig(data=1, fsdp=8))
    (plan,) = plan_slice(config, "v5e:2x4", ["update"], until_memory=True)
    rows, slots = config.rl.batch_prompts, config.tree.shape.packed
    activations = 2 * rows * slots * config.model.width
    assert plan.fits
    assert plan.tokens == rows // 8 * slots
    reduced = plan.sent_bytes.get("all-reduce", 0) + plan.sent_bytes.get("reduce-scatter", 0)
    parameters = plan.argument_bytes * 8 / 3  # beside two moments of Adam
    assert 0 < reduced < 2 * parameters < 20 * activations


@needs_libtpu
def test_two_slices_send_gradients_alone_to_each_other(tmp_path: Path) -> None:
    """Each has all parameters, cut over its own chips, and half of the batch."""
    config = small(tmp_path)
    on = open_slice("2*v5e:2x2")
    with pytest.raises(UserError, match=r"on 2 slices, .* set mesh.data to 2 or a multiple"):
        make_mesh(MeshConfig(data=1, fsdp=8), list(on.devices))
    for data in (1, 2):  # a copy that is cut over all devices is one a slice
        mesh = make_mesh(MeshConfig(data=data, fsdp=-1), list(on.devices))
        of_each = [{device.slice_index for device in part.flat} for part in mesh.devices]
        assert of_each == [{0}, {1}]
        for tensor in (2, 4):  # no copy of a rollout spans both
            copies = rollout_mesh(mesh, tensor).devices.reshape(-1, tensor)
            assert all(len({device.slice_index for device in copy}) == 1 for copy in copies)
        with pytest.raises(UserError, match=r"rollout_tensor = 8 does not divide .* a slice, 4; "):
            rollout_mesh(mesh, 8)
    config = with_launch(config, mesh=MeshConfig(data=2, fsdp=-1))
    plans = plan_slice(config, "2*v5e:2x2", ["rollout", "update"], until_memory=True)
    rollout, update = plans
    assert BETWEEN_SLICES not in rollout.sent_bytes
    parameters = update.argument_bytes / 3  # of a chip, beside two moments of Adam, all in float32
    gradients = config.rl.microbatches * parameters  # each microbatch's own is summed
    assert 0.5 * gradients < update.sent_bytes[BETWEEN_SLICES] < 1.2 * gradients
    seconds = update.sent_bytes[BETWEEN_SLICES] / 3.125e9
    assert update.bound_seconds["DCN"] == pytest.approx(seconds)
    assert update.serial.waiting > seconds


def test_several_slices_of_a_chip_that_says_how_they_are_joined() -> None:
    assert chip_of("4*v6e:4x4").dcn_bytes == 12.5e9
    with pytest.raises(UserError, match=r"slices of v4 are joined is not published; .* v5e, v6e"):
        chip_of("2*v4:2x2x1")
    with pytest.raises(UserError, match=r"'two' is no number of slices; write COUNT\*KIND:SHAPE"):
        chip_of("two*v5e:2x2")
