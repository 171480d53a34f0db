"""Signals that end a run: noted, counted, passed on."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gmma.hardware import preemption
from gmma.hardware.preemption import CODE_INTERRUPTED, Preempted

# Two presses while the main thread computes outside of Python, for minutes.
DEAF = """
import hashlib, os, signal, threading, time
from gmma.hardware import preemption
def press():
    for _ in range(2):
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
with preemption.watch():
    threading.Thread(target=press).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def wait_for(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]
)
def test_a_signal_is_noted_and_named(number, name):
    before = signal.getsignal(number)
    with preemption.watch():
        assert not preemption.requested()
        os.kill(os.getpid(), number)
        assert preemption.requested()
        with pytest.raises(Preempted, match=f"{name}: ended here; start it again with --resume"):
            preemption.stop("here")
    assert signal.getsignal(number) is before
    assert "ctrl-c" not in {thread.name for thread in threading.enumerate()}
    with preemption.watch():  # what came before is over
        assert not preemption.requested()


def test_the_second_ctrl_c_waits_for_nothing(monkeypatch, capfd):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with preemption.watch():
        os.kill(os.getpid(), signal.SIGINT)
        assert not codes
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: codes)
    assert codes == [CODE_INTERRUPTED]
    assert "--resume goes on from the last checkpoint" in capfd.readouterr().err


def test_nor_for_a_main_thread_that_does_not_listen():
    """As one that compiles: Python calls its handlers between two steps of its own alone."""
    command = [sys.executable, "-c", DEAF]
    child = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert child.returncode == CODE_INTERRUPTED


def test_with_several_hosts_ctrl_c_is_told_to_all_of_them():
    """By SIGTERM, which JAX waits for on each; here a handler stands in for it."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with preemption.watch(several_hosts=True):
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(lambda: came)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]
