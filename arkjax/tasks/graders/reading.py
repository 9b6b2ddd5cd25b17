r"""What any reader of answers finds: numbers, boxes, and what "Answer:" opens.

No function raises, and each takes time linear in the part that it reads. Only the end of a long
text is read, `TAIL` characters: an answer stands there. Digits are those of ASCII only.
"""

import re

TAIL = 8192

_DIGITS = re.compile(
    r"(?<![A-Za-z_0-9.])"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?|\.[0-9]+)"
    r"(?![A-Za-z_0-9])"
)
_FRACTION = re.compile(r"\\[dtc]?frac[ ]?\{[ ]?([0-9]{1,32})[ ]?\}[ ]?\{[ ]?([0-9]{1,32})[ ]?\}")
# "Answer:", "the answer is", "Final answer", <answer> and, where a line begins, "A:".
_MARKER = re.compile(
    r"\banswers?(?:[ ](?:to|for|of)[ ][^\n.:=]{1,60}?)??[*_\"'’` ]{0,4}"
    r"(?:[ \n](?:is|are|equals|was|will[ ]be|would[ ]be|must[ ]be|should[ ]be)\b"
    r"(?![ ](?:also[ ]|still[ ])?(?:(?:in)?(?:correct|valid|consistent)|right|wrong|not|based)\b)"
    r"[ ]?:?"
    r"|[:=])"
    r"|^[ \t>*_#]{0,8}(?:final[ ])?answer[ ]?[*_]{0,3}[ ]?$"
    r"|^[ \t>*_#]{0,8}final[ ]answer\b(?![*_ ]{0,4}(?:is\b|[:=]))"
    r"|^[ \t>*_]{0,8}A[*_]{0,2}:|<answer>",
    re.IGNORECASE | re.MULTILINE,
)


def last_number(text: str) -> str | None:
    """The last number in `text`: integer, decimal or fraction, without thousands separators.

    A fraction in LaTeX is written with a stroke, `\\frac{3}{4}` as 3/4.
    """
    tail = _FRACTION.sub(r"\1/\2", text[-TAIL:].replace("\u2212", "-"))
    found = None
    for match in _DIGITS.finditer(tail):
        found = match
    if found is None:
        return None
    sign = ""
    before = found.start() - 1
    if before >= 0 and tail[before] == "-":
        # After an operand a dash subtracts, as in "5-3" or "(a)-3"; elsewhere it is the sign.
        operand = before > 0 and (tail[before - 1].isalnum() or tail[before - 1] in ")]}_")
        sign = "" if operand else "-"
    digits = found[0].replace(",", "")
    return sign + ("0" + digits if digits.startswith(".") else digits)


def last_boxed(text: str) -> str | None:
    """What stands in the last complete `\\boxed{}` or `\\fbox{}` of `text`, braces balanced."""
    tail = text[-TAIL:]
    opened: list[int | None] = []
    found: str | None = None
    for match in re.finditer(r"\\(?:boxed|fbox)[ ]?\{|\\[{}\\]|[{}]", tail):
        token = match[0]
        if token in ("\\{", "\\}", "\\\\"):
            continue
        if token == "}":
            start = opened.pop() if opened else None
            if start is not None:
                found = tail[start : match.start()].strip()
        else:
            opened.append(match.end() if token != "{" else None)
    return found or None


def last_stated(text: str) -> str | None:
    """What stands after the last "Answer:", "the answer is", "Final answer" or "A:" of `text`.

    `<answer>` is such a marker as well. What it states is the rest of its line or, where nothing is
    left of it, the next line that is not empty; "" if the text ends there, None if there is no
    such marker.
    """
    tail = text[-TAIL:]
    found = None
    for match in _MARKER.finditer(tail):
        found = match
    return None if found is None else following(tail, found.end())


def markers(text: str) -> list[re.Match]:
    """The markers that `last_stated` knows, in order."""
    return list(_MARKER.finditer(text))


def following(text: str, start: int) -> str:
    """The rest of the line from `start` or, if that says nothing, the next line that does."""
    for line in text[start:].split("</answer>", 1)[0].split("\n"):
        said = line.strip().lstrip("*_:` ").strip()
        if said.strip("$\\[]("):
            return said
    return ""
