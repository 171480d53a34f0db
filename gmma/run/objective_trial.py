"""Try a credit rule and a surrogate on made-up numbers before a run writes anything."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gmma.config import CREDITS, SURROGATES, ObjectiveConfig, Options
from gmma.errors import UserError
from gmma.named import check_call, spelled
from gmma.objective import ask_surrogate
from gmma.run.programs import ask_rule
from gmma.types import Advantages, TreeShape

TREES = 3
CREDIT_GIVEN = ("mask", "scale", "answer_baseline")  # by keyword, besides the options
SURROGATE_GIVEN = ("logprobs", "epsilon_low", "epsilon_high", "delta")


def try_objective(objective: ObjectiveConfig, shape: TreeShape) -> None:
    """Raise UserError where the configured credit rule or surrogate cannot be used.

    Gmma's own are asked whether they take their options, and tried with them; without any, their
    tests have done the rest.
    """
    credit_rule, surrogate = CREDITS.find(objective.credit), SURROGATES.find(objective.surrogate)
    check_call(
        CREDITS.kind,
        objective.credit,
        credit_rule,
        "rewards",
        **spell("credit_options", objective.credit_options, CREDIT_GIVEN),
    )
    check_call(
        SURROGATES.kind,
        objective.surrogate,
        surrogate,
        "ratio",
        "advantage",
        **spell("surrogate_options", objective.surrogate_options, SURROGATE_GIVEN),
    )
    if objective.credit not in CREDITS:
        try_credit(objective, shape)
    if objective.surrogate not in SURROGATES or objective.surrogate_options:
        try_surrogate(objective)


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """Turn what a user's function raises in the block into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} raised {type(error).__name__}: {spelled(error, str)}") from error


def try_credit(objective: ObjectiveConfig, shape: TreeShape) -> None:
    """Raise UserError unless a credit rule gives finite advantages of the shapes of a tree."""
    what = f"{CREDITS.kind} '{objective.credit}'"
    size = (TREES, shape.thoughts, shape.answers)
    rng = np.random.default_rng(0)
    rewards = jnp.asarray(rng.random(size), jnp.float32).at[-1].set(1.0)  # a tree all alike
    counted = jnp.asarray(rng.random(size) < 0.9)
    with own_code(what):
        found = jax.jit(partial(ask_rule, objective=objective))(rewards, counted)
    if not isinstance(found, Advantages):
        raise UserError(f"{what} returned a {type(found).__name__}, not gmma.types.Advantages")
    for name, value, wanted in (
        ("thought", found.thought, size[:2]),
        ("answer", found.answer, size),
    ):
        check_array(f"{what}: Advantages.{name}", value, wanted)
        ill = ~jnp.isfinite(value) & (counted.any(axis=2) if name == "thought" else counted)
        if ill.any():
            raise UserError(
                f"{what}: Advantages.{name} is not finite for {int(ill.sum())} of {value.size} "
                "entries of random rewards, a tree of equal ones among them; guard divisions by 0"
            )


def try_surrogate(objective: ObjectiveConfig) -> None:
    """Raise UserError unless a surrogate and its gradient are finite, a value a token."""
    what = f"{SURROGATES.kind} '{objective.surrogate}'"
    old = jnp.asarray([[-1.0, -2.0, -0.5, -0.1]], jnp.float32)
    advantages = jnp.asarray([[1.0, -1.0, 0.0, 2.0]], jnp.float32)

    def total(logprobs: Array) -> tuple[Array, Array]:
        value = ask_surrogate(jnp.exp(logprobs - old), advantages, logprobs, objective)
        check_array(what, value, old.shape)
        return value.sum(), value

    with own_code(what):
        (_, value), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(old + 0.3)
    if not (jnp.isfinite(value).all() and jnp.isfinite(slope).all()):
        raise UserError(f"{what} or its gradient is not finite at ratio 1.35; check its divisions")


def check_array(what: str, value: object, shape: tuple[int, ...]) -> None:
    """Raise UserError unless a value is an array of floats of that shape."""
    if not isinstance(value, jax.Array) or not jnp.issubdtype(value.dtype, jnp.floating):
        raise UserError(f"{what} is {spelled(value):.80}, no array of floats")
    if value.shape != shape:
        raise UserError(f"{what} has shape {value.shape}; it must be {shape}")


def spell(field: str, options: Options, given: Sequence[str]) -> dict[str, str]:
    """Return what comes by keyword, `given` and options, as it stands in a message.

    Raises UserError for an option that is given anyway, or twice: one of the two would be lost.
    """
    spelt = dict.fromkeys(given, "…")
    for name, value in options:
        if name in spelt:
            why = "comes of itself" if name in given else "stands there twice"
            raise UserError(
                f"objective.{field}: {name} = {value!r}, but {name} {why}; leave it out"
            )
        spelt[name] = repr(value)
    return spelt
