"""Rate and time left of a phase, from the seconds of its steps and of what comes between them.

Steps that compile tell nothing of the others and are left out. Evaluations, checkpoints and drawn
trees are counted as often as they still come, each with what it took so far.

after_step      the clock's findings, one step later
seconds_left    until the end of the phase
eta_errors      how far a finished run's own figures were from the truth
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gmma.files import run_path
from gmma.records.metrics import (
    LEFT,
    RECORDS,
    TIME,
    Record,
    compilations,
    compile_seconds,
    read_records,
)

RECENT_STEPS = 100  # whose mean is the rate: long texts come with time


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something between two steps: an evaluation, a checkpoint, a tree that is written."""

    name: str
    seconds: float
    programs: int = 0  # that were compiled meanwhile
    compiling: float = 0.0  # seconds of it


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a phase so far."""

    steps: tuple[float, ...] = ()  # the last ones that compiled nothing
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Rate and time left of a phase; None while no step without compilation is over."""

    step_seconds: float | None = None
    left_seconds: float | None = None


def after_step(pace: Pace, seconds: float, programs: int, events: Sequence[Event]) -> Pace:
    """Return the pace one step later.

    `seconds` and `programs` (compiled) are all since the step before, with what `events` took.
    """
    own = seconds - sum(event.seconds for event in events)
    compiled = programs - sum(event.programs for event in events)
    steps = pace.steps if compiled else (*pace.steps, own)[-RECENT_STEPS:]
    return Pace(steps=steps, events=(*pace.events, *events))


def event_seconds(pace: Pace, name: str) -> float:
    """Return the mean seconds of an event so far, compilation left out; 0 before the first."""
    own = [event for event in pace.events if event.name == name]
    smooth = [event.seconds for event in own if not event.programs]
    known = smooth or [max(0.0, event.seconds - event.compiling) for event in own]
    return sum(known) / len(known) if known else 0.0


def estimate(pace: Pace, steps: int, coming: Mapping[str, int]) -> Estimate:
    """Estimate what so many steps and so many events of each name will take."""
    if not pace.steps:
        return Estimate()
    each = sum(pace.steps) / len(pace.steps)
    between = sum(count * event_seconds(pace, name) for name, count in coming.items())
    return Estimate(step_seconds=each, left_seconds=steps * each + between)


def coming(done: int, total: int, every: int, *, at_end: bool = False) -> int:
    """Count the events behind step `done` of one every `every` steps, and at the end; 0: never.

    >>> coming(50, 250, 50), coming(49, 250, 50), coming(50, 260, 50, at_end=True), coming(0, 9, 0)
    (4, 5, 5, 0)
    """
    if not every:
        return 0
    extra = at_end and total % every and done < total
    return total // every - done // every + bool(extra)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment: the monotonic clock, and programs compiled so far."""

    seconds: float
    programs: int


def mark_now() -> Mark:
    """Read clock and counter."""
    return Mark(seconds=time.monotonic(), programs=compilations())


def lap(pace: Pace, since: Mark, events: Sequence[Event]) -> tuple[Pace, Mark]:
    """Return the pace with the step that ends now, and the moment."""
    now = mark_now()
    spent, programs = now.seconds - since.seconds, now.programs - since.programs
    return after_step(pace, spent, programs, events), now


def clock_record(found: Estimate) -> dict[str, float]:
    """Return what a record keeps of the clock, so that `eta_errors` can judge the estimate."""
    known = {} if found.left_seconds is None else {LEFT: found.left_seconds}
    return {TIME: time.time(), **known}


@contextmanager
def timed(name: str, events: list[Event]) -> Iterator[None]:
    """Add what the block took to `events`."""
    started, programs, compiling = time.monotonic(), compilations(), compile_seconds()
    yield
    events.append(
        Event(
            name=name,
            seconds=time.monotonic() - started,
            programs=compilations() - programs,
            compiling=compile_seconds() - compiling,
        )
    )


def spell_seconds(seconds: float) -> str:
    """Spell as minutes and seconds, with hours and days where there are any.

    >>> [spell_seconds(value) for value in (7, 97.4, 3700, 200_000)]
    ['0:07', '1:37', '1:01:40', '2 d 7:33:20']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    short = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} d {short}" if days else short


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An estimate of a finished phase beside what came of it, in seconds."""

    share: float  # of the phase's steps that were done
    left: float
    truth: float

    @property
    def error(self) -> float:
        """Return the relative error; positive where too much was foretold."""
        return self.left / self.truth - 1


def eta_errors(records: Sequence[Record], phase: str) -> list[Judged]:
    """Judge the estimates of a phase that was trained without an interruption, last step aside."""
    own = [record for record in records if record["phase"] == phase and TIME in record]
    return [
        Judged(share=at / len(own), left=record[LEFT], truth=own[-1][TIME] - record[TIME])
        for at, record in enumerate(own[:-1], 1)
        if LEFT in record
    ]


def error_lines(records: Sequence[Record], phase: str, begin: float, end: float) -> Iterator[str]:
    """Word the estimates at every tenth of a phase, and the worst between two shares of it."""
    judged = eta_errors(records, phase)
    behind = ([one for one in judged if one.share >= tenth / 10] for tenth in range(1, 10))
    for one in dict.fromkeys(found[0] for found in behind if found):
        spelt = f"{spell_seconds(one.left)} foretold, {spell_seconds(one.truth)} it took"
        yield f"{phase} at {one.share:.0%}: {spelt}, {one.error:+.0%}"
    within = [one for one in judged if begin <= one.share <= end]
    if within:
        worst = max(within, key=lambda one: abs(one.error))
        where = f"from {begin:.0%} to {end:.0%}"
        yield f"{phase}, worst {where}: {worst.error:+.0%} at {worst.share:.0%}"


def main() -> None:
    """Print how good the time left was: `python -m gmma.records.pace runs/NAME`."""
    records = read_records(run_path(sys.argv[1]) / RECORDS)
    for phase in dict.fromkeys(record["phase"] for record in records):
        for line in error_lines(records, phase, 0.1, 0.9):
            print(line)


if __name__ == "__main__":
    main()
