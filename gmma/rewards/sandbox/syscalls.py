"""The seccomp filter: the kernel calls a computing Python needs, and no other.

What is missing on purpose: anything that makes a process, a socket or a namespace, reaches another
process (kill, ptrace, process_vm_readv, pidfd), runs a program, mounts or changes owners. Of some
calls only a part is there: of `clone` threads, of `socketpair` the nameless pair that an event loop
wakes itself with, of `sendto` what has no address, of `fcntl` and `ioctl` the commands that make no
signal (F_SETOWN, F_SETSIG, FIOASYNC … would). To the caller a missing one looks unimplemented
(ENOSYS), which the C library takes in its stride.
"""

import platform
import struct
from collections.abc import Sequence

# x86-64 numbers
_ALLOWED = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7,
    "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13,
    "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "pwrite64": 18,
    "readv": 19, "writev": 20, "access": 21, "pipe": 22, "select": 23, "sched_yield": 24,
    "mremap": 25, "madvise": 28, "dup": 32, "dup2": 33, "nanosleep": 35, "getitimer": 36,
    "alarm": 37, "setitimer": 38, "getpid": 39, "recvfrom": 45, "shutdown": 48,
    "getsockname": 51, "exit": 60, "wait4": 61, "uname": 63,
    "fsync": 74, "fdatasync": 75, "ftruncate": 77, "getdents": 78, "getcwd": 79,
    "chdir": 80, "rename": 82, "mkdir": 83, "rmdir": 84, "unlink": 87, "readlink": 89, "umask": 95,
    "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
    "sigaltstack": 131, "arch_prctl": 158, "gettid": 186, "futex": 202, "sched_getaffinity": 204,
    "getxattr": 191, "lgetxattr": 192, "fgetxattr": 193, "listxattr": 194, "llistxattr": 195,
    "flistxattr": 196, "epoll_wait": 232, "epoll_ctl": 233, "epoll_pwait": 281,
    "epoll_create1": 291, "getdents64": 217, "set_tid_address": 218, "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "openat": 257, "mkdirat": 258, "newfstatat": 262,
    "unlinkat": 263, "renameat": 264, "readlinkat": 267, "faccessat": 269, "pselect6": 270,
    "ppoll": 271, "set_robust_list": 273, "dup3": 292, "pipe2": 293, "renameat2": 316,
    "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334, "close_range": 436,
    "faccessat2": 439,
}  # fmt: skip
# Calls that Landlock does not hold back: allowed only where no file is another's.
_OWN_FILES = {"truncate": 76, "chmod": 90, "fchmod": 91, "fchmodat": 268, "utimensat": 280}
_CLONE, _CLONE_THREAD = 56, 0x00010000
_SENDTO, _SOCKETPAIR, _FCNTL, _IOCTL = 44, 53, 72, 16
_UNIX, _STREAM, _SOCKET_TYPE = 1, 1, 0xF  # the type without its flags
# F_DUPFD … F_SETLKW, F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ
_FCNTL_COMMANDS = (*range(8), 1030, 1031, 1032)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_IOCTL_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_ARCHITECTURE, _FIRST_X32_CALL = 0xC000003E, 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_ALLOW, _KILL, _ERRNO_ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | 38

BpfInstruction = tuple[int, int, int, int]  # code, how far to jump if true, if false, operand


def seccomp_program(own_files: bool) -> bytes | None:
    """Return the filter for this machine, or None where we know no numbers (not x86-64).

    `own_files`: the process sees no file that is another's, and may change modes and times.
    """
    if platform.machine() != "x86_64":
        return None
    numbers = {**_ALLOWED, **(_OWN_FILES if own_files else {})}.values()
    program: list[BpfInstruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _ARCHITECTURE),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _FIRST_X32_CALL),
        (_RETURN, 0, 0, _ERRNO_ENOSYS),
    ]
    for number in sorted(numbers):
        program += _where(number, [(_RETURN, 0, 0, _ALLOW)])
    program += _where(_CLONE, [_argument(0), *_allow_if(_ANY_BIT, _CLONE_THREAD)])
    program += _where(_FCNTL, [_argument(1), *_allow_equal(_FCNTL_COMMANDS)])
    program += _where(_IOCTL, [_argument(1), *_allow_equal(_IOCTL_COMMANDS)])
    program += _where(
        _SOCKETPAIR,
        [
            _argument(0),
            *_refuse_unless(_UNIX),
            _argument(1),
            (_AND, 0, 0, _SOCKET_TYPE),
            *_allow_equal((_STREAM,)),
        ],
    )
    address = [_argument(4), *_refuse_unless(0), _argument(4, high=True), *_allow_equal((0,))]
    program += _where(_SENDTO, address)
    program.append((_RETURN, 0, 0, _ERRNO_ENOSYS))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _where(number: int, then: list[BpfInstruction]) -> list[BpfInstruction]:
    """Return the instructions for one system call; `then` must end by returning."""
    return [(_EQUAL, 0, len(then), number), *then]


def _argument(index: int, *, high: bool = False) -> BpfInstruction:
    """Load half of an argument, 32 bits: the kernel reads no more of these, but for addresses."""
    return (_LOAD, 0, 0, 16 + 8 * index + 4 * high)


def _allow_if(test: int, operand: int) -> list[BpfInstruction]:
    return [(test, 0, 1, operand), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO_ENOSYS)]


def _allow_equal(values: Sequence[int]) -> list[BpfInstruction]:
    allowed = [i for v in values for i in ((_EQUAL, 0, 1, v), (_RETURN, 0, 0, _ALLOW))]
    return [*allowed, (_RETURN, 0, 0, _ERRNO_ENOSYS)]


def _refuse_unless(value: int) -> list[BpfInstruction]:
    return [(_EQUAL, 1, 0, value), (_RETURN, 0, 0, _ERRNO_ENOSYS)]
