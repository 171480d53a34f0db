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
from hostile_submissions import HOSTILE
from hypothesis import given, settings

from gmma.errors import UserError
from gmma.rewards.sandbox import isolation
from gmma.rewards.sandbox.client import Limits, Sandbox
from gmma.rewards.sandbox.values import decode, encode, overwrite

NAMESPACES = tuple(layer for layer in isolation.LAYERS if layer.endswith("namespace"))
TIGHT = Limits(wall_seconds=2, cpu_seconds=10, memory_megabytes=128)
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
        (["class Other: pass", "add(Other(), 1)"], ""),
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
        "try:\n    f(0)\nexcept Exception as error:\n    assert 'Own: zero' in str(error)\n",
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
    wire = json.loads(json.dumps(encode(value, refer=repr)))
    assert decode(wire, resolve=max) == value


def test_overwrite_keeps_the_object():
    for target, source in (([1], [2, 3]), ({1: 2}, {3: 4}), ({1}, {2}), (bytearray(b"a"), b"bc")):
        alias, source = target, type(target)(source)
        overwrite(target, source)
        assert alias == source
    with pytest.raises(TypeError):
        overwrite([1], {1: 2})
