"""The model that `gmma eval` and `gmma sample` look at: a run's, or a Hugging Face directory's."""

from dataclasses import replace
from pathlib import Path

import jax

from gmma.config import (
    EvalConfig,
    ExperimentConfig,
    LaunchConfig,
    MeshConfig,
    PhaseConfig,
    RewardConfig,
    RLConfig,
    TreeConfig,
)
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.files import RunPath, check_bucket, read_json
from gmma.options.arguments import DirectoryOptions, SlotOptions
from gmma.records.resuming import CONFIG_FILE
from gmma.rewards.terms import RewardTerm
from gmma.run.assembly import HostParts, Parts, assemble, assemble_host, in_frame
from gmma.run.data import prompt_row
from gmma.tasks.configs import TaskConfig
from gmma.tasks.question import QUESTION, QuestionConfig
from gmma.types import Example

SLOTS_STEP = 32  # prompts get slots in multiples of this, for fewer compilations
DIRECTORY_TREE = TreeConfig(prompt_tokens=512, thought_tokens=256, answer_tokens=64)
EVALUATED = Path("evaluated")  # where what is written about a directory goes, in a folder each


def is_model_directory(path: RunPath, options: DirectoryOptions) -> bool:
    """Return whether a path is a Hugging Face directory: its config.json is no run's.

    One with an architecture of the user's own is what its options say. On the Hub there are no
    runs.
    """
    if str(path).startswith("hf://"):
        return True
    check_bucket(path)
    saved = path / CONFIG_FILE
    if not saved.is_file():
        return False
    values = read_json(saved)
    known = "model_type" in values or "architectures" in values
    return "task" not in values and (known or options.architecture is not None)


def directory_config(
    path: RunPath, options: DirectoryOptions, other: ExperimentConfig | None, task: TaskConfig
) -> ExperimentConfig:
    """Return a directory as an experiment that trains nothing.

    Task, tree, rewards and evaluation are those of `other`; without it the tree has slots for a
    few hundred tokens, and the form is all that is rewarded.
    """
    place = Path(str(path))  # of a bucket too, whose own paths have another form within
    model = PretrainedConfig(
        directory=place,
        architecture=options.architecture,
        thinking=options.thinking,
        dtype=options.dtype or "bfloat16",
    )
    name = place.resolve().name
    sft, rl = PhaseConfig(steps=0, batch_prompts=1), RLConfig(steps=0, batch_prompts=1)
    spread = LaunchConfig(mesh=MeshConfig(data=1, fsdp=-1))
    if other is None:
        return ExperimentConfig(
            name=name,
            task=task,
            model=model,
            tree=DIRECTORY_TREE,
            rewards=RewardConfig(terms=(RewardTerm("format"),)),
            sft=sft,
            rl=rl,
            evaluation=EvalConfig(batch_prompts=32),
            launch=spread,
        )
    launch = replace(spread, data_dir=other.launch.data_dir)
    own = other.model
    if isinstance(own, PretrainedConfig):  # how images are seen belongs to the experiment
        model = replace(
            model,
            min_pixels=own.min_pixels,
            max_pixels=own.max_pixels,
            pan_and_scan=own.pan_and_scan,
        )
    return replace(other, name=name, model=model, sft=sft, rl=rl, init_from=None, launch=launch)


def suited(config: ExperimentConfig, options: DirectoryOptions) -> ExperimentConfig:
    """Return a directory's config with the type that suits the devices, unless one was given."""
    assert isinstance(config.model, PretrainedConfig)
    if options.dtype is None and jax.default_backend() == "cpu":
        return replace(config, model=replace(config.model, dtype="float32"))
    return config


def with_slots(config: ExperimentConfig, slots: SlotOptions) -> ExperimentConfig:
    """Return a config with the given slots of its tree."""
    given = {name: value for name, value in vars(slots).items() if value is not None}
    return replace(config, tree=replace(config.tree, **given))


def question_parts(
    config: ExperimentConfig, question: QuestionConfig, prompt_tokens: int | None
) -> Parts:
    """Assemble a config's model before a question, with as many prompt slots as that needs.

    The question has the system prompt and the instruction that the config's task has from its
    config, and the tiny family keeps the vocabulary of its own task. UserError for a question that
    the model cannot be asked.
    """
    own = config.task
    system = own.system if question.system is None else question.system
    question = replace(question, system=system, instruction=own.instruction)
    host: HostParts | Parts
    if isinstance(config.model, PretrainedConfig):
        config = replace(config, task=question)
        host = assemble_host(config)
    else:
        host = assemble(config)
        config = replace(config, task=question)
        host = replace(host, config=config, task=QUESTION)
    slots = prompt_tokens or slots_for(host, asked_question(host))
    config = with_slots(config, SlotOptions(prompt_tokens=slots))
    return replace(host, config=config) if isinstance(host, Parts) else assemble(config)


def slots_for(parts: HostParts, example: Example) -> int:
    """Return as many prompt slots as an example needs, and a few more."""
    row, _ = prompt_row(example, parts.tokenizer, parts.processor, parts.template)
    return -(-len(row) // SLOTS_STEP) * SLOTS_STEP


def asked_question(parts: HostParts) -> Example:
    """Return the question of these parts as it is asked."""
    return in_frame(parts, parts.task.source(parts.config.task, Path(), "test")[0])


def refuse_for_run(path: RunPath, options: DirectoryOptions) -> None:
    """Raise UserError for options of a directory that are given with a run."""
    given = [f"--{name}" for name, value in vars(options).items() if value is not None]
    if given:
        raise UserError(
            f"{', '.join(given)} with {path}, which is a run and has its own; leave it away, or "
            "give a Hugging Face directory"
        )
