"""A few records of every released form that the text tasks read, written down here."""

import json

GSM8K = [
    {
        "question": f"Tom has {n} apples and buys {n + 1} more. How many has he now?",
        "answer": f"He has {n}+{n + 1} = <<{n}+{n + 1}={2 * n + 1}>>{2 * n + 1} apples.\n"
        f"#### {2 * n + 1:,}",
    }
    for n in range(990, 1020)
]
MATH = [
    {
        "problem": "What is half of $\\frac{1}{2}$?",
        "level": "Level 1",
        "type": "Prealgebra",
        "solution": "It is $\\frac{1}{2} \\cdot \\frac12 = \\boxed{\\frac{1}{4}}$.",
    }
]
SVAMP = [
    {
        "Body": "There are 87 oranges and 290 bananas. The bananas are in 2 groups",
        "Question": "How big is each group?",
        "Equation": "( 290.0 / 2.0 )",
        "Answer": 145.0,
    }
]
PLAIN = [
    {"question": "2 + 2?", "answer": "4"},
    {"question": "1 / 2?", "answer": 0.5, "thought": "half"},
]
MBPP = [
    {
        "text": f"Write a function to add {n}.",
        "code": f"def add_{n}(x):\r\n\treturn x + {n}",
        "task_id": n,
        "test_setup_code": "",
        "test_list": [f"assert add_{n}({x}) == {x + n}" for x in range(3)],
        "challenge_test_list": [],
    }
    for n in (1, 5, 11, 12, 510, 511, 600, *range(601, 625), 974)
]
HUMANEVAL = [
    {
        "task_id": f"HumanEval/{n}",
        "prompt": "from typing import List\n\n\ndef one() -> int:\n    return 1\n\n\n"
        f'def more_{n}(xs: List[int]) -> List[int]:\n    """ One more, {n} times.\n'
        f'    >>> more_{n}([0])\n    [{n}]\n    """\n',
        "entry_point": f"more_{n}",
        "canonical_solution": f"    return [x + {n} * one() for x in xs]\n",
        "test": f"\n\ndef check(candidate):\n    assert candidate([1]) == [{n + 1}]\n",
    }
    for n in range(3)
]


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
