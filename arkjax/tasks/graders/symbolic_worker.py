"""The program that compares expressions, in a process of its own: see `symbolic.py`.

Requests and replies are JSON objects. A `Worker` serves them; after `warm` the process writes no
file, and has no more memory than it is granted.
"""

import logging
import re
from typing import Any

# What people write where LaTeX has a command.
_SIGNS = {
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "±": r"\pm ",
    "°": r"^\circ ", "∅": r"\emptyset ", "²": "^2", "³": "^3",
}  # fmt: skip
_ROOT = re.compile(r"√\s?(?:\(([^()]{1,100})\)|(\w{1,20}))|(?<!\\)\bsqrt\s?\(([^()]{1,100})\)")
_WORD = re.compile(r"(?<![\\A-Za-z{])(pi|sin|cos|tan|log|ln|exp|infty|infinity)(?![A-Za-z])")


def latex(text: str) -> str:
    """An expression as LaTeX: signs and names that people type, in its commands."""
    text = _ROOT.sub(lambda m: rf"\sqrt{{{next(filter(None, m.groups()))}}}", text)
    for sign, command in _SIGNS.items():
        text = text.replace(sign, command)
    text = _WORD.sub(lambda m: "\\" + m[1].replace("infinity", "infty") + " ", text)
    return text.replace("**", "^").replace("$", "").strip()


def equal(gold: str, answer: str) -> bool:
    """Whether math-verify takes `answer` for `gold`."""
    from math_verify import parse, verify

    # Its own time limits are alarms, which end no long computation in C.
    sides = [parse(f"${latex(text)}$", parsing_timeout=None) for text in (gold, answer)]
    return all(sides) and verify(*sides, timeout_seconds=None)


def warm() -> None:
    """Import and load now whatever comparing needs: memory and time are not limited yet."""
    logging.disable(logging.CRITICAL)
    for gold, answer in [
        (r"\frac{1}{2}", "0.5"), (r"x^2+2x+1", "(x+1)^2"), (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"[0,1)\cup(2,3)", "[0,1)"), (r"\{1,2\}", "1,2"), ("1+1", "2+1"), ("(1,2)", "(2,3)"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
        (r"\sin^2 x+\cos^2 x", "1"), ("x<3", r"(-\infty,3)"), ("x=5", "5"), (r"3+4i", "4i+3"),
        (r"\log_2 8", "3"), ("5!", "120"), (r"\int_0^1 x dx", r"\frac12"), ("x^3=8", "x=2"),
    ]:  # fmt: skip
        equal(gold, answer)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request {"gold", "answer"}: {"equal"}; an error makes no two things equal."""
    try:
        return {"equal": bool(equal(request["gold"], request["answer"]))}
    except (Exception, MemoryError, RecursionError):
        return {"equal": False}
