"""The code reward: shares, fences, and every reference solution of HumanEval and MBPP."""

import ast
import time
import warnings

import code_forms
import pytest

from gmma.errors import UserError
from gmma.rewards import REWARDS
from gmma.rewards.answered_code import find_code, names_wanted
from gmma.rewards.sandbox.client import Sandbox
from gmma.rewards.service import RewardTerm, open_scorer

TESTS = ["assert f(1) == 2", "assert f(2) == 4", "assert f(3) == 4"]


@pytest.fixture(scope="module")
def _sandbox_works():
    try:
        Sandbox().close()
    except UserError as error:
        pytest.skip(str(error))


pytestmark = pytest.mark.usefixtures("_sandbox_works")


def score(answers, tests=TESTS, setup="", name="code"):
    count = len(answers)
    return REWARDS[name](
        answers, thoughts=[""] * count, tests=[tests] * count, setup=[setup] * count
    )


def test_share_of_tests_and_all_or_nothing():
    answers = [
        "def f(x): return x + 1",
        "Here:\n```python\ndef f(x): return 2 * x\n```\nDone.",
        "```\ndef f(x): return [2, 4, 4][x - 1]",
        "def f(x): return 0",
        "def f(x) return 0",
        "",
        "import os; os._exit(0)",
    ]
    assert score(answers) == [2 / 3, 2 / 3, 1, 0, 0, 0, 0]
    assert score(answers, name="code_all_passed") == [0, 0, 1, 0, 0, 0, 0]


def test_find_code_takes_the_last_block():
    assert find_code("```\na\n```\n```python\nb\n```") == "b\n"
    assert find_code("no fence") == "no fence"


@pytest.mark.parametrize(
    ("tests", "wanted"),
    [
        (["xs = [1]\nassert f(xs) == len(xs)", "assert math.isclose(g(1), 1)"], {"f", "g"}),
        (["def check(candidate):\n    assert candidate(1) == 1\ncheck(more)"], {"more"}),
        (["assert sum(1, 2) == 3"], {"sum"}),
        (["assert bisect([1], 1) == 0"], {"bisect"}),
    ],
)
def test_names_that_tests_want(tests, wanted):
    assert names_wanted(tests) == wanted


def score_forms(result):
    """The reward of each form with this as what the function returns."""
    answers = [form.replace("HOLE", result) for form in code_forms.FORMS.values()]
    count = len(answers)
    return REWARDS["code"](
        answers,
        thoughts=[""] * count,
        tests=[code_forms.TESTS] * count,
        setup=[""] * count,
        prompt=[code_forms.PROMPT] * count,
        wall_seconds=60,
    )


def test_every_form_of_a_right_program_has_full_credit():
    assert len(code_forms.FORMS) >= 30
    values = dict(zip(code_forms.FORMS, score_forms(code_forms.RIGHT), strict=True))
    assert {name: value for name, value in values.items() if value != 1} == {}


@pytest.mark.parametrize("wrong", code_forms.WRONG)
def test_no_form_of_a_wrong_program_has_any(wrong):
    values = dict(zip(code_forms.FORMS, score_forms(wrong), strict=True))
    assert {name: value for name, value in values.items() if value != 0} == {}


def test_real_continuations_of_real_prompts(read_real):
    """HumanEval's own answers are bodies that continue the prompt: every twentieth, and nothing."""
    problems = read_real("humaneval/HumanEval.jsonl")[::20]
    columns = {
        "thoughts": [""] * len(problems),
        "tests": [[f"{p['test']}\ncheck({p['entry_point']})"] for p in problems],
        "setup": [""] * len(problems),
        "prompt": [p["prompt"] for p in problems],
        "wall_seconds": 60,
    }
    bodies = [p["canonical_solution"] for p in problems]
    for write in (str, str.strip, lambda body: f"```python\n{body}\n```"):
        assert REWARDS["code"]([write(b) for b in bodies], **columns) == [1] * len(problems)
    assert REWARDS["code"](["    return None"] * len(problems), **columns) == [0] * len(problems)


def test_what_stands_behind_a_real_continuation_costs_nothing(read_real):
    """The function of each third of HumanEval's bodies is the same with and without a tail."""
    tails = ["\n\ndef main(): pass", "\nif __name__ == '__main__':\n    main()", "\nprint('x')"]
    for problem in read_real("humaneval/HumanEval.jsonl")[::3]:
        name, start, body = (problem[k] for k in ("entry_point", "prompt", "canonical_solution"))
        whole = ast.dump(function_named(start + body, name))
        for tail in ["", *tails, "\nThis checks each pair (of the list)."]:
            found = find_code(body + tail, [name], start)
            assert ast.dump(function_named(found, name)) == whole, (problem["task_id"], tail)


def function_named(code, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in the references
        body = ast.parse(code).body
    return next(s for s in reversed(body) if isinstance(s, ast.FunctionDef) and s.name == name)


@pytest.mark.parametrize(
    "piece",
    ["```\n", '```\n"""', "def f(\n", "import a b\n", "[BEGIN]\n", ">>> def\n", "\r\n", "@\n"],
)
def test_a_long_answer_is_read_in_time(piece):
    text = (piece * 50_000)[:50_000]
    began = time.process_time()
    find_code(text, ["f"], code_forms.PROMPT)
    find_code(f"    x = (\n{text}", ["f"], code_forms.PROMPT)
    assert time.process_time() - began < 20  # a quadratic reader takes minutes


@pytest.mark.parametrize("tests", [None, [], "assert True", [3], ["assert ("], [b"assert True"]])
def test_a_reference_that_cannot_be_read_is_none(tests):
    assert score(["def f(x): return x"], tests) == [None]
    assert score(["def f(x): return x"], TESTS, setup="def (") == [None]


def test_fault_of_the_tests_is_no_zero():
    with pytest.raises(RuntimeError, match="No module named 'no_such_module'"):
        score(["def f(x): return x"], ["import no_such_module"])


def test_code_in_the_pool():
    answers = ["def f(x): return x + 1", "while True: pass", "import os; os._exit(0)"] * 2
    columns = {"tests": [TESTS] * 6, "setup": [""] * 6}
    term = RewardTerm("code", options=(("wall_seconds", 3.0),))
    with open_scorer([term], workers=2, timeout_seconds=60) as scorer:
        scored = scorer.score(answers, thoughts=[""] * 6, columns=columns)
        faulty = scorer.score(
            answers[:1],
            thoughts=[""],
            columns={"tests": [["import no_such_module"]], "setup": [""]},
        )
    assert scored.values[:, 0].tolist() == [2 / 3, 0, 0] * 2
    assert faulty.outcomes["code"]["crash"] == 1


def test_a_machine_without_a_sandbox_stops_the_run():
    term = RewardTerm("code", options=(("sandbox", "none"),))
    with pytest.raises(UserError, match="choose 'strong' or 'weak'"), open_scorer([term]):
        pass


@pytest.fixture(scope="module")
def references(read_real):
    """(name, solution, setup, tests, entry point) of every problem."""
    problems = [
        (p["task_id"], p["prompt"] + p["canonical_solution"], "", p["test"], p["entry_point"])
        for p in read_real("humaneval/HumanEval.jsonl")
    ]
    found = [(n, code, setup, [f"{t}\ncheck({e})"], e) for n, code, setup, t, e in problems]
    for p in read_real("mbpp/mbpp.jsonl"):
        tests = p["test_list"] + p["challenge_test_list"]
        entry = next(
            node.func.id
            for node in ast.walk(ast.parse(tests[0]))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and f"def {node.func.id}" in p["code"].replace("  ", " ")
        )
        found.append((p["task_id"], p["code"], p["test_setup_code"], tests, entry))
    return found


def break_first_line(code, entry):
    """The first statement of the function returns None instead."""
    lines = code.splitlines()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in the references
        functions = [n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef)]
    body = next(f for f in functions if f.name == entry).body
    docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    first = body[int(docstring and len(body) > 1)]
    line = lines[first.lineno - 1]
    lines[first.lineno - 1] = line[: first.col_offset] + "return None"
    return "\n".join(lines)


def judge(references, change):
    answers = [change(code, entry) for _, code, _, _, entry in references]
    columns = {"tests": [r[3] for r in references], "setup": [r[2] for r in references]}
    term = RewardTerm("code", options=(("wall_seconds", 30),))  # a busy machine is no wrong answer
    with open_scorer([term], workers=2, timeout_seconds=60, step_seconds=500) as scorer:
        began = time.monotonic()
        scored = scorer.score(answers, thoughts=[""] * len(answers), columns=columns)
    per_minute = 60 * len(answers) / (time.monotonic() - began)
    return scored.values[:, 0], per_minute


SOME_OR_ALL = pytest.mark.parametrize(
    "every", [6, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"]
)


@SOME_OR_ALL
def test_references_pass_and_200_a_minute_are_easy(references, every):
    references = references[::every]
    values, per_minute = judge(references, lambda code, entry: code)
    assert [r[0] for r, value in zip(references, values, strict=True) if value != 1] == []
    print(f"{len(references)} references with two workers: {per_minute:.0f} a minute")
    assert per_minute >= 200


@SOME_OR_ALL
def test_references_with_one_line_broken_fail(references, every):
    references = references[::every]
    values, _ = judge(references, break_first_line)
    assert [r[0] for r, value in zip(references, values, strict=True) if not value < 1] == []
