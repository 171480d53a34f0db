"""The body of each command, between its arguments and the functions of the package."""

import dataclasses
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any, TypeVar

import jax
import numpy as np
from rich.console import Console

from gmma.config import (
    EvalConfig,
    ExperimentConfig,
    HostsConfig,
    MeshConfig,
    config_from_json,
    job_to_json,
    launch_from_json,
    options_to_json,
    with_launch,
)
from gmma.errors import UserError, printable
from gmma.files import RunPath, absolute, check_bucket, check_output, read_json, write_whole
from gmma.hardware import hosts
from gmma.hardware.sharding import (
    count_slices,
    make_mesh,
    mesh_sizes,
    put_batch,
    rollout_mesh,
)
from gmma.options.arguments import (
    PROGRAMS,
    DirectoryOptions,
    EvalArguments,
    SampleArguments,
    SlotOptions,
    parse_steps,
)
from gmma.options.checks import SPLITS
from gmma.options.launch import LaunchOverride, MeshOverride
from gmma.options.parsing import split_experiment
from gmma.plan.command import plan_experiment
from gmma.plan.lengths import length_model
from gmma.records.checkpoint import find_step
from gmma.records.console import print_table, say
from gmma.records.resuming import CONFIG_FILE, LAUNCH_FILE
from gmma.remote.copies import here
from gmma.run.assembly import (
    HostParts,
    Parts,
    assemble,
    assemble_host,
    own_terms,
    run_scorer,
    score_batch,
)
from gmma.run.benchmarks import (
    ALL,
    BenchmarkResult,
    build_dataset,
    choose_benchmarks,
    default_config,
    results_to_json,
    run_benchmark,
)
from gmma.run.data import example_batches
from gmma.run.data_report import fit_lines, length_lines, measure_split, prompt_lines
from gmma.run.evaluate import grow_examples, open_judge, save_evaluation
from gmma.run.feed import in_frame, read_prompts
from gmma.run.lines import Line, PlanArguments, TrainArguments, difference_lines, parse_experiment
from gmma.run.origin import from_origin
from gmma.run.programs import make_credit, make_grow
from gmma.run.samples import (
    ScoredTrees,
    print_tree,
    text_record,
    tree_record,
    write_record,
    write_tree,
)
from gmma.run.sources import source_facts, with_copies
from gmma.run.state import load_params
from gmma.run.subject import (
    EVALUATED,
    asked_question,
    directory_config,
    is_model_directory,
    question_parts,
    refuse_for_run,
    slots_for,
    suited,
    with_slots,
)
from gmma.run.summary import format_interval
from gmma.scoring import read_texts
from gmma.tasks import find_task
from gmma.tasks.defaults import draw_answers
from gmma.tasks.digits import DIGITS
from gmma.tasks.question import QuestionConfig
from gmma.tasks.records import fingerprint
from gmma.tasks.task import Task
from gmma.tasks.vqa_records import VqaConfig, unread_keys
from gmma.text.tokenizer import shown
from gmma.train import train
from gmma.types import Example, Params

T = TypeVar("T")


def train_command(line: Line[TrainArguments]) -> None:
    """Run `gmma train EXPERIMENT [--resume] [--field value …]`."""
    asked_for, own = line.given.base, line.given.own
    resume, profile = own.resume, own.profile
    check_output("runs_dir", asked_for.run_dir, directory=True)
    check_output("data_dir", asked_for.launch.data_dir, directory=True)
    if asked_for.init_from is not None:
        check_bucket(asked_for.init_from)
    config, about_sft = from_origin(asked_for, repeat_sft=own.repeat_sft)
    asked = {"resume": resume, "profile": profile, **source_facts(config)}
    hosts.join(config.launch.hosts, options_to_json(config) | asked)
    with_copies(config)  # on all hosts at once, before any waits for another
    if resume and hosts.leads() and not (config.run_dir / CONFIG_FILE).is_file():
        print(f"--resume: {config.run_dir} holds no run yet; it begins here", file=sys.stderr)
    if about_sft and hosts.leads():
        print(about_sft, file=sys.stderr)
    use_compilation_cache(config)
    say("\n".join(difference_lines(line)))
    train(config, resume=resume, profile=None if profile is None else parse_steps(profile))


def use_compilation_cache(config: ExperimentConfig) -> None:
    """Let later processes of an experiment read compiled programs from disk.

    Where JAX_COMPILATION_CACHE_DIR is set, it and its fellows go before.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        place = str(absolute(config.launch.runs_dir) / "compiled")
        jax.config.update("jax_compilation_cache_dir", place)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def load_run(run_dir: RunPath) -> ExperimentConfig:
    """Load a run's experiment, with the mesh and the data directory of its newest launch.

    Its files are where they are found. The hosts of the run are not those of who reads it.
    """
    check_bucket(run_dir)
    saved = run_dir / CONFIG_FILE
    if not saved.is_file():
        raise UserError(f"{run_dir} is no run: it has no {CONFIG_FILE}; give runs/NAME")
    config = config_from_json(read_json(saved), saved)
    latest = run_dir / LAUNCH_FILE  # a run of an earlier version has none
    launch = launch_from_json(read_json(latest), latest) if latest.is_file() else config.launch
    return dataclasses.replace(
        config,
        launch=dataclasses.replace(
            launch, hosts=HostsConfig(), runs_dir=home_of_runs(run_dir, config.name)
        ),
    )


def home_of_runs(run_dir: RunPath, name: str) -> RunPath:
    """Find where a run of this name lies; a name can have folders, a directory be renamed."""
    place, parts = absolute(run_dir), PurePath(name).parts
    return place.parents[len(parts) - 1] if place.parts[-len(parts) :] == parts else place.parent


def placed(config: ExperimentConfig, given: LaunchOverride) -> ExperimentConfig:
    """Return a run's config for the devices that are here.

    The mesh is the given one, or the run's own; where the devices do not make that up, every device
    holds a part of the parameters. So many devices as share a copy in the run's rollouts do so
    where the mesh lets them; else it is as the mesh has it.
    """
    if given.data_dir is not None:
        config = with_launch(config, data_dir=given.data_dir)
    mesh, devices, slices = config.launch.mesh, jax.device_count(), count_slices(jax.devices())
    if given.mesh != MeshOverride():
        config = with_launch(config, mesh=override(mesh, **vars(given.mesh)))
    elif mesh_sizes(mesh, devices, slices) is None:
        own = (mesh.data, mesh.fsdp, mesh.tensor)
        if hosts.leads():
            print(f"the run's mesh {own} does not make up {devices} devices; cut over all of them")
        config = with_launch(config, mesh=MeshConfig(data=1, fsdp=-1))
    if config.rollout_tensor is None:
        return config
    laid = make_mesh(config.launch.mesh)
    try:
        rollout_mesh(laid, config.rollout_tensor)
    except UserError as error:
        if hosts.leads():
            print(f"the run's rollout_tensor is left out: {error}")
        return dataclasses.replace(config, rollout_tensor=None)
    return config


def override(config: T, **values: Any) -> T:
    """Replace the given fields of a dataclass; None means not given."""
    return dataclasses.replace(config, **{k: v for k, v in values.items() if v is not None})  # type: ignore[type-var]


def read_benchmark(given: str) -> ExperimentConfig:
    """Read an experiment that is given with its options: `"FILE.py --backbone gemma3_4b"`."""
    stem, _, options = given.partition(".py ")
    path = Path(f"{stem.removesuffix('.py')}.py")
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UserError(f"--tasks {given!r}: {error}") from error
    return parse_experiment(path, words, prog=f"gmma eval --tasks {path}")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that a command looks at: a run's, or that of a Hugging Face directory."""

    config: ExperimentConfig  # of a directory, an experiment that trains nothing
    load: Callable[[Parts, int | None], Params]  # of a run at this step, None: the newest
    # A directory's prompts get as many slots as they need, where nothing says how many
    measured: bool = False


def open_run_subject(path: RunPath, options: DirectoryOptions) -> Subject:
    """Open a run. UserError for a directory's options."""
    config = load_run(path)
    refuse_for_run(path, options)
    return Subject(config=config, load=lambda parts, step: load_params(parts, path, step))


def open_directory(
    path: RunPath, options: DirectoryOptions, slots: SlotOptions, task: str
) -> Subject:
    """Open a Hugging Face directory before a task's name or an experiment file; ALL: any task."""
    from_file = task.endswith(".py") or ".py " in task
    other = read_benchmark(task) if from_file else None
    name = DIGITS.config().name if task == ALL else task  # which needs no records
    own = other.task if other is not None else default_config(name)
    config = directory_config(path, options, other, own)
    return Subject(
        config=config,
        load=lambda parts, step: parts.start(parts.mesh),
        measured=other is None and slots.prompt_tokens is None,
    )


def eval_command(given: EvalArguments) -> None:
    """Run `gmma eval RUN_DIR`: tables, JSON with every example's values, pictures."""
    directory = is_model_directory(given.run_dir, given.directory)
    if directory and not given.tasks:
        raise UserError(
            f"{given.run_dir} is a Hugging Face directory, which has no task of its own; give "
            "--tasks with names of tasks or experiment files"
        )
    if directory:
        subject = open_directory(given.run_dir, given.directory, given.slots, given.tasks[0])
    else:
        subject = open_run_subject(given.run_dir, given.directory)
    hosts.join(given.hosts, {**dataclasses.asdict(given), "run": job_to_json(subject.config)})
    config = with_slots(placed(subject.config, given.launch), given.slots)
    if directory:
        config = suited(config, given.directory)
    step = None if directory else find_step(given.run_dir, given.step)
    output = given.output or evaluation_path(given, config.name, step)
    drawn = output.parent / output.stem
    check_output("output", output)
    check_output("output", drawn, directory=True)
    # What differs from the assembled tree gets as many prompt slots as it needs.
    asked = with_slots(config, SlotOptions(prompt_tokens=1)) if subject.measured else config
    benchmarks = [
        dataclasses.replace(one, config=with_slots(one.config, given.slots))
        for one in choose_benchmarks(
            asked, given.tasks, read_benchmark, partial(eval_settings, given)
        )
    ]
    for benchmark in benchmarks:
        if not benchmark.may_fail and own_terms(benchmark.config):
            open_judge(benchmark.config)  # or says what cannot be imported, before anything heavy
    use_compilation_cache(config)
    with hosts.leader_first("the dataset"):
        parts = assemble(config)
    for benchmark in benchmarks:
        if not benchmark.may_fail:  # what is missing is said before anything is computed
            build_dataset(benchmark.config)
    params = subject.load(parts, step)
    outcomes, at = [], "" if step is None else f", step {step}"
    for benchmark in benchmarks:
        found = run_benchmark(benchmark, parts, params, given.split, drawn, given.pictures)
        outcomes.append(found)
        if hosts.leads():
            print_benchmark(found, f"{config.name}{at}, {given.split}")
    if not hosts.leads():
        return
    if given.tasks:
        write_whole(output, json.dumps(results_to_json(outcomes)))
    else:
        assert outcomes[0].evaluation is not None
        save_evaluation(output, outcomes[0].evaluation)
    print(f"every value: {output}\nbest and worst: {drawn}")


def evaluation_path(given: EvalArguments, name: str, step: int | None) -> RunPath:
    """Return the file of an evaluation: in its run; without a step, under a directory's name."""
    if step is None:
        return EVALUATED / name / f"{given.split}.json"
    kind = "benchmarks_" if given.tasks else ""
    return given.run_dir / "evaluation" / f"{kind}{given.split}_{step}.json"


def eval_settings(given: EvalArguments, evaluation: EvalConfig) -> EvalConfig:
    """Return an evaluation's settings with those of the command line."""
    sampling = override(evaluation.sampling, temperature=given.temperature, top_p=given.top_p)
    return override(
        evaluation,
        examples=given.examples,
        samples=given.samples,
        batch_prompts=given.batch_prompts,
        sampling=sampling,
    )


def print_benchmark(found: BenchmarkResult, title: str) -> None:
    """Print a table with 95 % intervals, or why there is none."""
    if found.summary is None:
        print(f"{found.name} left out: {found.reason}")
        return
    rows = [[name, format_interval(figures)] for name, figures in found.summary.items()]
    print_table(f"{found.name}: {title}", ["", "mean [95 % interval]"], rows)


def sample_command(given: SampleArguments) -> None:
    """Run `gmma sample RUN_DIR`: K thoughts, M answers each, rewards, advantages, a picture."""
    directory = is_model_directory(given.run_dir, given.directory)
    if directory:
        subject = open_asked_directory(given)
    elif given.task:
        raise UserError(
            f"--task with {given.run_dir}, which is a run and has its own; leave it away"
        )
    else:
        subject = open_run_subject(given.run_dir, given.directory)
    config = with_growth(placed(subject.config, given.launch), given)
    if directory:
        config = suited(config, given.directory)
    home = EVALUATED / config.name if directory else given.run_dir / "samples"
    name = "question" if given.question is not None else f"{given.split}_{given.example:05d}"
    output = given.output or home / name
    if not given.prompt:
        check_output("output", output, directory=True)
        if not directory:
            find_step(given.run_dir, given.step)
        use_compilation_cache(config)
    if given.question is not None:
        sample_question(subject, config, given, output)
        return
    parts = assemble(config)
    example = asked_example(parts, given)
    if subject.measured:
        parts = assemble(with_slots(config, SlotOptions(prompt_tokens=slots_for(parts, example))))
    if given.prompt:
        print_prompt(parts, example)
        return
    examples = [example] * parts.mesh.size  # a row a device
    with run_scorer(config) as scorer:  # or says what cannot be imported, before anything heavy
        params = subject.load(parts, given.step)
        grow = make_grow(parts, config.tree.shape, config.sampling, given.seed)
        rollout = grow_examples(parts, grow, params, examples, 0)
        found = score_batch(parts, scorer, examples, rollout, config.rl.steps)
    rewards, counts = put_batch((found.scores.rewards, found.counted), parts.mesh)
    advantages = jax.device_get(make_credit(parts)(rewards, counts))
    trees = ScoredTrees(examples=tuple(examples), scored=found, advantages=advantages)
    print_tree(tree_record(trees, 0), Console())
    print(f"picture: {write_tree(parts, trees, 0, output)}")


def open_asked_directory(given: SampleArguments) -> Subject:
    """Open a Hugging Face directory before what is asked. UserError where nothing is."""
    if not given.task and given.question is None:
        raise UserError(
            f"{given.run_dir} is a Hugging Face directory, which has no records of its own; give "
            "--question, with --image FILE where it has images, or --task NAME"
        )
    if given.task:
        return open_directory(given.run_dir, given.directory, given.slots, given.task)
    config = directory_config(given.run_dir, given.directory, None, own_question(given))
    return Subject(config=config, load=lambda parts, step: parts.start(parts.mesh))


def own_question(given: SampleArguments) -> QuestionConfig:
    """Return the question of the command line."""
    assert given.question is not None
    images = tuple(map(here, given.image))
    return QuestionConfig(question=given.question, images=images, system=given.system)


def with_growth(config: ExperimentConfig, given: SampleArguments) -> ExperimentConfig:
    """Return a config whose tree grows and is sampled as the command line says."""
    sampling = override(config.sampling, temperature=given.temperature, top_p=given.top_p)
    tree = override(config.tree, thoughts=given.thoughts, answers=given.answers)
    return with_slots(dataclasses.replace(config, tree=tree, sampling=sampling), given.slots)


def sample_question(
    subject: Subject, config: ExperimentConfig, given: SampleArguments, output: RunPath
) -> None:
    """Grow the tree of a question, print and draw it; without a truth there are no rewards."""
    parts = question_parts(config, own_question(given), given.slots.prompt_tokens)
    example = asked_question(parts)
    if given.prompt:
        print_prompt(parts, example)
        return
    examples = [example] * parts.mesh.size  # a row a device
    grow = make_grow(parts, parts.config.tree.shape, parts.config.sampling, given.seed)
    rollout = grow_examples(parts, grow, subject.load(parts, given.step), examples, 0)
    record = text_record(example, read_texts(rollout, parts.tokenizer, parts.template.tags), 0)
    print_tree(record, Console())
    print(f"picture: {write_record(parts, record, example, output)}")


def asked_example(parts: Parts, given: SampleArguments) -> Example:
    """Return the example that `gmma sample` is asked for. UserError where there is none."""
    source = parts.task.source(parts.config.task, parts.config.launch.data_dir, given.split)
    if not 0 <= given.example < len(source):
        raise UserError(f"example {given.example} is not among the {len(source)} of {given.split}")
    return in_frame(parts, source[given.example])


def print_prompt(parts: Parts, example: Example) -> None:
    """Print the whole prompt of an example as the model reads it, and its number of tokens."""
    prompts = read_prompts(parts, [example])
    count = int(prompts.lengths[0])
    print(shown(parts.tokenizer, np.asarray(prompts.tokens[0, :count]).tolist()))
    print(f"{count} of {parts.config.tree.prompt_tokens} tokens")


def data_command(arguments: Sequence[str]) -> None:
    """Run `gmma data EXPERIMENT`: build the dataset, show some records, a prompt, and lengths."""
    path, rest = split_experiment(arguments, "data")
    config = with_copies(parse_experiment(path, rest, prog=f"gmma data {path}"))
    check_output("data_dir", config.launch.data_dir, directory=True)
    task = find_task(config.task.name)
    task.build(config.task, config.launch.data_dir)
    for split in SPLITS:
        source = task.source(config.task, config.launch.data_dir, split)
        print(f"{split}: {len(source)} examples")
    examples = next(
        example_batches(
            task.source(config.task, config.launch.data_dir, "train"), batch=4, seed=config.seed
        )
    ).examples
    show_examples(config, task, examples)
    if isinstance(config.task, VqaConfig) and (unread := unread_keys(config.task, examples[0])):
        print(
            f"\nkeys that only a reward reads: {', '.join(unread)}; --task.keys.thought NAME, or "
            "another of task.keys, makes one a part of the record"
        )
    try:
        parts = assemble_host(config)
    except UserError as error:  # records can be looked at before the model is there
        print(f"\nno prompts and no lengths: {error}")
        return
    show_lengths(parts, examples[0])


def show_examples(config: ExperimentConfig, task: Task[Any], examples: Sequence[Example]) -> None:
    """Print some records and draw them into a folder of the dataset."""
    # A folder for each task and config: an id says nothing of the data set that it is in.
    folder = config.launch.data_dir / "shown" / f"{config.task.name}_{fingerprint(config.task)}"
    folder.mkdir(parents=True, exist_ok=True)
    for number, example in enumerate(examples):
        print(printable(f"\n{example.id}\n  question  {example.question}"))
        if task.demonstrate is not None:
            shown = task.demonstrate(config.task, example, np.random.default_rng(0))
            if shown is not None:
                print(printable(f"  thought   {shown.thought}\n  answer    {shown.answer}"))
        print(printable(f"  truth     {example.columns.get('answer')}"))
        picture = folder / f"{number}_{re.sub(r'[^0-9A-Za-z.-]', '_', example.id)[:80]}.png"
        draw_answers(task, config.task, example).save(picture)
        print(f"  picture   {picture}", file=sys.stdout)


def show_lengths(parts: HostParts, example: Example) -> None:
    """Print the prompt of an example, lengths of the training records, and what does not fit."""
    print()
    try:
        print(*prompt_lines(parts, in_frame(parts, example)), sep="\n")
    except UserError as error:
        print(f"no prompt of {example.id}: {error}")
    found = {split: measure_split(parts, split) for split in SPLITS}
    print("", *length_lines(parts, found["train"]), "", sep="\n")
    for one in found.values():
        for line in fit_lines(parts, one):
            print(line)


def plan_command(line: Line[PlanArguments]) -> None:
    """Run `gmma plan EXPERIMENT --topology v5e:2x4 [--topology …] [--field value …]`.

    `--json FILE` writes every figure; `--program NAME`, again for a further one, plans these alone;
    `--until-memory` ends each compilation when memory has been assigned: the same tables in a
    fraction of the time, and machine code that nobody has tried to write. `--mean-lengths THOUGHT
    ANSWER` plans for texts that are so long, and not for full slots.
    """
    given = line.given.own
    if given.json is not None:
        check_output("--json", given.json)
    if not given.topology:
        raise UserError(
            "which slice? add --topology v5e:2x4, or 2*v5e:4x4 for two that work as one; give it "
            "again for a further one"
        )
    plan_experiment(
        line.given.base,
        given.topology,
        given.json,
        programs=given.program or PROGRAMS,
        until_memory=given.until_memory,
        prices=given.price,
        advise=given.advise,
        lengths=length_model(given.mean_lengths, given.length_spread),
    )
