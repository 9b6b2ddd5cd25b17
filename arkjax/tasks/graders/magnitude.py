r"""How large the numbers of an expression are, found out without computing them.

A short text can name a number that fills any memory: `2^{10^{10}}`, `9^9^9^9`, `10000000!`. Its
digits are bounded from above here, by logarithms: of a power, the exponent times the logarithm of
the base; of a factorial, n log10 n, which n! does not exceed. A letter counts as 2, a division as
its numerator. Nothing is evaluated, and the time is linear in the text.
"""

import math
import re

DIGITS = 5000
"""Digits of a number that is computed."""
DEEPEST = 100
"""Levels of brackets and exponents of an expression that is read."""

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE](?P<exp>[-+]?[0-9]+))?)"
    r"|(?P<space>\\[,;:! ]|\\(?:left|right|displaystyle)(?![A-Za-z])|\s+|\$)"
    r"|\\(?P<command>[A-Za-z]+)|(?P<power>\*\*|\^)|(?P<other>.)",
    re.DOTALL,
)
_CHOOSES = frozenset(("binom", "dbinom", "tbinom"))
_FRACTIONS = frozenset(("frac", "dfrac", "tfrac", "cfrac"))
# Their exponents are limits of a range.
_RANGES = frozenset(("sum", "prod", "int", "lim", "bigcup", "bigcap"))
_LETTER = math.log10(2)
_SIGNS = {"²": 2.0, "³": 3.0}


class _TooDeep(Exception):
    pass


def hindrance(text: str) -> str:
    """Why an expression is not to be computed; "" if nothing speaks against it."""
    try:
        digits = _Bound(text).whole()
    except _TooDeep:
        return f"an expression of over {DEEPEST} levels of brackets or exponents is not compared"
    if digits > DIGITS:
        return f"an expression with a number of over {DIGITS} digits is not compared"
    return ""


class _Bound:
    """Reads an expression once; each method returns log10 of a bound of what it has read."""

    def __init__(self, text: str):
        self._tokens = [m for m in _TOKEN.finditer(text) if m["space"] is None]
        self._at = 0
        self._largest = 0.0

    def whole(self) -> float:
        while self._at < len(self._tokens):
            self._sum(0)
            self._at += 1  # a closing bracket without an opening one
        return self._largest

    def _next(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _seen(self, size: float) -> float:
        self._largest = max(self._largest, size)
        return size

    def _sum(self, level: int) -> float:
        """Up to the bracket that closes: the largest of the terms, and a digit for each."""
        total = term = 0.0
        terms = 1
        while (token := self._next()) and token not in ")]}":
            if token in "+-=<>,;&|:":
                total, term, terms = max(total, term), 0.0, terms + 1
                self._at += 1
            elif token in "*/×÷·\\":
                self._at += 1
            else:
                term = self._seen(term + self._factor(level))
        return max(total, term) + math.log10(terms)

    def _factor(self, level: int) -> float:
        if level > DEEPEST:
            raise _TooDeep
        token = self._tokens[self._at]
        self._at += 1
        size = self._atom(token, level)
        while (behind := self._next()) and (behind in ("!", "^", "**", "_") or behind in _SIGNS):
            self._at += 1
            if behind == "!":
                size = self._seen(_factorial(size))
            elif behind in _SIGNS:
                size = self._seen(size * _SIGNS[behind])
            elif self._at < len(self._tokens) and self._next() not in ")]}":
                signs = 0
                while self._next() in ("-", "+") and self._next():
                    self._at, signs = self._at + 1, signs + 1
                if self._at == len(self._tokens):
                    break
                if behind == "_":
                    self._at += 1
                    self._atom(self._tokens[self._at - 1], level)
                    continue
                exponent = self._factor(level + 1)
                if token["command"] not in _RANGES:
                    size = self._seen(_power(size, exponent))
        return size

    def _atom(self, token: re.Match, level: int) -> float:
        if token["number"]:
            return self._seen(_digits(token))
        if token["command"]:
            if token["command"] in _CHOOSES and self._next() == "{":
                return self._seen(_power(_LETTER, self._factor(level + 1)))
            if token["command"] in _FRACTIONS and self._next() == "{":
                self._at += 1
                above = self._atom(self._tokens[self._at - 1], level)
                return max(above, self._factor(level) if self._next() == "{" else 0.0)
            return _LETTER
        if token[0] in "([{":
            if level > DEEPEST:
                raise _TooDeep
            size = self._sum(level + 1)
            self._at += 1
            return size
        return _LETTER if token[0].isalpha() else 0.0


def _digits(token: re.Match) -> float:
    whole = token["number"].lower().partition("e")[0].partition(".")[0].replace(",", "").lstrip("0")
    size = len(whole) - 1 + math.log10(int(whole[0]) + 1) if whole else 0.0
    if len(whole) < 16 and whole:
        size = math.log10(int(whole))
    return size + abs(float(token["exp"] or 0))


def _power(size: float, exponent: float) -> float:
    """log10 of a power, from log10 of its base and of its exponent."""
    if size == 0:
        return 0.0
    return size * 10**exponent if exponent < 9 else math.inf


def _factorial(size: float) -> float:
    return 10**size * size if size < 9 else math.inf
