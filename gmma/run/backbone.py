"""The network of a run with all that belongs to it, from either kind of model config.

tiny        parameters from its `init`, a patch stem taught to see, the task's own tokenizer
pretrained  everything from a Hugging Face directory; adapters on top where asked for
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
from jax.sharding import Mesh

from gmma.config import ExperimentConfig
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.families.tiny.stem import teach_stem
from gmma.hardware.sharding import param_shardings
from gmma.images.processor import ImageProcessor, fixed_size_processor, no_image_processor
from gmma.models.lora import adapted_policy, add_adapters
from gmma.models.policy import Policy, stored_as
from gmma.options.networks import Resolution
from gmma.options.prompt import DEFAULT_TAGS
from gmma.porting.pretrained import (
    Described,
    check_weights,
    describe_pretrained,
    image_processor,
    read_weights,
)
from gmma.tasks.configs import TaskConfig
from gmma.tasks.defaults import own_tokenizer
from gmma.tasks.task import Task
from gmma.text.prompt import PromptTemplate, tiny_template
from gmma.text.tokenizer import Tokenizer, load_sentencepiece, missing_signs, with_pieces
from gmma.types import Params

NEVER_TRAINED = "params/vision/head/"  # carried through; the network reads nothing of it


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A policy, what turns records into its inputs, and where its parameters come from."""

    policy: Policy
    tokenizer: Tokenizer
    template: PromptTemplate
    processor: ImageProcessor
    trained: Callable[[str], bool]  # whether the parameter at a path `a/b/c` gets gradients
    start: Callable[[Mesh], Params]  # the run's first parameters, laid out on the mesh
    # The frozen parameters are a base that its directory keeps, under adapters: checkpoints leave
    # them away, and the reference policy is the base alone.
    adapted: bool = False
    # Raises UserError where `start` could not work; looks at headers only.
    check_start: Callable[[], None] = lambda: None


def make_backbone(config: ExperimentConfig, task: Task) -> Backbone:
    """Return the backbone that `config.model` asks for; the task's dataset is built."""
    if isinstance(config.model, PretrainedConfig):
        return pretrained_backbone(config, config.model, task)
    return tiny_backbone(config, config.model, task)


def tiny_backbone(config: ExperimentConfig, model: TinyConfig, task: Task) -> Backbone:
    """Return the tiny family, which speaks the task's own vocabulary."""
    template = tiny_template(model.template, config.prompt)
    own = load_sentencepiece(own_tokenizer(task, config.task, config.launch.data_dir))
    tokenizer = with_words(own, template, config.task)
    if tokenizer.image_token is None:
        raise UserError(f"the tokenizer of task {config.task.name} has no image token")
    policy = tiny_policy(model, vocab_size=tokenizer.vocab_size, image_token=tokenizer.image_token)

    def start(mesh: Mesh) -> Params:
        del mesh  # small enough to lie anywhere
        params = jax.jit(policy.init)(jax.random.key(config.seed))
        if task.patches is not None and model.stem_steps and model.images:
            params = teach_stem(params, model, partial(task.patches, config.task), config.seed)
        return params

    return Backbone(
        policy=policy,
        tokenizer=tokenizer,
        template=template,
        processor=fixed_size_processor(model.image_tokens, model.image_pixels, model.images),
        trained=lambda path: True,
        start=start,
    )


def with_words(tokenizer: Tokenizer, template: PromptTemplate, task: TaskConfig) -> Tokenizer:
    """Let a task's own vocabulary spell a run's words: its tags as tokens, and signs it has not.

    With no words of the run's own it is the tokenizer as it is.
    """
    tags = [tag for tag in template.tags.all if tag not in DEFAULT_TAGS.all]
    texts = [template.opening, template.image_open, template.image_close, template.closing]
    texts += [task.instruction or ""]
    if task.system:
        texts += [*(template.system or ()), task.system]
    return with_pieces(tokenizer, [*tags, *missing_signs(tokenizer, texts)])


def pretrained_backbone(config: ExperimentConfig, model: PretrainedConfig, task: Task) -> Backbone:
    """Return a ported family from its directory; no weights are read before `start`."""
    described = describe_pretrained(
        model.directory,
        model.dtype,
        remat=model.remat,
        attention=model.attention,
        architecture=model.architecture,
        thinking=model.thinking,
        words=config.prompt,
    )
    if described.tokenizer is None:
        raise UserError(f"{model.directory} has no tokenizer; copy that of the original model")
    trained = trained_by(config, model)
    policy = pretrained_policy(described, model, trained)
    buckets = model.image_buckets
    if buckets is None:
        full = described.family.full_bucket(described.policy.config, config.tree.prompt_tokens)
        buckets = (full if sees_images(config, task) else 0,)
    processor = image_processor(described, buckets, model.resolution)
    if processor is not None:
        check_resolution(model.resolution, processor, config.tree.prompt_tokens)

    def start(mesh: Mesh) -> Params:
        key = jax.random.key(config.seed)
        abstract = jax.eval_shape(policy.init, key)
        shardings = param_shardings(policy, abstract, mesh)
        dtypes = {
            jax.tree_util.keystr(path, simple=True, separator="/"): str(leaf.dtype)
            for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
        }
        placed = {"params": shardings["params"]}
        params, _ = read_weights(described, dtypes.__getitem__, placed)
        if model.lora is None:
            return params
        adapt = lambda base, key: add_adapters(base, model.lora, key)["lora"]  # noqa: E731
        return {**params, "lora": jax.jit(adapt, out_shardings=shardings["lora"])(params, key)}

    return Backbone(
        policy=policy,
        tokenizer=described.tokenizer,
        template=described.template,
        processor=no_image_processor() if processor is None else processor,
        trained=trained,
        start=start,
        adapted=model.lora is not None,
        check_start=partial(check_weights, described),
    )


def trained_by(config: ExperimentConfig, model: PretrainedConfig) -> Callable[[str], bool]:
    """Return which parameters a run trains; of a directory that is only looked at, none.

    Those lie in the model's own type then. Adapters, and what another run trained, are held as
    their checkpoint has them, whether or not there are steps to come.
    """
    steps = config.sft.steps + config.rl.steps
    if steps or model.lora is not None or config.init_from is not None:
        return partial(is_trained, model)
    return lambda path: False


def check_resolution(wanted: Resolution, processor: ImageProcessor, slots: int) -> None:
    """Raise UserError where a user's resolution lets one image have more tokens than a prompt."""
    most = processor.most_tokens
    given = [f"model.{name} = {value}" for name, value in vars(wanted).items() if value is not None]
    if given and most is not None and most >= slots:
        raise UserError(
            f"with {' and '.join(given)} an image may have {most} tokens, but there are {slots} "
            f"prompt slots; set {processor.fewer_tokens(slots - 1, 1.0)}, or tree.prompt_tokens "
            f"above {most}"
        )


def pretrained_policy(
    described: Described, model: PretrainedConfig, trained: Callable[[str], bool]
) -> Policy:
    """Return the directory's policy, parameters in the types they are kept in, with adapters."""
    base = stored_as(
        described.policy, lambda path: "float32" if trained(path) else str(model.dtype)
    )
    return base if model.lora is None else adapted_policy(base, model.lora)


def is_trained(model: PretrainedConfig, path: str) -> bool:
    """Return whether a parameter is trained.

    Adapters alone where there are any; else all but a frozen tower and what nothing reads.
    """
    if model.lora is not None:
        return path.startswith("lora/")
    frozen = path.startswith("params/vision/") and model.freeze_vision
    return not (frozen or path.startswith(NEVER_TRAINED))


def sees_images(config: ExperimentConfig, task: Task) -> bool:
    """Return whether any of the task's training records has an image; stops at the first."""
    source = task.source(config.task, config.launch.data_dir, "train")
    return any(source[row].images for row in range(len(source)))
