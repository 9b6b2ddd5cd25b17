"""What the steps of an answer are about, so that steps of different answers can be compared.

A step has a *subject*, what it works out, and a *claim*, what it takes that to be. Two answers
agree on a step if both are the same, and contradict each other if only the subject is. A task whose
answers have a form of their own reads its steps itself (`arkjax.tasks.problems.StepGrader`).
Elsewhere the equations of a step are its subject and claim, left and right side; a step without
equations is its own subject and claim, its words without capitals and marks, so that it can agree
with another but not contradict it. The last step is about the answer, as the stage's parser has
read it.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Collection, Sequence

from arkjax.synthesis.steps import StepKind, spans, step_ends
from arkjax.tasks.problems import Grader, StepGrader
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import Call

FINAL = "answer"
"""Subject of the last step."""

ReadStep = Callable[[str], tuple[str, str] | None]

# Numbers, variables of one letter, and what joins them. Bounded, so that no text takes more than a
# constant time a character.
_TERM = r"[0-9()+\-*/^%$ \u00d7\u00f7\u00b7\u2212]|\.(?=[0-9])|(?<![^\W\d_])[a-z](?![^\W\d_])"
_EQUATION = re.compile(
    rf"((?:[0-9(\-$\u2212]|(?<![^\W\d_])[a-z](?![^\W\d_]))(?:{_TERM}){{0,80}})="
    r"[ ]?([-\u2212$]{0,2}[0-9][0-9.,/]{0,30})"
)
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_NUMBERED = re.compile(r"^[ \t*#>-]{0,8}(?:(?:step[ ])?[0-9]{1,3}[.):][ \t*]{1,4})?", re.IGNORECASE)
_MARKS = re.compile(r"[^\w%.+-]+|\.(?![0-9])|[+-](?![0-9])|_+")


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of one recorded call.

    Attributes:
      call: whose tokens they are.
      start, end: the step is `call.gen_ids[start:end]`.
      subject: what it works out; the second step about the same has "#2" behind it.
      claim: what it takes that to be.
    """

    call: Call
    start: int
    end: int
    subject: str
    claim: str

    @property
    def key(self) -> tuple[str, str]:
        """What steps that agree have in common."""
        return self.subject, self.claim

    @property
    def ids(self) -> tuple[int, ...]:
        """The step's tokens."""
        return self.call.gen_ids[self.start : self.end]


@dataclasses.dataclass(frozen=True)
class StepReader:
    """Reads the steps of recorded calls.

    Attributes:
      tokenizer: of the calls.
      kind: how answers are cut; see `step_ends`.
      read: subject and claim of a step's text, or None to read it as any other text.
      end_ids: tokens that end an answer; None takes the tokenizer's.
      known: the steps of calls that were read before, by call id; None keeps none.
    """

    tokenizer: Tokenizer
    kind: StepKind = "auto"
    read: ReadStep | None = None
    end_ids: Collection[int] | None = None
    known: dict[str, list[Step]] | None = dataclasses.field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        grader: Grader,
        tokenizer: Tokenizer,
        kind: StepKind = "auto",
        end_ids: Collection[int] | None = None,
    ) -> "StepReader":
        """The reader of a task's answers."""
        read = grader.read_step if isinstance(grader, StepGrader) else None
        return cls(tokenizer, kind, read, end_ids)

    def remembering(self) -> "StepReader":
        """The same reader with a memory of its own, for the calls of a few problems."""
        return dataclasses.replace(self, known={})

    def __call__(self, call: Call) -> list[Step]:
        """The steps of a call, in order; none if it said nothing."""
        if self.known is None:
            return self._read(call)
        if call.call_id not in self.known:
            self.known[call.call_id] = self._read(call)
        return self.known[call.call_id]

    def _read(self, call: Call) -> list[Step]:
        cut = spans(step_ends(call.gen_ids, self.tokenizer, self.kind, self.end_ids))
        seen: collections.Counter[str] = collections.Counter()
        steps = []
        for start, end in cut:
            text = self.tokenizer.decode(call.gen_ids[start:end])
            subject, claim = (self.read and self.read(text)) or operation(text)
            if end == cut[-1][1]:
                subject, claim = FINAL, call.parsed.get("answer", claim)
            seen[subject] += 1
            if seen[subject] > 1:
                subject += f"#{seen[subject]}"
            steps.append(Step(call, start, end, subject, claim))
        return steps


def operation(text: str) -> tuple[str, str]:
    """Subject and claim of a step in any text: its equations, or else all its words."""
    plain = _THOUSANDS.sub("", _NUMBERED.sub("", text.strip(), count=1))
    equations = _EQUATION.findall(plain.casefold())
    if equations:
        sides = zip(*equations, strict=True)
        subject, claim = ("; ".join(map(_side, side)) for side in sides)
        return subject, claim
    words = normalized(plain)
    return words, words


def normalized(text: str) -> str:
    """The words of a step without capitals, numbering, marks and white space around them."""
    plain = _NUMBERED.sub("", text.strip(), count=1).casefold()
    return " ".join(_MARKS.sub(" ", plain).split())


def sequence_distance(a: Sequence, b: Sequence) -> float:
    """Normalised edit distance 2 d / (|a| + |b| + d) in [0, 1], with d Levenshtein's.

    It is a metric (Li and Liu 2007, "A normalized Levenshtein distance metric", eq. 4).
    """
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            change = before + (one != other)
            before = row[j]
            row[j] = min(change, row[j] + 1, row[j - 1] + 1)
    return 2 * row[-1] / (len(a) + len(b) + row[-1]) if row[-1] else 0.0


def _side(text: str) -> str:
    spelled = text.replace("\u2212", "-").replace("\u00d7", "*").replace("\u00b7", "*")
    return re.sub(r"[ $]+", "", spelled.replace("\u00f7", "/")).rstrip(".,")
