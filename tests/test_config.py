"""Configs: refused where they cannot work, kept as JSON, and every field on the command line."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from tiny_digits import experiment

from gmma.config import (
    CheckpointConfig,
    EvalConfig,
    ExperimentConfig,
    LaunchConfig,
    MeshConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RewardConfig,
    TreeConfig,
    config_from_json,
    config_to_json,
    of_its_types,
)
from gmma.errors import UserError
from gmma.families.tiny.network import TinyConfig
from gmma.options.parsing import parse
from gmma.rewards.terms import RewardTerm
from gmma.sampling import SamplingConfig

HERE = Path("config.json")


def everything_changed():
    """A config that differs from the defaults in types that JSON has not: tuples, paths, None."""
    terms = (RewardTerm("math", weight=2, options=(("tolerance", 0.5), ("strict", True))),)
    return dataclasses.replace(
        experiment(),
        rewards=RewardConfig(terms=terms, timeout_seconds=2.5),
        objective=ObjectiveConfig(epsilon_high=0.28, delta=None, loss_type="dapo"),
        sampling=SamplingConfig(temperature=0.7, top_k=5),
        init_from=Path("runs/other"),
        logprob_chunk_slots=64,
    )


@pytest.mark.parametrize("make", [experiment, everything_changed])
def test_json_keeps_a_config_whole(make):
    values = json.loads(json.dumps(config_to_json(make())))
    assert config_from_json(values, HERE) == make()
    assert hash(config_from_json(values, HERE).tree) == hash(make().tree)


def test_json_of_another_version_is_refused_by_the_field():
    values = config_to_json(experiment())
    with pytest.raises(UserError, match=r"it has no field rl\.optimizer\.momentum"):
        config_from_json(values | {"rl": values["rl"] | {"optimizer": {"momentum": 0.9}}}, HERE)
    with pytest.raises(UserError, match=r"no config of this version: sft: Field required"):
        config_from_json({k: v for k, v in values.items() if k != "sft"}, HERE)
    with pytest.raises(UserError, match=r"objective\.loss_type: Input should be 'grpo'"):
        config_from_json(values | {"objective": {"loss_type": "ppo"}}, HERE)


WRONG = [
    (TreeConfig, {"thoughts": 0}, "tree.thoughts = 0; it must be 1 or more"),
    (TreeConfig, {"answers": -1}, "tree.answers = -1; it must be 1 or more"),
    (TreeConfig, {"prompt_tokens": 0}, "tree.prompt_tokens = 0"),
    (ObjectiveConfig, {"epsilon": 1.5}, "objective.epsilon = 1.5; it must be within [0, 1)"),
    (ObjectiveConfig, {"epsilon_high": -0.1}, "objective.epsilon_high = -0.1"),
    (ObjectiveConfig, {"beta": -0.1}, "objective.beta = -0.1; it must be 0 or more"),
    (ObjectiveConfig, {"num_iterations": 0}, "objective.num_iterations = 0"),
    (ObjectiveConfig, {"delta": 0.5}, "objective.delta = 0.5; it must be above 1, or None"),
    (OptimizerConfig, {"learning_rate": 0.0}, "learning_rate = 0.0; it must be above 0"),
    (OptimizerConfig, {"warmup_steps": -1}, "warmup_steps = -1"),
    (PhaseConfig, {"steps": -1, "batch_prompts": 8}, "steps = -1"),
    (PhaseConfig, {"steps": 1, "batch_prompts": 0}, "batch_prompts = 0"),
    (
        PhaseConfig,
        {"steps": 1, "batch_prompts": 8, "microbatches": 3},
        "batch_prompts = 8 is not divisible by microbatches = 3; choose a multiple",
    ),
    (RewardConfig, {"terms": ()}, "rewards.terms = (); it must be one term or more"),
    (EvalConfig, {"samples": 0}, "evaluation.samples = 0; it must be 1 or more"),
    (CheckpointConfig, {"every_steps": 0}, "checkpoint.every_steps = 0"),
    (MeshConfig, {"data": -1, "fsdp": -1}, "−1 on at most one axis"),
    (SamplingConfig, {"top_p": 0.0}, "top_p = 0.0; it must lie in (0, 1]"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), WRONG)
def test_a_value_that_cannot_work_names_field_value_and_rule(kind, fields, message):
    with pytest.raises(UserError, match=re.escape(message)):
        kind(**fields)


def numbers_of(values, path=()):
    """Where a config as JSON holds floats."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    for name, value in pairs:
        if isinstance(value, dict | list):
            yield from numbers_of(value, (*path, name))
        elif isinstance(value, float):
            yield (*path, name)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 1e39])
@pytest.mark.parametrize("make", [experiment, everything_changed])
def test_no_number_of_a_config_is_nan_or_infinite(make, number):
    """Each float in its turn; 1e39 is infinite on a device."""
    paths = list(numbers_of(config_to_json(make())))
    assert len(paths) > 20
    for path in paths:
        values = config_to_json(make())
        section = values
        for name in path[:-1]:
            section = section[name]
        section[path[-1]] = number
        with pytest.raises(UserError) as raised:
            config_from_json(values, HERE)
        assert str(path[-1]) in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, "seed = -1; it must be within 0 … 4294967295"),
        ({"seed": 2**32}, "seed = 4294967296; it must be within"),
        ({"samples_every_steps": 10**12}, "samples_every_steps = 1000000000000; it must be"),
        (
            {"launch": LaunchConfig(data_dir=Path("new\nline"))},
            "launch.data_dir = 'new\\nline'; it must be a path of printable",
        ),
        ({"logprob_chunk_slots": 0}, "logprob_chunk_slots = 0; it must be 1 or more, or None"),
    ],
)
def test_what_no_run_could_use_is_refused(fields, message):
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(experiment(), **fields)


def holding(**fields):
    """The tiny config with values of any type, as Python lets an experiment file make it."""
    config = experiment()
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    return config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": "one"}, "x.py: seed = 'one': Input should be a valid integer"),
        ({"launch": LaunchConfig(mesh=None)}, "x.py: launch.mesh = None"),
        ({"samples_every_steps": 1.5}, "x.py: samples_every_steps = 1.5: Input should be a valid"),
        ({"rollout_params": "all"}, "x.py: rollout_params = 'all': Input should be 'gathered'"),
    ],
)
def test_a_value_of_another_type_is_named(fields, message):
    """Dataclasses check no types: it would have failed far from here, or not at all."""
    with pytest.raises(UserError, match=re.escape(message)):
        of_its_types(holding(**fields), "x.py")


def test_a_value_that_means_its_type_becomes_it():
    config = of_its_types(holding(seed="7", launch=LaunchConfig(runs_dir="there")), "x.py")
    assert (config.seed, config.run_dir) == (7, Path("there/tiny"))
    assert of_its_types(experiment(), "x.py") == experiment()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../x", "/x", "x/", "a//b", "a\nb", "\udc80", "x" * 300]
)
def test_a_name_is_that_of_a_directory(name):
    with pytest.raises(UserError, match="name"):
        dataclasses.replace(experiment(), name=name)


def test_a_name_may_have_folders_and_any_letters():
    for name in ("a/b", "β = 0.1", "日本", "..x", "x" * 200):
        assert dataclasses.replace(experiment(), name=name).run_dir == Path("runs") / name


def test_sizes_of_the_tiny_family_are_sizes():
    for field in ("layers", "heads", "kv_heads", "width", "mlp", "patch_pixels"):
        with pytest.raises(UserError, match=f"{field} = 0; it must be 1 or more"):
            TinyConfig(**{field: 0})
    with pytest.raises(UserError, match="head_size = 7; it must be even"):
        TinyConfig(head_size=7)


def test_grpo_has_one_answer_per_thought():
    objective = ObjectiveConfig(algorithm="grpo")
    with pytest.raises(UserError, match=r"tree\.answers = 2.*set tree\.answers to 1"):
        dataclasses.replace(experiment(), objective=objective)
    dataclasses.replace(experiment(), objective=objective, tree=TreeConfig(thoughts=8, answers=1))


def help_texts(capsys):
    """Field → help text, as `gmma train FILE --help` prints them."""
    with pytest.raises(SystemExit, match="0"):
        parse(ExperimentConfig, ["--help"], prog="gmma train FILE", default=experiment())
    lines = [line.strip("│╭╮╰╯─ ") for line in capsys.readouterr().out.splitlines()]
    texts, name = {}, None
    for line in lines:
        if line.startswith("--"):
            name = line.split()[0]
            texts[name] = ""
        elif name:
            texts[name] = f"{texts[name]} {line}".strip()
    return texts


def field_paths(config, prefix="--"):
    """Every field that holds a value, as its option is written."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        path = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):  # the launch is apart in files, not in flags
            yield from field_paths(value, prefix if field.name == "launch" else f"{path}.")
        elif value and isinstance(value, tuple) and dataclasses.is_dataclass(value[0]):
            for place, item in enumerate(value):
                yield from field_paths(item, f"{path}.{place}.")
        else:
            yield path


def test_every_field_is_an_option_with_a_help_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # one column of options
    texts = help_texts(capsys)
    assert set(field_paths(experiment())) <= texts.keys()
    silent = {name for name, text in texts.items() if text.startswith("(default")}
    assert not silent


def test_any_field_can_be_overridden():
    options = [
        "--tree.answers",
        "8",
        "--rl.optimizer.learning-rate",
        "3e-5",
        "--init-from",
        "runs/a",
    ]
    options += ["--rewards.terms.1.weight", "0", "--rewards.terms.0.name", "mine:reward"]
    options += ["--objective.mask-truncated-completions", "True", "--task.train-scenes", "99"]
    config = parse(ExperimentConfig, options, prog="gmma train FILE", default=experiment())
    assert config.tree.answers == 8
    assert config.tree.thoughts == experiment().tree.thoughts
    assert config.rl.optimizer.learning_rate == 3e-5
    assert config.init_from == Path("runs/a")
    assert config.rewards.terms == (RewardTerm("mine:reward"), RewardTerm("format", weight=0))
    assert config.objective.mask_truncated_completions is True
    assert config.task.train_scenes == 99
