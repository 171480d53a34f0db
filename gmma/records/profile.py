"""Trace some steps of a run for XProf: what the devices computed, and what the host did meanwhile.

gmma train FILE --profile 10:12           steps 10, 11 and 12, numbered as in metrics.jsonl
tensorboard --logdir runs/NAME/profile    shows it, where xprof is installed
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import jax

from gmma.errors import UserError
from gmma.files import RunPath, growing_files
from gmma.records.console import say, warn

Steps = tuple[int, int]  # the first and the last
Trace = Callable[[str, int], AbstractContextManager[None]]  # goes around a step of a phase


def check_traced(steps: Steps | None, total: int) -> None:
    """Raise UserError for steps that a run of so many does not have."""
    if steps is not None and steps[1] >= total:
        raise UserError(
            f"--profile {steps[0]}:{steps[1]}, but the run has {total} steps, SFT and RL together, "
            "numbered from 0"
        )


def untraced(phase: str, step: int) -> AbstractContextManager[None]:
    """Trace nothing."""
    return nullcontext()


@contextmanager
def open_trace(run_dir: RunPath, steps: Steps | None) -> Iterator[Trace]:
    """Yield what goes around each step of the run, and traces those that are asked for.

    The trace is written behind the last of them, or when the run ends before it. Every host writes
    a file of its own. What a resumed run did before is not traced.
    """
    if steps is None:
        yield untraced
        return
    taken: list[int] = []
    with ExitStack() as recording:

        @contextmanager
        def trace(phase: str, step: int) -> Iterator[None]:
            if not steps[0] <= step <= steps[1]:
                yield
                return
            if not taken:
                recording.enter_context(recorded(run_dir, steps))
            taken.append(step)
            with jax.profiler.StepTraceAnnotation(phase, step_num=step):
                yield
            if step == steps[1]:
                recording.close()

        yield trace
    if not taken:
        warn(f"--profile {steps[0]}:{steps[1]}: this start of the run took none of these steps")


@contextmanager
def recorded(run_dir: RunPath, steps: Steps) -> Iterator[None]:
    """Record what happens within the block to `RUN_DIR/profile`, in XProf's own layout."""
    place, options = run_dir / "profile", jax.profiler.ProfileOptions()
    options.session_id = f"steps_{steps[0]}_{steps[1]}"  # one on all hosts, whose clocks differ
    with growing_files(place) as (folder, _):
        jax.profiler.start_trace(folder, profiler_options=options)
        try:
            yield
        finally:
            jax.profiler.stop_trace()
            say(f"trace of steps {steps[0]} to {steps[1]}: {place}")
