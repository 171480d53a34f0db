"""The notation that models write coordinates in: text as nested groups of numbers, words and keys.

A reader of JSON that goes on where JSON breaks off. Prose, code fences, Markdown and LaTeX around
a group are passed over, so that what is left is what a person would call the answer:

    Sure! ```JSON          →  [ {bbox_2d: [1, 2, 3, 4], label: "cup"} ]
    [{'bbox_2d': (1, 2, 3, 4), "label": "cup",}].

The text is read once from left to right, in time proportional to its length, and no text raises.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

LONGEST_TEXT_CHARACTERS = 20_000  # no answer has as many; a longer text has no groups
_DEEPEST = 16  # groups within groups

_NUMBER = r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?"
_TOKEN = re.compile(
    r"(?P<tag><\|?/?[A-Za-z]\w*+\|?>)"  # <|box_start|>, </box>
    rf"|(?P<number>{_NUMBER})"
    r"|(?P<command>\\[A-Za-z]++)"  # LaTeX's \left
    r"|(?P<word>[^\W\d]\w*+(?:['-]\w++)*+)"
    r"|(?P<open>[\[({])"
    r"|(?P<close>[\])}])"
    r"|(?P<colon>[:=])"
    r"|(?P<comma>[,;])"
    r"|(?P<quote>[\"'])"
    r"|(?P<newline>\n)"
    r"|(?P<dots>\.\.++)"
    r"|(?P<quiet>[\s*`$\\|])"  # spaces, Markdown, LaTeX
    r"|(?P<other>.)",
    re.DOTALL,
)
_STRINGS = {  # a single quote inside a word is no end, as in 'driver's cup'
    '"': re.compile(r'"((?:[^"\\\n]|\\.)*+)"'),
    "'": re.compile(r"'((?:[^'\\\n]|\\.|'(?![^\S\n]*+[\]}):=,;\n]|[^\S\n]*+\Z))*+)'"),
}
_WHOLE_NUMBER = re.compile(rf"\s*+({_NUMBER})\s*+(?:px|pixels?)?+\s*+")
_DIGIT = re.compile("[0-9]")
_FIRST_NUMBER = re.compile(r"(?<![\w.])[-+]?\.?[0-9]")
_CLAUSE = re.compile(r"[;\n→]|->|<[^<>\n]{1,40}>")
_UNITS = frozenset(("px", "pixel", "pixels"))
_NO_NUMBERS = frozenset(("nan", "inf", "infinity", "null", "none"))
_CLOSES = {"]": "[", ")": "(", "}": "{"}
_OPENING_TAGS = frozenset(("box", "box_start", "bbox", "point", "point_start", "points"))
_CLOSING_TAGS = frozenset(("box", "box_end", "bbox", "point", "point_end", "points"))
_NAMING_TAGS = frozenset(("ref", "object_ref_end"))
_TYPOGRAPHY = str.maketrans(  # one character for one: places in the text stay the same
    "０１２３４５６７８９，、；：（）［］【】｛｝．−–“”‘’\u00a0",
    "0123456789,,;:()[][]{}.--\"\"'' ",
)
_NEGATION = re.compile(  # "not the box": at most three words before what is denied
    r"(?:^|\s)(?:not|never|no|neither|nor|without|\w+n't)(?!\s+(?:sure|certain)\b)"
    r"(?:\s+\S+){0,3}\s*\Z"
)
_NEGATION_CHARACTERS = 60  # before a group; looked at for a negation


class Word(str):
    """Words that stand unquoted within a group."""

    __slots__ = ()


@dataclass(slots=True)
class Group:
    """Content between two brackets, or between the ends of the text (`depth` 0)."""

    depth: int = 0
    bracket: str = ""
    items: "list[tuple[str | None, Value]]" = field(default_factory=list)  # (key, value)
    closed: bool = False
    broken: bool = False  # holds signs that no list of numbers has, such as % or two commas
    denied: bool = False  # "not" stands before it
    quoted: bool = False  # read from a quoted text; text within it stays text
    before: str = ""  # at depth 1, the words right before it

    def groups(self) -> "Iterator[tuple[str | None, Group]]":
        """Yield the groups directly within this one, with their keys; also those that are text."""
        for key, value in self.items:
            if (inner := self.as_group(value)) is not None:
                yield key, inner

    def as_group(self, value: "Value") -> "Group | None":
        """Return a value of this group, or the group that its text spells, if it is a group."""
        if isinstance(value, Group):
            return value
        return None if self.quoted else _quoted_group(value)


Value = float | str | Group


def read_notation(text: str) -> Group:
    """Read the groups of a text, under one of depth 0 whose prose is left out."""
    if len(text) > LONGEST_TEXT_CHARACTERS:
        return Group(closed=True)
    return _Builder(text).build()


def _quoted_group(value: float | str) -> Group | None:
    """Read the group that a quoted text spells, as in `"[1, 2]"` or `"1, 2"`; None without one."""
    if not isinstance(value, str) or isinstance(value, Word):
        return None
    inner = value.strip()
    if inner[:1] not in tuple("[({0123456789-+.") or len(inner) < 3:
        return None
    found = _Builder(inner, quoted=True).build()
    groups = [item for _, item in found.items if isinstance(item, Group)]
    if len(groups) == 1 and inner[:1] in "[({":
        return groups[0]
    runs = bare_runs(inner)
    if runs is None or len(runs) != 1 or len(runs[0]) < 2:
        return None
    return Group(depth=1, items=[(None, number) for number in runs[0]], closed=True)


def as_number(value: object) -> float | None:
    """Return a number, or a quoted text of one, as a float; None if it is neither."""
    if isinstance(value, float):
        return value
    if not isinstance(value, str) or isinstance(value, Word):
        return None
    matched = _WHOLE_NUMBER.fullmatch(value)
    return float(matched[1]) if matched else None


def bare_runs(text: str) -> list[list[float]] | None:
    """Read numbers without brackets, one run a line or clause, perhaps behind words without digits.

    None where other digits or words stand among them.

    >>> bare_runs("The box is 1, 2, 3, 4."), bare_runs("10, 20; 30, 40"), bare_runs("1, 2 or 3, 4")
    ([[1.0, 2.0, 3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]], None)
    """
    if len(text) > LONGEST_TEXT_CHARACTERS:
        return None
    runs = []
    for line in _CLAUSE.split(text.translate(_TYPOGRAPHY)):
        first = _FIRST_NUMBER.search(line)
        if first is None and not _DIGIT.search(line):
            continue
        if first is None or _DIGIT.search(line, 0, first.start()):
            return None
        words = re.split(r"[,\s]+", line[first.start() :].strip(" \t.,*`$"))
        numbers = [as_number(word) for word in words if word.lower() not in _UNITS]
        if None in numbers or _is_denied(line[: first.start()]):
            return None
        runs.append([number for number in numbers if number is not None])
    return runs


class _Builder:
    """A pass over the tokens; `stack` holds the groups that are open."""

    def __init__(self, text: str, quoted: bool = False) -> None:
        self.original, self.text = text, text.translate(_TYPOGRAPHY)
        self.start = len(text) - len(self.text.lstrip())
        self.quoted = quoted
        self.stack = [Group(quoted=quoted)]
        self.open_brackets = dict.fromkeys("[({<", 0)
        self.key: str | None = None
        self.words: tuple[int, int] | None = None  # where a row of words begins and ends
        self.at_value = True  # where a quote begins a text
        self.after_comma = True
        self.after_keyed = False  # what stands before is a number with a key
        self.number_end = -1
        self.unclosed_until = {'"': -1, "'": -1}  # so that no line is searched twice for an end

    def build(self) -> Group:
        at = 0
        while at < len(self.text):
            matched = _TOKEN.match(self.text, at)
            assert matched is not None  # some alternative takes any character
            take = getattr(self, f"take_{matched.lastgroup}", None)
            at = (take and take(matched)) or matched.end()
        self.end_words()
        self.stack[0].closed = True
        return self.stack[0]

    @property
    def group(self) -> Group:
        return self.stack[-1]

    def add(self, value: Value) -> None:
        is_number = isinstance(value, float)
        if is_number and self.key is None and self.after_keyed and not self.group.depth:
            self.group.broken = True  # x1 = 1, 2
        self.after_keyed = is_number and self.key is not None
        if self.group.depth or self.key is not None or not isinstance(value, Word | float):
            self.group.items.append((self.key, value))
        self.key, self.at_value, self.after_comma = None, False, False

    def end_words(self) -> None:
        """End the words before this place: they were an unquoted value, or prose."""
        if self.words is not None:
            start, end = self.words
            self.words = None
            self.add(Word(self.original[start:end]))

    def name(self) -> None:
        """Take what stands before this place as the key of what follows."""
        if self.words is not None:
            start, end = self.words
            self.key, self.words = self.original[start:end], None
        elif self.group.items and not self.after_comma:
            key, value = self.group.items[-1]
            if key is None and not isinstance(value, Group):
                self.group.items.pop()
                self.key = value if isinstance(value, str) else f"{value:g}"
        self.at_value = True

    def begin(self, bracket: str, at: int) -> None:
        denied, before = False, ""
        if self.words is not None:
            start, end = self.words
            denied = _is_denied(self.text[start:end])
            before = "" if self.group.depth else self.original[start:end]
            if end == at:  # the name of a type, as in Point(1, 2)
                self.words = None
        self.end_words()
        depth = self.group.depth + 1
        inner = Group(depth, bracket, denied=denied, quoted=self.quoted, before=before)
        if inner.depth > _DEEPEST:
            self.group.broken = True
            return
        self.add(inner)
        self.stack.append(inner)
        self.open_brackets[bracket] += 1
        self.at_value = self.after_comma = True

    def end(self, bracket: str) -> None:
        """Close the innermost group of that bracket, and what is open within it.

        Where none is open the innermost of another bracket is closed: `[1, 2)` has a wrong bracket,
        not one too many.
        """
        self.end_words()
        self.key = None
        while self.group.depth:
            inner = self.stack.pop()
            inner.closed = True
            right = inner.bracket == bracket or not self.open_brackets[bracket]
            self.open_brackets[inner.bracket] -= 1
            if right:
                break
        self.at_value = self.after_comma = False

    def take_tag(self, matched: re.Match) -> None:
        tag = matched[0].strip("<|/>").lower()
        closing = "/" in matched[0] or tag.endswith("_end")
        if tag in _NAMING_TAGS and closing:
            self.name()
        elif closing and tag in _CLOSING_TAGS:
            self.end("<")
        elif not closing and tag in _OPENING_TAGS:
            self.begin("<", matched.start())
        else:
            self.end_words()

    def take_number(self, matched: re.Match) -> None:
        self.end_words()
        if self.group.depth and self.number_end == matched.start():  # 10-20, 1.2.3
            self.group.broken = True
        self.number_end = matched.end()
        self.add(float(matched[0]))

    def take_word(self, matched: re.Match) -> None:
        near = 0 <= matched.start() - self.number_end <= 1 and self.number_end >= 0
        gap = self.text[self.number_end : matched.start()] if near else None
        if gap in ("", " ") and matched[0].lower() in _UNITS:
            return
        if self.group.depth and (gap == "" or matched[0].lower() in _NO_NUMBERS):  # 3rd, nan
            self.group.broken = True
        start = matched.start() if self.words is None else self.words[0]
        self.words = (start, matched.end())
        self.at_value = self.after_keyed = False

    def take_open(self, matched: re.Match) -> None:
        self.begin(matched[0], matched.start())

    def take_close(self, matched: re.Match) -> None:
        self.end(_CLOSES[matched[0]])

    def take_colon(self, matched: re.Match) -> None:
        self.name()

    def take_comma(self, matched: re.Match) -> None:
        self.end_words()
        if self.group.depth and self.after_comma:
            self.group.broken = True
        self.at_value = self.after_comma = True
        self.key = None

    def take_quote(self, matched: re.Match) -> int | None:
        quote, at = matched[0], matched.start()
        # In prose a single quote is an apostrophe.
        begins = self.at_value and (quote == '"' or self.group.depth or at == self.start)
        if not begins or at < self.unclosed_until[quote]:
            return None
        string = _STRINGS[quote].match(self.text, at)
        if string is None:
            end = self.text.find("\n", at)
            self.unclosed_until[quote] = end if end >= 0 else len(self.text)
            return None
        self.end_words()
        self.add(_unescape(self.original[slice(*string.span(1))]))
        return string.end()

    def take_newline(self, matched: re.Match) -> None:
        self.end_words()
        if not self.group.depth:
            self.at_value, self.key = True, None

    def take_other(self, matched: re.Match) -> None:
        self.end_words()
        if self.group.depth and matched[0] != ".":
            self.group.broken = True

    def take_dots(self, matched: re.Match) -> None:
        self.end_words()
        self.group.broken = self.group.depth > 0


def _is_denied(words: str) -> bool:
    return _NEGATION.search(words[-_NEGATION_CHARACTERS:].lower()) is not None


def _unescape(text: str) -> str:
    r"""Return a quoted text without JSON's escapes.

    >>> _unescape(r"caf\u00e9, \"x\"")
    'café, "x"'
    """

    def character(matched: re.Match) -> str:
        code = matched[1]
        if len(code) == 5:
            return chr(int(code[1:], 16))
        return {"n": "\n", "t": "\t"}.get(code, code)

    plain = re.sub(r"\\(u[0-9a-fA-F]{4}|.)", character, text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # joins two halves
