"""Try a user's own task on its first examples before a run writes anything."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gmma.errors import UserError
from gmma.rewards.terms import RESERVED
from gmma.run.objective_trial import own_code
from gmma.tasks import TASKS
from gmma.tasks.configs import TaskConfig
from gmma.tasks.task import Task
from gmma.types import Example


def try_task(task: Task[Any], config: TaskConfig, examples: Sequence[Example]) -> None:
    """Raise UserError for examples or metrics of a user's own task that no run could use."""
    if config.name in TASKS:
        return
    what = f"task '{config.name}'"
    columns = examples[0].columns.keys()
    for example in examples:
        if example.columns.keys() != columns:
            raise UserError(
                f"{what}: {example.id} has the columns {', '.join(sorted(example.columns))}, "
                f"{examples[0].id} {', '.join(sorted(columns))}; give all the same, None for none"
            )
    if taken := sorted(RESERVED & columns):
        raise UserError(f"{what}: gmma gives {', '.join(taken)} itself; rename the column")
    with own_code(f"{what}: metrics"):
        found = task.metrics(config, [""] * len(examples), list(examples))
    for name in (task.headline, "parsed"):
        if name not in found:
            raise UserError(
                f"{what}: metrics gave {', '.join(sorted(found)) or 'nothing'}, and no {name!r}; "
                "every task has `parsed`, and the one that its `headline` names"
            )
    for name, values in found.items():
        if np.shape(values) != (len(examples),):
            raise UserError(
                f"{what}: metric {name!r} has shape {np.shape(values)} for {len(examples)} "
                "answers; give one number an answer"
            )
