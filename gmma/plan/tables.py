"""Print what `gmma plan` found: memory, work, seconds, cost, and what is fastest."""

from collections.abc import Mapping, Sequence

from gmma.config import ExperimentConfig
from gmma.plan.chips import GIB, Chip
from gmma.plan.cost import Spent, needed_programs
from gmma.plan.fastest import Choice, Tried, as_options, fits_beside, need_alone
from gmma.plan.judge import ProgramPlan
from gmma.plan.lengths import FULL_TREES, Expected
from gmma.plan.serial import SMALL_SECONDS
from gmma.records.console import print_table

BEST = 5  # choices that are shown


def gib(size: float) -> str:
    """Convert bytes to GiB."""
    return f"{size / GIB:.2f}"


def memory_row(plan: ProgramPlan) -> list[str]:
    """Return one line of the table of memory."""
    verdict = "fits" if plan.fits else "does not fit"
    parts = (plan.argument_bytes, plan.output_bytes, plan.temporary_bytes, plan.resident_bytes)
    return [
        plan.program,
        *map(gib, parts),
        gib(plan.need_bytes),
        gib(plan.usable_bytes),
        f"{plan.spare:.0%}",
        verdict,
    ]


def work_row(plan: ProgramPlan) -> list[str]:
    """Return one line of the table of work and time."""
    limit, seconds = plan.bound
    kinds = ", ".join(
        f"{kind} {gib(size)}" for kind, size in sorted(plan.sent_bytes.items()) if size > 2**20
    )
    return [
        plan.program,
        f"{plan.flops / 1e12:.4g}",
        f"{plan.hbm_traffic_bytes / GIB:.4g}",
        kinds or "under 0.01",
        f"{seconds:.3f}",
        limit,
        f"{plan.bytes_per_token / 2**20:.3g}",
        f"{plan.compile_seconds:.0f}",
    ]


def serial_row(plan: ProgramPlan) -> list[str]:
    """Return one line of the table of serial seconds."""
    serial = plan.serial
    return [
        plan.program,
        f"{serial.large:.3f}",
        f"{serial.small:.3f}",
        f"{serial.waiting:.3f}",
        f"{serial.seconds:.3f}",
        f"{serial.small_ops:,.0f}",
        f"{plan.of_peak:.1%}",
        f"{plan.mfu:.1%}",
        f"{plan.tokens_per_second:,.0f}",
    ]


def print_plans(title: str, plans: list[ProgramPlan]) -> None:
    """Print three tables, and what to do about programs that do not fit."""
    header = ["GiB a device", "arguments", "outputs", "temporaries", "beside it", "needs"]
    print_table(title, [*header, "usable", "spare", ""], [memory_row(plan) for plan in plans])
    header = ["a device", "TFLOP", "HBM GiB", "sent GiB", "s ≥", "bound by", "MiB/token"]
    print_table(title, [*header, "seconds"], [work_row(plan) for plan in plans])
    header = ["s, one after another", "large", "small", "waiting", "sum", "small ops", "of peak"]
    print_table(title, [*header, "MFU", "tokens/s"], [serial_row(plan) for plan in plans])
    for plan in (plan for plan in plans if plan.expected is not FULL_TREES):
        print(f"{plan.program}: {expected_words(plan.expected)}")
    for plan in (plan for plan in plans if not plan.fits):
        print(f"{plan.program} does not fit. Largest buffers:")
        for buffer in plan.buffers:
            print(f"  {gib(buffer.bytes)} GiB  {buffer.what}")
        print(f"  would make it smaller: {plan.advice}")
    for plan in (plan for plan in plans if plan.node_bytes):
        print(
            f"{plan.program}: {gib(plan.nodes * plan.node_bytes)} GiB of it are states of "
            f"{plan.nodes} answers, {plan.node_bytes / 2**20:.1f} MiB each, in place of keys"
        )
    for plan in (plan for plan in plans if plan.uncounted_kernels):
        print(
            f"{plan.program}: {plan.uncounted_kernels:.0f} kernel runs that do not say their cost"
        )


def expected_words(expected: Expected) -> str:
    """Say what trees of the given lengths make of a program.

    >>> expected_words(Expected(useful=0.75, row_slots=384, row_mean=370.2))
    'rows of 384 slots, where a microbatch takes 370 on average; 75% of the slots hold a token'
    """
    parts = [f"{name} ends after {turns:.0f} tokens" for name, turns in expected.turns.items()]
    if expected.row_slots is not None:
        mean = f"{expected.row_mean:.0f} on average"
        parts.append(f"rows of {expected.row_slots} slots, where a microbatch takes {mean}")
    return (
        f"{', '.join(parts)}; " * bool(parts) + f"{expected.useful:.0%} of the slots hold a token"
    )


def step_words(config: ExperimentConfig, plans: Sequence[ProgramPlan]) -> str | None:
    """Say what a step of RL takes by serial seconds, and the share of each program; None: unknown.

    All its programs must have been planned.
    """
    times = needed_programs(config).get("RL", {})
    seconds = {plan.program: plan.serial.seconds for plan in plans}
    if not times or not times.keys() <= seconds.keys():
        return None
    spent = {program: count * seconds[program] for program, count in times.items()}
    whole = sum(spent.values())
    words = f"a step of RL, one instruction after another: {whole:.3g} s"
    if (minibatches := config.rl.step_minibatches) > 1:
        words += (
            f", {whole / minibatches:.3g} s for the {config.rl.batch_prompts} prompts of an update"
        )
    return f"{words}: {shares_of(spent)}"


def row_words(config: ExperimentConfig, plans: Sequence[ProgramPlan], chip: Chip) -> str | None:
    """Say how many rows a weight is read for in decoding, beside what it takes to be worth it."""
    trees = next((plan.rows for plan in plans if plan.program == "rollout"), None)
    if trees is None:
        return None
    thoughts, answers = config.tree.thoughts, config.tree.answers
    enough = chip.peak_flops / chip.hbm_bytes  # of bfloat16: two FLOPs a row, two bytes a weight
    return (
        f"rollout: {trees * thoughts} rows a weight read while thoughts grow, "
        f"{trees * thoughts * answers} while answers do; on {chip.name} reading takes longer than "
        f"computing below {enough:.0f}"
    )


def print_choices(title: str, choices: Sequence[Choice], tried: Sequence[Tried]) -> None:
    """Print every program that was compiled, then the fastest steps whose programs all fit."""
    header = ["tried", "settings", "needs GiB", "waiting", "usable", "s, one after another"]
    rows = [
        [
            one.plan.program,
            as_options(one.changes),
            gib(need_alone(one)),
            gib(one.plan.waiting_bytes),
            gib(one.plan.usable_bytes),
            f"{one.plan.serial.seconds:.3f}" if fits_beside(one.plan, 0) else "does not fit",
        ]
        for one in tried
    ]
    print_table(title, header, rows)
    header = ["s for an update's prompts", "settings", "shares"]
    rows = [
        [f"{one.seconds:.3f}", as_options(one.changes), shares_of(one.shares)] for one in choices
    ]
    if rows:
        print_table(f"{title}, the fastest", header, rows[:BEST])
    if uncounted := sum(one.plan.uncounted_kernels > 0 for one in tried):
        print(f"{uncounted} programs have kernels that do not say their cost, and seem faster")


def shares_of(seconds: Mapping[str, float]) -> str:
    """Spell the share of each program in a step.

    >>> shares_of({"rollout": 3.0, "update": 1.0})
    'rollout 75%, update 25%'
    """
    whole = max(sum(seconds.values()), SMALL_SECONDS)
    return ", ".join(f"{program} {part / whole:.0%}" for program, part in seconds.items())


def print_costs(
    title: str, costs: Sequence[Spent], reasons: Sequence[str], price: float, chips: int
) -> None:
    """Print the table of costs, and what is not in it."""
    header = [f"at {price:g} a chip-hour, {chips} chips", "s ≥", "chip-hours ≥", "cost ≥"]
    rows = [[c.what, f"{c.seconds:,.3f}", f"{c.chip_hours:,.4g}", f"{c.cost:,.4g}"] for c in costs]
    if rows:
        print_table(title, header, rows)
    if reasons:
        print(f"no cost of the whole run: {', '.join(reasons)}")
