"""Check that a run still learns: finite values, rewards that count.

first_not_finite   an array of a state that holds a value that is not finite
Health             how many steps in a row were ill
check_health       the end of a run that could only go on to compute nothing
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from gmma.config import StopConfig
from gmma.hardware.preemption import NotFinite, Unscored
from gmma.records.metrics import Record
from gmma.types import PyTree

NUMBERS = ("loss", "grad_norm")  # of a step: where parameters are NaN, so are these


def first_not_finite(state: PyTree) -> str | None:
    """Find an array with a value that is not finite; None where there is none. Waits for it."""
    paths = jax.tree_util.tree_leaves_with_path(state)
    finite = jax.device_get(_are_finite([leaf for _, leaf in paths]))
    named = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths)
    return next((name for name, holds in zip(named, finite, strict=True) if not holds), None)


@jax.jit
def _are_finite(leaves: list[Any]) -> list[Bool[Array, ""]]:
    return [jnp.isfinite(leaf).all() for leaf in leaves]


@dataclass(frozen=True, kw_only=True)
class Health:
    """Steps in a row, up to the last one."""

    not_finite: int = 0  # with a loss or a gradient that is not
    unscored: int = 0  # without an answer that counts

    def with_record(self, record: Record) -> "Health":
        """Return the counts one step later. SFT, which samples nothing, is never unscored."""
        return Health(
            not_finite=0 if is_finite(record) else self.not_finite + 1,
            unscored=self.unscored + 1 if record.get("frac_groups_dropped") == 1 else 0,
        )


def is_finite(record: Record) -> bool:
    """Return whether a step's loss and gradient are finite."""
    return all(isfinite(record[name]) for name in NUMBERS)


def is_ill(health: Health, config: StopConfig) -> bool:
    """Return whether `check_health` would end the run."""
    ill = health.not_finite >= config.not_finite_steps
    return ill or health.unscored >= config.unscored_steps


def check_health(health: Health, config: StopConfig, record: Record, newest: int | None) -> None:
    """Raise NotFinite or Unscored if too many steps in a row were ill.

    `newest` is the newest checkpoint, of which every value is finite.
    """
    if health.not_finite >= config.not_finite_steps:
        raise not_finite(record, f"not finite for {health.not_finite} steps in a row", newest)
    if health.unscored >= config.unscored_steps:
        raise unscored(health, record, newest)


def not_finite(record: Record, what: str, newest: int | None) -> NotFinite:
    """Make the error for a run whose `what` is not finite, with when or where it began."""
    values = ", ".join(f"{name} = {record[name]:g}" for name in NUMBERS)
    kept = "there is no checkpoint yet" if newest is None else f"the newest is checkpoint {newest}"
    begin = "" if newest is None else ", from this checkpoint with --init-from, or from the start"
    return NotFinite(
        f"{record['phase']} step {record['step']}: {values}; {what}, so the run could only go on "
        f"to compute NaN. Nothing that is not finite was saved: {kept}. The same settings would "
        "lead here again: start another run with others (a lower learning_rate or max_grad_norm, "
        f"float32){begin}"
    )


def unscored(health: Health, record: Record, newest: int | None) -> Unscored:
    """Make the error for a run of which no answer counts any more."""
    lost = {
        name: value
        for name, value in record.items()
        if name.startswith("rewards/") and not name.endswith(("/mean", "/std")) and value
    }
    ratios = [f"{segment}/completions/clipped_ratio" for segment in ("thought", "answer")]
    lost |= {name: record[name] for name in ratios if name in record}
    listed = ", ".join(f"{name} = {value:g}" for name, value in lost.items())
    return Unscored(
        f"rl step {record['step']}: no answer has counted for {health.unscored} steps in a row "
        f"(frac_groups_dropped = 1), so nothing was learned; ended behind checkpoint {newest}. Of "
        f"this step: {listed}. Answers that could not be scored do not count, nor do trees with "
        "fewer than rewards.min_scored that could, nor, with tree.unfinished = drop, thoughts that "
        "did not close: see the messages above, mend it and go on with --resume"
    )
