"""Hosts that mean different runs, or are not all there, say so on each of them and end."""

import json
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from nursery import open_nursery
from tiny_digits import experiment
from tiny_run import train_tiny

from gmma.config import ObjectiveConfig, options_to_json
from gmma.errors import CODE_USER_ERROR, UserError
from gmma.hardware import muster
from gmma.hardware.muster import PACKAGE, check_devices, code_hash, meet, meet_in_store, run_facts

SLOW = os.environ.get("GMMA_SLOW") == "1"
# A field, and its values on host 0, which is the tiny config's own, and on host 1, as JSON.
OPTIONS = [
    ("rl.optimizer.learning_rate", "0.0001", "0.002"),
    ("sft.steps", "5", "6"),
    ("seed", "0", "1"),
    ("rl.steps", "9", "8"),
    ("rl.batch_prompts", "8", "16"),
    ("sft.optimizer.schedule", '"constant"', '"cosine"'),
    ("tree.thoughts", "2", "3"),
    ("tree.answers", "2", "1"),
    ("tree.thought_tokens", "13", "14"),
    ("sampling.temperature", "1.0", "0.5"),
    ("objective.beta", "0.0", "0.1"),
    ("rewards.terms.0.weight", "1.0", "2.0"),
    ("rewards.min_scored", "2", "3"),
    ("evaluation.every_steps", "0", "3"),
    ("checkpoint.every_steps", "6", "3"),
    ("mesh.fsdp", "1", "2"),
    ("model.width", "16", "32"),
    ("task.train_scenes", "24", "25"),
    ("logprob_chunk_slots", "null", "8"),
    ("hosts.heartbeat_seconds", "30", "29"),
]


def free_address():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def on_threads(calls):
    """What each call ends with, and the seconds until all have ended."""
    ends, started = [None] * len(calls), time.monotonic()

    def run(place, call):
        try:
            ends[place] = call()
        except UserError as error:
            ends[place] = str(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends, time.monotonic() - started


def meeting(facts, *, count=None, indices=None, seconds=30.0):
    """Hosts with these facts meet on loopback."""
    address, size = free_address(), count or len(facts)
    places = indices or range(len(facts))

    def call(index, own):
        return lambda: meet(address, size, index, own, seconds=seconds)

    return on_threads([call(index, own) for index, own in zip(places, facts, strict=True)])


def with_field(field, text):
    """The tiny config as JSON with one field as the command line would give it."""
    values = options_to_json(experiment())
    section = values
    *path, last = field.split(".")
    for name in path:
        section = section[int(name) if isinstance(section, list) else name]
    assert last in section
    section[last] = json.loads(text)
    return values


def test_hosts_that_agree_meet():
    facts = run_facts(options_to_json(experiment()))
    assert meeting([facts] * 3)[0] == [None] * 3


@pytest.mark.parametrize(("field", "here", "there"), OPTIONS, ids=lambda value: str(value))
def test_any_field_that_differs_is_named_on_both_hosts(field, here, there):
    """With both values, and at once."""
    ends, seconds = meeting([run_facts(with_field(field, text)) for text in (here, there)])
    for said in ends:
        assert f"the hosts do not agree: {field} = {here} on host 0, {there} on host 1." in said
    assert seconds < 60


def test_code_versions_and_settings_are_compared_too(monkeypatch):
    facts = run_facts({})
    monkeypatch.setattr(muster, "code_hash", lambda package: "another")
    monkeypatch.setattr(muster, "_version", lambda name: f"{name} of tomorrow")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true --xla_dump_to=here")
    ends, _ = meeting([facts, run_facts({})])
    for said in ends:
        assert (
            f'code of gmma (SHA-256) = "{code_hash(PACKAGE)}" on host 0, "another" on host 1'
            in said
        )
        assert '"jax of tomorrow" on host 1' in said
        assert '"--xla_cpu_enable_fast_math=true" on host 1' in said


def test_the_code_is_its_files(tmp_path):
    assert (PACKAGE / "train.py").is_file()  # the whole package, wherever this module stands
    assert (PACKAGE / "models").is_dir()
    hashes = []
    for place, (name, text) in enumerate([("a", "1"), ("a", "1"), ("a", "2"), ("b", "2")]):
        (tmp_path / str(place)).mkdir()
        (tmp_path / str(place) / f"{name}.py").write_text(text)
        hashes.append(code_hash(tmp_path / str(place)))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_host_that_never_comes_is_named(monkeypatch):
    monkeypatch.setattr(muster, "PATIENCE_SECONDS", 0.5)
    ends, seconds = meeting([{}, {}], count=3, seconds=1.5)
    assert all("host 2 of 3 did not come within 2 s" in said for said in ends)
    ends, _ = meeting([{}], count=2, indices=[1], seconds=1.0)
    assert "host 0 did not come within 1 s" in ends[0]
    assert seconds < 20


def test_an_index_that_is_given_twice_is_named(monkeypatch):
    monkeypatch.setattr(muster, "PATIENCE_SECONDS", 0.5)
    ends, _ = meeting([{}, {}, {}], count=3, indices=[0, 1, 1], seconds=20.0)
    assert all("two processes have --hosts.index 1" in said for said in ends)


def test_a_count_that_differs_is_named_though_a_host_is_missing(monkeypatch):
    monkeypatch.setattr(muster, "PATIENCE_SECONDS", 0.5)
    address = free_address()

    def call(index, count):
        facts = {"hosts.count": count}
        return lambda: meet(address, count, index, facts, seconds=20.0)

    ends, _ = on_threads([call(0, 3), call(1, 2)])
    assert all("hosts.count = 3 on host 0, 2 on host 1" in said for said in ends)


def test_a_taken_port_and_index_0_twice_are_refused():
    address = free_address()
    port = int(address.rpartition(":")[2])
    with (
        socket.create_server(("", port)),
        pytest.raises(UserError, match=rf"cannot listen on port {port} .*--hosts\.index 0"),
    ):
        meet(address, 2, 0, {}, seconds=5)


def test_what_is_no_host_is_not_taken_for_one():
    """A scanner of ports that connects, speaks HTTP and goes."""
    address = free_address()
    port = int(address.rpartition(":")[2])

    def probe():
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("localhost", port), timeout=5) as line:
                    line.sendall(b"GET / HTTP/1.1\r\n\r\n")
                break
            except OSError:
                time.sleep(0.05)
        return meet(address, 2, 1, {}, seconds=20)

    ends, _ = on_threads([lambda: meet(address, 2, 0, {}, seconds=20), probe])
    assert ends == [None, None]


class Store:
    """The key-value store of JAX's coordination service, in one process."""

    def __init__(self, count):
        self.held, self.changed = {}, threading.Condition()
        self.barrier = threading.Barrier(count)

    def key_value_set(self, key, value):
        with self.changed:
            self.held[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            assert self.changed.wait_for(lambda: key in self.held, milliseconds / 1e3)
            return self.held[key]

    def wait_at_barrier(self, name, milliseconds):
        self.barrier.wait(milliseconds / 1e3)


def test_hosts_of_a_slice_compare_through_its_store():
    offers = [run_facts(options_to_json(c)) for c in (experiment(), experiment(), other())]

    def meeting(facts):
        store = Store(len(facts))

        def call(index, own):
            return lambda: meet_in_store(store, len(facts), index, own, seconds=20)

        return on_threads([call(*pair) for pair in enumerate(facts)])[0]

    assert meeting(offers[:2]) == [None, None]
    for said in meeting(offers):
        assert "objective.beta = 0.0 on hosts 0, 1, 0.2 on host 2" in said


def other():
    return replace(experiment(), objective=ObjectiveConfig(beta=0.2))


def test_devices_are_compared():
    def device(host, kind="TPU v5e"):
        return SimpleNamespace(process_index=host, device_kind=kind)

    check_devices([device(0), device(0), device(1), device(1)])
    with pytest.raises(UserError, match=r"devices = 2 on host 0, 1 on host 1"):
        check_devices([device(0), device(0), device(1)])
    with pytest.raises(UserError, match=r'kind of device = "TPU v5e" on host 0, "TPU v4" on host'):
        check_devices([device(0), device(1, "TPU v4")])


@pytest.mark.parametrize("field", [name for name, *_ in OPTIONS[: None if SLOW else 2]])
def test_two_hosts_with_another_field_end_with_code_2(tmp_path, field):
    """`gmma train` on both, from their start: in the place of a run there is nothing."""
    _, _, there = next(row for row in OPTIONS if row[0] == field)
    option = ("--" + field.replace("_", "-"), there.strip('"'))
    hosts = ("--hosts.join", "given", "--hosts.coordinator", free_address(), "--hosts.count", 2)
    with open_nursery(tmp_path) as start:
        started = time.monotonic()
        pair = [
            train_tiny(start, "two", *hosts, "--hosts.index", index, *option[: 2 * index])
            for index in range(2)
        ]
        codes = [host.wait() for host in pair]
        seconds = time.monotonic() - started
    said = (tmp_path / "log.txt").read_text()
    assert codes == [CODE_USER_ERROR] * 2, said
    assert said.count(f"the hosts do not agree: {field} = ") == 2, said
    assert seconds < 60
    assert not Path(tmp_path / "runs").exists()
