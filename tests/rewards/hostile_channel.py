"""Submissions that attack the channel between them and the checker, and what they would forge.

Each defines `key` (and `use`), which it cannot know. None may pass a test, learn an expected value
(`SECRET` is in every one; what a submission prints is looked at), or leave anything.
"""
# ruff: noqa: E501 (one attack a line)

SECRET = "86420"
SETUP = "def check(f):\n    assert f == 86420"
TESTS = [
    "assert key(1) == 86420",
    "assert 86420 == key(1)",
    "assert not key(1) != 86420",
    "assert [key(1)] == [86420]",
    "assert {'a': (key(1),)} == {'a': (86420,)}",
    "assert key(1) in (86420, 864201)",
    "assert {key(1)} == {86420}",
    "assert 86420 - key(1) == 0 and key(1) - 86420 == 0",
    "assert 86419 < key(1) < 86421",
    "assert str(key(1)) == '86420' and int(key(1)) == 86420",
    "check(key(1))",
    "import unittest\nunittest.TestCase().assertEqual(key(1), 86420)",
    # What a test hands over: a function, an instance of its class, its class, an iterator, a list.
    """
class Box:
    limit = 86420
    def __init__(self, value): self.value = value
    def right(self): return self.value == 86420
    def __eq__(self, other): return type(other) is Box and self.value == other.value
box, out, expected = Box(1), [], [86420]
def judge(value):
    assert value == 86420, f"{value} is not 86420"
    return True
assert use(judge, box, (n for n in [1]), out) == 86420
""",
    """
class Box:
    def __init__(self, value): self.value = value
    def right(self): return self.value == 86420
    def __eq__(self, other): return type(other) is Box and self.value == other.value
box = Box(1)
use(lambda x: None, box, iter([1]), [])
assert box.right() and box == Box(86420) and box.value == 86420
""",
]

_BEGIN = """
import gc, json, os, struct, sys
server = sys.modules['sandbox.submission']
values, channels = sys.modules['sandbox.values'], sys.modules['sandbox.channel']
ch = server.Callback.peer_channel
def frame(message, raw=False):
    data = message if raw else json.dumps(message).encode()
    data = struct.pack('<Q', len(data)) + data
    while data: data = data[os.write(4, data):]
def take():
    size, = struct.unpack('<Q', os.read(3, 8))
    data = b''
    while len(data) < size: data += os.read(3, size - len(data))
    spy(data)
    return json.loads(data)
def spy(data):
    if str(86421 - 1).encode() in data: print(data[-500:], flush=True)
    return data
def told(*a):
    print(*map(repr, a), flush=True)
class Yes:
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = lambda s, o: told(o) or True
    __sub__ = __rsub__ = __abs__ = __int__ = __index__ = lambda s, *o: told(*o) or 0
    __hash__ = lambda s: hash(86421)
    __contains__ = __bool__ = lambda s, *o: told(*o) or True
    __str__ = __repr__ = lambda s: 'yes'
def key(x): return 1
def use(f, box, items, out): return 1
"""


def _reply(wire):
    """Every request is answered with this wire, as it is."""
    return (
        f"\ndef key(x):\n while True:\n  frame({{'value': {wire}}})\n  take()\n"
        f"use = lambda *a: key(1)"
    )


def _asks(*request):
    """What it is given is asked for more than may be asked."""
    name, *rest = request
    return (
        "\ndef use(f, box, items, out):\n answers = []\n"
        " for o in (f, box, items, box.right, type(box)):\n"
        f"  try: answers.append(ch.apply({name!r}, o, {', '.join(rest)}))\n"
        "  except Exception as e: answers.append(e)\n"
        " told(answers)\n return ([a for a in answers if not isinstance(a, Exception)] or [0])[0]\n"
        "def key(x): return 1"
    )


# Its `==` is `property(other)`, which is true; that it can be called lets the old code hand it over.
_CLASS = "{'__eq__': property, '__lt__': property, '__gt__': property, '__call__': property}"
_MADE = f"ch.apply('call', ch.apply('call', type, ['X', (object,), {_CLASS}], {{}}), [], {{}})"

_ATTACKS = {
    "makes a class in the checker": f"def key(x): return {_MADE}",
    "makes an instance of a made class once": f"made = []\ndef key(x):\n made or made.append({_MADE})\n return made[0]",
    "returns a made class": f"def key(x): return ch.apply('call', type, ['X', (object,), {_CLASS}], {{}})",
    "makes a class by its name on the wire": "def key(x):\n frame({'apply': 'call', 'args': [{'t': 'type', 'v': 'type'}, {'t': 'list', 'n': 0, 'v': ['X', {'t': 'tuple', 'v': []}, {'t': 'dict', 'n': 1, 'v': []}]}, {'t': 'dict', 'n': 2, 'v': []}]})\n return take()",
    "makes an instance in the checker": "def key(x): return ch.apply('call', object, [], {})",
    "makes a property in the checker": "def key(x): return ch.apply('call', property, [print], {})",
    "calls a function of Python's by name": _reply("{'t': 'library', 'v': ['builtins', 'eval']}"),
    "returns the checker's type": _reply("{'t': 'type', 'v': 'type'}"),
    "returns a loader of modules": _reply("{'t': 'type', 'v': '__loader__'}"),
    "names an object before the first": _reply("{'t': 'yours', 'v': -1}"),
    "names an object after the last": _reply("{'t': 'yours', 'v': 10**9}"),
    "names an object by a truth": _reply("{'t': 'yours', 'v': True}"),
    "names an object by a text": _reply("{'t': 'yours', 'v': 'expected'}"),
    "hands over an object without a number": _reply("{'t': 'mine', 'v': None, 'of': 'int'}"),
    "hands over an object without a class": _reply("{'t': 'mine', 'v': 1}"),
    "hands over an unknown form": _reply("{'t': 'expected', 'v': 1}"),
    "a container without a number": _reply("{'t': 'list', 'v': [1]}"),
    "a container whose number is taken": _reply("{'t': 'list', 'n': 0, 'v': [1]}"),
    "the same as what was not sent": _reply("{'t': 'same', 'v': 99}"),
    "a list that is none": _reply("[1, 2]"),
    "a Decimal without end": _reply("{'t': 'decimal', 'v': '1e999999999'}"),
    "a fraction of nothing": _reply("{'t': 'fraction', 'v': [1, 0]}"),
    "numbers that are none": _reply("{'t': 'list', 'n': 2, 'v': {'q': 'AAA'}}"),
    "an exception that is none": _reply("{'t': 'exception', 'v': 'type', 'args': []}"),
    "a class of errors with forged bases": _reply(
        "{'t': 'error class', 'v': 1, 'of': 'X', 'path': ['os', 'system'], 'bases': [{'t': 'type', 'v': 'int'}]}"
    ),
    "a class of errors that is a function": _reply(
        "{'t': 'error class', 'v': 1, 'of': 'X', 'path': ['os', 'system'], 'bases': []}"
    ),
    "claims to be of the tests' class": _reply("{'t': 'mine', 'v': 0, 'of': 'Box'}"),
    "replies before it is asked": "frame({'value': True})\nfor _ in range(99): frame({'value': 1})",
    "replies twice": "def key(x):\n frame({'value': 1})\n frame({'value': 2})\n return 1",
    "replies with changes of what was not sent": "def key(x):\n frame({'value': 1, 'changed': {'99': {'t': 'list', 'v': []}}})",
    "replies with a change to another kind": "def key(x):\n frame({'value': 1, 'changed': {'0': {'t': 'dict', 'v': []}}})",
    "raises again what was never raised": "def key(x):\n frame({'raise': {'again': 0}})\n take()",
    "raises what is no exception": "def key(x):\n frame({'raise': {'kinds': ['SystemExit', 'BaseException'], 'text': '', 'number': 0}})\n take()",
    "raises without a text": "def key(x):\n frame({'raise': {'kinds': []}})\n take()",
    "neither replies nor asks": "def key(x):\n frame({})\n take()",
    "asks without an argument": "def key(x):\n frame({'apply': 'call', 'args': []})\n return take()",
    "asks for a name of the tests": "def key(x): return ch.apply('name', 'expected')",
    "asks to load code": "def key(x): return ch.apply('load', 'import os', '')",
    "asks to make an error": "def key(x): return ch.apply('make', 0, [], {})",
    "a message of another length": "def key(x):\n os.write(4, struct.pack('<Q', 9) + b'{}')\n os._exit(0)",
    "a message that is no text": "def key(x):\n frame(b'\\xff' * 9, raw=True)\n take()",
    "a proxy as its own plain value": "server._FUNCTIONS['plain'] = lambda v: v\ndef key(x): return Yes()",
    "a proxy in a proxy's plain value": "server._FUNCTIONS['plain'] = lambda v: [v]\ndef key(x): return Yes()",
    "a proxy of a proxy in every answer": "for n in list(server._FUNCTIONS): server._FUNCTIONS[n] = lambda *a: Yes()\ndef key(x): return Yes()",
    "a number that says it is equal": "class I(int): __eq__ = __radd__ = lambda s, o: told(o) or True\nI.__hash__ = int.__hash__\ndef key(x): return I(86421)",
    "an object that says it is an int": "class Int(Yes): __class__ = property(lambda s: int)\ndef key(x): return Int()",
    "an error that is equal to all": "class E(Exception): __eq__ = lambda s, o: told(o) or True\ndef key(x): raise E(Yes())\ndef use(*a): raise E(Yes())",
    "an error of the tests' kind": "class E(AssertionError): pass\ndef key(x): raise E()",
    "an asynchronous yes": "async def key(x): return Yes()",
    "a generator of yes": "def key(x):\n while True: yield Yes()",
    "swallows the failure of a test's function": "def use(f, *a):\n try: f(1)\n except BaseException as e: told(e, e.args, e.__cause__, e.__context__)\n return 1",
    "shadows a method of the tests' instance": "def use(f, box, *a):\n box.right = lambda: True\n return 1",
    "changes the class of the tests' instance": "def use(f, box, *a):\n box.__class__ = Yes\n return 1",
    "puts yes into the tests' instance": "def use(f, box, *a):\n box.value = Yes()\n return 1",
    "asks functions for their globals": _asks("getattr", "'__globals__'"),
    "asks for the class": _asks("getattr", "'__class__'"),
    "asks for the code": _asks("getattr", "'__code__'"),
    "asks a method for its instance": _asks("getattr", "'__self__'"),
    "asks a generator for its frame": _asks("getattr", "'gi_frame'"),
    "asks a class for its bases": _asks("getattr", "'mro'"),
    "asks for the dictionary": _asks("getattr", "'__dict__'"),
    "asks whether it is an int": _asks("isinstance", "int"),
    "asks with an operator that is none": _asks("attrgetter", "'value'"),
    "looks for the tests in what it is sent": "old = channels.json.loads\nchannels.json.loads = lambda d: old(spy(d))\ndef key(x): return Yes()\ndef use(f, box, items, out):\n told(box, dir(box), list(items), out)\n try: f(Yes())\n except Exception as e: told(e)\n return Yes()",
    "looks for the tests in its memory": "def key(x):\n told([o for o in gc.get_objects() if isinstance(o, (list, dict, tuple)) and 'Box' + ':' in str(o)[:10**5]][:1])\n return 1",
}  # fmt: skip

CHANNEL = {name: _BEGIN + attack for name, attack in _ATTACKS.items()}
