"""One program (`f(xs)` sorts) in the forms in which models write it; HOLE is what `f` returns."""
# ruff: noqa: E501 (one form a line)

RIGHT = "sorted(xs)"
WRONG = ("None", "list(xs)", "sorted(xs)[::-1]", "str(sorted(xs))", "sorted(xs) + [0]")
TESTS = [
    "assert f([3, 1, 2]) == [1, 2, 3]",
    "assert f([2, 1]) == [1, 2]",
    "assert f([5, 4]) == [4, 5]",
]
PROMPT = 'from typing import List\n\n\ndef f(xs: List[int]) -> List[int]:\n    """ Sort. """\n'
_BARE = "def f(xs):\n    return HOLE\n"
_FENCED = f"```python\n{_BARE}```\n"

FORMS = {
    "bare": _BARE,
    "fenced": _FENCED,
    "prose around": f"Here it is:\n\n{_FENCED}\nIt sorts with `sorted`.",
    "prose without a fence": f"Here is the function:\n\n{_BARE}\nThis sorts the list.",
    "py": f"```py\n{_BARE}```",
    "Python3 in capitals": f"```Python3\n{_BARE}```",
    "tildes": f"~~~python\n{_BARE}~~~",
    "no language": f"```\n{_BARE}```",
    "fence not closed": f"```python\n{_BARE}",
    "fence behind words": f"The code: ```python\n{_BARE}```",
    "block in a list": "1. Sort:\n   ```python\n   def f(xs):\n       return HOLE\n   ```",
    "usage behind": f"{_FENCED}\nUsage:\n```python\nprint(f([1]))\nf = f([2])\n```",
    "usage that asks": f"{_FENCED}\n```python\nxs = input().split()\nprint(f(xs))\n```",
    "output behind": f"{_FENCED}\nOutput:\n```\n[1, 2, 3]\n```",
    "output with a language": f"{_FENCED}\n```text\n1 2 3\n```\n```json\n[1]\n```",
    "bash behind": f"{_FENCED}\nRun it:\n```bash\npython solution.py\n```",
    "test behind": f"{_FENCED}\n```python\nfrom solution import f\nassert f([1]) == [2]\n```",
    "unittest behind": f"{_FENCED}\n```python\nimport unittest\nclass T(unittest.TestCase):\n"
    "    def test(self): self.assertEqual(f([1]), [1])\nunittest.main()\n```",
    "draft before": f"```python\ndef f(xs):\n    return xs.sort()\n```\nBetter:\n{_FENCED}",
    "class Solution": "```python\nclass Solution:\n    def f(self, xs):\n        return HOLE\n```",
    "class Solution with a helper": "```python\nclass Solution:\n    def __init__(self): self.n = 0\n"
    "    def g(self, xs): return HOLE\n    def f(self, xs: List[int]) -> List[int]:\n"
    "        return self.g(xs)\n```",
    "helper before": "```python\nimport math\nLIMIT = 3\ndef g(xs):\n    math.sqrt(LIMIT)\n"
    "    return HOLE\n```\nand\n```python\ndef f(xs):\n    return g(xs)\n```",
    "helper behind": "```python\ndef f(xs):\n    return g(xs)\n```\nwith\n"
    "```python\ndef g(xs):\n    return HOLE\n```",
    "typing without import": "```python\ndef f(xs: List[int]) -> Optional[List[int]]:\n"
    "    return HOLE\n```",
    "input under main": f"```python\n{_BARE}if __name__ == '__main__':\n    n = int(input())\n```",
    "continuation": "    return HOLE\n",
    "continuation that lost its indent": "return HOLE",
    "continuation of two lines": "ys = HOLE\n    return ys",
    "continuation in a fence": "```python\n    ys = HOLE\n    return ys\n```",
    "continuation with an inner function": "    def g(ys):\n        return HOLE\n    return g(xs)\n",
    "prompt repeated": f"```python\n{PROMPT}    return HOLE\n```",
    "asynchronous": "import asyncio\nasync def g(xs):\n    await asyncio.sleep(0)\n    return HOLE\n"
    "def f(xs): return asyncio.run(g(xs))",
    "thread pool": "from concurrent.futures import ThreadPoolExecutor\ndef f(xs):\n"
    "    with ThreadPoolExecutor(32) as pool: return pool.submit(lambda: HOLE).result()",
    "copied file": "import json, shutil\ndef f(xs):\n    json.dump(HOLE, open('a', 'w'))\n"
    "    shutil.copy('a', 'b')\n    return json.load(open('b'))",
    "own exception": "class Done(Exception): pass\ndef f(xs):\n    try:\n        raise Done(HOLE)\n"
    "    except Done as done:\n        return done.args[0]",
    "context manager": "import contextlib\n@contextlib.contextmanager\ndef g(xs):\n    yield HOLE\n"
    "def f(xs):\n    with g(xs) as ys: return ys",
    "generator": "def f(xs):\n    def g():\n        yield HOLE\n    return next(g())",
    "mutated argument": "def f(xs):\n    ys = HOLE\n    if type(ys) is not list: return ys\n"
    "    xs[:] = ys\n    return xs",
}  # fmt: skip
