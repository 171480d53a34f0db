"""A sweep's tables: on the screen, and as a Markdown page to keep."""

from collections.abc import Callable, Sequence
from typing import Any

from gmma.records.console import print_table
from gmma.records.diagnostics import SPIKE_SCORE
from gmma.run.summary import format_interval

Table = tuple[list[str], list[list[str]]]  # header, rows
Columns = dict[str, Callable[[dict[str, Any]], str]]
ABSENT = "–"  # a metric that the arm's runs do not have: M = 1 has no variance within a thought


def mean_of(metric: str) -> Callable[[dict[str, Any]], str]:
    """Return a metric's mean over an arm's steps and seeds, ± its standard error over seeds."""

    def cell(arm: dict[str, Any]) -> str:
        if metric not in arm["means"]:
            return ABSENT
        error = arm["standard_errors"].get(metric)
        return f"{arm['means'][metric]:.3g}" + ("" if error is None else f" ± {error:.2g}")

    return cell


SHORT: Columns = {
    "arm": lambda arm: arm["label"],
    "seeds": lambda arm: str(len(arm["seeds"])),
    "quality": lambda arm: format_interval(arm["quality"]),
    "gain": lambda arm: format_interval(arm["gain"]),
    "tokens": lambda arm: f"{arm['tokens']:.3g}",
    "s/step": lambda arm: f"{arm['step_seconds']:.3f}",
    "grad norm": mean_of("grad_norm"),
    "worst spike": lambda arm: f"{arm['max_spike_score']:.2f}",
    f"> {SPIKE_SCORE:g}": lambda arm: f"{arm['spikes']:.3g}",
    "not finite": lambda arm: f"{arm['not_finite']:.3g}",
}
LONG: Columns = {
    **SHORT,
    "tokens of a thought": mean_of("thought/completions/mean_length"),
    "of an answer": mean_of("answer/completions/mean_length"),
    "trees of equal rewards": mean_of("frac_reward_zero_std"),
    "rollout s": mean_of("seconds/rollout"),
    "reward s": mean_of("seconds/reward"),
    "update s": mean_of("seconds/update"),
    "Var A(th), online": mean_of("thought/advantage_variance"),
    "reward variance within": mean_of("reward_variance/within_thoughts"),
    "between": mean_of("reward_variance/between_thoughts_corrected"),
    "signal": mean_of("gradient/signal_power"),
    "noise": mean_of("gradient/noise_power"),
}


def arms_table(record: dict[str, Any], columns: Columns) -> Table:
    """Return one row an arm."""
    return list(columns), [[cell(arm) for cell in columns.values()] for arm in record["arms"]]


def comparisons_table(record: dict[str, Any]) -> Table:
    """Return one row a comparison: a pair of arms at one budget, with its verdict in words."""
    rows = [
        [
            f"{found['first']} − {found['second']}",
            at_words(found),
            format_interval(found["difference"]),
            found["verdict"],
        ]
        for found in record["comparisons"]
    ]
    return ["", "at", "difference", "verdict"], rows


def budgets_table(record: dict[str, Any]) -> Table:
    """Return one row a pair of arms, one column a budget."""
    pairs: dict[str, dict[str, str]] = {}
    for found in record["comparisons"]:
        row = pairs.setdefault(f"{found['first']} − {found['second']}", {})
        row["seeds"] = str(found["seeds"])
        row[found["budget"]] = format_interval(found["difference"])
    columns = list(dict.fromkeys(name for row in pairs.values() for name in row))
    return ["", *columns], [[pair, *(row[c] for c in columns)] for pair, row in pairs.items()]


def at_words(found: dict[str, Any]) -> str:
    """Word a budget: `equal tokens, 2.4e+05`."""
    if found["at"] is None:
        return "end, test split" if found["budget"] == "end" else found["budget"]
    return f"equal {found['budget']}, {found['at']:.3g}"


def quality_words(record: dict[str, Any]) -> str:
    """Say what quality is, and how it is given."""
    metric = f"{record['name']}: {record['metric']} of the test split"
    return f"{metric}, mean [95 % interval over seeds and examples]"


def verdict_words(record: dict[str, Any]) -> str:
    """Say how much to trust so many verdicts at once."""
    return (
        f"{len(record['comparisons'])} comparisons, each at 95 % on its own: "
        "of 20 where nothing differs, about one is said to differ; of one seed an interval is over "
        "examples alone"
    )


def done_words(record: dict[str, Any]) -> str:
    """Word the progress: `47 of 75 runs are done`."""
    return f"{sum(run['done'] for run in record['runs'])} of {len(record['runs'])} runs are done"


def print_sweep(record: dict[str, Any]) -> None:
    """Print arms, then comparisons."""
    print_table(quality_words(record), *arms_table(record, SHORT))
    if record["comparisons"]:
        print_table("paired differences, by seed and by example", *comparisons_table(record))
        print(verdict_words(record))
    print(done_words(record))


def sweep_markdown(record: dict[str, Any]) -> str:
    """Return the page: the command, every column of every arm, pairs by budget, verdicts."""
    parts = [
        f"# {record['name']}",
        f"    {record['command']}",
        f"{quality_words(record)}; {done_words(record)}. Spikes, variances, seconds and powers are"
        " means over seeds; `docs/method.md` defines them.",
        markdown_table(*arms_table(record, LONG)),
    ]
    if record["comparisons"]:
        parts += [
            "Paired differences: `end` on the test split, equal budgets on the validation split.",
            markdown_table(*budgets_table(record)),
            markdown_table(*comparisons_table(record)),
            f"{verdict_words(record)}.",
        ]
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; a bar inside of a cell is escaped.

    >>> print(markdown_table(["a", "b"], [["1", "x|y"]]))
    | a | b |
    | --- | --- |
    | 1 | x\\|y |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
