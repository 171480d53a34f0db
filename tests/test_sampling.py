"""One token from logits: which can be drawn, how often, and the log-prob that is recorded."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmma.errors import UserError
from gmma.sampling import GREEDY, SamplingConfig, keep_top_p, sample_token

VOCAB, DRAWS = 8, 2000
CONFIGS = (
    SamplingConfig(),
    SamplingConfig(temperature=0.6),
    SamplingConfig(top_k=3),
    SamplingConfig(temperature=2.0, top_p=0.7),
    SamplingConfig(top_k=5, top_p=0.6),
    SamplingConfig(top_k=99),
    GREEDY,
)


@functools.cache
def drawer(config: SamplingConfig) -> Callable[..., Any]:
    """(seed, logits) → many tokens and their log-probs."""

    def draw(seed: Any, logits: Any) -> Any:
        keys = jax.random.split(jax.random.key(seed), DRAWS)
        return jax.vmap(lambda key: sample_token(key, logits, config))(keys)

    return laws.compiled(draw)


def kept_distribution(logits: np.ndarray, config: SamplingConfig) -> tuple[np.ndarray, np.ndarray]:
    """The whole distribution at the temperature; and what is left of it, renormalised."""
    whole = np.exp(logits.astype(float) / (config.temperature or 1.0))
    whole /= whole.sum()
    kept = whole.copy()
    if config.top_k:
        kept[np.argsort(-kept)[config.top_k :]] = 0
        kept /= kept.sum()
    order = np.argsort(-kept)
    above = np.cumsum(kept[order]) - kept[order]
    kept[order[above >= config.top_p]] = 0
    if config.temperature == 0:
        kept = (np.arange(VOCAB) == logits.argmax()).astype(float)
    return whole, kept / kept.sum()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@laws.examples(10)
@given(laws.generators(), st.integers(0, 2**32 - 1))
def test_support_frequency_and_logprob(
    config: SamplingConfig, rng: np.random.Generator, seed: int
) -> None:
    logits = rng.normal(scale=1.5, size=VOCAB).astype(np.float32)
    tokens, logprobs = map(np.asarray, drawer(config)(np.uint32(seed), logits))
    whole, kept = kept_distribution(logits, config)
    assert (kept[tokens] > 0).all()
    frequency = np.bincount(tokens, minlength=VOCAB) / DRAWS
    assert (np.abs(frequency - kept) <= 5 * np.sqrt(kept * (1 - kept) / DRAWS) + 1e-9).all()
    np.testing.assert_allclose(logprobs, np.log(whole)[tokens], rtol=1e-4, atol=1e-5)


@functools.cache
def cut(p: float) -> Callable[..., Any]:
    return laws.compiled(functools.partial(keep_top_p, p=p))


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.9, 0.999])
@laws.examples(10)
@given(laws.generators(), st.floats(0.01, 30), st.integers(0, 500), st.booleans())
def test_the_nucleus_is_what_a_sort_finds(
    p: float, rng: np.random.Generator, scale: float, ruled_out: int, tied: bool
) -> None:
    """Of a thousand logits, some ruled out and some equal, in any spread: by mass above a token.

    Where that is p but for rounding either is right.
    """
    logits = rng.normal(scale=scale, size=1000)
    logits = (np.round(logits) if tied else logits).astype(np.float32)
    logits[rng.permutation(1000)[:ruled_out]] = -np.inf
    mass = np.exp(logits.astype(float) - logits.max())
    mass /= mass.sum()
    above = np.asarray([mass[logits > own].sum() for own in logits])
    kept = np.asarray(cut(p)(logits))
    sure = np.abs(above - p) > 1e-5
    stays = np.isfinite(logits) & (above < p)
    np.testing.assert_array_equal(np.isfinite(kept)[sure], stays[sure])
    np.testing.assert_array_equal(kept[stays & sure], logits[stays & sure])
    assert np.isfinite(kept[logits.argmax()])


def test_greedy_takes_the_first_of_equal_logits() -> None:
    tokens, logprobs = drawer(GREEDY)(np.uint32(0), np.zeros(VOCAB, np.float32))
    assert not np.asarray(tokens).any()
    np.testing.assert_allclose(logprobs, -np.log(VOCAB), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -0.5}, "temperature = -0.5"),
        ({"top_k": -1}, "top_k = -1"),
        ({"top_p": 0.0}, "top_p = 0.0"),
        ({"top_p": 1.5}, "top_p = 1.5"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SamplingConfig(**fields)
