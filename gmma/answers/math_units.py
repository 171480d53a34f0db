r"""Read units, currencies, words beside a number, and numbers written as words.

"\$2 million" ─read_quantity▶ ("2*10^{6}", "$")      "It takes 5 hours." ─only_number▶ ("5", "h")
"""

import re
from collections.abc import Sequence
from fractions import Fraction

_ALIASES = {
    "mm": "mm millimeter millimetre", "cm": "cm centimeter centimetre", "m": "m meter metre",
    "km": "km kilometer kilometre", "in": "in inch inches", "ft": "ft foot feet", "yd": "yd yard",
    "mi": "mi mile mph", "mg": "mg milligram", "g": "g gm gram gramme", "kg": "kg kilogram kilo",
    "t": "ton tonne", "oz": "oz ounce", "lb": "lb lbs pound", "ml": "ml milliliter millilitre",
    "L": "l liter litre", "gal": "gal gallon", "qt": "qt quart", "pt": "pint", "cup": "cup",
    "ms": "ms millisecond", "s": "s sec second", "min": "min minute", "h": "h hr hour",
    "d": "day", "wk": "week", "mo": "month", "yr": "yr year", "am": "am", "pm": "pm",
    "%": "% percent percentage pct", "deg": "deg degree °", "rad": "rad radian",
    "C": "celsius °c", "F": "fahrenheit °f", "K": "kelvin",
    "$": "$ dollar usd buck", "ct": "cent ¢", "€": "€ euro eur", "£": "£ gbp", "¥": "¥ yen yuan",
    "₹": "₹ rs rupee inr", "W": "watt", "kW": "kw kilowatt", "J": "joule", "N": "newton",
    "V": "volt", "Hz": "hz hertz", "dozen": "",
}  # fmt: skip
_UNITS = {word: unit for unit, words in _ALIASES.items() for word in words.split()}
_UNITS |= {f"{word}s": unit for word, unit in _UNITS.items() if len(word) > 2 and word.isalpha()}
_MAGNITUDES = {  # "k" is no word of its own: it is a variable too
    "dozen": "12", "hundred": "10^{2}", "thousand": "10^{3}", "million": "10^{6}",
    "billion": "10^{9}", "trillion": "10^{12}", "quadrillion": "10^{15}",
    "quintillion": "10^{18}", "lakh": "10^{5}", "lac": "10^{5}", "crore": "10^{7}",
    "mil": "10^{6}", "mn": "10^{6}", "bn": "10^{9}", "tn": "10^{12}",
}  # fmt: skip
_MAGNITUDES |= {f"{word}s": power for word, power in _MAGNITUDES.items() if len(word) > 3}
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
_DEGREES = {"deg", "C", "F"}
# Words that change a number, before it and behind it.
_BEFORE = frozenset(
    [
        "not",
        "no",
        "never",
        "than",
        "least",
        "most",
        "minus",
        "negative",
        "plus",
        "root",
        "sqrt",
        "half",
        "twice",
        "double",
        "triple",
        "over",
        "under",
        "above",
        "below",
        "except",
        "neither",
        "nor",
        "between",
        "divided",
        "exceeding",
    ]
)
# "a total of 12" is 12; "the square of 12" is not.
_OF = {
    "itself": """
    answer value total sum result amount number count quantity length width height depth area volume
    perimeter circumference distance speed rate price cost profit loss time age weight mass score
    measure angle radius diameter side edge average mean median mode probability slope temperature
    difference product quotient remainder size capacity balance salary income population grade
    solution output duration period group team set class bill degree ratio percentage""",
    "another": """
    half third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths
    eighth eighths ninth ninths tenth tenths hundredth thousandth fraction part portion percent
    multiple factor divisor power square cube root logarithm log factorial reciprocal inverse
    opposite negative complement supplement conjugate function minimum maximum dozen couple pair
    hundred thousand million""",
}
_MEASURES, _FRACTIONS = (frozenset(words.split()) for words in _OF.values())
_MORE = frozenset(
    ["add", "adds", "added", "adding", "sum", "sums", "round", "rounds", "rounded", "comes"]
)
_BEHIND = frozenset(
    [
        "or",
        "not",
        "squared",
        "cubed",
        "factorial",
        "plus",
        "minus",
        "divided",
        "halves",
        "half",
        "thirds",
        "quarter",
        "quarters",
        "fourths",
        "fifths",
        "sixths",
        "sevenths",
        "eighths",
        "ninths",
        "tenths",
        "hundredths",
        "thousandths",
        "point",
        "root",
        "multiplied",
        "fewer",
        "less",
    ]
)
_COMPARED = frozenset(
    ["as", "the", "more", "less", "fewer", "larger", "greater", "bigger", "smaller", "that"]
)
_DENIED = frozenset(["not", "cannot", "never", "wrong", "incorrect", "neither", "nor"])
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(
    rf"(?P<sign>[-+]?)(?P<front>\\?\$|€|£|¥|₹|Rs\.?)?(?P<again>[-+]?)(?P<number>(?:{_NUMBER})(?:/\d+)?)"
    r"(?P<unit>\\?%|\^\\circ|€|¢|[A-Za-z]{2,}(?:\^\{?[23]\}?)?)?",
    re.ASCII,
)
_NOTATION = re.compile(r"[\\^_{}=<>()\[\]*+/|~]|\d")
_FRONT = re.compile(r"([-+]?)\s*(\\\$|\$|€|£|¥|₹|USD|Rs\.?)\s*(?=[-+\d.\\])")
_SHORT = re.compile(r"(?<![A-Za-z])[kmbtKMBT]$")
_BACK = re.compile(r"\s*((?<=\d)_\{?\d+\}?|\\?%|\^\\circ\s*[CF]?(?![a-zA-Z])|\\?\$|€|£|¢)$")
_TEXT = re.compile(r"\\text\{([^{}]*)\}\s*(\^\s*\{?\s*[23]\s*\}?)?$")
_GLUED = re.compile(r"(.*\d)\s*([A-Za-z]{2,}(?:\^\{?[23]\}?)?)$", re.DOTALL)
_PLAIN_WORD = re.compile(
    r"[A-Za-z][A-Za-z'-]*\.?(?:\^\{?[23]\}?)?(?:/[A-Za-z]+)?[,.;:!]?|a\.m\.|p\.m\."
)

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = (
    ["half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"],
    ["halves", "thirds", "quarters", "fifths", "sixths", "sevenths", "eighths", "ninths", "tenths"],
)


def read_quantity(text: str) -> tuple[str, str] | None:
    """Read a normalised answer as formula and unit; None where words beside it change its value."""
    text = text.strip().rstrip(".")
    unit = ""
    if front := _FRONT.match(text):
        unit = find_unit([front[2].strip("\\")])
        text = front[1] + text[front.end() :]
        if _SHORT.search(text[-3:]):  # $12m: metres, or millions
            return None
    words: list[str] = []
    while True:  # from the right, one piece at a time
        text = text.rstrip(" ,;:")
        if back := _BACK.search(text[-12:]):
            words = [back[1].strip("\\ ").replace("^\\circ", "°").replace(" ", ""), *words]
            text = (
                text[: len(text[:-12]) + back.start()] if len(text) > 12 else text[: back.start()]
            )
        elif marked := _TEXT.search(text):
            words = [*_spell(marked[1], marked[2]), *words]
            text = text[: marked.start()]
        else:
            head, _, token = text.rpartition(" ")
            if head and _PLAIN_WORD.fullmatch(token) and _is_beside(head, token):
                words, text = [token, *words], head
            elif (glued := _GLUED.match(token)) and find_unit([glued[2]]):
                words, text = [glued[2], *words], f"{head} {glued[1]}".strip()
            else:
                break
    if not text or (words and not re.search(r"[\d\\^+=]", text)):
        return None  # words alone
    folded = [word.strip(".,;:!").casefold() for word in words]
    if any(word in _BEHIND or word in _DENIED for word in folded) or _is_multiple(folded):
        return None
    while folded and folded[0] in _MAGNITUDES:
        text = f"{text}*{_MAGNITUDES[folded[0]]}"
        words, folded = words[1:], folded[1:]
    return text, find_unit(words) or unit


def _spell(words: str, power: str | None) -> list[str]:
    spelled = words.split()
    if power and spelled:
        spelled[-1] += "^" + re.sub(r"\D", "", power)
    return spelled


def _is_multiple(behind: Sequence[str]) -> bool:
    """Return whether the words behind a number make it a factor: 12 times as many, not 12 times."""
    return behind[:1] == ["times"] and behind[1:2] != [] and behind[1] in _COMPARED


def _is_argument(before: Sequence[str]) -> bool:
    """Return whether the words before a number make another of it: the square of 12, up to 12."""
    if before[-2:] == ["up", "to"]:
        return not _MORE.intersection(before[-3:-2])
    if before[-1:] != ["of"]:
        return False
    if _BEFORE.intersection(before[-4:-2]) - {"over", "under", "above", "below", "no"}:
        return True  # twice the sum of
    noun = before[-2] if len(before) > 1 else ""
    if noun in _FRACTIONS or "absolute" in before[-3:]:
        return True
    return noun not in _MEASURES and not {"a", "an"}.intersection(before[-5:-2])


def _is_beside(head: str, token: str) -> bool:
    """Return whether a word stands beside the formula, not within it: not after an operator."""
    if head.rstrip()[-1:] in tuple("+-*/^_=<>({[,|\\&"):
        return False
    bare = token.strip(".,;:!")
    return len(bare) > 1 or (bare in _UNITS and head.rstrip()[-1:].isdigit()) or bare == "a"


def find_unit(words: Sequence[str]) -> str:
    """Return the usual name of the first unit among words, "" where there is none.

    >>> find_unit(["square", "feet"]), find_unit(["cm^2"]), find_unit(["apples"])
    ('ft^2', 'cm^2', '')
    """
    power = ""
    for index, word in enumerate(words):
        if word.casefold() == "per":
            break
        if word.casefold() == "in" and index + 1 < len(words):  # "5 in total"
            continue
        bare = word.replace(".", "").strip(",;:!").partition("/")[0]
        if re.fullmatch(r"_\{?\d+\}?", word):
            return "base " + re.sub(r"\D", "", word)
        name, _, raised = bare.replace("{", "").replace("}", "").partition("^")
        if name.casefold() in _POWERS:
            power = _POWERS[name.casefold()]
        elif name.casefold() in _UNITS:
            return _UNITS[name.casefold()] + (f"^{raised}" if raised else power)
    return ""


def is_unit(text: str) -> bool:
    """Return whether a word behind a formula is part of its value: a unit, per cent, "million"."""
    word = text.strip(" .\\").casefold()
    return word != "in" and (word in _MAGNITUDES or find_unit([word]) != "")


def conflict(unit: str, other: str) -> bool:
    """Return whether two units contradict; a missing one, or a degree of any scale, does not."""
    if {unit, other} <= _DEGREES and "deg" in (unit, other):
        return False
    return bool(unit and other and unit != other)


def only_number(text: str) -> tuple[str, str] | None:
    """Read the one number of a sentence and its unit; None if words change it or there are more.

    >>> only_number("He pays $2.50 in all."), only_number("not 12"), only_number("2 x")
    (('2.50', '$'), None, None)
    """
    tokens = [token.strip("*`\"'“”,;:!?()").removesuffix(".") for token in text.split()]
    tokens = [token for token in tokens if token]
    found: list[tuple[int, re.Match]] = []
    for index, token in enumerate(tokens):
        if match := _TOKEN.fullmatch(token):
            found.append((index, match))
        elif _NOTATION.search(token) and not find_unit([token]):
            return None
    if len(found) != 1:
        return None
    (place, match), folded = found[0], [token.casefold() for token in tokens]
    before, behind = folded[:place], folded[place + 1 :]
    unit = match["unit"] or ""
    known = find_unit([unit.replace("^\\circ", "°").strip("\\")]) if unit else ""
    letters = [w for i, w in enumerate(folded) if len(w) == 1 and w.isalpha() and w not in "ai"]
    letters = [w for w in letters if not (behind[:1] == [w] and w in _UNITS)]
    if (
        (unit and not known)
        or letters
        or any(word in _DENIED or word.endswith("n't") for word in folded)
        or any(word in _BEFORE for word in before[-2:])
        or any(word in _BEHIND for word in behind[:1])
        or _is_multiple(behind)
        or _is_argument(before)
        or (match["front"] and _SHORT.fullmatch("".join(behind[:1])[:2]))
        or any(word in _ONES[2:] or word in _TENS for word in folded)
    ):
        return None
    number = (match["sign"] or match["again"]) + match["number"].replace(",", "")
    while behind and behind[0] in _MAGNITUDES:
        number, behind = f"{number}*{_MAGNITUDES[behind[0]]}", behind[1:]
    front = find_unit([match["front"].strip("\\")]) if match["front"] else ""
    return number, known or front or find_unit(behind[:2])


def spelled_number(text: str) -> str | None:
    """Read a number in words as LaTeX; None for other words.

    >>> spelled_number("twenty-one"), spelled_number("seven and a half"), spelled_number("a")
    ('21', '\\\\frac{15}{2}', None)
    """
    total, current, seen = Fraction(0), Fraction(0), False
    sign, words = "", text.casefold().replace("-", " ").split()
    if words[:1] in (["minus"], ["negative"]):
        sign, words = "-", words[1:]
    for word in words:
        if word in _ONES and current % (10 if word in _ONES[:10] else 100) == 0:
            current += _ONES.index(word)
        elif word in _TENS and current % 100 == 0:
            current += 10 * (_TENS.index(word) + 2)
        elif word == "hundred" and current:
            current *= 100
        elif word in _SCALES and current:
            total, current = total + current * _SCALES[word], Fraction(0)
        elif word == "half" and not seen:
            current = Fraction(1, 2)
        elif current and any(word in parts for parts in _PARTS):
            current /= next(parts.index(word) + 2 for parts in _PARTS if word in parts)
        elif word == "and" and seen:
            total, current = total + current, Fraction(0)
        elif word == "a" and not current:
            current = Fraction(1)
        else:
            return None
        seen = True
    value = total + current
    if not seen or text.casefold() == "a":
        return None
    if value.denominator == 1:
        return f"{sign}{value}"
    return f"{sign}\\frac{{{value.numerator}}}{{{value.denominator}}}"
