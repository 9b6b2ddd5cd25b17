"""Unified traces: what a team said about a problem, as the examples of one voice.

The forms, besides the recorded answers as they are ("none", and "best" for one of them):

- "corrective": an error, the objection and the correction (`arkjax.synthesis.corrective`);
- "consolidated": the steps that those agree on who were right (`arkjax.synthesis.consolidated`);
- "synthesizer": what the judge or synthesiser of the team said, where that was right;
- "deliberation": the messages that led to the answer, one after the other
  (`arkjax.synthesis.deliberation`);
- "answer_only": the last step alone, without what led there: a control.

Targets hold recorded tokens and fixed connecting texts, nothing that was tokenised from a recorded
text, unless its author has other tokens (`arkjax.synthesis.foreign`). What was put together is
graded anew: an example that does not state the accepted answer, or, in tasks whose steps can be
graded, that is not right in every step, is not made.
"""

import collections
import dataclasses
import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from arkjax.errors import ConfigError
from arkjax.progress import Task
from arkjax.synthesis.consolidated import consolidated_pieces
from arkjax.synthesis.corrective import corrective_pieces
from arkjax.synthesis.counts import Counts
from arkjax.synthesis.deliberation import deliberation_pieces
from arkjax.synthesis.diversity import Embedding
from arkjax.synthesis.examples import Example
from arkjax.synthesis.operations import StepReader
from arkjax.synthesis.pieces import Piece, joined, of_call
from arkjax.synthesis.selection import (
    Accepted,
    Chosen,
    SelectionConfig,
    Trace,
    acceptance,
    choose,
    difficulty,
    unlike,
)
from arkjax.synthesis.weights import credit_of, example_weights
from arkjax.tasks.problems import Grader, Problem, StepGrader
from arkjax.teams.rules import DECIDERS
from arkjax.teams.spec import TeamSpec
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.schema import Call

NOT_RIGHT = "not right when graded"
NO_CORRECTION = "nobody was corrected"
NO_SYNTHESIZER = "no right answer of a synthesizer"
NO_ANSWER = "the last step does not state the answer"

Debates = Iterable[tuple[str, Sequence[Call]]]


def synthesizer_of(team: TeamSpec) -> str | None:
    """Id of the agent whose word is the team's: its judge or synthesiser; None if it has none."""
    return team.reducer.agent if team.reducer.kind in DECIDERS else None


@dataclasses.dataclass(frozen=True)
class Made:
    """An example, and what is needed to weigh it.

    Attributes:
      example: it.
      credit: the mean of what those are credited with whose words are learned; None if unknown.
      share: of the answers to its problem, how many were accepted.
      corrective: whether it shows or is an agent's correction of its own error.
    """

    example: Example
    credit: float | None
    share: float
    corrective: bool = False


@dataclasses.dataclass(frozen=True)
class Unifier:
    """Makes the examples of a data set.

    Attributes:
      config: the filters and the form.
      grader: of the task.
      tokenizer: of the calls.
      problems: by id. With the gate "team" only their questions are looked at.
      prompt: the prompt under which the student is asked a question, as token ids.
      end_ids: tokens that end an answer; None takes the tokenizer's.
      synthesizer: id of the team's judge or synthesiser, if it has one.
      attribution: of the debates. With the gate "team" it is not looked at, since credit is given
        for what helped towards gold answers.
      embed: of calls, for the diversity "hidden".
      foreign: the models whose calls were encoded anew. An example made of any names them as
        "reencoded" in its provenance: its spans count ids that are in no record.
    """

    config: SelectionConfig
    grader: Grader
    tokenizer: Tokenizer
    problems: Mapping[str, Problem]
    prompt: Callable[[str], Sequence[int]]
    end_ids: Sequence[int] | None = None
    synthesizer: str | None = None
    attribution: Attribution | None = None
    embed: Embedding | None = None
    foreign: Collection[str] = ()

    def __call__(
        self,
        debates: Debates,
        team_answers: Mapping[str, str | None],
        task: Task | None = None,
    ) -> tuple[list[Example], Counts]:
        """The examples and what the filters did; examples of a problem stand together.

        Memory holds a few debates at a time, and the examples.

        Args:
          debates: problem ids, each once, with all calls of the problem, tools' actions included.
          team_answers: the team's answer by problem id, for the gate "team".
          task: told how many problems are done.

        Raises:
          ConfigError: if the connecting text cannot be written in the tokenizer, or the diversity
            asked for needs an embedding and there is none.
        """
        counts = Counts()
        made = [one for some in self.each(debates, team_answers, counts, task) for one in some]
        made = self._filtered(made, counts)
        counts.problems_kept = len({_problem(one) for one in made})
        counts.corrective = sum(one.corrective for one in made)
        counts.traces = counts.examples = len(made)
        weights = self._weights(made)
        return [
            dataclasses.replace(one.example, weight=weight)
            for one, weight in zip(made, weights, strict=True)
        ], counts

    def each(
        self,
        debates: Debates,
        team_answers: Mapping[str, str | None],
        counts: Counts,
        task: Task | None = None,
    ) -> Iterator[list[Made]]:
        """What is made of each debate, in their order: all that needs no look at other problems.

        Args:
          debates, team_answers, task: as for a call.
          counts: added to; what all problems together decide is not.

        Raises:
          ConfigError: as a call.
        """
        reader = StepReader.of(self.grader, self.tokenizer, self.config.steps, self.end_ids)
        connecting = self._connecting()
        chosen = choose(
            debates,
            team_answers,
            self.grader,
            self.config,
            counts,
            self._known,
            reader,
            self.embed,
        )
        for one in chosen:
            answer = team_answers.get(one.problem_id)
            accepted = acceptance(self.grader, self.config.gate, answer)
            yield self._of_problem(one, answer, accepted, reader.remembering(), connecting, counts)
            if task:
                task.advance(1)

    def weighs(self, made: Made) -> float | None:
        """By what an example is ranked among all others to be weighed; None if it is not."""
        if self.config.weights == "agreement":
            return made.share
        return made.credit

    @property
    def _known(self) -> Attribution | None:
        return self.attribution if self.config.gate == "gold" else None

    def _connecting(self) -> tuple[int, ...]:
        """Tokens of the fixed text that the form puts between recorded ones."""
        form = self.config.form
        name = "between" if form == "deliberation" else "correction"
        text = getattr(self.config, name)
        ids = tuple(self.tokenizer.encode(text))
        wanted = form == "corrective" or (form == "deliberation" and text)
        if wanted and (not ids or self.tokenizer.unk_id in ids):
            raise ConfigError(
                f"synthesis.{name} is {text!r}, which the tokenizer "
                f"{self.tokenizer.path} has no tokens for: choose words that it can write"
            )
        return ids

    # --- one problem ------------------------------------------------------------------------------

    def _of_problem(
        self,
        chosen: Chosen,
        answer: str | None,
        accepted: Accepted,
        reader: StepReader,
        connecting: Sequence[int],
        counts: Counts,
    ) -> list[Made]:
        """The examples of one problem; what could not be made is counted."""
        if not chosen.traces:
            return []
        form, traces = self.config.form, chosen.traces
        if form in ("none", "best"):
            kept = traces if form == "none" else traces[:1]
            counts.passed("form", len(traces), len(kept))
            return [self._whole(chosen, trace) for trace in kept]
        made: list[Made] = []
        reasons: collections.Counter[str] = collections.Counter()
        for kind, trace, pieces, wrong in self._candidates(
            chosen, accepted, reader, connecting, reasons
        ):
            if not self._holds(chosen.problem_id, answer, kind, pieces, wrong, reader):
                reasons[NO_ANSWER if kind == "answer_only" else NOT_RIGHT] += 1
                continue
            made.append(self._made(chosen, kind, pieces, trace))
        counts.form("made", len(made))
        if not made:
            for reason in reasons:
                counts.form(reason)
            if self.config.fallback and form != "answer_only":
                counts.form("fell_back")
                made = [self._whole(chosen, traces[0])]
        counts.passed("form", len(traces), min(len(made), len(traces)))
        return made

    def _candidates(
        self,
        chosen: Chosen,
        accepted: Accepted,
        reader: StepReader,
        connecting: Sequence[int],
        reasons: collections.Counter[str],
    ) -> list[tuple[str, Trace | None, list[Piece], tuple[Call, int | None] | None]]:
        """The form's kind, the trace it is of, its pieces, and where a wrong step is shown."""
        form, found = self.config.form, []
        if form == "consolidated":
            pieces = consolidated_pieces(chosen.finished, reader, self._credit)
            if isinstance(pieces, str):
                reasons[pieces] += 1
            else:
                found.append((form, None, pieces, None))
        elif form == "synthesizer":
            said = [call for call in chosen.finished if call.agent == self.synthesizer]
            if said:
                last = max(said, key=lambda c: (c.round, c.step))
                found.append((form, Trace(last, form), [of_call(last)], None))
            else:
                reasons[NO_SYNTHESIZER] += 1
        elif form == "deliberation":
            # The last that was accepted: what came before it was said on the way.
            last = max(chosen.finished, key=lambda c: (c.round, c.step))
            pieces = deliberation_pieces(
                last,
                chosen.calls,
                accepted,
                connecting,
                self._ends,
                learn_attempts=self.config.attempts == "learned",
                preferred=self._heard(last),
            )
            if isinstance(pieces, str):
                reasons[pieces] += 1
            else:
                found.append((form, Trace(last, form), pieces, None))
        elif form == "answer_only":
            last = chosen.traces[0]
            steps = reader(last.call)
            if steps:
                found.append((form, last, [of_call(last.call, steps[-1].start)], None))
            else:
                reasons[NO_ANSWER] += 1
        else:
            corrected = [t for t in chosen.traces if t.call.call_id in chosen.corrections]
            reasons.update([] if corrected else [NO_CORRECTION])
            for trace in corrected:
                correction = chosen.corrections[trace.call.call_id]
                made = corrective_pieces(
                    trace.call, correction, accepted, reader, connecting, self._heard(trace.call)
                )
                if isinstance(made, str):
                    reasons[made] += 1
                else:
                    found.append((form, trace, made[0], (correction.before, made[1])))
        return found

    def _heard(self, call: Call) -> set[str]:
        """Of the messages that a call had read, those that put others right, if that is known."""
        if self._known is None:
            return set()
        known = {name: self._known.messages.get(name) for name in call.parents}
        return {name for name, credit in known.items() if credit and credit.corrected > 0}

    def _credit(self, call: Call) -> float:
        """Credit by which a step's author is chosen: of the kind preferred, or of corrections."""
        if self._known is None:
            return 0.0
        kind = "corrected" if self.config.prefer == "none" else self.config.prefer
        return credit_of(call, self._known, kind) or 0.0

    def _whole(self, chosen: Chosen, trace: Trace) -> Made:
        return self._made(chosen, trace.kind, [of_call(trace.call)], trace)

    def _made(
        self, chosen: Chosen, kind: str, pieces: Sequence[Piece], trace: Trace | None
    ) -> Made:
        facts = {} if trace is None else {"agent": trace.call.agent, "round": trace.call.round}
        models = {p.call.model for p in pieces if p.call is not None} & set(self.foreign)
        facts |= {"reencoded": sorted(models)} if models else {}
        prompt = self.prompt(self.problems[chosen.problem_id].question)
        example = joined(chosen.problem_id, kind, prompt, pieces, facts)
        calls = {p.call.call_id: p.call for p in pieces if p.call is not None and p.weight > 0}
        corrective = trace is not None and trace.call.call_id in chosen.corrections
        return Made(example, self._mean_credit(calls.values()), chosen.share, corrective)

    def _holds(
        self,
        problem_id: str,
        answer: str | None,
        kind: str,
        pieces: Sequence[Piece],
        wrong: tuple[Call, int | None] | None,
        reader: StepReader,
    ) -> bool:
        """Whether what was put together states the accepted answer, and is right in every step."""
        text = self._text(pieces)
        if self.config.gate == "team":
            stated = self.grader.extract(text)
            return stated is not None and answer is not None and self.grader.equal(stated, answer)
        problem = self.problems[problem_id]
        if not self.grader.grade(problem, text).correct:
            return False
        if not isinstance(self.grader, StepGrader) or kind in ("answer_only", "synthesizer"):
            return True
        if kind == "deliberation" and self.grader.holds(problem, self._text(pieces[-1:])):
            # Steps that belong to one message: those of the last one are what is answered.
            return True
        if wrong is None:
            return self.grader.holds(problem, text)
        # The step that is shown as wrong is, and the answer that is gone on with is right.
        before, at = wrong
        last = next(p.call for p in reversed(pieces) if p.call is not None)
        found = self.grader.first_wrong_step(problem, self._text([of_call(before)]))
        wrong_there = found == at if at is not None else found is not None
        # Where only the final digit is wrong, every step before it is right.
        wrong_end = found is None and at == len(reader(before)) - 1
        return (wrong_there or wrong_end) and self.grader.holds(
            problem, self._text([of_call(last)])
        )

    @property
    def _ends(self) -> Sequence[int]:
        return self.tokenizer.end_ids if self.end_ids is None else self.end_ids

    def _text(self, pieces: Sequence[Piece]) -> str:
        ids = [index for piece in pieces for index in piece.ids]
        while ids and ids[-1] in self._ends:
            ids.pop()
        return self.tokenizer.decode(ids)

    # --- all problems -----------------------------------------------------------------------------

    def _filtered(self, made: list[Made], counts: Counts) -> list[Made]:
        """Without near-duplicates and what is beyond the limit of its difficulty."""
        config = self.config
        if compares(config):
            kept = unlike([one.example.target_ids for one in made], config.near_duplicates)
            after = [one for one, keep in zip(made, kept, strict=True) if keep]
            counts.near_duplicates = len(made) - len(after)
            counts.passed_all("near_duplicates", *(list(map(_problem, s)) for s in (made, after)))
            made = after
        if config.max_per_difficulty:
            of_bucket: dict[int, set[str]] = collections.defaultdict(set)
            for one in made:
                of_bucket[difficulty(one.share)].add(_problem(one))
            names = {
                name
                for bucket in of_bucket.values()
                for name in sorted(bucket, key=lot)[: config.max_per_difficulty]
            }
            after = [one for one in made if _problem(one) in names]
            counts.beyond_difficulty = len(made) - len(after)
            counts.passed_all("difficulty", *(list(map(_problem, s)) for s in (made, after)))
            made = after
        return made

    def _weights(self, made: Sequence[Made]) -> list[float]:
        weights = example_weights([self.weighs(one) for one in made])
        if self.config.balance == "none" or not made:
            return weights
        totals: dict[str, float] = collections.defaultdict(float)
        for one, weight in zip(made, weights, strict=True):
            totals[_problem(one)] += weight
        # The mean weight of an example stays 1, so that the learning rate keeps its meaning.
        share = len(made) / len(totals)
        return [w * share / totals[_problem(o)] for o, w in zip(made, weights, strict=True)]

    def _mean_credit(self, calls: Iterable[Call]) -> float | None:
        kind = self.config.weights
        if self._known is None or kind in ("none", "agreement"):
            return None
        credits = [credit_of(call, self._known, kind) for call in calls]
        known = [credit for credit in credits if credit is not None]
        return math.fsum(known) / len(known) if known else None


def compares(config: SelectionConfig) -> bool:
    """Whether near-duplicates are left out."""
    # Bare answers are all alike, and are answers to other questions.
    return bool(config.near_duplicates) and config.form != "answer_only"


def _problem(made: Made) -> str:
    return made.example.provenance["problem_id"]


def lot(problem_id: str) -> str:
    """By this problems are in an order that has nothing to do with their names."""
    return hashlib.sha256(problem_id.encode()).hexdigest()
