r"""Find the mathematical answer in a text and bring it into one notation.

    "**Answer:** the value is $\tfrac12$, since …"  ─find_answer▶  \tfrac12  ─normalise▶  \frac12

Every expression here reads a text once: none looks back over what another has passed.
"""

import re
import unicodedata
from collections.abc import Iterator

from gmma.answers.math_units import is_unit

LONGEST_TEXT = 20_000  # characters that are searched, counted from the end
_MOST_WRAPPERS = 6  # of one value, such as `**$…$**.`
_MOST_CONCLUSIONS = 4  # that are looked at, of one line
_MOST_LINES = 30  # of one value whose braces are open

_END = re.compile(
    r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text|end)\|>|<end_of_turn>|<eos>|<pad>|</s>"
    r"|</?answer>"
)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])[ \t]*")
_LAST = re.compile(
    r"(?<!#)####++[ \t]*+(?!.*answer)|\bfinal[ \t]+answer[ \t*_]*(?::|is\b:?|$)[ \t*_:]*",
    re.IGNORECASE | re.MULTILINE,
)
_MARKER = re.compile(
    r"""[#]{4,}
    | ^[ \t>*_\#-]*(?:the[ \t]+)?(?:final[ \t]+|correct[ \t]+)?(?:answer|ans|result|solution)\b\.?
      [ \t*_]*(?:\([^()\n]{0,40}\)[ \t*_]*)?(?:[:=]|$)
    | (?:正确|最终)?答案[ \t*_]*(?:应该)?(?:是|为|:)
    | \b(?:answer|result|option|choice|solution)
      (?:,?[ \t]+(?:therefore|thus|then|hence|so)\b,?)?[ \t]+(?:to[ \t][^.\n]{0,80}?[ \t])?
      (?:is|are|should[ \t]+be|must[ \t]+be|would[ \t]+be|equals|=)(?![a-z])
      (?:[ \t]+(?:therefore|thus|simply|just|indeed|then|given[ \t]+by|equal[ \t]+to)\b)?
    | \bfinal[ \t]+answer[ \t*_]*(?::|$)
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_CHINESE = str.maketrans(
    {"。": ". ", "，": ", ", "：": ": ", "；": "; ", "、": ", ", "（": "(", "）": ")"}
)
_CHINESE_REASON = re.compile(r"[,;.]?\s*(?:因为|由于|是因为)")
# Counters, which say nothing of the number, and what is counted; 万, 倍 and 以上 change it.
_COUNTED = re.compile(
    r"([-+]?[\d.,/]++)\s*[个件人名本支枝条头块瓶天年岁辆棵朵次页颗位盒袋箱杯碗元]"
    r"[^\W\d_a-zA-Z万亿百千半倍分以多少或和余几上下方至到不非没]{0,6}"
)
_CONCLUSION = re.compile(
    r"(?<!\w)(?:and[ \t]+)?(?:so|thus|therefore|hence)\b(?:[ \t]+that\b)?[,:]?[ \t]"
    r"|=?=>|⇒|⟹|∴|\\(?:Rightarrow|Longrightarrow|implies|therefore)(?![a-zA-Z])|所以|因此",
    re.IGNORECASE,
)
_LETTERED = re.compile(r"^[ \t]*A[ \t]*:", re.MULTILINE | re.IGNORECASE)  # as GSM8K's models write
_AFTER_MARKER = re.compile(r"[\s:*_]*(?=\S)")
_DISPLAY = re.compile(r"\$\$((?:[^$\\]|\\.)+)\$\$|\\\[(.*?)\\\]|\\\((.*?)\\\)", re.DOTALL)
_SPAN = re.compile(
    r"\$\$((?:[^$\\]|\\.)+)\$\$"
    r"|\\\(((?:[^\\]|\\(?![()]))+)\\\)|\\\[((?:[^\\]|\\(?![\[\]]))+)\\\]"
    r"|(?<![\\$])\$(?![\s$])((?:[^$\\]|\\.)+)(?<!\s)\$(?![\d$])"
    r"|(?<![\\$])\$[ \t]((?:[^$\\]|\\.)+)(?<=\s)\$",
    re.DOTALL,
)
_BULLET = re.compile(r"^(?:[>•#]+|\*(?!\*)|-(?=[ \t]+(?:\*\*|\$|\\)))[ \t]+")
_BOLD = re.compile(
    r"(?<![\w*])\*\*(?![\s*])([^*\n]+)\*\*(?!\w)|(?<![\w_])__([^_\n]+)__(?!\w)|`([^`\n]+)`"
)
_VERB = re.compile(
    r"(?:\b(?:is|are|be|was|were|equals|to|get|gives|have|obtain)|[:=→])[\s*_]*$",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"(?:\bnot|n't|\bthan|\bleast|\bmost|\bminus|\bnor|\bneither|\broot of)[\s*_]*$", re.IGNORECASE
)
_DENIED = re.compile(r"(?:\bnot|n't)$", re.IGNORECASE)
_JOINT = re.compile(r"[\s,;*]*(?:\b(?:and|or)\b)?[\s,;*]*", re.IGNORECASE)
_REMARK = re.compile(
    r"[,;]?\s(?:because|since|(?<!times )as|so|which|where|when|thus|therefore|hence|i\.e\.|for"
    r"|by)\b"
    r"|[.;]\s(?=[A-Z])|\s[\u2014\u2013-]\s(?=[A-Za-z]{2})|\s\((?=[a-z]{2})"
)
_TAIL = re.compile(r"[ \t]*(?:\\?%|°[CF]?|[A-Za-z][A-Za-z.]*\^?[23²³]?)")
_COMMAND = re.compile(
    r"\\(?:text|mbox|textbf|textrm|mathrm|mathbf|textit|operatorname)\s*\{[^{}]*\}|\\[a-zA-Z]+"
)
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_ENVIRONMENT = re.compile(r"\\(begin|end)\{[a-z]+\*?\}(?:\{[lcr|]+\})?")
_WORD = re.compile(r"[A-Za-z]{2,}")
FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "lg",
        "exp",
        "sqrt",
        "max",
        "min",
        "gcd",
        "lcm",
        "mod",
        "det",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "pi",
        "deg",
        "frac",
        "abs",
        "floor",
        "ceil",
    ]
)


def find_answer(text: str, *, strict: bool = False) -> str:
    r"""Return the part of a text that is its answer, without `$`, bold or a full stop around it.

    That is, in this order: the last `\boxed{…}` (boxes joined by "and" are one list), unless `####`
    or "Final answer:" comes later; what the last of `####`, "Answer:" or "the answer is" announces,
    on its line or on the next; else the line that gives a value, the first or the last; else the
    whole text. On a line with words it is the formula between `$` that the sentence is about. Of a
    derivation it is what the last "so" or `=>` leads to.
    With `strict` it is the whole text, which may stand in `$` or in a box, or behind `####`.
    """
    text = _find(text[-LONGEST_TEXT:], strict)
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text


def marks_answer(text: str) -> bool:
    r"""Return whether a text marks its answer: by a box, `####` or "the answer is"."""
    return _last_boxes(text) is not None or _MARKER.search(text) is not None


def _find(text: str, strict: bool) -> str:
    pieces = [piece for piece in _END.split(text.translate(_CHINESE)) if piece.strip()]
    text = _SPAN.sub(_on_one_line, pieces[0].strip()) if pieces else ""
    if strict:
        return _read_strictly(text)
    box = _last_boxes(text)
    late = _last_content(_LAST.finditer(text), text, after=box[1]) if box else None
    if box and late is None:
        return _unwrap(_conclude(_unwrap(box[0])))
    if late is not None:
        return _read_line(late)
    announced = _last_content(_MARKER.finditer(text), text)
    if announced is not None:
        return _read_line(announced)
    if "\n" in text and (lettered := list(_LETTERED.finditer(text))):
        return _read_line(_logical_line(text[lettered[-1].start() :].lstrip()))
    return _read_lines(text)


def _on_one_line(span: re.Match) -> str:
    text = span.group()
    return text.replace("\n", " ") if text.startswith(("$$", "\\")) or _is_formula(span) else text


def _is_formula(span: re.Match) -> bool:
    """Return whether the text between two `$` is a formula, not the words between two prices."""
    content = _content(span)
    return re.fullmatch(r"[A-Za-z]+", content) is not None or not has_words(content)


def _read_strictly(text: str) -> str:
    text = text.rpartition("####")[2].strip()
    boxes = _last_boxes(_unwrap(text))
    return boxes[0] if boxes and _unwrap(text).startswith("\\boxed") else _unwrap(text)


def _last_boxes(text: str) -> tuple[str, int] | None:
    """Return the last box, or the last boxes that "and" joins, and where they end."""
    found: list[tuple[str, int, int]] = []
    seen = 0  # of a box within a box, the outer one counts; each character is read once
    for match in _BOX.finditer(text):
        if match.start() < seen:
            continue
        inside, seen = _inside(text, match.end())
        if inside.strip():
            found.append((inside, match.start(), seen))
    if not found:
        return None
    values, _, last = found[-1]
    first = found[-1][1]
    for inside, start, end in reversed(found[:-1]):
        between = text[end:first]
        if len(between) > 40 or not re.search(r",|;|\b(?:and|or)\b", between, re.IGNORECASE):
            break
        if re.sub(r"\\text|\b(?:and|or)\b|[\s${}\\(),;*]", "", between, flags=re.IGNORECASE):
            break
        values, first = f"{inside}, {values}", start
    if _DENIED.search(text[max(0, first - 20) : first].rstrip("$* ")):
        return f"not {values}", last
    return values, last


def _inside(text: str, start: int) -> tuple[str, int]:
    """Return the group at `start`: in braces, to the end if they stay open; else up to a space."""
    if start < len(text) and text[start] != "{":
        end = next((i for i in range(start, len(text)) if text[i] in " \t\n$.,"), len(text))
        return text[start:end], end
    depth = 0
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start + 1 : end], end + 1
    return text[start + 1 :], len(text)


def _last_content(matches: Iterator[re.Match], text: str, after: int = 0) -> str | None:
    """Return the line behind the last marker that has one."""
    for match in reversed(list(matches)):
        if match.start() < after:
            return None
        rest = text[match.end() :]
        begin = _AFTER_MARKER.match(rest)
        if begin and (line := _logical_line(rest[begin.end() :])):
            return line
    return None


def _logical_line(text: str) -> str:
    """Return the first line that is not blank; more while a brace or a formula is open there."""
    if display := _DISPLAY.match(text):
        end = text.find("\n", display.end())
        return text[: end if end >= 0 else len(text)]
    taken: list[str] = []
    for line in text.split("\n", _MOST_LINES)[:_MOST_LINES]:
        if not taken and not line.strip(" \t*_#`"):
            continue
        taken.append(line)
        whole = "\n".join(taken)
        opened = whole.count("{") - whole.count("}") + whole.count(r"\begin") - whole.count(r"\end")
        if opened <= 0 and whole.count(r"\[") <= whole.count(r"\]"):
            return whole.strip()
    return taken[0].strip() if taken else ""


def _read_lines(text: str) -> str:
    """Read a text without a marker: its one value, the line that is a value, or all of it."""
    if "\n" not in text or not has_words(_bare(text)):
        return _read_line(text)
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t*_#`")]
    first, last = lines[0], lines[-1]
    if _is_value(first) and not _is_value(last):
        return _read_line(first)
    if _is_value(last) or _SPAN.search(last) or _BOLD.search(last) or re.search(r"\d", last):
        return _read_line(last)
    return text


def _is_value(line: str) -> bool:
    line = line.rstrip(" .,;:!")
    return bool(_SPAN.fullmatch(line) or _BOLD.fullmatch(line)) or not has_words(_bare(line))


def _read_line(line: str) -> str:
    line = _BULLET.sub("", line.strip())
    line = _unwrap(_conclude(_unwrap(line)))
    if (reason := _CHINESE_REASON.search(line)) and reason.start() > 0:
        line = _unwrap(line[: reason.start()])
    if counted := _COUNTED.fullmatch(_unwrap(_bare(line))):
        return counted[1]
    bare = _bare(line)
    if not has_words(bare):
        return _unwrap(bare)
    for kind in (_SPAN, _BOLD):
        spans = [m for m in kind.finditer(line) if kind is _BOLD or _is_formula(m)]
        if spans:
            return _choose(line, spans)
    return _unwrap(_before_remark(line))


def _conclude(line: str) -> str:
    r"""Return what follows the last "so" or `=>` of a derivation: "3x = 36, so x = 12" says x = 12.

    A value with a remark behind it is none: "12, so the function is odd" says 12.
    """
    for match in reversed(list(_CONCLUSION.finditer(line))[-_MOST_CONCLUSIONS:]):
        before, rest = line[: match.start()], line[match.end() :]
        said = _bare(_before_remark(before)).rstrip(" ,;.")
        concluded = re.search(r"(?<![<>])=(?!>)", rest) or (
            re.search(r"\d", rest) and not has_words(_bare(rest))
        )
        if concluded and ("=" in said or has_words(said)):
            return rest.replace("$", "", 1) if before.count("$") % 2 else rest  # within a formula
    return line


def _choose(line: str, spans: list[re.Match]) -> str:
    """Return the formula that a sentence is about, with what belongs to it on either side."""
    first = last = 0
    if line[: spans[0].start()].strip("* (") and not _follows(_VERB, line, spans[0]):
        behind_verb = [i for i, m in enumerate(spans) if _follows(_VERB, line, m)]
        first = last = behind_verb[-1] if behind_verb else len(spans) - 1
        if re.search(r"[\d]", _before_remark(line[: spans[0].start()])) and not behind_verb:
            return _unwrap(_before_remark(line))
    elif any(_follows(_VERB, line, m) for m in spans) and not line.startswith(("$", "\\", "*")):
        behind_verb = [i for i, m in enumerate(spans) if _follows(_VERB, line, m)]
        first = last = behind_verb[0]
    while last + 1 < len(spans):
        between = line[spans[last].end() : spans[last + 1].start()]
        if not between.strip() or not _JOINT.fullmatch(between):
            break
        last += 1
    if _follows(_REFUSED, line, spans[first]):
        return line
    values = [_unwrap(_content(m)) for m in spans[first : last + 1]]
    sign = "-" if re.search(r"(?:^|\s)[-−–]$", line[: spans[first].start()]) else ""
    after = _TAIL.match(line, spans[last].end())
    tail = f" \\text{{ {after.group().strip()} }}" if after and is_unit(after.group()) else ""
    return sign + ", ".join(values) + tail


def _follows(pattern: re.Pattern, line: str, span: re.Match) -> bool:
    return pattern.search(line[: span.start()][-30:]) is not None


def _content(match: re.Match) -> str:
    return next(group for group in match.groups() if group is not None)


def _before_remark(line: str) -> str:
    remark = _REMARK.search(line)
    return line[: remark.start()] if remark and remark.start() > 0 else line


def _bare(text: str) -> str:
    """Return the text without the marks of bold and of formulas."""
    text = _BOLD.sub(_content, text)
    text = _SPAN.sub(lambda m: f" {_content(m)} ", text)
    text = re.sub(r"(?<!\\)\$(?![-\d.])|\\\(|\\\)|(?<!\\)\\\[|\\\](?!\w)", " ", text)
    return text.strip(" \t\n`*")


def _unwrap(text: str) -> str:
    """Remove what stands around the whole text."""
    pairs = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"),
             ("`", "`"), ('"', '"'), ("“", "”"), ("'", "'"), ("*", "*"))  # fmt: skip
    for _ in range(_MOST_WRAPPERS):
        text = text.strip().rstrip(",;").strip()
        text = text.removesuffix(".") if not re.search(r"\b[a-z]\.[a-z]\.$", text) else text
        for left, right in pairs:
            inner = text[len(left) : -len(right)]
            if (
                len(text) > len(left) + len(right)
                and text.startswith(left)
                and text.endswith(right)
                and not text.endswith("\\" + right)
                and left not in inner.replace("\\" + left, "")
            ):
                text = inner
        if text.startswith("$") and text.count("$") == 1 and not re.match(r"\$[-\d.]", text):
            text = text[1:]
        if text.endswith("$") and text.count("$") - text.count(r"\$") == 1:
            text = text[:-1]
    return text


def has_words(text: str) -> bool:
    """Return whether there are words outside of commands, besides names of variables."""
    return next(words_of(text), None) is not None


def words_of(text: str) -> Iterator[str]:
    """Yield words that are neither commands, functions, nor products of variables in a formula."""
    text = _COMMAND.sub(lambda m: " " * len(m.group()), _ENVIRONMENT.sub(" ; ", text))
    for match in _WORD.finditer(text):
        left, right = text[: match.start()][-30:].rstrip(), text[match.end() :][:30].lstrip()
        word = match.group()
        if word.lower() in FUNCTIONS:
            continue
        glued = text[match.start() - 1 : match.start()].isdigit()
        within = left[-1:] in tuple("+-*/^_=<>({[|") or right[:1] in tuple("+*/^_=<>)}]|")
        if len(word) > 3 or not (glued or (within and (left or right))):
            yield word


_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‒": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ",
    "°": r"^\circ ", "∅": r"\emptyset ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ",
    "’": "'", "‘": "'", "\u200b": "", "\u200c": "", "\u2060": "", "\ufeff": "", "₁": "_1",
}  # fmt: skip
_SPACES = re.compile(r"[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
_SPACING = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|quad|qquad|big|Big|bigg)(?![a-zA-Z])|(?<!\\)\\[;: ]|~"
)


def normalise(text: str) -> str:
    """Bring what is written in several ways into one: LaTeX in ASCII, a fraction always `\frac`."""
    text = "".join(_plain(text))
    text = re.sub(r"√\s*(?=\()", r"\\sqrt", text)
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"\\sqrt{\1}", text).replace("√", r"\sqrt")
    text = re.sub(r"(?<![\\a-zA-Z])(?:sqrt|Sqrt)(?![a-zA-Z])", r"\\sqrt", text)
    text = re.sub(r"\\sqrt\s+(\d+)", r"\\sqrt{\1}", text)
    text = _round_to_braces(text)
    text = re.sub(r"(\d),\s*\\!\s*(?=\d)|(\d)\{,\}\s*(?=\d)|(\d)\\,(?=\d{3})", r"\1\2\3", text)
    text = _SPACING.sub(" ", text).replace(r"\!", "").replace(r"\,", " ")
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\(?:mathrm|mbox|textrm|textit|textbf|textnormal)\s*\{", r"\\text{", text)
    text = re.sub(r"\\text\s*\{", r"\\text{", text)
    text = re.sub(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![a-z])", r"^\\circ ", text)
    text = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", text)
    text = re.sub(
        r"(?<![\\A-Za-z])(ln|log|exp|sin|cos|tan)(?=\s?\()|(?<![\\A-Za-z])(ln)(?=\s\d)",
        r"\\\1\2",
        text,
    )
    text = re.sub(
        r"(?<![\w.])(?:(\d++\.\d++)[eE]\+?(-?\d{1,3})|(\d++)[eE](\d{1,3}))(?![\w.]*\w)",
        r"\1\3 \\times 10^{\2\4}",  # not 3e-2, which is a difference too
        text,
    )
    text = re.sub(r"\bUSD?\s?(?=\\?\$\s?\d)", "", text)
    text = text.replace(r"\varnothing", r"\emptyset")
    text = re.sub(r"<=(?!>)", r"\\le ", text)
    text = re.sub(r"(?<!=)>=", r"\\ge ", text)
    text = re.sub(r"\\(?:leq|leqslant)(?![a-z])", r"\\le", text)
    text = re.sub(r"\\(?:geq|geqslant)(?![a-z])", r"\\ge", text)
    text = re.sub(r"\b(?:is equal to|equals)\b", "=", text)
    text = re.sub(r"\b(?:minus|negative) (?=\d)", "-", text)
    text = re.sub(r"\b([apAP])\.\s?([mM])\b\.?", r"\1\2", text)
    text = re.sub(r"\\(?:neq)(?![a-z])", r"\\ne", text)
    return re.sub(r"\s+", " ", text).strip()


def _plain(text: str) -> Iterator[str]:
    """Replace characters by their ASCII equals, and runs of small figures by figures in braces."""
    for raised, sign in ((_SUPERSCRIPTS, "^"), (_SUBSCRIPTS, "_")):
        figures = "".join(raised)
        text = re.sub(
            f"[{figures}]+",
            lambda m, r=raised, s=sign: f"{s}{{{''.join(r[c] for c in m.group())}}}",  # type: ignore[misc]
            text,
        )
    for letter in _SPACES.sub(" ", text):
        if letter in _SIGNS:
            yield _SIGNS[letter]
        elif letter.isascii():
            yield letter
        elif "⁄" in (form := unicodedata.normalize("NFKC", letter)):
            above, _, below = form.partition("⁄")
            yield f"\\frac{{{above}}}{{{below or 1}}}"
        else:
            yield form if form.isascii() else letter


def _round_to_braces(text: str) -> str:
    r"""Rewrite `\sqrt(x+1)` as `\sqrt{x+1}`."""
    while (start := text.rfind(r"\sqrt(")) >= 0:
        begin, depth = start + len(r"\sqrt("), 1
        for end in range(begin, len(text)):
            depth += (text[end] == "(") - (text[end] == ")")
            if depth == 0:
                break
        else:
            end = len(text)
        text = f"{text[:start]}\\sqrt{{{text[begin:end]}}}{text[end + 1 :]}"
    return text
