"""A sweep as a Python expression: arms, which are changes to one experiment, times seeds.

    vary("tree.answers", 1, 4)                                   two arms
    product(vary("tree.thoughts", 4, 8), vary("tree.answers", 1, 4))   four, every pair
    zipped(vary("tree.thoughts", 4, 16), vary("tree.answers", 4, 1))   two, side by side
    chain(trees("T4A4", "T16A1"), vary("objective.beta", 0.1))         three, one after another

An experiment file's `sweep()` returns a `Sweep`, and `gmma sweep` runs it. All runs of a seed start
from the same SFT, which is trained once, and read the same prompts in the same order.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gmma.config import ExperimentConfig, ObjectiveConfig, config_to_json, of_its_types, require
from gmma.errors import UserError
from gmma.files import RunPath, check_name, read_json
from gmma.options.changes import changed
from gmma.records.resuming import CONFIG_FILE
from gmma.run.summary import evaluation_path

START = "start"
SET_BY_THE_SWEEP = {"name", "seed", "launch.runs_dir", "init_from"}  # of every run
SWEEP_FILE = "sweep.json"  # in the sweep's directory: every figure that is shown of it


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Changes to the sweep's experiment: dotted field → value, and how tables call them."""

    label: str
    changes: Mapping[str, Any]
    seeds: tuple[int, ...] | None = None  # None: the sweep's


Arms = tuple[Arm, ...]


def arm(label: str, /, **changes: Any) -> Arms:
    """Return one arm; `__` stands for the dot of a field: `arm("β 0.1", objective__beta=0.1)`."""
    return (Arm(label=label, changes={k.replace("__", "."): v for k, v in changes.items()}),)


def vary(field: str, *values: Any) -> Arms:
    """Return an arm for each value of a field.

    >>> [a.label for a in vary("tree.answers", 1, 4)]
    ['answers=1', 'answers=4']
    """
    short = field.rpartition(".")[2]
    return tuple(Arm(label=f"{short}={value}", changes={field: value}) for value in values)


def trees(*labels: str) -> Arms:
    """Make arms from the fields' own labels.

    >>> trees("T8A2")[0].changes
    {'tree.thoughts': 8, 'tree.answers': 2}
    """
    found = []
    for label in labels:
        sizes = re.fullmatch(r"T(\d+)A(\d+)", label)
        if sizes is None:
            raise UserError(f"tree {label!r} is not of the form T4A4: K thoughts, M answers each")
        thoughts, answers = map(int, sizes.groups())
        changes = {"tree.thoughts": thoughts, "tree.answers": answers}
        found.append(Arm(label=label, changes=changes))
    return tuple(found)


def product(*axes: Arms) -> Arms:
    """Return every combination, the last axis fastest.

    A later axis wins where two change one field.

    >>> [a.label for a in product(vary("tree.thoughts", 4, 8), vary("tree.answers", 1, 4))][:2]
    ['thoughts=4 answers=1', 'thoughts=4 answers=4']
    """
    return tuple(map(joined, itertools.product(*axes)))


def zipped(*axes: Arms) -> Arms:
    """Pair axes side by side; they must be equally long.

    >>> zipped(vary("tree.thoughts", 16), vary("tree.answers", 1))[0].changes
    {'tree.thoughts': 16, 'tree.answers': 1}
    """
    if len({len(axis) for axis in axes}) > 1:
        sizes = ", ".join(str(len(axis)) for axis in axes)
        raise UserError(f"zipped axes have {sizes} arms; give as many to each, or use product")
    return tuple(map(joined, zip(*axes, strict=True)))


def chain(*axes: Arms) -> Arms:
    """Put arms one after another."""
    return tuple(itertools.chain(*axes))


def joined(arms: Sequence[Arm]) -> Arm:
    """Join all changes of some arms in one, with the seeds that one of them brings."""
    changes: dict[str, Any] = {}
    for part in arms:
        changes |= part.changes
    label = " ".join(part.label for part in arms)
    seeds = {part.seeds for part in arms if part.seeds is not None}
    if len(seeds) > 1:
        raise UserError(f"{label}: its parts have seeds of their own, {seeds}; give them to one")
    return Arm(label=label, changes=changes, seeds=seeds.pop() if seeds else None)


def with_seeds(arms: Arms, seeds: int) -> Arms:
    """Return the same arms with seeds 0 … `seeds` − 1 of their own."""
    return tuple(replace(part, seeds=tuple(range(seeds))) for part in arms)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Arms times seeds, and which arms are held against each other."""

    name: str  # its files go to RUNS_DIR/NAME
    base: ExperimentConfig
    arms: Arms
    seeds: tuple[int, ...] = (0, 1, 2)
    comparisons: tuple[tuple[str, str], ...] = ()  # pairs of labels
    metric: str | None = None  # of evaluations, as MODE/NAME; None: sampled, the task's headline

    def __post_init__(self) -> None:
        check_name("sweep.name", self.name)
        labels = [part.label for part in self.arms]
        require(len(labels) > 0, "sweep.arms", self.arms, "one arm or more")
        require(START not in labels, "sweep.arms", START, "another label: it is the SFT's own")
        for own in (self.seeds, *(part.seeds for part in self.arms if part.seeds is not None)):
            whole = all(isinstance(seed, int) and seed >= 0 for seed in own)
            require(bool(own) and whole, "sweep.seeds", own, "one number or more, each 0 or more")
        twice = sorted({label for label in labels if labels.count(label) > 1})
        require(not twice, "sweep.arms", ", ".join(twice), "arms with a label of their own each")
        mode = (self.metric or "sampled/").partition("/")[0]
        require(mode in ("sampled", "greedy"), "sweep.metric", self.metric, "sampled/… or greedy/…")
        taken = sorted({name for part in self.arms for name in part.changes} & SET_BY_THE_SWEEP)
        require(not taken, "sweep.arms", ", ".join(taken), "other fields: a sweep sets these")
        unknown = sorted({name for pair in self.comparisons for name in pair} - set(labels))
        require(not unknown, "sweep.comparisons", ", ".join(unknown), f"one of {', '.join(labels)}")

    @property
    def directory(self) -> RunPath:
        """The directory of its runs and results."""
        return self.base.launch.runs_dir / self.name

    def seeds_of(self, arm: Arm) -> tuple[int, ...]:
        """Return the seeds of an arm."""
        return self.seeds if arm.seeds is None else arm.seeds


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep."""

    arm: str  # label; START for an SFT that others start from
    seed: int
    config: ExperimentConfig
    start: RunPath | None = None  # the SFT of the sweep that it goes on from

    @property
    def moment(self) -> str:
        """The phase that it ends with."""
        return "rl" if self.config.rl.steps else "sft"

    def is_done(self) -> bool:
        """Return whether the run has ended: its last evaluation is there, behind all its steps."""
        saved = self.config.run_dir / CONFIG_FILE
        steps = getattr(self.config, self.moment).steps
        whole = not saved.exists() or read_json(saved)[self.moment]["steps"] == steps
        return whole and bool(evaluation_path(self.config, self.moment).exists())


def sweep_runs(sweep: Sweep) -> tuple[SweepRun, ...]:
    """Return every run, those first that others start from.

    An arm with RL goes from the SFT of its seed. So does an arm without (`rl.steps` = 0): it goes
    on imitating for its `sft.steps`, with a schedule of its own and demonstrations of its own. Arms
    whose SFT would be the same share it. Where the base has no SFT, all go from its `init_from`.
    Raises UserError where runs could not be told apart, or not be held against each other.
    """
    starts: dict[str, SweepRun] = {}
    runs = []
    for part, seed in arms_and_seeds(sweep):
        config = arm_config(sweep, part, seed)
        check_arm(part, config)
        if not sweep.base.sft.steps:
            require(
                not config.sft.steps,
                f"{part.label}: sft.steps",
                config.sft.steps,
                "0, as the sweep's own: nobody has measured what such an arm starts from",
            )
            name = f"{file_name(part.label)}_seed{seed}"
            runs.append(SweepRun(arm=part.label, seed=seed, config=replace(config, name=name)))
            continue
        start = start_config(sweep, config)
        same = str(config_to_json(replace(start, name=START)))
        if same not in starts:
            older = sum(run.seed == seed for run in starts.values())
            name = f"{START}{older + 1 if older else ''}_seed{seed}"
            starts[same] = SweepRun(arm=START, seed=seed, config=replace(start, name=name))
        origin = starts[same].config.run_dir
        own = {"name": f"{file_name(part.label)}_seed{seed}", "init_from": origin}
        if config.rl.steps:
            own["sft.steps"] = 0
        runs.append(SweepRun(arm=part.label, seed=seed, config=changed(config, own), start=origin))
    found = (*starts.values(), *runs)
    check_directories(found)
    return found


def arm_config(sweep: Sweep, part: Arm, seed: int) -> ExperimentConfig:
    """Return the base as an arm changes it. UserError for values of wrong types."""
    changes = {**part.changes, "seed": seed, "launch.runs_dir": sweep.directory}
    try:
        return of_its_types(changed(sweep.base, changes), f"arm {part.label}")
    except TypeError as error:  # a comparison of a text with a number, before types are known
        raise UserError(f"arm {part.label}: {error}; its changes are {part.changes}") from error


def check_arm(part: Arm, config: ExperimentConfig) -> None:
    """Check that every arm trains, and is validated from its first step to its last."""
    require(
        config.launch.hosts.join == "alone",
        f"{part.label}: hosts.join",
        config.launch.hosts.join,
        "alone: a sweep's runs have one host each; give every host a --share of them",
    )
    phase = "rl" if config.rl.steps else "sft"
    steps, every = getattr(config, phase).steps, config.evaluation.every_steps
    require(steps > 0, f"{part.label}: steps", steps, "1 or more, of RL or of SFT")
    if every == 0 or steps % every:
        raise UserError(
            f"{part.label}: evaluation.every_steps = {every} does not divide its {steps} steps; "
            "arms are held against each other at equal budgets, so each is validated to its end"
        )


def check_directories(runs: Sequence[SweepRun]) -> None:
    """Raise UserError for two labels that make the same name of a directory."""
    known: dict[str, SweepRun] = {}
    for run in runs:
        other = known.setdefault(run.config.name, run)
        if other is not run:
            raise UserError(
                f"arms {other.arm!r} and {run.arm!r} would both write {run.config.run_dir}; "
                "label them so that letters, digits or dots differ"
            )


def arms_and_seeds(sweep: Sweep) -> Iterator[tuple[Arm, int]]:
    """Pair arms and seeds, every arm's first seed first, so that arms can be compared early."""
    longest = max(len(sweep.seeds_of(part)) for part in sweep.arms)
    for place in range(longest):
        for part in sweep.arms:
            seeds = sweep.seeds_of(part)
            if place < len(seeds):
                yield part, seeds[place]


def start_config(sweep: Sweep, config: ExperimentConfig) -> ExperimentConfig:
    """Return the SFT that a run starts from: nothing in it depends on what only RL reads."""
    base = sweep.base
    return changed(
        config,
        {
            "sft": base.sft,
            "rl": replace(base.rl, steps=0),
            "tree.thoughts": base.tree.thoughts,
            "tree.answers": base.tree.answers,
            "tree.unfinished": base.tree.unfinished,
            "objective": ObjectiveConfig(),
            "rollout_params": base.rollout_params,
            "rollout_tensor": base.rollout_tensor,
            "rollout_weights": "exact",
            "rewards": base.rewards,
            "sampling": base.sampling,
            "evaluation.every_steps": 0,
        },
    )


def file_name(label: str) -> str:
    """Return a label as the name of a directory.

    >>> file_name("no std, β = 0.1")
    'no_std_beta_0.1'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "_", label.replace("β", "beta")).strip("_")
