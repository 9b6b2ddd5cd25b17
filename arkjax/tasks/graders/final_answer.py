r"""Where a solution states its final answer to a mathematical problem, and what it states there.

An explicit marker wins over everything else, in this order:

1. A line "#### N" of GSM8K, with nothing but a number and its unit. The first one counts: there a
   solution ends, and a model that runs on writes the next problem. It is what GSM8K's own script
   reads. A line "#### 1. Count the eggs" is a heading.
2. The last complete `\boxed{}` or `\fbox{}`.
3. "Answer:", "the answer is", "Final answer", `<answer>`, and "A:" where a line begins; the last
   one counts.
4. "#### N" with further words behind the number.

Then what the text ends on:

5. A formula between `$` that closes the last line and is no plain number.
6. The last number. If what stands last is no well-formed one, such as 18.00.00, there is none. A
   minus behind a letter or a digit subtracts: of "x-3", "2-3" and "5 - 3" it is 3.

Behind a marker the first number counts, but of "3 * 6 = 18" what is behind the last "=". A text
that ends in a marker with nothing to read behind it has no answer, whatever stands before. What a
model writes behind its answer as "Question:" or "Human:" is another problem and not read. GSM8K's
calculator annotations, `<<48/2=24>>`, are taken out; a text with some that ends on a line with
one, or inside a sentence, was cut while it worked, and has no answer unless a marker states it.
"""

import dataclasses
import re

from arkjax.tasks.graders.magnitude import DEEPEST
from arkjax.tasks.graders.plain_numbers import MALFORMED, NUMBER, clean, join_thousands, number_of
from arkjax.tasks.graders.plain_numbers import plain_number as plain
from arkjax.tasks.graders.reading import following, last_boxed, markers

READ = 2**16
"""Characters from the end of a text that are read."""
LONGEST = 1000
"""Characters of an answer; what is longer is none."""
_MARKS = 1000

_HASHES = re.compile(r"(?<!#)####(?!#)[ ]?([^\n]*)")
_HEADING = re.compile(r"[ *_]*[0-9]{1,2}[ ]?[.):]+[*_ ]+[^\W\d_]|[*_ ]*(?:step|part|case)\b", re.I)
_NEXT = re.compile(
    r"(?:^|\n)[ \t#*_>]{0,6}(?:question|q|problem|exercise|human|user|instruction|input)"
    r"[ ]?[0-9]{0,4}[*_]{0,2}:"
    r"|<\|?(?:im_end|im_start|eot_id|end_of_text|endoftext|end_of_turn)\|?>",
    re.IGNORECASE,
)
_SAME_LINE = re.compile(r"\b(?:Question|Problem|Q|Human|User)[ ]?[0-9]{0,4}:")
_ANNOTATION = re.compile(r"<<([^<>\n]{0,200})>>(?P<again>[ ]?[-$]{0,2}[0-9.])?")
_OPEN = re.compile(r"<<[^<>\n]{0,200}$")
_BEFORE = re.compile(
    r"(?:[ *_`\"'“”:=≈~>]|\b(?:is|are|that|about|approximately|exactly|only|just|equal|to|the|be|a"
    r"|total|of|he|she|it|they|we|has|have)\b)*+",
    re.IGNORECASE,
)
_MATH = re.compile(
    r"\$\$([^$]{1,999})\$\$|\$([^$\n]{1,999})\$|\\\(([^\n]{1,999}?)\\\)|\\\[(.{1,999}?)\\\]",
    re.DOTALL,
)
_SENTENCE = re.compile(r"[.;!?](?=[\s*_\"'”)]|$)|\n")
_CLAUSE = re.compile(
    r"\b(?:because|since|as|from|where|with|if|when|so|and|or|but|not|i\.e|e\.g|that|which)\b"
    r"|[,;:](?![0-9]{3})|(?<![-+*/×÷=(^ ])[ ]?\((?![^()]{0,80}\)[ ]?[-+*/×÷=^])",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|operatorname|mathbb|mathcal|begin|end)\{[^{}]*\}")
_NAMES = re.compile(r"\\[A-Za-z]+|\b(?:sin|cos|tan|log|ln|sqrt|pi|exp|or|and|infinity|infty)\b")
_OPTION = re.compile(r"^[ *_]{0,4}\(?[A-E]\)[ *_]{1,4}(?=[-$0-9.\\])")
_SUBTRACTS = re.compile(r"[0-9)\]][ ]{1,4}[-+][ ]$")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Reading:
    """The final answer of a text, None if it states none, and where it stands or why it is none."""

    answer: str | None
    where: str


def read_answer(text: str) -> Reading:
    """The final answer that a solution states, in the order that this file begins with.

    A plain number is returned without unit and separators, in lowest terms: `$1,200.00` as 1200,
    `1 1/2` as 3/2, 50% as 50%. Anything else is returned as it stands.
    """
    text = text[-READ:]
    cut_at_work = _cut_at_work(text)
    text = clean(_OPEN.sub("", _ANNOTATION.sub(_without, text)))
    text = _before_next_question(text).rstrip()
    if not text.strip():
        return Reading(None, "the text is empty")
    hashes = _first_of(_HASHES, text)
    for at_start in (True, False):
        for match in hashes:
            bare = _bare(match[1])
            if bare and _begins_line(text, match.start()) == at_start:
                return Reading(bare, "behind '####'")
    boxed = last_boxed(text)
    if boxed is not None:
        answer = _expression(boxed)
        return Reading(answer, r"in the last \boxed{}" if answer else _unread(boxed))
    if unfinished := _unfinished(text, hashes):
        return Reading(None, unfinished)
    for match in markers(text)[-1:]:
        answer = _stated(text, match)
        if answer:
            return Reading(answer, f"behind {_quoted(match[0])}")
    for match in hashes:
        if not _HEADING.match(match[1]) and (answer := _from_line(match[1], directly=True)):
            return Reading(answer, "behind '####'")
    if cut_at_work:
        return Reading(None, "the text ends at work, before an answer")
    return _last(text)


def _cut_at_work(text: str) -> bool:
    """Whether a text with calculator annotations ends on a calculation or inside a sentence."""
    last_line = text.rstrip().rpartition("\n")[2]
    if "<<" in last_line:
        return True
    return "<<" in text and last_line[-1:] not in (".", "!") and plain(clean(last_line)) is None


# --- markers ------------------------------------------------------------------------------------


def _first_of(pattern: re.Pattern, text: str) -> list[re.Match]:
    found = []
    for match in pattern.finditer(text):
        found.append(match)
        if len(found) == _MARKS:
            break
    return found


def _begins_line(text: str, start: int) -> bool:
    return not text[text.rfind("\n", 0, start) + 1 : start].strip(" \t>*_")


def _bare(rest: str) -> str | None:
    """The number of a line "#### N" that says nothing else."""
    rest = _SAME_LINE.split(rest, maxsplit=1)[0].split("####", 1)[0].strip(" *_`")
    if len(rest) > LONGEST or not rest:
        return None
    # Behind this marker a comma always separates thousands, however they are grouped.
    if re.fullmatch(r"[-+$ ]{0,4}[0-9]{1,30}(?:,[0-9]{1,30})+(?:\.[0-9]{1,30})?[.]?", rest):
        rest = rest.replace(",", "")
    math = _MATH.fullmatch(rest)
    number = plain(next(filter(None, math.groups())) if math else rest)
    return None if number is None else str(number)


def _unfinished(text: str, hashes: list[re.Match]) -> str | None:
    """Why the text, which ends in a marker, states no answer behind it; None if that is not so."""
    last_line = text.rfind("\n") + 1
    for match in hashes[-1:]:
        if match.start() >= last_line and not _from_line(match[1]):
            return "nothing to read behind '####'"
    stated = markers(text)[-1:]
    box = max(text.rfind(r"\boxed{"), text.rfind(r"\fbox{"))
    if box >= 0 and not any(match.start() > box for match in stated):
        closed = text.rfind("}")
        if closed < box:
            return r"\boxed{} is not closed"
        inside = text[text.find("{", box) + 1 : closed].strip()
        return _unread(inside) if inside.strip("}") else r"\boxed{} is empty"
    for match in stated:
        line = following(text, match.end())
        if not NUMBER.search(text, match.end()) and _from_line(line) is None:
            return f"nothing to read behind {_quoted(match[0])}"
    return None


def _unread(boxed: str) -> str:
    """Why what a box holds is no answer."""
    if len(boxed) <= LONGEST:
        return r"\boxed{} holds no answer"
    depth = deepest = 0
    for character in boxed:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        return rf"\boxed{{}} is nested too deep: {deepest} levels, {DEEPEST} are read"
    return rf"\boxed{{}} holds over {LONGEST} characters"


def _stated(text: str, match: re.Match) -> str | None:
    """What a marker states; None if it opens a discussion, as "Answer: There are 3 cars. ..."."""
    start = match.end()
    line = following(text, start)
    on_next_line = not text[start:].split("\n", 1)[0].strip(" *_:`")
    if on_next_line and re.match(r"[-*•][ ]+\S", line):
        line = line[1:]
    answer = _from_line(line, directly=True)
    if answer is not None:
        return answer
    sentences = [part for part in _SENTENCE.split(text[start : start + 4000]) if part.strip(" *_")]
    if match[0].rstrip(" *_").endswith(":"):
        # Under a heading there may be a whole solution; one sentence with a number is an answer.
        sentences = [part for part in sentences if NUMBER.search(part)]
        return _from_line(sentences[0]) if len(sentences) == 1 else None
    return _from_line(sentences[0]) if sentences else None


def _before_next_question(text: str) -> str:
    """The text up to the next problem that a model made up behind its answer."""
    box = text.find(r"\boxed")
    begins = [match.start() for match in (_HASHES.search(text), *markers(text)[:1]) if match]
    begins += [box] if box >= 0 else []
    following_question = _NEXT.search(text, min(begins)) if begins else None
    return text[: following_question.start()] if following_question else text


def _without(match: re.Match) -> str:
    # Only where the result is not written once more behind the annotation, it stands for it.
    if match["again"] is not None:
        return match["again"]
    return " " + match[1].rpartition("=")[2]


def _quoted(marker: str) -> str:
    return "'" + " ".join(marker.split()).strip("*_>#` ")[:40] + "'"


# --- what a line states ---------------------------------------------------------------------------


def _from_line(line: str, directly: bool = False) -> str | None:
    """The answer that a line begins with; unless `directly`, the first number in it as well."""
    line = _OPTION.sub("", line[:4000])
    start = _BEFORE.match(line).end()
    math = _MATH.match(line, start) or _MATH.match(line.lstrip(" *_`:="))
    if math and _is_formula(math):
        return _expression(next(filter(None, math.groups())))
    sentence = line[start:]
    end = _SENTENCE.search(sentence)
    sentence = sentence[: end.start()] if end else sentence
    formula = _formula(sentence)
    if formula is not None and plain(formula) is None and "=" not in formula:
        return _expression(formula)
    joined = join_thousands(sentence)
    match = NUMBER.match(joined) or re.match(r"[(\\A-Za-z]{1,6}(?=[^=]*=)", joined)
    if match is None and not directly:
        match = NUMBER.search(joined)
    return None if match is None else _result(joined, match)


def _result(sentence: str, match: re.Match) -> str | None:
    """The number that was found or, where a calculation begins with it, the result of that."""
    equals = sentence.rfind("=")
    if equals > match.start() and not _CLAUSE.search(sentence, match.end(), equals):
        behind = NUMBER.match(sentence[equals + 1 :].lstrip(" *_`("))
        if behind is not None:
            match = behind
    if match.re is not NUMBER:
        return None
    number = number_of(match)
    return str(number) if number else match[0].strip() if len(match[0]) <= LONGEST else None


def _is_formula(math: re.Match) -> bool:
    """Whether what stands between dollars is a formula, and not words between two prices."""
    return math[2] is None or _formula(math[2]) is not None


def _formula(text: str) -> str | None:
    """The text if it is a formula: no words, but something besides a number; else None."""
    text = text.strip().strip("*`").strip()
    if not 0 < len(text) <= LONGEST:
        return None
    if text.endswith("=") or re.search(r"\b(?:i\.e|e\.g)\b", text):
        return None
    text = text.strip("'\"’”")
    words = re.findall(r"[^\W\d_]{2,}", _NAMES.sub(" ", _TEXT.sub(" ", text)))
    symbols = re.search(r"[A-Za-z0-9\\]", text)
    return None if words or not symbols else text


def _expression(text: str) -> str | None:
    """An answer that stands apart from other words: a number in plain form, or what it is."""
    text = text.strip().strip("$").strip()
    if not text or len(text) > LONGEST or not re.search(r"\w|\\", text):
        return None
    number = plain(text)
    if number is None and text.count("=") >= 1:
        number = plain(text.rpartition("=")[2]) if _CALCULATION.match(text) else None
    return " ".join(text.split()) if number is None else str(number)


_CALCULATION = re.compile(r"[-+*/×÷() $0-9.,%\\a-z{}^]*[0-9][-+*/×÷() $0-9.,%\\a-z{}^]*=[^<>]*$")


# --- what a text ends on --------------------------------------------------------------------------


def _last(text: str) -> Reading:
    line = text[text.rfind("\n") + 1 :][-4000:]
    for math in reversed(list(_MATH.finditer(line))):
        if line[math.end() :].strip(" .*_") or not _is_formula(math):
            break
        inner = next(filter(None, math.groups()))
        answer = _expression(inner.rpartition("=")[2])
        if answer is not None and plain(answer) is None:
            return Reading(answer, "in the formula that the text ends on")
        break
    found = None
    for match in NUMBER.finditer(text):
        if not _ORDINAL.match(text, match.end()):
            found = match
    end = found.end() if found else 0
    for malformed in MALFORMED.finditer(text, end):
        if not _ORDINAL.match(text, malformed.end()):
            return Reading(None, f"the last number, '{malformed[0][:40]}', is not well formed")
    if found is None:
        return Reading(None, "there is no number in the text")
    number = number_of(found)
    if number is None:
        if len(found[0]) > LONGEST:
            return Reading(None, f"the last number has over {LONGEST} digits")
        return Reading(found[0], "the last number")
    if found["sign"] and _SUBTRACTS.search(text, max(0, found.start() - 5), found.start() + 2):
        number = dataclasses.replace(number, value=abs(number.value))
    return Reading(str(number), "the last number")
