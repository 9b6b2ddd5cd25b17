"""From the text of a message to its fields. No parser raises, and none takes unbounded time.

Four read `answer`: `task` asks the task's own grader, so that teams vote on what is graded;
`number` takes the last number, `choice` the last choice letter, `boxed` the last `\\boxed{}`.
`regex` takes the last match of a pattern and `json` the last JSON object that has one of its keys:
they read what they are told to. `scores` reads `score`, the mean of the numbers that stand after a
name and a colon; `ranking` reads `ranking`, the names or numbers of the last list; `verdict` reads
`verdict`, "yes" or "no"; `speaker` reads `next`, the agent that was named last. `fields` takes what
a tool reports under the keys named. `none` reads nothing. Only the end of a long text is read: an
answer stands there.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from arkjax.errors import ConfigError
from arkjax.tasks.graders.choices import last_choice
from arkjax.tasks.graders.reading import TAIL, last_boxed, last_number

_ANSWERS = ("task", "number", "choice", "boxed")
_FIELDS = {"scores": "score", "ranking": "ranking", "verdict": "verdict", "speaker": "next"}
PARSERS = (*_ANSWERS, "regex", "json", *_FIELDS, "fields", "none")

# A pattern with r loops takes at most about n^(r+1) steps on n characters: these two bound it.
_LINE = 300
_LINES = 64
_LOOPS = 3
# Of three loops about six whole lines.
_STEPS = 5 * 10**10


def fields_of(kind: str, pattern: str = "", keys: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the fields that a parser of the given kind can fill."""
    if kind in _ANSWERS:
        return ("answer",)
    if kind == "regex":
        return tuple(re.compile(pattern).groupindex) or ("answer",)
    if kind in ("json", "fields"):
        return tuple(keys)
    return (_FIELDS[kind],) if kind in _FIELDS else ()


def parse(
    kind: str,
    text: str,
    *,
    pattern: str = "",
    choices: str = "ABCDE",
    extract: Callable[[str], str | None] | None = None,
    keys: Sequence[str] = (),
    names: Sequence[str] = (),
) -> dict[str, str]:
    """The fields that a parser of the given kind finds in `text`; empty if it finds none.

    Args:
      kind: one of `PARSERS`.
      text: any text at all.
      pattern: of the `regex` parser, checked by `check_pattern`.
      choices: capital letters of the `choice` parser.
      extract: `Grader.extract` of the task, for the `task` parser.
      keys: fields of the `json` parser.
      names: whom the `speaker` parser knows.
    """
    if kind == "regex":
        return _regex(text, pattern)
    if kind == "json":
        return last_json(text, keys)
    if kind not in (*_ANSWERS, *_FIELDS):
        return {}
    read: dict[str, Callable[[], str | None]] = {
        "task": lambda: extract(text) if extract else None,
        "number": lambda: last_number(text),
        "choice": lambda: last_choice(text, choices),
        "boxed": lambda: last_boxed(text),
        "scores": lambda: mean_score(text),
        "ranking": lambda: last_ranking(text),
        "verdict": lambda: last_verdict(text),
        "speaker": lambda: last_name(text, names),
    }
    value = read[kind]()
    return {} if value is None else {_FIELDS.get(kind, "answer"): value}


_SCORE = re.compile(
    r"^[ \t*_>#-]{0,8}(?:[0-9]{1,2}[.)][ \t*_]{1,4})?([^\W\d_][\w \t/()&'’-]{0,40})[*_ ]{0,4}[:=]"
    r"[*_ \t]{0,4}(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)(?![\w]|[.,][0-9])",
    re.MULTILINE,
)
_YES = "yes|true|correct|approve[sd]?|agree[sd]?|accept(?:ed|s)?|pass(?:ed|es)?"
_NO = "no|false|incorrect|wrong|reject(?:ed|s)?|disagree[sd]?|disapprove[sd]?|fail(?:ed|s)?"
_NOT = (
    r"(?:not|cannot|never|[a-z]{2,6}n['’]t)[\s*_]{1,4}(?:(?:yet|quite|fully|entirely)[\s*_]{1,4})?"
)
_VERDICT = re.compile(
    rf"(?<![\w'’-])(?P<not>{_NOT})?(?:(?P<yes>{_YES})|(?P<no>{_NO}))(?![\w'’-])", re.IGNORECASE
)
_BOXES = re.compile(r"\[[^\[\]]{1,64}\](?:[ ]?>[ ]?\[[^\[\]]{1,64}\]){1,63}")
_LIST = re.compile(r"\[([^\[\]]{1,400})\]")
# Who is called "agent 2" keeps the two words; emphasis may stand around each name.
_NAME = r"[*`\"']{0,3}(?:agent[ ])?[\w.-]{1,64}[*`\"']{0,3}"
_CHAIN = re.compile(rf"{_NAME}(?:[ ]?[>,][ ]?{_NAME}){{1,63}}", re.IGNORECASE)


def mean_score(text: str) -> str | None:
    """The mean of the scores, each on a line such as "Clarity: 4" or "Clarity: 4/5"; as text."""
    scores = [score for _, score in named_scores(text)]
    return f"{sum(scores) / len(scores):g}" if scores else None


def named_scores(text: str) -> list[tuple[str, float]]:
    """The scores that `mean_score` takes the mean of, in order, each with the name before it."""
    found = _SCORE.finditer(text[-TAIL:])
    return [(match[1].strip(" \t*_"), float(match[2])) for match in found]


def last_verdict(text: str) -> str | None:
    """ "yes" or "no": the last word in `text` that says whether something holds.

    Yes are yes, true, correct, approve, agree, accept and pass, no their opposites and what stands
    behind a "not".
    """
    found = None
    for match in _VERDICT.finditer(text[-TAIL:]):
        found = match
    if found is None:
        return None
    return "yes" if bool(found["yes"]) != bool(found["not"]) else "no"


def last_ranking(text: str) -> str | None:
    """What the last list in `text` names, best first, as a JSON list of texts.

    A list stands in brackets, "[2, 1]", or is a chain of two or more such as "b > a", "2, 1" or
    "[2] > [1]".
    """
    tail = text[-TAIL:]
    for form in (_BOXES, _LIST, _CHAIN):
        found = None
        for match in form.finditer(tail):
            found = match[1] if form is _LIST else match[0]
        if found is not None:
            parts = [part.strip(" \t\"'`*[]").rstrip(".") for part in re.split(r"[>,;]", found)]
            named = list(dict.fromkeys(filter(None, parts)))
            if named:
                return json.dumps(named, ensure_ascii=False)
    return None


def last_name(text: str, names: Sequence[str]) -> str | None:
    """Which of the names stands last in `text`, as a word; capitals do not count."""
    tail = text[-TAIL:].casefold()
    best: tuple[int, int, str] | None = None
    for name in names:
        pattern = rf"(?<!\w){re.escape(name.casefold())}(?!\w)"
        for match in re.finditer(pattern, tail):
            # Of names that end at one place the longest is meant: "critic 12", not "12".
            best = max(best or (0, 0, ""), (match.end(), len(name), name))
    return best[2] if best else None


def last_json(text: str, keys: Sequence[str]) -> dict[str, str]:
    """The values of `keys` in the last JSON object of `text` that has any of them, as texts.

    Keys are compared without capitals and with "_" as a space. Texts stay as they are; other values
    are their JSON.
    """
    wanted = {_plain_key(key): key for key in keys}
    tail, start, found = text[-TAIL:], -1, {}
    decoder = json.JSONDecoder(parse_constant=lambda name: name)
    while (start := tail.find("{", start + 1)) >= 0:
        try:
            value, end = decoder.raw_decode(tail, start)
            read = {
                wanted[_plain_key(key)]: item if isinstance(item, str) else _as_json(item)
                for key, item in value.items()
                if _plain_key(key) in wanted and item is not None
            }
        except (ValueError, RecursionError):
            continue
        start = end - 1
        found = read or found
    return {key: _storable(item) for key, item in found.items()}


def _storable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can spell and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain_key(key: str) -> str:
    return " ".join(key.replace("_", " ").split()).casefold()


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


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
    power, steps = 1 + _count_loops(re._parser.parse(pattern)), 0
    for line in reversed(text[-TAIL:].splitlines()[-_LINES:]):
        steps += min(len(line), _LINE) ** power
        if steps > _STEPS:
            break
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
