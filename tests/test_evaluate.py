"""Held-out figures: every example counts once, with intervals and paired differences."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_digits import experiment

from gmma.config import LaunchConfig, RewardConfig
from gmma.errors import UserError
from gmma.hardware.sharding import make_mesh
from gmma.rewards.terms import RewardTerm
from gmma.run.assembly import assemble
from gmma.run.data import batch_demonstrations
from gmma.run.evaluate import (
    Evaluation,
    difference,
    load_evaluation,
    make_evaluator,
    measure_mode,
    save_evaluation,
    summarise,
)
from gmma.tasks.task import Demonstration


def evaluation_of(**modes):
    values = {mode: {"iou": values} for mode, values in modes.items()}
    return Evaluation(split="test", values=values)


def test_sixteen_failures_are_no_rate_of_zero_for_certain():
    """By the exact one-sided limit 1 − 0.05^(1/16) = 0.171 or more; two failures alike differ by 0
    with room on both sides.
    """
    failed, passed = [0.0] * 16, [1.0] * 16
    mean, low, high = summarise(evaluation_of(greedy=failed))["greedy/iou"]
    assert (mean, low, high) == (0, 0, pytest.approx(0.194, abs=0.001))
    mean, low, high = summarise(evaluation_of(greedy=passed))["greedy/iou"]
    assert (mean, low, high) == (1, pytest.approx(0.806, abs=0.001), 1)
    gained = difference(evaluation_of(greedy=failed), evaluation_of(greedy=failed))["greedy/iou"]
    assert gained == pytest.approx((0, -0.194, 0.194), abs=0.001)


def test_a_difference_is_paired():
    """Each example gains exactly 0.1, however much examples differ among themselves."""
    before = [0.0, 0.5, 1.0, 0.2]
    before = np.tile(before, 10)
    after = evaluation_of(greedy=list(before + 0.1))
    gained = difference(after, evaluation_of(greedy=list(before)))["greedy/iou"]
    assert gained == pytest.approx((0.1, 0.1, 0.1), abs=0.1)
    _, low, high = summarise(after)["greedy/iou"]
    assert high - low > 2 * (gained[2] - gained[1])


def test_an_evaluation_is_read_as_it_was_written(tmp_path):
    evaluation = evaluation_of(greedy=[0.1, 1 / 3], sampled=[0.0, 1.0])
    save_evaluation(tmp_path / "new/after_rl.json", evaluation)
    assert load_evaluation(tmp_path / "new/after_rl.json") == evaluation
    assert not list(tmp_path.rglob("*.partial"))
    assert summarise(evaluation)["sampled/iou"][0] == 0.5


def test_an_example_without_a_metric_counts_for_nothing(tmp_path):
    """In figures and differences, on disk too; what no example has is no figure."""
    after = evaluation_of(greedy=[0.5, np.nan, 1.0, np.nan], sampled=[np.nan] * 4)
    before = evaluation_of(greedy=[0.25, np.nan, 0.75, np.nan], sampled=[np.nan] * 4)
    assert summarise(after).keys() == {"greedy/iou"}
    assert summarise(after)["greedy/iou"][0] == 0.75
    gained = difference(after, before)
    assert gained.keys() == {"greedy/iou"}
    assert gained["greedy/iou"][0] == 0.25
    save_evaluation(tmp_path / "after.json", after)
    assert "NaN" not in (tmp_path / "after.json").read_text()
    again = load_evaluation(tmp_path / "after.json")
    np.testing.assert_array_equal(again.values["greedy"]["iou"], after.values["greedy"]["iou"])
    older = evaluation_of(greedy=[0.25, 0.75], sampled=[])  # a file that left the others out
    assert difference(again, older) == gained


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    config = experiment()
    config = replace(
        config,
        task=replace(config.task, test_scenes=11),
        evaluation=replace(config.evaluation, examples=11, batch_prompts=8),
        launch=LaunchConfig(data_dir=tmp_path_factory.mktemp("data")),
    )
    return replace(assemble(config), mesh=make_mesh(config.launch.mesh, jax.devices()[:1]))


def spoken(parts, examples):
    """A rollout that answers every third example exactly, every third in words, others not."""
    answers = [str(example.columns["answer"]) for example in examples]
    said = [(answers[row], "there", "[1, 1, 1, 1]")[row % 3] for row in range(len(examples))]
    shown = [Demonstration(thought="7 at 1, 2", answer=answer) for answer in said]
    return batch_demonstrations(examples, shown, parts.tokenizer, thought_slots=13, answer_slots=20)


def test_every_example_counts_once_and_an_unreadable_answer_as_wrong(parts):
    """Eleven examples in batches of eight: the last batch is filled up, and cut off again."""
    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, "test")
    examples = [source[row] for row in range(11)]
    batches = [examples[:8], examples[8:] + [examples[-1]] * 5]

    def grow(params, prompts, step):
        rollout = spoken(parts, batches[int(step)])
        closed = rollout.closed.copy()
        closed[0] = False  # its thought ran out of slots: the format is broken
        return replace(rollout, closed=closed)

    measured = measure_mode(parts, grow, None, examples)
    assert [(row, place) for row, place, _ in measured.broken] == [(0, 0), (8, 0)]
    assert measured.broken[0][2].startswith("<think>7 at 1, 2")
    found = measured.values
    assert {len(values) for values in found.values()} == {11}
    rows = [row % 3 for row in range(8)] + [0, 1, 2]
    assert found["iou"] == [1.0 if kind == 0 else 0.0 for kind in rows]
    assert found["parsed"] == [0.0 if kind == 1 else 1.0 for kind in rows]
    assert found["format"] == [0.0] + [1.0] * 7 + [0.0, 1.0, 1.0]


OWN_REWARD = """
def first_sides(completions, answer, trainer_state, **kwargs):
    assert trainer_state.global_step == trainer_state.max_steps == 9
    said = [text.partition("<answer>[")[2].partition(",")[0] for text in completions]
    return [float(one == str(true[0])) if one else None for one, true in zip(said, answer)]
"""


def test_a_reward_of_the_users_own_is_a_metric(parts, tmp_path, monkeypatch):
    """Of the eleven, every third says the box, every third nothing that can be scored."""
    (tmp_path / "reward_as_metric.py").write_text(OWN_REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    name = "reward_as_metric:first_sides"
    terms = (RewardTerm(name), RewardTerm("box_iou"))
    config = replace(parts.config, rewards=RewardConfig(terms=terms, workers=0))
    parts = replace(parts, config=config)
    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, "test")
    examples = [source[row] for row in range(11)]
    batches = [examples[:8], examples[8:] + [examples[-1]] * 5]
    found = measure_mode(
        parts, lambda p, b, step: spoken(parts, batches[int(step)]), None, examples
    ).values
    assert {name for name in found if name.startswith("rewards/")} == {f"rewards/{name}"}
    rows = [row % 3 for row in range(8)] + [0, 1, 2]
    truths = [example.columns["answer"][0] for example in examples]
    expected = [
        (1.0, np.nan, float(truth == 1))[row] for row, truth in zip(rows, truths, strict=True)
    ]
    np.testing.assert_array_equal(found[f"rewards/{name}"], expected)
    evaluation = Evaluation(split="test", values={"greedy": found})
    assert f"greedy/rewards/{name}" in summarise(evaluation)
    older = Evaluation(split="test", values={"greedy": {"iou": found["iou"]}})
    assert difference(evaluation, older).keys() == {"greedy/iou"}  # measured by an older version


def test_a_batch_that_devices_cannot_share_is_refused(parts):
    config = replace(parts.config, evaluation=replace(parts.config.evaluation, batch_prompts=6))
    parts = replace(parts, config=config, mesh=make_mesh(config.launch.mesh))
    with pytest.raises(UserError, match=r"evaluation\.batch_prompts = 6 is not divisible by 8"):
        make_evaluator(parts)


def test_what_a_task_says_of_an_examples_answers_together_is_kept(parts):
    """In the place of its example, NaN where an example has none: of eleven, the odd ones."""

    def together(config, answers, example, values):
        assert len(answers) == len(values["iou"]) == 1
        row = int(example.id.rpartition("/")[2])
        return {"hit": float(values["iou"][0] > 0)} if row % 2 == 0 else {}

    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, "test")
    examples = [source[row] for row in range(11)]
    batches = [examples[:8], examples[8:] + [examples[-1]] * 5]
    parts = replace(parts, task=replace(parts.task, group_metrics=together))
    found = measure_mode(
        parts, lambda p, b, step: spoken(parts, batches[int(step)]), None, examples
    )
    rows = [row % 3 for row in range(8)] + [0, 1, 2]
    expected = [float(rows[row] == 0) if row % 2 == 0 else np.nan for row in range(11)]
    np.testing.assert_array_equal(found.values["hit"], expected)
    assert len(found.values["iou"]) == 11
