"""Options of a prompt that are the user's: the words of a run, and the text of the tiny family."""

from dataclasses import dataclass, field

from gmma.options.checks import require

IMAGE_MARK = "<image>"  # in a question: an image stands here
SHORTEST_TAG = 3  # characters: a shorter one would stand within ordinary text


def require_no_mark(name: str, text: str) -> None:
    """Raise UserError for words of a prompt that say `<image>` where no image will stand."""
    rule = f"words without {IMAGE_MARK}: an image stands in the question, where that says so"
    require(IMAGE_MARK not in text, name, repr(text[:80]), rule)


@dataclass(frozen=True, kw_only=True)
class Tags:
    """The four texts by which a reply is read."""

    think: tuple[str, str] = ("<think>", "</think>")  # before and after a thought
    answer: tuple[str, str] = ("<answer>", "</answer>")  # before and after an answer

    def __post_init__(self) -> None:
        for name, pair in vars(self).items():
            for tag in pair:
                whole = len(tag) >= SHORTEST_TAG and tag == tag.strip()
                rule = f"texts of {SHORTEST_TAG} characters or more, without white space around"
                require(whole, f"prompt.tags.{name}", pair, rule)
        for tag in self.all:
            require(IMAGE_MARK not in tag, "prompt.tags", self.all, f"texts without {IMAGE_MARK}")
            others = [other for other in self.all if tag in other]
            rule = f"four texts of which none is part of another, as {tag} is"
            require(len(others) == 1, "prompt.tags", self.all, rule)

    @property
    def all(self) -> tuple[str, str, str, str]:
        """All four, in the order of a reply."""
        return (*self.think, *self.answer)


DEFAULT_TAGS = Tags()


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Words of a run's prompts whatever its task is, and the tags of a reply."""

    # How to reply, behind a question and its task's own instruction. None: gmma's words, with the
    # tags below, for a model of a Hugging Face directory, and none for the tiny family; "": none
    form: str | None = None
    tags: Tags = field(default_factory=Tags)

    def __post_init__(self) -> None:
        bare = self.form is None or self.form == self.form.strip()
        require_no_mark("prompt.form", self.form or "")
        # Some chat templates strip a turn, and would take it away.
        require(bare, "prompt.form", repr(self.form), "a text without white space around it")

    @property
    def spelt_form(self) -> str:
        """The form as a model of a Hugging Face directory is asked for it."""
        if self.form is not None:
            return self.form
        (think, thought), (answer, answered) = self.tags.think, self.tags.answer
        return (
            f"Think first, inside {think} and {thought}. "
            f"Then give the final answer alone, inside {answer} and {answered}."
        )


@dataclass(frozen=True, kw_only=True)
class TinyTemplate:
    """Texts that the tiny family's prompts have round a question."""

    opening: str = ""  # before everything, where there is no system prompt
    system: tuple[str, str] = ("", "\n")  # before and after a system prompt
    image: tuple[str, str] = ("", "")  # before and after the slots of an image
    closing: str = ""  # behind the question, before the opened thought

    def __post_init__(self) -> None:
        for name, text in vars(self).items():
            require_no_mark(
                f"model.template.{name}", text if isinstance(text, str) else " ".join(text)
            )
