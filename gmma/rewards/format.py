"""The format term: half belongs to the thought, half to the answer."""

from collections.abc import Sequence


def format_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    closed: Sequence[object],
    finished: Sequence[object],
    **columns: Sequence,
) -> list[float | None]:
    """Return `0.5·closed + 0.5·finished`: 0, 0.5 or 1 (our choice: no peer separates the halves).

    `closed`: the thought closed by itself, with no tag appended by force. `finished`: the answer
    node is well formed, one `<answer>…</answer>`.
    """
    return [0.5 * bool(c) + 0.5 * bool(f) for c, f in zip(closed, finished, strict=True)]
