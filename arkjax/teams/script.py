"""One team at work on one problem: a script that asks for calls and ends in an answer."""

import collections
import dataclasses
import json
from collections.abc import Generator, Sequence

from arkjax.tasks.problems import Problem
from arkjax.teams.confidence import confidence
from arkjax.teams.debate import Cost, Debate
from arkjax.teams.opening import opening, opening_answer
from arkjax.teams.plans import Plan, Setting, ToolPlan, Voice, instruction
from arkjax.teams.primitives import Agent, Chosen, Stage
from arkjax.teams.prompts import (
    Prompt,
    Shown,
    Transcript,
    build_prompt,
    continue_prompt,
    shown_text,
    transcribe,
)
from arkjax.teams.reducers import Verdict, reduce
from arkjax.teams.rules import Budget, Item, Repeat
from arkjax.teams.stopping import Talk, reason_to_stop
from arkjax.teams.team import total
from arkjax.teams.views import anonymous_name, levels, shuffled, visible
from arkjax.trajectories.schema import Call

Script = Generator[list[Plan | ToolPlan], list[Call], Debate]
"""Yields what is to be made, all of which may run at once; is sent it in the same order."""


@dataclasses.dataclass
class _Turn:
    """One sample of one speaker under way: what it reads, and what it has said and done so far.

    Attributes:
      name: the speaker's id.
      sample: which of its samples, as recorded.
      prompt: what it reads next; None for a tool.
      shown: the messages that it was shown.
      calls: the parts of its turn.
    """

    name: str
    sample: int
    prompt: Prompt | None
    shown: list[Call]
    calls: list[Call] = dataclasses.field(default_factory=list)


class _Table:
    """The state of one debate: what has been said, and what is played next."""

    def __init__(self, setting: Setting, problem: Problem) -> None:
        self.setting = setting
        self.spec = setting.spec
        self.problem = problem
        self.calls: list[Call] = []
        # The parts of a turn before its last one, by the id of that one.
        self.steps: dict[str, tuple[Call, ...]] = {}
        self.said: list[Call] = []
        self.round = 0
        self.stopped = ""
        self.played: dict[str, int] = {}
        self._questions: dict[int, tuple[int, ...]] = {}

    def script(self) -> Script:
        """The whole debate."""
        yield from self._play(self.spec.schedule, Budget())
        verdict = self._verdict()
        correct = self._is_gold(verdict.answer)
        opened = self._opening(verdict)
        steps = {call.call_id for calls in self.steps.values() for call in calls}
        return Debate(
            problem=self.problem,
            system=self.spec.name,
            calls=tuple(self._in_order(self.calls)),
            answer=verdict.answer,
            correct=correct,
            rounds=self.round,
            tied=verdict.tied,
            parse_failures=sum(not c.parse_ok and c.call_id not in steps for c in self.calls),
            stopped=self.stopped,
            cost=Cost.of(self.calls),
            opening=opened,
            opening_correct=correct if opened == verdict.answer else self._is_gold(opened),
            in_pool=correct or any(map(self._states_gold, self.said)),
            confidence=self._confidence(verdict),
        )

    def _play(self, items: Sequence[Item], after: Budget) -> Generator[list, list[Call], None]:
        """Play a part of the schedule; `after` is the least that must still follow it."""
        for i, item in enumerate(items):
            if isinstance(item, str):
                yield from self._stage(self.spec.stage(item))
                continue
            rest = total([self._least(items[i + 1 :]), after])
            once = self._least(item.stages)
            self.stopped = ""
            for number in range(item.max):
                if number >= item.min:
                    self.stopped = self._reason_to_stop(item, rest)
                    if self.stopped:
                        break
                # A repeat within this pass must leave what the passes need that have to follow.
                owed = [once] * (item.min - number - 1)
                yield from self._play(item.stages, total([*owed, rest]))

    def _least(self, items: Sequence[Item]) -> Budget:
        spec = self.spec
        return total(spec.cost(stage) for stage in spec.unrolled(longest=False, items=items))

    def _stage(self, stage: Stage) -> Generator[list, list[Call], None]:
        speakers = self._speakers(stage)
        waves: list[Sequence[str]] = [speakers]
        if stage.order == "graph":
            turn = self.played.get(stage.name, 0)
            waves = list(levels(stage.view, speakers, self.spec.ids, turn))
        elif stage.order != "parallel":
            ordered = speakers
            if stage.order == "shuffled":
                ordered = shuffled(speakers, f"{self._key}/order")
            waves = [[name] for name in ordered]
        for names in waves:
            self.said += yield from self._speak(stage, names, speakers)
        self.round += 1
        self.played[stage.name] = self.played.get(stage.name, 0) + 1

    @property
    def _key(self) -> str:
        """What random choices about the talk are derived from."""
        return f"{self.setting.seed}/{self.problem.id}/{self.round}"

    def _speakers(self, stage: Stage) -> Sequence[str]:
        """Who speaks in a stage now."""
        choice, pool = stage.speakers, self.spec.select(stage.speakers)
        if not isinstance(choice, Chosen):
            return pool
        value = self._choice(choice.by)
        named = list(dict.fromkeys(self._resolve(value, pool))) if value is not None else []
        if not named and choice.default:
            named = [choice.default]
        if not named:
            spoken = {name: 0 for name in pool}
            for call in self.said:
                if call.agent in spoken:
                    spoken[call.agent] += 1
            named = sorted(pool, key=lambda name: spoken[name])
        return named[: choice.top]

    def _resolve(self, value: str, pool: Sequence[str]) -> list[str]:
        """The agents that a text names: by id, byline or place; one or several as a JSON list.

        "agent 2" is who is called so in an anonymous view, by the place in the team; a bare number
        is a place in the pool.
        """
        try:
            listed = json.loads(value)
        except (ValueError, RecursionError):
            listed = value
        if not isinstance(listed, list):
            listed = [listed if isinstance(listed, str) else value]
        known = {self.spec.agent(name).name.casefold(): name for name in reversed(pool)}
        known |= {name.casefold(): name for name in pool}
        found = []
        for item in listed:
            if not isinstance(item, str | int | float):
                continue
            text = str(item).strip().casefold()
            number = text.removeprefix("agent").strip()
            if text in known:
                found.append(known[text])
            elif number.isascii() and number.isdigit():
                places = pool if number == text else self.spec.ids
                place = int(number[:6])
                if 0 < place <= len(places) and places[place - 1] in pool:
                    found.append(places[place - 1])
        return found

    def _choice(self, field: str) -> str | None:
        """The latest choice in "stage.field"; None if it could not be read when last asked for."""
        stage, _, name = field.rpartition(".")
        asked = [
            call
            for call in self.said
            if stage in ("", call.stage) and name in self.spec.stage(call.stage).fields
        ]
        last = [call for call in asked if call.round == asked[-1].round]
        return next((call.parsed[name] for call in reversed(last) if name in call.parsed), None)

    def _speak(
        self, stage: Stage, names: Sequence[str], speakers: Sequence[str]
    ) -> Generator[list, list[Call], list[Call]]:
        """Let agents speak without hearing one another; returns the messages that count."""
        asked = []
        # What several are to read is put together once.
        transcripts: dict[tuple, Transcript] = {}
        for name in names:
            shown = self._shown(stage, name, speakers)
            for i, part in enumerate([[one] for one in shown] if stage.each else [shown]):
                prompt = self._prompt(stage, name, part, transcripts)
                for sample in range(i * stage.n_samples, (i + 1) * stage.n_samples):
                    asked.append(_Turn(name, sample, prompt, part))
        # A repeated attempt is a further sample, counted on behind those of all speakers.
        stride = 1 + max((turn.sample for turn in asked), default=0)
        counted: dict[tuple[str, int], Call] = {}
        for attempt in range(stage.attempts):
            again = [
                _Turn(turn.name, turn.sample + attempt * stride, turn.prompt, turn.shown)
                for turn in asked
            ]
            yield from self._take(stage, again)
            for turn, first in zip(again, asked, strict=True):
                if turn.calls:
                    last = turn.calls[-1]
                    counted[first.name, first.sample] = last
                    if len(turn.calls) > 1:
                        self.steps[last.call_id] = tuple(turn.calls[:-1])
            asked = [
                turn
                for turn in asked
                if (call := counted.get((turn.name, turn.sample))) and not call.parse_ok
            ]
            if not asked:
                break
        return list(counted.values())

    def _take(self, stage: Stage, turns: list[_Turn]) -> Generator[list, list[Call], None]:
        """Let speakers take their turns, each until it calls no more tools."""
        while turns:
            asked = collections.Counter(self._asked(turn) for turn in turns)
            calls = yield [
                self._plan(stage, turn, alone=asked[self._asked(turn)] == 1) for turn in turns
            ]
            self.calls += calls
            ahead, acting = [], []
            for turn, call in zip(turns, calls, strict=True):
                turn.calls.append(call)
                if plan := self._action(stage, turn):
                    acting.append((turn, plan))
            if acting:
                results = yield [plan for _, plan in acting]
                self.calls += results
                for (turn, _), action in zip(acting, results, strict=True):
                    said = turn.calls[-1]
                    turn.calls.append(action)
                    turn.prompt = self._continued(turn, said, action)
                    ahead.append(turn)
            turns = ahead

    def _shown(self, stage: Stage, name: str, speakers: Sequence[str]) -> list[Call]:
        """The messages that a speaker can see."""
        return visible(
            stage.view,
            name,
            speakers,
            self.spec.ids,
            self.said,
            self._key,
            authors=self.spec.select(stage.view.authors),
            turn=self.played.get(stage.name, 0),
        )

    def _prompt(
        self,
        stage: Stage,
        name: str,
        shown: Sequence[Call],
        transcripts: dict[tuple, Transcript],
    ) -> Prompt | None:
        agent = self.spec.agent(name)
        if agent.tool:
            return None
        chat = self.setting.voice(agent).chat
        told = agent.name, self._role(agent), instruction(stage, self.setting.tools)
        first = stage.view.layout == "role_first"
        announced = chat.announce(*told) if first else ()
        key = agent.model, tuple(announced), tuple(call.call_id for call in shown)
        if key not in transcripts:
            transcripts[key] = self._transcribe(stage, agent, shown, announced)
        return build_prompt(transcripts[key], chat.turn(*told))

    def _transcribe(
        self, stage: Stage, reader: Agent, shown: Sequence[Call], announced: Sequence[int]
    ) -> Transcript:
        spec, voice = self.spec, self.setting.voice(reader)
        messages = []
        for call in shown:
            author = spec.agent(call.agent)
            byline = author.name
            if stage.view.anonymous:
                byline = anonymous_name(spec.ids, call.agent)
            steps = self.steps.get(call.call_id, ())
            copied = self.setting.shares_tokens(reader, author)
            messages.append(
                Shown(byline, call, steps, copied, spec.most_tokens(call.agent, call.stage))
            )
        question, show = self._question(voice), stage.view.show
        return transcribe(voice.chat, voice.tokenizer, question, messages, show, announced)

    def _role(self, agent: Agent) -> str:
        """An agent's role, which others may have written."""
        written = [call for field in agent.role_from if (call := self._said_with(field))]
        if not written:
            return agent.role
        # Of several fields that write the role, the one that was said last.
        places = {call.call_id: i for i, call in enumerate(self.said)}
        field, call = max(written, key=lambda pair: places[pair[1].call_id])
        return call.parsed[field]

    def _question(self, voice: Voice) -> Sequence[int]:
        """The question, as it opens every prompt for a model."""
        if id(voice) not in self._questions:
            self._questions[id(voice)] = tuple(voice.chat.question(self.problem.question))
        return self._questions[id(voice)]

    def _said_with(self, field: str) -> tuple[str, Call] | None:
        """The latest message in which "stage.field" could be read, with the field's own name."""
        call = Talk(self.said, self.spec.voters).latest_call(field)
        return None if call is None else (field.rpartition(".")[2], call)

    def _continued(self, turn: _Turn, said: Call, action: Call) -> Prompt:
        agent = self.spec.agent(turn.name)
        return continue_prompt(
            self.setting.voice(agent).chat, turn.prompt, said, action, agent.name
        )

    def _asked(self, turn: _Turn) -> tuple[str, tuple[int, ...] | None]:
        """Which model a speaker asks what; no prompt is what tools have."""
        return self.spec.agent(turn.name).model, turn.prompt and turn.prompt.ids

    def _plan(self, stage: Stage, turn: _Turn, alone: bool) -> Plan | ToolPlan:
        """What a turn waits for; `alone` says that no other asks the same model the same prompt.

        Samples of one speaker share all of a prompt, and so do speakers without roles.
        """
        agent = self.spec.agent(turn.name)
        if agent.tool:
            show = stage.view.show
            read = [(call, text) for call in turn.shown if (text := shown_text(call, show))]
            text = "\n\n".join(text for _, text in read)
            parents = tuple(call.call_id for call, _ in read)
            return self.setting.tool_plan(
                self.problem, stage, agent, agent.tool, text, self.round, turn.sample, 0, parents
            )
        step = len(turn.calls)
        return self.setting.plan(
            self.problem, stage, agent, turn.prompt, self.round, turn.sample, step, alone=alone
        )

    def _action(self, stage: Stage, turn: _Turn) -> ToolPlan | None:
        """What the speaker asks a tool to do; None if nothing, or if it has acted enough."""
        said = turn.calls[-1]
        acted = sum(call.is_action for call in turn.calls)
        if not stage.tools or said.is_action or acted >= stage.tool_calls:
            return None
        return self.setting.called_tool(
            self.problem, stage, self.spec.agent(turn.name), said, len(turn.calls)
        )

    def _reason_to_stop(self, repeat: Repeat, rest: Budget) -> str:
        """Why the repeat block is not played once more; empty if it is."""
        if not self._affordable(repeat, rest):
            return "budget"
        spec = self.spec
        return reason_to_stop(
            spec.stop if repeat.stop is None else repeat.stop,
            spec.reducer,
            Talk(self.said, spec.voters, self.round, Cost.of(self.calls).generated_tokens),
            self.setting.grader.equal,
            self._is_gold,
        )

    def _affordable(self, repeat: Repeat, rest: Budget) -> bool:
        """Whether one more pass leaves enough for the least that must still follow."""
        ahead = total([self._least(repeat.stages), rest])
        spent = Cost.of(self.calls)
        budget = self.spec.budget
        return not (
            0 < budget.calls < spent.calls + ahead.calls
            or 0 < budget.tokens < spent.generated_tokens + ahead.tokens
            or 0 < budget.seconds <= spent.seconds
        )

    def _verdict(self) -> Verdict:
        spec = self.spec
        return reduce(spec.reducer, spec.voters, self.said, self.setting.grader.equal)

    def _opening(self, verdict: Verdict) -> str | None:
        """What the team would have answered without talking."""
        spec, setting = self.spec, self.setting
        opened = opening(self.said, setting.asking)
        if len(opened) == len(self.said):
            return verdict.answer
        return opening_answer(spec.reducer, spec.voters, opened, setting.grader.equal)

    def _confidence(self, verdict: Verdict) -> float:
        spec = self.spec
        return confidence(
            spec.reducer,
            spec.voters,
            self.said,
            verdict.answer,
            self.setting.grader.equal,
            lambda call: self.setting.voice(spec.agent(call.agent)).tokenizer.decode,
        )

    def _states_gold(self, call: Call) -> bool:
        """Whether a message states a right answer; those of most stages are graded already."""
        if call.correct is not None:
            return call.correct
        return self._is_gold(call.parsed.get(self.spec.reducer.field))

    def _is_gold(self, answer: str | None) -> bool:
        if answer is None:
            return False
        return bool(self.setting.grader.accepts(self.problem, answer))

    def _in_order(self, calls: Sequence[Call]) -> list[Call]:
        place = {name: i for i, name in enumerate(self.spec.ids)}
        return sorted(calls, key=lambda call: (call.round, place[call.agent], call.sample))


def script(setting: Setting, problem: Problem) -> Script:
    """The debate of a team about a problem, as a script that asks for calls."""
    return _Table(setting, problem).script()
