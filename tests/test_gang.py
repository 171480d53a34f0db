"""Cells that call programs together, without a device: errors, departures, interruptions."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gmma.hardware.preemption import NotFinite, Preempted
from gmma.sweep import grid_run
from gmma.sweep.grid import Gang

WAIT = 20  # seconds; a cell that waits longer has been forgotten


def doubled(arguments):
    return [2 * one for one in arguments]


def summed(arguments):
    return [sum(arguments)] * len(arguments)


def on_threads(cells):
    """What each cell returns or raises, in threads of their own."""
    with ThreadPoolExecutor(len(cells)) as threads:
        ends = [threads.submit(cell) for cell in cells]
        return [end.exception(WAIT) or end.result(WAIT) for end in ends]


def test_every_cell_gets_its_own_result_program_by_program():
    gang, calls = Gang(3), []

    def program(arguments):
        calls.append(list(arguments))
        return doubled(arguments)

    def cell(at):
        return [gang.call(at, program, 10 * step + at) for step in range(50)]

    found = on_threads([lambda at=at: cell(at) for at in range(3)])
    assert found == [[2 * (10 * step + at) for step in range(50)] for at in range(3)]
    assert calls == [[10 * step + at for at in range(3)] for step in range(50)]


@pytest.mark.parametrize("early", [0, 1, 3])
def test_the_others_go_on_when_a_cell_leaves(early):
    """Before its first call, between two programs, and after both; another stands in for it."""
    gang = Gang(3)

    def cell(at):
        try:
            found = []
            for call in range(4):
                if at == 1 and call == early:
                    raise NotFinite("diverged")
                found.append(gang.call(at, doubled if call % 2 else summed, 1))
            return found
        finally:
            gang.leave(at)

    first, second, third = on_threads([lambda at=at: cell(at) for at in range(3)])
    assert first == third == [3, 2, 3, 2]
    assert isinstance(second, NotFinite)


def test_an_error_of_a_program_reaches_every_cell():
    gang = Gang(3)

    def broken(arguments):
        raise ZeroDivisionError(len(arguments))

    found = on_threads([lambda at=at: gang.call(at, broken, at) for at in range(3)])
    assert [type(one) for one in found] == [ZeroDivisionError] * 3


def test_stopping_wakes_those_that_wait_and_refuses_later_calls():
    gang = Gang(2)
    waiting = threading.Thread(target=lambda: raised.append(call(0)))
    raised = []

    def call(at):
        with pytest.raises(KeyboardInterrupt) as caught:
            gang.call(at, doubled, at)
        return caught.value

    waiting.start()
    gang.stop(KeyboardInterrupt("stop"))
    waiting.join(WAIT)
    assert not waiting.is_alive()
    assert [str(one) for one in (*raised, call(1))] == ["stop", "stop"]


def test_an_interrupted_grid_ends_its_cells(monkeypatch):
    """Ctrl-C comes while the main thread waits; the cells are in lock-step for ever."""
    gang, ended, began = Gang(2), [], threading.Event()

    def forever(gang, at):
        try:
            while True:
                gang.call(at, doubled, at)
                began.set()
        finally:
            gang.leave(at)
            ended.append(at)

    def interrupted(ends):
        assert began.wait(WAIT)
        raise KeyboardInterrupt

    monkeypatch.setattr(grid_run, "train_cell", forever)
    monkeypatch.setattr(grid_run, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid_run.train_threads(gang, [(), ()])
    assert sorted(ended) == [0, 1]


def test_a_mistake_goes_before_ends_and_ends_are_told_together():
    grid_run.raise_first([])
    with pytest.raises(ValueError, match="a mistake"):
        grid_run.raise_first([NotFinite("a: nan"), ValueError("a mistake")])
    with pytest.raises(Preempted, match="a: step 3; b: step 4"):
        grid_run.raise_first([Preempted("a: step 3"), Preempted("b: step 4")])
