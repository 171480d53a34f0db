"""Run and sweep directories made up on the spot: what a report is tried on."""

import json
from dataclasses import replace

import numpy as np
from PIL import Image
from tiny_digits import experiment

from gmma.config import config_to_json
from gmma.run.evaluate import Evaluation, save_evaluation

HOSTILE = "</script><script>throw Error('run text became code')</script>\u2028<img src=x onerror=1>"


def write_run(directory, *, steps=(12, 20), trees=3, question=HOSTILE, name="made up <b>run</b>"):
    """A finished run with curves, two evaluations and trees; its texts are hostile."""
    directory.mkdir(parents=True)
    config = replace(experiment(), name=name)
    (directory / "config.json").write_text(json.dumps(config_to_json(config)))
    records = [record("sft", step) for step in range(steps[0])]
    records += [record("rl", steps[0] + step) for step in range(steps[1])]
    write_records(directory, records)
    for moment, quality in (("sft", 0.25), ("rl", 0.5)):
        save_evaluation(directory / "evaluation" / f"after_{moment}.json", evaluation(quality))
    for place in range(trees):
        write_sample(directory / "samples" / f"step_{place + 1:06d}", question)
    return directory


def write_untrained(directory):
    """An evaluation of a base model: no step of either phase, and so no record."""
    write_run(directory, steps=(0, 0), trees=0, name="made up base")
    config = replace(experiment(), name="made up base")
    config = replace(config, sft=replace(config.sft, steps=0), rl=replace(config.rl, steps=0))
    (directory / "config.json").write_text(json.dumps(config_to_json(config)))
    (directory / "evaluation/after_rl.json").unlink()
    return directory


def write_records(directory, records):
    """`metrics.jsonl`; what is not finite is written as Python writes it, NaN and Infinity."""
    lines = "".join(json.dumps(one) + "\n" for one in records)
    (directory / "metrics.jsonl").write_text(lines)


def record(phase, step):
    """A step's metrics; every seventh gradient is not finite."""
    norm = float("nan") if step % 7 == 6 else 1.0 + step % 3
    common = {"step": step, "phase": phase, "loss": 1 / (1 + step), "grad_norm": norm}
    common |= {"seconds/update": 0.5, "step_time": 1.0, "thought/entropy": 2.0}
    if phase == "sft":
        return common | {"num_trained_tokens": 10.0}
    held_out = {"eval_sampled/iou": step / 40} if step % 5 == 0 else {}
    rewards = {"reward": step / 40, "reward_std": float("inf"), "seconds/rollout": 0.25}
    return common | held_out | rewards | {"num_tokens": 100.0, "thought/advantage_variance": 0.5}


def evaluation(quality):
    """Eight examples around a quality."""
    values = (quality + np.linspace(-0.1, 0.1, 8)).tolist()
    return Evaluation(
        split="test",
        values={"sampled": {"iou": values}, "greedy": {"iou": values}},
        broken={"greedy": [[3, 0, f"<think>no end {HOSTILE}"]], "sampled": [[4, 1, "w" * 300]]},
    )


def write_sample(folder, question):
    """A tree of 2 × 2, its texts hostile, one answer missing, with a picture of 24 × 16."""
    folder.mkdir(parents=True)
    answers = [
        {"answer": text, "reward": 0.5, "terms": {"iou": 0.25}, "advantage": advantage}
        for text, advantage in ((None, -1.0), (question, float("nan")))
    ]
    answers[0]["written"] = f"nothing but {'w' * 200} {question}"
    thoughts = [{"thought": question, "advantage": a, "answers": answers} for a in (1.0, -1.0)]
    thoughts[1]["closed"] = False
    tree = {"id": "made/1", "question": question, "truth": [1, 2, 3], "thoughts": thoughts}
    (folder / "tree.json").write_text(json.dumps(tree))
    Image.new("RGB", (24, 16), "teal").save(folder / "image.png")


def write_sweep(directory, arms=("T4A1", "T4A4", "T16A1"), seeds=(0, 1)):
    """A sweep of small runs with its `sweep.json`; the last arm lacks what may be missing."""
    directory.mkdir(parents=True)
    runs = [
        {"arm": arm, "seed": seed, "directory": f"{arm}_seed{seed}", "done": True}
        for arm in arms
        for seed in seeds
    ]
    for run in runs[:-1]:  # the last one's files are gone
        write_run(directory / run["directory"], trees=2)
    full = [arm_record(arm, place) for place, arm in enumerate(arms)]
    full[-1] = {"label": arms[-1], "thoughts": None, "quality": None, "curve": None}
    found = {"first": arms[0], "second": arms[1], "budget": "tokens", "at": 2000.0, "seeds": 2}
    found |= {"difference": [-0.01, -0.03, 0.01], "verdict": "no difference shown"}
    sweep = {"name": "made up sweep", "command": "gmma sweep experiments/x.py"}
    sweep |= {"metric": "sampled/iou", "runs": runs, "arms": full, "comparisons": [found]}
    (directory / "sweep.json").write_text(json.dumps(sweep))
    return directory


def arm_record(label, place):
    """What `sweep.json` says of an arm."""
    thoughts, answers = map(int, label[1:].split("A"))
    quality = [0.5 + place / 50, 0.48 + place / 50, 0.52 + place / 50]
    points = [
        {"step": s, "tokens": 90.0 * s, "samples": 8.0 * s, "seconds": 1.5 * s, "quality": quality}
        for s in (0, 10, 20)
    ]
    return {
        "label": label,
        "thoughts": thoughts,
        "answers": answers,
        "seeds": [0, 1],
        "quality": quality,
        "gain": [0.1, 0.05, 0.15],
        "tokens": 2000.0,
        "seconds": 30.0,
        "step_seconds": 1.5,
        "spikes": 0.0,
        "max_spike_score": 1.5,
        "grad_norm": float("nan"),
        "thought_advantage_variance": [1 / answers, 0.9 / answers, 1.1 / answers],
        "curve": points,
    }
