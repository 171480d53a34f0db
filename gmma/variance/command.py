"""`gmma variance [RUN_DIR]`: does the variance of the thought advantage fall as the paper says.

Three curves over M: (a) the delta-method formula, (b) simulated trees with the same means and
variances, (c) a real policy's thoughts, fixed, whose answers are sampled again. Without a run (a)
and (b) alone, for thoughts whose means are spread evenly or given.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gmma.commands import load_run, placed, use_compilation_cache
from gmma.errors import UserError
from gmma.files import RunPath, check_output, write_whole
from gmma.intervals import mean_interval
from gmma.options.arguments import Law, VarianceArguments
from gmma.records.checkpoint import find_step
from gmma.records.console import print_table
from gmma.records.diagnostics import thought_noise
from gmma.run.assembly import assemble
from gmma.run.feed import read_examples
from gmma.run.reward_pool import sample_pool, scored_prompts
from gmma.run.state import load_params
from gmma.run.summary import format_interval
from gmma.theory import thought_advantage_variance
from gmma.variance.plot import plot_variance
from gmma.variance.simulation import resampled, simulated_variance, variance_between_parts

SPREAD = (0.2, 0.8)  # of evenly spaced means


def variance_command(given: VarianceArguments) -> None:
    """Tables on screen; `variance.json` and `variance.png` in the output directory."""
    home = given.output or (given.run_dir or Path()) / "variance"
    if given.run_dir is not None:
        load_run(given.run_dir)
        find_step(given.run_dir, given.step)
    check_output("output", home, directory=True)
    record: dict[str, Any] = {"against_thoughts": against_thoughts(given)}
    print_thoughts(record["against_thoughts"])
    if given.run_dir is None:
        record["against_answers"] = given_curve(given)
    else:
        record["against_answers"] = measured_curve(given, given.run_dir)
    print_answers(record["against_answers"])
    write_whole(home / "variance.json", json.dumps(record, indent=1))
    plot_variance(record, home / "variance.png")
    print(f"every figure: {home / 'variance.json'}; plot: {home / 'variance.png'}")


def slope(answers: Sequence[int], values: Sequence[float]) -> float | None:
    """Fit the slope of log variance against log M; −1 is the paper's leading-order rate."""
    if len(answers) < 2 or min(values) <= 0:
        return None
    return float(np.polyfit(np.log(answers), np.log(values), 1)[0])


def simulate(
    given: VarianceArguments, means: Array, variances: Array, answers: int, law: Law
) -> Float[Array, "K"]:
    """Simulate with a key of its own for each M."""
    key = jax.random.fold_in(jax.random.key(given.seed), answers)
    count = jnp.asarray(answers, jnp.int32)
    return simulated_variance(key, means, variances, count, trees=given.trees, law=law)


def spread_means(count: int) -> Float[Array, "K"]:
    """Space means evenly from 0.2 to 0.8."""
    return jnp.linspace(*SPREAD, count)


def against_thoughts(given: VarianceArguments) -> dict[str, Any]:
    """Compute variances for evenly spread means and rewards of 0 and 1: more thoughts, fixed M."""
    answers = 64  # where the formula is of use
    rows = []
    for count in given.thoughts_grid:
        means = spread_means(count)
        variances = means * (1 - means)
        floor = variances.mean() / (answers * means.var())
        formula = thought_advantage_variance(means, variances, answers).mean()
        monte_carlo = simulate(given, means, variances, answers, "gaussian").mean()
        rows.append([count, float(formula), float(monte_carlo), float(floor)])
    names = ("thoughts", "formula", "simulated", "floor")
    return {"answers": answers, **dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))}


def given_curve(given: VarianceArguments) -> dict[str, Any]:
    """Compute (a) and (b) for the means of the command line, or four that are spread evenly."""
    means = jnp.asarray(given.means) if given.means else spread_means(given.thoughts or 4)
    variances = jnp.asarray(given.variances) if given.variances else means * (1 - means)
    if given.law == "bernoulli" and given.variances:
        raise UserError("rewards of 0 and 1 have variance μ(1 − μ); give --law gaussian")
    formula = [float(thought_advantage_variance(means, variances, m).mean()) for m in given.answers]
    simulated = [
        float(simulate(given, means, variances, m, given.law).mean()) for m in given.answers
    ]
    return {
        "answers": list(given.answers),
        "means": means.tolist(),
        "variances": variances.tolist(),
        "formula": formula,
        "simulated": simulated,
        "slopes": {
            "formula": slope(given.answers, formula),
            "simulated": slope(given.answers, simulated),
        },
    }


def thoughts_differ(pool: Float[np.ndarray, "B K n"]) -> Bool[np.ndarray, "B"]:
    """Return the prompts whose thoughts are not all worth the same in the pool."""
    return np.ptp(pool.mean(axis=2), axis=1) > 1e-6


def live_prompts(pool: Float[np.ndarray, "B K n"]) -> Float[np.ndarray, "b K n"]:
    """Keep the prompts whose thoughts differ in the pool at all."""
    live = pool[thoughts_differ(pool)]
    if not len(live):
        raise UserError(f"all thoughts of each of {len(pool)} prompts are worth the same")
    return live


def measured_curve(given: VarianceArguments, run_dir: RunPath) -> dict[str, Any]:
    """Compute (c), with (a) and (b) at the means and variances of the same pools, by prompt.

    The pool stands for the law of the rewards in all three; its noise spreads the thoughts further
    apart than they are. `apart` measures again without that, from disjoint parts of the pool.

    Prompts whose thoughts are all worth the same in the pool are left out and counted: the formula
    has nothing to say of them, and any advantage of theirs is noise.
    """
    config = placed(load_run(run_dir), given.launch)
    use_compilation_cache(config)
    parts = assemble(config)
    sampled = sample_pool(
        parts,
        load_params(parts, run_dir, given.step),
        read_examples(parts, given.split, given.examples),
        thoughts=given.thoughts or config.tree.thoughts,
        answers=given.pool,
        seed=given.seed,
    ).rewards
    pool = scored_prompts(sampled)
    live = live_prompts(pool)
    means, variances = (jnp.asarray(x) for x in (live.mean(axis=2), live.var(axis=2)))
    drawn = resampled(
        jax.random.key(given.seed), jnp.asarray(pool), answers=given.answers, replicates=1000
    )
    formula = jax.vmap(partial(thought_advantage_variance, answers=1))
    each = max(1000, given.trees // len(live))
    smaller = replace(given, trees=each)

    def simulated(answers: int) -> Float[np.ndarray, "B"]:
        pairs = zip(means, variances, strict=True)
        return np.asarray([simulate(smaller, m, v, answers, "gaussian").mean() for m, v in pairs])

    by_prompt = {
        "measured": np.asarray(drawn.variance)[thoughts_differ(pool)].T,
        "formula": np.asarray([formula(means, variances / m).mean(axis=1) for m in given.answers]),
        "simulated": np.asarray([simulated(m) for m in given.answers]),
    }
    curves = {
        name: [list(mean_interval(row)) for row in values] for name, values in by_prompt.items()
    }
    corrected = thought_noise(pool)["reward_variance/between_thoughts_corrected"]
    return {
        "run": str(run_dir),
        "prompts": len(pool),
        "unscored_prompts": len(sampled) - len(pool),
        "live_prompts": len(live),
        "noisy_prompts": count_noisy(live),
        "thoughts": pool.shape[1],
        "pool": pool.shape[2],
        "answers": list(given.answers),
        **curves,
        "apart": [in_parts(live, answers) for answers in given.answers],
        "medians": {name: np.median(v, axis=1).tolist() for name, v in by_prompt.items()},
        "slopes": {
            name: slope(given.answers, [mean for mean, _, _ in curve])
            for name, curve in curves.items()
        },
        "dead_trees": np.asarray(drawn.dead_trees).mean(axis=0).tolist(),
        "dead_thoughts": np.asarray(drawn.dead_thoughts).mean(axis=0).tolist(),
        "between_thoughts": list(mean_interval(corrected)),
        "within_thoughts": list(mean_interval(pool.var(axis=2, ddof=1).mean(axis=1))),
    }


def in_parts(pool: Float[np.ndarray, "B K n"], answers: int) -> list[float] | None:
    """Return the variance between disjoint parts of the pool, with interval; None with one part."""
    if 2 * answers > pool.shape[2]:
        return None
    by_prompt = variance_between_parts(jnp.asarray(pool), answers=answers)
    return list(mean_interval(np.asarray(by_prompt)))


def count_noisy(pool: Float[np.ndarray, "B K n"]) -> int:
    """Count prompts whose spread of pooled thought values is below twice that of noise alone."""
    noise = pool.var(axis=2, ddof=1).mean(axis=1) / pool.shape[2]
    return int((pool.mean(axis=2).var(axis=1, ddof=1) < 2 * noise).sum())


def print_thoughts(found: dict[str, Any]) -> None:
    """Print variance against K."""
    columns = (found[name] for name in ("thoughts", "formula", "simulated", "floor"))
    rows = [
        [f"{k}", f"{a:.5f}", f"{b:.5f}", f"{c:.5f}"] for k, a, b, c in zip(*columns, strict=True)
    ]
    title = f"Var A(th), means spread over {SPREAD}, variances μ(1 − μ), M = {found['answers']}"
    print_table(title, ["K", "formula", "simulated", "σ²/(M S²), K → ∞"], rows)


def print_answers(found: dict[str, Any]) -> None:
    """Print variance against M, and the components of a run's rewards."""
    names = [name for name in ("measured", "formula", "simulated") if name in found]
    rows = []
    for at, answers in enumerate(found["answers"]):
        shown = [found[name][at] for name in names]
        row = [f"{answers}", *map(show, shown)]
        if "measured" in found:
            row.append(show(found["apart"][at]) if found["apart"][at] else "-")
            row += [f"{found['medians'][name][at]:.4f}" for name in names]
            row += [f"{found[name][at]:.3f}" for name in ("dead_trees", "dead_thoughts")]
        rows.append(row)
    header = ["M", *names]
    if "measured" in found:
        header += ["in parts", *(f"{name}, median" for name in names)]
        header += ["dead trees", "dead thoughts"]
    print_table("variance of the thought advantage", header, rows)
    for name in names:
        if found["slopes"][name] is not None:
            print(f"slope of log variance against log M, {name}: {found['slopes'][name]:.2f}")
    if "measured" in found:
        print(
            f"{found['unscored_prompts']} prompts are left out: an answer could not be scored\n"
            f"{found['live_prompts']} of {found['prompts']} prompts have thoughts that differ in "
            f"{found['pool']} answers each; the others are in the shares of dead groups alone\n"
            f"in {found['noisy_prompts']} of them the spread of the pool's thought values is below "
            "twice its noise\n"
            f"reward variance between thoughts {format_interval(found['between_thoughts'])}, "
            f"within thoughts {format_interval(found['within_thoughts'])}"
        )


def show(value: float | list[float]) -> str:
    """Format a figure, with its interval where it has one."""
    return f"{value:.5f}" if isinstance(value, float) else "{:.4f} [{:.4f}, {:.4f}]".format(*value)
