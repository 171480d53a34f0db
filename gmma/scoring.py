"""`score_trees`: from sampled tokens to rewards, on the host."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, Int8, Shaped

from gmma.advantage import value_rounding
from gmma.errors import UserError
from gmma.hardware.hosts import gather_rows
from gmma.options.prompt import DEFAULT_TAGS, Tags
from gmma.records.diagnostics import spread_of, thought_noise
from gmma.records.metrics import mean, mean_of
from gmma.rewards.outcomes import KINDS, SCORED
from gmma.rewards.service import Scorer, weighted_rewards
from gmma.rewards.terms import OF_ANSWERS
from gmma.text.prompt import Response, read_response
from gmma.text.tokenizer import Tokenizer
from gmma.types import Example, Metric, TreeRollout, pytree

TASK_NAME = "S64"  # a task's name in bytes, so that it travels between hosts as a row of an array


@dataclass(frozen=True, kw_only=True)
class TreeTexts:
    """Texts of the trees of a batch, row by row in the order (b, i, j)."""

    thoughts: tuple[tuple[str, ...], ...]  # [B][K], without the closing tag
    answers: tuple[tuple[tuple[str | None, ...], ...], ...]  # [B][K][M]; None: none to read
    well_formed: Bool[np.ndarray, "B K M"]  # with nothing but white space before the answer
    closed: Bool[np.ndarray, "B K"]  # thoughts that ended by themselves
    written: tuple[tuple[tuple[str, ...], ...], ...]  # [B][K][M]; all that follows the thought
    responses: tuple[tuple[tuple[str, ...], ...], ...]  # [B][K][M]; all that the policy wrote


@pytree
class Scores:
    """Rewards of every answer, and each named term apart. NaN: could not be scored."""

    rewards: Float[np.ndarray, "B K M"]
    terms: dict[str, Float[np.ndarray, "B K M"]]
    kinds: dict[str, Int8[np.ndarray, "B K M"]]  # what became of it, by term: where in KINDS
    tasks: Shaped[np.ndarray, "B"]  # names in bytes, of a mixture's tasks; else empty


@pytree
class Measured:
    """Inputs of a step's metrics: a few numbers an answer, so every host can have all."""

    scores: Scores
    thought_lengths: Int[np.ndarray, "B K"]
    answer_lengths: Int[np.ndarray, "B K M"]
    closed: Bool[np.ndarray, "B K"]
    finished: Bool[np.ndarray, "B K M"]
    counted: Bool[np.ndarray, "B K M"]  # answers that count in their tree's statistics


@dataclass(frozen=True, kw_only=True)
class ScoredRollout:
    """Outcome of `score_trees`: rows of this host's trees, and what is measured of all hosts'."""

    texts: TreeTexts
    scores: Scores
    counted: Bool[np.ndarray, "b K M"]  # this host's rows of that
    measured: Measured


def score_trees(
    scorer: Scorer,
    examples: Sequence[Example],
    rollout: TreeRollout,
    tokenizer: Tokenizer,
    *,
    mesh: Mesh,
    drop_unclosed: bool,
    min_scored: int,
    step: int,
    steps: int,
    tags: Tags = DEFAULT_TAGS,
) -> ScoredRollout:
    """Read a fetched rollout, reward every answer, and say which ones count.

    Rewards are told that `step` of `steps` steps of RL are done.
    `rollout` and `examples` are this host's rows of a batch that is cut over `mesh`; `measured` is
    of the whole batch, on every host.
    """
    texts = read_texts(rollout, tokenizer, tags)
    scores = score_answers(scorer, examples, rollout, texts, step=step, steps=steps)
    counted = counted_answers(
        scores.rewards, rollout.closed, drop_unclosed=drop_unclosed, min_scored=min_scored
    )
    measured: Measured = gather_rows(measure(scores, rollout, counted), mesh)
    return ScoredRollout(texts=texts, scores=scores, counted=counted, measured=measured)


def read_texts(rollout: TreeRollout, tokenizer: Tokenizer, tags: Tags = DEFAULT_TAGS) -> TreeTexts:
    """Read a rollout that has been fetched to the host, path by path (`read_response`)."""

    def spell(tokens: Int[np.ndarray, "length"]) -> bytes:
        return b"".join(tokenizer.token_bytes[token] for token in tokens.tolist())

    def read_branch(b: int, i: int) -> list[Response]:
        thought = spell(rollout.thoughts[b, i, : rollout.thought_lengths[b, i]])
        nodes = zip(rollout.answers[b, i], rollout.answer_lengths[b, i], strict=True)
        return [read_response(thought, spell(answer[:length]), tags) for answer, length in nodes]

    def join_branch(b: int, i: int) -> tuple[str, ...]:
        own = rollout.thoughts[b, i, : rollout.thought_sampled[b, i]]
        nodes = zip(rollout.answers[b, i], rollout.answer_lengths[b, i], strict=True)
        written = [spell(own) + spell(answer[:length]) for answer, length in nodes]
        return tuple(tags.think[0] + text.decode(errors="replace") for text in written)

    batch, thoughts = rollout.closed.shape
    read = [[read_branch(b, i) for i in range(thoughts)] for b in range(batch)]

    def each(field: str) -> tuple[tuple[tuple[Any, ...], ...], ...]:
        return tuple(tuple(tuple(getattr(r, field) for r in branch) for branch in t) for t in read)

    return TreeTexts(
        thoughts=tuple(tuple(branch[0].thought for branch in tree) for tree in read),
        answers=each("answer"),
        well_formed=np.array(each("well_formed")),
        closed=np.asarray(rollout.closed),
        written=each("written"),
        responses=tuple(tuple(join_branch(b, i) for i in range(thoughts)) for b in range(batch)),
    )


def score_answers(
    scorer: Scorer,
    examples: Sequence[Example],
    rollout: TreeRollout,
    texts: TreeTexts,
    *,
    step: int = 0,
    steps: int = 1,
) -> Scores:
    """Return the reward of every answer: the weighted sum of the scorer's terms.

    A term may ask for what `reward_columns` has. Where no answer can be read the terms get an empty
    string.
    """
    shape = rollout.finished.shape
    scored = scorer.score(**scorer_inputs(examples, rollout, texts, step=step, steps=steps))
    rewards = weighted_rewards(scored, scorer.terms).reshape(shape)
    terms = {
        term.label: scored.values[:, index].reshape(shape).astype(np.float32)
        for index, term in enumerate(scorer.terms)
    }
    kinds = {
        term.label: scored.kinds[:, index].reshape(shape) for index, term in enumerate(scorer.terms)
    }
    tasks = [str(example.columns.get("task", "")).encode() for example in examples]
    return Scores(rewards=rewards, terms=terms, kinds=kinds, tasks=np.array(tasks, TASK_NAME))


def scorer_inputs(
    examples: Sequence[Example], rollout: TreeRollout, texts: TreeTexts, *, step: int, steps: int
) -> dict[str, Any]:
    """Return the arguments of a scorer's call for every answer of a rollout, (b, i, j) in order."""
    shape = rollout.finished.shape
    answers = [answer for tree in texts.answers for branch in tree for answer in branch]
    lengths = rollout.thought_lengths[..., None] + rollout.answer_lengths
    of_answers = {
        "closed": np.repeat(rollout.closed.ravel(), shape[2]).tolist(),
        "finished": texts.well_formed.ravel().tolist(),
        "response_tokens": lengths.ravel().tolist(),
        "response": [text for tree in texts.responses for branch in tree for text in branch],
        "completion_ids": written_tokens(rollout),
    }
    repeated = [example for example in examples for _ in range(shape[1] * shape[2])]
    return {
        "answers": [answer or "" for answer in answers],
        "thoughts": [t for tree in texts.thoughts for t in tree for _ in range(shape[2])],
        "columns": reward_columns(repeated, of_answers, step=step, steps=steps),
    }


def reward_columns(
    examples: Sequence[Example], of_answers: Mapping[str, Sequence[Any]], *, step: int, steps: int
) -> dict[str, Sequence[Any]]:
    """Return what rewards get by keyword, one entry an answer; `examples` holds one an answer, too.

    Every column of the record, None where it lacks one of another's; `question`, `images` and `id`,
    unless the record has such a column; `step` and `steps`; and of the answer: `closed` (the
    thought closed by itself), `finished` (the answer is well formed), `response_tokens` (of thought
    and answer), `response` (all that the policy wrote behind `<think>`, as text) and
    `completion_ids` (as tokens). Raises UserError where a record has a column that is said of the
    answer.
    """
    names = dict.fromkeys(name for example in examples for name in example.columns)
    if taken := sorted(names.keys() & set(OF_ANSWERS)):
        raise UserError(
            f"the records have the column {', '.join(taken)}, which gmma says of each answer; "
            "rename it"
        )
    of_records: dict[str, Sequence[Any]] = {
        "question": [example.question for example in examples],
        "images": [example.images for example in examples],
        "id": [example.id for example in examples],
    }
    own = {name: [example.columns.get(name) for example in examples] for name in names}
    of_run = {"step": [step] * len(examples), "steps": [steps] * len(examples)}
    return {**of_records, **own, **of_answers, **of_run}


def written_tokens(rollout: TreeRollout) -> list[list[int]]:
    """Return the tokens that the policy sampled for each response, in the order (b, i, j)."""
    batch, thoughts, answers = rollout.finished.shape
    found = []
    for b in range(batch):
        for i in range(thoughts):
            thought = rollout.thoughts[b, i, : rollout.thought_sampled[b, i]].tolist()
            found += [
                thought + rollout.answers[b, i, j, : rollout.answer_lengths[b, i, j]].tolist()
                for j in range(answers)
            ]
    return found


def measure(scores: Scores, rollout: TreeRollout, counted: Bool[np.ndarray, "B K M"]) -> Measured:
    """Collect what the metrics need from a fetched and scored rollout."""
    return Measured(
        scores=scores,
        thought_lengths=rollout.thought_lengths,
        answer_lengths=rollout.answer_lengths,
        closed=rollout.closed,
        finished=rollout.finished,
        counted=counted,
    )


def rollout_metrics(measured: Measured) -> dict[str, Metric]:
    """Measure rewards, their spread within trees where they count, and lengths of a batch."""
    dropped = ~measured.counted.any(axis=(1, 2))
    return {
        **reward_metrics(measured.scores),
        **group_metrics(counted_rewards(measured)),
        **length_metrics(measured),
        "frac_groups_dropped": mean_of(dropped.astype(float)),
    }


def counted_rewards(measured: Measured) -> Float[np.ndarray, "B K M"]:
    """Return the rewards of answers that count, NaN for the others."""
    return np.where(measured.counted, measured.scores.rewards, np.nan)


def trees_that_differ(measured: Measured) -> Bool[np.ndarray, "B"]:
    """Return which trees teach anything: two of their answers count, with two rewards."""
    flat = counted_rewards(measured).reshape(len(measured.counted), -1)
    return spread_of(flat, np.isfinite(flat)) > 0


def reward_metrics(scores: Scores) -> dict[str, Metric]:
    """Measure rewards under TRL's names.

    `reward`, each term's mean and standard deviation over the batch (population), and how many
    answers could not be scored, by kind.
    """
    metrics = {"reward": mean_of(scores.rewards)}
    for name, values in scores.terms.items():
        held = values[np.isfinite(values)].astype(np.float64)
        metrics[f"rewards/{name}/mean"] = mean_of(values)
        metrics[f"rewards/{name}/std"] = mean(held.std() if held.size else 0, held.size > 0)
        for at, kind in enumerate(KINDS):
            if kind != SCORED:
                metrics[f"rewards/{name}/{kind}"] = mean((scores.kinds[name] == at).sum(), 1)
    return metrics | task_metrics(scores)


def task_metrics(scores: Scores) -> dict[str, Metric]:
    """Measure `task/{task}/reward` and `rewards/{task}/{term}/mean` of each task of a mixture.

    A term that is for one task alone has its mean among the terms already.
    """
    metrics = {}
    for name_in_bytes in sorted(set(scores.tasks.tolist()) - {b""}):
        rows, task = scores.tasks == name_in_bytes, name_in_bytes.decode()
        metrics[f"task/{task}/reward"] = mean_of(scores.rewards[rows])
        for name, values in scores.terms.items():
            if "/" not in name:
                metrics[f"rewards/{task}/{name}/mean"] = mean_of(values[rows])
    return metrics


def counted_answers(
    rewards: Float[np.ndarray, "B K M"],
    closed: Bool[np.ndarray, "B K"],
    *,
    drop_unclosed: bool,
    min_scored: int,
) -> Bool[np.ndarray, "B K M"]:
    """Return which answers count in their tree's statistics.

    Left out are answers without a reward (NaN) and, with `drop_unclosed`, those to a thought that
    did not close. A tree in which fewer than `min_scored` remain, or than all where it has not so
    many, is dropped whole: what little is left says nothing about how its answers compare.
    """
    counted = np.isfinite(rewards)
    if drop_unclosed:
        counted &= closed[..., None]
    enough = counted.sum(axis=(1, 2)) >= min(min_scored, counted[0].size)
    return counted & enough[:, None, None]


def group_metrics(rewards: Float[np.ndarray, "B K M"]) -> dict[str, Metric]:
    """Measure the spread within a prompt's tree, and the share of groups that teach nothing.

    An answer whose reward is NaN does not count, nor does a tree where none does. A thought's value
    is the mean of its answers that count. `frac_reward_zero_std` counts trees whose rewards are all
    equal, its `thought/` version those whose values are: both have advantage zero. Variances are
    the population's, in reward²; the within-thought one is the mean over thoughts, so that the two
    add up to the whole variance where every answer counts. `thought_noise` has what M ≥ 2 answers
    say besides.
    """
    held = np.ma.masked_invalid(rewards.astype(np.float64))
    flat, values = held.reshape(len(rewards), -1), held.mean(axis=2)
    spread = flat.max(axis=1) - flat.min(axis=1)
    value_spread = values.max(axis=1) - values.min(axis=1)
    rounding = value_rounding(spread, np.float32)  # as `thought_advantages` has it
    metrics = {
        "reward_std": flat.std(axis=1),
        "frac_reward_zero_std": spread == 0,
        "thought/frac_reward_zero_std": value_spread <= rounding,
        "reward_variance/between_thoughts": values.var(axis=1),
        "reward_variance/within_thoughts": held.var(axis=2).mean(axis=1),
    }
    found = {n: mean_of(np.ma.filled(v.astype(np.float64), np.nan)) for n, v in metrics.items()}
    return found | {name: mean_of(values) for name, values in thought_noise(rewards).items()}


def length_metrics(measured: Measured | TreeRollout) -> dict[str, Metric]:
    """Measure lengths in tokens, and how often a thought or an answer ended by itself.

    `num_tokens` is this step's, forced closing tags included and prompts not; TRL's metric of that
    name adds up over the run, with prompts.
    """
    thoughts, answers = measured.thought_lengths, measured.answer_lengths
    return {
        "thought/completions/mean_length": mean_of(thoughts.astype(np.float32)),
        "thought/completions/min_length": mean(thoughts.min(), 1),
        "thought/completions/max_length": mean(thoughts.max(), 1),
        "thought/completions/clipped_ratio": mean_of(1.0 - measured.closed),
        "answer/completions/mean_length": mean_of(answers.astype(np.float32)),
        "answer/completions/min_length": mean(answers.min(), 1),
        "answer/completions/max_length": mean(answers.max(), 1),
        "answer/completions/clipped_ratio": mean_of(1.0 - measured.finished),
        "num_tokens": mean(int(thoughts.sum()) + int(answers.sum()), 1),
    }
