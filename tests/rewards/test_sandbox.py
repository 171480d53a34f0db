"""The sandbox: what honest code may do, what hostile code cannot."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hostile_channel import CHANNEL, SECRET, SETUP
from hostile_channel import TESTS as CHANNEL_TESTS
from hostile_submissions import HOSTILE
from hypothesis import given, settings

from gmma.errors import UserError
from gmma.rewards.sandbox import isolation
from gmma.rewards.sandbox.client import Limits, Sandbox
from gmma.rewards.sandbox.values import (
    Shared,
    decode,
    encode,
    encode_parts,
    is_changed,
    overwrite,
    snapshot,
)

NAMESPACES = tuple(layer for layer in isolation.LAYERS if layer.endswith("namespace"))
TIGHT = Limits(wall_seconds=2, cpu_seconds=10, memory_megabytes=128, threads=16)
PATIENCE = 60  # seconds after which something that should have ended did not
PATIENT = Limits(wall_seconds=PATIENCE)  # where the clock is not what a test is about
LIBRARY = Path(os.__file__).parent
TRACES = [Path(p) for p in ("/gmma_was_here", LIBRARY / "gmma_was_here.py", "/tmp/big", "/tmp/0")]
HONEST = "def add(a, b):\n    return a + b"
TESTS = ["assert abs(add(2, 3) - 5) < 1e-9", "assert add(2, 3) == 5"]


@pytest.fixture(scope="module")
def sandbox():
    try:
        box = Sandbox()
    except UserError as error:
        pytest.skip(str(error))
    yield box
    box.close()


@pytest.fixture(scope="module")
def weak_sandbox():
    box = Sandbox("weak", without=NAMESPACES)
    if isolation.SECCOMP in box.missing or isolation.LANDLOCK in box.missing:
        box.close()
        pytest.skip("neither namespaces nor seccomp and Landlock")
    yield box
    box.close()


def descendants(process):
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def check_hostile(box, name):
    """The wall clock is short where it is what ends a submission, and else out of the way."""
    code, kinds = HOSTILE[name]
    limits = TIGHT if "timed out" in kinds else replace(TIGHT, wall_seconds=PATIENCE)
    result = box.run(code, TESTS, limits=limits)
    assert result.kind in kinds, result
    assert result.passed == 0
    assert descendants(box.process.pid) == []
    assert [path for path in TRACES if path.exists()] == []
    assert Path(os.__file__).exists()
    assert box.run(HONEST, TESTS, limits=PATIENT).kind == "passed"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_submission(sandbox, name):
    check_hostile(sandbox, name)


@pytest.mark.parametrize(
    "name",
    [
        "fork bomb",
        "memory bomb",
        "reads the parent's environment",
        "reads the parent's memory",
        "reads the users' files",
        "writes into the library",
        "writes to the root",
        "ptrace",
        "opens a socket",
        "kills everything",
        "kills its group",
        "background daemon",
        "a file of 10 GB",
        "runs a program",
    ],
)
def test_seccomp_and_landlock_hold_alone(weak_sandbox, name):
    check_hostile(weak_sandbox, name)


def test_there_are_enough_kinds_of_hostile_submissions():
    assert len(CHANNEL) >= 20
    assert len(CHANNEL) + len(HOSTILE) >= 120


def test_nothing_comes_through_the_channel(sandbox):
    """No forgery passes a test or is sent what a test expects; whoever knows the answer passes."""
    limits, wrong = Limits(wall_seconds=PATIENCE), {}
    for name, code in CHANNEL.items():
        result = sandbox.run(code, CHANNEL_TESTS, SETUP, limits)
        if result.passed or result.kind not in ("failed", "crashed") or SECRET in result.output:
            wrong[name] = result
    assert wrong == {}
    assert descendants(sandbox.process.pid) == []
    assert [path for path in TRACES if path.exists()] == []
    knows = "key = lambda x: 86420\ndef use(f, box, *a): box.value = 86420; return 86420"
    assert sandbox.run(knows, CHANNEL_TESTS, SETUP, limits).passed == len(CHANNEL_TESTS)


FORBIDDEN_CALLS = """
import ctypes, errno, fcntl, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, *args):
    ctypes.set_errno(0)
    result = libc.syscall(*(ctypes.c_long(a) for a in args))
    return None if result == -1 and ctypes.get_errno() == errno.ENOSYS else (name, result)
CALLS = dict(fork=57, vfork=58, clone3=435, execve=59, execveat=322, kill=62, tkill=200, tgkill=234,
    rt_sigqueueinfo=129, rt_tgsigqueueinfo=297, pidfd_open=434, pidfd_send_signal=424, ptrace=101,
    process_vm_readv=310, process_vm_writev=311, pidfd_getfd=438, kcmp=312, unshare=272, setns=308,
    mount=165, pivot_root=155, chroot=161, link=86, symlink=88, linkat=265, mknod=133, socket=41,
    connect=42, bind=49, sendmsg=46, timer_create=222, prlimit64=302, setuid=105, chown=92,
    personality=135, bpf=321, keyctl=250, userfaultfd=323, perf_event_open=298, io_uring_setup=425,
    memfd_create=319, open_by_handle_at=304, prctl=157, mq_open=240, semget=64,
    shmget=29, x32=2**30)
PIPE = os.pipe()
NARROWED = dict(
    clone=(56, 17), owner=(72, PIPE[0], 8, os.getppid()), signal=(72, PIPE[0], 10, 9),
    owner_ex=(72, PIPE[0], 15, 0), lease=(72, PIPE[0], 1024, 0), notify=(72, PIPE[0], 1026, 1),
    fioasync=(16, PIPE[0], 0x5452, 0), fiosetown=(16, PIPE[0], 0x8901, 0), tiocsti=(16, 0, 0x5412),
    datagrams=(53, 1, 2, 0, 0), internet=(53, 2, 1, 0, 0),
    addressed=(44, PIPE[1], 0, 0, 0, 4096, 9))
def found():
    all_ = {**{name: (number, 0, 0, 0, 0) for name, number in CALLS.items()}, **NARROWED}
    return [t for name, args in all_.items() if (t := tried(name, *args))]
"""


@pytest.mark.parametrize("box", ["sandbox", "weak_sandbox"])
def test_calls_that_reach_others_are_not_there(box, request):
    result = request.getfixturevalue(box).run(
        FORBIDDEN_CALLS, ["assert found() == [], found()"], limits=PATIENT
    )
    assert result.kind == "passed", result


def test_weak_sandbox_leaves_modes_of_files_alone(weak_sandbox, tmp_path):
    """Landlock does not hold back a change of mode or times; the filter does."""
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    before = victim.stat()
    code = f"""
import os
def f():
    for change, value in ((os.chmod, 0), (os.utime, (1, 1)), (os.truncate, 0)):
        try: change({str(victim)!r}, value)
        except OSError: pass
"""
    weak_sandbox.run(code, ["f()"], limits=PATIENT)
    after = victim.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_size) == (
        before.st_mode,
        before.st_mtime_ns,
        before.st_size,
    )


def test_nothing_of_the_system_is_readable_but_the_library(sandbox):
    seen = (
        "import os, glob\nlibrary = os.path.dirname(os.__file__)\n"
        "def readable():\n"
        "    paths = ['/etc/hostname', '/usr/bin/env', '/usr/lib/os-release', '/usr/include',\n"
        "        '/usr/local', '/usr/share/doc', '/usr/lib/x86_64-linux-gnu', '/lib64',\n"
        "        library + '/site-packages/pip', *glob.glob(library + '/*-packages/*')]\n"
        "    return [p for p in paths if os.path.exists(p)]\n"
    )
    uses = (
        "import bz2, ctypes, curses, decimal, hashlib, lzma, sqlite3, ssl, uuid, zlib\n"
        "def f(): return hashlib.sha256(b'').hexdigest()[:4], ctypes.CDLL('libm.so.6') is not None"
    )
    result = sandbox.run(seen, ["assert readable() == [], readable()"], limits=PATIENT)
    assert result.kind == "passed", result
    result = sandbox.run(uses, ["assert f() == ('e3b0', True)"], limits=PATIENT)
    assert result.kind == "passed", result


def test_nothing_is_left_behind(sandbox, tmp_path):
    before = set(os.listdir("/tmp"))
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    code = f"""
def add(a, b):
    for path in ("/tmp/left_behind", {str(victim)!r}, {str(tmp_path / "new")!r}):
        try:
            open(path, "w").write("gone")
        except OSError:
            pass
    return a + b
"""
    assert sandbox.run(code, TESTS, limits=PATIENT).kind == "passed"  # in its own /tmp it may write
    assert victim.read_text() == "as it was"
    assert os.listdir(tmp_path) == ["victim"]
    assert "left_behind" not in set(os.listdir("/tmp")) - before
    seen = "import os\ndef seen(*paths): return list(filter(os.path.exists, paths))"
    hidden = ("/etc/passwd", "/proc/1", "/var", "/dev", __file__, str(victim), "/tmp/left_behind")
    result = sandbox.run(seen, [f"assert seen{hidden} == [], seen{hidden}"], limits=PATIENT)
    assert result.kind == "passed", result


def test_weak_sandbox_leaves_no_scratch_behind(weak_sandbox):
    before = set(os.listdir("/tmp"))
    code = "open('note', 'w').write('1')\ndef add(a, b): return a + b"
    assert weak_sandbox.run(code, TESTS, limits=PATIENT).kind == "passed"
    assert set(os.listdir("/tmp")) <= before | {"note"}
    assert "note" not in set(os.listdir("/tmp")) - before


def test_strong_refuses_and_weak_prints_what_is_missing(capsys):
    with pytest.raises(UserError, match="lacks PID namespace, seccomp on this machine"):
        Sandbox("strong", without=["PID namespace", "seccomp"])
    Sandbox("weak", without=["PID namespace", "seccomp"]).close()
    assert "weak sandbox: no PID namespace, no seccomp" in capsys.readouterr().err
    with pytest.raises(UserError, match="choose 'strong' or 'weak'"):
        Sandbox("none")


def test_server_is_clean(sandbox):
    server = Path(f"/proc/{sandbox.process.pid}")
    assert (server / "environ").read_bytes() == b""
    maps = (server / "maps").read_text()
    assert "jax" not in maps
    assert "numpy" not in maps


def test_server_that_died_is_started_again(sandbox):
    sandbox.process.kill()
    sandbox.process.wait()
    assert sandbox.run(HONEST, TESTS, limits=PATIENT).kind == "passed"


def test_server_dies_with_a_killed_caller():
    script = (
        "import sys\nfrom gmma.rewards.sandbox.client import Sandbox\n"
        "print(Sandbox('weak').process.pid, flush=True)\nsys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, **pipes) as caller:
        server = int(caller.stdout.readline())
        caller.kill()
        caller.wait()
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        if not Path(f"/proc/{server}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its caller")


def test_limits_of_time(sandbox):
    spin = "def add(a, b):\n    while True: pass"
    began = time.monotonic()
    assert sandbox.run(spin, TESTS, limits=Limits(wall_seconds=0.3)).kind == "timed out"
    assert time.monotonic() - began < PATIENCE
    cpu = sandbox.run(spin, TESTS, limits=Limits(wall_seconds=999, cpu_seconds=1))
    assert cpu.kind == "timed out"
    assert time.monotonic() - began < 2 * PATIENCE


def test_tests_passed_before_the_end_count(sandbox):
    code = "import os\ndef f(x):\n    if x == 3: os._exit(0)\n    return x"
    tests = [f"assert f({n}) == {n}" for n in range(6)]
    result = sandbox.run(code, tests, limits=PATIENT)
    assert (result.kind, result.passed) == ("crashed", 3)
    partly = sandbox.run("def f(x): return x % 2", tests, limits=PATIENT)
    assert (partly.kind, partly.passed, partly.tests) == ("failed", 2, 6)


def test_output_is_kept_a_little(sandbox):
    code = "print('hello', flush=True)\ndef add(a, b): return a + b"
    assert sandbox.run(code, TESTS, limits=PATIENT).output == "hello\n"


@pytest.mark.parametrize(
    ("tests", "setup"),
    [
        (["assert add(2, 3 == 5"], ""),
        (["assert add(2, 3) == 5"], "def ("),
        (["import no_such_module"], ""),
        (["add(object(), 1)"], ""),
    ],
)
def test_faults_of_the_tests_are_not_the_models(sandbox, tests, setup):
    assert sandbox.run(HONEST, tests, setup, PATIENT).kind == "runner error"


HONEST_USES = {
    "many types": (
        "def same(*a): return a[0] if len(a) == 1 else a",
        """
import datetime
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
plain = [None, True, 0, -1, 10**100, -(2**53), 0.1, -0.0, float('inf'), 1j, 'ü\\ud800', b'\\xff']
nested = [bytearray(b'a'), [], [1, [2]], (), (1, (2,)), {1}, frozenset({(1,)}), {(1, 2): {3: []}}]
library = [range(1, 9, 2), Counter('abca'), OrderedDict(a=1), deque([1, 2]), Decimal('1.10'), int,
           Fraction(1, 3), datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3), ValueError]
for value in plain + nested + library:
    back = same(value)
    assert back == value and type(back) is type(value), value
assert same(1, 2) == (1, 2)
assert same(float('nan')) != same(float('nan'))
""",
    ),
    "changes an argument in place": (
        "def sort(x, d): x.sort(); d['n'] = len(x); return None",
        "x, d = [3, 1, 2], {}\nassert sort(x, d) is None\nassert x == [1, 2, 3] and d == {'n': 3}",
    ),
    "generators": (
        "def count(n):\n    for i in range(n): yield i",
        "assert list(count(3)) == [0, 1, 2]\ng = count(9)\nassert next(g) == 0 and sum(g) == 36",
    ),
    "classes": (
        "class Stack:\n"
        "    size = 0\n"
        "    def __init__(self): self.items = []\n"
        "    def push(self, x): self.items.append(x); self.size += 1; return self\n"
        "    def __len__(self): return len(self.items)\n"
        "    def __getitem__(self, i): return self.items[i]\n"
        "    def __eq__(self, other): return self.items == other.items\n",
        "s = Stack()\ns.push(1).push(2)\nassert len(s) == 2 and s[0] == 1 and s[-1:] == [2]\n"
        "assert s.items == [1, 2] and s.size == 2 and isinstance(s, Stack)\n"
        "s.size = 7\nassert s.size == 7 and 2 in s and bool(s)\n"
        "assert s == Stack().push(1).push(2) and s != Stack()\n",
    ),
    "setup that needs the code": (
        "class Node:\n    def __init__(self, v): self.v, self.left = v, None\n"
        "def depth(n): return 0 if n is None else 1 + depth(n.left)",
        "root = Node(1)\nroot.left = Node(2)\nassert depth(root) == 2",
    ),
    "subclasses of plain types": (
        "from collections import namedtuple\nfrom enum import IntEnum\n"
        "Point = namedtuple('Point', 'x y')\nclass Colour(IntEnum): RED = 1\n"
        "def point(): return Point(1, 2)\ndef colour(): return Colour.RED",
        "assert point() == (1, 2) and point().x == 1\nassert colour() == 1 and 1 + colour() == 2\n"
        "assert colour() < 2 and abs(colour() - 0.5) == 0.5 and max(colour(), 0) == 1\n",
    ),
    "callbacks": (
        "def apply(f, x): return f(x)\ndef compose(f, g): return lambda x: f(g(x))",
        "assert apply(lambda x: x + 1, 2) == 3\nassert apply(len, 'abc') == 3\n"
        "assert compose(lambda x: x * 2, lambda x: x + 1)(3) == 8\nassert apply(int, '7') == 7\n",
    ),
    "exceptions": (
        "class Own(Exception): pass\n"
        "def f(x):\n    if x == 0: raise Own('zero')\n    return {1: 2}[x]",
        "try:\n    f(5)\nexcept KeyError as error:\n    assert '5' in str(error)\n"
        "else:\n    assert False\n"
        "try:\n    f(0)\nexcept Own as error:\n    assert str(error) == 'zero'\n"
        "else:\n    assert 0\n",
    ),
    "a task that asks for a built-in name": (
        "def sum(a, b): return a * b",
        "assert sum(2, 3) == 6",
    ),
    "tests that use what the code imports": (
        "import math\ndef root(x): return math.sqrt(x)",
        "assert math.isclose(root(2), math.sqrt(2))",
    ),
    "scripts": (
        "def f(): return __name__\nif __name__ == '__main__':\n    print(input())",
        "assert f() == 'submission'",
    ),
    "threads and files": (
        "import threading, tempfile\ndef f():\n    out = []\n"
        "    t = threading.Thread(target=out.append, args=[1]); t.start(); t.join()\n"
        "    with tempfile.TemporaryFile() as file:\n"
        "        file.write(b'x'); file.seek(0); return out + [file.read()]",
        "assert f() == [1, b'x']",
    ),
    "dataclasses and typing": (
        "from dataclasses import dataclass\nfrom typing import List\n"
        "@dataclass\nclass P:\n    x: int\ndef f(x: List[int]) -> P: return P(x[0])",
        "assert f([4]).x == 4 and f([4]) == P(4)",
    ),
    "asynchronous code": (
        "import asyncio\nasync def slow(x):\n    await asyncio.sleep(0.001); return x + 1\n"
        "def f(x): return asyncio.run(slow(x))",
        "import asyncio\nassert f(1) == 2 and asyncio.run(slow(2)) == 3",
    ),
    "many threads": (
        "import time\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "def f(xs):\n    with ThreadPoolExecutor(40) as pool:\n"
        "        return list(pool.map(lambda x: (time.sleep(0.01), x)[1], xs))",
        "assert f(list(range(80))) == list(range(80))",
    ),
    "callbacks from threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def f(g, xs):\n    with ThreadPoolExecutor(8) as pool: return list(pool.map(g, xs))",
        "assert f(lambda x: x * x, list(range(50))) == [x * x for x in range(50)]",
    ),
    "copies of files": (
        "import shutil\ndef f(text):\n    open('a', 'w').write(text)\n"
        "    shutil.copy('a', 'b'); shutil.copy2('b', 'c'); return open('c').read()",
        "assert f('text') == 'text'",
    ),
    "classes of the tests": (
        "def length(n): return 0 if n is None else 1 + length(n.next)\n"
        "def cut(n): n.next = None; return n\n"
        "def total(xs): return sum(x.double() for x in xs)\ndef make(kind, *a): return kind(*a)\n",
        "class Node:\n    def __init__(self, v, next=None): self.v, self.next = v, next\n"
        "    def double(self): return 2 * self.v\n"
        "n = Node(1, Node(2))\nassert length(n) == 2 and cut(n) is n and n.next is None\n"
        "assert total([Node(1), Node(2)]) == 6 and make(Node, 5).v == 5",
    ),
    "operators of the tests' classes": (
        "def f(a, b): return a + b\ndef g(xs): return max(xs)\n"
        "def h(c): return [len(c), c[1], list(c), 2 in c]",
        "from dataclasses import dataclass\n@dataclass(order=True)\nclass V:\n    x: int\n"
        "    def __add__(self, other): return V(self.x + other.x)\n"
        "class C:\n    def __len__(self): return 3\n"
        "    def __getitem__(self, i): return [1, 2, 3][i]\n"
        "    def __iter__(self): return iter([1, 2, 3])\n"
        "    def __contains__(self, x): return x < 4\n"
        "assert f(V(1), V(2)) == V(3) and g([V(1), V(4)]) == V(4)\n"
        "assert h(C()) == [3, 2, [1, 2, 3], True]",
    ),
    "aliases": (
        "def add(xs, x): xs.append(x); return xs\ndef both(a, b): a.append(1); return b\n"
        "def inner(xs): xs[0].append(5); return xs[0]",
        "xs = []\nassert add(xs, 1) is xs and xs == [1]\nxs = []\nassert both(xs, xs) is xs\n"
        "assert xs == [1]\ny = []\nxs = [y]\nassert inner(xs) is y and y == [5]",
    ),
    "one object": (
        "from enum import Enum\nclass Colour(Enum): RED = 1\nclass One:\n    it = None\n"
        "    def __new__(cls):\n        cls.it = cls.it or super().__new__(cls); return cls.it\n"
        "def red(): return Colour.RED",
        "assert One() is One() and red() is Colour.RED and red() is not None",
    ),
    "own exceptions": (
        "class Poor(ValueError):\n    def __init__(self, have, need):\n"
        "        super().__init__(f'{have} of {need}'); self.need = need\n"
        "class Broke(Poor): pass\ndef pay(x):\n    if x > 5: raise Broke(5, x)\n"
        "    return 5 - x\n",
        "try:\n    pay(7)\nexcept Poor as error:\n"
        "    assert error.need == 7 and str(error) == '5 of 7' and isinstance(error, Broke)\n"
        "else:\n    assert False\nassert issubclass(Broke, Poor) and issubclass(Poor, ValueError)\n"
        "import unittest\nwith unittest.TestCase().assertRaises(Broke):\n    pay(9)\n"
        "assert str(Poor(1, 2)) == '1 of 2'",
    ),
    "exceptions of the tests": (
        "def retry(f, n):\n    for _ in range(n):\n        try: return f()\n"
        "        except ValueError as e: last = e\n    raise last",
        "class Mine(ValueError): pass\ndef f(): raise Mine('no')\ntry:\n    retry(f, 2)\n"
        "except Mine as error:\n    assert str(error) == 'no'\nelse:\n    assert False",
    ),
    "context managers": (
        "class Open:\n    def __enter__(self): self.on = True; return self\n"
        "    def __exit__(self, kind, error, trace):\n"
        "        self.on = False; return kind is ValueError\n",
        "o = Open()\nwith o as same:\n    assert same is o and o.on\nassert not o.on\n"
        "with Open():\n    raise ValueError('swallowed')\n"
        "try:\n    with o:\n        raise KeyError\n"
        "except KeyError:\n    pass\nelse:\n    assert False",
    ),
    "iterators and functions of Python's": (
        "def f(g): return list(g)\ndef s(xs, k): return sorted(xs, key=k)",
        "import operator\nassert f(x * x for x in range(3)) == [0, 1, 4]\n"
        "assert f(iter('ab')) == ['a', 'b']\n"
        "assert s(['b', 'A'], str.lower) == ['A', 'b']\n"
        "assert s([(1, 2), (2, 1)], operator.itemgetter(1)) == [(2, 1), (1, 2)]\n"
        "out = []\nassert f(map(out.append, [1])) == [None] and out == [1]",
    ),
    "200,000 numbers ten times": (
        "def f(xs): return sum(xs)",
        "xs = list(range(200_000))\nfor _ in range(10): assert f(xs) == 19_999_900_000",
    ),
}


@pytest.mark.parametrize("name", HONEST_USES)
def test_honest_submission(sandbox, name):
    code, test = HONEST_USES[name]
    result = sandbox.run(code, [test], limits=PATIENT)
    assert result.kind == "passed", result


def test_code_sees_the_names_of_the_setup_but_no_assertion(sandbox):
    setup = "import math\nfrom typing import List\ndef check(f):\n    assert f([4.0]) == [2.0]"
    code = "def f(x: List[float]): return [math.sqrt(x[0])]"
    assert sandbox.run(code, ["check(f)"], setup, PATIENT).kind == "passed"
    peek = "def f(x): return check.__code__.co_consts"
    assert "NameError" in sandbox.run(peek, ["check(f)"], setup, PATIENT).detail


def test_a_context_manager_swallows_no_judgement(sandbox):
    code = (
        "class C:\n    def __enter__(self): return self\n    def __exit__(self, *a): return True\n"
        "def f(x): return x\ndef g(h): return C()"
    )
    tests = [
        "with C():\n    assert f(1) == 2",
        "with C():\n    assert len(f(1)) == 2",
        "def check(x): assert f(x)[0] == 2\nwith C():\n    check(1)",
        "with C():\n    import unittest\n    unittest.TestCase().assertEqual(f(1), 2)",
    ]
    assert sandbox.run(code, tests, limits=PATIENT).passed == 0


def test_code_cannot_replace_what_the_tests_judge_with(sandbox):
    code = (
        "class math:\n    isclose = lambda *a: True\n"
        "def set(x): return 1\ndef sorted(x): return 1\ndef f(x): return x"
    )
    tests = [
        "assert math.isclose(f(1), 2)",
        "assert set(f([1])) == set([2])",
        "assert sorted(f([1])) == sorted([2])",
    ]
    assert sandbox.run(code, tests, limits=PATIENT).passed == 0


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(json_like)
@settings(max_examples=200, deadline=None)
def test_values_survive_the_pipe(value):
    wire = json.loads(json.dumps(encode(value, repr, Shared())))
    assert decode(wire, max, Shared()) == value


@pytest.mark.parametrize(
    "numbers", [list(range(-999, 999)), [n / 7 for n in range(999)], [True] * 999, [2**60] * 999]
)
def test_many_numbers_survive_the_pipe(numbers):
    wire = json.loads(json.dumps(encode(numbers, repr, Shared())))
    back = decode(wire, max, Shared())
    assert back == numbers
    assert set(map(type, back)) == set(map(type, numbers))


def test_aliases_and_cycles_survive_the_pipe():
    inner = [1]
    value = [inner, inner, {"a": inner}]
    value.append(value)
    wire = json.loads(json.dumps(encode(value, repr, Shared())))
    back = decode(wire, max, Shared())
    assert back[0] is back[1] is back[2]["a"]
    assert back[3] is back


def test_overwrite_keeps_the_object():
    for target, source in (([1], [2, 3]), ({1: 2}, {3: 4}), ({1}, {2})):
        held, alias = snapshot(target), target
        overwrite(target, encode_parts(source, repr, Shared()), max, Shared())
        assert alias == source
        assert is_changed(target, held)
    with pytest.raises(TypeError):
        overwrite([1], encode_parts({1: 2}, repr, Shared()), max, Shared())
