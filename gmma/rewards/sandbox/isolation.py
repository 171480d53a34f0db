"""The layers between a submission and the machine; its process puts them on before it runs it."""

import contextlib
import ctypes
import os
import resource
import struct
import sys
from collections.abc import Callable, Collection
from typing import Any

from . import kernel
from .syscalls import seccomp_program

USER, PID, NETWORK, MOUNT = (f"{n} namespace" for n in ("user", "PID", "network", "mount"))
IPC, UTS = "IPC namespace", "UTS namespace"
LANDLOCK, SECCOMP = "Landlock", "seccomp"
LAYERS = (USER, PID, NETWORK, MOUNT, IPC, UTS, LANDLOCK, SECCOMP)
REQUIRED = frozenset(LAYERS) - {LANDLOCK}  # Landlock repeats what the mounts do already

_FLAGS = {
    USER: kernel.CLONE_NEWUSER,
    PID: kernel.CLONE_NEWPID,
    NETWORK: kernel.CLONE_NEWNET,
    MOUNT: kernel.CLONE_NEWNS,
    IPC: kernel.CLONE_NEWIPC,
    UTS: kernel.CLONE_NEWUTS,
}
_NOBODY = 65534
_SCRATCH = "/tmp"
# Files that Python needs to import its standard library, and the time zones; `preload_libraries`
# has loaded its shared libraries. Nothing else of the system's, nothing of the user's.
_LIBRARY = tuple(path for path in (os.path.dirname(os.__file__), *sys.path) if os.path.isdir(path))
_SYSTEM = (*_LIBRARY, "/usr/share/zoneinfo")
_PACKAGES = ("site-packages", "dist-packages")  # stand in the library, and are hidden
# Extensions that would bring in a display, or are tests of Python's own.
_NOT_PRELOADED = ("_tkinter", "_test", "_xx", "xx", "_ctypes_test")


def preload_libraries() -> None:
    """Load the libraries that extensions of the standard library link to, for later processes.

    One that cannot be loaded here could not be imported in a submission either.
    """
    for directory in _LIBRARY:
        for file in sorted(os.listdir(directory)):
            if file.endswith(".so") and not file.startswith(_NOT_PRELOADED):
                with contextlib.suppress(OSError):
                    ctypes.CDLL(os.path.join(directory, file))


def missing_layers() -> list[str]:
    """Return the layers that do not work here, each found by trying it in a child."""
    return [layer for layer in LAYERS if not _works(layer)]


def _works(layer: str) -> bool:
    child = os.fork()
    if child == 0:
        try:
            _try(layer)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _try(layer: str) -> None:
    if layer in _FLAGS:
        enter_namespaces({USER, layer})
    if layer == MOUNT:
        confine_files(1 << 20)
    if layer in (LANDLOCK, SECCOMP):
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        _restrict_with[layer](_SCRATCH, False)


def enter_namespaces(layers: Collection[str]) -> None:
    """Enter new namespaces (the PID namespace: for its children), as nobody inside."""
    flags = sum(flag for layer, flag in _FLAGS.items() if layer in layers)
    user, group = os.geteuid(), os.getegid()
    if flags:
        kernel.unshare(flags)
    if USER in layers:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{_NOBODY} {user} 1")
        _write("/proc/self/gid_map", f"{_NOBODY} {group} 1")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def confine_files(scratch_bytes: int) -> None:
    """Enter a root of its own: Python's library read-only, and a private /tmp in memory."""
    sources = {path: os.open(path, os.O_PATH) for path in _outermost(_SYSTEM)}
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    no_devices = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", "/tmp", "tmpfs", no_devices, "size=1m,nr_inodes=256,mode=755")
    for path, descriptor in sources.items():
        target = f"/tmp{path}"
        if not os.path.isdir(target):
            os.makedirs(target)
        source = f"/proc/self/fd/{descriptor}"
        kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
        for packages in (os.path.join(target, name) for name in _PACKAGES):
            if os.path.isdir(packages):
                kernel.mount("none", packages, "tmpfs", no_devices, "size=4k,nr_inodes=2,mode=755")
        kernel.make_read_only(target, recursive=True)
        os.close(descriptor)
    os.makedirs("/tmp/tmp", exist_ok=True)
    options = f"size={scratch_bytes},nr_inodes=1024,mode=700"
    kernel.mount("tmpfs", "/tmp/tmp", "tmpfs", no_devices, options)
    kernel.enter_root("/tmp")
    kernel.make_read_only("/", recursive=False)


def _outermost(paths: Collection[str]) -> list[str]:
    """Return the directories that are there and in no other of them."""
    there = sorted({os.path.realpath(path) for path in paths if os.path.isdir(path)})
    return [p for p in there if not any(p.startswith(f"{q}/") for q in there)]


def confine_process(
    layers: Collection[str], scratch: str, limits: dict[int, tuple[int, int]]
) -> None:
    """Set limits (soft, hard), drop all privileges, rule out gaining any. It cannot be undone."""
    os.chdir(scratch)
    for which, bounds in limits.items():
        resource.setrlimit(which, bounds)
    if USER in layers:
        kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    for layer, restrict in _restrict_with.items():
        if layer in layers:
            restrict(scratch, MOUNT in layers)


def _restrict_files(scratch: str, own_files: bool) -> None:
    """Restrict files by Landlock: write under `scratch` alone, read there and in the system's."""
    version = kernel.landlock_version()
    if version == 0:
        raise OSError("Landlock is not there")
    newest = {1: 12, 2: 13, 3: 14, 4: 14}.get(version, 15)  # the last file right of each version
    every, reading = (1 << newest + 1) - 1, 0b1101  # execute, read a file, list a directory
    ruleset = kernel.landlock_create(_landlock_attributes(version, every))
    rights = {scratch: every, **{path: reading for path in _SYSTEM if os.path.isdir(path)}}
    for path, right in rights.items():
        descriptor = os.open(path, os.O_PATH)
        kernel.landlock_allow(ruleset, descriptor, right)
        os.close(descriptor)
    kernel.landlock_restrict(ruleset)
    os.close(ruleset)


def _landlock_attributes(version: int, file_rights: int) -> bytes:
    ports = struct.pack("=Q", 0b11) if version >= 4 else b""  # bind and connect
    scopes = struct.pack("=Q", 0b11) if version >= 6 else b""  # abstract sockets and signals
    return struct.pack("=Q", file_rights) + ports + scopes


def _restrict_calls(scratch: str, own_files: bool) -> None:
    program = seccomp_program(own_files)
    if program is None:
        raise OSError("no seccomp filter for this machine")
    kernel.seccomp_filter(program)


# In this order: Landlock itself makes calls that the filter forbids.
_restrict_with: dict[str, Callable[[str, bool], Any]] = {
    LANDLOCK: _restrict_files,
    SECCOMP: _restrict_calls,
}
