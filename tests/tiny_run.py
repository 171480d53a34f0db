"""Runs of `tiny_digits.py` that several test files look at, and what they compare of them."""

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from nursery import open_nursery

TINY = Path(__file__).resolve().with_name("tiny_digits.py")
MEASURED = ("seconds/", "step_time", "clock/", "compilations")  # what a resumed run does not repeat


def train_tiny(start, name, *arguments):
    """`gmma train` of the tiny experiment by a nursery's `start`."""
    return start("train", TINY, "--name", name, "--rewards.workers", "0", *arguments)


def train_on_hosts(start, count, name, *arguments):
    """The same as one run of so many processes, host 0 first."""
    return [train_tiny(start, name, *given, *arguments) for given in host_arguments(count)]


def host_arguments(count):
    """The options of each of so many processes that are one run."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    hosts = ("--hosts.join", "given", "--hosts.coordinator", address, "--hosts.count", count)
    return [(*hosts, "--hosts.index", index) for index in range(count)]


def wait_until(child, holds):
    """Poll until the condition holds; a process that ends before is an error."""
    deadline = time.monotonic() + 1800  # on a busy machine
    while not holds():
        assert child.running(), "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def count_lines(run_dir):
    """Steps that the run has recorded."""
    path = run_dir / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@contextlib.contextmanager
def open_tiny(tmp_path_factory):
    """Yields (directory, start): it holds `runs/whole`, trained once for all workers of a session,
    and is where `start`'s children run.
    """
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    directory.mkdir(exist_ok=True)
    with open_nursery(directory) as start:
        with locked(directory / "lock"):
            if not (directory / "runs/whole/evaluation/after_rl.json").exists():
                code = train_tiny(start, "whole").wait()
                assert code == 0, (directory / "log.txt").read_text()
        yield directory, start


@contextlib.contextmanager
def locked(path):
    """One process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def records(run_dir):
    """The run's records without what is measured by the clock."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if not name.startswith(MEASURED)}
        for line in lines
    ]


def assert_same_steps(found, expected, steps):
    """The first steps: counts of tokens and rewards exactly, floats up to the order of sums."""
    assert len(found) >= steps
    for one, other in zip(found[:steps], expected[:steps], strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if isinstance(value, str) or name.startswith("reward") or "length" in name:
                assert value == other[name], name
            else:
                assert value == pytest.approx(other[name], rel=1e-5, abs=2e-6), name


def saved_arrays(run_dir, step):
    """Every array of a checkpoint by its path, as NumPy."""
    handler = ocp.PyTreeCheckpointHandler()
    where = run_dir.absolute() / "checkpoints" / str(step) / "state"
    abstract = handler.metadata(where).tree
    whole = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), abstract)
    return by_path(handler.restore(where, args=ocp.args.PyTreeRestore(restore_args=whole)))


def by_path(tree):
    """Every leaf by its path, as NumPy."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_arrays(first, second):
    """Equal bit for bit, names included."""
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def tree_of(directory):
    """Every file below a directory with its bytes: what "nothing is written over" means."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def shown_steps(run_dir, tag):
    """The steps of a scalar that TensorBoard shows, in order, purges applied."""
    shown = []
    for file in sorted((run_dir / "tensorboard").iterdir(), key=lambda f: f.stat().st_mtime_ns):
        for event in read_events(file.read_bytes()):
            if event.HasField("session_log"):
                shown = [step for step in shown if step < event.step]
            shown += [event.step for value in event.summary.value if value.tag == tag]
    return shown


def read_events(content):
    """The events of a file whose last record may be cut: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    start = 0
    while start + 12 <= len(content):
        length = int.from_bytes(content[start : start + 8], "little")
        payload = content[start + 12 : start + 12 + length]
        if len(payload) < length:
            return
        yield Event.FromString(payload)
        start += 16 + length
