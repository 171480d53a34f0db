"""Compose a run's page: curves, phases, quality, gradient spikes, trees, config."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from gmma.errors import UserError
from gmma.files import RunPath, absolute, read_json
from gmma.records.diagnostics import SPIKE_SCORE
from gmma.records.metrics import RECORDS, UNSHOWN, Record, read_records
from gmma.records.resuming import CONFIG_FILE
from gmma.report.render import CURVE_VALUES, fit_trees, read_tree, thin
from gmma.run.evaluate import difference, load_evaluation, summarise
from gmma.run.summary import column_names
from gmma.sweep.arms import SWEEP_FILE
from gmma.theory import gradient_spike_score

PHASES = ("sft", "rl")
BROKEN_SHOWN = 12  # responses of the last evaluation that broke the form
PARTS = ("rollout", "reward", "update")
ROWS = 4000  # of curves, at most


def run_page(directory: RunPath) -> dict[str, Any]:
    """Return a run's page as JSON values. Raises UserError for a directory that holds no run."""
    if not (directory / CONFIG_FILE).exists():
        raise UserError(
            f"{directory} is neither a run nor a sweep: it has no {CONFIG_FILE} and no "
            f"{SWEEP_FILE}; give runs/NAME"
        )
    config = read_json(directory / CONFIG_FILE)
    name = str(config.get("name", directory.name))
    records = scored(read_records(directory / RECORDS))
    trees, logged = run_trees(directory)
    return {
        "kind": "run",
        "name": name,
        "title": name if planned_steps(config) else f"{name}, not trained",
        "trained": trained_words(config, records),
        "config": config,
        "command": repeat_command(directory, config),
        "phases": [row for phase in PHASES if (row := phase_row(phase, records))],
        "spike_limit": SPIKE_SCORE,
        "quality": quality(directory, column_names(config)),
        "curves": columns(records),
        "trees": trees,
        "trees_logged": logged,
    }


def scored(records: Sequence[Record]) -> list[Record]:
    """Return the records with `grad_spike_score` over each phase, also where an older run had none.

    Norms that are not finite are left out of the running mean and have no score.
    """
    scores: dict[int, float] = {}
    for phase in PHASES:
        places = [at for at, record in enumerate(records) if record["phase"] == phase]
        norms = [records[at].get("grad_norm", np.nan) for at in places]
        found = np.asarray(gradient_spike_score(jnp.asarray(norms, jnp.float32))).tolist()
        scores |= dict(zip(places, found, strict=True))
    return [
        {**record, "grad_spike_score": scores[place]}
        if np.isfinite(scores.get(place, np.nan))
        else {name: value for name, value in record.items() if name != "grad_spike_score"}
        for place, record in enumerate(records)
    ]


def phase_row(phase: str, records: Sequence[Record]) -> dict[str, Any] | None:
    """Steps, seconds by part, tokens and gradient spikes of a phase; None where it has no step."""
    own = [record for record in records if record["phase"] == phase]
    if not own:
        return None
    scores = np.asarray([r["grad_spike_score"] for r in own if "grad_spike_score" in r])
    tokens = "num_tokens" if phase == "rl" else "num_trained_tokens"
    return {
        "phase": phase,
        "steps": len(own),
        "seconds": {p: total(own, f"seconds/{p}") for p in PARTS},
        "seconds_all": total(own, "step_time"),
        "tokens": total(own, tokens),
        "spikes": {
            "steps": len(scores),
            "not_finite": sum("grad_norm" in record for record in own) - len(scores),
            "largest": float(scores.max()),
            "above": int((scores > SPIKE_SCORE).sum()),
            "share": float((scores > SPIKE_SCORE).mean()),
        }
        if scores.size
        else None,
    }


def total(records: Sequence[Record], name: str) -> float | None:
    """Return a metric's sum; None where no record has it."""
    held = [record[name] for record in records if name in record]
    return float(np.sum(held)) if held else None


def trained_words(config: Mapping[str, Any], records: Sequence[Record]) -> str:
    """Say how long the run has trained; of an evaluation alone, what it is of."""
    names = [str(record["phase"]).upper() for record in records]
    counts = [f"{names.count(name)} steps of {name}" for name in dict.fromkeys(names)]
    if counts:
        return f"trained for {' and '.join(counts)}"
    if planned_steps(config):
        return "no step recorded"
    origin = config.get("init_from")
    return f"not trained: {f'the parameters of {origin}' if origin else 'the base model'}"


def planned_steps(config: Mapping[str, Any]) -> int:
    """Return the steps of training that a config asks for, as JSON values."""
    return sum((config.get(phase) or {}).get("steps", 0) for phase in PHASES)


def quality(directory: RunPath, names: Mapping[str, str]) -> dict[str, Any] | None:
    """Return means with 95 % intervals before and after RL, and their paired difference.

    `names` says what the two evaluations are called.
    """
    paths = {m: directory / "evaluation" / f"after_{m}.json" for m in PHASES}
    found = {m: load_evaluation(path) for m, path in paths.items() if path.exists()}
    if not found:
        return None
    table = {names[m]: summarise(own) for m, own in found.items()}
    if len(found) == len(PHASES):
        table["difference"] = difference(found["rl"], found["sft"])
    metrics = dict.fromkeys(name for own in table.values() for name in own)
    last = list(found.values())[-1]
    broken = [one for mode in ("greedy", "sampled") for one in last.broken.get(mode, ())]
    return {
        "broken": [[row, text] for row, _, text in broken[:BROKEN_SHOWN]],
        "split": last.split,
        "examples": max((len(v) for m in last.values.values() for v in m.values()), default=0),
        "columns": list(table),
        "rows": [
            {"name": name, "figures": [own.get(name) for own in table.values()]} for name in metrics
        ],
    }


def columns(records: Sequence[Record]) -> dict[str, Any]:
    """Lay out metrics as columns over the same steps, thinned to what a page can hold."""
    names = sorted({name for record in records for name in record if name not in UNSHOWN})
    kept = thin(records, min(ROWS, CURVE_VALUES // max(1, len(names))))
    return {
        "logged": len(records),
        "step": [record["step"] for record in kept],
        "phase": [record["phase"] for record in kept],
        "metrics": {name: [record.get(name) for record in kept] for name in names},
    }


def run_trees(directory: RunPath) -> tuple[list[dict[str, Any]], int]:
    """Return the logged trees that fit, and how many were logged."""
    samples = directory / "samples"
    folders = sorted(samples.glob("step_*")) if samples.exists() else []
    trees = [
        {"step": int(folder.name.removeprefix("step_")), **tree}
        for folder in folders
        if (tree := read_tree(folder))
    ]
    return fit_trees(trees), len(trees)


def repeat_command(directory: RunPath, config: Mapping[str, Any]) -> str:
    """Return the shell lines that train the same config anew, under a name of its own."""
    saved = str(absolute(directory) / CONFIG_FILE)
    name = f"{config.get('name', directory.name)}_again"
    both = all(config.get(phase, {}).get("steps") for phase in PHASES)
    repeated = ["--repeat-sft"] if config.get("init_from") and both else []
    return "\n".join(
        [
            "cat > repeat.py <<'END'",
            "from gmma.config import config_from_json",
            "from gmma.files import read_json, run_path",
            "",
            f"PATH = run_path({saved!r})",
            "",
            "",
            "def experiment():",
            "    return config_from_json(read_json(PATH), PATH)",
            "END",
            shlex.join(["gmma", "train", "repeat.py", "--name", name, *repeated]),
        ]
    )
