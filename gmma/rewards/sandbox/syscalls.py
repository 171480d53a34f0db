"""The seccomp filter: the kernel calls a computing Python needs, and no other.

What is missing on purpose: anything that makes a process, a socket or a namespace, reaches another
process (kill, ptrace, process_vm_readv, pidfd), runs a program, mounts, changes owners or modes.
To the caller a missing one looks unimplemented (ENOSYS), which the C library takes in its stride.
"""

import platform
import struct

# x86-64 numbers
_ALLOWED = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7,
    "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13,
    "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16, "pread64": 17, "pwrite64": 18,
    "readv": 19, "writev": 20, "access": 21, "pipe": 22, "select": 23, "sched_yield": 24,
    "mremap": 25, "madvise": 28, "dup": 32, "dup2": 33, "nanosleep": 35, "getitimer": 36,
    "alarm": 37, "setitimer": 38, "getpid": 39, "exit": 60, "wait4": 61, "uname": 63, "fcntl": 72,
    "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "getdents": 78, "getcwd": 79,
    "chdir": 80, "rename": 82, "mkdir": 83, "rmdir": 84, "unlink": 87, "readlink": 89, "umask": 95,
    "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
    "sigaltstack": 131, "arch_prctl": 158, "gettid": 186, "futex": 202, "sched_getaffinity": 204,
    "getdents64": 217, "set_tid_address": 218, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "openat": 257, "mkdirat": 258, "newfstatat": 262,
    "unlinkat": 263, "renameat": 264, "readlinkat": 267, "faccessat": 269, "pselect6": 270,
    "ppoll": 271, "set_robust_list": 273, "dup3": 292, "pipe2": 293, "renameat2": 316,
    "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334, "close_range": 436,
    "faccessat2": 439,
}  # fmt: skip
_CLONE, _CLONE_THREAD = 56, 0x00010000
_ARCHITECTURE, _FIRST_X32_CALL = 0xC000003E, 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _KILL, _ERRNO_ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | 38


def seccomp_program() -> bytes | None:
    """The filter for this machine, or None where we know no numbers (not x86-64)."""
    if platform.machine() != "x86_64":
        return None
    numbers = sorted(_ALLOWED.values())
    count = len(numbers)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _ARCHITECTURE),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, count + 3, 0, _FIRST_X32_CALL),
        # From the n-th comparison the ALLOW at the end is count − n + 4 instructions away.
        *((_EQUAL, count - n + 3, 0, number) for n, number in enumerate(numbers)),
        (_EQUAL, 0, 2, _CLONE),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),  # a thread, not a process
        (_RETURN, 0, 0, _ERRNO_ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
