"""`docs/extending.md` as a user follows it: files in a folder of their own, nothing edited."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmma.cli import main
from gmma.config import CREDITS, SURROGATES, ObjectiveConfig
from gmma.errors import UserError
from gmma.families import FAMILIES, find_family
from gmma.rewards import REWARDS
from gmma.run.objective_trial import try_objective
from gmma.run.programs import credit
from gmma.run.task_trial import try_task
from gmma.tasks import TASKS, find_task
from gmma.tasks.defaults import hash_content
from gmma.tasks.digits import DIGITS, DigitsConfig
from gmma.types import Advantages, Example, TreeShape

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
OWN = [name.removesuffix(".py") for name in FILES]
SHAPE = TreeShape(4, 2, 2, thoughts=3, answers=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page's files, as a user has them."""
    home = tmp_path_factory.mktemp("outside")
    for name, text in FILES.items():
        (home / name).write_text(text)
    return home


@pytest.fixture
def outside(folder, monkeypatch):
    """A process that was started in the user's folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    yield folder
    for name in OWN:
        sys.modules.pop(name, None)


def metrics_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_clocks(record):
    clocks = ("seconds/", "step_time", "clock/", "compilations")
    return {name: value for name, value in record.items() if not name.startswith(clocks)}


def forget_last_step(run):
    """Take back what a run did behind its last checkpoint but one, as a kill would have."""
    *_, newest = sorted((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    (run / "evaluation/after_rl.json").unlink()


def test_the_page_has_an_example_of_each():
    foreign = ["trl_rewards", "easyr1_rewards", "verl_rewards"]  # tests/rewards/test_signatures.py
    assert ["sums", "grading", *foreign, "rules", "losses", "mine", "arms", "gemma1"] == OWN


@pytest.fixture
def as_users_have_jax():
    """JAX's own defaults: optax counts updates in int32 and raises floats to that power."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("as_users_have_jax")
def test_a_folder_outside_trains_evaluates_reports_and_resumes(outside, capsys):
    fast = ["--rewards.workers", "0"]
    main(["train", "mine.py", *fast])
    records = metrics_of(outside / "runs/mine")
    assert [(r["phase"], r["step"]) for r in records] == [
        *(("sft", step) for step in range(3)),
        *(("rl", step) for step in range(3, 6)),
    ]
    for record in records[3:]:
        assert np.isfinite([record["loss"], record["grad_norm"]]).all()
        assert {"rewards/grading:near/mean", "rewards/format/mean"} <= record.keys()
    forget_last_step(outside / "runs/mine")
    main(["train", "mine.py", "--resume", *fast])
    assert [without_clocks(r) for r in metrics_of(outside / "runs/mine")] == [
        without_clocks(r) for r in records
    ]
    main(["eval", "runs/mine"])
    said = capsys.readouterr().out
    assert "greedy/right" in said
    assert "greedy/rewards/grading:near" in said
    main(["sample", "runs/mine"])
    assert (outside / "runs/mine/samples/test_00000/image.png").stat().st_size
    main(["report", "runs/mine"])
    assert "grading:near" in (outside / "runs/mine/report.html").read_text()


@pytest.mark.slow
def test_a_folder_outside_sweeps(outside):
    main(["sweep", "arms.py", "--rewards.workers", "0"])
    found = json.loads((outside / "runs/credits/sweep.json").read_text())
    assert "leave_one_out" in json.dumps(found)


def test_a_field_of_an_own_task_is_a_flag(outside, capsys):
    main(["data", "mine.py", "--task.largest", "1", "--task.examples", "5"])
    said = capsys.readouterr().out
    assert "train: 5 examples" in said
    questions = re.findall(r"question +(\d+) \+ (\d+)\?", said)
    assert questions
    assert all(int(n) <= 1 for pair in questions for n in pair)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--objective.credit", "rules:leave_one_ot"], "has no leave_one_ot; it has leave_one_out"),
        (["--objective.credit", "grpo_na"], "did you mean 'grpo_ma'?"),
        (["--objective.credit", "ruels:leave_one_out"], "No module named 'ruels'"),
        (["--objective.surrogate", "losses:cipso"], "has no cipso; it has cispo"),
        (["--objective.surrogate", "clipt"], "did you mean 'clipped'?"),
        (["--rewards.terms.0.name", "grading:nera"], "has no nera; it has near"),
        (["--rewards.terms.0.name", "bxo_iou"], "did you mean 'box_iou'?"),
        (
            ["--rewards.terms.0.name", "my/own.py:f"],
            "write 'own:f', and start gmma with PYTHONPATH=my",
        ),
        (["--rewards.terms.0.name", "grading.near"], "no .py; write 'grading:near'"),
        (["--objective.credit-options", "wieght", "1.0"], "cannot be called as leave_one_out("),
    ],
)
def test_a_typo_is_one_message_with_what_exists(outside, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        main(["train", "mine.py", "--name", "typo", "--rewards.workers", "0", *flags])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (outside / "runs/typo").exists()


def test_a_typo_in_the_name_of_a_task_or_a_family(outside):
    with pytest.raises(UserError, match="module sums has no SUM; it has SUMS"):
        find_task("sums:SUM")
    with pytest.raises(UserError, match=r"task 'digit' is unknown; .*did you mean 'digits'\?"):
        find_task("digit")
    with pytest.raises(UserError, match=r"is a type, not a gmma\.tasks\.task\.Task"):
        find_task("sums:SumsConfig")
    with pytest.raises(UserError, match="module gemma1 has no GEMA; it has GEMMA"):
        find_family({}, "config.json", "gemma1:GEMA")
    with pytest.raises(UserError, match="is a dict, not a Family"):
        find_family({}, "config.json", "gemma1:DEFAULTS")
    with pytest.raises(UserError, match=r"model_type = 'gemma'; .* module:NAME"):
        find_family({"model_type": "gemma"}, "config.json")


@pytest.mark.parametrize("table", [REWARDS, TASKS, CREDITS, SURROGATES, FAMILIES])
def test_gmmas_own_come_in_by_the_same_door(table):
    for name, address in table.addresses.items():
        module, _, attribute = address.partition(":")
        assert table[name] is getattr(sys.modules[module], attribute)
        assert table.find(address) is table[name]


def as_module(name, monkeypatch, **functions):
    module = type(sys)(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda rewards, *, mask, **_: rewards, "returned a .*, not gmma.types.Advantages"),
        (lambda rewards: rewards, "cannot be called as rule"),
        (lambda rewards, *, mask, **_: 1 / 0, "raised ZeroDivisionError"),
        (3, "is of type int, not a function"),
    ],
)
def test_a_credit_rule_is_tried_before_anything_is_written(monkeypatch, rule, words):
    as_module("made_up_rule", monkeypatch, rule=rule)
    with pytest.raises(UserError, match=words):
        try_objective(ObjectiveConfig(credit="made_up_rule:rule"), SHAPE)


def test_a_credit_rule_that_divides_by_zero_is_refused(monkeypatch):
    def rule(rewards, *, mask, **_):
        centred = rewards - rewards.mean(axis=(1, 2), keepdims=True)
        scaled = centred / rewards.std(axis=(1, 2), keepdims=True)
        return Advantages(thought=scaled.mean(axis=2), answer=scaled)

    as_module("made_up_rule", monkeypatch, rule=rule)
    with pytest.raises(UserError, match=r"Advantages\.thought is not finite for 3 of 9"):
        try_objective(ObjectiveConfig(credit="made_up_rule:rule"), SHAPE)


def test_options_that_gmmas_own_do_not_take_are_refused():
    given = {"credit_options": (("weight", 2.0),)}
    with pytest.raises(UserError, match=r"credit rule 'grpo_ma' .* cannot be called"):
        try_objective(ObjectiveConfig(**given), SHAPE)
    with pytest.raises(UserError, match=r"surrogate 'clipped' .*kind"):
        try_objective(ObjectiveConfig(surrogate_options=(("kind", "x"),)), SHAPE)


def test_an_answer_that_does_not_count_gets_no_credit_whatever_a_rule_says(monkeypatch):
    def rule(rewards, *, mask, **_):
        del mask
        return Advantages(thought=rewards[:, :, 0] + jnp.nan, answer=rewards - 5)

    as_module("made_up_rule", monkeypatch, rule=rule)
    counted = jnp.asarray([[[True, False], [False, False]]])
    found = credit(
        jnp.ones((1, 2, 2)), counted, objective=ObjectiveConfig(credit="made_up_rule:rule")
    )
    assert found.answer.tolist() == [[[-4.0, 0.0], [0.0, 0.0]]]
    assert found.thought[0, 1] == 0


def metrics_that(change):
    def metrics(config, answers, examples):
        del config, examples
        return change({"right": [0.0] * len(answers), "parsed": [1.0] * len(answers)})

    return metrics


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"headline": "rihgt"}, "metrics gave parsed, right, and no 'rihgt'"),
        ({"metrics": metrics_that(lambda m: {"right": m["right"]})}, "and no 'parsed'"),
        ({"metrics": metrics_that(lambda m: {**m, "right": [0.0]})}, r"'right' has shape \(1,\)"),
        ({"metrics": lambda *_: 1 / 0}, "metrics raised ZeroDivisionError"),
    ],
)
def test_a_task_is_tried_before_anything_is_written(outside, changes, words):
    task = find_task("sums:SUMS")
    config = task.config()
    examples = [task.source(config, Path("data"), "train")[row] for row in range(3)]
    try_task(task, config, examples)
    with pytest.raises(UserError, match=words):
        try_task(replace(task, **changes), config, examples)


def test_columns_of_a_task_are_alike_and_its_own(outside):
    task = find_task("sums:SUMS")
    config = task.config()
    first, second = (task.source(config, Path("data"), "train")[row] for row in range(2))
    other = replace(second, columns={"answer": 1, "more": 2})
    with pytest.raises(UserError, match="train/1 has the columns answer, more"):
        try_task(task, config, [first, other])
    taken = replace(first, columns={"answer": 1, "task": "open the door"})
    with pytest.raises(UserError, match="gmma gives task itself; rename the column"):
        try_task(task, config, [taken])


def test_the_hash_of_a_tasks_records_is_alike_in_every_process():
    def hash_of(column):
        example = Example(question="?", images=(), columns={"answer": column}, id="0")
        task = replace(DIGITS, content=None, source=lambda config, data_dir, split: [example])
        return hash_content(task, DigitsConfig(), Path())

    words = [f"word {n}" for n in range(9)]
    assert hash_of(set(words)) == hash_of(frozenset(words))
    assert hash_of(1) != hash_of(2)
    with pytest.raises(UserError, match="a column holds a object"):
        hash_of(object())


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda ratio, advantage, **_: (ratio * advantage).mean(), r"has shape \(\)"),
        (lambda ratio, advantage, **_: ratio / (advantage * 0), "is not finite"),
        (lambda ratio, **_: ratio, "cannot be called as loss"),
    ],
)
def test_a_surrogate_is_tried_before_anything_is_written(monkeypatch, loss, words):
    as_module("made_up_loss", monkeypatch, loss=loss)
    with pytest.raises(UserError, match=words):
        try_objective(ObjectiveConfig(surrogate="made_up_loss:loss"), SHAPE)
