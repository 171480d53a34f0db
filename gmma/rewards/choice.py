"""The reward of one choice among lettered options."""

from collections.abc import Sequence

from gmma.answers.choice import LETTERS, parse_choice
from gmma.answers.reading import check_reading


def choice_reward(
    answers: Sequence[str],
    *,
    thoughts: Sequence[str],
    answer: Sequence[object],
    choices: Sequence[Sequence[str]] = (),
    reading: str = "lenient",
    **columns: Sequence,
) -> list[float | None]:
    """Return 1 where the answer chooses the true option (`gmma.answers.choice`), else 0.

    The column `answer` is the option's letter, `choices` the texts of the options, where they are
    known; None where the truth is no capital letter.
    """
    how = check_reading(reading)
    told = choices or [()] * len(answers)
    return [
        float(parse_choice(text, options or (), how) == gold)
        if isinstance(gold, str) and len(gold) == 1 and gold in LETTERS
        else None
        for text, gold, options in zip(answers, answer, told, strict=True)
    ]
