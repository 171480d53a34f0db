"""Rewards that score well until a certain call, and again after another.

Calls are counted in a file, over all workers; the pool imports this file by name.
"""

import os


def bad_now():
    """Whether this call is one of those that go wrong."""
    log = os.open(os.environ["BAD_REWARD_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, b".")
    call = os.lseek(log, 0, os.SEEK_CUR) - 1
    os.close(log)
    first, end = map(int, os.environ["BAD_REWARD_CALLS"].split())
    return first <= call < end


def hangs(answers, *, thoughts, **columns):
    while bad_now():
        while True:
            pass
    return [float(len(answer)) for answer in answers]


def dies(answers, *, thoughts, **columns):
    if bad_now():
        os._exit(0)
    return [float(len(answer)) for answer in answers]


def eats(answers, *, thoughts, **columns):
    if bad_now():
        bytearray(1 << 40)
    return [float(len(answer)) for answer in answers]


def lies(answers, *, thoughts, **columns):
    return [0.0] * (1 + bad_now())
