"""The options of commands, beside those of an experiment; a field's comment is its help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gmma.errors import UserError
from gmma.files import RunPath, SourcePath
from gmma.options.checks import check_split, require
from gmma.options.launch import HostsConfig, LaunchOverride, MeshConfig
from gmma.options.networks import DType

Law = Literal["bernoulli", "gaussian"]  # of simulated rewards
PROGRAMS = ("rollout", "scoring", "update", "sft")  # that `gmma plan` compiles


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train an experiment: SFT, then RL. An experiment's own options stand beside these."""

    resume: bool = False  # go on with the run where it has begun
    # Before RL, SFT again from the parameters of the run that init_from names; without this flag
    # its SFT is not repeated
    repeat_sft: bool = False
    # FIRST:LAST of the steps that are traced for XProf, numbered as in metrics.jsonl; the trace
    # goes to the run's profile/
    profile: str | None = None

    def __post_init__(self) -> None:
        if self.profile is not None:
            parse_steps(self.profile)


def parse_steps(text: str) -> tuple[int, int]:
    """Parse `10:12` as the first and the last of three steps."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise UserError(f"profile = {text}; it must be FIRST:LAST, two steps counted from 0")
    return int(first), int(last)


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Compile an experiment for TPU slices. An experiment's own options stand beside these."""

    # a slice, as v5e:2x4, or several that work as one, as 2*v5e:4x4; again for a further plan
    topology: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    # a program that is planned, again for a further one; none given: all
    program: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    json: Path | None = None  # a file for every figure
    # of one chip for an hour, in any currency: prints the least cost of a step and of a run. One
    # for all slices, or again for each
    price: tyro.conf.UseAppendAction[tuple[float, ...]] = ()
    # End each compilation when memory has been assigned: the same tables in a fraction of the time,
    # and machine code that nobody has tried to write
    until_memory: bool = False
    # mean tokens of a thought and of an answer, of which the plan then reckons: the turns of a
    # rollout, the rows of an update where they are ragged, and what of them is useful. None: all
    # slots are filled
    mean_lengths: tuple[float, float] | None = None
    length_spread: float | None = None  # of lognormal lengths: σ of their logarithm; None: 0.5
    # Search meshes, prompts of a rollout, microbatches and rematerialisation (model.remat) for the
    # fastest step of RL that fits, and print it as options; with objective.importance_cap rollouts
    # in 8 bits too. Compilations end as with until_memory
    advise: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.program) - set(PROGRAMS))
        if unknown:
            raise UserError(f"no program {unknown[0]!r}; choose from {', '.join(PROGRAMS)}")
        if self.advise and (self.program or self.price):
            taken = "--program" if self.program else "--price"
            raise UserError(f"--advise and {taken} exclude each other: it plans whole steps of RL")


@dataclass(frozen=True, kw_only=True)
class Share:
    """The runs of a sweep that a process takes: those whose place is `index` modulo `count`."""

    index: int
    count: int


def parse_share(text: str) -> Share:
    """Parse `0/2` as the first of two."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"share = {text}; it must be INDEX/COUNT with INDEX below COUNT, from 0")
    return Share(index=int(index), count=int(count))


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Train a sweep's runs and compare them. Options of what all arms share stand beside these."""

    workers: int = 1  # runs at a time on this machine, each a process of one thread where several
    # INDEX/COUNT: this machine takes every COUNT-th run; give the others the same runs directory
    share: str = "0/1"
    dry_run: bool = False  # print the runs and stop
    results: bool = False  # show what is done, and run nothing
    # train arms that differ in tree.answers alone side by side, with their seeds (sweep/grid.py)
    one_program: bool = False
    compare: bool = False  # time that against the same runs one after another

    def __post_init__(self) -> None:
        require(self.workers >= 1, "workers", self.workers, "1 or more")
        parse_share(self.share)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Build an experiment's dataset and show some of it. Its own options stand beside these."""


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """Copy what an experiment reads elsewhere to this machine. Its own options stand beside."""

    check: bool = False  # look whether it is all there, and fetch nothing
    # print the places alone, a line each: those that are read, init_from too; ask nobody
    places: bool = False

    def __post_init__(self) -> None:
        if self.check and self.places:
            raise UserError("--check and --places exclude each other")


# Of the commands that read an experiment file, what they take from the line themselves.
OWN_OPTIONS = {
    "train": TrainOptions,
    "plan": PlanOptions,
    "sweep": SweepOptions,
    "data": DataOptions,
    "fetch": FetchOptions,
}


@dataclass(frozen=True, kw_only=True)
class SlotOptions:
    """Slots of the tree. None: as in the run or the experiment; else prompts as long as needed."""

    prompt_tokens: int | None = None  # image tokens included
    thought_tokens: int | None = None  # closing tag included
    answer_tokens: int | None = None  # both tags included

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value is None or value >= 1, name, value, "1 or more")


@dataclass(frozen=True, kw_only=True)
class DirectoryOptions:
    """Options for a Hugging Face directory in the place of a run."""

    architecture: str | None = None  # your own family, as module:NAME; None: what config.json says
    thinking: bool | None = None  # of its chat template (enable_thinking); None: as it has it
    # Of parameters and activations; None: bfloat16, float32 on a CPU
    dtype: Literal["float32", "bfloat16"] | None = None


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Evaluate a run's checkpoint on held-out examples, or a model that was never trained here."""

    # runs/NAME, or a Hugging Face directory: on this machine, in a bucket, or hf://OWNER/NAME
    run_dir: tyro.conf.Positional[RunPath]
    step: int | None = None  # of the checkpoint; None: the newest
    # all, names of tasks, experiment files, each with its options: "FILE.py --backbone gemma3_4b";
    # none: the run's own task
    tasks: tuple[str, ...] = ()
    split: str = "test"  # train, validation or test
    examples: int | None = None  # how many of the split, from its start; None: as in the run
    samples: int | None = None  # sampled answers per example; greedy is done besides
    temperature: float | None = None  # of the sampled answers
    top_p: float | None = None  # of the sampled answers
    batch_prompts: int | None = None  # prompts at a time, over all devices; None: as in the run
    pictures: int = 3  # of the best examples, and as many of the worst, of each task
    # JSON with every value, pictures in a folder beside it; None:
    # RUN_DIR/evaluation/SPLIT_STEP.json, with --tasks …/benchmarks_SPLIT_STEP.json; of a Hugging
    # Face directory evaluated/NAME/SPLIT.json
    output: RunPath | None = None
    slots: Annotated[SlotOptions, tyro.conf.arg(name="")] = field(default_factory=SlotOptions)
    directory: Annotated[DirectoryOptions, tyro.conf.arg(name="")] = field(
        default_factory=DirectoryOptions
    )
    launch: Annotated[LaunchOverride, tyro.conf.arg(name="")] = field(
        default_factory=LaunchOverride
    )
    hosts: HostsConfig = field(default_factory=HostsConfig)  # as in gmma train

    def __post_init__(self) -> None:
        require(self.pictures >= 0, "pictures", self.pictures, "0 (none) or more")
        check_split(self.split)


@dataclass(frozen=True, kw_only=True)
class SampleArguments:
    """Grow one tree from a record or a question of your own, print it, and draw it."""

    # runs/NAME, or a Hugging Face directory: on this machine, in a bucket, or hf://OWNER/NAME
    run_dir: tyro.conf.Positional[RunPath]
    question: str | None = None  # in place of a record; images stand before it or at its <image>
    image: tuple[SourcePath, ...] = ()  # files that the question is about
    # The question's system prompt; None: that of the run's or the experiment's task; "": the
    # model family's own
    system: str | None = None
    # Of a Hugging Face directory: a task's name, or an experiment file with its options, whose
    # records, tree, sampling and rewards are taken
    task: str = ""
    example: int = 0  # row of the split
    split: str = "test"  # train, validation or test
    step: int | None = None  # of the checkpoint; None: the newest
    seed: int = 0  # of the sampling
    prompt: bool = False  # print the prompt alone, control tokens included, and grow nothing
    thoughts: int | None = None  # K; None: as in the run
    answers: int | None = None  # M; None: as in the run
    temperature: float | None = None  # of thoughts and answers; None: as in the run
    top_p: float | None = None  # of thoughts and answers
    # Directory; None: RUN_DIR/samples/SPLIT_EXAMPLE or …/question, of a Hugging Face directory in
    # evaluated/NAME
    output: RunPath | None = None
    slots: Annotated[SlotOptions, tyro.conf.arg(name="")] = field(default_factory=SlotOptions)
    directory: Annotated[DirectoryOptions, tyro.conf.arg(name="")] = field(
        default_factory=DirectoryOptions
    )
    launch: Annotated[LaunchOverride, tyro.conf.arg(name="")] = field(
        default_factory=LaunchOverride
    )

    def __post_init__(self) -> None:
        check_split(self.split)
        if self.question is None and (self.image or self.system is not None):
            raise UserError("--image and --system belong to a --question; give that too")
        if self.question is not None and (self.example or self.split != "test"):
            raise UserError("--question stands in place of a record; leave --example and --split")


@dataclass(frozen=True, kw_only=True)
class VarianceArguments:
    """Variance of the thought advantage against K and M: formula, simulation, measurement."""

    run_dir: tyro.conf.Positional[RunPath | None] = None  # a run whose policy is measured
    step: int | None = None  # of the checkpoint; None: the newest
    split: str = "test"  # train, validation or test
    examples: int = 64  # prompts that are measured
    pool: int = 128  # answers to each thought that are sampled, scored and drawn from
    thoughts: int | None = None  # K of the measurement; None: the run's
    answers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # every M
    thoughts_grid: tuple[int, ...] = (3, 4, 8, 16, 32, 64)  # every K of the curve against K
    means: tuple[float, ...] = ()  # of one answer's reward given each thought, without a run
    variances: tuple[float, ...] = ()  # likewise; none: μ(1 − μ), of rewards of 0 and 1
    law: Law = "bernoulli"  # of simulated rewards without a run; a run's are taken as gaussian
    trees: int = 1_000_000  # that are simulated for each point
    seed: int = 0
    launch: Annotated[LaunchOverride, tyro.conf.arg(name="")] = field(
        default_factory=LaunchOverride
    )
    output: RunPath | None = None  # directory; None: RUN_DIR/variance, or ./variance

    def __post_init__(self) -> None:
        for name in ("answers", "thoughts_grid"):
            require(len(getattr(self, name)) > 0, name, (), "one number or more")
        for name in ("examples", "trees"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.thoughts is None or self.thoughts >= 2, "thoughts", self.thoughts, "2 or more")
        require(min(self.answers) >= 1, "answers", self.answers, "numbers of 1 or more")
        require(min(self.thoughts_grid) >= 3, "thoughts_grid", self.thoughts_grid, "3 or more")
        require(self.pool >= 2, "pool", self.pool, "2 or more")
        require(self.trees >= 1000, "trees", self.trees, "1000 or more")
        require(len(self.means) != 1, "means", self.means, "none, or those of two thoughts or more")
        require(min(self.variances, default=0) >= 0, "variances", self.variances, "0 or more")
        if self.law == "bernoulli" and not self.variances:
            inside = all(0 <= mean <= 1 for mean in self.means)
            require(inside, "means", self.means, "within 0 … 1 for rewards of 0 and 1")
        if self.variances and len(self.variances) != len(self.means):
            raise UserError(
                f"{len(self.variances)} variances for {len(self.means)} means; give one for each"
            )


@dataclass(frozen=True, kw_only=True)
class AdviseArguments:
    """Predict what a second buys with each K and M, from a run's policy."""

    run_dir: tyro.conf.Positional[RunPath]  # a run, or a pilot of a few steps, whose policy answers
    step: int | None = None  # of the checkpoint; None: the newest
    split: str = "train"  # train, validation or test
    examples: int = 64  # prompts that are measured
    thoughts: tuple[int, ...] = (4, 8, 16)  # every K
    answers: tuple[int, ...] = (1, 2, 4, 8)  # every M
    pool: int = 16  # answers to each thought that are sampled; more than any M
    repeats: int = 3  # steps of each timed shape; the median counts
    topology: str | None = None  # a slice whose seconds are planned; None: the devices at hand
    sweep: RunPath | None = None  # a sweep of the same job, whose trees are predicted too and whose
    # order is set beside the prediction
    seed: int = 0
    launch: Annotated[LaunchOverride, tyro.conf.arg(name="")] = field(
        default_factory=LaunchOverride
    )
    output: RunPath | None = None  # JSON with every figure; None: RUN_DIR/advice.json

    def __post_init__(self) -> None:
        check_split(self.split)
        for name, least in (("thoughts", 2), ("answers", 1)):
            values = getattr(self, name)
            require(min(values, default=0) >= least, name, values, f"numbers of {least} or more")
        for name in ("examples", "repeats"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.pool >= 2, "pool", self.pool, "2 or more")


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Write a run or a sweep as one HTML page that opens from disk."""

    directory: tyro.conf.Positional[RunPath]  # runs/NAME, of a run or of a sweep
    output: RunPath | None = None  # None: report.html in the directory


@dataclass(frozen=True, kw_only=True)
class BenchArguments:
    """Time rollout and update of random weights: tree against prompt-shared against flat rows."""

    model: Literal["tiny", "0.5b", "3b"] = "tiny"  # parameters; AdamW takes 16 bytes for each
    dtype: Literal["float32", "bfloat16"] | None = None  # of activations; None: as the model has
    batch_prompts: int = 4  # B
    thoughts: int = 4  # K
    answers: int = 4  # M
    repeats: int = 5  # timed runs of each program; the median is reported
    cases: int | None = None  # how many of the model's sizes, from the first; None: all
    microbatches: int = 1  # of an update, in every layout
    filled: float = 0.4  # of the slots, on average, in the table of ragged rows
    row_lengths: int = 6  # that ragged rows may have, as in a run
    output: Path | None = None  # JSON with every figure

    def __post_init__(self) -> None:
        require(0 < self.filled <= 1, "filled", self.filled, "above 0, 1 at most")
        require(self.row_lengths >= 2, "row_lengths", self.row_lengths, "2 or more")
        for name in ("batch_prompts", "thoughts", "answers", "repeats", "cases", "microbatches"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        if self.batch_prompts % self.microbatches:
            raise UserError(
                f"batch_prompts = {self.batch_prompts} is not divisible by microbatches = "
                f"{self.microbatches}; choose a multiple"
            )


@dataclass(frozen=True, kw_only=True)
class CheckArguments:
    """List everything that is wrong with a Hugging Face directory."""

    directory: tyro.conf.Positional[SourcePath]  # also gs://BUCKET/FOLDER, hf://OWNER/NAME
    architecture: str | None = None  # your own family, as module:NAME; None: what config.json says


@dataclass(frozen=True, kw_only=True)
class ImportArguments:
    """Write a Hugging Face directory as a checkpoint that `--init-from` takes."""

    directory: tyro.conf.Positional[SourcePath]  # also gs://BUCKET/FOLDER, hf://OWNER/NAME
    output: tyro.conf.Positional[
        Path
    ]  # a new directory; its huggingface/ is then --model.directory
    dtype: DType = "bfloat16"  # of the parameters
    architecture: str | None = None  # your own family, as module:NAME; None: what config.json says
    mesh: MeshConfig = field(default_factory=lambda: MeshConfig(data=1, fsdp=-1))


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write a run as a directory that transformers loads, or its adapters for peft."""

    source: tyro.conf.Positional[Path]  # runs/NAME, an import, or a checkpoint in either
    output: tyro.conf.Positional[Path]
    merge: bool = False  # the whole model, adapters added to the weights; so it is without a flag
    adapters: bool = False  # the adapters alone
    step: int | None = None  # of the checkpoint; None: the newest
    dtype: DType | None = None  # of the tensors; None: that of the run's activations
