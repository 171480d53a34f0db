"""Every experiment loads, and its steps fit together at the sizes it names."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from porting.directories import write_directory
from small_records import on_few_records

from gmma.commands import load_experiment
from gmma.config import config_from_json, job_to_json, with_launch
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.run.assembly import assemble
from gmma.run.feed import read_batches, read_demonstrations, read_prompts
from gmma.run.programs import make_programs, make_rl_trainer, make_sft_trainer
from gmma.types import Advantages
from gmma.update import join_params

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted(
    path
    for path in (ROOT / "experiments").glob("*.py")
    if "def experiment()" in path.read_text()  # the others are sweeps: tests/test_sweep.py
)
BASELINES = [path for path in EXPERIMENTS if path.stem.endswith(("_grpo", "_sft"))]
DIRECTORIES = {"gemma-3-4b-it": "gemma3", "Qwen2.5-VL-3B-Instruct": "qwen2_5_vl"}


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """A tiny random directory for every backbone that an experiment names."""
    home = tmp_path_factory.mktemp("models")
    return {name: write_directory(kind, home / kind) for name, kind in DIRECTORIES.items()}


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_a_baseline_differs_from_its_t4a4_in_nothing_else(path):
    """So its shapes are those of the other, whose steps are tried below."""
    base = load_experiment(path.with_stem(path.stem.rpartition("_")[0] + "_t4a4"))
    config = load_experiment(path)
    assert config.name == path.stem
    assert config_from_json(job_to_json(config), path) == config
    responses = config.tree.thoughts * config.tree.answers
    if path.stem.endswith("_grpo"):
        assert (responses, config.tree.answers) == (base.tree.thoughts * base.tree.answers, 1)
        assert config.objective.algorithm == "grpo"
        tree, objective, phases = base.tree, base.objective, (config.sft, config.rl)
        assert phases == (base.sft, base.rl)
    else:
        assert config.rl.steps == 0
        assert config.sft.steps == base.sft.steps + base.rl.steps
        tree, objective = config.tree, config.objective
    shared = replace(
        config, name=base.name, tree=tree, objective=objective, sft=base.sft, rl=base.rl
    )
    assert shared == base


@pytest.mark.parametrize(
    "path", [p for p in EXPERIMENTS if p not in BASELINES], ids=lambda path: path.stem
)
def test_every_experiment_has_the_shapes_of_a_run(path, tiny_models, tmp_path):
    """Nothing is computed: a batch is read, and the programs are evaluated in shapes.

    With JAX's own promotion: optax raises a float to an integer power.
    """
    config = load_experiment(path)
    assert config.name == path.stem
    assert config_from_json(job_to_json(config), path) == config
    config = replace(config, task=on_few_records(config.task, tmp_path))
    config = with_launch(config, data_dir=tmp_path / "data")
    if isinstance(config.model, PretrainedConfig):
        model = replace(config.model, directory=tiny_models[config.model.directory.name])
        tree = replace(config.tree, prompt_tokens=1024)  # the tiny tokenizers know few words
        config = replace(config, model=model, tree=tree)
    parts = assemble(config)
    sft, rl, programs = make_sft_trainer(parts), make_rl_trainer(parts), make_programs(parts)
    sft_batch, batch = next(read_batches(parts, "sft")), next(read_batches(parts, "rl"))

    shown = read_demonstrations(parts, sft_batch)
    nothing = Advantages(
        thought=np.zeros(shown.closed.shape, np.float32),
        answer=np.zeros(shown.finished.shape, np.float32),
    )
    packed = jax.eval_shape(programs.pack, read_prompts(parts, sft_batch.examples), shown, nothing)
    with jax.numpy_dtype_promotion("standard"):
        state, _ = jax.eval_shape(sft.update, sft.abstract, packed)
    assert shapes_of(state) == shapes_of(sft.abstract)

    prompts, shape = read_prompts(parts, batch.examples), config.tree.shape
    params = join_params(rl.abstract.params, rl.abstract.frozen)
    rollout = jax.eval_shape(programs.grow, params, prompts, np.uint32(0))
    rewards = jax.ShapeDtypeStruct(rollout.finished.shape, np.float32)
    counted = jax.ShapeDtypeStruct(rollout.finished.shape, bool)
    credit = jax.eval_shape(programs.credit, rewards, counted)
    packed = jax.eval_shape(programs.pack, prompts, rollout, credit)
    assert packed.advantages.shape == (config.rl.batch_prompts, shape.packed)
    with jax.numpy_dtype_promotion("standard"):
        state, metrics = jax.eval_shape(rl.update, rl.abstract, packed)
    assert shapes_of(state) == shapes_of(rl.abstract)
    assert metrics["loss"].total.shape == ()


def shapes_of(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_there_is_an_experiment():
    assert [path.stem for path in EXPERIMENTS if path.stem.startswith("digits")]


def test_a_file_that_is_not_there_is_named_with_its_neighbours():
    with pytest.raises(UserError, match=r"no experiment file .*digit_t4a4\.py; .*digits_t4a4\.py"):
        load_experiment(ROOT / "experiments/digit_t4a4.py")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "has no function experiment"),
        ("experiment = 1", "has no function experiment"),
        ("def experiment(): return {}", "returned dict"),
        ("def experiment(:", r"odd\.py, line 1: SyntaxError: "),
        ("\nimport nowhere_at_all", r"odd\.py, line 2: ModuleNotFoundError: No module named"),
        ("def experiment():\n    return nothing", r"odd\.py, line 2: NameError: name 'nothing'"),
        ("def experiment(x): return x", r"odd\.py: TypeError: .*missing 1 required positional"),
        ("import sys; sys.exit(0)", r"odd\.py, line 1: SystemExit: 0"),
        ("import gmma.sampling as s; s.SamplingConfig(top_k=-1)", r"odd\.py: top_k = -1; it must"),
    ],
)
def test_a_file_that_makes_no_config_is_refused(tmp_path, source, message):
    (tmp_path / "odd.py").write_text(source)
    with pytest.raises(UserError, match=message):
        load_experiment(tmp_path / "odd.py")


def test_a_file_that_is_no_python_is_refused(tmp_path):
    (tmp_path / "odd").write_text("def experiment(): pass")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "there.py").write_text("")
    with pytest.raises(UserError, match=r"odd is no Python file"):
        load_experiment(tmp_path / "odd")
    with pytest.raises(UserError, match=r"home is a directory; .*home has .*there\.py"):
        load_experiment(tmp_path / "home")
    (tmp_path / "odd.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"odd\.py.*: (SyntaxError|ValueError)"):
        load_experiment(tmp_path / "odd.py")
