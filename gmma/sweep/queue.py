"""The queue of a sweep's runs: some at a time, each in a process of its own, resumable.

What is done is told by the runs' own files, so that a sweep that was killed at any moment goes on
where it was, and its runs from their checkpoints (law L8). Programs compiled once are shared
through the compilation cache of the sweep's directory.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gmma.config import config_from_json, config_to_json, job_to_json
from gmma.errors import UserError
from gmma.files import locked, read_json, write_whole
from gmma.hardware.preemption import CODE_PREEMPTED, Ended, Preempted
from gmma.named import import_path, module_command
from gmma.options.arguments import Share
from gmma.records.resuming import check_start
from gmma.run.preflight import check_settings
from gmma.sweep.arms import START, Sweep, SweepRun

POLL_SECONDS = 0.5
# Two programs that share the cores get more done when neither cuts its products over them.
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


def run_queue(sweep: Sweep, runs: Sequence[SweepRun], workers: int, share: Share) -> list[SweepRun]:
    """Run what is not done yet, `workers` at a time, and return the runs that failed.

    A run whose start is missing waits for it, also where another share trains that. Raises
    UserError before anything starts where a run's directory holds a run of another config, and
    Preempted where a run was.
    """
    check_runs(runs)
    wanted = own_share(runs, share)
    waiting = [run for run in wanted if not run.is_done()]
    say_awaited(waiting, wanted)
    done, failed = len(wanted) - len(waiting), []
    with ended(dict[subprocess.Popen[bytes], SweepRun]()) as running:
        while waiting or running:
            for process in [p for p in running if p.poll() is not None]:
                run = running.pop(process)
                if process.returncode == CODE_PREEMPTED:
                    raise Preempted(f"a run of the sweep {sweep.name} was told to stop")
                if process.returncode:
                    failed.append(run)
                    print(f"FAILED {run.config.name}: see {log_path(sweep, run)}", flush=True)
                else:
                    done += 1
                    print(f"{done}/{len(wanted)} {run.config.name}", flush=True)
            waiting, lost = without_orphans(waiting, failed)
            failed += lost
            ready = next((run for run in waiting if can_start(run)), None)
            if ready is not None and len(running) < workers:
                waiting.remove(ready)
                running[start(sweep, ready, workers)] = ready
            else:
                time.sleep(POLL_SECONDS)
    return failed


def check_runs(runs: Sequence[SweepRun]) -> None:
    """Raise UserError where a run could learn nothing, or its directory holds another's config."""
    for run in runs:
        check_settings(run.config)
        check_start(run.config.run_dir, True, config_to_json(run.config))


def own_share(runs: Sequence[SweepRun], share: Share) -> list[SweepRun]:
    """Return every `count`-th of the starts and of the others: no two shares train the same run."""
    starts = [run for run in runs if run.arm == START]
    others = [run for run in runs if run.arm != START]
    return [*starts[share.index :: share.count], *others[share.index :: share.count]]


def say_awaited(waiting: Sequence[SweepRun], wanted: Sequence[SweepRun]) -> None:
    """Print which starts another share has to train before this one can end."""
    own = {run.config.run_dir for run in wanted}
    missing = {run.start for run in waiting if not can_start(run)} - own
    if missing:
        names = ", ".join(sorted(path.name for path in missing if path))
        print(f"waiting for {names}, which other shares train", flush=True)


def can_start(run: SweepRun) -> bool:
    """Return whether the SFT that the run continues from has ended."""
    return run.start is None or (run.start / "evaluation/after_sft.json").exists()


def without_orphans(
    waiting: Sequence[SweepRun], failed: Sequence[SweepRun]
) -> tuple[list[SweepRun], list[SweepRun]]:
    """Split off the runs whose start has failed: (can still start, cannot)."""
    broken = {run.config.run_dir for run in failed if run.arm == START}
    lost = [run for run in waiting if run.start in broken]
    return [run for run in waiting if run not in lost], lost


@contextmanager
def ended(
    running: dict[subprocess.Popen[bytes], SweepRun],
) -> Iterator[dict[subprocess.Popen[bytes], SweepRun]]:
    """Ask each run to checkpoint and stop on leaving: none goes on without its queue."""

    def stop(number: int, frame: object) -> None:
        name = signal.Signals(number).name
        raise Preempted(f"{name}: the runs of the sweep are checkpointed; start it again")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def log_path(sweep: Sweep, run: SweepRun) -> Path:
    """Return the file with what a run printed, on this machine's disk."""
    root = sweep.directory
    local = root if isinstance(root, Path) else Path("runs") / sweep.name  # a bucket cannot append
    return local / "queue" / f"{run.config.name}.log"


def start(sweep: Sweep, run: SweepRun, workers: int) -> subprocess.Popen[bytes]:
    """Start a process that trains one run, from its newest checkpoint where it has one."""
    config = log_path(sweep, run).with_suffix(".json")
    write_whole(config, json.dumps(job_to_json(run.config), indent=1))
    log = log_path(sweep, run)
    environment = {**os.environ, "PYTHONPATH": import_path()}  # what the experiment file found
    if workers > 1:  # says nothing to other backends
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()
    command = module_command("gmma.sweep.queue", str(config), str(os.getpid()))
    with log.open("ab") as output:
        # In a session of its own, so that Ctrl-C reaches the queue alone, which lets it checkpoint.
        return subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )


def end_with_parent(parent: int) -> None:
    """Ask this process to checkpoint and stop once its queue is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Train one run, or continue it, while the queue's process lives.

    `python -m gmma.sweep.queue CONFIG QUEUE`
    """
    from gmma.commands import use_compilation_cache
    from gmma.train import train

    source, queue = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=end_with_parent, args=(queue,), daemon=True).start()
    config = config_from_json(read_json(source), source)
    use_compilation_cache(config)
    try:
        # One that a killed queue left may still be writing.
        with locked(source.with_suffix(".lock"), wait=True):
            train(config, resume=True)
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    except Ended as notice:
        print(notice, file=sys.stderr)
        raise SystemExit(notice.code) from None


if __name__ == "__main__":
    main()
