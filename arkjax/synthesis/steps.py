"""Where the steps of an answer end, in tokens.

Steps are read off the text, but they are runs of the recorded tokens: nothing is tokenised again. A
step ends with the token in which its text ends, so that a token that also begins the next step,
such as ".The", belongs to the earlier of the two. White space goes with the step before it.
"""

import bisect
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Literal, get_args

from arkjax.errors import ConfigError
from arkjax.text.stream import token_texts
from arkjax.text.tokenizer import Tokenizer

StepKind = Literal["auto", "paragraph", "newline", "sentence", "clause"]

# What may stand between the last word of a sentence and the next one.
_CLOSING = r"[\"'\u2019\u201d\u00bb)\]}*_$]{0,4}"
_SENTENCE = re.compile(
    rf"[.!?\u2026]+{_CLOSING}(?=\s|\Z)|[\u3002\uff01\uff1f]+[\u300d\u300f\uff09\u201d]{{0,4}}|\n"
)
_ENDS = {
    "paragraph": re.compile(r"\n[ \t\r]*\n"),
    "newline": re.compile(r"\n"),
    "sentence": _SENTENCE,
    "clause": re.compile(r"[;\uff1b]"),
}
# A full stop that ends no sentence: behind an abbreviation, an initial, or the number of a point.
_NO_STOP = re.compile(
    r"(?:^|[\s(\[\"'])(?:e\.g|i\.e|cf|vs|approx|resp|etc|Dr|Mr|Mrs|Ms|Prof|St|No|Nos|Fig|Figs|Eq|Eqs"
    r"|Sec|Ch|Vol|pp?|ca|[A-Z]|[^\W\d_]\.[^\W\d_])\.$|(?:^|\n)[ \t*#>-]{0,8}(?:[Ss]tep )?"
    r"[0-9]{1,3}\.$"
)
_LOOK_BACK = 24


def step_ends(
    ids: Sequence[int],
    tokenizer: Tokenizer,
    kind: StepKind,
    end_ids: Collection[int] | None = None,
) -> tuple[int, ...]:
    """Exclusive token ends of the steps of one answer, increasing.

    Every token belongs to exactly one step, apart from the end tokens that close the answer, which
    belong to none: the last end is the number of the other tokens. An answer of end tokens alone
    has no step, one without any words a single one.

    Args:
      ids: the answer's tokens.
      tokenizer: what they are of.
      kind: steps are what stands between blank lines ("paragraph"), line breaks, however many
        together ("newline"), the ends of sentences, line breaks included ("sentence"), or
        semicolons ("clause"). "auto" takes the first of newline, sentence and clause by which there
        are several.
      end_ids: tokens that end an answer; None takes `tokenizer.end_ids`.

    Raises:
      ConfigError: if the kind is none of these.
    """
    check_step_kind(kind)
    count, closing = len(ids), tokenizer.end_ids if end_ids is None else end_ids
    while count and ids[count - 1] in closing:
        count -= 1
    if not count:
        return ()
    texts = token_texts(tokenizer, ids[:count])
    if kind != "auto":
        return _ends(texts, kind)
    tried = (_ends(texts, one) for one in ("newline", "sentence", "clause"))
    return next((ends for ends in tried if len(ends) > 1), (count,))


def step_texts(text: str, kind: StepKind = "auto") -> list[str]:
    """The steps of an answer as texts, in order; together they are the answer.

    Args:
      text: the answer; without words it has no step.
      kind: as of `step_ends`.

    Raises:
      ConfigError: if the kind is none of these.
    """
    check_step_kind(kind)
    kinds = ("newline", "sentence", "clause") if kind == "auto" else (kind,)
    steps = [text] if text.strip() else []
    for one in kinds:
        bounds = [0, *_breaks(text, one), len(text)]
        pieces = [text[start:end] for start, end in itertools.pairwise(bounds)]
        # White space and marks without any words go with the step before them.
        found: list[str] = []
        for piece in pieces:
            if found and not any(map(str.isalnum, piece)):
                found[-1] += piece
            elif piece:
                found.append(piece)
        if len(found) > 1 or kind != "auto":
            return found if text.strip() else []
    return steps


def spans(ends: Sequence[int]) -> list[tuple[int, int]]:
    """The steps themselves, from the ends that `step_ends` gives: (start, end), end exclusive."""
    return list(itertools.pairwise((0, *ends)))


def check_step_kind(kind: str) -> None:
    """Raise ConfigError unless `kind` is one of `StepKind`."""
    if kind not in get_args(StepKind):
        raise ConfigError(
            f"steps of the kind {kind!r} are not known: choose one of "
            f"{', '.join(get_args(StepKind))}"
        )


def _ends(texts: Sequence[str], kind: str) -> tuple[int, ...]:
    """The ends of steps of one kind, of tokens with these texts."""
    # reached[i]: how many characters the first i + 1 tokens complete.
    reached = list(itertools.accumulate(map(len, texts)))
    text = "".join(texts)
    ends: list[int] = []
    start = 0
    for at in _breaks(text, kind):
        end = bisect.bisect_left(reached, at) + 1
        while end < len(texts) and texts[end].isspace():
            end += 1
        done = reached[end - 1]
        # Marks without any words between them end one step.
        if done > start and text[start:done].strip() and (not ends or end > ends[-1]):
            ends.append(end)
            start = done
    if ends and not text[start:].strip():
        ends.pop()
    return (*ends, len(texts))


def _breaks(text: str, kind: str) -> Iterator[int]:
    """Where steps of one kind end in a text, in characters, exclusive."""
    for match in _ENDS[kind].finditer(text):
        before = text[max(0, match.start() - _LOOK_BACK) : match.start() + 1]
        if not (kind == "sentence" and match[0].startswith(".") and _NO_STOP.search(before)):
            yield match.end()
