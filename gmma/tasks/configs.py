"""Shared part of all tasks' configs: a name, which finds the task.

A task's config is a frozen dataclass of its own that begins with `TaskConfig`. Its fields are read
from JSON and from the command line by the task that its name finds, gmma's or a user's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from gmma.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Fields of a task; a subclass adds its own."""

    name: str  # which task this is: one of gmma's, or your own as module:NAME
    # The system prompt of every record; None: the record's own where it brings one, or else the
    # model family's; "": the family's
    system: str | None = None
    # How to answer, behind the question, in place of the task's own words; "": nothing
    instruction: str | None = None
    # Records that do not fit the slots, or have an image that the model cannot take: an error at
    # the start, or left out of the run, which says how many were
    too_long: Literal["refuse", "leave_out"] = "refuse"


def require_asked(config: TaskConfig, explained: bool) -> None:
    """Raise UserError for an instruction that no prompt would have."""
    if config.instruction and not explained:
        raise UserError(
            f"{config.name}: instruction = {config.instruction!r:.60} with explain = "
            f"{getattr(config, 'explain', None)}, which leaves instructions out; leave explain at "
            "its default, or instruction"
        )


def read_task_config(values: object) -> TaskConfig:
    """Return the config of a task from JSON values, as the task's own dataclass.

    Raises UserError where there is no such task, or a value does not fit its field.
    """
    from gmma.tasks import find_task  # whose tasks have configs

    name = values.get("name") if isinstance(values, Mapping) else getattr(values, "name", None)
    if not isinstance(name, str):
        raise UserError(f"task: no name in {values!r:.200}; it says which task this is")
    kind = find_task(name).config
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(("task", *map(str, first["loc"])))
        raise UserError(f"{place} = {first['input']!r}: {first['msg']}") from error


def write_task_config(config: TaskConfig) -> Any:
    """Return the JSON values of a task's config, those of its own fields included."""
    if not isinstance(config, TaskConfig):
        raise UserError(
            f"task is a {type(config).__name__}; a task's config is a dataclass that begins with "
            "gmma.tasks.configs.TaskConfig"
        )
    return TypeAdapter(type(config)).dump_python(config, mode="json", warnings="none")


AnyTaskConfig = Annotated[
    TaskConfig, PlainValidator(read_task_config), PlainSerializer(write_task_config)
]
