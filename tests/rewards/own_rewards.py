"""Rewards as a user may write them, good and bad; the pool imports this file by name."""

import contextlib
import os
import time


def misbehave(answers, *, thoughts, **columns):
    """Do what the answer says; otherwise its length in characters."""
    return [_obey(answer) for answer in answers]


def _obey(answer):
    while answer == "hang":
        pass
    if answer == "swallow":
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(60)
    if answer == "die":
        os._exit(0)
    if answer == "exit":
        raise SystemExit(0)
    if answer == "raise":
        raise KeyError("answer")
    if answer == "nan":
        return float("nan")
    if answer == "memory":
        bytearray(1 << 40)
    return None if answer == "none" else float(len(answer))


def too_many(answers, *, thoughts, **columns):
    return [0.0] * (len(answers) + 1)


def scalar(answers, *, thoughts, **columns):
    return 1.0


def text(answers, *, thoughts, **columns):
    return ["1.0" for _ in answers]


def number_of_columns(answers, *, thoughts, **columns):
    return [float(len(columns)) for _ in answers]


def scaled(answers, *, thoughts, factor=1.0, **columns):
    return [factor * len(answer) for answer in answers]


def thinks_aloud(answers, *, thoughts, **columns):
    return [float(len(thought)) for thought in thoughts]


def jax_is_loaded(answers, *, thoughts, **columns):
    import sys

    return [float("jax" in sys.modules)]


def process_id(answers, *, thoughts, **columns):
    return [float(os.getpid())]


def takes_one_column(answers, *, thoughts, a):
    return [float(value) for value in a]


not_a_function = 3
