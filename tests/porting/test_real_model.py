"""A network that somebody else pretrained: SmolLM2-135M-Instruct beside transformers.

GMMA_REAL_MODEL=FOLDER pytest -m parity tests/porting/test_real_model.py
"""

import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmma.porting import load_pretrained, reference_logits
from gmma.rollout import grow_tree
from gmma.sampling import GREEDY
from gmma.tree import TreeShape
from gmma.tree.stops import tree_stops
from gmma.types import PromptBatch
from tests.porting import theirs

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
PROMPTS = (
    "What is the capital of France?",
    "A farmer has 17 sheep and buys 5 more. How many sheep does he have?",
    "Write one sentence about the sea.",
    "def fibonacci(n):",
    "List three colours.",
)
GREEDY_TOKENS = 30


@pytest.fixture(scope="module")
def both():
    """Ours and theirs from one directory, or a skip that says what is missing."""
    folder = os.environ.get("GMMA_REAL_MODEL")
    if folder is None:
        pytest.skip("no GMMA_REAL_MODEL: a Hugging Face directory of SmolLM2-135M-Instruct")
    theirs.quiet()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in PROMPTS
    ]
    return load_pretrained(Path(folder)), model, asked


def padded(asked):
    lengths = np.array([len(ids) for ids in asked])
    tokens = np.zeros((len(asked), lengths.max()), np.int64)
    for row, ids in zip(tokens, asked, strict=True):
        row[: len(ids)] = ids
    return tokens, lengths


def test_logits(both) -> None:
    pretrained, model, asked = both
    tokens, lengths = padded(asked)
    ours = reference_logits(pretrained, tokens, lengths=lengths)
    expected = theirs.logits(model, tokens, lengths)
    for row, length in enumerate(lengths):
        found, wanted = ours[row, :length], expected[row, :length]
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        print(f"relative error {error:.1e}")
        assert error <= 1e-3


def test_greedy_tokens(both) -> None:
    """The sampler's own path: prefill, then one token at a time from the cache."""
    import torch

    pretrained, model, asked = both
    tokens, lengths = padded(asked)
    shape = TreeShape(tokens.shape[1], GREEDY_TOKENS, 1, thoughts=1, answers=1)
    stops = tree_stops(
        thought="\0 no such text",
        answer="\0 nor this",
        closing=[],
        token_bytes=pretrained.tokenizer.token_bytes,
        end_tokens=(),
    )
    grow = jax.jit(partial(grow_tree, pretrained.policy, shape=shape, sampling=GREEDY, stops=stops))
    prompts = PromptBatch(
        tokens=jnp.asarray(tokens, jnp.int32), lengths=jnp.asarray(lengths, jnp.int32)
    )
    found = np.asarray(grow(pretrained.params, prompts, jax.random.key(0)).thoughts)[:, 0]
    for ids, ours in zip(asked, found, strict=True):
        given = torch.tensor([ids])
        whole = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=GREEDY_TOKENS,
            min_new_tokens=0,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            repetition_penalty=1.0,
        )
        assert ours.tolist() == whole[0, len(ids) :].tolist()
