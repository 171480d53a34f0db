"""From sampled tokens to rewards, and what a batch's rewards say about its groups."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from gmma.errors import UserError
from gmma.records.metrics import compute
from gmma.rewards.service import RewardTerm, open_scorer
from gmma.run.evaluate import broken_responses
from gmma.run.samples import ScoredTrees, completion_rows, print_tree, tree_record
from gmma.scoring import (
    Measured,
    ScoredRollout,
    Scores,
    counted_answers,
    group_metrics,
    length_metrics,
    measure,
    read_texts,
    reward_metrics,
    rollout_metrics,
    score_answers,
    trees_that_differ,
    written_tokens,
)
from gmma.text.tokenizer import Tokenizer
from gmma.types import Advantages, Example, TreeRollout

NAN = np.nan
LETTERS = Tokenizer(  # a token is a character
    encode=lambda text: [ord(c) for c in text],
    decode=lambda ids: "".join(map(chr, ids)),
    token_bytes=tuple(bytes([i]) for i in range(128)),
    vocab_size=128,
    pad=0,
    bos=None,
    stop_tokens=(),
    image_token=None,
)


def rollout_of(trees):
    """Trees as [(thought, closed, [answer, …]), …] of text; slots beyond the text hold rubbish."""
    shape = len(trees), len(trees[0]), len(trees[0][0][2])
    thoughts = [thought for tree in trees for thought, _, _ in tree]
    answers = [answer for tree in trees for _, _, branch in tree for answer in branch]
    thought_tokens, answer_tokens = (slots_of(texts) for texts in (thoughts, answers))
    lengths = np.int32([len(text) for text in thoughts]).reshape(shape[:2])
    finished = np.array([a.endswith("</answer>") for a in answers]).reshape(shape)
    return TreeRollout(
        thoughts=thought_tokens.reshape(*shape[:2], -1),
        thought_lengths=lengths,
        thought_sampled=lengths,
        thought_logprobs=np.zeros((*shape[:2], thought_tokens.shape[1]), np.float32),
        closed=np.array([closed for tree in trees for _, closed, _ in tree]).reshape(shape[:2]),
        answers=answer_tokens.reshape(*shape, -1),
        answer_lengths=np.int32([len(text) for text in answers]).reshape(shape),
        answer_logprobs=np.zeros((*shape, answer_tokens.shape[1]), np.float32),
        finished=finished,
    )


def slots_of(texts):
    slots = max(map(len, texts)) + 2
    rows = [LETTERS.encode(text) + [ord("?")] * (slots - len(text)) for text in texts]
    return np.int32(rows)


@pytest.fixture(scope="module")
def rollout():
    """Two prompts, two thoughts each, two answers each."""
    box, half, broken = (f"<answer>[0, 0, {x}</answer>" for x in ("2, 2]", "1, 2]", "2"))
    first = [("it is here</think>", True, [box, half]), ("hm", False, [broken, "<answer>[0, 0"])]
    second = [("a</think>", True, [half, half]), ("bc</think>", True, [box, "no tag"])]
    return rollout_of([first, second])


def examples_with(*truths):
    return [
        Example(question="?", images=(), columns={"answer": truth}, id=f"train/{row}")
        for row, truth in enumerate(truths)
    ]


def test_texts_lose_their_tags_and_padding(rollout):
    texts = read_texts(rollout, LETTERS)
    assert texts.thoughts == (("it is here", "hm"), ("a", "bc"))
    first, second = texts.answers
    assert first == (("[0, 0, 2, 2]", "[0, 0, 1, 2]"), ("[0, 0, 2", None))
    assert second == (("[0, 0, 1, 2]", "[0, 0, 1, 2]"), ("[0, 0, 2, 2]", None))


def test_a_response_is_what_the_policy_wrote_behind_the_opened_tag(rollout):
    """A closing tag that was appended is the policy's neither as text nor as a token."""
    (closed, cut), _ = read_texts(rollout, LETTERS).responses
    assert closed[0] == "<think>it is here</think><answer>[0, 0, 2, 2]</answer>"
    assert cut == ("<think>hm<answer>[0, 0, 2</answer>", "<think>hm<answer>[0, 0")
    appended = rollout_of([[("hm</think>", False, ["<answer>7</answer>"])]])
    appended = replace(appended, thought_sampled=np.int32([[2]]))
    texts = read_texts(appended, LETTERS)
    assert texts.responses == ((("<think>hm<answer>7</answer>",),),)
    (ids,) = written_tokens(appended)
    assert LETTERS.decode(ids) == "hm<answer>7</answer>"


def test_what_broke_the_form_is_kept_as_it_was_written(rollout):
    """In the record of a tree and on the screen; of an evaluation, the whole response."""
    texts = read_texts(rollout, LETTERS)
    whole = "<answer>[0, 0, 2, 2]</answer>"
    assert texts.written[0] == ((whole, whole.replace("2, 2]", "1, 2]")), texts.written[0][1])
    assert texts.written[0][1] == ("<answer>[0, 0, 2</answer>", "<answer>[0, 0")
    assert texts.written[1][1] == (whole, "no tag")
    rewards = np.where(np.arange(8).reshape(2, 2, 2) == 3, NAN, 0.0)
    scores = Scores(rewards=rewards, terms={}, kinds={}, tasks=np.array(["", ""]))
    counted = np.ones((2, 2, 2), bool)
    trees = ScoredTrees(
        examples=tuple(examples_with([0, 0, 2, 2], [0, 0, 2, 2])),
        scored=ScoredRollout(
            texts=texts,
            scores=scores,
            counted=counted,
            measured=measure(scores, rollout, counted),
        ),
        advantages=Advantages(thought=np.zeros((2, 2)), answer=np.zeros((2, 2, 2))),
    )
    second = tree_record(trees, 1)["thoughts"][1]["answers"]
    assert [answer.get("written") for answer in second] == [None, "no tag"]
    first = tree_record(trees, 0)
    assert [thought.get("closed", True) for thought in first["thoughts"]] == [True, False]
    console = Console(file=io.StringIO(), width=100)
    print_tree(first, console)
    shown = console.file.getvalue()
    assert "form broken, written: '<answer>[0, 0'" in shown
    assert shown.count("form broken") == 1  # the other answer is whole, but for its number
    assert shown.count("ran out of slots") == 1
    assert broken_responses(texts, 0) == [
        (2, "<think>hm<answer>[0, 0, 2</answer>"),
        (3, "<think>hm<answer>[0, 0"),
    ]
    rows = completion_rows(trees)
    assert len(rows) == 8
    assert rows[0] == ("?", "it is here", "[0, 0, 2, 2]", 0.0)
    assert rows[3] == ("?", "hm", "<answer>[0, 0", None)  # what was written; it was not scored
    assert broken_responses(texts, 1) == [(3, "<think>bc</think>no tag")]


def test_rewards_are_told_of_record_answer_and_run(rollout, monkeypatch):
    def told(answers, *, thoughts, images, completion_ids, **columns):
        assert columns.keys() == {
            *("question", "id", "answer", "step", "steps"),
            *("closed", "finished", "response_tokens", "response"),
        }
        (written,), (ids,) = columns["response"], completion_ids
        assert written == "<think>" + LETTERS.decode(ids)
        assert (columns["question"], columns["answer"], images) == (["?"], [[1, 2]], [()])
        return [columns["step"][0] / columns["steps"][0] + int(columns["id"][0][-1])]

    module = type(sys)("told_rewards")
    module.told = told
    monkeypatch.setitem(sys.modules, "told_rewards", module)
    examples = examples_with([1, 2], [1, 2])
    with open_scorer((RewardTerm("told_rewards:told"),), workers=0) as scorer:
        read = read_texts(rollout, LETTERS)
        scores = score_answers(scorer, examples, rollout, read, step=3, steps=4)
    np.testing.assert_array_equal(scores.rewards, [np.full((2, 2), 0.75), np.full((2, 2), 1.75)])


def test_rewards_are_weighted_sums_in_the_order_of_the_tree(rollout):
    """IoU 1 and ½ of what is a box; format: half for a closed thought, half for a whole answer."""
    terms = (RewardTerm("box_iou"), RewardTerm("format", weight=0.1))
    examples = examples_with([0, 0, 2, 2], [0, 0, 2, 2])
    with open_scorer(terms, workers=0) as scorer:
        scores = score_answers(scorer, examples, rollout, read_texts(rollout, LETTERS))
    iou = [[[1, 0.5], [0, 0]], [[0.5, 0.5], [1, 0]]]
    form = [[[1, 1], [0.5, 0]], [[1, 1], [1, 0.5]]]
    np.testing.assert_array_equal(scores.terms["box_iou"], iou)
    np.testing.assert_array_equal(scores.terms["format"], form)
    expected = np.array(iou) + 0.1 * np.array(form)
    np.testing.assert_allclose(scores.rewards, expected, rtol=1e-6)
    found = compute(reward_metrics(scores))
    assert found["reward"] == pytest.approx(expected.mean())
    assert found["rewards/box_iou/mean"] == pytest.approx(3.5 / 8)
    assert found["rewards/box_iou/std"] == pytest.approx(np.std(iou))
    assert found["rewards/box_iou/crash"] == 0


def test_answers_without_a_readable_truth_have_no_reward_and_are_counted(rollout):
    examples = examples_with([0, 0, 2, 2], "nonsense")
    with open_scorer((RewardTerm("box_iou"),), workers=0) as scorer:
        scores = score_answers(scorer, examples, rollout, read_texts(rollout, LETTERS))
    assert np.isnan(scores.rewards[1]).all()
    found = compute(reward_metrics(scores))
    assert found["rewards/box_iou/unparsable"] == 4
    assert found["reward"] == pytest.approx(1.5 / 4)  # of the four that count


def test_a_term_with_a_task_counts_for_its_rows_alone(rollout):
    """Boxes in the first tree, words in the second; the form counts in both."""
    truths = {"boxes": [0, 0, 2, 2], "words": "[0, 0, 1, 2]"}
    examples = [
        Example(question="?", images=(), columns={"answer": truth, "task": task}, id=task)
        for task, truth in truths.items()
    ]
    terms = (
        RewardTerm("box_iou", weight=2.0, task="boxes"),
        RewardTerm("exact", task="words"),
        RewardTerm("format", weight=0.1),
    )
    for workers in (0, 1):
        with open_scorer(terms, workers=workers) as scorer:
            scores = score_answers(scorer, examples, rollout, read_texts(rollout, LETTERS))
        iou = np.array([[1, 0.5], [0, 0]])
        exact = np.array([[1, 1], [0, 0]])
        form = np.array([[[1, 1], [0.5, 0]], [[1, 1], [1, 0.5]]])
        expected = np.stack([2 * iou, exact]) + 0.1 * form
        np.testing.assert_allclose(scores.rewards, expected, rtol=1e-6)
        assert np.isnan(scores.terms["boxes/box_iou"][1]).all()
        found = compute(reward_metrics(scores))
        assert found["task/boxes/reward"] == pytest.approx(expected[0].mean())
        assert found["task/words/reward"] == pytest.approx(expected[1].mean())
        assert found["rewards/boxes/box_iou/mean"] == pytest.approx(iou.mean())
        assert found["rewards/words/exact/mean"] == pytest.approx(0.5)
        assert found["rewards/words/format/mean"] == pytest.approx(3.5 / 4)
        assert found["rewards/words/exact/unparsable"] == 0


def test_a_term_with_a_task_needs_a_dataset_that_names_tasks(rollout):
    with (
        open_scorer((RewardTerm("exact", task="words"),), workers=0) as scorer,
        pytest.raises(UserError, match="reward 'exact' is for task 'words'"),
    ):
        score_answers(scorer, examples_with("a", "b"), rollout, read_texts(rollout, LETTERS))


def test_trees_with_too_few_scored_answers_are_dropped_and_counted():
    rewards = np.float32([[[1, NAN], [NAN, NAN]], [[1, NAN], [0, NAN]], [[1, 0], [1, 0]]])
    closed = np.array([[True, True], [True, False], [True, True]])

    def counts(**given):
        counted = counted_answers(rewards, closed, **given)
        assert not counted[np.isnan(rewards)].any()
        measured = Measured(
            scores=Scores(rewards=rewards, terms={}, kinds={}, tasks=np.array([b""] * 3, "S64")),
            thought_lengths=np.ones(closed.shape, np.int32),
            answer_lengths=np.ones(rewards.shape, np.int32),
            closed=closed,
            finished=np.ones(rewards.shape, bool),
            counted=counted,
        )
        assert trees_that_differ(measured).tolist() == [False, counted[1].sum() > 1, True]
        dropped = compute(rollout_metrics(measured))["frac_groups_dropped"]
        return counted.sum(axis=(1, 2)).tolist(), dropped

    assert counts(drop_unclosed=False, min_scored=1) == ([1, 2, 4], 0)
    assert counts(drop_unclosed=False, min_scored=2) == ([0, 2, 4], pytest.approx(1 / 3))
    assert counts(drop_unclosed=True, min_scored=2) == ([0, 0, 4], pytest.approx(2 / 3))
    assert counts(drop_unclosed=False, min_scored=9) == ([0, 0, 4], pytest.approx(2 / 3))


def test_lengths_and_clipped_shares(rollout):
    found = compute(length_metrics(rollout))
    assert found["thought/completions/mean_length"] == (18 + 2 + 9 + 10) / 4
    assert found["thought/completions/max_length"] == 18
    assert found["thought/completions/min_length"] == 2
    assert found["thought/completions/clipped_ratio"] == 0.25
    assert found["answer/completions/clipped_ratio"] == 2 / 8
    assert found["num_tokens"] == rollout.thought_lengths.sum() + rollout.answer_lengths.sum()


def measured(*trees):
    return compute(group_metrics(np.float32(trees)))


def test_spread_of_groups_by_hand():
    """A tree whose thoughts differ, one whose answers do, and one where nothing does."""
    found = measured([[1, 1], [0, 0]], [[1, 0], [0, 1]], [[0.3, 0.3], [0.3, 0.3]])
    assert found == pytest.approx(
        {
            "reward_std": 1 / 3,
            "frac_reward_zero_std": 1 / 3,
            "thought/frac_reward_zero_std": 2 / 3,
            "reward_variance/between_thoughts": 0.25 / 3,
            "reward_variance/within_thoughts": 0.25 / 3,
            # 1/2 − 0, 0 − 1/4 and 0 − 0; only the first tree's thoughts differ, and K = 2
            "reward_variance/between_thoughts_corrected": 0.25 / 3,
            "thought/advantage_variance": 0,
        }
    )


def test_variances_between_and_within_add_up_to_the_whole():
    rewards = np.random.default_rng(0).random((1, 5, 3)).astype(np.float32)
    found = measured(*rewards)
    parts = found["reward_variance/between_thoughts"] + found["reward_variance/within_thoughts"]
    assert parts == pytest.approx(rewards.astype(float).var())


def test_answers_that_do_not_count_change_nothing():
    """As if they were not there; a tree with none that counts is no group at all."""
    full, nothing = [[1, 1], [0, 0]], [[NAN, NAN], [NAN, NAN]]
    alone = measured([[NAN, 1], [0, NAN]])  # an answer a thought: nothing is known of its noise
    noise = {"reward_variance/between_thoughts_corrected", "thought/advantage_variance"}
    assert alone == {n: v for n, v in measured(full).items() if n not in noise}
    assert measured(full, nothing) == measured(full)
    assert measured(nothing) == {}
    constant = measured([[NAN, 0.5], [0.5, NAN]])
    assert constant["frac_reward_zero_std"] == constant["thought/frac_reward_zero_std"] == 1


def test_rounding_of_a_mean_is_no_spread():
    """0.1 + 0.2 + 0.7 in two orders."""
    found = measured([[0.1, 0.2, 0.7], [0.7, 0.1, 0.2]])
    assert found["thought/frac_reward_zero_std"] == 1
    assert found["frac_reward_zero_std"] == 0


def test_dropped_thoughts_count_in_no_group(rollout):
    """What `unfinished = drop` masks: the rewards of thoughts that did not close."""
    rewards = np.float32([[[1, 0], [5, 7]], [[1, 0], [1, 0]]])
    dropped = np.where(rollout.closed[..., None], rewards, NAN)
    found = compute(group_metrics(dropped))
    assert found["reward_std"] == 0.5
    assert found["thought/frac_reward_zero_std"] == 1
