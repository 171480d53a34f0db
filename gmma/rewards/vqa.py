"""The reward of an answer of any kind: that of the kind which its record names."""

from collections.abc import Callable, Sequence
from typing import Any

from gmma.rewards.boxes import box_iou_reward
from gmma.rewards.choice import choice_reward
from gmma.rewards.exact import exact_reward
from gmma.rewards.mathematics import math_reward
from gmma.rewards.sets import boxes_reward, points_reward

OF_KIND: dict[str, Callable[..., list[float | None]]] = {
    "text": exact_reward,
    "choice": choice_reward,
    "number": math_reward,
    "box": box_iou_reward,
    "boxes": boxes_reward,
    "points": points_reward,
}


def vqa_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    kind: Sequence[str],
    choices: Sequence[Any] = (),
    image_size: Sequence[Any] = (),
    reading: str = "lenient",
    relative_tolerance: float = 0.0,
    **columns: Sequence,
) -> list[float | None]:
    """Return what the reward of each row's `kind` gives (`OF_KIND`), in [0, 1].

    The other columns are those of that reward; None for a kind that there is none of.
    """
    given: dict[str, Sequence[Any]] = {
        "thoughts": thoughts,
        "answer": answer,
        "choices": choices or [()] * len(answers),
        "image_size": image_size or [None] * len(answers),
    }
    options = {"reading": reading, "relative_tolerance": relative_tolerance}
    return [
        OF_KIND[name]([text], **{key: [column[row]] for key, column in given.items()}, **options)[0]
        if name in OF_KIND
        else None
        for row, (text, name) in enumerate(zip(answers, kind, strict=True))
    ]
