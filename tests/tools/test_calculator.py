"""The calculator: exact where numbers allow, and no way for an expression to be a program."""

import math
import random
from fractions import Fraction

import pytest

from arkjax.tools.calculator import MAX_DIGITS, CalculatorError, calculate

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("0.1 + 0.2", "0.3"),
        ("3/4 + 1", "1.75"),
        ("1/3 * 3", "1"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("2 ** 3 ** 2", "512"),
        ("-2 ^ 2", "-4"),
        ("2 ** -2", "0.25"),
        ("1,234,567.50 + 1", "1234568.5"),
        ("max(1,200, 3)", "200"),
        ("comb(52, 5)", "2598960"),
        ("sqrt(49/4)", "3.5"),
        ("round(2.5) + round(-2.5, 0)", "0"),
        ("round(2.345, 2)", "2.35"),
        ("factorial(20)", "2432902008176640000"),
        ("gcd(12, 18) + lcm(4, 6)", "18"),
        ("12 × 3 ÷ 4 − 1", "8"),
        (".5e1 + 1.", "6"),
        ("1e3", "1000"),
        ("log(8, 2)", "3"),
        ("-1/8", "-0.125"),
        ("- - 3", "3"),
    ],
)
def test_values(expression, value):
    assert calculate(expression) == value


def test_a_fraction_without_end_is_given_both_ways():
    assert calculate("1/3") == "1/3 (about 0.333333333333)"
    assert calculate("sqrt(2)") == "1.41421356237"
    assert calculate("2 * pi") == f"{2 * math.pi:.12g}"


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "ends too early"),
        ("1 +", "ends too early"),
        ("(1", "expected '\\)'"),
        ("1 2", "'2' does not fit"),
        ("1/0", "division by zero"),
        ("5 % (2 - 2)", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("(-8) ** 0.5", "not a real"),
        ("sqrt(-1)", "no answer"),
        ("ln(0)", "no answer"),
        ("__import__('os')", "is no arithmetic"),
        ("open", "'open' is not known"),
        ("exec(1)", "exec\\(\\) is not known"),
        ("(1).__class__", "is no arithmetic"),
        ("9 ** 9 ** 9", "more than"),
        ("10 ** 2000", "digits"),
        ("factorial(1e9)", "between 0 and 400"),
        ("factorial(2.5)", "whole numbers"),
        ("sqrt(1, 2)", "takes 1 to 1"),
        ("(" * 200, "nested"),
        ("-(" * 200, "nested"),
        ("2 ** " * 190 + "1", "nested"),
        ("1" * 1001, "1001 characters"),
        ("exp(1000)", "no answer"),
        ("1e9999", "digits"),
        ("２ + ２", "no arithmetic"),
        ("1; 2", "no arithmetic"),
    ],
)
def test_what_is_no_arithmetic_is_refused(expression, complaint):
    with pytest.raises(CalculatorError, match=complaint):
        calculate(expression)


def test_random_expressions_have_the_values_of_exact_fractions():
    rng = random.Random(0)

    def make(depth: int) -> tuple[str, Fraction]:
        if depth == 0 or rng.random() < 0.2:
            value = Fraction(rng.randint(0, 99), rng.choice([1, 2, 4, 5, 10]))
            return f"{float(value):g}", value
        (a, x), (b, y) = make(depth - 1), make(depth - 1)
        sign = rng.choice("+-*/" if y else "+-*")
        value = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else Fraction(0)}[sign]
        return f"({a} {sign} {b})", value

    for _ in range(300):
        text, value = make(4)
        found = calculate(text)
        exact = found.split(" ")[0]
        assert Fraction(exact) == value, text


def test_no_text_crashes_it_or_takes_long():
    rng = random.Random(1)
    signs = "0123456789.,+-*/%^() eE_axπ∞" + "sqrt(max(**//"
    for _ in range(3000):
        text = "".join(rng.choice(signs) for _ in range(rng.randint(0, 60)))
        try:
            assert len(calculate(text)) < 3 * MAX_DIGITS
        except CalculatorError:
            pass
