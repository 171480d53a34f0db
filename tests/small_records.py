"""A few records of every task, made on the spot: what an experiment is tried on."""

import json
from dataclasses import replace
from functools import singledispatch

from tasks.records import write_manifest

from gmma.tasks.code import CodeConfig
from gmma.tasks.digits import DigitsConfig
from gmma.tasks.manifest import RecordsConfig
from gmma.tasks.manipulation.dataset import ManipulationConfig
from gmma.tasks.mathematics import MathConfig
from gmma.tasks.mixture import MixtureConfig
from gmma.tasks.sums import SumsConfig
from gmma.tasks.trajectory import TrajectoryConfig
from gmma.tasks.visual import VisualConfig
from gmma.tasks.vqa import VqaConfig

FEW_SCENES = {"train_scenes": 64, "validation_scenes": 4, "test_scenes": 4}


@singledispatch
def on_few_records(task, folder):
    """The task over a few records, which are written into the folder where it reads files."""
    raise TypeError(f"no small records of {type(task).__name__}")


@on_few_records.register
def _(task: DigitsConfig, folder):
    return replace(task, **FEW_SCENES)


@on_few_records.register
def _(task: ManipulationConfig, folder):
    return replace(task, train_scenes=5, validation_scenes=5, test_scenes=5)


@on_few_records.register
def _(task: SumsConfig, folder):
    return replace(task, train_problems=64, validation_problems=4, test_problems=4)


@on_few_records.register
def _(task: MathConfig, folder):
    rows = [
        {"question": f"What is {n} and {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"}
        for n in range(40)
    ]
    path = write_lines(folder / "sums.jsonl", rows)
    return replace(task, train_path=path, test_path=None, held_out=4)


@on_few_records.register
def _(task: CodeConfig, folder):
    rows = [
        {
            "task_id": n,
            "text": f"Write a function that adds {n}.",
            "code": f"def add(x):\n    return x + {n}",
            "test_list": [f"assert add(1) == {n + 1}"],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for n in (*range(11, 15), *range(511, 515), *range(601, 633))
    ]
    return replace(task, train_path=write_lines(folder / "adds.jsonl", rows), test_path=None)


@on_few_records.register
def _(task: MixtureConfig, folder):
    parts = []
    for part in task.parts:
        own = folder / part.title
        own.mkdir()
        parts.append(replace(part, task=on_few_records(part.task, own)))
    return replace(task, parts=tuple(parts))


@on_few_records.register
def _(task: VisualConfig, folder):
    if isinstance(task, TrajectoryConfig) and task.source == "scenes":
        return replace(task, scenes=replace(task.scenes, backgrounds=None, **FEW_SCENES))
    name = "affordance_points" if getattr(task, "form", "box") == "points" else task.name
    path = write_manifest(folder, name)
    records = RecordsConfig(train=path, validation=path, test=path, validation_share=0)
    return replace(task, records=records)


@on_few_records.register
def _(task: VqaConfig, folder):
    path = write_manifest(folder, "ocr_vqa", count=24)
    return replace(task, records=replace(task.records, train=path, validation=path, test=path))


def write_lines(path, rows):
    """Rows as JSON lines; the file's path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
