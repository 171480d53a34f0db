"""Task `manipulation`: work one part of an articulated object by one push or pull in a simulator.

    question  Open the red drawer.                           and how to answer, see `dataset`
    thought   The red drawer is within [30, 64, 118, 92]. It slides, and at [74, 78] its surface
              looks the way it has to go: pull.
    answer    {"point": [74, 78], "action": "pull"}

The picture is MuJoCo's; the answer is tried in MuJoCo (`gmma.simulator`), so what counts is whether
the joint moves past its goal, not whether the words agree with the oracle's.
"""

from pathlib import Path

from gmma.rewards.terms import RewardTerm
from gmma.tasks.manipulation.dataset import ManipulationConfig, source, storage
from gmma.tasks.manipulation.picture import LEGEND, draw
from gmma.tasks.manipulation.teacher import demonstrate, metrics
from gmma.tasks.manipulation.vocabulary import prepare_tokenizer, tokenizer_path
from gmma.tasks.storage import content_by, prepare
from gmma.tasks.task import Task, TermOptions, reading_options


def build(config: ManipulationConfig, data_dir: Path) -> None:
    """Draw the scenes, some ten a second on one core, and train the tokenizer, where missing."""
    prepare(storage(config, data_dir))
    prepare_tokenizer(config, data_dir)


def term_options(config: ManipulationConfig, term: RewardTerm) -> TermOptions:
    """Return how the terms of the reward read an answer."""
    return reading_options(config.reading, "touch", term)


MANIPULATION = Task(
    config=ManipulationConfig,
    build=build,
    source=source,
    content=content_by(storage),
    demonstrate=demonstrate,
    metrics=metrics,
    headline="success",
    draw=draw,
    legend=LEGEND,
    term_options=term_options,
    tokenizer_path=tokenizer_path,
    instructs=True,
)
