"""How the systems of a run reason: steps that can be checked, perplexity, and a judge's scores."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arkjax.evaluation.judge import JudgeConfig, JudgedAnswer, chosen_problems, shuffled
from arkjax.evaluation.measures import PERPLEXITY, Measured, load_measured, save_measured
from arkjax.evaluation.perplexity import Trace, surprise, team_traces
from arkjax.evaluation.proxies import final_call, proxies
from arkjax.evaluation.systems import System
from arkjax.run_config import BASE
from arkjax.session import Session
from arkjax.teams.debate import Cost, Debate
from arkjax.trajectories.store import CallStore

QUALITY = "quality.parquet"
"""The table of measures beside the outcomes."""
JUDGE = "judge"
"""The folder of the judge's calls, and the part of the stage that they are."""


def quality_rows(path: Path) -> list[Measured]:
    """What an evaluate stage has measured; nothing if it is older than any measure.

    Raises:
      DataError: if the table is damaged.
    """
    return load_measured(path / QUALITY)


class _Judged(NamedTuple):
    """An answer that the judge is shown, and whose it is."""

    system: str
    answer: JudgedAnswer
    correct: bool


class Quality:
    """What is measured while the systems of a run answer; nothing of it is a cost of theirs.

    Measures of models are taken while these are open. What was measured before, when the run had
    fewer students, is kept.
    """

    def __init__(self, session: Session, path: Path) -> None:
        """Set up.

        Args:
          session: of the run.
          path: of the evaluate stage.

        Raises:
          DataError: if the table of an earlier evaluation is damaged.
        """
        self._session, self._path = session, path
        self._before = quality_rows(path)
        self._measured = {(r.system, r.split) for r in self._before if r.measure == PERPLEXITY}
        self._rows: list[Measured] = []
        self._systems: set[str] = set()
        self._traces: dict[str, list[Trace]] = {}
        self._judged: list[_Judged] = []
        self._to_judge: dict[str, set[str]] = {}

    def add(self, system: System, split: str, debates: Sequence[Debate]) -> None:
        """Measure what one system made of a split; base first, the team before the students."""
        session, config = self._session, self._session.config
        grader = session.task_of(split).grader
        self._systems.add(system.name)
        for debate in debates if config.evaluation.quality.proxies else ():
            final = final_call(debate, grader)
            for figure in proxies(debate, grader) if final else ():
                self._row(split, system.name, debate.problem.id, final.call_id, *figure)
        if system.name == "team":
            self._choose(split, debates)
            self._perplexity(BASE, split)
        elif system.name in config.students:
            self._perplexity(system.name, split)
        if config.evaluation.judge is not None:
            self._show(config.evaluation.judge, system.name, split, debates)

    def finish(self) -> dict[str, Any]:
        """Let the judge judge and write the table.

        Returns:
          The summary of the stage's part `judge`; nothing without one.
        """
        judge = self._session.config.evaluation.judge
        summary = {} if judge is None else {JUDGE: self._judge(judge)}
        new = {(row.system, row.split, row.measure) for row in self._rows}
        kept = [
            row
            for row in self._before
            if (row.system, row.split, row.measure) not in new
            and (row.measure == PERPLEXITY or row.system not in self._systems)
        ]
        save_measured(self._path / QUALITY, [*kept, *self._rows])
        return summary

    def _row(
        self,
        split: str,
        system: str,
        problem: str,
        call: str,
        measure: str,
        value: float,
        weight: float = 1.0,
    ) -> None:
        row = Measured(self._session.seed, split, system, problem, measure, value, weight, call)
        self._rows.append(row)

    # --- perplexity ------------------------------------------------------------------------------

    def _choose(self, split: str, debates: Sequence[Debate]) -> None:
        session, most = self._session, self._session.config.evaluation.quality.traces
        longest = session.config.engine.length_classes[-1]
        of = debates if most else ()
        traces, too_long = team_traces(
            of, session.prompt, session.players.in_own_tokens, most, longest
        )
        self._traces[split] = traces
        if too_long:
            session.progress.say(
                f"perplexity, {split}: {too_long:,} of the team's messages are longer than "
                f"{longest} tokens behind the bare prompt, and left out"
            )

    def _perplexity(self, model: str, split: str) -> None:
        """Score the team's traces under a model, unless that was done before."""
        session, traces = self._session, self._traces.get(split, [])
        if not traces or (model, split) in self._measured:
            return
        engine = session.players.engine(model)
        label = f"perplexity of the team's messages, {model}, {split}"
        with session.progress.task(label, total=len(traces), unit="messages") as task:
            scored = surprise(traces, engine.score, task.advance)
        for trace in traces:
            nats, tokens = scored[trace.call_id]
            self._row(
                split, model, trace.problem_id, trace.call_id, PERPLEXITY, nats, float(tokens)
            )

    # --- the judge -------------------------------------------------------------------------------

    def _show(self, judge: JudgeConfig, system: str, split: str, debates: Sequence[Debate]) -> None:
        """Put by what the judge is going to be shown of a system."""
        session = self._session
        if split not in self._to_judge:
            chosen = chosen_problems([debate.problem for debate in debates], judge.problems)
            self._to_judge[split] = {problem.id for problem in chosen}
        for debate in debates:
            final = final_call(debate, session.task_of(split).grader)
            if final is not None and debate.problem.id in self._to_judge[split]:
                answer = JudgedAnswer(split, debate.problem, final.text)
                self._judged.append(_Judged(system, answer, debate.correct))

    def _judge(self, judge: JudgeConfig) -> dict[str, Any]:
        session, path = self._session, self._path / JUDGE
        answers = shuffled([one.answer for one in self._judged], session.seed)
        chat = session.players.voice(judge.player).chat
        longest = session.players.generator(judge.player).max_context
        left_out = 0
        for kind in judge.kinds:
            team = judge.team(kind)
            header = len(chat.turn(team.agents[0].name, team.agents[0].role))
            room = longest - header - judge.max_tokens
            asked = [answer.asked(judge, kind) for answer in answers]
            fitting = [one for one in asked if len(chat.question(one.question)) <= room]
            left_out += len(asked) - len(fitting)
            debates, _ = session.play(team, fitting, judge.player, path, f"judge, {kind}")
            said = {debate.problem.id: debate for debate in debates}
            for system, answer, correct in self._judged:
                if answer.id in said:
                    self._take(judge, kind, system, answer, correct, said[answer.id])
        if left_out:
            session.progress.say(
                f"judge: {left_out:,} questions are longer than {judge.player!r} holds: left out"
            )
        return {"left_out": left_out, **_spent(judge, path)}

    def _take(
        self,
        judge: JudgeConfig,
        kind: str,
        system: str,
        answer: JudgedAnswer,
        correct: bool,
        said: Debate,
    ) -> None:
        """The mean of the judgements of an answer that can be read."""
        values: dict[str, list[float]] = defaultdict(list)
        call_id = ""
        for call in said.calls:
            read = judge.read(kind, call.text) or {}
            if "judge_correct" in read:
                read["judge_agrees"] = float(bool(read["judge_correct"]) == correct)
            for measure, value in read.items():
                values[measure].append(value)
                call_id = call_id or call.call_id
        for measure, several in values.items():
            mean = sum(several) / len(several)
            self._row(answer.split, system, answer.problem.id, call_id, measure, mean)


def _spent(judge: JudgeConfig, path: Path) -> dict[str, Any]:
    """What all judging took, and how many judgements say nothing; from the recorded calls."""
    cost, unparsed = Cost(), 0
    for call in CallStore(path):
        one = Cost.of([call])
        cost = Cost(
            calls=cost.calls + one.calls,
            prompt_tokens=cost.prompt_tokens + one.prompt_tokens,
            generated_tokens=cost.generated_tokens + one.generated_tokens,
            seconds=cost.seconds + one.seconds,
        )
        unparsed += judge.read(call.stage, call.text) is None
    return {
        "calls": cost.calls,
        "prompt_tokens": cost.prompt_tokens,
        "generated_tokens": cost.generated_tokens,
        "seconds": cost.seconds,
        "unparsed": unparsed,
    }
