"""A calculator for agents: arithmetic that is parsed, never evaluated as a program.

    expression = term (("+" | "-") term)*
    term       = factor (("*" | "/" | "//" | "%") factor)*
    factor     = ("+" | "-") factor | power
    power      = atom (("**" | "^") factor)?
    atom       = number | name "(" expression ("," expression)* ")" | constant | "(" expression ")"

Whole numbers and fractions are exact; roots, logarithms and circular functions are floats. `%` and
`//` round down, as Python's do. Numbers may have commas between thousands and an exponent.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from fractions import Fraction

from arkjax.errors import ArkJAXError

MAX_CHARACTERS = 1_000
"""The longest expression that is read."""
MAX_DIGITS = 1_000
"""Most digits of numerator or denominator of any number on the way."""
_MAX_DEPTH = 50
_MAX_BITS = int(MAX_DIGITS * math.log2(10))

Number = Fraction | float

_EXPONENT = r"(?:[eE][+-]?[0-9]{1,4}(?!\w))?"
_REST = r"|(?P<name>[A-Za-z_]\w*)|(?P<sign>\*\*|//|[-+*/%^(),]))"
# Between the arguments of a function commas separate them; elsewhere they separate thousands.
_IN_CALL = re.compile(rf"\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+){_EXPONENT})" + _REST)
_OUTSIDE = re.compile(
    rf"\s*(?:(?P<number>[0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])(?:\.[0-9]*)?"
    rf"|(?:[0-9]+\.?[0-9]*|\.[0-9]+){_EXPONENT})" + _REST
)
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e}


class CalculatorError(ArkJAXError):
    """What was asked is no arithmetic, or has no answer."""


def _exactly_root(value: Number) -> Number:
    if isinstance(value, Fraction) and value >= 0:
        roots = (math.isqrt(value.numerator), math.isqrt(value.denominator))
        if (roots[0] ** 2, roots[1] ** 2) == (value.numerator, value.denominator):
            return Fraction(*roots)
    return math.sqrt(value)


def _factorial(value: Number) -> Number:
    n = _whole(value, "factorial")
    if not 0 <= n <= 400:
        raise CalculatorError(f"factorial of {n}: it must be between 0 and 400")
    return Fraction(math.factorial(n))


def _round(value: Number, digits: Number = Fraction(0)) -> Number:
    if abs(_whole(digits, "round")) > 100:
        raise CalculatorError("round: at most 100 digits")
    # Half away from zero, as on paper; Python rounds half to even.
    scale = Fraction(10) ** int(digits)
    exact = Fraction(value) * scale
    return Fraction(math.floor(abs(exact) + Fraction(1, 2)) * (1 if exact >= 0 else -1)) / scale


def _whole(value: Number, name: str) -> int:
    if value != int(value):
        raise CalculatorError(f"{name} takes whole numbers")
    return int(value)


def _comb(n: Number, k: Number) -> Number:
    a, b = _whole(n, "comb"), _whole(k, "comb")
    if not 0 <= b <= a <= 1_000:
        raise CalculatorError("comb(n, k) needs 0 <= k <= n <= 1000")
    return Fraction(math.comb(a, b))


def _of_whole(function: Callable[..., int], name: str) -> Callable[..., Number]:
    return lambda *values: Fraction(function(*(_whole(value, name) for value in values)))


# Functions with the least and most arguments they take.
_FUNCTIONS: dict[str, tuple[Callable[..., Number], int, int]] = {
    "sqrt": (_exactly_root, 1, 1),
    "abs": (abs, 1, 1),
    "round": (_round, 1, 2),
    "floor": (lambda x: Fraction(math.floor(x)), 1, 1),
    "ceil": (lambda x: Fraction(math.ceil(x)), 1, 1),
    "min": (min, 1, 100),
    "max": (max, 1, 100),
    "gcd": (_of_whole(math.gcd, "gcd"), 1, 100),
    "lcm": (_of_whole(math.lcm, "lcm"), 1, 2),
    "factorial": (_factorial, 1, 1),
    "comb": (_comb, 2, 2),
    "exp": (math.exp, 1, 1),
    "ln": (math.log, 1, 1),
    "log": (math.log, 1, 2),
    "log10": (math.log10, 1, 1),
    "log2": (math.log2, 1, 1),
    "sin": (math.sin, 1, 1),
    "cos": (math.cos, 1, 1),
    "tan": (math.tan, 1, 1),
}


@dataclasses.dataclass
class _Reader:
    """A recursive-descent parser that computes as it reads."""

    tokens: list[tuple[str, str]]
    at: int = 0
    depth: int = 0

    def next_is(self, *signs: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] in [("sign", s) for s in signs]

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1][1]

    def expect(self, sign: str) -> None:
        if not self.next_is(sign):
            found = self.tokens[self.at][1] if self.at < len(self.tokens) else "the end"
            raise CalculatorError(f"expected {sign!r}, found {found!r}")
        self.take()

    def expression(self) -> Number:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise CalculatorError(f"nested more than {_MAX_DEPTH} deep")
        value = self.term()
        while self.next_is("+", "-"):
            sign, other = self.take(), self.term()
            value = _checked(value + other if sign == "+" else value - other)
        self.depth -= 1
        return value

    def term(self) -> Number:
        value = self.factor()
        while self.next_is("*", "/", "//", "%"):
            sign, other = self.take(), self.factor()
            if sign != "*" and other == 0:
                raise CalculatorError("division by zero")
            if sign == "*":
                value = value * other
            elif sign == "/":
                value = value / other
            else:
                value = Fraction(value // other) if sign == "//" else value % other
            value = _checked(value)
        return value

    def factor(self) -> Number:
        negative = False
        while self.next_is("+", "-"):
            negative ^= self.take() == "-"
        value = self.power()
        return -value if negative else value

    def power(self) -> Number:
        base = self.atom()
        if not self.next_is("**", "^"):
            return base
        self.take()
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise CalculatorError(f"nested more than {_MAX_DEPTH} deep")
        exponent = self.factor()
        self.depth -= 1
        return _checked(_power(base, exponent))

    def atom(self) -> Number:
        if self.at == len(self.tokens):
            raise CalculatorError("the expression ends too early")
        kind, text = self.tokens[self.at]
        if kind == "number":
            self.take()
            return _checked(Fraction(text.replace(",", "")))
        if kind == "name":
            self.take()
            if self.next_is("("):
                return self.function(text)
            if text not in _CONSTANTS:
                raise CalculatorError(f"{text!r} is not known here")
            return _CONSTANTS[text]
        self.expect("(")
        value = self.expression()
        self.expect(")")
        return value

    def function(self, name: str) -> Number:
        if name not in _FUNCTIONS:
            raise CalculatorError(f"{name}() is not known; there are: {', '.join(_FUNCTIONS)}")
        self.expect("(")
        arguments = [self.expression()]
        while self.next_is(","):
            self.take()
            arguments.append(self.expression())
        self.expect(")")
        function, least, most = _FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            raise CalculatorError(f"{name}() takes {least} to {most} numbers, not {len(arguments)}")
        return _checked(function(*arguments))


def _power(base: Number, exponent: Number) -> Number:
    if base == 0 and exponent < 0:
        raise CalculatorError("division by zero")
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(abs(base.numerator), base.denominator).bit_length()
        if bits * abs(exponent.numerator) > 2 * _MAX_BITS and abs(base) != 1:
            raise CalculatorError(f"the result has more than {MAX_DIGITS} digits")
        return base**exponent.numerator
    result = float(base) ** float(exponent)
    if isinstance(result, complex):
        raise CalculatorError("the result is not a real number")
    return result


def _checked(value: Number) -> Number:
    if isinstance(value, Fraction):
        if max(abs(value.numerator), value.denominator).bit_length() > _MAX_BITS:
            raise CalculatorError(f"a number has more than {MAX_DIGITS} digits")
    elif not math.isfinite(value):
        raise CalculatorError("the result is not a finite number")
    return value


def calculate(expression: str) -> str:
    """The value of an arithmetic expression: `calculate("3/4 + 1")` is "1.75".

    A fraction that ends is written as a decimal; one that does not, as `a/b` with its value to 12
    digits. Raises CalculatorError saying what is wrong with the expression.
    """
    text = expression.strip().translate(_TYPOGRAPHIC)
    if len(text) > MAX_CHARACTERS:
        raise CalculatorError(
            f"the expression has {len(text)} characters; {MAX_CHARACTERS} at most"
        )
    reader = _Reader(_tokens(text))
    try:
        value = reader.expression()
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise CalculatorError(f"no answer: {error}") from None
    if reader.at < len(reader.tokens):
        raise CalculatorError(f"{reader.tokens[reader.at][1]!r} does not fit there")
    return _text(value)


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each part of an expression."""
    tokens: list[tuple[str, str]] = []
    calls: list[bool] = []  # Of each open parenthesis, whether it is a function's.
    at = 0
    while at < len(text):
        match = (_IN_CALL if any(calls) else _OUTSIDE).match(text, at)
        if match is None:
            raise CalculatorError(f"{text[at : at + 20]!r} is no arithmetic")
        kind, part = match.lastgroup, match[match.lastgroup]
        if part == "(":
            calls.append(bool(tokens) and tokens[-1][0] == "name")
        elif part == ")" and calls:
            calls.pop()
        tokens.append((kind, part))
        at = match.end()
    return tokens


# Signs as they are printed, not typed.
_TYPOGRAPHIC = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})


def _text(value: Number) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    if value.denominator == 1:
        return str(value.numerator)
    twos = (value.denominator & -value.denominator).bit_length() - 1
    rest, fives = value.denominator >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    digits = max(twos, fives)
    if rest != 1 or digits > 30:
        return f"{value.numerator}/{value.denominator} (about {float(value):.12g})"
    sign = "-" if value < 0 else ""
    whole, part = divmod(abs(value.numerator) * 10**digits // value.denominator, 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}"
