"""Compose a sweep's page: `sweep.json`, gradient norms and a late tree of every run."""

from typing import Any

from gmma.files import RunPath, read_json
from gmma.records.metrics import RECORDS, read_records
from gmma.report.render import fit_trees, read_tree, thin
from gmma.sweep.arms import SWEEP_FILE

NORM_ROWS = 300  # of a run's gradient norms, at most


def sweep_page(directory: RunPath) -> dict[str, Any]:
    """Return a sweep's page as JSON values; runs whose files are not there are left out."""
    record = read_json(directory / SWEEP_FILE)
    runs = [run for run in record.get("runs") or [] if run.get("directory")]
    trees = [tree for run in runs if (tree := late_tree(directory, run))]
    kept = fit_trees(trees)
    return {
        "kind": "sweep",
        "name": str(record.get("name") or directory.name),
        "command": record.get("command"),
        "sweep": record,
        "norms": [norms for run in runs if (norms := gradient_norms(directory, run))],
        "trees": kept,
        "trees_logged": len(trees),
    }


def gradient_norms(directory: RunPath, run: dict[str, Any]) -> dict[str, Any] | None:
    """Return a run's gradient norms of its last phase, thinned.

    Steps count from the phase's first.
    """
    records = [r for r in read_records(directory / run["directory"] / RECORDS) if "grad_norm" in r]
    if not records:
        return None
    own = [r for r in records if r["phase"] == records[-1]["phase"]]
    first = own[0]["step"]
    kept = thin([{"step": r["step"] - first, "grad_norm": r["grad_norm"]} for r in own], NORM_ROWS)
    return {
        "arm": run.get("arm"),
        "seed": run.get("seed"),
        "step": [r["step"] for r in kept],
        "grad_norm": [r.get("grad_norm") for r in kept],
    }


def late_tree(directory: RunPath, run: dict[str, Any]) -> dict[str, Any] | None:
    """Return the last logged tree of a run."""
    samples = directory / run["directory"] / "samples"
    folders = sorted(samples.glob("step_*")) if samples.exists() else []
    tree = read_tree(folders[-1]) if folders else None
    if tree is None:
        return None
    step = int(folders[-1].name.removeprefix("step_"))
    return {"arm": run.get("arm"), "seed": run.get("seed"), "step": step, **tree}
