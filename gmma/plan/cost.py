"""Least cost of a step and of a run on a slice, from its plan and the price of a chip-hour."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gmma.config import ExperimentConfig, updates_per_step
from gmma.errors import UserError

HOUR = 3600.0  # seconds
ASSUMPTION = (
    "Costs are those of the bounds on seconds, so a run costs more. Compilation, evaluation, "
    "rewards, checkpoints and waiting are not in them."
)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Least time and cost of so many steps on a slice."""

    what: str
    seconds: float
    chip_hours: float
    cost: float  # in the unit of the price


def needed_programs(config: ExperimentConfig) -> dict[str, dict[str, int]]:
    """Return how often each program runs in one step, by phase; one without steps is left out.

    Dynamic sampling counts as one rollout, which is the least.
    """
    updates = updates_per_step(config)
    scoring = config.rl.step_minibatches if updates > 1 or config.objective.beta > 0 else 0
    steps = {
        "SFT": {"sft": 1},
        "RL": {"rollout": 1, "scoring": scoring, "update": updates},
    }
    taken = {"SFT": config.sft.steps, "RL": config.rl.steps}
    return {
        phase: {program: times for program, times in own.items() if times}
        for phase, own in steps.items()
        if taken[phase]
    }


def spend(
    config: ExperimentConfig, seconds: Mapping[str, float], chips: int, price: float
) -> Iterator[Spent]:
    """Yield the cost of one step of each phase, then that of all steps of the run.

    `seconds` has each program's least time. A phase is left out where a program of it was not
    planned, and then so is the run.
    """

    def spent(what: str, seconds: float) -> Spent:
        hours = seconds * chips / HOUR
        return Spent(what=what, seconds=seconds, chip_hours=hours, cost=hours * price)

    needed = needed_programs(config)
    steps = {"SFT": config.sft.steps, "RL": config.rl.steps}
    planned = {
        phase: sum(times * seconds[program] for program, times in own.items())
        for phase, own in needed.items()
        if own.keys() <= seconds.keys()
    }
    for phase, step in planned.items():
        yield spent(f"{phase} step", step)
    if planned and planned.keys() == needed.keys():
        words = " and ".join(f"{steps[phase]:,} {phase} steps" for phase in planned)
        yield spent(f"run of {words}", sum(steps[phase] * planned[phase] for phase in planned))


def price_of_each(prices: Sequence[float], topologies: Sequence[str]) -> list[float | None]:
    """Return the price of a chip-hour on each slice; one price is that of all, none is None.

    Raises UserError for another number of prices, and for one that is no price.
    """
    wrong = [price for price in prices if not 0 < price < float("inf")]
    if wrong:
        raise UserError(f"--price {wrong[0]}: give what one chip costs an hour, above 0")
    if len(prices) not in (0, 1, len(topologies)):
        raise UserError(
            f"{len(prices)} times --price for {len(topologies)} times --topology: give one price "
            "for all slices, or one for each in their order"
        )
    if len(prices) == len(topologies):
        return [*prices]
    return [prices[0] if prices else None] * len(topologies)
