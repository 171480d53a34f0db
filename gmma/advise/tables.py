"""Print what `gmma advise` measured and predicts."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from gmma.advise.advice import Advice
from gmma.records.console import print_table
from gmma.run.summary import format_interval

SHOWN = 3  # trees that are recommended
ASSUMPTIONS = (
    "An update moves by a length that K and M do not change, as Adam's and a clipped one do; what "
    "noise costs by curvature is left out, so that late in a run larger trees are worth more.",
    "With a rate that is tuned anew for each tree, the gain goes as the square: the last column.",
    "Scores are as large for a good thought as for a bad one. What of a thought's score goes with "
    "its value is the same share as of an answer's with its reward; the two gradients are "
    "orthogonal.",
    "The policy is that of the checkpoint, the batch as many prompts: as it learns, ask again.",
)


def print_figures(figures: Mapping[str, Any]) -> None:
    """Print what was measured of the policy."""

    def shown(name: str) -> str:
        return "not known" if figures[name] is None else format_interval(figures[name])

    counted = figures["answers_that_count"]
    print(
        f"{figures['prompts']} prompts, mean reward {shown('reward')}; {counted:.1%} of the "
        f"answers count\nreward variance between thoughts {shown('between_thoughts')}, within "
        f"thoughts {shown('within_thoughts')}"
    )
    recorded = figures["recorded"]
    if "signal_to_noise" in recorded:
        print(f"signal ÷ noise of a gradient in the run's steps: {recorded['signal_to_noise']:.3f}")
    if "step_seconds" in recorded:
        print(f"a step of the run took {recorded['step_seconds']:.3g} s (median)")


def print_advice(table: Sequence[Advice], own: str, topology: str | None) -> None:
    """Print the table, and the best few as options."""
    unit = next(tree for tree in table if tree.second_gain == 1.0)
    by_name = [*unit.signal_to_noise.items()]

    def to_noise(tree: Advice) -> str:
        pairs = [(tree.signal_to_noise[name], of_unit) for name, of_unit in by_name]
        return "/".join(f"{of / of_unit:.2g}" if of_unit > 0 else "-" for of, of_unit in pairs)

    rows = [
        [
            tree.label + (" run" if tree.label == own else ""),
            f"{tree.seconds:.3g}" + ("" if tree.timed else "*"),
            f"{tree.dead_trees:.2f}",
            to_noise(tree),
            f"{tree.step_gain:.2f}",
            "{:.2f} [{:.2f}, {:.2f}]".format(tree.second_gain, *tree.interval),
            f"{tree.tuned_gain:.2f}",
        ]
        for tree in table
    ]
    clock = "under the clock" if topology is None else f"at least, planned for {topology}"
    header = ["", "s", "dead", "S/N th/an", "a step", "a second", "tuned"]
    print_table(f"gains ÷ those of {unit.label}; seconds {clock}", header, rows)
    print("* read off the plane through the others; dead: trees without a difference")
    best, tuned = table[0], max(table, key=lambda tree: tree.tuned_gain)
    print("what a second buys most of; intervals over prompts and gradients:")
    for tree in table[:SHOWN]:
        words = "{:.2f} [{:.2f}, {:.2f}]".format(tree.second_gain, *tree.interval)
        options = f"--tree.thoughts {tree.thoughts} --tree.answers {tree.answers}"
        print(f"  {options}   {words} of {unit.label}")
    rivals = [tree.label for tree in table[1:] if tree.rivals_best]
    if rivals:
        print(f"not told apart from {best.label}: {', '.join(rivals)}")
    if tuned is not best:
        print(f"with a rate tuned anew for each tree: {tuned.label}")
    for assumption in ASSUMPTIONS:
        print(fill(f"* {assumption}", 79, subsequent_indent="  "))
