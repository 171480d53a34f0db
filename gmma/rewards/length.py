"""Length shaping that needs nothing but the answer's own length."""

from collections.abc import Sequence
from typing import Any


def soft_overlong_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    response_tokens: Sequence[Any],
    limit_tokens: int = 1024,
    buffer_tokens: int = 128,
    **columns: Sequence,
) -> list[float | None]:
    """Return DAPO's soft overlong penalty, in [−1, 0].

        0                        if ℓ ≤ L − C
        −(ℓ − (L − C)) / C       if L − C < ℓ ≤ L
        −1                       if ℓ > L

    ℓ is the column `response_tokens` (thought and answer), L `limit_tokens`, C `buffer_tokens`.
    """
    return [_penalty(int(length), limit_tokens, buffer_tokens) for length in response_tokens]


def _penalty(length_tokens: int, limit_tokens: int, buffer_tokens: int) -> float:
    over = length_tokens - (limit_tokens - buffer_tokens)
    if over <= 0:
        return 0.0
    return -min(1.0, over / buffer_tokens) if buffer_tokens > 0 else -1.0
