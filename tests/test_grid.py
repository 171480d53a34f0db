"""A grid of runs in one program: each cell is the run it stands for."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import MEASURED

from gmma.config import MeshConfig, ObjectiveConfig, config_to_json, with_launch
from gmma.errors import UserError
from gmma.hardware.sharding import make_mesh
from gmma.objective import token_weights
from gmma.records import checkpoint
from gmma.records.checkpoint import restore_all_params
from gmma.records.metrics import read_records
from gmma.run import assembly
from gmma.sweep import command as sweep_command
from gmma.sweep.arms import sweep_runs
from gmma.sweep.grid import check_grid
from gmma.sweep.grid_run import check_cells, run_grid
from gmma.train import train
from gmma.tree import TreeShape
from gmma.tree.layout import join_levels, split_levels

STEPS = 4
SWEEP = Path(__file__).parent / "tiny_grid.py"


@pytest.fixture(scope="module", autouse=True)
def _one_device():
    """JAX's own promotion, for all threads: optax raises a float to an integer power."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    with pytest.MonkeyPatch.context() as patch:
        mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
        patch.setattr(assembly, "make_mesh", lambda config: mesh)
        yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def cells(root, home, several=False):
    sweep = tiny_grid.sweep(several)
    base = with_launch(sweep.base, data_dir=root / "data", runs_dir=root / home)
    return [run.config for run in sweep_runs(replace(sweep, base=base))]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The runs of a sweep in one program, and the same ones trained apart by the ordinary loop."""
    root = tmp_path_factory.mktemp("grid")
    together, apart = (cells(root, home) for home in ("together", "apart"))
    places = ["--runs-dir", str(root / "together"), "--data-dir", str(root / "data")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_command, "use_compilation_cache", lambda config: None)  # tests have one
        sweep_command.sweep_command([str(SWEEP), "--one-program", *places])
    records = [read_records(records_of(config))[-1] for config in together]
    after_first = [record["compilations"] for record in read_records(records_of(together[0]))[1:]]
    for config in apart:
        train(config)
    return together, apart, records, after_first


def records_of(config):
    return config.run_dir / "metrics.jsonl"


def test_a_cell_is_the_run_it_stands_for(both):
    together, apart, *_ = both
    assert_same_runs(together, apart)


def test_a_cell_of_several_updates_is_the_run_it_stands_for(tmp_path, monkeypatch):
    """Two minibatches twice over, a KL term and a correction for the sampler; killed, too."""
    together, apart = (cells(tmp_path, home, several=True) for home in ("together", "apart"))
    run_grid(together)
    for config in apart:
        train(config)
    assert_same_runs(together, apart)
    assert_goes_on(together, tmp_path / "killed", monkeypatch)


def test_a_grid_that_was_killed_goes_on_bit_for_bit(both, tmp_path, monkeypatch):
    whole, *_ = both
    assert_goes_on(whole, tmp_path, monkeypatch)


def assert_goes_on(whole, home, monkeypatch):
    """The same cells again, ended twice: each time two of them have written a checkpoint more."""
    data = whole[0].launch.data_dir
    killed = [with_launch(config, data_dir=data, runs_dir=home) for config in whole]
    save, counts = checkpoint.save, []
    for _ in range(2):
        left = iter((1, 2))

        def dies(*given, left=left):
            if next(left, None) is None:
                raise SystemExit("killed")
            save(*given)

        monkeypatch.setattr(checkpoint, "save", dies)
        with pytest.raises(SystemExit):
            run_grid(killed)
        counts.append([len(checkpoint.checkpoint_steps(config.run_dir)) for config in killed])
    monkeypatch.setattr(checkpoint, "save", save)
    assert sorted(counts[0]) == [0, 1, 1]
    assert sum(counts[1]) == 4
    run_grid(killed)
    for cell, run in zip(killed, whole, strict=True):
        ours, theirs = (
            [
                {n: value for n, value in record.items() if not n.startswith(MEASURED)}
                for record in read_records(records_of(config))
            ]
            for config in (cell, run)
        )
        assert ours == theirs, cell.name
        ours, theirs = (restore_all_params(config.run_dir) for config in (cell, run))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_array_equal(a, b)
    shutil.rmtree(killed[0].run_dir / "checkpoints")
    with pytest.raises(UserError, match="is done and has no checkpoint left"):
        run_grid(killed)
    assert read_records(records_of(killed[0]))


def assert_same_runs(together, apart):
    """Losses and parameters to 1e-6 relative, and every metric but the clock's."""
    for cell, run in zip(together, apart, strict=True):
        found, expected = read_records(records_of(cell)), read_records(records_of(run))
        assert len(found) == len(expected) == run.rl.steps
        for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            clocked = {n for n in ours.keys() | theirs.keys() if n.startswith(MEASURED)}
            assert ours.keys() - clocked == theirs.keys() - clocked
            for name in theirs.keys() - clocked - {"phase"}:
                # A loss is a sum of centred terms that nearly cancel: relative to their size, 1.
                # So are powers of gradients, to the whole.
                size = theirs["gradient/total_power"] if name.startswith("gradient/") else 1
                close = pytest.approx(theirs[name], rel=1e-5, abs=1e-6 * max(size, 1))
                assert ours[name] == close, (cell.name, step, name)
        ours, theirs = (restore_all_params(config.run_dir) for config in (cell, run))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            error = np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)
            assert error <= 1e-6, cell.name


def test_the_device_s_programs_are_compiled_once(both):
    *_, after_first = both
    assert after_first == [0] * (STEPS - 1)


def test_a_cell_leaves_what_a_run_leaves(both):
    together, apart, records, _ = both
    for cell, run, record in zip(together, apart, records, strict=True):
        assert record["step"] == STEPS - 1
        saved = json.loads((cell.run_dir / "config.json").read_text())
        assert saved == config_to_json(cell)
        for path in (run.run_dir / "evaluation").iterdir():
            name = path.name
            ours, theirs = (
                json.loads((config.run_dir / "evaluation" / name).read_text())["values"]
                for config in (cell, run)
            )
            assert ours == theirs


def test_the_sweep_of_a_grid_shows_what_came_out(both):
    """Without an SFT of the sweep's own: gains are over the first parameters."""
    together, *_ = both
    home = together[0].launch.runs_dir
    record = json.loads((home / "sweep.json").read_text())
    assert [part["seeds"] for part in record["arms"]] == [[0], [0, 1]]
    assert [point["step"] for point in record["arms"][1]["curve"]] == [0, 2, 4]
    assert {found["budget"] for found in record["comparisons"]} >= {"end", "tokens", "seconds"}
    assert "| A3 | 2 | " in (home / "sweep.md").read_text()
    assert (home / "sweep.png").read_bytes().startswith(b"\x89PNG")


@settings(max_examples=20)  # each shape is compiled
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_weights_of_masked_answers_are_those_of_a_smaller_tree(own, more, seed):
    """For every loss type; `trained` is false where an answer is masked."""
    most = own + more
    random = np.random.default_rng(seed)
    small, large = (TreeShape(2, 3, 2, thoughts=2, answers=m) for m in (own, most))
    trained = random.random((2, large.packed)) < 0.7
    prompt, thought, answer = split_levels(jax.numpy.asarray(trained), large)
    prompt, answer = prompt & False, answer & (np.arange(most) < own)[None, None, :, None]
    masked = join_levels(prompt, thought, answer)
    cut = join_levels(prompt, thought, answer[:, :, :own])
    for loss_type in ("grpo", "dr_grpo", "dapo"):
        config = ObjectiveConfig(loss_type=loss_type)
        _, *expected = split_levels(token_weights(cut, small, config), small)
        _, *found = split_levels(token_weights(masked, large, config), large)
        factor = 1.0 if loss_type == "dapo" else most / own
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
        np.testing.assert_allclose(found[1][:, :, :own] * factor, expected[1], rtol=1e-6)


def test_what_is_no_grid_is_refused(tmp_path):
    first, second, *_ = cells(tmp_path, "runs")
    with pytest.raises(UserError, match="differ in more than seed"):
        check_cells([first, replace(second, rl=replace(second.rl, steps=9))])
    with pytest.raises(UserError, match="from a given start"):
        check_cells([replace(first, sft=replace(first.sft, steps=1))])
    collecting = replace(second, rl=replace(second.rl, dynamic_sampling=True))
    with pytest.raises(UserError, match=r"dynamic_sampling = True.*without --one-program"):
        run_grid([collecting])
    with pytest.raises(UserError, match=r"packing = ragged: .* needs static; .*--one-program"):
        check_grid(replace(second, packing="ragged"))
    assert not collecting.run_dir.exists()
