"""Every experiment loads under all of its parameters, and its steps fit together at its sizes."""

import functools
import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import jax
import numpy as np
import pytest
from porting.directories import write_directory
from small_records import on_few_records

from gmma.commands import read_benchmark
from gmma.config import config_from_json, job_to_json, with_launch
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.rewards import REWARDS
from gmma.run.assembly import assemble
from gmma.run.experiments import load_experiment, load_maker
from gmma.run.feed import read_batches, read_demonstrations, read_prompts
from gmma.run.lines import resolve
from gmma.run.programs import make_programs, make_rl_trainer, make_sft_trainer
from gmma.sweep.arms import sweep_runs
from gmma.tasks.mathematics import MathConfig
from gmma.types import Advantages
from gmma.update import join_params

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted(
    path
    for path in (ROOT / "experiments").glob("*.py")
    if "def experiment(" in path.read_text()  # the others are sweeps: tests/test_sweep.py
)
DIRECTORIES = {
    "gemma-3-4b-it": "gemma3",
    "gemma-3-12b-it": "gemma3",
    "Qwen2.5-VL-3B-Instruct": "qwen2_5_vl",
    "Qwen2.5-VL-7B-Instruct": "qwen2_5_vl",
    "Qwen3-VL-2B-Instruct": "qwen3_vl",
    "Qwen3-VL-4B-Instruct": "qwen3_vl",
    "Qwen3-VL-8B-Instruct": "qwen3_vl",
    "Qwen3.5-0.8B": "qwen3_5",
    "Qwen3.5-2B": "qwen3_5",
    "Qwen3.5-4B": "qwen3_5",
    "SmolLM2-135M-Instruct": "llama",
}


def choices(annotation):
    """The values of an annotated Literal."""
    return get_args(annotation.__origin__)


def combinations():
    """(file, values) of every experiment that there is: only what a backbone can be asked for."""
    for path in EXPERIMENTS:
        every = load_maker(path, "experiment", "a config").parameters
        parameters = [p for p in every if hasattr(p.annotation, "__origin__")]  # others are paths
        names = [parameter.name for parameter in parameters]
        for values in itertools.product(*(choices(p.annotation) for p in parameters)):
            given = dict(zip(names, values, strict=True))
            tiny = given.get("backbone") == "tiny"
            if (tiny and given["trained"] == "full") or (
                not tiny and given.get("problems") != "sums"
            ):
                yield pytest.param(path, given, id="-".join((path.stem, *values)))


ALL = list(combinations())
T4A4 = [case for case in ALL if case.values[1]["variant"] == "t4a4"]
BASELINES = [case for case in ALL if case not in T4A4]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """The tiny random directory of a backbone that an experiment names, written when asked for."""
    home = tmp_path_factory.mktemp("models")

    @functools.cache
    def written(kind):
        return write_directory(kind, home / kind)

    return lambda name: written(DIRECTORIES[name])


def name_of(path, variant, backbone="tiny", trained="full", scene="sparse", problems="gsm8k"):
    """What the run of an experiment is called."""
    if backbone == "tiny":
        kind = "sums" if problems == "sums" else path.stem
        return f"{kind}_crowded_{variant}" if scene == "crowded" else f"{kind}_{variant}"
    return f"{backbone}_{path.stem}_{variant}_{trained}"


def test_a_small_directory_takes_the_place_of_the_tiny_family(tmp_path):
    path = ROOT / "experiments" / "trajectory.py"
    small = load_experiment(path, on_scenes=tmp_path / "small")
    assert (small.name, small.model.directory) == ("small_trajectory_t4a4", tmp_path / "small")
    with pytest.raises(UserError, match="leave --backbone at tiny"):
        load_experiment(path, on_scenes=tmp_path, backbone="qwen3_5_2b")


def test_runs_have_different_names():
    names = {load_experiment(path, **given).name for path, given in (c.values for c in ALL)}
    assert len(names) == len(ALL)
    assert len(EXPERIMENTS) < 13


def sweeps():
    """(file, values) of every sweep that there is."""
    for path in sorted((ROOT / "experiments").glob("*.py")):
        if "def sweep(" in path.read_text():
            parameters = load_maker(path, "sweep", "a Sweep").parameters
            names = [parameter.name for parameter in parameters]
            chosen = [
                choices(p.annotation) if hasattr(p.annotation, "__origin__") else (p.default,)
                for p in parameters  # a path is left as it is
            ]
            for values in itertools.product(*chosen):
                given = dict(zip(names, values, strict=True))
                yield pytest.param(path, given, id="-".join((path.stem, *map(str, values))))


@pytest.mark.parametrize(("path", "given"), list(sweeps()))
def test_every_sweep_makes_its_runs(path, given):
    """Its arms are held against each other at equal budgets, and have names of their own."""
    sweep = load_maker(path, "sweep", "a Sweep")(**given)
    runs = sweep_runs(sweep)
    assert len(runs) > len(sweep.arms)
    assert len({run.config.name for run in runs}) == len(runs)


@pytest.mark.parametrize(("path", "given"), BASELINES)
def test_a_baseline_differs_from_its_t4a4_in_nothing_else(path, given):
    """So its shapes are those of the other, whose steps are tried below."""
    base = load_experiment(path, **given | {"variant": "t4a4"})
    config = load_experiment(path, **given)
    assert config.name == name_of(path, **given)
    assert config_from_json(job_to_json(config), path) == config
    responses = config.tree.thoughts * config.tree.answers
    if given["variant"] == "grpo":
        assert (responses, config.tree.answers) == (base.tree.thoughts * base.tree.answers, 1)
        assert config.objective.algorithm == "grpo"
        tree, objective, phases = base.tree, base.objective, (config.sft, config.rl)
        assert phases == (base.sft, base.rl)
    else:
        assert config.rl.steps == 0
        assert config.sft.steps == base.sft.steps + base.rl.steps * base.rl.step_minibatches
        tree, objective = config.tree, config.objective
    shared = replace(
        config, name=base.name, tree=tree, objective=objective, sft=base.sft, rl=base.rl
    )
    assert shared == base


def often(case):
    """Ported jobs share their programs: each task and each family once, the others when slow."""
    path, given = case.values
    kind = (path.stem, given.get("backbone", "tiny"), given.get("trained", "full"))
    ported = kind[1] != "tiny"
    once = kind in (("math", "gemma3_4b", "lora"), ("trajectory", "qwen2_5_vl_3b", "full"))
    marks = pytest.mark.slow if ported and not once else ()
    return pytest.param(*case.values, id=case.id, marks=marks)


@pytest.mark.parametrize(("path", "given"), list(map(often, T4A4)))
def test_every_experiment_has_the_shapes_of_a_run(path, given, tiny_models, tmp_path):
    """Nothing is computed: a batch is read, and the programs are evaluated in shapes.

    With JAX's own promotion: optax raises a float to an integer power.
    """
    config = load_experiment(path, **given)
    assert config.name == name_of(path, **given)
    assert config_from_json(job_to_json(config), path) == config
    config = replace(config, task=on_few_records(config.task, tmp_path))
    config = with_launch(config, data_dir=tmp_path / "data")
    if isinstance(config.model, PretrainedConfig):
        model = replace(config.model, directory=tiny_models(config.model.directory.name))
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
    kept = config.rl.trained_prompts  # fewer than were grown, with dynamic sampling
    trees = jax.eval_shape(
        lambda *grown: jax.tree.map(lambda x: x[:kept], grown), prompts, rollout, credit
    )
    packed = jax.eval_shape(programs.pack, *trees)
    assert packed.advantages.shape == (config.rl.trained_prompts, shape.packed)
    packed = jax.eval_shape(programs.deal, packed)[-1]
    assert packed.advantages.shape == (config.rl.batch_prompts, shape.packed)
    with jax.numpy_dtype_promotion("standard"):
        state, metrics = jax.eval_shape(rl.update, rl.abstract, packed)
    assert shapes_of(state) == shapes_of(rl.abstract)
    assert metrics["loss"].total.shape == ()


def shapes_of(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_there_is_an_experiment():
    assert ROOT / "experiments/digits.py" in EXPERIMENTS


# Parameters on the command line.

MATH = str(ROOT / "experiments/math.py")
PARAMETERS = """
import sys
sys.path.append({here!r})
from dataclasses import replace
from tiny_digits import experiment as tiny

def experiment({parameters}):
    \"\"\"Make it.

    Args:
        layers: of the network
    \"\"\"
    return replace(tiny(), seed=layers)
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write an experiment of the given parameters."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def written(parameters):
        here = str(Path(__file__).parent)
        (tmp_path / "own.py").write_text(PARAMETERS.format(here=here, parameters=parameters))
        return str(tmp_path / "own.py")

    return written


def test_parameters_make_the_experiment_and_fields_are_laid_over_it():
    words = "--rl.steps 7 --variant sft --trained=lora --backbone gemma3_4b --variant grpo"
    config, _ = resolve([MATH, *words.split()])
    assert config.name == "gemma3_4b_math_grpo_lora"
    made = load_experiment(Path(MATH), variant="grpo", trained="lora", backbone="gemma3_4b")
    assert config == replace(made, rl=replace(made.rl, steps=7))


def test_a_benchmark_takes_parameters_and_a_path_with_spaces(tmp_path):
    home = tmp_path / "my files"
    home.mkdir()
    (home / "math.py").write_text(Path(MATH).read_text())
    assert read_benchmark(f"{home}/math.py").name == "math_t4a4"
    given = read_benchmark(f"{home}/math.py --backbone gemma3_4b --name 'the other one'")
    assert (given.name, given.task.train_path) == ("the other one", MathConfig().train_path)
    with pytest.raises(UserError, match="No closing quotation"):
        read_benchmark(f"{home}/math.py --name 'x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--variant tpo", r"invalid choice 'tpo' for argument '--variant'.*t4a4.*grpo.*sft"),
        ("--variant", r"Missing value for argument '--variant'"),
        ("--varaint grpo", r"--varaint.*Perhaps you meant:.*--variant \{t4a4,grpo,sft\}"),
        ("--rl.stesp 3", r"--rl.stesp.*Perhaps you meant:.*--rl.steps INT"),
        ("--variant grpo --rl.steps x", r"Error parsing --rl.steps"),
    ],
)
def test_a_wrong_word_is_one_message(words, message, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        resolve([MATH, *words.split()])
    assert ended.value.code == 2
    assert re.search(message, capfd.readouterr().err, re.DOTALL)


def test_tiny_has_no_adapters():
    with pytest.raises(UserError, match=r"trained = lora; it must be full with backbone tiny"):
        resolve([MATH, "--trained", "lora"])


def test_help_lists_parameters_and_fields(write, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        resolve([MATH, "--backbone", "gemma3_4b", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "--variant {t4a4,grpo,sft}" in printed
    assert "the GRPO baseline" in printed
    assert "gemma3_4b_math_t4a4_full" in printed  # the default of a field, under the parameters
    with pytest.raises(SystemExit):
        resolve([write("layers: int = 2, wide: bool = False"), "--help"])
    printed = capsys.readouterr().out
    assert "--layers INT" in printed
    assert "of the network (default: 2)" in printed


def test_a_users_parameters_are_of_their_types(write, capfd):
    assert resolve([write("layers: int = 2"), "--layers", "5"])[0].seed == 5
    assert resolve([write("layers: int | None = 4, **more")])[0].seed == 4
    with pytest.raises(SystemExit):
        resolve([write("layers: int = 2"), "--layers", "many"])
    assert "Error parsing --layers" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        resolve([write("layers: int")])
    assert re.search(r"--layers INT\s.*required", capfd.readouterr().err, re.DOTALL)


@pytest.mark.parametrize("name", ["seed", "tree", "data_dir", "resume", "help"])
def test_a_parameter_with_the_name_of_an_option_is_refused(name, write):
    with pytest.raises(UserError, match=f"the parameter '{name}' of experiment.. has the name of"):
        resolve([write(f"layers: int = 2, {name}: int = 3")])


def test_names_in_a_config_are_looked_for_beside_the_experiment(tmp_path, monkeypatch):
    """When the file is read, when `experiment()` is called, and after it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("stood_here", "stood_there"):
        (tmp_path / f"{name}.py").write_text("def near(): return 1")
    sys.path.append(str(Path(__file__).parent))
    source = "from tiny_digits import experiment as tiny\ndef experiment():\n    import stood_here"
    (tmp_path / "own.py").write_text(f"{source}\n    return tiny()")
    assert load_experiment(tmp_path / "own.py").name == "tiny"
    assert REWARDS.find("stood_there:near")() == 1


def test_a_file_beside_an_experiment_hides_no_library(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "code", raising=False)
    (tmp_path / "code.py").write_text("raise ValueError")
    (tmp_path / "odd.py").write_text("import code\nexperiment = code.InteractiveConsole")
    with pytest.raises(UserError, match="returned InteractiveConsole"):
        load_experiment(tmp_path / "odd.py")


def test_a_file_that_is_not_there_is_named_with_its_neighbours():
    with pytest.raises(UserError, match=r"no experiment file .*digit\.py; .*digits\.py"):
        load_experiment(ROOT / "experiments/digit.py")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "has no function experiment"),
        ("experiment = 1", "has no function experiment"),
        ("def experiment(): return {}", "returned dict"),
        ("def experiment(:", r"odd\.py, line 1: SyntaxError: "),
        ("\nimport nowhere_at_all", r"odd\.py, line 2: ModuleNotFoundError: No module named"),
        ("def experiment():\n    return nothing", r"odd\.py, line 2: NameError: name 'nothing'"),
        ("def experiment(x): return x", r"odd\.py: parameter x of experiment\(\) has no type"),
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
