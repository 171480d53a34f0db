"""Success of the oracle and of the blind policy on each kind of object, and attempts per second.

python -m gmma.simulator.survey --scenes 200 --guesses 10 --workers 2
"""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import tyro

from gmma.simulator.attempt import attempt
from gmma.simulator.policies import guess_answer, know_answer
from gmma.simulator.scene import KINDS
from gmma.simulator.sight import draw_scene


@dataclass(frozen=True, kw_only=True)
class SurveyConfig:
    """Size of the survey."""

    scenes: int = 200  # of each kind
    guesses: int = 10  # of the blind policy in each scene
    first_seed: int = 0
    workers: int = 2  # processes


@dataclass(frozen=True, kw_only=True)
class KindTally:
    """Counts over some scenes of one kind."""

    scenes: int
    oracle: int  # successes of the oracle, one attempt a scene
    guesses: int
    blind: int  # successes of the blind policy
    contacts: int  # guesses that touched the part
    draw_seconds: float  # worker time to draw and compile the scenes
    attempt_seconds: float  # worker time of all attempts


def survey_scenes(kind: str, seeds: Sequence[int], guesses: int) -> KindTally:
    """Try one oracle answer and `guesses` blind ones in each scene; all drawn from its seed."""
    began = time.perf_counter()
    scenes = [draw_scene(kind, seed) for seed in seeds]
    drawn = time.perf_counter()
    oracle, blind = [], []
    for scene in scenes:
        rng = np.random.default_rng((1, scene.seed))
        oracle.append(attempt(scene, know_answer(scene, rng)))
        blind += [attempt(scene, guess_answer(rng)) for _ in range(guesses)]
    return KindTally(
        scenes=len(scenes),
        oracle=sum(a.success for a in oracle),
        guesses=len(blind),
        blind=sum(a.success for a in blind),
        contacts=sum(a.contact for a in blind),
        draw_seconds=drawn - began,
        attempt_seconds=time.perf_counter() - drawn,
    )


def add_tallies(tallies: Sequence[KindTally]) -> KindTally:
    """Return the sum of each count."""
    names = KindTally.__dataclass_fields__
    return KindTally(**{name: sum(getattr(t, name) for t in tallies) for name in names})


def survey(config: SurveyConfig) -> dict[str, KindTally]:
    """Return a tally per kind, over worker processes in chunks of 25 scenes."""
    seeds = range(config.first_seed, config.first_seed + config.scenes)
    chunks = [list(seeds[i : i + 25]) for i in range(0, config.scenes, 25)]
    jobs = [(kind, chunk) for kind in KINDS for chunk in chunks]
    with ProcessPoolExecutor(
        config.workers, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        results = [pool.submit(survey_scenes, *job, config.guesses) for job in jobs]
        tallies = [result.result() for result in results]
    kinds = [kind for kind, _ in jobs]
    return {
        name: add_tallies([t for t, kind in zip(tallies, kinds, strict=True) if kind == name])
        for name in KINDS
    }


def print_survey(tallies: dict[str, KindTally], wall_seconds: float) -> None:
    """Print one row per kind, and what all workers did together."""
    print(f"{'kind':8}{'scenes':>8}{'oracle':>9}{'guesses':>9}{'blind':>9}{'contact':>9}")
    for kind, t in tallies.items():
        rates = f"{t.oracle / t.scenes:9.1%}{t.guesses:9}{t.blind / t.guesses:9.1%}"
        print(f"{kind:8}{t.scenes:8}{rates}{t.contacts / t.guesses:9.1%}")
    total = add_tallies(list(tallies.values()))
    attempts = total.scenes + total.guesses
    print(
        f"{attempts} attempts in {wall_seconds:.1f} s with scene drawing and process start: "
        f"{attempts / wall_seconds:.0f} a second; "
        f"{1e3 * total.draw_seconds / total.scenes:.1f} ms of one core a scene, "
        f"{1e3 * total.attempt_seconds / attempts:.1f} ms an attempt"
    )


if __name__ == "__main__":
    chosen = tyro.cli(SurveyConfig)
    start = time.perf_counter()
    print_survey(survey(chosen), time.perf_counter() - start)
