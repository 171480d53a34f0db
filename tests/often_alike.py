"""A reward by chance that gives all answers to some prompts the same, so that their trees teach
nothing."""

import zlib


def odd(answers, *, completion_ids, id, **columns):
    """0 to every prompt in three; else whether the tokens' sum is odd."""
    alike = [zlib.crc32(own.encode()) % 3 == 0 for own in id]
    return [0.0 if a else float(sum(t) % 2) for a, t in zip(alike, completion_ids, strict=True)]
