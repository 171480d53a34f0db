"""Check before hosts compute together that each came once and that all mean the same run.

    run_facts        what must be equal on all hosts: config, versions, code, settings
    differences      which of it is not, with the value of each host
    meet             the hosts tell each other theirs over TCP, at the coordinator's address
    meet_in_store    the same over the store of JAX's coordination service
    check_devices    every host has the same number of devices of one kind

JAX ends a process with SIGABRT where a host never comes or an index is given twice, and hosts with
other configs train together or wait for ever. So the hosts meet before JAX joins them, at the
address that its coordinator will have: host 0 listens, the others send one line of JSON each and
get one back, the problems that all of them then print.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

import jax

from gmma.errors import UserError
from gmma.named import is_address

PACKAGE = Path(__file__).parents[1]  # all of gmma
Facts = Mapping[str, Any]  # dotted name → JSON value

PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "numpy")
# Settings that change numbers, or the programs that hosts must run in step.
SETTINGS = (
    "jax_platforms",
    "jax_enable_x64",
    "jax_disable_jit",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
OWN = ("hosts.index", "hosts.coordinator")  # of each host: one machine can have several names
PATIENCE_SECONDS = 10.0  # for the hosts that are still on their way when a problem is known
RETRY_SECONDS = 0.2
LINE_BYTES = 1 << 20  # longer than any config
SHOWN_CHARACTERS = 120  # of a value


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten mappings into dotted names; the entries of a list of mappings go by their places.

    >>> dict(flat({"a": {"b": 1}, "c": [{"d": 2}], "e": [3]}))
    {'a.b': 1, 'c.0.d': 2, 'e': [3]}
    """
    for name, value in values.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            yield from flat(
                {str(place): one for place, one in enumerate(value)}, f"{prefix}{name}."
            )
        elif isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def hash_named_modules(values: Iterable[Any]) -> dict[str, str]:
    """Hash the modules that a config names as `module:NAME`; one that is not found is left out."""
    texts = (text for value in values for text in (value if isinstance(value, list) else [value]))
    addresses = {text for text in texts if isinstance(text, str) and is_address(text)}
    found = {}
    for name in sorted({address.partition(":")[0] for address in addresses}):
        with suppress(ImportError, ValueError):  # said where it is needed
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
                found[name] = hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    return found


def run_facts(values: Mapping[str, Any]) -> Facts:
    """Return what must be equal on all hosts; `values` is the config and other requests."""
    versions = {name: _version(name) for name in PACKAGES}
    settings = {name: jax.config.values.get(name) for name in SETTINGS}
    plain = json.loads(json.dumps(dict(values), default=str))
    found: dict[str, Any] = {name: value for name, value in flat(plain) if name not in OWN}
    found |= {"code of gmma (SHA-256)": code_hash(PACKAGE), "python": platform.python_version()}
    modules = hash_named_modules(found.values())
    found |= {f"code of {name} (SHA-256)": digest for name, digest in modules.items()}
    found |= {f"version of {name}": version for name, version in versions.items()}
    found |= {name: None if value is None else str(value) for name, value in settings.items()}
    return found | {name: _flags(name) for name in FLAGS}


@cache
def code_hash(package: Path) -> str:
    """Hash the names and contents of the package's Python files, when first asked."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _flags(name: str) -> str:
    words = os.environ.get(name, "").split()
    return " ".join(word for word in words if not word.startswith("--xla_dump"))  # a host's own


def differences(offers: Mapping[int, Facts]) -> list[str]:
    """Return each fact that is not equal on all hosts, with the hosts of each value.

    >>> differences({0: {"seed": 1, "x": 0}, 1: {"seed": 2, "x": 0}, 2: {"seed": 1, "x": 0}})
    ['seed = 1 on hosts 0, 2, 2 on host 1']
    """
    found = []
    for name in dict.fromkeys(name for facts in offers.values() for name in facts):
        holders: dict[str, list[int]] = {}
        for host, facts in sorted(offers.items()):
            text = json.dumps(facts[name], ensure_ascii=False) if name in facts else "absent"
            holders.setdefault(text, []).append(host)
        if len(holders) > 1:
            shown = ", ".join(f"{_short(text)} on {_hosts(own)}" for text, own in holders.items())
            found.append(f"{name} = {shown}")
    return found


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _hosts(indices: Sequence[int]) -> str:
    return f"host{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"


def refuse(problems: Sequence[str]) -> None:
    """Raise UserError with what is wrong between the hosts, if anything is."""
    if problems:
        raise UserError(
            f"the hosts do not agree: {'; '.join(problems)}. Start every host with the same code, "
            "experiment and options, each with its own --hosts.index"
        )


def meet(address: str, count: int, index: int, facts: Facts, *, seconds: float) -> None:
    """Return when all hosts are here and agree; `seconds` is how long to wait for them.

    Raises UserError on every host where they do not, where one does not come, or where one comes
    twice.
    """
    deadline = time.monotonic() + seconds
    if index == 0:
        refuse(_gather(address, count, facts, deadline, seconds))
    else:
        refuse(_report(address, {"index": index, "facts": facts}, deadline, seconds))


def _gather(
    address: str, count: int, facts: Facts, deadline: float, seconds: float
) -> Sequence[str]:
    """Act as host 0: hear all, judge, tell all."""
    offers, twice = {0: facts}, set[int]()
    with ExitStack() as stack:
        server = stack.enter_context(_listen(address))
        lines: list[socket.socket] = []
        while len(offers) < count:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                line = stack.enter_context(server.accept()[0])
            except TimeoutError:
                break
            line.settimeout(PATIENCE_SECONDS)
            hello = _receive(line)
            if not isinstance(hello, dict) or hello.keys() != {"index", "facts"}:
                continue  # no host of this run: a probe of the network
            lines.append(line)
            twice |= {hello["index"]} & offers.keys()
            offers.setdefault(hello["index"], hello["facts"])
            if twice or differences({0: facts, 1: hello["facts"]}):
                deadline = min(deadline, time.monotonic() + PATIENCE_SECONDS)
        server.close()  # before anybody goes on: JAX's coordinator listens here next
        problems = [f"two processes have --hosts.index {host}" for host in sorted(twice)]
        problems += differences(offers)
        missing = sorted(set(range(count)) - offers.keys())
        if missing and not problems:
            problems = [f"{_hosts(missing)} of {count} did not come within {seconds:.0f} s"]
        for line in lines:
            with suppress(OSError):  # one that has ended meanwhile: JAX will miss it
                line.sendall(json.dumps(problems).encode() + b"\n")
    return problems


def _listen(address: str) -> socket.socket:
    port = int(address.rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"hosts.coordinator = {address}: host 0 cannot listen on port {port} ({error}); "
            "another program does, perhaps another gmma with --hosts.index 0: end it, give this "
            "process its own index, or choose another port for all hosts"
        ) from error


def _report(address: str, hello: Any, deadline: float, seconds: float) -> Sequence[str]:
    """Act as another host: tell host 0, hear what it found."""
    host, _, port = address.rpartition(":")
    reason: Exception = TimeoutError("no answer; it may have begun without this process")
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=left) as line:
                line.sendall(json.dumps(hello).encode() + b"\n")
                line.settimeout(left + PATIENCE_SECONDS)  # host 0 may have begun to wait later
                verdict = _receive(line)
            if isinstance(verdict, list):
                return verdict
        except (OSError, OverflowError) as error:
            reason = error
        time.sleep(RETRY_SECONDS)
    raise UserError(
        f"hosts.coordinator = {address}: host 0 did not come within {seconds:.0f} s ({reason}); "
        "start gmma on every host, with the address at which the others reach host 0"
    )


def _receive(line: socket.socket) -> Any:
    """Return the JSON value of a line; None for anything else."""
    try:
        with line.makefile("rb") as file:
            return json.loads(file.readline(LINE_BYTES))
    except (OSError, ValueError):
        return None


def meet_in_store(store: Any, count: int, index: int, facts: Facts, *, seconds: float) -> None:
    """Meet over the key-value store of JAX's coordination service.

    The way of `slice`, where JAX found the hosts. Every host reads all and comes to the same
    verdict; host 0 leaves with the last.
    """
    wait = int(seconds * 1000)
    store.key_value_set(f"gmma/facts/{index}", json.dumps(facts))
    offers = {
        host: json.loads(store.blocking_key_value_get(f"gmma/facts/{host}", wait))
        for host in range(count)
    }
    store.wait_at_barrier("gmma/facts", wait)  # who serves the store must not end before
    refuse(differences(offers))


def check_devices(devices: Sequence[Any]) -> None:
    """Raise UserError unless every host has the same number of devices of one kind."""
    offers: dict[int, dict[str, Any]] = {}
    for device in devices:
        own = offers.setdefault(device.process_index, {"devices": 0, "kind of device": None})
        own["devices"] += 1
        own["kind of device"] = device.device_kind
    refuse(differences(offers))
