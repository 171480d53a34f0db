"""What is found before a run writes anything: records of text that have not slots enough."""

import json
from dataclasses import replace

import jax
import pytest
from tiny_digits import experiment

from gmma.config import (
    CheckpointConfig,
    LaunchConfig,
    MeshConfig,
    OptimizerConfig,
    RewardConfig,
    TreeConfig,
)
from gmma.errors import UserError
from gmma.hardware.sharding import make_mesh
from gmma.rewards.terms import RewardTerm
from gmma.run.assembly import assemble
from gmma.run.preflight import (
    check_attention,
    check_batches,
    check_fits_slots,
    check_settings,
    short_warmups,
    trial_examples,
    unknown_metric,
)
from gmma.sampling import GREEDY
from gmma.tasks.digits import DigitsConfig
from gmma.tasks.mathematics import MathConfig
from gmma.tasks.mixture import MixtureConfig, MixturePart
from gmma.types import Example
from gmma.update import learning_rate


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
    return assemble(
        replace(config, task=task, tree=tree, launch=LaunchConfig(data_dir=folder / "data"))
    )


def with_slots(parts, **slots):
    config = replace(parts.config, tree=replace(parts.config.tree, **slots))
    return replace(parts, config=config)


def test_every_record_of_text_is_read(parts):
    check_fits_slots(parts)
    with pytest.raises(UserError, match=r"the prompt of record train/\d+ has 41 tokens"):
        check_fits_slots(with_slots(parts, prompt_tokens=40))
    with pytest.raises(UserError, match=r"the thought of record train/\d+ has 51 tokens"):
        check_fits_slots(with_slots(parts, thought_tokens=50))


def test_prompts_of_evaluation_are_read_too(parts, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": "7" * 45, "answer": "1"}) + "\n")
    task = replace(parts.config.task, test_path=path)
    other = assemble(replace(parts.config, task=task, launch=LaunchConfig(data_dir=tmp_path)))
    with pytest.raises(UserError, match=r"the prompt of record test/0 has 46 tokens"):
        check_fits_slots(other)


def test_demonstrations_matter_to_sft_alone(parts):
    short = with_slots(parts, thought_tokens=50)
    without = replace(short.config, sft=replace(short.config.sft, steps=0))
    check_fits_slots(replace(short, config=without))


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


def ranked_by(metric, **fields):
    checkpoint = CheckpointConfig(best_metric=metric, every_steps=6)
    return replace(experiment(), checkpoint=checkpoint, **fields)


def evaluated_every(steps):
    return replace(experiment().evaluation, every_steps=steps)


NOTHING_TO_LEARN = [
    (lambda c: replace(c, sampling=GREEDY), "sampling.temperature = 0"),
    (lambda c: replace(c, tree=TreeConfig(thoughts=1, answers=1)), "tree.thoughts = 1 and tree"),
    (
        lambda c: replace(c, rewards=RewardConfig(terms=(RewardTerm("format", weight=0),))),
        "every weight of rewards.terms is 0",
    ),
]


@pytest.mark.parametrize(("change", "message"), NOTHING_TO_LEARN)
def test_settings_that_make_every_advantage_0_are_refused(change, message):
    config = change(experiment())
    with pytest.raises(UserError, match=message):
        check_settings(config)
    check_settings(replace(config, rl=replace(config.rl, steps=0)))  # imitation compares nothing


def test_a_phase_that_ends_within_its_warm_up_is_warned_of():
    """By what the schedule itself says of the last update."""
    config = experiment()
    optimizer = OptimizerConfig(learning_rate=1.0, warmup_steps=20)
    short = replace(config.sft, steps=6, optimizer=optimizer)
    (said,) = short_warmups(replace(config, sft=short))
    assert "sft.steps = 6 ends within sft.optimizer.warmup_steps = 20" in said
    assert f"reaches {float(learning_rate(optimizer, 6)(5)):.0%} of its peak" in said
    assert short_warmups(replace(config, sft=replace(short, steps=21))) == []


def test_checkpoints_are_ranked_by_what_is_measured_where_they_are():
    for steps in (0, 4, 12):
        with pytest.raises(UserError, match=rf"every_steps = {steps} steps.*, every 6; set"):
            check_settings(ranked_by("eval_sampled/iou", evaluation=evaluated_every(steps)))
    check_settings(ranked_by("eval_sampled/iou", evaluation=evaluated_every(3)))
    check_settings(ranked_by("reward", evaluation=evaluated_every(4)))


def test_a_metric_that_no_record_has_is_named_with_its_neighbours():
    names = {"reward", "reward_std", "grad_norm"}
    assert unknown_metric(ranked_by("reward"), names) is None
    assert "= rewrad is in no record" in unknown_metric(ranked_by("rewrad"), names)
    assert "near it: reward, reward_std" in unknown_metric(ranked_by("rewrad"), names)
    assert "grad_norm, reward, reward_std" in unknown_metric(ranked_by("xyz"), names)
    typo = ranked_by("eval_sampled/iuo")
    assert unknown_metric(typo, names) is None  # a step without an evaluation
    assert "near it: eval_sampled/iou." in unknown_metric(typo, {*names, "eval_sampled/iou"})
    mixed = MixtureConfig(parts=(MixturePart(task=DigitsConfig()),))
    assert unknown_metric(ranked_by("task/digits/reward", task=mixed), names) is None
    assert unknown_metric(ranked_by("task/digit/reward", task=mixed), names)


def test_a_batch_of_a_phase_without_steps_need_not_divide(parts):
    sft = replace(parts.config.sft, batch_prompts=12)
    with pytest.raises(UserError, match=r"sft\.batch_prompts = 12"):
        check_batches(replace(parts, config=replace(parts.config, sft=sft)))
    never = replace(parts.config, sft=replace(sft, steps=0))
    check_batches(replace(parts, config=never))


def test_a_tree_that_a_kernel_has_no_room_for_is_refused_before_anything_is_computed(parts):
    """On a TPU, or where the kernel is asked for; SFT alone has chains, which are shorter."""
    tree = replace(parts.config.tree, thought_tokens=20_000)

    def having(attention, **changed):
        model = replace(parts.config.model, attention=attention)
        return replace(parts, config=replace(parts.config, tree=tree, model=model, **changed))

    with pytest.raises(UserError, match=r"32768 slots at most; this one has 40069 .* to dense"):
        check_attention(having("splash"))
    check_attention(having("splash", rl=replace(parts.config.rl, steps=0)))
    for attention in ("auto", "dense"):
        check_attention(having(attention))


def test_prompts_that_copies_of_a_rollout_do_not_divide_are_named_with_their_field(parts):
    """Eight devices within a layer take any batch; four copies over two devices each do not."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=1, tensor=8), jax.devices()[:8])

    def having(**rl):
        config = replace(
            parts.config,
            rollout_params="sharded",
            rollout_tensor=2,
            rl=replace(parts.config.rl, **rl),
        )
        return replace(parts, config=config, mesh=mesh)

    check_batches(having(batch_prompts=8))
    with pytest.raises(UserError, match=r"rl\.batch_prompts = 6 .* 4 copies .*\(rollout_tensor\)"):
        check_batches(having(batch_prompts=6))
    with pytest.raises(UserError, match=r"rl\.rollout_prompts = 18 .* 4 copies"):
        check_batches(having(batch_prompts=6, rollout_prompts=18))
    check_batches(having(batch_prompts=6, steps=0))
