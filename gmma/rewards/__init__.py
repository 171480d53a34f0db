"""Rewards: plain text in, one number per answer out. Nothing here imports JAX.

Every function of `REWARDS` has one signature, that of TRL:

    reward(answers, *, thoughts, **columns) -> list[float | None]

one entry per answer in each argument; `None` means "could not be scored" (the reference is
unreadable), never "wrong": a wrong or malformed answer is 0.
"""

from collections.abc import Callable

from gmma.rewards.boxes import box_iou_reward
from gmma.rewards.format import format_reward

REWARDS: dict[str, Callable[..., list[float | None]]] = {
    "box_iou": box_iou_reward,
    "format": format_reward,
}
