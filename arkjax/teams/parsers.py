"""From the text of a message to its fields. No parser raises, and none takes unbounded time.

`task` asks the task's own grader, so that teams vote on what is graded; `number` takes the last
number, `choice` the last choice letter, `boxed` the last `\\boxed{}`, `regex` the last match of a
pattern; `none` reads nothing. Only the end of a long text is read: an answer stands there.
"""

import re
from collections.abc import Callable

from arkjax.errors import ConfigError

PARSERS = ("task", "number", "choice", "boxed", "regex", "none")

_TAIL = 8192
# A pattern with r loops takes at most about n^(r+1) steps on n characters: these two bound it.
_LINE = 300
_LINES = 64
_LOOPS = 3

_DIGITS = re.compile(
    r"(?<![A-Za-z_0-9.])"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?|\.[0-9]+)"
    r"(?![A-Za-z_0-9])"
)


def parse(
    kind: str,
    text: str,
    *,
    pattern: str = "",
    choices: str = "ABCDE",
    extract: Callable[[str], str | None] | None = None,
) -> dict[str, str]:
    """The fields that a parser of the given kind finds in `text`; empty if it finds none.

    Args:
      kind: one of `PARSERS`.
      text: any text at all.
      pattern: of the `regex` parser, checked by `check_pattern`.
      choices: capital letters of the `choice` parser.
      extract: `Grader.extract` of the task, for the `task` parser.
    """
    if kind == "none":
        return {}
    if kind == "regex":
        return _regex(text, pattern)
    if kind == "task":
        answer = extract(text) if extract else None
    elif kind == "number":
        answer = last_number(text)
    elif kind == "choice":
        answer = last_choice(text, choices)
    else:
        answer = last_boxed(text)
    return {} if answer is None else {"answer": answer}


def last_number(text: str) -> str | None:
    """The last number in `text`: integer, decimal or fraction, without thousands separators."""
    tail = _tail(text).replace("\u2212", "-")
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


def last_choice(text: str, choices: str = "ABCDE") -> str | None:
    """The last choice letter in `text`, as a capital; a stated answer outweighs a mention.

    A letter counts in parentheses or a box in either case, and as a bare capital that stands
    alone. The article is no choice: a bare "a" never counts, a bare A or I not before a word other
    than "is" or "was".
    """
    tail = _tail(text)
    letters = re.escape(choices.upper() + choices.lower())
    capitals = re.escape(choices.upper())
    marked = rf"[(\[{{][ ]?([{letters}])[ ]?[)\]}}]"
    bare = rf"(?<![\w'’])([{capitals}])(?![\w'’])"
    for form in (
        rf"\\boxed[ ]?\{{[ ]?(?:\\text\{{)?[ ]?\(?([{letters}])\)?[ ]?\}}",
        rf"(?:answer|choice|option)\b[ ]?(?:is|was)?[ ]?[:=]?[ ]?[*_`\"']{{0,2}}"
        rf"(?:{marked}|{bare})",
        rf"{marked}|{bare}",
    ):
        found = None
        for match in re.finditer(form, tail, re.IGNORECASE if "answer" in form else 0):
            letter = next(group for group in match.groups() if group)
            enclosed = not tail[match.end() - 1].isalpha()
            if enclosed or (letter.isupper() and not _is_article(letter, tail[match.end() :][:24])):
                found = letter
        if found:
            return found.upper()
    return None


def last_boxed(text: str) -> str | None:
    """What stands in the last complete `\\boxed{}` or `\\fbox{}` of `text`, braces balanced."""
    tail = _tail(text)
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


def check_pattern(pattern: str, path: str) -> None:
    """Raise ConfigError unless `pattern` is a regular expression that cannot take for ever.

    Allowed are at most three loops (`*`, `+`, `{n,m}`), none inside another and none around
    alternatives, and no back references: what is left takes polynomial time on a short line.
    """
    if not pattern:
        raise ConfigError(f"{path} is missing: the regex parser needs it")
    try:
        tree = re._parser.parse(pattern)
    except re.error as error:
        raise ConfigError(f"{path} is {pattern!r}: not a regular expression ({error})") from None
    problem = _slow_part(tree, inside=False) or (
        f"more than {_LOOPS} loops" if _count_loops(tree) > _LOOPS else None
    )
    if problem:
        raise ConfigError(
            f"{path} is {pattern!r}: it has {problem}, which can take for ever on some texts;"
            " write it without"
        )


def _regex(text: str, pattern: str) -> dict[str, str]:
    compiled = re.compile(pattern)
    for line in reversed(_tail(text).splitlines()[-_LINES:]):
        found = None
        for match in compiled.finditer(line[-_LINE:]):
            found = match
        if found is None:
            continue
        if compiled.groupindex:
            return {name: value for name, value in found.groupdict().items() if value is not None}
        answer = found[1] if compiled.groups else found[0]
        return {} if answer is None else {"answer": answer}
    return {}


def _tail(text: str) -> str:
    return text[-_TAIL:]


def _is_article(letter: str, after: str) -> bool:
    if letter not in "AI":
        return False
    return bool(re.match(r"\s+(?!(?:is|was)\b)[^\W\d_]", after))


def _children(argument: object) -> list:
    """The sub-patterns in the argument of a node of a parsed pattern."""
    if isinstance(argument, re._parser.SubPattern):
        return [argument]
    if isinstance(argument, list | tuple):
        return [child for item in argument for child in _children(item)]
    return []


def _loops(operation: object, argument: object) -> bool:
    return str(operation) in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT") and argument[1] > 1


def _count_loops(tree: object) -> int:
    total = 0
    for operation, argument in tree:
        total += _loops(operation, argument)
        total += sum(_count_loops(child) for child in _children(argument))
    return total


def _slow_part(tree: object, inside: bool) -> str | None:
    for operation, argument in tree:
        if str(operation).startswith("GROUPREF"):
            return "a back reference"
        loop = _loops(operation, argument)
        if loop and inside:
            return "a loop inside a loop"
        if inside and (str(operation) == "BRANCH" or str(operation).endswith("REPEAT")):
            return "alternatives inside a loop"
        for child in _children(argument):
            problem = _slow_part(child, inside or loop)
            if problem:
                return problem
    return None
