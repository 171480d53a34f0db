"""The few kernel calls that Python 3.11 does not wrap: namespaces, mounts, Landlock, seccomp."""

import ctypes
import os
import platform
import struct

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER = 1, 4, 22, 36
PR_SET_NO_NEW_PRIVS = 38

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_M_ARENA_MAX = -8  # of glibc; another C library does nothing with it
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 4096, 16384, 1 << 18, 2
_AT_RECURSIVE, _MOUNT_ATTR_READONLY_NOSUID_NODEV = 0x8000, 7

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(platform.machine(), -1)
_MOUNT_SETATTR, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 442, 444, 445, 446

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def prctl(option: int, argument: int, second: ctypes.Array | int = 0) -> None:
    _checked(_LIBC.prctl(option, ctypes.c_ulong(argument), second, 0, 0), f"prctl {option}")


def unshare(flags: int) -> None:
    _checked(_LIBC.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    arguments = (_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(options))
    _checked(_LIBC.mount(*arguments), f"mount {target}")


def make_read_only(target: str, recursive: bool) -> None:
    """Call `mount_setattr`, which keeps the flags that a mount may not lose (Linux 5.12)."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_READONLY_NOSUID_NODEV, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    result = _LIBC.syscall(
        _MOUNT_SETATTR, -100, _text(target), flags, attributes, ctypes.c_size_t(len(attributes))
    )
    _checked(result, f"mount_setattr {target}")


def enter_root(directory: str) -> None:
    """Make a mount point the root of the file system, and let go of the old one."""
    os.chdir(directory)
    _checked(_LIBC.syscall(_PIVOT_ROOT, b".", b"."), "pivot_root")
    _checked(_LIBC.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def drop_capabilities() -> None:
    header = struct.pack("=Ii", 0x20080522, 0)
    _checked(_LIBC.capset(header, bytes(24)), "capset")


def keep_few_arenas() -> None:
    """Use one heap for all threads: each more would reserve 64 MiB of a limited address space."""
    _LIBC.mallopt(_M_ARENA_MAX, 1)


def landlock_version() -> int:
    """Return the kernel's Landlock version, 0 if it has none."""
    return max(0, _LIBC.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def landlock_create(attributes: bytes) -> int:
    size = ctypes.c_size_t(len(attributes))
    return _checked(_LIBC.syscall(_LANDLOCK_CREATE, attributes, size, 0), "landlock")


def landlock_allow(ruleset: int, directory: int, rights: int) -> None:
    rule = struct.pack("=Qi", rights, directory)
    _checked(_LIBC.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), "landlock rule")


def landlock_restrict(ruleset: int) -> None:
    _checked(_LIBC.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock restriction")


def seccomp_filter(program: bytes) -> None:
    """Install a BPF program, 8 bytes an instruction."""
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    prctl(PR_SET_SECCOMP, 2, ctypes.create_string_buffer(header, len(header)))
