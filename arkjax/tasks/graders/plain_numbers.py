r"""Plain numbers as people, models and LaTeX write them, read exactly.

A plain number is an integer, a decimal, a fraction (`3/4`, `\frac{3}{4}`, `\frac34`, ¾), a mixed
number (`1 1/2`, `1\frac{1}{2}`) or one in scientific notation (`1.2e5`, `1.2 \times 10^{5}`). It
may have a sign, a sign of currency before it or behind its sign, thousands separators (`1,234`,
`1{,}234`, `1\,234`, a narrow or a no-break space), one of the words hundred, thousand, million,
billion and trillion, which multiply it, and a unit, which does not count. The sign % is a unit as
well: 50% is 50 and not 0.5, since that is how data sets write such an answer. Only ASCII digits
are digits.

The letters k, m or M, b or B, bn and mn behind a price multiply it as well ($1.5k), and k, K and M
behind a decimal (1.5k). In 5k the letter may be an unknown or a unit: `multiplied` reads it. Behind
€ or £ a comma with two digits is decimal (€18,00). What goes on behind a period or a comma is no
well-formed number (18.00.00; 12,34,567; 18,00), and none of its parts is read as one. A minus right
behind a letter, a digit or a closing bracket subtracts, so that 3 is the last number of x-3.
"""

import dataclasses
import functools
import re
import unicodedata
from fractions import Fraction

LONGEST = 1000
"""Digits of a plain number; what has more is no plain number."""
_LARGEST_EXPONENT = 400

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2212\ufe58\ufe63\uff0d"), "-")
_SPACES = dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2004\u2005\u2007\u2008\u205f\u3000"), " ")
# Zero-width characters and marks of direction say nothing.
_NOTHING = dict.fromkeys([*range(0x200B, 0x2010), *range(0x202A, 0x202F), 0x2060, 0xFEFF])
_TABLE = _DASHES | _SPACES | _NOTHING | {ord("\uff0c"): ",", ord("\r"): "\n"}
# Colours of a terminal, and the tags that mark up a word.
_MARKUP = re.compile(
    r"\x1b\[[0-9;]{0,20}[A-Za-z]|</?(?:b|i|u|p|em|strong|code|span|div|br)[ ]?/?>", re.IGNORECASE
)
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_GROUP = re.compile(r"(?<=[0-9])(?:\{,\}|\\[,!;: ]|[\u00a0\u2009\u202f~])(?=[0-9]{3}(?![0-9]))")
_LATEX = [
    (re.compile(r"(?<!\\)\\(?:left|right|displaystyle|[!,;:](?![0-9]{3}))"), ""),
    (re.compile(r"\\[dtc]frac\b"), r"\\frac"),
    (re.compile(r"\\frac[ ]?([0-9])[ ]?([0-9])(?![0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac[ ]?([0-9])[ ]?\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac[ ]?\{[^{}]{1,40}\})[ ]?([0-9])"), r"\1{\2}"),
    (re.compile(r"(?<!\\)\\([$%#&])"), r"\1"),
    (re.compile(r"(?<!\\)\\[ ;:,!]"), " "),
]

_DECIMAL_COMMA = re.compile(
    r"((?:[€£]|\bEUR)[ ]?-?[0-9]{1,9}),([0-9]{2})(?![0-9]|[.,][0-9])"
    r"|(?<![\w.,])([0-9]{1,9}),([0-9]{2})[ ]?([€£]|EUR\b)"
)
_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})++(?!,?[0-9])|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)"
_CURRENCY = r"(?:(?:US|A|C)?\$|[€£¥₹]|Rs\.?|USD|EUR|INR)"
NUMBER = re.compile(
    rf"(?:(?<![\w)\]}}])(?P<sign>[-+])[ ]?)?"
    rf"(?:(?P<currency>{_CURRENCY})[ ]?(?P<inner>-)?)?"
    r"(?:"
    r"(?:(?<![\w.,])(?P<whole>[0-9]{1,15})"
    r"(?:[ ](?:and[ ])?(?P<num>[0-9]{1,9})[ ]?/[ ]?(?P<den>[0-9]{1,9})"
    r"|[ ]?\\frac[ ]?\{[ ]?(?P<lnum>[0-9]{1,9})[ ]?\}[ ]?\{[ ]?(?P<lden>[0-9]{1,9})[ ]?\})"
    r"(?![0-9,./]*[0-9]))"
    r"|\\frac[ ]?\{[ ]?(?P<fsign>-?)(?P<fnum>[0-9.,]{1,40})[ ]?\}[ ]?"
    r"\{[ ]?(?P<fsign2>-?)(?P<fden>[0-9.,]{1,40})[ ]?\}"
    rf"|(?P<dec>(?<![\w.])(?<![0-9],)(?!0[xX][0-9a-fA-F]){_DECIMAL})(?![.,][0-9])"
    r"(?:[eE](?P<exp>[-+]?[0-9]{1,9})(?!\w)"
    r"|[ ]?(?:\\times|\\cdot|[x×*·])[ ]?10[ ]?(?:\^|\*\*)[ ]?"
    r"(?:\{[ ]?(?P<lexp>[-+]?[0-9]{1,9})[ ]?\}|(?P<pexp>[-+]?[0-9]{1,9}))"
    rf"|[ ]?/[ ]?{_CURRENCY}?(?P<over>{_DECIMAL})(?![/0-9]))?"
    r")"
    r"(?:[ ]?\\?(?P<percent>%)|[ -]?(?P<times>(?i:hundred|thousand|million|billion|trillion))\b"
    r"|(?<=[0-9])(?P<suffix>bn|mn|[kKmMbB])(?![\w^]|[ ]?[-+*/=<>$({\\]))?"
)
MALFORMED = re.compile(r"(?<![\w.,])[0-9]+(?:[.,][0-9]+)+(?!\w)")
"""Digits with periods and commas; where `NUMBER` does not match, they are no well-formed number."""
_TIMES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_SUFFIXES = {"k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9}
# Behind a number: \text{...} of any kind, degrees, or up to six words that no formula has.
_UNIT = re.compile(
    r"(?:[ ]?(?:\\(?:text|mbox|mathrm|textbf|textrm|textit|operatorname|rm|hbox)[ ]?"
    r"\{[^{}\\]{0,80}\}(?:\^[ ]?\{?[0-9]\}?)?|\^[ ]?\{?[ ]?\\circ[ ]?\}?|\\degree|°|\\?%))?"
    r"(?:[ ]?(?!(?:or|and|to|pi|sqrt|mod|choose|sin|cos|tan|log|ln|plus|minus|times|over|not)\b)"
    r"(?:[A-Za-zµ]{2,30}|(?<=[ ])[mgslhLNJWVCFKd]\b)(?:\^[ ]?\{?[0-9]\}?|[²³])?"
    r"(?:/[A-Za-z]{1,20})?[.,]?){0,6}"
)
_WRAPPED = re.compile(r"^\\(?:text|mbox|mathrm|textbf|mathbf)[ ]?\{([^{}]*)\}$")
_NAME = re.compile(r"[A-Za-z](?:_\{?\w{1,3}\}?)?[ ]?=[ ]?(?=[^=])")
_SPACED = re.compile(r"[-+]?[$€£]?[0-9]{1,3}(?:[ ][0-9]{3})+(?:\.[0-9]+)?(?=$|[^\w])")


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that was read: its exact value and how it is written back."""

    value: Fraction
    percent: bool
    fraction: bool

    def __str__(self) -> str:
        """The integer or decimal; a fraction where it was one, or where no decimal is exact."""
        value, sign = abs(self.value), "-" if self.value < 0 else ""
        text = _decimal(value)
        if text is None or (self.fraction and value.denominator != 1):
            text = f"{value.numerator}/{value.denominator}"
        return sign + text + ("%" if self.percent else "")


def clean(text: str) -> str:
    """The text with one kind of minus, space, fraction and thousands separator."""
    text = _MARKUP.sub("", text.replace("\r\n", "\n"))
    text = _GROUP.sub(",", text).translate(_TABLE)
    text = _DECIMAL_COMMA.sub(lambda m: f"{m[1]}.{m[2]}" if m[1] else f"{m[5]}{m[3]}.{m[4]}", text)
    text = _VULGAR.sub(_vulgar, text).replace("\u2044", "/")
    text = re.sub("[\u2006\u2009\u200a\u202f\t\f\v\0]", " ", text)
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return text


def number_of(match: re.Match) -> Number | None:
    """The value of a match of `NUMBER`; None if it has none, or too many digits."""
    if match.end() - match.start() > LONGEST:
        return None
    part = match.groupdict()
    fraction = True
    try:
        if part["whole"]:
            value = Fraction(int(part["num"] or part["lnum"]), int(part["den"] or part["lden"]))
            value += int(part["whole"])
        elif part["fnum"]:
            value = _fraction(part["fnum"]) / _fraction(part["fden"])
            if part["fsign"] != part["fsign2"]:
                value = -value
        elif part["over"]:
            value = _fraction(part["dec"]) / _fraction(part["over"])
        else:
            exponent = int(part["exp"] or part["lexp"] or part["pexp"] or 0)
            if abs(exponent) > _LARGEST_EXPONENT:
                return None
            value, fraction = _fraction(part["dec"]), False
            value = value * Fraction(10) ** exponent if exponent else value
    except (ValueError, ZeroDivisionError):
        return None
    if part["times"]:
        value *= _TIMES[part["times"].lower()]
    elif _multiplies(match):
        value *= _SUFFIXES[part["suffix"].lower()]
    if (part["sign"] == "-") != bool(part["inner"]):
        value = -value
    return Number(value, bool(part["percent"]), fraction)


def _multiplies(match: re.Match) -> bool:
    """Whether a letter behind a number is its multiple and no unknown or unit."""
    if not match["suffix"] or not match["dec"] or match["over"]:
        return False
    return bool(match["currency"]) or ("." in match["dec"] and match["suffix"] in ("k", "K", "M"))


def multiplied(text: str) -> Number | None:
    """The number that "5k", "5K" or "5M" is where the letter multiplies; None of anything else."""
    match = re.fullmatch(r"([-+]?[0-9.,]{1,40})([kKM])", text.strip().strip("$*_`.").strip())
    number = plain_number(match[1]) if match else None
    if number is None:
        return None
    return dataclasses.replace(number, value=number.value * _SUFFIXES[match[2].lower()])


@functools.lru_cache(2**14)
def plain_number(text: str) -> Number | None:
    """The plain number that a whole answer is, unit and "x =" aside; None if it is anything else.

    Args:
      text: an answer as `clean` leaves it; spaces may separate its thousands.
    """
    if len(text) > LONGEST:
        return None
    text = text[1:-1] if text[:1] == text[-1:] == "$" else text
    text = _WRAPPED.sub(r"\1", text)
    text = join_thousands(_NAME.sub("", " ".join(text.split()).strip("*_` ").rstrip(".,;: "), 1))
    match = NUMBER.match(text)
    if match is None or (match["suffix"] and not _multiplies(match)):
        return None
    unit = _UNIT.match(text, match.end())
    if unit is None or text[unit.end() :].strip(" .,*_`$"):
        return None
    number = number_of(match)
    if number is not None and "%" in unit[0]:
        number = dataclasses.replace(number, percent=True)
    return number


def join_thousands(text: str) -> str:
    """The text with commas for the spaces in a number such as "1 234" that it begins with."""
    found = _SPACED.match(text)
    return text if found is None else found[0].replace(" ", ",") + text[found.end() :]


def _fraction(digits: str) -> Fraction:
    digits = digits.replace(",", "")
    return Fraction(int(digits) if digits.isdigit() else digits)


def _vulgar(match: re.Match) -> str:
    before = match.string[match.start() - 1 : match.start()]
    return (" " if before.isascii() and before.isdigit() else "") + unicodedata.normalize(
        "NFKC", match[0]
    )


def _decimal(value: Fraction) -> str | None:
    """A value of no sign as a decimal, if it ends after at most `LONGEST` digits."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        places = max(places, count)
    if rest != 1 or places > LONGEST:
        return None
    digits = str(value.numerator * 10**places // value.denominator)
    if not places:
        return digits
    digits = digits.zfill(places + 1)
    return f"{digits[:-places]}.{digits[-places:]}"
