"""Folding of texts that are to be compared."""

import unicodedata


def fold_text(text: str) -> str:
    r"""Fold a text for comparison: NFC, Unicode case folding, runs of white space as one space.

    >>> fold_text(" Cafe\u0301  Noir") == "caf\u00e9 noir"
    True
    """
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()
