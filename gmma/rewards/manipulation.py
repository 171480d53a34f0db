"""Rewards of the simulator: did the answer work the joint, did it touch the right part.

MuJoCo is imported at the first call, so that workers which score other tasks start without it.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gmma.answers.reading import Reading, check_reading
from gmma.errors import UserError

if TYPE_CHECKING:
    from gmma.simulator.attempt import Attempt


def manipulation_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    kind: Sequence[object],
    seed: Sequence[object],
    frame_size: Sequence[Sequence[object]],
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Return 1 where the joint reached its goal, else 0: sparse, as the paper's is said to be [R].

    An answer is `{"point": [x, y], "action": "push" | "pull"}`, as `gmma.answers.reading` reads it;
    `gmma.simulator.attempt.attempt` says what it does.
    Frame: x right, y down from the top left corner of the image, which is `frame_size` = [w, h]
    wide and high (its pixels, or 1000 × 1000). Text that is no such answer is 0; None where kind,
    seed and frame name no scene.
    """
    return [
        None if outcome is None else float(outcome.success)
        for outcome in attempt_all(answers, kind, seed, frame_size, reading)
    ]


def manipulation_contact_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    kind: Sequence[object],
    seed: Sequence[object],
    frame_size: Sequence[Sequence[object]],
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Return 1 where the point lies on the asked part, else 0 (our choice): a stage bonus.

    Meant as a term of small weight beside `manipulation_reward`, whose columns and frame it shares.
    """
    return [
        None if outcome is None else float(outcome.contact)
        for outcome in attempt_all(answers, kind, seed, frame_size, reading)
    ]


def attempt_all(
    answers: Sequence[str],
    kinds: Sequence[object],
    seeds: Sequence[object],
    frame_sizes: Sequence[Sequence[object]],
    reading: str = "lenient",
) -> list["Attempt | None"]:
    """Try every answer in its scene and return the attempts; None where there is no scene."""
    how = check_reading(reading)
    rows = zip(answers, kinds, seeds, frame_sizes, strict=True)
    return [_attempt_text(text, kind, seed, tuple(size), how) for text, kind, seed, size in rows]


@functools.lru_cache(maxsize=4096)  # two terms, and many equal answers of one group: tried once
def _attempt_text(
    text: str, kind: object, seed: object, frame_size: tuple[object, ...], reading: Reading
) -> "Attempt | None":
    from gmma.simulator.attempt import MISSED, attempt, parse_answer
    from gmma.simulator.sight import check_frame, check_scene, draw_scene

    try:
        named, frame = check_scene(kind, seed), check_frame(frame_size)
    except UserError:
        return None
    answer = parse_answer(text, reading)
    return MISSED if answer is None else attempt(draw_scene(*named), answer, frame)
