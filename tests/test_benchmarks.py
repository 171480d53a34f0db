"""Which benchmarks a name means, what they take from where, and which pictures are drawn."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_records import on_few_records
from tasks.records import drawn_config
from tiny_digits import experiment

from gmma.commands import read_benchmark
from gmma.config import LaunchConfig
from gmma.errors import UserError
from gmma.rewards.terms import RewardTerm
from gmma.run import benchmarks
from gmma.run.assembly import assemble
from gmma.run.benchmarks import (
    BenchmarkResult,
    benchmark_parts,
    choose_benchmarks,
    extremes,
    results_to_json,
    run_benchmark,
)
from gmma.run.evaluate import Evaluation
from gmma.tasks import TASKS
from gmma.tasks.mathematics import MathConfig
from gmma.tasks.mixture import MixtureConfig, MixturePart

HERE = Path(__file__).resolve().parent
OWN = experiment()


def choose(*names, own=OWN, settings=lambda evaluation: evaluation):
    return choose_benchmarks(own, names, read_benchmark, settings)


def test_no_name_is_the_runs_own_task():
    (own,) = choose()
    assert (own.name, own.config, own.may_fail) == ("digits", OWN, False)


def test_all_is_every_task_once_the_runs_own_first():
    chosen = choose("all", "digits")
    assert chosen[0].config.task == OWN.task
    assert {b.name for b in chosen} == set(TASKS) - {"mixture"}
    assert [b.may_fail for b in chosen] == [False] + [True] * (len(chosen) - 1)
    with pytest.raises(UserError, match="mixture has no default config"):
        choose("mixture")


def test_a_mixtures_run_is_asked_other_tasks():
    """Its terms name its parts, which another task has not; evaluation asks for no reward."""
    mixed = replace(
        OWN,
        task=MixtureConfig(parts=(MixturePart(task=OWN.task),)),
        rewards=replace(OWN.rewards, terms=(RewardTerm("box_iou", task="digits"),)),
    )
    (named,) = choose("trajectory", own=mixed)
    assert named.config.task == TASKS["trajectory"].config()
    (own_part,) = choose("digits", own=mixed)
    assert own_part.config.task.name == "digits"


def test_a_named_task_must_not_fail_and_what_is_given_counts():
    """With own temperature and n: those of the command line."""
    sampling = replace(OWN.evaluation.sampling, temperature=0.3)
    (named,) = choose("trajectory", settings=lambda e: replace(e, samples=7, sampling=sampling))
    assert not named.may_fail
    assert named.config.task == TASKS["trajectory"].config()
    assert named.config.evaluation.samples == 7
    assert named.config.evaluation.sampling.temperature == 0.3
    assert named.config.model == OWN.model
    with pytest.raises(UserError, match=r"no task 'trajectori'; choose one of .*trajectory"):
        choose("trajectori")


def test_an_experiment_brings_its_task_slots_and_evaluation(tmp_path):
    path = tmp_path / "other.py"
    path.write_text((HERE / "tiny_digits.py").read_text().replace("samples=2", "samples=5")
                    .replace('name="tiny"', 'name="digits"'))  # fmt: skip
    (given,) = choose(f"{path} --name other --tree.thought-tokens 17")
    assert given.name == "other"
    assert given.config.evaluation.samples == 5
    assert given.config.tree.thought_tokens == 17
    assert given.config.tree.thoughts == OWN.tree.thoughts
    assert given.config.model == OWN.model
    with pytest.raises(UserError, match="two different benchmarks are named digits; give --name"):
        choose("digits", str(path))


def test_pictures_are_of_the_best_and_the_worst_and_of_no_row_twice():
    values = [0.5, 0.9, np.nan, 0.1, 0.7, 0.2]
    assert extremes(values, 2) == {"best_1": 1, "best_2": 4, "worst_1": 3, "worst_2": 5}
    assert extremes([0.5], 3) == {}
    assert extremes([], 3) == {}
    assert sorted(extremes([1.0] * 5, 9).values()) == [0, 1, 3, 4]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return assemble(replace(OWN, launch=LaunchConfig(data_dir=tmp_path_factory.mktemp("data"))))


def test_the_model_before_another_task(own, tmp_path, monkeypatch):
    """Its own vocabulary, slots for the longest prompt, greedy answers drawn, figures in JSON."""
    task = drawn_config(tmp_path, "affordance")
    other = replace(own.config, task=task)
    parts = benchmark_parts(own, other, "test")
    assert parts.task is TASKS["affordance"]
    assert parts.tokenizer is own.tokenizer
    assert parts.config.tree.prompt_tokens % 32 == 0
    assert parts.config.tree.prompt_tokens > own.config.tree.prompt_tokens
    assert benchmark_parts(own, own.config, "test").config is own.config

    said = [["[1, 1, 2, 2]"], ["[3, 5, 19, 36]"], ["nothing"], ["[3, 7, 18, 34]"]]
    scores = [0.0, 0.7, 0.0, 0.9]

    def evaluator(parts):
        values = {mode: {"score": scores} for mode in ("greedy", "sampled")}
        answers = dict.fromkeys(values, said)
        return lambda params, split: Evaluation(split=split, values=values, answers=answers)

    monkeypatch.setattr(benchmarks, "make_evaluator", evaluator)
    chosen = benchmarks.Benchmark(name="parts", config=other)
    found = run_benchmark(chosen, own, None, "test", tmp_path / "drawn", 1)
    assert found.summary["greedy/score"][0] == pytest.approx(0.4)
    best, worst = found.pictures
    assert best == tmp_path / "drawn/parts/best_1.png"
    with Image.open(best) as picture:
        assert picture.size[0] == 720
    assert json.loads(best.with_suffix(".json").read_text())["answers"] == said[3]
    assert json.loads(worst.with_suffix(".json").read_text())["metrics"] == {"score": 0.0}
    left = BenchmarkResult(name="code", reason="no records")
    whole = json.loads(json.dumps(results_to_json([found, left])))
    assert whole["left_out"] == {"code": "no records"}
    assert whole["tasks"]["parts"]["values"]["greedy"]["score"] == scores


def test_pictures_of_a_mixture_are_of_the_examples_that_have_the_figures(tmp_path):
    """Digits and sums in turns: a sum has no `digits/iou`, and nobody else's."""
    sums = tmp_path / "sums"
    sums.mkdir()
    math = on_few_records(MathConfig(train_path=Path(), explain=False), sums)
    digits = replace(OWN.task, test_scenes=4)
    task = MixtureConfig(parts=tuple(MixturePart(task=own) for own in (digits, math)))
    config = replace(OWN, task=task, launch=LaunchConfig(data_dir=tmp_path / "data"))
    parts = assemble(config)
    source = parts.task.source(task, config.launch.data_dir, "test")
    ids = [source[row].id for row in range(8)]
    own = np.array([name.startswith("digits/") for name in ids])
    score = np.array([0.3, 0.4, 0.5, 0.6, 0.0, 0.2, 1.0, 0.1])
    values = {"score": score.tolist(), "digits/iou": np.where(own, score, np.nan).tolist()}
    evaluation = Evaluation(
        split="test", values={"greedy": values}, answers={"greedy": [["1"]] * 8}
    )
    found = benchmarks.draw_extremes(parts, evaluation, tmp_path / "drawn", 4)
    assert len(found) == 8
    for path in found:
        shown = json.loads(path.with_suffix(".json").read_text())
        row = ids.index(shown["id"])
        expected = {name: score[row] for name in values if own[row] or name == "score"}
        assert shown["metrics"] == expected


def test_a_task_without_records_is_left_out_of_all_and_an_error_by_name(own):
    (named,) = choose("demand", own=own.config)
    with pytest.raises(UserError, match=r"no records at .*train\.json"):
        run_benchmark(named, own, None, "test", Path("nowhere"), 1)
    outcome = run_benchmark(replace(named, may_fail=True), own, None, "test", Path("nowhere"), 1)
    assert outcome.evaluation is None
    assert "no records at" in outcome.reason
