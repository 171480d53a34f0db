"""Held-out figures: every example counts once, with intervals and paired differences."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_digits import experiment

from gmma.assembly import assemble
from gmma.data import batch_demonstrations
from gmma.errors import UserError
from gmma.evaluate import (
    Evaluation,
    difference,
    interval,
    load_evaluation,
    make_evaluator,
    measure,
    save_evaluation,
    summarise,
)
from gmma.sharding import make_mesh
from gmma.tasks.task import Demonstration


def evaluation_of(**modes):
    values = {mode: {"iou": values} for mode, values in modes.items()}
    return Evaluation(split="test", values=values)


def test_an_interval_holds_the_middle_of_the_bootstrap():
    """400 examples of 0 and 1: the standard error is ½/√400 = 0.025, and 1.96 of them 0.049."""
    mean, low, high = interval(np.tile([0.0, 1.0], 200), 2000)
    assert mean == 0.5
    assert low == pytest.approx(0.451, abs=0.005)
    assert high == pytest.approx(0.549, abs=0.005)
    assert interval(np.full(7, 0.25), 100) == (0.25, 0.25, 0.25)


def test_a_difference_is_paired():
    """Each example gains exactly 0.1, however much examples differ among themselves."""
    before = [0.0, 0.5, 1.0, 0.2]
    gained = difference(
        evaluation_of(greedy=[value + 0.1 for value in before]), evaluation_of(greedy=before), 50
    )
    assert gained["greedy/iou"] == pytest.approx((0.1, 0.1, 0.1))


def test_an_evaluation_is_read_as_it_was_written(tmp_path):
    evaluation = evaluation_of(greedy=[0.1, 1 / 3], sampled=[0.0, 1.0])
    save_evaluation(tmp_path / "new/after_rl.json", evaluation, 10)
    assert load_evaluation(tmp_path / "new/after_rl.json") == evaluation
    assert not list(tmp_path.rglob("*.partial"))
    assert summarise(evaluation, 10)["sampled/iou"][0] == 0.5


def test_an_example_without_a_metric_counts_for_nothing(tmp_path):
    """In figures and differences, on disk too; what no example has is no figure."""
    after = evaluation_of(greedy=[0.5, np.nan, 1.0, np.nan], sampled=[np.nan] * 4)
    before = evaluation_of(greedy=[0.25, np.nan, 0.75, np.nan], sampled=[np.nan] * 4)
    assert summarise(after, 50).keys() == {"greedy/iou"}
    assert summarise(after, 50)["greedy/iou"][0] == 0.75
    assert difference(after, before, 50) == {"greedy/iou": (0.25, 0.25, 0.25)}
    save_evaluation(tmp_path / "after.json", after, 10)
    assert "NaN" not in (tmp_path / "after.json").read_text()
    again = load_evaluation(tmp_path / "after.json")
    np.testing.assert_array_equal(again.values["greedy"]["iou"], after.values["greedy"]["iou"])
    older = evaluation_of(greedy=[0.25, 0.75], sampled=[])  # a file that left the others out
    assert difference(again, older, 50) == {"greedy/iou": (0.25, 0.25, 0.25)}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    config = experiment()
    config = replace(
        config,
        task=replace(config.task, test_scenes=11),
        evaluation=replace(config.evaluation, examples=11, batch_prompts=8),
        data_dir=tmp_path_factory.mktemp("data"),
    )
    return replace(assemble(config), mesh=make_mesh(config.mesh, jax.devices()[:1]))


def spoken(parts, examples):
    """A rollout that answers every third example exactly, every third in words, others not."""
    answers = [str(example.columns["answer"]) for example in examples]
    said = [(answers[row], "there", "[1, 1, 1, 1]")[row % 3] for row in range(len(examples))]
    shown = [Demonstration(thought="7 at 1, 2", answer=answer) for answer in said]
    return batch_demonstrations(examples, shown, parts.tokenizer, thought_slots=13, answer_slots=20)


def test_every_example_counts_once_and_an_unreadable_answer_as_wrong(parts):
    """Eleven examples in batches of eight: the last batch is filled up, and cut off again."""
    source = parts.task.source(parts.config.task, parts.config.data_dir, "test")
    examples = [source[row] for row in range(11)]
    batches = [examples[:8], examples[8:] + [examples[-1]] * 5]

    def grow(params, prompts, step):
        rollout = spoken(parts, batches[int(step)])
        closed = rollout.closed.copy()
        closed[0] = False  # its thought ran out of slots: the format is broken
        return replace(rollout, closed=closed)

    found = measure(parts, grow, None, examples).values
    assert {len(values) for values in found.values()} == {11}
    rows = [row % 3 for row in range(8)] + [0, 1, 2]
    assert found["iou"] == [1.0 if kind == 0 else 0.0 for kind in rows]
    assert found["parsed"] == [0.0 if kind == 1 else 1.0 for kind in rows]
    assert found["format"] == [0.0] + [1.0] * 7 + [0.0, 1.0, 1.0]


def test_a_batch_that_devices_cannot_share_is_refused(parts):
    config = replace(parts.config, evaluation=replace(parts.config.evaluation, batch_prompts=6))
    parts = replace(parts, config=config, mesh=make_mesh(config.mesh))
    with pytest.raises(UserError, match=r"evaluation\.batch_prompts = 6 is not divisible by 8"):
        make_evaluator(parts)


def test_what_a_task_says_of_an_examples_answers_together_is_kept(parts):
    """In the place of its example, NaN where an example has none: of eleven, the odd ones."""

    def together(config, answers, example, values):
        assert len(answers) == len(values["iou"]) == 1
        row = int(example.id.rpartition("/")[2])
        return {"hit": float(values["iou"][0] > 0)} if row % 2 == 0 else {}

    source = parts.task.source(parts.config.task, parts.config.data_dir, "test")
    examples = [source[row] for row in range(11)]
    batches = [examples[:8], examples[8:] + [examples[-1]] * 5]
    parts = replace(parts, task=replace(parts.task, group_metrics=together))
    found = measure(parts, lambda p, b, step: spoken(parts, batches[int(step)]), None, examples)
    rows = [row % 3 for row in range(8)] + [0, 1, 2]
    expected = [float(rows[row] == 0) if row % 2 == 0 else np.nan for row in range(11)]
    np.testing.assert_array_equal(found.values["hit"], expected)
    assert len(found.values["iou"]) == 11
