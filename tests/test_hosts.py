"""Several processes on loopback: one run, whatever their number, and what happens when one goes."""

import json
import os
import shutil
import signal
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny_run import (
    assert_same_steps,
    count_lines,
    open_tiny,
    records,
    train_on_hosts,
    train_tiny,
    wait_until,
)

from gmma.config import HostsConfig
from gmma.errors import UserError
from gmma.hardware.hosts import bounded_end, check_hosts, gather_rows, own_part
from gmma.hardware.preemption import CODE_HOST_LOST, CODE_PREEMPTED, Preempted
from gmma.hardware.sharding import host_by_host

SFT_STEPS = 5
ENDLESS = ("--rl.steps", "100000")  # no run here reaches its end; the schedule is constant
ABORTED = -signal.SIGABRT  # JAX's own end of a process whose peer is lost
PEER_LOST = "another task died|another host has ended"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A run on two hosts of which one is killed, resumed on four and on one, each told to end."""
    with open_tiny(tmp_path_factory) as (directory, start):
        lab = SimpleNamespace(whole=directory / "runs/whole", log=directory / "log.txt")
        name = "hosts" + os.environ.get("PYTEST_XDIST_WORKER", "")  # each worker has its own
        lab.killed = directory / "runs" / name
        patience = ("--hosts.heartbeat-seconds", "15")
        hosts = train_on_hosts(start, 2, name, *ENDLESS, *patience)
        wait_until(hosts[0], lambda: count_lines(lab.killed) >= SFT_STEPS + 4)
        said = lab.log.stat().st_size
        hosts[1].send(signal.SIGKILL)
        killed = time.monotonic()
        lab.killed_codes = [host.wait() for host in hosts]
        lab.seconds = time.monotonic() - killed
        lab.said = lab.log.read_bytes()[said:].decode()

        def resume(count):
            runs = directory / f"{name}_on_{count}"
            shutil.copytree(lab.killed, runs / name)
            before, run_dir = count_lines(lab.killed), runs / name
            resumed = ("--resume", "--runs-dir", runs, *ENDLESS)
            if count == 1:
                hosts = [train_tiny(start, name, *resumed)]
            else:
                hosts = train_on_hosts(start, count, name, *resumed)
            wait_until(hosts[0], lambda: count_lines(run_dir) >= before + 4)
            hosts[-1].send(signal.SIGTERM)
            return run_dir, [host.wait() for host in hosts]

        lab.on_four, lab.four_codes = resume(4)
        lab.on_one, lab.one_codes = resume(1)
    return lab


def test_two_hosts_take_the_steps_of_one(lab):
    assert_same_steps(records(lab.killed), records(lab.whole), SFT_STEPS + 4)


def test_evaluation_and_samples_of_two_hosts_are_those_of_one(lab):
    for name in ("evaluation/after_sft.json", "samples/step_000008/tree.json"):
        here, there = (json.loads((run / name).read_text()) for run in (lab.killed, lab.whole))
        assert here == there


def test_a_killed_host_ends_the_others_within_a_minute_with_a_message(lab):
    survivor, killed = lab.killed_codes
    assert killed == -signal.SIGKILL
    assert survivor in (ABORTED, CODE_HOST_LOST)
    assert lab.seconds < 60
    assert any(words in lab.said for words in PEER_LOST.split("|"))


def test_the_run_resumes_on_four_hosts_and_on_one(lab):
    """From the checkpoint that the killed run has left, over at least five steps of RL."""
    steps = min(count_lines(lab.killed) + 4, len(records(lab.whole)))
    assert_same_steps(records(lab.on_four), records(lab.whole), steps)
    assert_same_steps(records(lab.on_one), records(lab.whole), steps)


def test_sigterm_on_one_host_stops_all_behind_one_checkpoint(lab):
    assert lab.four_codes == [CODE_PREEMPTED] * 4
    assert lab.one_codes == [CODE_PREEMPTED]
    for run_dir in (lab.on_four, lab.on_one):
        last = max(int(path.name) for path in (run_dir / "checkpoints").iterdir())
        assert last == len(records(run_dir))


def test_nothing_is_compiled_in_a_hosts_later_steps(lab):
    lines = (lab.killed / "metrics.jsonl").read_text().splitlines()
    compiled = [json.loads(line)["compilations"] for line in lines]
    assert compiled[1:SFT_STEPS] == [0] * (SFT_STEPS - 1)
    assert set(compiled[SFT_STEPS + 1 :]) == {0}


def test_one_process_has_every_row():
    rows = {"b": np.arange(6.0).reshape(3, 2), "a": np.array([b"x", b"", b"yz"], "S8")}
    assert gather_rows(rows, make_mesh_of_one()) is rows
    np.testing.assert_array_equal(own_part(rows["a"]), rows["a"])


def make_mesh_of_one():
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor"))


def chips_of_a_torus():
    """v5e:4x4 as its compiler numbers it: a host has a square of four chips."""
    return [
        SimpleNamespace(id=4 * y + x, process_index=2 * (y // 2) + x // 2)
        for y in range(4)
        for x in range(4)
    ]


def test_the_mesh_goes_host_by_host():
    hosts = [chip.process_index for chip in host_by_host(chips_of_a_torus())]
    assert hosts == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4


def test_a_row_that_would_lie_on_two_hosts_is_refused():
    chips = np.array(host_by_host(chips_of_a_torus()))
    with pytest.raises(UserError, match=r"mesh.tensor = 8 spreads a row .* 2 hosts; set it to 4"):
        check_hosts(chips.reshape(1, 2, 8))
    check_hosts(chips.reshape(2, 2, 4))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"join": "given"}, "hosts.coordinator = None; it must be HOST:PORT"),
        ({"join": "given", "coordinator": "a:1"}, "hosts.count = None"),
        ({"join": "given", "coordinator": "a:1", "count": 2}, "hosts.index = None"),
        ({"join": "given", "coordinator": "a:1", "count": 2, "index": 2}, "hosts.index = 2"),
        ({"count": 2}, "set hosts.join to given"),
        ({"heartbeat_seconds": 0}, "hosts.heartbeat_seconds = 0"),
    ],
)
def test_hosts_that_cannot_be_are_named(values, words):
    with pytest.raises(UserError, match=words):
        HostsConfig(**values)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (jax.errors.JaxRuntimeError("INTERNAL: collective"), CODE_HOST_LOST),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer"), CODE_HOST_LOST),
        (KeyError("a mistake of this host's own"), None),
        (Preempted("SIGTERM"), None),
    ],
)
def test_a_lost_host_ends_the_process_without_clean_up(error, code, monkeypatch, capsys):
    """With two processes; the clean-up of any other error has its seconds."""

    def leave(code):
        raise SystemExit(code)

    timers = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr("threading.Timer.start", lambda timer: timers.append(timer))
    with (
        pytest.raises(type(error) if code is None else SystemExit) as raised,
        bounded_end(HostsConfig(stop_seconds=7)),
    ):
        raise error
    if code is not None:
        assert raised.value.code == code
        assert "another host has ended" in capsys.readouterr().err
    assert [timer.interval for timer in timers] == [7] * isinstance(error, KeyError)
