"""One team at work on one problem: a script that asks for calls and ends in an answer."""

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence

from arkjax.sampling.params import Generation, Request
from arkjax.tasks.problems import Grader, Problem
from arkjax.teams.parsers import parse
from arkjax.teams.primitives import Agent, Budget, Reducer, Repeat, Stage
from arkjax.teams.prompts import Chat, Prompt, Tokenizer, build_prompt
from arkjax.teams.reducers import Verdict, agreement, reduce, unchanged
from arkjax.teams.spec import TeamSpec, total
from arkjax.teams.views import visible
from arkjax.trajectories.schema import Call, call_id, call_seed, sampling_dict


@dataclasses.dataclass(frozen=True)
class Cost:
    """What was spent, counted from the recorded calls.

    Attributes:
      calls: generations, repeated attempts included.
      prompt_tokens: prompt tokens of all calls, shared ones counted for each.
      prefill_tokens: prompt tokens that had to be computed, shared ones counted once.
      generated_tokens: generated tokens, end tokens included.
      seconds: sum of the calls' shares of the generator's wall time.
    """

    calls: int = 0
    prompt_tokens: int = 0
    prefill_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, calls: Sequence[Call]) -> "Cost":
        """The cost of calls."""
        prompt_tokens = sum(len(call.prompt_ids) for call in calls)
        return cls(
            calls=len(calls),
            prompt_tokens=prompt_tokens,
            prefill_tokens=prompt_tokens - sum(call.cached_len for call in calls),
            generated_tokens=sum(len(call.gen_ids) for call in calls),
            seconds=sum(call.seconds for call in calls),
        )


@dataclasses.dataclass(frozen=True)
class Debate:
    """A team's finished work on one problem.

    Attributes:
      problem: the problem.
      system: name of the team.
      calls: every call, in the order of the schedule, the team and the samples.
      answer: the team's answer, or None if it has none.
      correct: whether the answer equals the gold one.
      rounds: how many stages were played.
      tied: whether the tie rule chose the answer.
      parse_failures: calls of which the stage's parser could not read every field.
      stopped: what ended the last repeat early: "rounds", "agree", "unchanged", "oracle",
        "budget"; empty if the schedule ran to its end.
      cost: what it took.
    """

    problem: Problem
    system: str
    calls: tuple[Call, ...]
    answer: str | None
    correct: bool
    rounds: int
    tied: bool
    parse_failures: int
    stopped: str
    cost: Cost


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all debates of one `play` have in common."""

    spec: TeamSpec
    chat: Chat
    tokenizer: Tokenizer
    grader: Grader
    seed: int
    model_ids: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A call that a debate waits for: who is asked what, and how the outcome is read."""

    setting: Setting
    problem: Problem
    stage: Stage
    agent: Agent
    round: int
    sample: int
    prompt: Prompt
    request: Request

    def call(self, generation: Generation) -> Call:
        """The record of the call, from what the generator made of its request."""
        end = self.setting.chat.end_id
        ids = tuple(int(token) for token in generation.ids)
        spoken = ids[:-1] if ids and ids[-1] == end else ids
        text = self.setting.tokenizer.decode(spoken)
        if stop := self.request.sampling.stop:
            # The text ends before what stopped it; the ids hold all that was generated.
            text = text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]
        return self.read(
            Call(
                call_id=self.request.id,
                problem_id=self.problem.id,
                system=self.setting.spec.name,
                stage=self.stage.name,
                round=self.round,
                agent=self.agent.id,
                sample=self.sample,
                parents=self.prompt.parents,
                prompt_segments=self.prompt.segments,
                prompt_ids=self.prompt.ids,
                prefix_len=self.prompt.prefix_len,
                cached_len=int(generation.cached_len),
                gen_ids=ids,
                logprobs=tuple(map(float, generation.logprobs)),
                sampling_logprobs=tuple(map(float, generation.sampling_logprobs)),
                text=text,
                parsed={},
                parse_ok=False,
                finish_reason=generation.finish_reason,
                sampling=sampling_dict(self.request.sampling),
                seed=self.request.seed,
                model=self.setting.model_ids[self.agent.model],
                correct=None,
                seconds=float(generation.seconds),
                top_ids=tuple(int(token) for step in generation.top for token, _ in step),
                top_logprobs=tuple(float(value) for step in generation.top for _, value in step),
            )
        )

    def read(self, call: Call) -> Call:
        """The call as this stage parses and grades it: another team may have read it otherwise."""
        stage, grader = self.stage, self.setting.grader
        parsed = parse(
            stage.parser,
            call.text,
            pattern=stage.pattern,
            choices=stage.choices,
            extract=grader.extract,
        )
        parse_ok = all(field in parsed for field in stage.fields)
        if not parse_ok and stage.on_parse_failure == "default" and "answer" in stage.fields:
            parsed = {"answer": stage.default, **parsed}
        correct = None
        if stage.parser != "none":
            correct = bool(grader.grade(self.problem, call.text).correct)
        return dataclasses.replace(call, parsed=parsed, parse_ok=parse_ok, correct=correct)


Script = Generator[list[Plan], list[Call], Debate]
"""Yields calls to be made, all of which may run at once; is sent them in the same order."""


class _Table:
    """The state of one debate: what has been said, and what is played next."""

    def __init__(self, setting: Setting, problem: Problem) -> None:
        self.setting = setting
        self.spec = setting.spec
        self.problem = problem
        self.question = tuple(setting.chat.question(problem.question))
        self.calls: list[Call] = []
        self.said: list[Call] = []
        self.round = 0
        self.stopped = ""

    def script(self) -> Script:
        """The whole debate."""
        schedule = self.spec.schedule
        for i, item in enumerate(schedule):
            if isinstance(item, str):
                yield from self._stage(self.spec.stage(item))
                continue
            for number in range(item.max):
                if number >= item.min:
                    self.stopped = self._reason_to_stop(item, schedule[i + 1 :])
                    if self.stopped:
                        break
                for name in item.stages:
                    yield from self._stage(self.spec.stage(name))
        verdict = self._verdict()
        return Debate(
            problem=self.problem,
            system=self.spec.name,
            calls=tuple(self._in_order(self.calls)),
            answer=verdict.answer,
            correct=self._is_gold(verdict),
            rounds=self.round,
            tied=verdict.tied,
            parse_failures=sum(not call.parse_ok for call in self.calls),
            stopped=self.stopped,
            cost=Cost.of(self.calls),
        )

    def _stage(self, stage: Stage) -> Generator[list[Plan], list[Call], None]:
        speakers = self.spec.select(stage.speakers)
        if stage.order == "sequential":
            for name in speakers:
                self.said += yield from self._speak(stage, [name], speakers)
        else:
            self.said += yield from self._speak(stage, speakers, speakers)
        self.round += 1

    def _speak(
        self, stage: Stage, names: Sequence[str], speakers: Sequence[str]
    ) -> Generator[list[Plan], list[Call], list[Call]]:
        """Let agents speak without hearing one another; returns the messages that count."""
        prompts = {name: self._prompt(stage, name, speakers) for name in names}
        asked = [(name, sample) for name in names for sample in range(stage.n_samples)]
        counts: dict[tuple[str, int], Call] = {}
        for attempt in range(stage.attempts):
            # A repeated attempt is a further sample: n, n + 1, … beside the first ones 0 … n - 1.
            offset = attempt * stage.n_samples
            plans = [self._plan(stage, name, s + offset, prompts[name]) for name, s in asked]
            calls = yield plans
            self.calls += calls
            counts.update(zip(asked, calls, strict=True))
            asked = [place for place in asked if not counts[place].parse_ok]
            if not asked:
                break
        return list(counts.values())

    def _prompt(self, stage: Stage, name: str, speakers: Sequence[str]) -> Prompt:
        spec = self.spec
        agents = [agent.id for agent in spec.agents]
        key = f"{self.setting.seed}/{self.problem.id}/{self.round}"
        shown = visible(stage.view, name, speakers, agents, self.said, key)
        return build_prompt(
            self.setting.chat,
            self.setting.tokenizer,
            self.question,
            [(spec.agent(call.agent), call) for call in shown],
            spec.agent(name),
            stage,
        )

    def _plan(self, stage: Stage, name: str, sample: int, prompt: Prompt) -> Plan:
        agent = self.spec.agent(name)
        sampling = agent.sampling
        if not sampling.stop_ids:
            sampling = dataclasses.replace(sampling, stop_ids=(self.setting.chat.end_id,))
        seed = call_seed(
            self.setting.seed + agent.seed_offset,
            self.problem.id,
            agent.id,
            stage.seed_key,
            self.round,
            sample,
        )
        name_of_call = call_id(
            problem_id=self.problem.id,
            model=self.setting.model_ids[agent.model],
            stage=stage.name,
            round=self.round,
            agent=agent.id,
            sample=sample,
            prompt_ids=prompt.ids,
            sampling=sampling_dict(sampling),
            seed=seed,
        )
        request = Request(
            name_of_call, prompt.ids, prompt.prefix_len, sampling, seed, prompt.shared
        )
        return Plan(self.setting, self.problem, stage, agent, self.round, sample, prompt, request)

    def _reason_to_stop(self, repeat: Repeat, rest: Sequence[str | Repeat]) -> str:
        """Why the repeat block is not played once more; empty if it is."""
        stop, reducer, voters = self.spec.stop, self.spec.reducer, self.spec.voters
        equal, field = self.setting.grader.equal, self.spec.reducer.field
        conditions: list[tuple[str, Callable[[], bool]]] = [
            ("budget", lambda: not self._affordable(repeat, rest)),
            ("rounds", lambda: 0 < stop.rounds <= self.round),
            ("agree", lambda: 0 < stop.agree <= agreement(field, voters, self.said, equal)),
            (
                "unchanged",
                lambda: (
                    stop.unchanged > 0
                    and unchanged(field, stop.unchanged, voters, self.said, equal)
                ),
            ),
            (
                "oracle",
                lambda: (
                    stop.oracle
                    and self._is_gold(reduce(_without_judge(reducer), voters, self.said, equal))
                ),
            ),
        ]
        return next((name for name, holds in conditions if holds()), "")

    def _affordable(self, repeat: Repeat, rest: Sequence[str | Repeat]) -> bool:
        """Whether one more pass leaves enough for the least that must still follow."""
        names = list(repeat.stages)
        for item in rest:
            names += [item] if isinstance(item, str) else list(item.stages) * item.min
        ahead = total(self.spec.cost(self.spec.stage(name)) for name in names)
        spent = Cost.of(self.calls)
        budget: Budget = self.spec.budget
        return not (
            0 < budget.calls < spent.calls + ahead.calls
            or 0 < budget.tokens < spent.generated_tokens + ahead.tokens
        )

    def _verdict(self) -> Verdict:
        said = self._in_order(self.said)
        return reduce(self.spec.reducer, self.spec.voters, said, self.setting.grader.equal)

    def _is_gold(self, verdict: Verdict) -> bool:
        if verdict.answer is None:
            return False
        return bool(self.setting.grader.equal(verdict.answer, self.problem.answer))

    def _in_order(self, calls: Sequence[Call]) -> list[Call]:
        place = {agent.id: i for i, agent in enumerate(self.spec.agents)}
        return sorted(calls, key=lambda call: (call.round, place[call.agent], call.sample))


def _without_judge(reducer: Reducer) -> Reducer:
    """What a team would answer before its judge has spoken: what its voters say."""
    return dataclasses.replace(reducer, kind="vote") if reducer.kind == "judge" else reducer


def script(setting: Setting, problem: Problem) -> Script:
    """The debate of a team about a problem, as a script that asks for calls."""
    return _Table(setting, problem).script()
