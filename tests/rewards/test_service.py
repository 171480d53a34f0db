"""The scoring service against scorers that hang, die, lie, and eat memory."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gmma.errors import UserError
from gmma.rewards.service import RewardTerm, check_rewards, open_scorer, weighted_rewards

HOSTILE = ("fine", "hang", "die", "exit", "raise", "nan", "none", "memory", "swallow")
QUICK = tuple(answer for answer in HOSTILE if answer not in ("hang", "swallow"))
LIMIT = 2.5  # seconds an answer may take: no honest one needs so long, on however busy a machine
PATIENCE = 60  # seconds after which something that should have ended did not
MISBEHAVE = RewardTerm("own_rewards:misbehave")


@pytest.fixture(autouse=True)
def _own_rewards_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def score(scorer, answers, **columns):
    return scorer.score(answers, thoughts=["" for _ in answers], columns=columns)


def test_terms_are_weighted_and_logged_one_by_one():
    terms = [RewardTerm("box_iou", weight=2.0), RewardTerm("format", weight=0.5)]
    with open_scorer(terms, workers=1) as scorer:
        scored = score(
            scorer,
            ["[0, 0, 2, 2]", "[0, 0, 1, 2]", "nonsense", "[0, 0, 1, 1]"],
            answer=[[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], "unreadable"],
            closed=[True, True, False, True],
            finished=[True, False, False, True],
        )
    np.testing.assert_array_equal(scored.values, [[1, 1], [0.5, 0.5], [0, 0], [np.nan, 1]])
    rewards = weighted_rewards(scored, terms)
    assert rewards.dtype == np.float32
    np.testing.assert_array_equal(rewards, np.float32([2.5, 1.25, 0, np.nan]))
    assert scored.outcomes["box_iou"] == {
        "scored": 3,
        "unparsable": 1,
        "timeout": 0,
        "crash": 0,
        "untried": 0,
    }
    assert scored.outcomes["format"]["scored"] == 4


def test_a_term_of_weight_zero_cannot_take_the_reward_away():
    terms = [RewardTerm("box_iou", weight=0.0), RewardTerm("exact")]
    with open_scorer(terms, workers=0) as scorer:
        scored = score(scorer, ["a"], answer=["a"])
    assert np.isnan(scored.values[0, 0])
    np.testing.assert_array_equal(weighted_rewards(scored, terms), [1.0])


@pytest.fixture(scope="module")
def hostile_results():
    """The same hostile batch with 1 and with 3 workers, and the seconds it took."""
    results = []
    sys.path.insert(0, str(Path(__file__).parent))
    answers = [*HOSTILE, *["x" * n for n in range(30)], *QUICK]
    terms = [MISBEHAVE, RewardTerm("format")]
    columns = {"closed": [True] * len(answers), "finished": [True] * len(answers)}
    for workers in (1, 3):
        with open_scorer(terms, workers=workers, timeout_seconds=LIMIT) as scorer:
            began = time.monotonic()
            scored = score(scorer, answers, **columns)
            results.append((scored, time.monotonic() - began))
    sys.path.remove(str(Path(__file__).parent))
    return results


def test_every_hostile_answer_is_counted_by_its_kind(hostile_results):
    for scored, _ in hostile_results:
        assert scored.outcomes["own_rewards:misbehave"] == {
            "scored": 32,
            "unparsable": 2,
            "timeout": 2,
            "crash": 10,
            "untried": 0,
        }
        assert scored.outcomes["format"]["scored"] == 46
        assert "answer 1: timeout: no score within 2.5 seconds" in scored.messages[0]


def test_result_depends_neither_on_workers_nor_on_order(hostile_results):
    (one, _), (three, _) = hostile_results
    np.testing.assert_array_equal(one.values, three.values)
    assert one.outcomes == three.outcomes
    assert one.messages == three.messages


def test_hung_answers_cost_their_limit_and_no_more(hostile_results):
    (_, one), (_, three) = hostile_results
    assert 2 * LIMIT < one < 2 * LIMIT + PATIENCE  # and twelve fresh processes
    assert LIMIT < three < 2 * LIMIT + PATIENCE


def test_permuted_answers_give_permuted_scores():
    answers = ["x" * n for n in range(40)]
    order = np.random.default_rng(0).permutation(40)
    with open_scorer([MISBEHAVE], workers=2) as scorer:
        straight = score(scorer, answers).values
        permuted = score(scorer, [answers[i] for i in order]).values
    np.testing.assert_array_equal(permuted, straight[order])


def test_a_step_never_waits_longer_than_its_limit_and_the_next_one_is_well():
    with open_scorer([MISBEHAVE], workers=2, timeout_seconds=999, step_seconds=0.5) as scorer:
        began = time.monotonic()
        scored = score(scorer, ["hang"] * 50)
        assert time.monotonic() - began < PATIENCE
        assert scored.outcomes[MISBEHAVE.name]["timeout"] == 2
        assert scored.outcomes[MISBEHAVE.name]["untried"] == 48
    with open_scorer([MISBEHAVE], workers=2, timeout_seconds=LIMIT) as scorer:
        score(scorer, ["hang", "die"])
        assert score(scorer, ["abc"] * 50).outcomes[MISBEHAVE.name]["scored"] == 50


def test_hanging_programs_cost_the_honest_ones_nothing():
    """16 that hang before 4 that do not, with 20 seconds where the 16 would take 32.

    The honest ones have their score, what hangs has 0, and nothing is left unscored. A first try is
    a second: at 48 and 16 in as long it was 0.4, too short for a machine with a load of 15.
    """
    answers = ["import time\ndef f(x): time.sleep(999)"] * 16 + ["def f(x): return x"] * 4
    columns = {"tests": [["assert f(1) == 1"]] * 20, "setup": [""] * 20}
    term = RewardTerm("code", options=(("wall_seconds", 4.0), ("sandbox", "weak")))
    seconds = 20
    with open_scorer([term], workers=2, timeout_seconds=30, step_seconds=seconds) as scorer:
        began = time.monotonic()
        scored = score(scorer, answers, **columns)
        assert time.monotonic() - began < seconds + PATIENCE
    assert scored.values[16:, 0].tolist() == [1.0] * 4
    hanging = scored.values[:16, 0]
    assert set(hanging[np.isfinite(hanging)]) == {0.0}
    assert np.isnan(hanging).sum() <= 2  # what was in hand for the first time as the step ended


def test_a_program_that_needs_long_is_tried_again_with_more_time():
    answers = ["import time\ndef f(x):\n    time.sleep(1)\n    return x"] * 2
    columns = {"tests": [["assert f(1) == 1"]] * 2, "setup": [""] * 2}
    term = RewardTerm("code", options=(("wall_seconds", 20), ("sandbox", "weak")))
    with open_scorer([term], workers=1, timeout_seconds=100, step_seconds=60) as scorer:
        scorer._first_try = lambda units: 0.25
        assert score(scorer, answers, **columns).values[:, 0].tolist() == [1, 1]


def test_a_reward_that_forks_is_named():
    with (
        open_scorer([RewardTerm("own_rewards:forks")], workers=1) as scorer,
        pytest.raises(UserError, match="'own_rewards:forks' forked, and its child returned"),
    ):
        score(scorer, ["slow"] * 9)  # its child is seen when it is there, and does no harm before


def test_a_reward_that_writes_on_the_workers_socket_is_told():
    term = RewardTerm("own_rewards:writes_on_every_descriptor")
    with (
        open_scorer([term], workers=1) as scorer,
        pytest.raises(UserError, match="wrote on the descriptor on which its worker reports"),
    ):
        score(scorer, ["a", "b"])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("function", "complaint"), [("huge_int", "returned -inf"), ("huge", r"beyond ±1e\+09; scale")]
)
def test_rewards_that_no_gradient_can_hold_are_refused(function, complaint, workers):
    """±1e30 in a group made every advantage 0 without a word."""
    with open_scorer([RewardTerm(f"own_rewards:{function}")], workers=workers) as scorer:
        scored = score(scorer, ["good", "bad"])
        assert scored.outcomes[f"own_rewards:{function}"]["crash"] == 2
        assert complaint.replace("\\", "") in scored.messages[0]
        with pytest.raises(UserError, match=complaint):
            check_rewards(scorer, ["good", "bad"], thoughts=["", ""], columns={})
    with pytest.raises(UserError, match=r"weight 1e\+30 is beyond"):
        RewardTerm("exact", weight=1e30)


def test_what_a_reward_starts_does_not_outlive_the_pool():
    with open_scorer([RewardTerm("own_rewards:starts_a_daemon")], workers=1) as scorer:
        daemon = int(score(scorer, ["a"]).values[0, 0])
        os.kill(daemon, 0)
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        status = Path(f"/proc/{daemon}/stat")
        if not status.exists() or ") Z " in status.read_text():
            return
        time.sleep(0.05)
    pytest.fail("a daemon outlived the pool")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("too_many", "returned 2 values for 1 answer"),
        ("scalar", "returned a float"),
        ("text", "returned '1.0', a str"),
        ("no_axes", r"returned an array without axes, array\(1"),
        ("a_time", "returned .*, a timedelta64"),
        ("returns_in_silence", r"returned \(what it says cannot be shown\), a Unspoken"),
    ],
)
def test_wrong_length_or_type_stops_the_run_at_once(function, complaint, workers):
    term = RewardTerm(f"own_rewards:{function}")
    with (
        open_scorer([term], workers=workers) as scorer,
        pytest.raises(UserError, match=f"reward '{term.name}' {complaint}"),
    ):
        score(scorer, ["a"] * 20)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_that_cannot_be_spelled_is_named_by_its_kind(workers):
    with open_scorer([RewardTerm("own_rewards:raises_in_silence")], workers=workers) as scorer:
        scored = score(scorer, ["a", "b"])
    assert scored.outcomes["own_rewards:raises_in_silence"]["crash"] == 2
    assert "crash: SilentError: (what it says cannot be shown)" in scored.messages[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_reward_does_to_its_columns_is_the_truth_of_no_other_answer(workers):
    """The answers to one question share its columns, in the caller and in a worker's chunk."""
    gold, image = ["true"], np.ones((2, 2))
    terms = [RewardTerm("own_rewards:changes_its_columns")] * 2
    terms[1] = replace(terms[1], weight=0.0, task="seen")
    with open_scorer(terms, workers=workers) as scorer:
        columns = {"gold": [gold] * 64, "image": [image] * 64, "task": ["seen"] * 64}
        scored = score(scorer, ["x"] * 64, **columns)
    np.testing.assert_array_equal(scored.values, np.full((64, 2), 2.0))
    assert gold == ["true"]
    np.testing.assert_array_equal(image, np.ones((2, 2)))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("iou", "'iou' is unknown; choose one of"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("own_rewards:missing", "module own_rewards has no missing; it has"),
        ("own_rewards:not_a_function", "is of type int, not a function"),
        ("own_rewards:Judge", r"a class, not a function; name an object of it: NAME = Judge\(\)"),
        ("own_rewards.py:judge", "is it own_rewards:judge?"),
    ],
)
def test_unknown_reward_is_a_user_error(name, complaint, workers):
    with (
        pytest.raises(UserError, match=complaint),
        open_scorer([RewardTerm(name)], workers=workers),
    ):
        pass


@pytest.mark.parametrize("module", ["code", "math", "statistics"])
def test_a_module_that_python_hides_is_named(module, tmp_path, monkeypatch):
    """Python has mean in its own statistics: the user's would never be called."""
    (tmp_path / f"{module}.py").write_text("def mean(answers, *, thoughts): return [1.0]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # last, as gmma puts it
    words = f"another module {module} before your .*{module}.py: .*another name"
    with pytest.raises(UserError, match=words), open_scorer([RewardTerm(f"{module}:mean")]):
        pass


@pytest.mark.parametrize("module", ["gmma", "json", "random"])
def test_files_where_gmma_was_started_are_nobody_elses_modules(module, tmp_path, monkeypatch):
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('not me')\n")
    monkeypatch.chdir(tmp_path)
    with open_scorer([RewardTerm("exact")], workers=1) as scorer:
        assert score(scorer, ["a"], answer=["a"]).values.tolist() == [[1.0]]


def test_a_relative_import_is_told_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("from . import other\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = "relative import.*PACKAGE.beside:f"
    with pytest.raises(UserError, match=words), open_scorer([RewardTerm("beside:f")], workers=0):
        pass


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reward_that_exits_does_not_end_the_run(workers):
    """With code 0 a shell would take the run for done."""
    with (
        open_scorer([RewardTerm("own_rewards:exits")], workers=workers) as scorer,
        pytest.raises(UserError, match=r"own_rewards:exits.*SystemExit: 0"),
    ):
        check_rewards(scorer, ["a"], thoughts=[""], columns={})


def test_a_column_that_is_not_there_is_told_beside_those_that_are():
    with (
        open_scorer([RewardTerm("own_rewards:wants")], workers=0) as scorer,
        pytest.raises(UserError, match=r":wants' wants level, of .*; there are answer;"),
    ):
        check_rewards(scorer, ["a"], thoughts=[""], columns={"answer": ["a"]})


@pytest.mark.parametrize("answer", ["raise", "hang", "none"])
def test_check_rewards_is_strict_before_training(answer):
    with (
        open_scorer([MISBEHAVE], workers=1, timeout_seconds=0.3) as scorer,
        pytest.raises(UserError, match="own_rewards:misbehave"),
    ):
        check_rewards(scorer, [answer], thoughts=[""], columns={})


@pytest.mark.parametrize("workers", [0, 1])
def test_columns_and_options_reach_the_reward(workers):
    terms = [
        RewardTerm("own_rewards:number_of_columns"),
        RewardTerm("own_rewards:scaled", options=(("factor", 2.5),)),
        RewardTerm("own_rewards:thinks_aloud"),
        RewardTerm("own_rewards:takes_one_column"),
    ]
    with open_scorer(terms, workers=workers) as scorer:
        scored = scorer.score(["ab"], thoughts=["abc"], columns={"a": [1], "b": [2]})
        np.testing.assert_array_equal(scored.values, [[2, 5, 3, 1]])
        with pytest.raises(UserError, match="factor is both an option and a column"):
            score(scorer, ["ab"], factor=[1.0])
        with pytest.raises(UserError, match="column 'a' has 2 entries for 1 answers"):
            score(scorer, ["ab"], a=[1, 2])


def test_no_answers_no_scores():
    with open_scorer([MISBEHAVE], workers=1) as scorer:
        assert score(scorer, []).values.shape == (0, 1)


def test_workers_have_no_jax_and_stay_for_the_next_batch():
    terms = [RewardTerm("own_rewards:jax_is_loaded"), RewardTerm("own_rewards:process_id")]
    with open_scorer(terms, workers=1) as scorer:
        first, second = score(scorer, ["a"]).values, score(scorer, ["b"]).values
    assert first[0, 0] == 0
    assert first[0, 1] == second[0, 1] != os.getpid()


def test_workers_die_with_a_killed_parent(tmp_path):
    script = (
        "import sys\n"
        "from gmma.rewards.service import RewardTerm, open_scorer\n"
        "with open_scorer([RewardTerm('own_rewards:process_id')], workers=1) as scorer:\n"
        "    scored = scorer.score(['a'], thoughts=[''], columns={})\n"
        "    print(int(scored.values[0, 0]), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, **pipes) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        began = time.monotonic()
        while time.monotonic() < began + PATIENCE:
            if not Path(f"/proc/{worker}").exists():
                return
            time.sleep(0.05)
    pytest.fail("the worker outlived its parent")
