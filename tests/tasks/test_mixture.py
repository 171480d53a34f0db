"""The mixture: proportions, columns, terms and metrics of each part, SFT where there is a trace."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest
from small_records import on_few_records
from text_data import PLAIN, write_jsonl

from gmma import train
from gmma.config import (
    EvalConfig,
    ExperimentConfig,
    LaunchConfig,
    PhaseConfig,
    RewardConfig,
    RLConfig,
    TreeConfig,
    config_from_json,
    job_to_json,
)
from gmma.errors import UserError
from gmma.families.tiny.network import TinyConfig
from gmma.hardware.sharding import make_mesh
from gmma.images.frames import STORED_PIXELS
from gmma.images.processor import fixed_size_processor
from gmma.records.checkpoint import Progress
from gmma.records.metrics import read_records
from gmma.rewards.terms import RewardTerm
from gmma.run.assembly import assemble, reward_terms
from gmma.run.data import batch_demonstrations, batch_prompts
from gmma.run.evaluate import measure_mode
from gmma.run.feed import read_batches, read_demonstrations, read_prompts
from gmma.tasks import TASKS
from gmma.tasks.defaults import Said, draw_answers
from gmma.tasks.digits import DigitsConfig
from gmma.tasks.mathematics import MathConfig
from gmma.tasks.mixing import interleave, training_counts, turns
from gmma.tasks.mixture import MixtureConfig, MixturePart
from gmma.tasks.task import CorpusFigure, Demonstration
from gmma.text.tokenizer import load_sentencepiece

MIXTURE = TASKS["mixture"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("mixture")


@pytest.fixture(scope="module")
def config(root):
    """Digits three times as often as sums, of which every other one has a thought."""
    sums = [{**PLAIN[n % 2], "question": f"{n} / 2?"} for n in range(22)]
    path = write_jsonl(root / "sums.jsonl", sums)
    digits = DigitsConfig(train_scenes=24, validation_scenes=4, test_scenes=5)
    math = MathConfig(train_path=path, test_path=None, held_out=3, explain=False)
    return ExperimentConfig(
        name="mixture",
        task=MixtureConfig(
            parts=(MixturePart(task=digits, weight=3.0), MixturePart(task=math, label="sums")),
            vocab_size=500,
        ),
        model=TinyConfig(
            layers=1, width=16, heads=2, kv_heads=1, head_size=8, mlp=16, stem_steps=0
        ),
        tree=TreeConfig(
            thoughts=2, answers=2, prompt_tokens=48, thought_tokens=48, answer_tokens=24
        ),
        rewards=RewardConfig(
            terms=(
                RewardTerm("box_iou", task="digits"),
                RewardTerm("math", weight=2.0, task="sums"),
                RewardTerm("format", weight=0.1),
            ),
            timeout_seconds=60.0,
        ),
        sft=PhaseConfig(steps=2, batch_prompts=16),
        rl=RLConfig(steps=2, batch_prompts=16),
        evaluation=EvalConfig(examples=8, batch_prompts=8, samples=2, bootstrap=20),
        samples_every_steps=2,
        launch=LaunchConfig(data_dir=root / "data", runs_dir=root / "runs"),
    )


@pytest.fixture(scope="module")
def parts(config):
    return assemble(config)


@pytest.mark.parametrize("counts", [(5, 5), (1, 9), (7, 2, 4), (3,)])
def test_parts_are_spread_evenly(counts):
    """After n rows each part has had its share of them, give or take one."""
    order = interleave(counts)
    for part, count in enumerate(counts):
        so_far = np.cumsum(order == part)
        share = np.arange(1, len(order) + 1) * count / sum(counts)
        assert np.abs(so_far - share).max() <= 1
        assert so_far[-1] == count


def test_an_epoch_holds_every_record_and_keeps_the_proportion():
    for lengths, weights in itertools.product([(10, 70), (300, 7)], [(1.0, 1.0), (0.2, 3.0)]):
        counts = training_counts(lengths, weights)
        assert all(count >= length for count, length in zip(counts, lengths, strict=True))
        assert counts[0] / counts[1] == pytest.approx(weights[0] / weights[1], rel=0.1)
    assert turns([2, 4, 1]).tolist() == [0, 1, 2, 0, 1, 1, 1]


def test_every_example_names_its_task_and_has_every_column(config, parts):
    mixed = MIXTURE.source(config.task, config.launch.data_dir, "train")
    examples = [mixed[row] for row in range(len(mixed))]
    tasks = [example.columns["task"] for example in examples]
    assert tasks.count("digits") == 3 * tasks.count("sums") == 48
    assert len({example.id for example in examples}) == 24 + 16
    assert len({frozenset(example.columns) for example in examples}) == 1
    for example in examples:
        assert example.id.startswith(f"{example.columns['task']}/train/")
        assert (example.columns["labels"] is None) == (not example.images)
    test = MIXTURE.source(config.task, config.launch.data_dir, "test")
    assert [test[row].columns["task"] for row in range(len(test))] == [
        *["digits", "sums"] * 3,
        *["digits"] * 2,
    ]


def test_sft_reads_records_with_a_trace_and_rl_reads_all(config, parts):
    mixed = MIXTURE.source(config.task, config.launch.data_dir, "train")
    shown = MIXTURE.demonstrated_rows(config.task, config.launch.data_dir)
    for row in range(len(mixed)):
        example = mixed[row]
        traced = bool(example.images) or example.columns["solution"] == "half"
        assert (row in shown) == traced
        demonstration = MIXTURE.demonstrate(config.task, example, np.random.default_rng(0))
        assert (demonstration is not None) == traced
    seen = {"sft": set(), "rl": set()}
    for phase, ids in seen.items():
        for batch in itertools.islice(read_batches(parts, phase), 8):
            ids |= {example.id for example in batch.examples}
            if phase == "sft":
                read_demonstrations(parts, batch)
    assert seen["sft"] < seen["rl"]
    assert len(seen["rl"]) == 40


def test_prompts_with_and_without_pictures_share_a_batch(parts):
    batch = next(read_batches(parts, "rl"))
    prompts = read_prompts(parts, batch.examples)
    assert prompts.images.shape == (16, 1, 48, 48, 3)
    placeholders = (prompts.tokens == parts.tokenizer.image_token).sum(axis=1)
    assert placeholders.tolist() == [16 * len(example.images) for example in batch.examples]
    assert 0 < np.count_nonzero(placeholders) < 16


def test_metrics_are_each_parts_own(config, parts):
    test = MIXTURE.source(config.task, config.launch.data_dir, "test")
    examples = [test[0], test[1], test[1]]
    answers = [str(examples[0].columns["answer"]), examples[1].columns["answer"], "nonsense"]
    found = MIXTURE.metrics(config.task, answers, examples)
    nan = pytest.approx(np.nan, nan_ok=True)
    assert found["digits/iou"] == [1, nan, nan]
    assert found["sums/accuracy"] == [nan, 1, 0]
    assert found["score"] == [1, 1, 0]
    together = MIXTURE.group_metrics(
        config.task, ["0.5", "7"], test[1], {"sums/accuracy": [1, 0], "digits/iou": [9, 9]}
    )
    assert together == {"sums/pass@1": 0.5, "sums/pass@2": 1.0, "sums/maj@2": 0.5}  # a tie
    assert MIXTURE.group_metrics(config.task, ["a", "b"], test[0], {}) == {}
    for row in (0, 1):
        shown = draw_answers(MIXTURE, config.task, test[row], [Said(answer=answers[row])])
        assert shown.width == 720


def test_evaluation_gives_each_metric_the_examples_it_is_about(config, parts):
    """Eight examples, five of digits and three of sums, all answered as the truth has it."""
    test = MIXTURE.source(config.task, config.launch.data_dir, "test")
    examples = [test[row] for row in range(8)]
    shown = [Demonstration(thought="", answer=str(e.columns["answer"])) for e in examples]
    slots = {"thought_slots": 9, "answer_slots": 40}
    rollout = batch_demonstrations(examples, shown, parts.tokenizer, **slots)
    parts = replace(parts, mesh=make_mesh(config.launch.mesh, jax.devices()[:1]))
    found = measure_mode(parts, lambda params, prompts, step: rollout, None, examples).values
    assert found["score"] == found["format"] == found["parsed"] == [1.0] * 8
    digits = np.array([example.columns["task"] == "digits" for example in examples])
    assert digits.sum() == 5
    np.testing.assert_array_equal(found["digits/iou"], np.where(digits, 1.0, np.nan))
    for name in ("accuracy", "pass@1", "maj@1"):
        np.testing.assert_array_equal(found[f"sums/{name}"], np.where(digits, np.nan, 1.0))


def test_the_stem_is_taught_by_the_first_part_that_can(config):
    rng = np.random.default_rng(0)
    assert MIXTURE.patches(config.task, rng, 5, 12).pixels.shape == (5, 12, 12, 3)
    text = replace(config.task, parts=config.task.parts[1:])
    with pytest.raises(UserError, match="none of sums can teach the patch stem"):
        MIXTURE.patches(text, rng, 5, 12)


def test_a_figure_of_a_whole_split_is_taken_on_the_parts_own_examples(config, parts, monkeypatch):
    from gmma.tasks import mixture

    def count(config, answers, examples, picks):
        assert all("task" not in example.columns for example in examples)
        return {"count": CorpusFigure(value=len(examples), resampled=picks.max(axis=1) * 1.0)}

    digits = replace(TASKS["digits"], corpus=count)
    monkeypatch.setattr(mixture, "find_task", {**TASKS, "digits": digits}.__getitem__)
    test = MIXTURE.source(config.task, config.launch.data_dir, "test")
    examples = [test[row] for row in range(8)]
    picks = np.zeros((7, 8), int)
    found = mixture.corpus(config.task, [""] * 8, examples, picks)
    assert found["digits/count"].value == 5
    assert found["digits/count"].resampled.shape == (7,)
    assert found["digits/count"].resampled.max() == 4


def test_frames_and_changes_are_each_parts_own(config, parts, monkeypatch):
    from gmma.tasks import mixture

    def shift(config, example, *_):
        assert "task" not in example.columns
        return replace(example, columns={**example.columns, "answer": "shifted"})

    digits = replace(TASKS["digits"], in_frame=shift, augment=shift)
    monkeypatch.setattr(mixture, "find_task", {**TASKS, "digits": digits}.__getitem__)
    test = MIXTURE.source(config.task, config.launch.data_dir, "test")
    other = test[1]
    changes = ((mixture.in_frame, STORED_PIXELS), (mixture.augment, np.random.default_rng(0)))
    for change, given in changes:
        changed = change(config.task, test[0], given)
        assert changed.columns == {**test[0].columns, "answer": "shifted"}
        assert change(config.task, other, given) is other


def test_the_tokenizer_knows_the_text_of_every_part(config, parts):
    tokenizer = parts.tokenizer
    assert tokenizer.vocab_size <= 500
    for text in ("Where is the 7?<think>", "21 / 2?<think>", "half</think>", "ü▁"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("Where is the ")) < 8
    assert len(tokenizer.encode("half</think>")) < 4


def test_a_part_gives_its_own_options_to_its_terms(config):
    sums = replace(config.task.parts[1].task, relative_tolerance=0.5)
    parts = (config.task.parts[0], replace(config.task.parts[1], task=sums))
    changed = replace(config, task=replace(config.task, parts=parts))
    options = [term.options for term in reward_terms(changed)]
    assert options == [(("reading", "lenient"),), (("relative_tolerance", 0.5),), ()]


def test_a_config_survives_json(config, root):
    assert config_from_json(job_to_json(config), root / "config.json") == config


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((RewardTerm("math", task="maths"),), "for task 'maths'; the parts are digits, sums"),
        ((RewardTerm("math", task="sums"),), "no term of the reward is for task 'digits'"),
    ],
)
def test_terms_and_parts_must_fit(config, terms, message):
    with pytest.raises(UserError, match=message):
        replace(config, rewards=RewardConfig(terms=terms))


def test_a_term_with_a_task_needs_a_mixture(config):
    with pytest.raises(UserError, match="only a mixture has parts"):
        replace(config, task=DigitsConfig())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda part: MixtureConfig(parts=()), "the parts are none"),
        (lambda part: MixtureConfig(parts=(part, part)), "a label of its own"),
        (lambda part: replace(part, weight=0.0), "weight of digits is 0.0"),
        (lambda part: replace(part, label="a/b"), "must hold no /"),
        (lambda part: replace(part, label="ü" * 33), "no more than 64 bytes"),
    ],
)
def test_bad_mixtures_are_refused(config, make, message):
    with pytest.raises(UserError, match=message):
        make(config.task.parts[0])


def test_a_mixture_trains_by_sft_then_rl(config, parts):
    """Two steps of each: rows with and without pictures, terms and metrics of each task."""
    parts = replace(parts, mesh=make_mesh(config.launch.mesh, jax.devices()[:1]))
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with jax.numpy_dtype_promotion("standard"), train.open_run(parts) as (run, _):
            start = Progress(phase="sft", phase_step=0, data={})
            train.reinforce(run, train.imitate(run, start, None))
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    records = [r for r in read_records(config.run_dir / "metrics.jsonl") if r["phase"] == "rl"]
    assert [record["compilations"] > 0 for record in records] == [True, False]
    named = {"task/digits/reward", "task/sums/reward", "rewards/digits/box_iou/mean"}
    named |= {"rewards/sums/math/mean", "rewards/sums/format/mean", "rewards/digits/format/mean"}
    assert all(named <= record.keys() for record in records)
    assert (config.run_dir / "samples/step_000004/image.png").exists()


@pytest.fixture(scope="module")
def every(root):
    """All tasks but the simulator's in one mixture, over a few records each."""
    configs = [TASKS[name].config() for name in TASKS if name not in ("manipulation", "mixture")]
    whole = MixtureConfig(parts=tuple(MixturePart(task=c) for c in configs), vocab_size=900)
    folder = root / "every"
    folder.mkdir()
    return on_few_records(whole, folder)


def test_every_task_can_be_a_part(every, root):
    """From record to prompt, demonstration, verdict and picture, in a model's coordinates."""
    MIXTURE.build(every, root / "every_data")
    tokenizer = load_sentencepiece(MIXTURE.tokenizer_path(every, root / "every_data"))
    processor = fixed_size_processor(4, 24, 2)
    stored = MIXTURE.source(every, root / "every_data", "train")
    rng = np.random.default_rng(0)
    examples = [
        MIXTURE.in_frame(every, MIXTURE.augment(every, stored[row], rng), processor.frame)
        for row in range(2 * len(every.parts))
    ]
    assert {example.columns["task"] for example in examples} == set(every.titles)
    prompts = batch_prompts(examples, tokenizer, prompt_slots=800, processor=processor)
    assert prompts.images.shape == (len(examples), 2, 24, 24, 3)
    shown = [MIXTURE.demonstrate(every, example, rng) for example in examples]
    found = MIXTURE.metrics(every, [one.answer for one in shown], examples)
    assert set(found) >= {f"{title}/parsed" for title in every.titles}
    assert found["parsed"] == [1.0] * len(examples)
    for example, one in zip(examples, shown, strict=True):
        assert draw_answers(MIXTURE, every, example, [Said(answer=one.answer)]).width == 720
