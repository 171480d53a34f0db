"""`collect_trees`: the trees that a step trains on, grown and scored.

A step has one rollout. With dynamic sampling (DAPO, arXiv 2503.14476) a tree whose rewards do not
differ, which teaches nothing, leaves its place in the step's batch to one of a further rollout:

    first rollout       fills every place, trees that differ before the others
    further rollouts    their trees that differ take the places of trees that do not
    after the last      what does not differ stays: without advantage, with its share in the loss

Every rollout reads the next batch of the stream, and its key is folded with that batch's number: a
resumed run need know no more than the position in the data. Rewards of all hosts decide who takes
which place, on every host alike.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from gmma.hardware.hosts import fetch_rows, gather_rows, own_part
from gmma.hardware.sharding import put_batch, put_whole
from gmma.records.metrics import mean, mean_of
from gmma.rewards.service import Scorer
from gmma.run.assembly import Parts, score_batch
from gmma.run.data import ExampleBatch
from gmma.run.feed import read_prompts
from gmma.run.programs import GrownTrees, Programs
from gmma.run.samples import ScoredTrees
from gmma.scoring import ScoredRollout, rollout_metrics, trees_that_differ
from gmma.types import Advantages, Example, Metric, Params


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One rollout as the host knows it; examples and texts are this host's own."""

    examples: tuple[Example, ...]
    scored: ScoredRollout
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Places:
    """The trees of a step's batch by their places: which they are, and whether they teach."""

    row: Int[np.ndarray, "places"]  # in the first rollout; −1: a further one's
    differs: Bool[np.ndarray, "places"]  # the tree's rewards do


@dataclass(frozen=True, kw_only=True)
class Collected:
    """All that a step has grown, and which of it the step trains on."""

    grown: tuple[Growth, ...]
    places: Places | None = None  # None: on the first rollout as it is


def collect_trees(
    parts: Parts,
    grow: Callable[[ExampleBatch], tuple[GrownTrees, Growth]],
    place: Callable[..., GrownTrees],
    batches: Iterator[ExampleBatch],
) -> tuple[GrownTrees, Collected]:
    """Grow the trees of a step, of as many batches as dynamic sampling takes; one without it.

    Those that the step trains on are on the devices, one a place.
    """
    rl = parts.config.rl
    trees, first = grow(next(batches))
    if not rl.dynamic_sampling:
        return trees, Collected(grown=(first,))
    grown, fine = [first], trees_that_differ(first.scored.measured)
    row = first_rows(fine, rl.trained_prompts)
    trees, fine = place(None, trees, put_whole(row, parts.mesh)), fine[row]
    while not fine.all() and len(grown) < rl.max_rollouts:
        more, growth = grow(next(batches))
        taken = further_rows(trees_that_differ(growth.scored.measured), fine)
        trees = place(trees, more, put_whole(taken, parts.mesh))
        row, fine = np.where(taken < 0, row, -1), fine | (taken >= 0)
        grown.append(growth)
    return trees, Collected(grown=tuple(grown), places=Places(row=row, differs=fine))


def first_rows(differs: Bool[np.ndarray, "B"], places: int) -> Int[np.ndarray, "places"]:
    """Return the row of the tree that takes each place: those that differ first, each in order.

    >>> first_rows(np.array([False, True, False, True]), 3).tolist()
    [1, 3, 0]
    """
    return np.argsort(~differs, kind="stable")[:places].astype(np.int32)


def further_rows(
    differs: Bool[np.ndarray, "B"], fine: Bool[np.ndarray, "places"]
) -> Int[np.ndarray, "places"]:
    """Return the row of the tree that takes each place from one that is not fine; −1: none does.

    >>> further_rows(np.array([False, True, True]), np.array([True, False, False, False])).tolist()
    [-1, 1, 2, -1]
    """
    rows = np.full(fine.shape, -1, np.int32)
    free, found = np.flatnonzero(~fine), np.flatnonzero(differs)
    count = min(len(free), len(found))
    rows[free[:count]] = found[:count]
    return rows


def grow_trees(
    parts: Parts,
    programs: Programs,
    scorer: Scorer,
    params: Params,
    step: int,
    batch: ExampleBatch,
) -> tuple[GrownTrees, Growth]:
    """Grow a tree for each prompt of a batch, and score its answers; so many steps are done."""
    started = time.monotonic()
    prompts = put_batch(read_prompts(parts, batch.examples), parts.mesh)
    prompts = programs.see(params, prompts)
    rollout = programs.grow(params, prompts, put_whole(np.uint32(batch.number), parts.mesh))
    held = fetch_rows(rollout, parts.mesh)
    grown = time.monotonic()
    scored = score_batch(parts, scorer, batch.examples, held, step)
    seconds = {"rollout": grown - started, "reward": time.monotonic() - grown}
    rewards, counted = put_batch((scored.scores.rewards, scored.counted), parts.mesh)
    trees = GrownTrees(prompts=prompts, rollout=rollout, rewards=rewards, counted=counted)
    return trees, Growth(examples=batch.examples, scored=scored, seconds=seconds)


def collected_metrics(collected: Collected) -> dict[str, Metric]:
    """Measure all trees that a step has grown, and what dynamic sampling did with them."""
    every = [growth.scored.measured for growth in collected.grown]
    measured = jax.tree.map(lambda *rows: np.concatenate(rows), *every)
    metrics = rollout_metrics(measured)
    if collected.places is None:
        return metrics
    fine, found = collected.places.differs, trees_that_differ(measured).sum()
    return metrics | {
        "dynamic_sampling/rollouts": mean(len(every), 1),
        "dynamic_sampling/frac_zero_std_kept": mean_of(1.0 - fine),
        "dynamic_sampling/trees_unused": mean(found - fine.sum(), 1),
    }


def spent_seconds(collected: Collected) -> dict[str, float]:
    """Return the seconds of all rollouts of a step, by part."""
    every = [growth.seconds for growth in collected.grown]
    return {part: sum(seconds[part] for seconds in every) for part in every[0]}


def shown_trees(collected: Collected, advantages: Advantages, mesh: Mesh) -> ScoredTrees:
    """Fetch what `samples/` shows: this host's trees of the first rollout."""
    first = collected.grown[0]
    return ScoredTrees(
        examples=first.examples,
        scored=first.scored,
        advantages=fetch_credit(collected, advantages, mesh),
    )


def fetch_credit(collected: Collected, advantages: Advantages, mesh: Mesh) -> Advantages:
    """Fetch the credit of this host's trees of the first rollout; 0 of those without a place."""
    held = fetch_rows(advantages, mesh)
    if collected.places is None:
        return held
    rows, row = len(collected.grown[0].scored.measured.counted), collected.places.row

    def put_back(values: Float[np.ndarray, "places *rest"]) -> Float[np.ndarray, "b *rest"]:
        whole = np.zeros((rows, *values.shape[1:]), values.dtype)
        whole[row[row >= 0]] = values[row >= 0]
        return own_part(whole)

    return jax.tree.map(put_back, gather_rows(held, mesh))
