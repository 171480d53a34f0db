"""Rewards that tell no answer from another are said to be so, once, and others are not."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest
import tiny_digits

from gmma.cli import main
from gmma.config import LaunchConfig, RewardConfig
from gmma.rewards.terms import RewardTerm
from gmma.run.assembly import assemble, run_scorer
from gmma.run.feed import read_batches
from gmma.run.preflight import trial_examples, try_rewards
from gmma.run.reward_trial import alike_words, count_alike, trial_warnings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return assemble(
        replace(
            tiny_digits.experiment(), launch=LaunchConfig(data_dir=tmp_path_factory.mktemp("data"))
        )
    )


@pytest.fixture
def warnings_of(parts, tmp_path, monkeypatch):
    """What the trial says of terms, the functions of which are in this source."""
    monkeypatch.syspath_prepend(tmp_path)

    def say(*terms, source=""):
        (tmp_path / "my_module.py").write_text(source)
        sys.modules.pop("my_module", None)
        config = replace(parts.config, rewards=RewardConfig(terms=terms, workers=0))
        examples = trial_examples(next(read_batches(parts, "rl")).examples)
        with run_scorer(config) as scorer:
            return trial_warnings(replace(parts, config=config), scorer, examples)

    yield say
    sys.modules.pop("my_module", None)


def documented_example():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tasks.md").read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "import re" in block]
    return found


def test_the_documented_reward_is_right_on_the_default_job(parts, warnings_of):
    """Its own code block, on records of digits: a true box is 1, another's and nothing are 0."""
    assert warnings_of(RewardTerm("my_module:my_function"), source=documented_example()) == []
    scope: dict = {}
    exec(documented_example(), scope)
    examples = next(read_batches(parts, "rl")).examples
    truths = [example.columns["answer"] for example in examples]

    def score(answers):
        return scope["my_function"](answers, thoughts=[""] * len(answers), answer=truths)

    assert score([str(true) for true in truths]) == [1.0] * len(truths)
    assert score([str([a + 9 for a in true]) for true in truths]) == [0.0] * len(truths)
    for nothing in ("", "there", "[1, 2]", "[1, 2, 3, 4, 5]"):
        assert score([nothing] * len(truths)) == [0.0] * len(truths)


def test_the_trial_prints_values_answer_and_columns_of_each_record(parts, warnings_of):
    """Of a reward of the user's own, in whatever signature; gmma's own are known to work."""
    source = "def lengths(completions, **kwargs):\n    return [len(one) for one in completions]\n"
    own = RewardTerm("my_module:lengths")
    warnings_of(own, source=source)  # which also makes it importable
    examples = trial_examples(next(read_batches(parts, "rl")).examples)

    def tried(*terms):
        rewards = RewardConfig(terms=terms, workers=0)
        with run_scorer(replace(parts.config, rewards=rewards)) as scorer:
            return try_rewards(scorer, tuple(examples))

    assert tried(RewardTerm("format")) == []
    title, *lines = tried(own, RewardTerm("format", weight=0.1))
    assert title == "the rewards of true answers, as text:"
    for line, example in zip(lines, examples, strict=True):
        truth = str(example.columns["answer"])
        value = len(f"<think></think><answer>{truth}</answer>")
        assert line.startswith(f"  my_module:lengths {value}, format 1 for '{truth}'; ")
        assert f"answer={truth}" in line


TEXT_IS_NO_LIST = """
def my_function(answers, *, thoughts, answer, **columns):
    return [float(said == true) for said, true in zip(answers, answer)]

def of_form(answers, *, thoughts, finished, **columns):
    return [float(done) for done in finished]
"""


def test_a_reward_that_never_differs_is_named_with_what_it_was_given(warnings_of):
    """Text is never equal to a list of numbers."""
    own = RewardTerm("my_module:my_function")
    (said,) = warnings_of(own, RewardTerm("format", weight=0.1), source=TEXT_IS_NO_LIST)
    assert "reward 'my_module:my_function' gave 0 to each of" in said
    response = r"the response '<think>.*</answer>'"
    assert re.search(
        rf"is the text '\[\d+, .*', {response}, its column answer the list \[\d+, ", said
    )
    assert "docs/tasks.md" in said


def test_rewards_that_differ_in_the_trial_are_not_warned_of(warnings_of):
    assert warnings_of(RewardTerm("box_iou"), RewardTerm("format", weight=0.1)) == []
    assert warnings_of(RewardTerm("my_module:of_form"), source=TEXT_IS_NO_LIST) == []


def test_a_sum_that_never_differs_is_named(warnings_of):
    """A term that is only logged does not count."""
    source = "def one(answers, **columns):\n    return [1.0] * len(answers)\n"
    assert warnings_of(RewardTerm("soft_overlong", options=(("limit_tokens", 25),))) == []
    (said,) = warnings_of(RewardTerm("soft_overlong", options=(("limit_tokens", 10**6),)))
    assert "the weighted sum of rewards is 0 for each of" in said
    (said,) = warnings_of(
        RewardTerm("my_module:one"), RewardTerm("box_iou", weight=0), source=source
    )
    assert "'my_module:one' gave 1 to each" in said


def test_steps_alike_are_counted_in_a_row_and_said_once():
    shares = [1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0]
    counts, count = [], 0
    for share in shares:
        count = count_alike(count, 3, {"frac_reward_zero_std": share})
        counts.append(count)
    assert counts.count(3) == 1
    assert counts.index(3) == 5
    assert count_alike(2, 3, {"loss": 1.0}) == 0  # SFT compares nothing
    said = alike_words(3, {"reward": 0.0})
    assert "frac_reward_zero_std = 1 for 3 steps in a row (reward 0)" in said


def test_a_run_of_nothing_but_zeros_says_so(tmp_path, monkeypatch, capfd):
    """Once in the trial, once in its steps, and trains on: it may be meant so."""
    (tmp_path / "my_module.py").write_text(TEXT_IS_NO_LIST)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = ["--rewards.terms.0.name", "my_module:my_function", "--rewards.workers", "0"]
    arguments += ["--rewards.alike-steps", "2", "--sft.steps", "0", "--rl.steps", "4"]
    arguments += ["--rewards.terms.1.weight", "0", "--evaluation.every-steps", "0"]
    arguments += ["--evaluation.examples", "99"]
    with jax.numpy_dtype_promotion("standard"):
        main(["train", str(ROOT / "tests/tiny_digits.py"), *arguments])
    printed = capfd.readouterr()
    # What there is now, not what was asked for: the config is written when all is checked.
    assert "evaluating on 8 test examples" in printed.out
    checked, written = map(printed.out.index, ("the rewards of true answers", "whole config: "))
    assert checked < written
    said = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
    assert len(said) == 2
    assert "reward 'my_module:my_function' gave 0 to each of" in said[0]
    assert "frac_reward_zero_std = 1 for 2 steps in a row" in said[1]
    sys.modules.pop("my_module", None)
