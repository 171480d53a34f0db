"""Submissions that do not solve the task (`add(2, 3)` is 5) but would like to pass, or to do harm.

Each comes with the kinds of result that are right for it.
"""

FAILED, TIMED_OUT, OUT_OF_MEMORY, CRASHED = "failed", "timed out", "out of memory", "crashed"

FORGE = """
import json, os, struct
message = json.dumps({"value": True, "kind": "passed", "passed": 0}).encode()
"""

HOSTILE = {
    "fork bomb": ("import os\nwhile True: os.fork()", {FAILED}),
    "patient fork bomb": (
        "import os\nwhile True:\n try: os.fork()\n except BaseException: pass",
        {TIMED_OUT},
    ),
    "thread bomb": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=[9]).start()",
        {FAILED, OUT_OF_MEMORY},
    ),
    "memory bomb": ("x = []\nwhile True: x.append(bytearray(3 * 10**7))", {OUT_OF_MEMORY}),
    "one huge allocation": ("x = 'a' * 10**12", {OUT_OF_MEMORY}),
    "memory bomb in the call": (
        "def add(a, b):\n x = []\n while True: x.append(bytearray(3 * 10**7))",
        {OUT_OF_MEMORY},
    ),
    "huge power": ("x = 9 ** 9 ** 9", {TIMED_OUT, OUT_OF_MEMORY}),
    "endless loop that swallows exceptions": (
        "while True:\n try:\n  while True: pass\n except BaseException: pass",
        {TIMED_OUT},
    ),
    "endless loop in the call": ("def add(a, b):\n while True: pass", {TIMED_OUT}),
    "sleep": ("import time\nwhile True: time.sleep(100)", {TIMED_OUT}),
    "os._exit": ("import os\nos._exit(0)", {CRASHED}),
    "os._exit in the call": ("import os\ndef add(a, b): os._exit(0)", {CRASHED}),
    "sys.exit": ("import sys\nsys.exit(0)", {CRASHED}),
    "kills itself": ("import ctypes\nctypes.string_at(0)", {CRASHED}),
    "prints the verdict": (
        FORGE + "for _ in range(100): print(message.decode())\nprint('passed', 'OK', '1 passed')",
        {FAILED},
    ),
    "writes the verdict everywhere": (
        FORGE + "for d in range(100):\n try: os.write(d, message + b'\\n')\n except OSError: pass",
        {CRASHED},
    ),
    "speaks the checker's protocol": (
        FORGE + "frame = struct.pack('<Q', len(message)) + message\n"
        "for d in range(3, 100):\n try: os.write(d, frame * 9)\n except OSError: pass",
        {FAILED, CRASHED},
    ),
    "sends a message without end": (
        "import os, struct\nos.write(4, struct.pack('<Q', 2**60))",
        {CRASHED},
    ),
    "sends deeply nested nonsense": (
        "import os, struct\nm = b'[' * 10**6\nos.write(4, struct.pack('<Q', len(m)) + m)",
        {CRASHED},
    ),
    "asks and asks": (
        'import os, struct\nm = b\'{"apply": "call", "args": []}\'\n'
        "while True: os.write(4, struct.pack('<Q', len(m)) + m)",
        {TIMED_OUT},
    ),
    "closes its descriptors": (
        "import os, time\nos.closerange(0, 100)\nwhile True: time.sleep(1)",
        {CRASHED},
    ),
    "reads the parent's environment": (
        "import os\nassert not os.environ\nprint(open(f'/proc/{os.getppid()}/environ').read())",
        {FAILED},
    ),
    "reads the parent's memory": (
        "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
        {FAILED},
    ),
    "reads any process": ("print(open('/proc/self/maps').read())", {FAILED}),
    "reads the users' files": ("print(open('/etc/passwd').read())", {FAILED}),
    "process_vm_readv": (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
        "assert libc.process_vm_readv(os.getppid(), None, 0, None, 0, 0) == 0",
        {FAILED},
    ),
    "ptrace": (
        "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
        {FAILED},
    ),
    "writes into the library": (
        "import os\nopen(os.path.dirname(os.__file__) + '/gmma_was_here.py', 'w').write('1')",
        {FAILED},
    ),
    "writes to the root": ("open('/gmma_was_here', 'w').write('1')", {FAILED}),
    "unlinks the library": ("import os\nos.unlink(os.__file__)", {FAILED}),
    "mounts": (
        "import ctypes\nassert ctypes.CDLL(None).mount(b'x', b'/tmp', b'proc', 0, b'') == 0",
        {FAILED},
    ),
    "opens a socket": ("import socket\nsocket.create_connection(('1.1.1.1', 80), 1)", {FAILED}),
    "opens a local socket": ("import socket\nsocket.socketpair()", {FAILED}),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)", {FAILED}),
    "kills everything": ("import os\nos.kill(-1, 9)", {FAILED}),
    "kills its group": ("import os\nos.killpg(0, 9)", {FAILED}),
    "1 GB of output": ("for _ in range(1024): print('x' * 2**20)", {FAILED}),
    "1 GB of errors": (
        "import sys\nwhile True:\n try: sys.stderr.write('x' * 2**20)\n except Exception: pass",
        {FAILED},
    ),
    "deep recursion": ("def f(): f()\nf()", {FAILED}),
    "deepest recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        {
            OUT_OF_MEMORY,
            CRASHED,
            TIMED_OUT,
            FAILED,
        },  # FAILED: no memory for a frame is a SystemError
    ),
    "deep recursion in C": (
        "import sys\nsys.setrecursionlimit(10**9)\nx = ()\nfor _ in range(10**6): x = (x,)\n"
        "hash(x)",
        {CRASHED, TIMED_OUT},
    ),
    "patches assert": (
        "import builtins\nclass Never(Exception): pass\nbuiltins.AssertionError = Never\n"
        "def add(a, b): return 4",
        {FAILED},
    ),
    "patches the built-ins": (
        "import builtins\nfor n in dir(builtins):\n"
        " if n[0] != '_' and n not in ('setattr', 'print'): setattr(builtins, n, print)\n"
        "def add(a, b): return 4",
        {FAILED, CRASHED},
    ),
    "shadows the built-ins": (
        "def abs(x): return 5\ndef isinstance(*a): return True\nadd = lambda a, b: 4",
        {FAILED},
    ),
    "patches exit": (
        "import os, sys\nos._exit = sys.exit = exit = quit = lambda *a: None\nadd = lambda a, b: 4",
        {FAILED},
    ),
    "patches the runner": (
        "import sys, gc\nfor m in list(sys.modules.values()):\n"
        " for n in list(vars(m)):\n"
        "  if 'check' in n or 'report' in n or n in ('apply', 'serve', 'encode'):\n"
        "   setattr(m, n, lambda *a, **k: True)\ndef add(a, b): return 4",
        {FAILED, CRASHED},
    ),
    "patches everything in its memory": (
        "import gc, types\nfor o in gc.get_objects():\n"
        " if isinstance(o, dict):\n"
        "  for k in list(o):\n"
        "   if k in ('kind', 'passed', 'detail', 'tests'): o[k] = 'passed'\n"
        "def add(a, b): return 4",
        {FAILED, CRASHED},
    ),
    "searches its memory for the tests": (
        "import gc, re\nkey = ''.join(['ass', 'ert ad', 'd.2, 3. == (.)'])\n"
        "def seek():\n for o in gc.get_objects():\n"
        "  if isinstance(o, (dict, list, tuple)) and o is not globals():\n"
        "   try: found = re.search(key, repr(o))\n"
        "   except Exception: continue\n"
        "   if found: return int(found[1])\n return 4\n"
        "expected = seek()\ndef add(a, b): return expected",
        {FAILED},
    ),
    "is equal to everything": (
        "class Equal:\n __eq__ = __ne__ = __lt__ = __gt__ = lambda s, o: True\n"
        " __sub__ = __rsub__ = __abs__ = lambda s, *o: 0\n __hash__ = lambda s: 5\n"
        "def add(a, b): return Equal()",
        {FAILED},
    ),
    "is a number equal to everything": (
        "class Equal(int):\n __eq__ = lambda s, o: True\n __hash__ = int.__hash__\n"
        "def add(a, b): return Equal(4)",
        {FAILED},
    ),
    "changes its arguments": ("def add(*a):\n a[0].__class__ = None\n return 5", {FAILED}),
    "background daemon": (
        "import os\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  while True: pass",
        {FAILED},
    ),
    "runs a program": ("import os\nos.execv('/bin/sh', ['sh', '-c', 'sleep 60'])", {FAILED}),
    "subprocess": ("import subprocess\nsubprocess.run(['sleep', '60'])", {FAILED}),
    "a file of 10 GB": ("f = open('big', 'wb')\nwhile True: f.write(bytes(2**20))", {FAILED}),
    "a sparse file of 10 GB": ("open('/tmp/big', 'wb').truncate(10 * 2**30)", {FAILED}),
    "many files": ("for n in range(10**6): open(f'/tmp/{n}', 'w').close()", {FAILED}),
    "many open files": ("f = [open(f'/tmp/{n}', 'w') for n in range(10**4)]", {FAILED}),
    "a new namespace": (
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
        {FAILED},
    ),
    "no code at all": ("", {FAILED}),
    "no Python": ("def add(a, b:\n", {FAILED}),
    "null bytes": ("\0\0", {FAILED}),
    "lone surrogates": ("x = '\ud800'", {FAILED}),
    "parser bomb": ("(" * 10**5, {FAILED, CRASHED, OUT_OF_MEMORY}),
    "compiler bomb": ("x = " + "-" * 10**5 + "1", {FAILED, CRASHED, OUT_OF_MEMORY}),
}
