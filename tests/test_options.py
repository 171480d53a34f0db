"""One convention of options, and help that is there at once."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import TINY

from gmma.cli import COMMANDS, VERBS
from gmma.config import ObjectiveConfig
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.options.arguments import EvalArguments, ExportArguments, TrainOptions, parse_steps
from gmma.options.foreign import FOREIGN, meant_lines
from gmma.options.networks import LoraConfig
from gmma.options.parsing import parse
from gmma.options.sampling import SamplingConfig
from gmma.run.experiments import load_experiment
from gmma.run.lines import paths_of, resolve, train_line

ROOT = Path(__file__).resolve().parent.parent

# What takes seconds to import, or tens of megabytes.
HEAVY = ("jax", "flax", "optax", "orbax", "tensorflow", "torch", "tensorflow_datasets", "grain")
HELP = """
import json, sys
from gmma.cli import main
for line in json.load(sys.stdin):
    try:
        main([*line, "--help"])
    except SystemExit as end:
        assert end.code == 0, line
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_help_imports_nothing_heavy():
    lines = [[], *([name] for name in COMMANDS), *(["port", verb] for verb in VERBS)]
    assert len(COMMANDS) == 12
    done = subprocess.run(
        [sys.executable, "-c", HELP], input=json.dumps(lines), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout.splitlines()[-1])
    assert "tyro" in imported
    assert not set(HEAVY) & set(imported)
    for shown in ("--tasks", "--trees", "--cases", "--adapters", "--dtype", "experiments/NAME.py"):
        assert shown in done.stdout


def exported(*options):
    return parse(ExportArguments, [*options], prog="gmma port export")


def test_a_truth_is_bare_or_has_its_value(capsys):
    """Also where positional arguments follow."""
    for options, merge in [
        (("run", "out", "--merge"), True),
        (("--merge", "run", "out"), True),
        (("run", "out", "--merge", "True", "--step", "3"), True),
        (("run", "--merge", "False", "out"), False),
        (("run", "out"), False),
    ]:
        given = exported(*options)
        assert (str(given.source), str(given.output), given.merge) == ("run", "out", merge)
    with pytest.raises(SystemExit, match="2"):
        exported("run", "out", "--merge", "maybe")
    assert "'maybe'" in " ".join(capsys.readouterr().err.split())


def test_several_values_come_one_after_another():
    given = parse(EvalArguments, ["runs/x", "--tasks", "digits", "math"], prog="gmma eval")
    assert given.tasks == ("digits", "math")


def test_options_of_a_function_are_numbers_where_they_look_like_it():
    """A rule that is given tau_pos 0.5 computes with it; nan stays a word, as no run can use it."""
    words = [
        "tau_pos",
        "0.5",
        "steps",
        "3",
        "soft",
        "True",
        "mode",
        "mean",
        "x",
        "1e-3",
        "y",
        "nan",
    ]
    given = parse(ObjectiveConfig, ["--surrogate-options", *words], prog="gmma")
    found = dict(given.surrogate_options)
    assert found == {
        "tau_pos": 0.5,
        "steps": 3,
        "soft": True,
        "mode": "mean",
        "x": 1e-3,
        "y": "nan",
    }
    assert [type(value) for value in found.values()] == [float, int, bool, str, float, str]


def test_a_mistake_is_one_message():
    with pytest.raises(UserError, match="no split 'all'; choose one of train, validation, test"):
        parse(EvalArguments, ["runs/x", "--split", "all"], prog="gmma eval")
    with pytest.raises(UserError, match=r"top_p = 2\.0"):
        parse(SamplingConfig, ["--top-p", "2"], prog="gmma")


def test_an_option_of_another_trainer_is_told_ours(capsys):
    fields = paths_of(load_experiment(ROOT / "tests/tiny_digits.py"))
    line = ["--num-generations=8", "--rl.learning_rate", "1e-4", "--seed", "3", "--variant", "b"]
    assert list(meant_lines(line, [*fields, "variant"])) == [
        "--num_generations is --tree.thoughts and tree.answers, whose product it is here "
        "(docs/coming_from.md)",
        "--rl.learning_rate: did you mean --rl.optimizer.learning-rate?",
    ]
    with pytest.raises(SystemExit) as end:
        train_line([str(ROOT / "tests/tiny_digits.py"), "--rl.learning-rate", "1e-4"])
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith("did you mean --rl.optimizer.learning-rate?\n")


def test_what_other_options_are_told_is_there_and_on_the_page():
    page = (ROOT / "docs" / "coming_from.md").read_text("utf-8")
    fields = {*paths_of(load_experiment(ROOT / "experiments" / "vqa.py"))}
    fields |= {f"model.{field.name}" for field in dataclasses.fields(PretrainedConfig)}
    fields |= {f"model.lora.{field.name}" for field in dataclasses.fields(LoraConfig)}
    for name, told in FOREIGN.items():
        first = re.match(r"[\w.]+", told)[0]
        assert first in fields or first == "resume", name
        assert name in page or name == "num_train_epochs", name
        beside = [line for line in page.splitlines() if f"`{name}`" in line]
        assert not beside or any(first in line for line in beside), name


def test_steps_of_a_trace_are_first_and_last():
    assert parse_steps("10:12") == (10, 12)
    for text in ("10", "12:10", "-1:3", "1:x", ":", ""):
        with pytest.raises(UserError, match="FIRST:LAST"):
            TrainOptions(profile=text)


@pytest.mark.parametrize(
    ("options", "resumed"),
    [
        ((), False),
        (("--resume",), True),
        (("--resume", "True"), True),
        (("--resume", "False", "--seed", "7"), False),
        (("--resume", "--seed", "7"), True),
    ],
)
def test_resume_is_an_option_like_any_other(options, resumed):
    assert resolve([str(TINY), *options])[1] == resumed
