"""A run's own words: system prompts, instructions, forms, tags and the tiny family's texts."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from tiny_digits import experiment

from gmma.config import LaunchConfig, config_from_json, config_to_json
from gmma.errors import UserError
from gmma.images.frames import STORED_PIXELS
from gmma.options.prompt import PromptConfig, Tags, TinyTemplate
from gmma.run.assembly import assemble_host, in_frame
from gmma.run.data import ExampleBatch
from gmma.run.data_report import prompt_lines
from gmma.run.feed import read_demonstrations, train_source
from gmma.run.lengths import demonstration_of
from gmma.scoring import read_texts
from gmma.tasks import code, mathematics
from gmma.tasks.configs import TaskConfig
from gmma.tasks.detection import DETECTION, DetectionConfig
from gmma.tasks.digits import DIGITS, DigitsConfig
from gmma.tasks.manipulation.dataset import ManipulationConfig, pose_question
from gmma.tasks.mixture import MIXTURE, MixtureConfig, MixturePart
from gmma.tasks.task import Demonstration, Task, ask
from gmma.text.tokenizer import load_sentencepiece
from gmma.types import Example

WORDS = {"system": "Be brief.", "instruction": "Say it."}
TAGS = Tags(think=("<reasoning>", "</reasoning>"), answer=("<result>", "</result>"))


def example(**columns):
    image = np.zeros((48, 48, 3), np.uint8)
    return Example(question="Where?", images=(image,), columns=columns, id="0", system="own")


@dataclass(frozen=True, kw_only=True)
class OwnConfig(TaskConfig):
    """A user's task, which says nothing of words."""

    name: str = "own"


OWN = Task(config=OwnConfig, source=None, metrics=None, headline="")


@pytest.mark.parametrize(
    ("task", "config"), [(DIGITS, DigitsConfig), (OWN, OwnConfig), (DETECTION, DetectionConfig)]
)
def test_every_task_is_asked_in_the_words_of_its_config(task, config):
    size = [48, 48]
    record = example(answer=[], image_size=size, pixels=size, labels=[], crowd=[])
    asked = ask(task, config(**WORDS), record, STORED_PIXELS)
    assert asked.question.startswith("Where? Say it.")
    assert asked.system == "Be brief."
    plain = ask(task, config(), record, STORED_PIXELS)
    assert "Say it." not in plain.question
    assert plain.system == "own"
    assert ask(task, config(system=""), record, STORED_PIXELS).system == ""


def test_tasks_of_text_put_the_instruction_where_theirs_stood():
    for module, config in ((mathematics, mathematics.MathConfig), (code, code.CodeConfig)):
        assert module.pose_question(config(**WORDS), "7 + 5?") == "7 + 5?\nSay it."
        assert module.pose_question(config(instruction=""), "7 + 5?") == "7 + 5?"
        assert module.pose_question(config(), "7 + 5?").startswith("7 + 5?\n")
    assert pose_question(ManipulationConfig(**WORDS), "Open it.") == "Open it. Say it."


@pytest.mark.parametrize(
    "config", [mathematics.MathConfig, code.CodeConfig, ManipulationConfig, DetectionConfig]
)
def test_an_instruction_that_no_prompt_would_have_is_refused(config):
    explain = "nothing" if config is DetectionConfig else False
    with pytest.raises(UserError, match=r"instruction = 'Say it.' with explain = "):
        config(explain=explain, instruction="Say it.")


def test_parts_of_a_mixture_have_words_of_their_own_or_one_system_prompt():
    parts = (MixturePart(task=DigitsConfig(instruction="Say it.")),)
    record = example(answer=[], labels=[], task="digits")
    asked = ask(MIXTURE, MixtureConfig(parts=parts, system="Be brief."), record, STORED_PIXELS)
    assert (asked.question, asked.system) == ("Where? Say it.", "Be brief.")
    own = (MixturePart(task=DigitsConfig(system="Alone.")),)
    assert ask(MIXTURE, MixtureConfig(parts=own), record, STORED_PIXELS).system == "Alone."
    with pytest.raises(UserError, match="digits one of its own; leave one of them"):
        MixtureConfig(parts=own, system="Be brief.")
    with pytest.raises(UserError, match="an instruction says how to answer one task"):
        MixtureConfig(parts=parts, instruction="Say it.")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The tiny job in words of its own, of which its vocabulary has neither tags nor é and 数."""
    base = experiment()
    return replace(
        base,
        task=replace(base.task, system="Sois bref, é.", instruction="数!"),
        prompt=PromptConfig(form="Think, then answer.", tags=TAGS),
        model=replace(base.model, template=TinyTemplate(image=("[", "]"), closing="\nA: ")),
        tree=replace(base.tree, prompt_tokens=120, answer_tokens=9),  # a token more at each tag
        launch=LaunchConfig(data_dir=tmp_path_factory.mktemp("words")),
    )


@pytest.fixture(scope="module")
def parts(config):
    return assemble_host(config)


def test_a_run_is_asked_in_its_own_words(parts):
    source = train_source(parts)
    question = source[0].question
    _, text = prompt_lines(parts, in_frame(parts, source[0]))
    assert text == (
        f"Sois bref, é.\n[[16 x <image>]]{question} 数!\nThink, then answer.\nA: <reasoning>"
    )
    assert in_frame(parts, source[0]).tags == TAGS.all
    for tag in TAGS.all:
        assert len(parts.tokenizer.encode(tag)) == 1


def test_demonstrations_have_the_tags_of_the_run_and_are_read_by_them(parts):
    source = train_source(parts)
    examples = tuple(in_frame(parts, source[row]) for row in range(4))
    rollout = read_demonstrations(
        parts, ExampleBatch(examples=examples, positions=(0, 1, 2, 3), number=0)
    )
    texts = read_texts(rollout, parts.tokenizer, parts.template.tags)
    for row, one in enumerate(examples):
        shown = demonstration_of(parts, one, row)
        assert (texts.thoughts[row][0], texts.answers[row][0][0]) == (shown.thought, shown.answer)
        assert texts.responses[row][0][0] == (
            f"<reasoning>{shown.thought}</reasoning><result>{shown.answer}</result>"
        )
    assert texts.well_formed.all()
    assert not read_texts(rollout, parts.tokenizer).well_formed.any()


def test_a_demonstration_that_holds_a_tag_is_refused(parts):
    def demonstrate(config, example, rng):
        return Demonstration(thought="so </reasoning>", answer="7")

    careless = replace(parts, task=replace(parts.task, demonstrate=demonstrate))
    first = train_source(parts)[0]
    with pytest.raises(UserError, match=f"record {first.id} holds the tag </reasoning> itself"):
        demonstration_of(careless, first, 0)


def test_words_of_a_run_go_to_its_config_and_back(config):
    saved = config_to_json(config)
    assert config_from_json(saved, "here") == replace(config, launch=LaunchConfig())
    older = {name: value for name, value in saved.items() if name != "prompt"}
    assert config_from_json(older, "here").prompt == PromptConfig()


def test_without_words_the_vocabulary_is_the_task_s(config):
    usual = assemble_host(replace(experiment(), launch=config.launch))
    path = DIGITS.tokenizer_path(usual.config.task, config.launch.data_dir)
    assert usual.tokenizer.vocab_size == load_sentencepiece(path).vocab_size
