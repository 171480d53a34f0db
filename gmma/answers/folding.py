"""Folding of texts that are to be compared."""


def fold_text(text: str) -> str:
    """Lower case (Unicode case folding), runs of white space as one space, none at the ends."""
    return " ".join(text.split()).casefold()
