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
_HEAD = "def f(xs):\n"
_BARE = f"{_HEAD}    return HOLE\n"
_FENCED = f"```python\n{_BARE}```\n"
_DOCUMENTED = f'{_HEAD}    """Sort.\n\n    ```\n    f([1])\n    ```\n    """\n    return HOLE\n'

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
    "MBPP's own marks": f"[BEGIN]\n{_BARE}[DONE]",
    "MBPP's marks and another problem": f"{_BARE}[DONE]\nAnother:\n[BEGIN]\ndef g(): pass\n[DONE]",
    "a fence in MBPP's marks": f"[BEGIN]\n{_FENCED}[DONE]\n",
    "fence in a docstring": f"```python\n{_DOCUMENTED}```\nIt sorts.",
    "fence in a docstring, bare": _DOCUMENTED,
    "fence that only closes": f"{_BARE}```\nIt sorts.",
    "carriage returns": f"Here:\n\n{_FENCED}\nUsage:\n```python\nf = f([2])\n```\n".replace("\n", "\r\n"),
    "session": "```python\n>>> def f(xs):\n...     return HOLE\n...\n>>> f([2, 1])\n[1, 2]\n```",
    "session, bare": "As here:\n>>> def f(xs):\n...     return HOLE\n...\n>>> f([2, 1])\n[1, 2]",
    "no-break spaces": f"\u00a0{_BARE}".replace("    ", "\u00a0" * 4),
    "no-break spaces in a fence": _FENCED.replace(" ", "\u00a0"),
    "byte order mark": f"\ufeff{_BARE}",
    "zero-width space": f"\u200b{_BARE}",
    "prose that imports": f"First\nimport the list, then sort.\n\n{_BARE}",
    "prose that comes from": f"We go\nfrom the list to its order:\n\n{_BARE}",
    "prose of a class": f"Functions of this\nclass are easy.\n{_BARE}That is all.",
    "an import apart": "Begin with\nimport math\nand then\ndef f(xs):\n    math.sqrt(1)\n    return HOLE\n",
    "continuation and a function": "    return HOLE\n\ndef main(): pass",
    "continuation and a main": "    return HOLE\n\nif __name__ == '__main__':\n    check(g)\n",
    "continuation and a print": "    return HOLE\nprint(no_such_name)",
    "continuation and prose": "    ys = HOLE\n    return ys\nThis sorts (a copy of) the list.",
    "continuation and a closing fence": "    return HOLE\n```\nIt sorts.",
    "continuation and a usage in a fence": "```python\n    return HOLE\n```\nso\n```python\ndef main(): f([1])\n```",
    "continuation without indent and a function": "return HOLE\n\ndef main(): pass",
    "continuation of two lines without indent": "ys = HOLE\nreturn ys\n\ndef main(): pass",
    "continuation at one space": " ys = HOLE\n return ys",
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
