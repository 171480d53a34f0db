"""Folding of texts that are to be compared."""

import unicodedata


def fold_text(text: str) -> str:
    r"""NFC, lower case (Unicode case folding), runs of white space as one space, none at the ends.

    >>> fold_text(" Cafe\u0301  Noir") == "caf\u00e9 noir"
    True
    """
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()
