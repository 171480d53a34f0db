"""Rate and time left: steps that compile, evaluations and checkpoints, on seconds of a real run."""

import io
import re

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from gmma.records import console as shown
from gmma.records.console import can_redraw, open_console, print_table, show_bar, show_lines
from gmma.records.metrics import compile_seconds, compiles_now
from gmma.records.pace import (
    Estimate,
    Event,
    Pace,
    after_step,
    coming,
    error_lines,
    estimate,
    eta_errors,
    timed,
)

# Seconds of the 40 SFT steps of experiments/word_problems.py on two shared cores, 2026-11-29, as
# metrics.jsonl has them; the first compiled two programs.
RECORDED = (
    *(39.3, 13.9, 13.8, 13.7, 14.1, 13.5, 14.5, 15.6, 16.8, 17.2, 17.8, 17.0, 16.1, 17.1, 17.6),
    *(18.6, 17.9, 17.4, 16.0, 15.4, 15.2, 22.3, 14.4, 15.5, 15.2, 16.2, 15.2, 15.5, 17.5, 19.0),
    *(17.9, 16.8, 16.4, 17.2, 16.3, 16.9, 16.9, 17.2, 17.9, 17.1),
)
EVALUATE_EVERY, SAVE_EVERY = 10, 16
EVALUATION_SECONDS, COMPILING_SECONDS, SAVE_SECONDS = 90.0, 70.0, 12.0  # made up


def replay():
    """What stood in the records of a run with these steps, and an evaluation before the first."""
    first = evaluation(compiles=True)
    pace, now, records, events = Pace(events=(first,)), 0.0, [], []
    for step, seconds in enumerate(RECORDED):
        done, programs = step + 1, 0 if step else 2
        if done % EVALUATE_EVERY == 0:
            events.append(evaluation())
        spent = seconds + sum(event.seconds for event in events)
        pace = after_step(pace, spent, programs, events)
        now, events = now + spent, []
        total = len(RECORDED)
        still = {
            "evaluation": coming(done, total, EVALUATE_EVERY),
            "checkpoint": coming(done - 1, total, SAVE_EVERY, at_end=True),
        }
        found = estimate(pace, total - done, still)
        left = {} if found.left_seconds is None else {"clock/left": found.left_seconds}
        records.append({"step": step, "phase": "sft", "clock/time": 1e9 + now, **left})
        if done % SAVE_EVERY == 0 or done == total:
            events.append(Event(name="checkpoint", seconds=SAVE_SECONDS))
    return records


def evaluation(*, compiles=False):
    extra = COMPILING_SECONDS if compiles else 0.0
    return Event(
        name="evaluation",
        seconds=EVALUATION_SECONDS + extra,
        programs=2 * compiles,
        compiling=extra,
    )


def test_the_first_step_compiles_and_gives_no_rate():
    records = replay()
    assert "clock/left" not in records[0]
    assert "clock/left" in records[1]


def test_coming_evaluations_and_checkpoints_are_foretold():
    """By hand, after step 4: 36 steps of the mean of three, four evaluations, three checkpoints.

    No checkpoint has been seen yet, so none is counted; after step 17, two more are, of 12 s.
    """
    records = replay()
    steps = 36 * (13.9 + 13.8 + 13.7) / 3
    assert records[3]["clock/left"] == pytest.approx(steps + 4 * EVALUATION_SECONDS)
    mean = sum(RECORDED[1:17]) / 16
    assert records[16]["clock/left"] == pytest.approx(23 * mean + 3 * 90 + 2 * 12)


def test_from_a_tenth_of_a_phase_on_it_is_within_a_quarter_of_the_truth():
    judged = [one for one in eta_errors(replay(), "sft") if 0.1 <= one.share <= 0.9]
    assert judged[0].share == 0.1
    assert len(judged) == 33
    assert max(abs(one.error) for one in judged) < 0.25


def test_a_rate_that_counts_compilation_and_forgets_evaluations_is_off():
    """The old arithmetic on the same seconds: what the test above would see of it."""
    records = replay()
    times = [0.0, *(record["clock/time"] - 1e9 for record in records)]
    old = [times[done] / done * (40 - done) for done in range(1, 40)]
    truth = [times[40] - times[done] for done in range(1, 40)]
    assert max(abs(o / t - 1) for o, t in zip(old[3:36], truth[3:36], strict=True)) > 0.25


def test_the_record_is_judged_in_words():
    lines = list(error_lines(replay(), "sft", 0.1, 0.9))
    assert len(lines) == 10
    assert re.fullmatch(r"sft at 10%: \d+:\d\d foretold, \d+:\d\d it took, -\d+%", lines[0])
    assert lines[-1].startswith("sft, worst from 10% to 90%: -")
    assert eta_errors([{"step": 0, "phase": "sft"}], "sft") == []  # of an older version


def test_the_mean_is_of_recent_steps():
    pace = Pace()
    for seconds in (*[1.0] * 200, *[3.0] * 100):
        pace = after_step(pace, seconds, 0, [])
    assert estimate(pace, 10, {}) == Estimate(step_seconds=3.0, left_seconds=30.0)


def test_an_event_knows_what_it_compiled():
    events = []
    with timed("first", events):
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(5)).block_until_ready()
    with timed("second", events):
        pass
    first, second = events
    assert first.programs >= 1
    assert 0 < first.compiling <= first.seconds + 1e-3
    assert (second.programs, second.compiling) == (0, 0)
    assert compile_seconds() >= first.compiling
    assert not compiles_now()


def test_a_program_that_compiles_is_known_meanwhile():
    """The tracer's work is over and the compiler's begins: seen from inside the compilation."""
    seen = []
    jax.monitoring.register_event_listener(lambda event, **_: seen.append(compiles_now()))
    jax.jit(lambda x: x * 5 - 2)(jnp.ones(7)).block_until_ready()
    assert True in seen  # a request to the compilation cache, which the tests have
    assert not compiles_now()


RECORD = {"reward": 0.5}


def run_display(shown, console):
    with shown(console, "rl", 0, 3) as advance:
        advance(1, RECORD, Estimate())
        advance(2, RECORD, Estimate(step_seconds=0.5, left_seconds=100.0))
        advance(3, RECORD, Estimate(step_seconds=0.5, left_seconds=0.0))


def test_lines_say_that_it_compiles_then_rate_and_time_left(monkeypatch):
    monkeypatch.setattr(shown, "LINE_EVERY_SECONDS", -1)
    console = Console(file=io.StringIO(), width=80)
    run_display(show_lines, console)
    assert console.file.getvalue().splitlines() == [
        "rl 0/3  compiling …",
        "rl 1/3  compiling …  reward 0.500",
        "rl 2/3  0.50 s/step  1:40 left  reward 0.500",
        "rl 3/3  0.50 s/step  0:00 left  reward 0.500",
    ]


@pytest.mark.parametrize("columns", [80, 60])
def test_the_bar_is_one_line_of_the_terminal(columns):
    file = io.StringIO()
    console = Console(file=file, width=columns, force_terminal=True, color_system=None)
    run_display(show_bar, console)
    drawn = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "\n", file.getvalue())
    lines = [line.strip() for line in re.split(r"[\r\n]+", drawn) if line.strip()]
    assert all(len(line) <= columns for line in lines)
    assert "0.50 s/step" in lines[-1]
    assert "reward 0.500" in lines[-1]
    assert any("compiling …" in line for line in lines)


@pytest.mark.parametrize("display", [show_lines, show_bar])
def test_a_phase_that_is_over_does_not_say_that_it_compiles(display):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with display(console, "sft", 3, 3):
        pass
    assert "compiling" not in console.file.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch):
    """A bar cannot be drawn over there, and rich would show none until its end."""
    for term, redraws in (("dumb", False), ("xterm", True)):
        monkeypatch.setenv("TERM", term)
        assert can_redraw(Console(file=io.StringIO(), force_terminal=True)) == redraws
    assert not can_redraw(Console(file=io.StringIO()))


def test_a_table_that_does_not_fit_stands_row_by_row(monkeypatch, capsys):
    """All columns wide enough for 80, or each figure below the name of its row."""
    monkeypatch.delenv("COLUMNS", raising=False)
    interval = "0.462 [0.448, 0.476]"
    header = ["", "after SFT", "after RL", "difference"]
    print_table("512 examples", header, [["sampled iou", *[interval] * 3]])
    side_by_side = capsys.readouterr().out.splitlines()
    assert [len(line) <= 80 for line in side_by_side] == [True] * 5
    assert side_by_side[-1].count(interval) == 3
    print_table("512 examples", header, [["sampled rewards/[my] term", *[interval] * 3]])
    below = capsys.readouterr().out.splitlines()
    assert below[2:] == [
        "sampled rewards/[my] term",
        *(f"  {name:<10}  {interval}" for name in header[1:]),
    ]
    monkeypatch.setenv("COLUMNS", "120")
    assert open_console().width == 120
    print_table("512 examples", header, [["sampled rewards/[my] term", *[interval] * 3]])
    assert capsys.readouterr().out.splitlines()[-1].count(interval) == 3
