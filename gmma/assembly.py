"""From a config to the parts of a run: task, policy, tokenizer, processor, stops, mesh."""

from collections.abc import Callable
from dataclasses import dataclass

from jax.sharding import Mesh

from gmma.config import ExperimentConfig
from gmma.data import ImageProcessor, fixed_size_processor
from gmma.errors import UserError
from gmma.models.policy import Policy
from gmma.models.tiny import tiny_policy
from gmma.sharding import make_mesh
from gmma.tasks import TASKS
from gmma.tasks.prompt import ANSWER_CLOSE, THINK_CLOSE, TINY_TEMPLATE, PromptTemplate
from gmma.tasks.task import Task
from gmma.tokenizer import Tokenizer, load_sentencepiece
from gmma.tree.stops import TreeStops, tree_stops


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What every command needs of an experiment."""

    config: ExperimentConfig
    task: Task
    policy: Policy
    trained: Callable[[str], bool]  # whether the parameter at a path `a/b/c` gets gradients
    tokenizer: Tokenizer
    template: PromptTemplate
    processor: ImageProcessor
    stops: TreeStops
    mesh: Mesh


def assemble(config: ExperimentConfig) -> Parts:
    """Build the dataset where it is missing, and every part from its section of the config."""
    task = TASKS[config.task.name]
    task.build(config.task, config.data_dir)
    if task.tokenizer_path is None:
        raise UserError(f"task {config.task.name} has no tokenizer for the tiny family")
    tokenizer = load_sentencepiece(task.tokenizer_path(config.task, config.data_dir))
    if tokenizer.image_token is None:
        raise UserError(f"the tokenizer of task {config.task.name} has no image token")
    policy = tiny_policy(
        config.model, vocab_size=tokenizer.vocab_size, image_token=tokenizer.image_token
    )
    closing = tokenizer.encode(THINK_CLOSE) if config.tree.unfinished == "close" else []
    if len(closing) >= config.tree.thought_tokens:
        raise UserError(
            f"tree.thought_tokens = {config.tree.thought_tokens} leaves no room beside the closing "
            f"tag's {len(closing)} tokens; set it to {len(closing) + 1} or more"
        )
    return Parts(
        config=config,
        task=task,
        policy=policy,
        trained=lambda path: True,
        tokenizer=tokenizer,
        template=TINY_TEMPLATE,
        processor=fixed_size_processor(config.model.image_tokens),
        stops=tree_stops(
            thought=THINK_CLOSE,
            answer=ANSWER_CLOSE,
            closing=closing,
            token_bytes=tokenizer.token_bytes,
            end_tokens=tokenizer.stop_tokens,
        ),
        mesh=make_mesh(config.mesh),
    )
