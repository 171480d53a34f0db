"""The gated delta rule: a token at a time, in chunks of any size, and over what a node leaves."""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmma.models.delta import (
    causal_convolution,
    delta_chunks,
    delta_step,
    tail_at,
    unit_lower_inverse,
)

N, G, H, V = 2, 2, 4, 3


class Tokens(NamedTuple):
    """What the rule reads of some tokens, and the memory before them."""

    query: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    decay: np.ndarray
    rate: np.ndarray
    memory: np.ndarray


def random_tokens(rng: np.random.Generator, rows: int, slots: int, dtype: str) -> Tokens:
    """Keys of length one, some nearly equal; decays from none to nearly all."""

    def normal(*size: int) -> np.ndarray:
        return rng.normal(size=size)

    keys = normal(rows, slots, N, H) + rng.integers(0, 3) * normal(rows, 1, N, H)
    keys /= np.linalg.norm(keys, axis=-1, keepdims=True)
    tokens = Tokens(
        query=normal(rows, slots, N, H),
        keys=keys,
        values=normal(rows, slots, N, G, V),
        decay=-rng.exponential(rng.choice([0.01, 0.3, 10.0]), (rows, slots, N, G)),
        rate=rng.uniform(0, 1, (rows, slots, N, G)),
        memory=normal(rows, N, G, H, V),
    )
    return Tokens(*(x.astype(dtype) for x in tokens))


def by_hand(t: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """The rule in loops over heads and tokens, in float64."""
    reads, memory = np.zeros(t.values.shape), t.memory.astype(np.float64)
    for row, slot, n, g in np.ndindex(t.decay.shape):
        key, held = t.keys[row, slot, n], memory[row, n, g]
        held *= np.exp(t.decay[row, slot, n, g])
        wanted = t.values[row, slot, n, g]
        held += np.outer(key, t.rate[row, slot, n, g] * (wanted - key @ held))
        reads[row, slot, n, g] = t.query[row, slot, n] @ held
    return reads, memory


def recurrent(t: Tokens) -> tuple[Any, Any]:
    """`delta_step`, token after token."""

    def step(memory: Any, token: Any) -> tuple[Any, Any]:
        read, memory = delta_step(*token, memory)
        return memory, read

    memory, reads = jax.lax.scan(step, t.memory, [jnp.swapaxes(x, 0, 1) for x in t[:5]])
    return jnp.swapaxes(reads, 0, 1), memory


one_by_one = laws.compiled(recurrent)


@functools.cache
def rule_in(chunk: int) -> Callable[[Tokens], tuple[Any, Any]]:
    """`delta_chunks` as one program a size."""
    return laws.compiled(lambda t: delta_chunks(*t, chunk=chunk))


def chunked(t: Tokens, chunk: int) -> tuple[Any, Any]:
    """`rule_in`, called."""
    return rule_in(chunk)(t)


SIZES = np.random.default_rng(int(os.environ.get("GMMA_LAW_SEEDS", "0"))).permutation(30)[:4] + 1


@pytest.mark.parametrize("chunk", [1, *map(int, SIZES)])
@laws.examples(5)
@given(laws.generators())
def test_chunks_of_any_size_are_the_recurrence(chunk: int, rng: np.random.Generator) -> None:
    tokens = random_tokens(rng, 2, 23, "float32")
    expected = by_hand(tokens)
    for found in (one_by_one(tokens), chunked(tokens, chunk)):
        for ours, theirs in zip(found, expected, strict=True):
            laws.assert_close(ours, theirs, 1e-5)


def test_a_long_chunk_of_equal_keys_keeps_its_digits() -> None:
    """Without decay, all at full rate: the powers of what is inverted reach 1e18."""
    rng = np.random.default_rng(0)
    tokens = random_tokens(rng, 1, 130, "float32")
    keys = np.broadcast_to(tokens.keys[:, :1], tokens.keys.shape)
    hard = tokens._replace(keys=keys, decay=0 * tokens.decay, rate=0 * tokens.rate + 1)
    for ours, theirs in zip(chunked(hard, 64), by_hand(hard), strict=True):
        laws.assert_close(ours, theirs, 1e-5)


@pytest.mark.parametrize(("slots", "chunk"), [(11, 4), (7, 16)])
def test_gradients_of_chunks_are_those_of_the_recurrence(slots: int, chunk: int) -> None:
    with jax.enable_x64(True):
        rng = np.random.default_rng(slots)
        tokens = random_tokens(rng, 2, slots, "float64")
        weights = [rng.normal(size=x.shape) for x in by_hand(tokens)]

        def gradient(rule: Any) -> Any:
            def total(tokens: Tokens) -> Any:
                return sum((w * x).sum() for w, x in zip(weights, rule(tokens), strict=True))

            return laws.compiled(jax.grad(total))(tokens)

        ours = gradient(lambda t: delta_chunks(*t, chunk=chunk))
        theirs = gradient(recurrent)
        for name, one, other in zip(Tokens._fields, ours, theirs, strict=True):
            laws.assert_close(one, other, 1e-10, name)


@laws.examples(5)
@given(laws.generators(), st.integers(1, 12))
def test_padding_leaves_the_state_at_the_true_end(rng: np.random.Generator, length: int) -> None:
    """Bit for bit: whatever stands in empty slots, with decay and rate 0 there."""
    tokens = random_tokens(rng, 1, 12, "float32")
    used = np.arange(12) < length

    def padded(tokens: Tokens, other: Tokens) -> Tokens:
        def mixed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.where(used.reshape(1, -1, *(1,) * (a.ndim - 2)), a, b)

        pairs = [mixed(a, b) for a, b in zip(tokens[:5], other[:5], strict=True)]
        decay, rate = (mixed(x, np.zeros_like(x)) for x in pairs[3:])
        return Tokens(*pairs[:3], decay, rate, tokens.memory)

    other = random_tokens(rng, 1, 12, "float32")
    for one, two in zip(
        chunked(padded(tokens, tokens), 5), chunked(padded(tokens, other), 5), strict=True
    ):
        cut = (slice(None), slice(length)) if one.ndim == 5 and one.shape[1] == 12 else ()
        np.testing.assert_array_equal(one[cut], two[cut])
    short = Tokens(*(x[:, :length] for x in tokens[:5]), tokens.memory)
    laws.assert_close(chunked(padded(tokens, other), 5)[1], by_hand(short)[1], 1e-5)


def test_the_inverse_of_any_size() -> None:
    rng = np.random.default_rng(1)
    for size in (1, 2, 3, 8, 13):
        lower = np.tril(rng.normal(size=(3, size, size)), -1).astype(np.float32)
        inverse = np.asarray(laws.compiled(unit_lower_inverse)(lower))
        one = np.broadcast_to(np.eye(size), lower.shape)
        laws.assert_close(inverse @ (one + lower), one, 1e-4)


compiled_tail, convolved = laws.compiled(tail_at), laws.compiled(causal_convolution)


@laws.examples(4)
@given(laws.generators(), st.sampled_from((0, 1, 6)), st.sampled_from((1, 4)))
def test_a_convolution_goes_on_from_the_tail(
    rng: np.random.Generator, slots: int, width: int
) -> None:
    """Two nodes, the second from the first's true end, are one sequence: NumPy's."""
    inputs = rng.normal(size=(1, slots + 5, N, 3)).astype(np.float32)
    taps = rng.normal(size=(width, N, 3)).astype(np.float32)
    tail = np.zeros((1, width - 1, N, 3), np.float32)
    garbage = np.full((1, 2, N, 3), np.nan, np.float32)
    first = np.concatenate([inputs[:, :slots], garbage], axis=1)
    left = compiled_tail(first, tail, np.array([slots]))
    both = (first, tail), (inputs[:, slots:], left)
    before, behind = (np.asarray(convolved(*x, taps)) for x in both)
    found = np.concatenate([before[:, :slots], behind], axis=1)
    for n, x in np.ndindex(N, 3):
        # The last tap is the slot's own, as in transformers' kernels.
        expected = np.convolve(inputs[0, :, n, x], taps[::-1, n, x])[: slots + 5]
        laws.assert_close(found[0, :, n, x], expected, 1e-5)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_both_forms_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    from transformers.models.qwen3_5 import modeling_qwen3_5 as theirs

    rng = np.random.default_rng(3)
    tokens = random_tokens(rng, 2, 70, "float32")
    flat = {
        "query": tokens.query,
        "key": tokens.keys,
        "value": tokens.values.reshape(2, 70, N * G, V),
        "g": tokens.decay.reshape(2, 70, N * G),
        "beta": tokens.rate.reshape(2, 70, N * G),
        "initial_state": tokens.memory.reshape(2, N * G, H, V),
    }
    given = {name: torch.tensor(x) for name, x in flat.items()}
    scaled = tokens._replace(query=tokens.query * np.float32(H**-0.5))
    for rule in (theirs.torch_chunk_gated_delta_rule, theirs.torch_recurrent_gated_delta_rule):
        reads, memory = rule(**given, output_final_state=True)
        for found in (one_by_one(scaled), chunked(scaled, 64)):
            laws.assert_close(found[0].reshape(reads.shape), reads.numpy(), 1e-5)
            laws.assert_close(found[1].reshape(memory.shape), memory.numpy(), 1e-5)
