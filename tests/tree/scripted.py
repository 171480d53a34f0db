"""A policy that writes what it is told, so that a rollout can be tried on chosen texts."""

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmma.huggingface.tokenizers import fit_vocabulary
from gmma.models.attention import Level, Slots
from gmma.models.cache import NewTokens, TreeCache
from gmma.models.policy import Policy
from gmma.rewards.service import RewardTerm, open_scorer
from gmma.rollout import grow_tree
from gmma.sampling import GREEDY
from gmma.scoring import read_texts, score_answers
from gmma.text.tokenizer import Tokenizer
from gmma.tree import TreeShape
from gmma.tree.stops import TreeStops, tree_stops
from gmma.types import Example, PromptBatch

BETWEEN = ("", " ", "\n", "\n\n", "  \n", "\t", " \n\n ", "\r\n", "\n\n\n", " \t ")
SURE = 100.0  # a logit that no other token comes near


def scripted_policy(vocab_size: int) -> Policy:
    """Its parameters are `int[B N]`, the tokens of each row behind a prompt of one token.

    A hidden state is the row's next token; the cache holds nothing.
    """

    def prefill(script: Any, prompts: PromptBatch) -> tuple[Any, TreeCache]:
        batch = script.shape[0]
        slots = Slots(
            positions=jnp.zeros((batch, 1, 1, 1), jnp.int32), valid=jnp.ones((batch, 1, 1, 1), bool)
        )
        empty = jnp.zeros((1, batch, 1, 1, 1, 1, 1))
        level = Level(slots=slots, keys=empty, values=empty)
        shift = jnp.zeros(batch, jnp.int32)
        return script[:, :1].astype(jnp.float32), TreeCache(levels=(level,), rotary_shift=shift)

    def decode(script: Any, tokens: Any, positions: Any, open_nodes: Any, cache: TreeCache) -> Any:
        row = jnp.arange(script.shape[0])[:, None, None]
        following = script[row, jnp.minimum(positions, script.shape[1] - 1)]
        nothing = jnp.zeros((1, *tokens.shape, 1, 1))
        return following[..., None].astype(jnp.float32), NewTokens(keys=nothing, values=nothing)

    def unembed(script: Any, hidden: Any) -> Any:
        chosen = jax.nn.one_hot(hidden[..., 0].astype(jnp.int32), vocab_size)
        return SURE * chosen

    return Policy(
        config=SimpleNamespace(),
        vocab_size=vocab_size,
        init=lambda key: None,
        logical_axes=lambda: None,
        units={},
        prefill=prefill,
        decode=decode,
        forward=lambda params, inputs: None,
        unembed=unembed,
    )


def script_of(rows: Sequence[Sequence[int]], last: int) -> tuple[np.ndarray, PromptBatch]:
    """Parameters and prompts for some rows of tokens, each followed by `last` for ever."""
    script = np.full((len(rows), max(map(len, rows)) + 1), last, np.int32)
    for filled, row in zip(script, rows, strict=True):
        filled[: len(row)] = row
    prompts = PromptBatch(
        tokens=np.zeros((len(rows), 1), np.int32), lengths=np.ones(len(rows), np.int32)
    )
    return script, prompts


def stops_of(tokenizer: Tokenizer) -> TreeStops:
    return tree_stops(
        thought="</think>",
        answer="</answer>",
        closing=(),
        token_bytes=tokenizer.token_bytes,
        end_tokens=(),
    )


def grow_texts(
    tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int
) -> tuple[Any, list[list[int]]]:
    """Trees of two thoughts with two answers each, of a policy that writes these texts."""
    rows = [tokenizer.encode(text) for text in texts]
    script, prompts = script_of(rows, last=tokenizer.encode("x")[0])
    slots = max(map(len, rows)) + 1
    grown = jax.jit(
        partial(
            grow_tree,
            scripted_policy(vocab_size),
            shape=TreeShape(1, slots, slots, thoughts=2, answers=2),
            sampling=GREEDY,
            stops=stops_of(tokenizer),
        )
    )(script, prompts, jax.random.key(0))
    return jax.tree.map(np.asarray, grown), rows


def score_spacings(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Ten spacings with a plain and a wordy thought: every answer is read and earns all."""
    tokenizer = fit_vocabulary(tokenizer, vocab_size)
    thoughts = ("12 is right", "Half of 24 is 12.")
    texts = [f"{t}</think>{gap}<answer>12</answer>" for t in thoughts for gap in BETWEEN]
    rollout, rows = grow_texts(tokenizer, texts, vocab_size)
    assert rollout.closed.all()
    assert rollout.finished.all()
    lengths = rollout.thought_lengths[..., None] + rollout.answer_lengths
    whole = np.array([len(row) for row in rows])[:, None, None]
    np.testing.assert_array_equal(lengths, np.broadcast_to(whole, lengths.shape))
    examples = [
        Example(question="", images=(), columns={"answer": "12"}, id=str(n))
        for n in range(len(texts))
    ]
    terms = RewardTerm("exact"), RewardTerm("format")
    with open_scorer(terms, workers=0) as scorer:
        read = read_texts(rollout, tokenizer)
        scores = score_answers(scorer, examples, rollout, read)
    assert read.thoughts == tuple((t, t) for t in thoughts for _ in BETWEEN)
    assert {a for tree in read.answers for branch in tree for a in branch} == {"12"}
    np.testing.assert_array_equal(scores.rewards, 2.0)
