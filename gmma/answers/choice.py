"""Read the choice of an answer to a question with lettered options."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from gmma.answers.folding import fold_text
from gmma.answers.math_text import find_answer
from gmma.answers.reading import Reading

LONGEST_TEXT = 20_000  # characters; no choice is that long
LETTERS = ascii_uppercase
_LETTER = re.compile(r"\s*([A-Z])\s*", re.ASCII)
_WRAPPED = re.compile(  # (B), B., B) cat, option B: cat
    r"(?:(?:option|choice|answer)\s+)?[(\[]?([A-Za-z])\s*(?:[)\].:]+\s*(?P<text>.*)|\s*)",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_EDGES = " \t\n*_`\"'.$"


def parse_choice(
    text: str, choices: Sequence[str] = (), reading: Reading = "lenient"
) -> str | None:
    """Read the letter that a text chooses; None where it has none, or several.

    `choices` are the texts of A, B, …; without them any letter is one. Strict: the letter alone.
    Lenient: also `(B)`, `B.`, `B. cat`, "The answer is B", and the text of a choice, but not a
    letter beside the text of another choice.

    >>> parse_choice("**The answer is (b).**", ["cat", "dog"]), parse_choice("Dog", ["cat", "dog"])
    ('B', 'B')
    >>> parse_choice("A. dog", ["cat", "dog"]), parse_choice("C", ["cat", "dog"])
    (None, None)
    """
    letters = LETTERS[: len(choices)] if choices else LETTERS
    if reading == "strict":
        alone = _LETTER.fullmatch(text)
        return alone[1] if alone and alone[1] in letters else None
    if len(text) > LONGEST_TEXT:
        return None
    by_text = {fold_text(choice): letter for letter, choice in zip(LETTERS, choices, strict=False)}
    for said in (text, find_answer(text)):
        said = said.strip(_EDGES)
        if found := _WRAPPED.fullmatch(said):
            letter, beside = found[1].upper(), (found["text"] or "").strip(_EDGES)
            agrees = not choices or not beside or by_text.get(fold_text(beside)) == letter
            if letter in letters and agrees:
                return letter
        if letter := by_text.get(fold_text(said), ""):
            return letter
    return None
