"""Rewards as a user may write them, good and bad; the pool imports this file by name."""

import contextlib
import os
import subprocess
import sys
import time

import numpy as np


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


def exits(answers, *, thoughts, **columns):
    sys.exit(0)


def wants(answers, *, thoughts, level):
    return [float(level[0]) for _ in answers]


class Judge:
    """A class where an object of it is meant."""

    def __call__(self, answers, *, thoughts, **columns):
        return [1.0 for _ in answers]


judge = Judge()


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


def forks(answers, *, thoughts, **columns):
    os.fork()
    time.sleep(0.5 if answers == ["slow"] else 0)
    return [1.0]


def writes_on_every_descriptor(answers, *, thoughts, **columns):
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"1.0\n")
    return [1.0]


def no_axes(answers, *, thoughts, **columns):
    return np.array(1.0)


def huge_int(answers, *, thoughts, **columns):
    return [-(10**400)]


def huge(answers, *, thoughts, **columns):
    return [1e30 if answers == ["good"] else -1e30]


def a_time(answers, *, thoughts, **columns):
    return np.array([5], "timedelta64[s]")


class SilentError(Exception):
    def __repr__(self):
        raise ValueError

    __str__ = __repr__


def raises_in_silence(answers, *, thoughts, **columns):
    raise SilentError


def returns_in_silence(answers, *, thoughts, **columns):
    class Unspoken(list):
        __repr__ = SilentError.__repr__

    return [Unspoken()]


def changes_its_columns(answers, *, thoughts, gold, image):
    gold[0].append("seen")
    image[0][...] = 0
    gold.append(answers.pop())
    return [float(len(gold[0]))]


def starts_a_daemon(answers, *, thoughts, **columns):
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return [float(subprocess.Popen(command, start_new_session=True).pid)]


not_a_function = 3
