"""`docs/your_own_data.md` as a user follows it: its files, its commands, in its order.

Only the model is a tiny one of random weights, at the path that the page names.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.porting.directories import write_directory

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "your_own_data.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
THINGS = ("wren", "stone", "cork", "ant", "spoon", "river", "lamp", "plum", "bell", "shoe")
GMMA = [sys.executable, "-m", "gmma"]


def write_records(path: Path, shown: str) -> None:
    """The page's two records and 58 more, of which nine have a thought."""
    rows = shown.splitlines()
    for number in range(58):
        first, second = THINGS[number % 10], THINGS[(number // 10 + number + 1) % 10]
        row = {
            "question": f"Which of these has the longer name, number {number}?",
            "choices": [first, second],
            "answer": "AB"[len(second) > len(first)],
        }
        if number < 9:
            row["thought"] = f"{first} has {len(first)} letters, {second} has {len(second)}."
        rows.append(json.dumps(row))
    path.write_text("\n".join(rows) + "\n")


def test_the_page_is_short_and_has_each_step() -> None:
    assert sum(len(text.splitlines()) for _, text in BLOCKS) < 60
    commands = " ".join(line for kind, text in BLOCKS if kind == "sh" for line in text.split())
    for verb in ("data", "train", "sample", "eval", "sweep", "report", "port export"):
        assert f"gmma {verb}" in commands
    assert [kind for kind, _ in BLOCKS].count("python") == 3


@pytest.mark.slow
def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    write_directory("llama", tmp_path / "models" / "your-model")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    # Programs are compiled in a hurry, and once for the runs, the sweep and whoever tests again.
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    environment["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".jax_cache")
    for kind, text in BLOCKS:
        if kind == "json":
            write_records(tmp_path / "records.jsonl", text)
        if kind == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, text
            (tmp_path / name[1]).write_text(text)
        for line in text.splitlines() if kind == "sh" else ():
            program, *arguments = shlex.split(line)
            if program == "python" and not all(map(find_spec, ("torch", "transformers", "peft"))):
                continue
            command = [*GMMA, *arguments] if program == "gmma" else [sys.executable, *arguments]
            ran = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
            if program == "python":
                assert "a wren" in ran.stdout
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 8
    records = (tmp_path / "runs/mine_brief/metrics.jsonl").read_text().splitlines()
    assert all("rewards/brevity:brief/mean" in json.loads(record) for record in records)
    assert len(records) == 20
    for page in ("mine", "answers"):
        assert "<html" in (tmp_path / "runs" / page / "report.html").read_text()
    arms = json.dumps(json.loads((tmp_path / "runs/answers/sweep.json").read_text()))
    assert "answers=1" in arms
    assert "answers=2" in arms
