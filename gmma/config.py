"""The configuration of a run: frozen dataclasses, one per idea, each field overridable by name.

An experiment file returns an `ExperimentConfig`; `gmma train FILE --tree.answers 8` overrides one
field. What differs from the file is printed; the whole config is saved, and is enough to repeat the
run. The comment of a field is its help text. Choices that are not the paper's are ours
(`docs/method.md`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.families.tiny.config import TinyConfig
from gmma.files import RunPath, check_name
from gmma.named import Named
from gmma.options.checks import check_values, require
from gmma.options.launch import HostsConfig as HostsConfig
from gmma.options.launch import LaunchConfig as LaunchConfig
from gmma.options.launch import MeshConfig as MeshConfig
from gmma.options.launch import WandbConfig as WandbConfig
from gmma.options.networks import RolloutWeights
from gmma.options.prompt import PromptConfig
from gmma.options.resuming import ChangesNoNumber, EndOfPhase
from gmma.options.sampling import SamplingConfig
from gmma.rewards.code import CODE_TERMS, WALL_SECONDS
from gmma.rewards.terms import RewardTerm
from gmma.tasks.configs import AnyTaskConfig, TaskConfig
from gmma.tasks.mixture import MixtureConfig

if TYPE_CHECKING:
    from gmma.advantage import Credit
    from gmma.surrogate import Surrogate
    from gmma.types import TreeShape  # which imports JAX

Algorithm = Literal["grpo_ma", "grpo"]
LossType = Literal["grpo", "dr_grpo", "dapo", "bnpo"]
KLEstimator = Literal["k1", "k2", "k3"]
Options = tuple[tuple[str, str | int | float | bool], ...]  # keyword arguments
CREDITS: "Named[Credit]" = Named(
    "credit rule",
    {
        "grpo_ma": "gmma.advantage:multi_answer",
        "leaf": "gmma.advantage:leaf",
        "td": "gmma.advantage:temporal_difference",
        "loo": "gmma.advantage:leave_one_out",
        "treerl": "gmma.advantage:tree_rl",
        "treepo": "gmma.advantage:tree_po",
    },
)
SURROGATES: "Named[Surrogate]" = Named(
    "surrogate",
    {
        "clipped": "gmma.surrogate:clipped_surrogate",
        "cispo": "gmma.surrogate:cispo",
        "sapo": "gmma.surrogate:sapo",
    },
)
RolloutLayout = Literal["gathered", "sharded"]
Packing = Literal["static", "ragged"]
ModelConfig = TinyConfig | PretrainedConfig


@dataclass(frozen=True, kw_only=True)
class TreeConfig:
    """The tree that grows from each prompt. Slots are static; true lengths are data."""

    thoughts: int = 4  # K, thoughts per prompt
    answers: int = 4  # M, answers per thought
    prompt_tokens: int = 32  # P, prompt slots, image tokens included
    thought_tokens: int = 24  # T, slots of a thought, closing tag included
    answer_tokens: int = 12  # A, slots of an answer, both tags included
    # A thought that does not close by itself: `close` appends the closing tag outside the loss;
    # `drop` takes the loss and the statistics off the thought and its answers.
    unfinished: Literal["close", "drop"] = "close"

    def __post_init__(self) -> None:
        for name in ("thoughts", "answers", "prompt_tokens", "thought_tokens", "answer_tokens"):
            value = getattr(self, name)
            require(value >= 1, f"tree.{name}", value, "1 or more")

    @property
    def shape(self) -> "TreeShape":
        """The static shape of every tree of the run."""
        from gmma.types import TreeShape

        return TreeShape(
            prompt=self.prompt_tokens,
            thought=self.thought_tokens,
            answer=self.answer_tokens,
            thoughts=self.thoughts,
            answers=self.answers,
        )


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The objective (`gmma/objective.py`) and its advantages (`gmma/advantage.py`)."""

    # grpo_ma: a thought and an answer have each their own advantage and length normaliser;
    # grpo: one advantage and one length normaliser for the whole response, needs answers = 1
    algorithm: Algorithm = "grpo_ma"
    credit: str = "grpo_ma"  # leaf, td, loo, treerl, treepo, or your own rule as module:NAME
    credit_options: Options = ()  # keyword arguments of your own rule
    surrogate: str = "clipped"  # cispo, sapo, or your own policy loss of a token as module:NAME
    surrogate_options: Options = ()  # keyword arguments: sapo's tau_pos and tau_neg, your own's
    loss_type: LossType = "grpo"  # how token losses are averaged
    scale_rewards: Literal["group", "batch", "none"] = "group"  # divide advantages by which std
    answer_baseline: Literal["tree", "thought"] = "tree"  # answers compared over K·M, or within M
    importance_sampling_level: Literal["token", "sequence"] = "token"  # sequence is GSPO
    epsilon: float = 0.2  # the ratio is clipped at 1 − epsilon
    epsilon_high: float | None = None  # and at 1 + epsilon_high; None: epsilon
    delta: float | None = None  # dual clip: upper bound of the unclipped ratio; None: no bound
    beta: float = 0.0  # weight of the KL to the reference; 0 loads no reference
    kl_estimator: KLEstimator = "k3"  # of the KL to the reference, per token
    kl_times_ratio: bool = False  # weigh it by the ratio, which makes its gradient that of the KL
    entropy_coef: float = 0.0  # weight of the entropy in J; 0 computes no gradient of it
    num_iterations: int = 1  # passes over a rollout, each an update a minibatch
    thought_weight: float = 1.0  # of the thoughts' term in J
    answer_weight: float = 1.0  # of the answers' term in J
    mask_truncated_completions: bool = False  # no loss on what ran out of slots
    importance_cap: float | None = None  # truncated importance sampling of trainer over sampler

    def __post_init__(self) -> None:
        for table, name in ((CREDITS, self.credit), (SURROGATES, self.surrogate)):
            table.check(name)
        require(0 <= self.epsilon < 1, "objective.epsilon", self.epsilon, "within [0, 1)")
        require(self.upper_epsilon >= 0, "objective.epsilon_high", self.epsilon_high, "0 or more")
        require(self.beta >= 0, "objective.beta", self.beta, "0 or more")
        require(self.entropy_coef >= 0, "objective.entropy_coef", self.entropy_coef, "0 or more")
        iterations = self.num_iterations
        require(iterations >= 1, "objective.num_iterations", iterations, "1 or more")
        for name in ("delta", "importance_cap"):
            value = getattr(self, name)
            require(value is None or value > 1, f"objective.{name}", value, "above 1, or None")
        for name in ("thought_weight", "answer_weight"):
            value = getattr(self, name)
            require(value >= 0, f"objective.{name}", value, "0 or more")
        for reason in self._meaningless():
            raise UserError(reason)

    def _meaningless(self) -> Iterator[str]:
        """Say which fields contradict each other, or would change nothing."""
        credit, surrogate = CREDITS.short(self.credit), SURROGATES.short(self.surrogate)
        if credit in ("leaf", "treerl", "treepo") and self.answer_baseline == "thought":
            yield (
                f"objective.answer_baseline = thought with objective.credit = {self.credit}: that "
                "rule says itself what an answer is compared with; leave answer_baseline at tree, "
                "or choose grpo_ma, td or loo"
            )
        zero = credit == "td" or self.answer_baseline == "thought"
        if self.algorithm == "grpo" and (zero or credit == "treerl"):
            yield (
                f"objective.algorithm = grpo with objective.credit = {self.credit} and "
                f"answer_baseline = {self.answer_baseline}: GRPO has one advantage for a thought "
                "and its answer, and these give them two; choose grpo_ma, leaf, loo or treepo with "
                "answer_baseline = tree"
            )
        unread = {"cispo": ("delta",), "sapo": ("delta", "epsilon", "epsilon_high")}
        for name in unread.get(surrogate, ()):
            value, default = getattr(self, name), getattr(type(self), name)
            if value != default:
                yield (
                    f"objective.{name} = {value} with objective.surrogate = {self.surrogate}, "
                    f"which has no such bound; leave it at {default}"
                )
        if self.kl_times_ratio and self.beta == 0:
            yield (
                "objective.kl_times_ratio with objective.beta = 0: there is no KL to weigh; set "
                "beta above 0"
            )

    @property
    def upper_epsilon(self) -> float:
        """`epsilon_high`, or `epsilon` if it is not given."""
        return self.epsilon if self.epsilon_high is None else self.epsilon_high


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with clipping by global norm and a schedule."""

    learning_rate: float = 1e-4  # peak
    warmup_steps: int = 0  # updates of linear warm-up
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after it; to 0 at the end
    adam_b1: float = 0.9  # decay of the mean of gradients
    adam_b2: float = 0.999  # decay of the mean of their squares
    adam_epsilon: float = 1e-8  # added to the root of that mean
    weight_decay: float = 0.0  # per update, times the learning rate
    max_grad_norm: float = 1.0  # gradients are scaled down to this global norm; 0: no clipping

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        for name in ("adam_b1", "adam_b2"):
            value = getattr(self, name)
            require(0 <= value < 1, name, value, "within [0, 1)")
        require(self.adam_epsilon > 0, "adam_epsilon", self.adam_epsilon, "above 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(self.max_grad_norm >= 0, "max_grad_norm", self.max_grad_norm, "0 (off) or more")


def same_rates(config: OptimizerConfig, old: int, new: int, done: int) -> bool:
    """Return whether the first `done` updates have the same rates in a phase of `old` and of `new`.

    The schedule is `gmma.update.learning_rate`: it rises over the warm-up, which ends with the
    phase, and its first update behind that has the peak, however long it then takes to decay.
    """
    if old == new or not done:
        return True
    rises = {min(config.warmup_steps, updates) for updates in (old, new)}
    return len(rises) == 1 and (config.schedule == "constant" or done <= rises.pop() + 1)


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One phase of training: so many steps of so many prompts."""

    steps: EndOfPhase[int]  # 0: no such phase
    batch_prompts: int  # B, over all devices
    microbatches: int = 1  # gradients are accumulated over so many equal parts of a batch
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        require(self.steps >= 0, "steps", self.steps, "0 (no such phase) or more")
        require(self.batch_prompts >= 1, "batch_prompts", self.batch_prompts, "1 or more")
        require(self.microbatches >= 1, "microbatches", self.microbatches, "1 or more")
        if self.batch_prompts % self.microbatches:
            raise UserError(
                f"batch_prompts = {self.batch_prompts} is not divisible by microbatches = "
                f"{self.microbatches}; choose a multiple"
            )


@dataclass(frozen=True, kw_only=True)
class RLConfig(PhaseConfig):
    """RL: so many steps, each of one rollout, or several, and the updates on its trees."""

    # Prompts grown at a time, over all devices: the step trains on them in minibatches of
    # batch_prompts, an update each. None: batch_prompts, one minibatch
    rollout_prompts: int | None = None
    minibatches: int | None = None  # of a step; None: as many as a rollout has
    # DAPO's: a tree whose rewards do not differ leaves its place to one of a further rollout
    dynamic_sampling: bool = False
    max_rollouts: int = 4  # of a step, with dynamic_sampling; trees left without a difference stay

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grown_prompts < 1 or self.grown_prompts % self.batch_prompts:
            raise UserError(
                f"rl.rollout_prompts = {self.rollout_prompts} is not divisible by "
                f"rl.batch_prompts = {self.batch_prompts}, the prompts of an update; choose a "
                "multiple"
            )
        held = self.grown_prompts // self.batch_prompts
        count, rollouts = self.step_minibatches, self.max_rollouts
        if not 1 <= count <= held:
            raise UserError(
                f"rl.minibatches = {count}, but a rollout of {self.grown_prompts} prompts has "
                f"{held} of rl.batch_prompts = {self.batch_prompts}: choose 1 to {held}, or "
                f"rl.rollout_prompts = {max(count, 1) * self.batch_prompts}"
            )
        require(rollouts >= 1, "rl.max_rollouts", rollouts, "1 or more")
        if not self.dynamic_sampling and count < held:
            raise UserError(
                f"rl.minibatches = {count} of the {held} of a rollout, without "
                "rl.dynamic_sampling: trees that teach would be thrown away; leave it at None, or "
                "set rl.dynamic_sampling"
            )
        if not self.dynamic_sampling and rollouts != type(self).max_rollouts:
            raise UserError(
                f"rl.max_rollouts = {rollouts} without rl.dynamic_sampling: a step has one rollout"
            )
        if self.dynamic_sampling and rollouts == 1 and count == held:
            raise UserError(
                "rl.dynamic_sampling with rl.max_rollouts = 1 changes nothing where a step trains "
                "on a whole rollout; raise rl.max_rollouts, or let a rollout have more minibatches "
                "(rl.rollout_prompts) than a step (rl.minibatches)"
            )

    @property
    def grown_prompts(self) -> int:
        """Prompts of a rollout."""
        return self.batch_prompts if self.rollout_prompts is None else self.rollout_prompts

    @property
    def step_minibatches(self) -> int:
        """Minibatches of a step."""
        held = self.grown_prompts // self.batch_prompts
        return held if self.minibatches is None else self.minibatches

    @property
    def trained_prompts(self) -> int:
        """Prompts whose trees a step trains on."""
        return self.step_minibatches * self.batch_prompts


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """A weighted sum of named terms, scored in worker processes."""

    terms: tuple[RewardTerm, ...]  # the command line changes a term by its place, from 0 on
    # Processes; 0 scores inside the trainer, for debugging
    workers: ChangesNoNumber[int] = 1
    timeout_seconds: float = 5.0  # of one answer under one term; then its worker is killed
    # Of all answers of a rollout; what had no turn by then is `untried`
    step_seconds: float = 120.0
    memory_gigabytes: float = 4.0  # address space of a worker
    # Answers of a tree that must count for it to be compared; a tree with fewer teaches nothing, as
    # one whose rewards are all equal. Not counted are answers that could not be scored.
    min_scored: int = 2
    # Steps in a row in which all answers to each prompt earn the same, after which a warning says
    # what to look at; 0: never
    alike_steps: ChangesNoNumber[int] = 10

    def __post_init__(self) -> None:
        require(len(self.terms) > 0, "rewards.terms", self.terms, "one term or more")
        require(self.workers >= 0, "rewards.workers", self.workers, "0 or more")
        for name in ("timeout_seconds", "step_seconds", "memory_gigabytes"):
            require(getattr(self, name) > 0, f"rewards.{name}", getattr(self, name), "above 0")
        require(self.min_scored >= 1, "rewards.min_scored", self.min_scored, "1 or more")
        require(self.alike_steps >= 0, "rewards.alike_steps", self.alike_steps, "0 or more")
        for term in self.terms:
            wall = dict(term.options).get("wall_seconds", WALL_SECONDS)
            if term.name in CODE_TERMS and self.timeout_seconds <= float(wall):
                raise UserError(
                    f"rewards.timeout_seconds = {self.timeout_seconds}, but the sandbox gives a "
                    f"submission of reward '{term.name}' {wall} seconds: one that hangs would not "
                    "be scored, where it should fail; raise timeout_seconds, or lower the term's "
                    "option wall_seconds"
                )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation on held-out examples, apart from training samples."""

    examples: int = 512  # how many of the split, from its start
    batch_prompts: int = 64  # examples at a time, over all devices
    samples: int = 4  # sampled answers per example, each after a thought of its own
    sampling: SamplingConfig = field(default_factory=SamplingConfig)  # greedy is done besides
    # RL steps between evaluations on the validation split, SFT steps where there is no RL; 0: none
    every_steps: ChangesNoNumber[int] = 0
    # Resampled splits behind the intervals of what only a split has (AP)
    bootstrap: ChangesNoNumber[int] = 200

    def __post_init__(self) -> None:
        for name in ("examples", "batch_prompts", "samples", "bootstrap"):
            value = getattr(self, name)
            require(value >= 1, f"evaluation.{name}", value, "1 or more")
        every = self.every_steps
        require(every >= 0, "evaluation.every_steps", every, "0 (never) or more")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Settings of checkpoints: when to save, and which to keep."""

    every_steps: int = 50  # steps between checkpoints, SFT and RL alike
    keep_last: int = 2  # so many of the newest checkpoints stay
    # A name of RL's records: the checkpoint with the highest value is kept too. An eval_… one must
    # be measured where checkpoints are (evaluation.every_steps).
    best_metric: str = "reward"

    def __post_init__(self) -> None:
        require(self.every_steps >= 1, "checkpoint.every_steps", self.every_steps, "1 or more")
        require(self.keep_last >= 1, "checkpoint.keep_last", self.keep_last, "1 or more")


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """Settings that end a run which can no longer learn, with an exit code of its own."""

    # Steps in a row whose loss or gradient is not finite. At once where a checkpoint is due and the
    # state has such a value: no checkpoint is written that has.
    not_finite_steps: int = 3
    # RL steps in a row of which no answer counts: no reward, or every tree dropped
    unscored_steps: int = 5

    def __post_init__(self) -> None:
        for name in ("not_finite_steps", "unscored_steps"):
            require(getattr(self, name) >= 1, f"stop.{name}", getattr(self, name), "1 or more")


def check_terms(task: TaskConfig, terms: tuple[RewardTerm, ...]) -> None:
    """Check that every term's task exists, and that every task of a mixture has a term."""
    titles = task.titles if isinstance(task, MixtureConfig) else ()
    for term in terms:
        if term.task is not None and term.task not in titles:
            raise UserError(
                f"reward '{term.name}' is for task '{term.task}'; "
                + (f"the parts are {', '.join(titles)}" if titles else "only a mixture has parts")
            )
    for title in titles:
        if not any(term.weight and term.task in (None, title) for term in terms):
            raise UserError(
                f"no term of the reward is for task '{title}' of the mixture, whose answers would "
                "all earn 0; add a RewardTerm with that task, or one without a task"
            )


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that the numbers of a run depend on, and its launch, on which they do not."""

    name: ChangesNoNumber[str]  # the run's files go to runs/NAME
    task: AnyTaskConfig
    model: ModelConfig
    rewards: RewardConfig
    sft: PhaseConfig  # warm start by imitation
    rl: RLConfig
    tree: TreeConfig = field(default_factory=TreeConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: ChangesNoNumber[CheckpointConfig] = field(default_factory=CheckpointConfig)
    stop: ChangesNoNumber[StopConfig] = field(default_factory=StopConfig)
    # Its flags have no prefix: --mesh.fsdp 2, --runs-dir gs://BUCKET/FOLDER.
    launch: Annotated[LaunchConfig, tyro.conf.arg(name="")] = field(default_factory=LaunchConfig)
    seed: int = 0  # root of every random choice but the dataset's
    init_from: RunPath | None = None  # a run directory whose parameters replace a fresh start
    # RL steps between trees written to samples/; 0: none
    samples_every_steps: ChangesNoNumber[int] = 25
    # Where a rollout's parameters lie: `gathered` puts a whole copy in the activations' type on
    # every device; `sharded` cuts it over some, for models whose copy does not fit.
    rollout_params: ChangesNoNumber[RolloutLayout] = "gathered"
    # Devices that share a copy, of sharded ones; None: mesh.tensor
    rollout_tensor: ChangesNoNumber[int | None] = None
    # What a rollout reads: `exact`; `merged`, adapters added to their kernels; `int8`, kernels in 8
    # bits besides. The last two sample from another policy than is trained: they need
    # objective.importance_cap
    rollout_weights: RolloutWeights = "exact"
    # Logits of so many slots exist at a time; None: all
    logprob_chunk_slots: ChangesNoNumber[int | None] = None
    # How an update lays out its trees. `static`: every node in slots of its own, empty ones too;
    # `ragged`: the tokens alone, in rows as long as a microbatch's longest tree needs
    packing: ChangesNoNumber[Packing] = "static"
    # Lengths that a row may have, of equal parts of the static one, that one too. Each is compiled,
    # in a phase's first step
    row_lengths: ChangesNoNumber[int] = 6

    def __post_init__(self) -> None:
        if type(self.rl) is PhaseConfig:  # of an experiment file from before there was another
            object.__setattr__(self, "rl", RLConfig(**vars(self.rl)))
        check_name("name", self.name)
        check_values(self)
        chunk = self.logprob_chunk_slots
        require(chunk is None or chunk >= 1, "logprob_chunk_slots", chunk, "1 or more, or None")
        require(
            self.samples_every_steps >= 0, "samples_every_steps", self.samples_every_steps, "≥ 0"
        )
        require(self.row_lengths >= 2, "row_lengths", self.row_lengths, "2 or more")
        tensor = self.rollout_tensor
        require(tensor is None or tensor >= 1, "rollout_tensor", tensor, "1 or more, or None")
        if tensor is not None and self.rollout_params != "sharded":
            raise UserError(
                f"rollout_tensor = {tensor} says how many devices share a copy, but "
                f"rollout_params = {self.rollout_params} puts one on each; set rollout_params to "
                "sharded, or rollout_tensor to None"
            )
        if self.rollout_weights != "exact" and self.objective.importance_cap is None:
            raise UserError(
                f"rollout_weights = {self.rollout_weights} samples from another policy than is "
                "trained; set objective.importance_cap, to 2 for example, which corrects for it"
            )
        if self.rollout_weights == "merged" and getattr(self.model, "lora", None) is None:
            raise UserError(
                "rollout_weights = merged, but the model has no adapters; set model.lora, or leave "
                "rollout_weights at exact"
            )
        if self.objective.algorithm == "grpo" and self.tree.answers != 1:
            raise UserError(
                f"objective.algorithm = grpo with tree.answers = {self.tree.answers}: GRPO has one "
                "answer per thought; set tree.answers to 1 (and tree.thoughts to the group size)"
            )

        check_terms(self.task, self.rewards.terms)

    @property
    def run_dir(self) -> RunPath:
        """The directory of the run's files."""
        return self.launch.runs_dir / self.name


def with_launch(config: ExperimentConfig, **changes: Any) -> ExperimentConfig:
    """Return the same experiment with some fields of its launch replaced."""
    return replace(config, launch=replace(config.launch, **changes))


def updates_per_step(config: ExperimentConfig) -> int:
    """Return the updates of a step of RL: PPO's epochs times minibatches."""
    return config.objective.num_iterations * config.rl.step_minibatches


def config_to_json(config: ExperimentConfig) -> dict[str, Any]:
    """Write the experiment alone as plain JSON values; enough to repeat the run anywhere."""
    return TypeAdapter(ExperimentConfig).dump_python(config, mode="json", exclude={"launch"})


def launch_to_json(launch: LaunchConfig) -> dict[str, Any]:
    """Write a launch as plain JSON values."""
    return TypeAdapter(LaunchConfig).dump_python(launch, mode="json")


def options_to_json(config: ExperimentConfig) -> dict[str, Any]:
    """Write experiment and launch side by side, each field named as on the command line."""
    return config_to_json(config) | launch_to_json(config.launch)


def job_to_json(config: ExperimentConfig) -> dict[str, Any]:
    """Write experiment and launch as plain JSON values, for a process that does the same work."""
    return config_to_json(config) | {"launch": launch_to_json(config.launch)}


def split_launch(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a saved config into the experiment and the launch, both as JSON values.

    An earlier version saved the launch's fields among those of the experiment.
    """
    if "launch" in values:
        return {k: v for k, v in values.items() if k != "launch"}, values["launch"]
    own = {part.name for part in fields(LaunchConfig)}
    return (
        {name: value for name, value in values.items() if name not in own},
        {name: value for name, value in values.items() if name in own},
    )


def config_from_json(values: Mapping[str, Any], origin: RunPath) -> ExperimentConfig:
    """Read what `config_to_json` or `job_to_json` wrote; a launch that is not there is the default.

    `origin` is the file named in the error where the values make no config.
    """
    experiment, launch = split_launch(values)
    config: ExperimentConfig = _read(ExperimentConfig, {**experiment, "launch": launch}, origin)
    _check_known({**experiment, "launch": launch}, job_to_json(config), origin)
    return config


def launch_from_json(values: Mapping[str, Any], origin: RunPath) -> LaunchConfig:
    """Read what `launch_to_json` wrote; `origin` as above."""
    launch: LaunchConfig = _read(LaunchConfig, values, origin)
    _check_known(values, launch_to_json(launch), origin)
    return launch


def _read(kind: Any, values: Mapping[str, Any], origin: RunPath) -> Any:
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{origin} holds no config of this version: {place}: {first['msg']}; {OTHER_VERSION}"
        ) from error
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def _check_known(given: Mapping[str, Any], known: Mapping[str, Any], origin: RunPath) -> None:
    unknown = sorted(unknown_fields(given, known))
    if unknown:
        raise UserError(
            f"{origin} holds no config of this version: it has no field {', '.join(unknown)}; "
            f"{OTHER_VERSION}"
        )


OTHER_VERSION = "use the version of gmma that wrote it, or correct the file"


def of_its_types(config: ExperimentConfig, origin: RunPath | str) -> ExperimentConfig:
    """Convert every value to its field's type; `origin` is the file that the config comes from.

    Python checks no types: `seed="1"` becomes 1 here, and `seed="one"` a UserError with the field.
    """
    adapter = TypeAdapter(ExperimentConfig)
    try:
        return adapter.validate_python(adapter.dump_python(config, mode="json", warnings="none"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{origin}: {place} = {first['input']!r}: {first['msg']}") from error
    except (PydanticSerializationError, UserError) as error:
        raise UserError(f"{origin}: {error}") from error


def unknown_fields(
    given: Mapping[str, Any], known: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """List the paths of fields that one JSON config has and the other has not."""
    for name, value in given.items():
        if name not in known:
            yield prefix + name
        elif isinstance(value, Mapping):
            yield from unknown_fields(value, known[name], f"{prefix}{name}.")
