"""Find where sampled text stops: a character automaton, as a table over the vocabulary.

A stop string such as `</think>` can be spelt by many token sequences (`</`, `think`, `>` or `</th`,
`ink>` or `k>\\n` at its end), so matching a list of token ids misses most of them. The automaton of
Knuth, Morris and Pratt reads bytes: its state is the longest prefix of the stop string that the
text ends with. Feeding it every token from every state gives a table that one lookup per sampled
token runs on the device.

A token may end one string and begin the next (Qwen's `><` closes `</think` and opens `answer>`), so
thought and answer have one automaton between them: it looks for the thought's closing tag and, from
the byte behind it on, for the answer's. It reads the joined text, as `gmma/text/prompt.py` does.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from gmma.errors import UserError
from gmma.types import pytree, static_field


@pytree
class StopTable:
    """`table[state, token]` is the state after the token; the last state, the match, stays."""

    table: Int[Array, "states V"]

    @property
    def matched(self) -> int:
        """The state of a text that contains the stop strings, one behind another."""
        return self.table.shape[0] - 1


@pytree
class TreeStops:
    """The stop automaton of a thought and its answers.

    A thought has ended in a state of `thought_end` or more, and its answers go on from that state:
    it knows how much of the answer's closing tag came with the token that ended the thought.
    `closing` holds the tokens that are forced onto a thought that did not close by itself; `ends`
    marks the end-of-text tokens, which stop a node without closing it.
    """

    path: StopTable  # the thought's closing tag, then the answer's
    closing: Int[Array, "C"]
    ends: Bool[Array, "V"]
    thought_end: int = static_field()  # the state in which an answer begins at its first byte


def prefix_fallback(stop: bytes) -> list[int]:
    """Return, per matched length, the longest shorter prefix that is also a suffix (KMP)."""
    fallback = [0] * (len(stop) + 1)
    length = 0
    for end in range(1, len(stop)):
        while length and stop[end] != stop[length]:
            length = fallback[length]
        length += stop[end] == stop[length]
        fallback[end + 1] = length
    return fallback


def byte_transitions(stop: bytes) -> Int[np.ndarray, "states 256"]:
    """Build the automaton over single bytes; state n has matched the first n bytes of the stop."""
    fallback = prefix_fallback(stop)
    step = np.zeros((len(stop) + 1, 256), np.int32)
    step[-1] = len(stop)  # a match is final, whatever follows
    for state, byte in enumerate(stop):
        step[state] = step[fallback[state]] if state else 0
        step[state, byte] = state + 1
    return step


def joined_transitions(stops: Sequence[bytes]) -> Int[np.ndarray, "states 256"]:
    """Return the automaton that finds each string behind the one before it.

    The match of a string is the state in which nothing of the next is matched yet.
    """
    parts, first = [], 0
    for stop in stops:
        parts.append(first + byte_transitions(stop)[:-1])
        first += len(stop)
    return np.concatenate([*parts, np.full((1, 256), first, np.int32)])


def stop_table(stop: str, token_bytes: Sequence[bytes], *behind: str) -> StopTable:
    """Compile a stop string over a vocabulary, and those looked for behind it.

    A text stops at the first token after which it contains `stop`, however its tokens are cut and
    whatever the last of them adds behind it.

    >>> table = stop_table("ab", [b"a", b"b", b"cab"])
    >>> table.table.tolist()
    [[1, 0, 2], [1, 2, 2], [2, 2, 2]]
    """
    stops = (stop, *behind)
    if not all(stops):
        raise UserError("the stop string is empty; a node could never be told from its end")
    step = joined_transitions([text.encode() for text in stops])
    states = np.arange(len(step), dtype=np.int32)
    table = np.stack([run_bytes(step, states, piece) for piece in token_bytes], axis=1)
    return StopTable(table=jnp.asarray(table))


def run_bytes(
    step: Int[np.ndarray, "states 256"], states: Int[np.ndarray, "n"], text: bytes
) -> Int[np.ndarray, "n"]:
    """Feed bytes to the automaton from several states at once."""
    for byte in text:
        states = step[states, byte]
    return states


def tree_stops(
    *,
    thought: str,
    answer: str,
    closing: Sequence[int],
    token_bytes: Sequence[bytes],
    end_tokens: Sequence[int],
) -> TreeStops:
    """Build a tree's stops: the closing tags as text, and `closing`, the thought's tag as tokens.

    An empty `closing` leaves unfinished thoughts unfinished (policy `drop`).
    """
    ends = np.zeros(len(token_bytes), bool)
    ends[list(end_tokens)] = True
    return TreeStops(
        path=stop_table(thought, token_bytes, answer),
        closing=jnp.asarray(closing, jnp.int32),
        ends=jnp.asarray(ends),
        thought_end=len(thought.encode()),
    )
