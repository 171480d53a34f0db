"""What is found before a run writes anything: records of text that have not slots enough."""

import json
from dataclasses import replace

import pytest
from tiny_digits import experiment

from gmma.assembly import assemble
from gmma.errors import UserError
from gmma.preflight import check_batches, check_lengths, trial_examples
from gmma.tasks.mathematics import MathConfig
from gmma.types import Example


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Three hundred sums, of which the last have a long question and a long thought."""
    folder = tmp_path_factory.mktemp("sums")
    rows = [{"question": f"{n}?", "answer": "1", "thought": "so"} for n in range(298)]
    rows += [{"question": "9" * 40, "answer": "1"}, {"question": "?", "answer": "1"}]
    rows[-1]["thought"] = "7" * 50
    path = folder / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = MathConfig(train_path=path, test_path=None, held_out=1, explain=False, vocab_size=400)
    config = experiment()
    tree = replace(config.tree, prompt_tokens=41, thought_tokens=51)
    return assemble(replace(config, task=task, tree=tree, data_dir=folder / "data"))


def with_slots(parts, **slots):
    config = replace(parts.config, tree=replace(parts.config.tree, **slots))
    return replace(parts, config=config)


def test_every_record_of_text_is_read(parts):
    check_lengths(parts)
    with pytest.raises(UserError, match=r"the prompt of record train/\d+ has 41 tokens"):
        check_lengths(with_slots(parts, prompt_tokens=40))
    with pytest.raises(UserError, match=r"the thought of record train/\d+ has 51 tokens"):
        check_lengths(with_slots(parts, thought_tokens=50))


def test_prompts_of_evaluation_are_read_too(parts, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": "7" * 45, "answer": "1"}) + "\n")
    task = replace(parts.config.task, test_path=path)
    other = assemble(replace(parts.config, task=task, data_dir=tmp_path))
    with pytest.raises(UserError, match=r"the prompt of record test/0 has 46 tokens"):
        check_lengths(other)


def test_demonstrations_matter_to_sft_alone(parts):
    short = with_slots(parts, thought_tokens=50)
    without = replace(short.config, sft=replace(short.config.sft, steps=0))
    check_lengths(replace(short, config=without))


def test_rewards_are_tried_on_some_records_of_each_task():
    examples = [
        Example(
            question="", images=(), columns={"task": "rare" if n == 37 else "common"}, id=str(n)
        )
        for n in range(40)
    ]
    tried = trial_examples(examples)
    assert [example.id for example in tried] == [*map(str, range(8)), "37"]
    assert len(trial_examples([replace(e, columns={}) for e in examples])) == 8


def test_a_batch_of_a_phase_without_steps_need_not_divide(parts):
    sft = replace(parts.config.sft, batch_prompts=12)
    with pytest.raises(UserError, match=r"sft\.batch_prompts = 12"):
        check_batches(replace(parts, config=replace(parts.config, sft=sft)))
    never = replace(parts.config, sft=replace(sft, steps=0))
    check_batches(replace(parts, config=never))
