r"""Which option of a multiple choice a text chooses, by its letter.

Places are asked in this order, and the first that names a letter decides:

1. The last complete `\boxed{}`.
2. What stands behind a final-answer marker ("Answer:", "the answer is", "A:"), the last that
   names one. Letters elsewhere do not override it.
3. A first line that is only a letter, then a last line that is one or begins as "B) Vitamin C".
4. The last letter that is chosen in passing: "option B", "I choose c", "it is B", "B is correct".
5. The last capital or bracketed letter that stands alone; not where a marker states something
   else.

Directly behind a marker, or with a bracket, colon or period behind it, a letter counts in either
case; a capital counts there whatever follows. A and I before a noun are article and pronoun: they
count before a word that no article stands before ("A because", "A is"), before punctuation, a
number or the end of the line. A letter that is denied ("not B", "B is wrong") is not chosen, and
one of several ("B or C") is no answer.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

from arkjax.tasks.graders.reading import TAIL, following, last_boxed, markers

_STATEMENT = 400
"""Characters of a statement that are read."""
_MARKERS = 20
"""Markers that are asked, from the last one."""

# No article stands before these; the shorter lists are for a small letter and for a mention.
_AFTER_CAPITAL = frozenset(
    "because since as and or for which so with due given by if when from in on at is was are not "
    "then but than while where whereas thus hence therefore here this that it we you my would has "
    "have does though although instead rather seems fits works holds matches".split()
)
_AFTER_SMALL = frozenset(
    "because since as and or which so but if when is was while whereas thus hence therefore though "
    "although instead rather".split()
)
_AFTER_MENTION = frozenset("is was because since and or".split())

_OPENING = re.compile(
    r"[\s*_`\"'“‘>$:=-]*(?:\\(?:text|mbox|mathrm|textbf|mathbf|boxed)[ ]?\{)*[ *_]*"
    r"(?:(?:the[ ])?(?:correct[ ]|right[ ])?(?:option|choice|letter)\b[ :]*[*_`\"']*)?",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?](?=[\s*_]|$)|\n")
_CLAUSE = re.compile(
    r"[,;:]|\b(?:because|since|as|while|whereas|when|where|which|but|rather[ ]than|if)\b",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|none[ ]of|without|except|unlike|rather[ ]than"
    r"|instead[ ]of|rul(?:e[sd]?|ing)[ ]out|exclud(?:e[sd]?|ing)|eliminat(?:e[sd]?|ing)"
    r"|reject(?:s|ed|ing)?)|n['’]t)"
    r"(?:[ ](?:be|is|to|the|an?|either|option|choice|letter|answer|correct|right|necessarily))*"
    r"[ *_`\"'“(\[]*$",
    re.IGNORECASE,
)
_WRONG = (
    r"(?:not|never|wrong|incorrect|false|invalid|impossible|excluded|eliminated|out|too|unlikely"
    r"|ruled[ ]out|fails?|cannot|can['’]t|doesn['’]t|isn['’]t|don['’]t|aren['’]t|won['’]t)\b"
)
_DENIED_AFTER = re.compile(
    r"[ *_`\"'”)\]}]*(?:(?:is|are|was|were|seems?|looks?|must[ ]be|would[ ]be|does|do|can)[ ])?"
    rf"(?:(?:also|both|all|clearly|definitely|therefore|obviously)[ ])*{_WRONG}",
    re.IGNORECASE,
)
# What an option may say of itself, as "D) Cannot be determined", is no denial; "is wrong" is one.
_CALLED_WRONG = re.compile(
    rf"\b(?:is|are|was|were|seems?|must[ ]be)[ ](?:[a-z]{{1,12}}ly[ ]|also[ ])?{_WRONG}"
    r"|\b(?:is|are|was|were)n['’]t\b",
    re.IGNORECASE,
)
_ALSO = re.compile(
    r"[\s*_`\"'”)\]}]*(?P<by>/|&|,?\s*\b(?:and/or|or|and)\b|,)\s*"
    r"(?:(?:maybe|possibly|perhaps|probably|either|also|even|both|option|choice|answer)\s+)*[*_`\"]*",
    re.IGNORECASE,
)
_CHOSEN = (
    r"\b(?:(?:choice|option|letter)s?\b(?:[ ](?:is|was|are|must[ ]be|should[ ]be)\b)?[ ]?[:=]?"
    r"|answers?\b)(?P<named>)"
    r"|\b(?:i|we)(?:['’](?:d|ll)|[ ](?:would|will|have|can))?[ ](?:[a-z]{1,12}ly[ ])?"
    r"(?:choose|chosen?|pick(?:ed)?|select(?:ed)?|go[ ](?:with|for)|went[ ]with|guess"
    r"|vote[ ]for|say)[ ]?:?"
    r"|\b(?:it|this|that)(?:['’]s|[ ](?:is|must[ ]be|should[ ]be|has[ ]to[ ]be))"
    r"|\b(?:so|thus|hence|therefore)\b,?(?P<end>)"
)
_RIGHT = (
    r"[ ](?:is|was|must[ ]be|seems)[ ](?:the[ ])?(?:only[ ]|best[ ]|clearly[ ])?"
    r"(?:correct|right|answer|best|true|one)\b"
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The letter that a text chooses, as a capital, and where it stands; or None, and why."""

    letter: str | None
    where: str


@dataclasses.dataclass(frozen=True)
class _Forms:
    """The patterns for one set of letters."""

    label: re.Pattern
    alone: re.Pattern
    capital: re.Pattern
    small: re.Pattern
    mention: re.Pattern
    chosen: re.Pattern
    right: re.Pattern


def read_choice(
    text: str, choices: str = "ABCDE", option: Callable[[str], str | None] = lambda stated: None
) -> Choice:
    """The letter that `text` chooses, in the order that this file begins with.

    Args:
      text: any text; its last `TAIL` characters are read.
      choices: the letters that can be chosen.
      option: the letter of the option whose words a statement is, or None; it is asked where a
        statement is no letter with nothing but a bracket, a colon or a period behind it.
    """
    tail, forms = text[-TAIL:], _forms(choices)
    boxed = last_boxed(tail)
    if boxed and (found := _stated(boxed, forms, option, "in a box", within=False)):
        return found
    said = _markers(tail)
    for match in reversed(said[-_MARKERS:]):
        where = "behind " + _quoted(match)
        statement = following(tail, match.end())
        if found := _stated(statement, forms, option, where, within=True):
            return found
    lines = text[:TAIL].strip().split("\n", 1)[0], tail.strip().rpartition("\n")[2]
    if found := _line(*lines, forms, option):
        return found
    chosen = [*forms.chosen.finditer(tail), *forms.right.finditer(tail)]
    denied = False
    for match in sorted(chosen, key=lambda m: m.start("letter"), reverse=True)[:_MARKERS]:
        if found := _chosen(match, tail, forms):
            if found.letter or found.where != _DENIED:
                return found
            denied = True
    if said and not denied and following(tail, said[-1].end()):
        return Choice(None, f"behind {_quoted(said[-1])} stands no option")
    return _mentioned(tail, forms) or Choice(None, _DENIED if denied else _NOTHING)


def last_choice(text: str, choices: str = "ABCDE") -> str | None:
    """The letter that `text` chooses, as a capital; None if it chooses none: `read_choice`."""
    return read_choice(text, choices).letter


_NOTHING = "the text names no option"
_DENIED = "the text only says which option is not the answer"


def _quoted(marker: re.Match) -> str:
    return "'" + " ".join(marker[0].split()).strip("*_>#` ")[:40] + "'"


def _several(letters: set[str]) -> Choice:
    return Choice(None, "the text names several options: " + ", ".join(sorted(letters)))


@functools.lru_cache(64)
def _forms(choices: str) -> _Forms:
    capitals, small = re.escape(choices.upper()), re.escape(choices.lower())
    either = f"[{capitals}{small}]"
    enclosed = rf"[(\[{{][ *_]*(?P<enclosed>{either})[ *_]*[)\]}}]"
    alone = r"(?![\w'’(^+]|-\w)"
    quoted = r"[*_`\"'“(\[]{0,3}"
    letter = rf"[ ]?{quoted}(?P<letter>{either})(?![\w’(^+]|-\w|'\w)"
    return _Forms(
        label=re.compile(
            rf"{enclosed}|(?P<letter>{either})[ *_]{{0,3}}(?:\)|[.:](?=[\s*_]|$))"
            rf"|(?P<tight>[{capitals}])[.](?=[^\s.)])"
        ),
        alone=re.compile(rf"(?P<letter>{either})[*_.`\"'”’\s)\]}}$!]*$"),
        capital=re.compile(rf"(?P<letter>[{capitals}])(?![\w’(^+]|-\w|'\w)"),
        small=re.compile(
            rf"(?P<letter>[{small}])(?=[,;!?]|[*_`\"”’]+(?!\w)|[ ][(–—-]|[ ]+[^\W\d_])"
        ),
        # Behind a word a parenthesis is an argument's: "f(a)".
        mention=re.compile(rf"(?<!\w){enclosed}|(?<![\w'’])(?P<letter>[{capitals}]){alone}"),
        chosen=re.compile(rf"(?i:{_CHOSEN})(?:{letter})"),
        right=re.compile(
            rf"(?<![\w'’])[(*_]{{0,3}}(?P<letter>[{capitals}])[)*_]{{0,3}}(?i:{_RIGHT})"
        ),
    )


def _letter(match: re.Match) -> str:
    return next(
        match[name] for name in ("enclosed", "letter", "tight") if match.groupdict().get(name)
    ).upper()


def _article(letter: str, text: str, end: int, after: frozenset[str]) -> bool:
    """Whether an A or I that ends at `end` is the article or the pronoun of the word behind it."""
    if letter.upper() not in "AI":
        return False
    word = re.match(r"[ \t]+([^\W\d_]+)(-?)", text[end : end + 40])
    return word is not None and (word[1].lower() not in after or bool(word[2]))


def _markers(tail: str) -> list[re.Match]:
    """The final-answer markers; "A:" is none in a list of options, "A: 5", "B: 6"."""
    found = markers(tail)
    listed = re.search(r"^[ \t>*_-]{0,8}[B-Z][*_]{0,2}:", tail, re.MULTILINE) is not None
    return [m for m in found if not (listed and m[0].strip(" \t>*_:").upper() == "A")]


def _begin(text: str, forms: _Forms) -> tuple[str, int] | None:
    """The letter that a statement begins with, and where it ends, brackets included."""
    start = _OPENING.match(text).end()
    if match := forms.label.match(text, start) or forms.alone.match(text, start):
        return _letter(match), match.end()
    if match := forms.capital.match(text, start):
        if not _article(match[0], text, match.end(), _AFTER_CAPITAL):
            return _letter(match), match.end()
    if match := forms.small.match(text, start):
        word = re.match(r"[ ]+([^\W\d_]+)(-?)", text[match.end() :])
        after = _AFTER_SMALL if match[0] in "ai" else _AFTER_CAPITAL
        if word is None or (word[1].lower() in after and not word[2]):
            return _letter(match), match.end()
    return None


def _stated(
    text: str, forms: _Forms, option: Callable[[str], str | None], where: str, within: bool
) -> Choice | None:
    """What a statement chooses; None if it speaks of no option.

    Args:
      within: whether a letter inside its first sentence counts where it begins with none.
    """
    text = text[:_STATEMENT]
    start = _OPENING.match(text).end()
    label = forms.label.match(text, start) or forms.alone.match(text, start)
    if not label and (letter := option(text)):
        return Choice(letter, f"the option's text {where}")
    if begun := _begin(text, forms):
        letter, end = begun
        denied = _CALLED_WRONG if label else _DENIED_AFTER
        if denied.match(text[end:].lstrip(" *_`\"'”)")):
            return Choice(None, _DENIED)
        return _with_others(letter, text, end, forms) or Choice(letter, f"the letter {where}")
    sentence = _SENTENCE.split(text, maxsplit=1)[0] if within else ""
    denied, at = False, 0
    for part in (*_CLAUSE.finditer(sentence), None):
        end = part.start() if part else len(sentence)
        found = _mentioned(sentence[:end], forms, at)
        if found and found.where != _DENIED:
            return Choice(found.letter, f"the letter {where}") if found.letter else found
        denied, at = denied or found is not None, end
    return Choice(None, _DENIED) if denied else None


def _with_others(letter: str, text: str, end: int, forms: _Forms) -> Choice | None:
    """That a letter is one of several, as in "B or C", "B, C" and "(B) 5 or (C) 6"."""
    letters = {letter}
    while found := _next(text, end, forms):
        letters.add(found[0])
        end = found[1]
    rest = _CLAUSE.split(_SENTENCE.split(text[end:], maxsplit=1)[0], maxsplit=1)[0]
    for word in re.finditer(r"\bor\s+", rest):
        if match := forms.label.match(rest, word.end()):
            letters.add(_letter(match))
    return _several(letters) if len(letters) > 1 else None


def _next(text: str, end: int, forms: _Forms) -> tuple[str, int] | None:
    """The letter that "or", "and", "/" or "," joins to one that ends at `end`, and its end."""
    by = _ALSO.match(text, end)
    if by is None:
        return None
    at = by.end()
    match = forms.label.match(text, at) or forms.capital.match(text, at)
    if match is None:
        match = forms.alone.match(text, at) or forms.small.match(text, at)
        if match and _article(match["letter"], text, match.end("letter"), _AFTER_SMALL):
            return None
    if match is None or _article(_letter(match), text, match.end(), _AFTER_MENTION):
        return None
    behind = text[match.end() :].lstrip("*_`\"') ")
    joined = by["by"].strip(", ").lower()
    # "B, A is too small" and "B, and A fails" go on to another option.
    if joined in ("", "and") and re.match(r"(?:is|was|has|does|fails)\b", behind):
        return None
    if by["by"] == "," and behind and not re.match(r"[,./&]|or\b|and\b", behind):
        return None
    return _letter(match), match.end()


def _line(
    first: str, last: str, forms: _Forms, option: Callable[[str], str | None]
) -> Choice | None:
    """What a first line that is only a letter chooses, or a last line that begins with one."""
    only = forms.alone.match(first, _OPENING.match(first).end()) or _only_enclosed(first, forms)
    other = forms.alone.match(last, _OPENING.match(last).end()) or _only_enclosed(last, forms)
    if only and not (other and _letter(other) != _letter(only)):
        return Choice(_letter(only), "the letter in the first line")
    start = _OPENING.match(last).end()
    label = forms.label.match(last, start) or forms.alone.match(last, start)
    if not label and (letter := option(last)):
        return Choice(letter, "the option's text in the last line")
    letter = _letter(label) if label else ""
    own = label and option(last[label.end() :]) == letter
    if own or (label and not _CALLED_WRONG.search(last, label.end())):
        several = _with_others(letter, last, label.end(), forms)
        return several or Choice(letter, "the letter in the last line")
    return None


def _only_enclosed(line: str, forms: _Forms) -> re.Match | None:
    match = forms.label.match(line, _OPENING.match(line).end())
    return match if match and not line[match.end() :].strip(" *_.`\"'$}") else None


def _chosen(match: re.Match, tail: str, forms: _Forms) -> Choice | None:
    """What "option B" or "B is correct" chooses; None if it is no choice."""
    letter, end = match["letter"], match.end("letter")
    if _DENIED_BEFORE.search(tail, max(0, match.start() - 60), match.start()):
        return Choice(None, _DENIED)
    if match.re is forms.right:
        if _DENIED_BEFORE.search(tail, max(0, match.start("letter") - 60), match.start("letter")):
            return Choice(None, _DENIED)
        return Choice(letter.upper(), "the letter that is called right")
    enclosed = tail[match.start("letter") - 1] in "([" and tail[end : end + 1] in (")", "]")
    if letter.upper() == "I" and match["named"] is None and not enclosed:
        return None
    if not enclosed:
        after = _AFTER_CAPITAL if letter.isupper() else _AFTER_SMALL
        if _article(letter, tail, end, after):
            return None
        behind = re.match(r"[ \t]*([-+*/=<>]|[^\W\d_]+)", tail[end : end + 40])
        if letter.islower() and behind and behind[1].lower() not in _AFTER_CAPITAL:
            return None
        if match["end"] is not None and not re.match(r"[*_ )]*(?:[.!,]|$)", tail[end : end + 8]):
            return None
    if _DENIED_AFTER.match(tail, end):
        return Choice(None, _DENIED)
    return _with_others(letter.upper(), tail, end, forms) or Choice(
        letter.upper(), "the letter that is chosen"
    )


def _mentioned(text: str, forms: _Forms, start: int = 0) -> Choice | None:
    """The last letter or group of letters that stands alone in `text` and is not denied."""
    groups: list[tuple[int, int, set[str]]] = []
    for match in forms.mention.finditer(text, start):
        if match["enclosed"] is None:
            line = text[text.rfind("\n", 0, match.start()) + 1 :].split("\n", 1)[0]
            if _article(match[0], text, match.end(), _AFTER_MENTION):
                continue
            if match[0] == "I" and any(c.isalnum() for c in line.replace("I", "", 1)):
                continue
        if groups and (by := _ALSO.match(text, groups[-1][1])) and by.end() >= match.start():
            if _next(text, groups[-1][1], forms):
                groups[-1] = (groups[-1][0], match.end(), groups[-1][2] | {_letter(match)})
                continue
        groups.append((match.start(), match.end(), {_letter(match)}))
    for begin, end, letters in reversed(groups):
        if _DENIED_BEFORE.search(text, max(0, begin - 60), begin) or _DENIED_AFTER.match(text, end):
            continue
        if len(letters) > 1:
            return _several(letters)
        return Choice(*letters, "the last letter that stands alone")
    return Choice(None, _DENIED) if groups else None
