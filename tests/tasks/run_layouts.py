"""Takes layouts through `gmma data`, `gmma train` and `gmma eval`, all in one process.

    python tests/tasks/run_layouts.py FOLDER NETWORK LAYOUT [LAYOUT …]

A layout is a file of `vqa_files.RUN`, a network `tiny` or `qwen2_5_vl`. Programs of equal shapes
are traced and compiled once, for the first layout. FOLDER/NETWORK.jsonl gets a line for each: what
the commands said, and what the network was shown. A layout that has its line is not run again.
"""

import contextlib
import io
import json
import os
import sys
from itertools import groupby
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/tasks")]

from vqa_files import RUN, write_pictures  # noqa: E402

from gmma import train  # noqa: E402
from gmma.cli import main  # noqa: E402
from gmma.run import evaluate, feed  # noqa: E402
from gmma.tasks import visual  # noqa: E402
from tests.porting.directories import write_directory  # noqa: E402

COLUMNS = ("image_size", "answer", "choices", "thought")
FILES = ("order", "frame")  # fields of a case that are of its records
EXPERIMENT = """
from dataclasses import replace
from pathlib import Path

from gmma.families.pretrained import PretrainedConfig
from gmma.rewards.terms import RewardTerm
from gmma.tasks.layouts import Keys
from gmma.tasks.vqa import VqaConfig, VqaFiles
from tiny_digits import experiment as digits


def experiment():
    at = Path({path!r})
    files = VqaFiles(train=at, validation=at, test=at, images=Path({images!r}), **{files!r})
    base = digits()
    tiny = replace(base.model, images=2)
    ported = PretrainedConfig(directory=Path({model!r}), dtype="float32")
    return replace(
        base,
        name={name!r},
        task=VqaConfig(records=files, **{fields}),
        model=tiny if {network!r} == "tiny" else ported,
        tree=replace(base.tree, prompt_tokens=256, thought_tokens=64, answer_tokens=48),
        rewards=replace(base.rewards, terms=(RewardTerm("vqa"),), workers=0),
        sft=replace(base.sft, steps=2, batch_prompts=4),
        rl=replace(base.rl, steps=2, batch_prompts=4),
        evaluation=replace(base.evaluation, examples=1, batch_prompts=1, samples=1),
        samples_every_steps=1,
    )
"""


def share_programs():
    """Let runs of equal networks and shapes use each other's programs."""
    kept = {}

    def once(make):
        def made(parts, *given):
            key = (make, parts.tokenizer.vocab_size, parts.processor.buckets, *given)
            if key not in kept:
                kept[key] = make(parts, *given)
            return kept[key]

        return made

    for module, names in (
        (train, ("make_sft_trainer", "make_rl_trainer", "make_programs")),
        (evaluate, ("make_grow",)),
    ):
        for name in names:
            setattr(module, name, once(getattr(module, name)))


def share_vocabulary():
    """Give all layouts the vocabulary of one text, so that the tiny network has one size."""
    train_it = visual.prepare_vocabulary
    words = [f"{case.question} {case.answer} {case.thought} {case.system}" for case in RUN.values()]

    def prepare(path, corpus, vocab_size, pieces):
        assert all(isinstance(text, str) for text in corpus)  # a layout's own can be read
        train_it(path, iter(words), vocab_size, pieces)

    visual.prepare_vocabulary = prepare


def marked(tokens, tokenizer):
    """The text of a prompt, with `<image>` for the tokens of each image."""
    runs = groupby(tokens, lambda token: token == tokenizer.image_token)
    return "".join("<image>" if seen else tokenizer.decode(list(run)) for seen, run in runs)


def spy_on_prompts(shown):
    """Note of every example that is laid out as a prompt what the network is shown of it."""
    lay_out = feed.batch_prompts

    def noting(examples, tokenizer, **given):
        prompts = lay_out(examples, tokenizer, **given)
        for row, example in enumerate(examples):
            tokens = np.asarray(prompts.tokens[row, : prompts.lengths[row]]).tolist()
            shown.append(
                {
                    "question": example.question,
                    "system": example.system,
                    "images": [int(image[0, 0, 0]) // 10 for image in example.images],
                    **{name: example.columns[name] for name in COLUMNS},
                    "prompt": marked(tokens, tokenizer),
                    "image_tokens": tokens.count(tokenizer.image_token),
                }
            )
        return prompts

    feed.batch_prompts = noting


def said(*arguments):
    """What a command of gmma prints, warnings too; it must end well."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main(list(arguments))
    return out.getvalue()


def run_layout(folder, network, name, shown):
    """Take a layout through the commands; return what came of each."""
    case, home = RUN[name], folder / network / name
    home.mkdir(parents=True, exist_ok=True)
    write_pictures(home)
    fields = {key: value for key, value in case.fields.items() if key not in FILES}
    (home / "mine.py").write_text(
        EXPERIMENT.format(
            path=str(case.write(home)),
            images=str(home),
            files={key: case.fields[key] for key in FILES if key in case.fields},
            fields=fields,
            model=str(folder / "model"),
            name=name,
            network=network,
        )
    )
    os.chdir(home)
    told = {"name": name}
    for command, given in (("data", "mine.py"), ("train", "mine.py"), ("eval", f"runs/{name}")):
        shown.clear()
        told[f"{command}_says"] = said(command, given)
        told[command] = [*shown]
    lines = (home / "runs" / name / "metrics.jsonl").read_text().splitlines()
    told["steps"] = [json.loads(line) for line in lines]
    (found,) = (home / "runs" / name / "evaluation").glob("test_*.json")
    told["evaluation"] = json.loads(found.read_text())
    trees = sorted((home / "runs" / name / "samples").rglob("tree.json"))
    told["tree"] = json.loads(trees[-1].read_text())
    sys.modules.pop("mine", None)
    return told


def take_all(folder, network, names):
    """Take the layouts that have no line yet."""
    folder = Path(folder).resolve()
    if network != "tiny" and not (folder / "model").exists():
        write_directory("qwen2_5_vl", folder / "model")
    path, shown = folder / f"{network}.jsonl", []
    lines = path.read_text().splitlines() if path.exists() else []
    done = {json.loads(line)["name"] for line in lines}
    share_programs()
    share_vocabulary()
    spy_on_prompts(shown)
    for name in names:
        if name not in done:
            told = run_layout(folder, network, name, shown)
            with path.open("a") as file:
                file.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    take_all(*sys.argv[1:3], sys.argv[3:])
