"""What a debate waits for: a call to be generated, or something for a tool to do."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

from arkjax.sampling.params import Generation, Request, SamplingParams, whole_prefix
from arkjax.tasks.problems import Grader, Problem
from arkjax.teams.parsers import parse
from arkjax.teams.primitives import Agent, Stage
from arkjax.teams.prompts import Chat, Prompt, Tokenizer
from arkjax.teams.team import Team
from arkjax.tools.calls import ToolCall, describe, find_call, stop_texts
from arkjax.tools.protocol import Tool, ToolResult, failed
from arkjax.trajectories.schema import (
    ACTION,
    Call,
    call_id,
    call_seed,
    canonical_json,
    sampling_dict,
)

NO_TOOL = "tool"
"""What answers, with an error, to the call of a tool that is not there."""


@dataclasses.dataclass(frozen=True)
class Voice:
    """How a model is written to and read.

    Attributes:
      chat: its chat template.
      tokenizer: its tokenizer.
      vocabulary: what names the tokenizer: ids are copied between models that have the same.
    """

    chat: Chat
    tokenizer: Tokenizer
    vocabulary: str = ""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all debates of one play have in common.

    Attributes:
      spec: the team.
      voices: by the names that the team gives its models.
      grader: grades every call, and says when two answers are equal.
      seed: of the run.
      model_ids: identity of each named model.
      tools: the team's, by name.
    """

    spec: Team
    voices: Mapping[str, Voice]
    grader: Grader
    seed: int
    model_ids: Mapping[str, str]
    tools: Mapping[str, Tool] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def names(self) -> list[str]:
        """What agents are called: ids and names."""
        return [name for agent in self.spec.agents for name in (agent.id, agent.name)]

    @functools.cached_property
    def asking(self) -> frozenset[str]:
        """Names of the stages that ask for the answer of the team's reducer."""
        field = self.spec.reducer.field
        return frozenset(stage.name for stage in self.spec.stages if field in stage.fields)

    @functools.cached_property
    def _samplings(self) -> dict[tuple[str, str], tuple[SamplingParams, dict[str, Any]]]:
        """What `_sampling` has found, by stage and agent."""
        return {}

    def voice(self, agent: Agent) -> Voice:
        """How the model of an agent is written to; a tool has the words of the team's first."""
        if agent.model in self.voices and not agent.tool:
            return self.voices[agent.model]
        return next(iter(self.voices.values()))

    def shares_tokens(self, reader: Agent, author: Agent) -> bool:
        """Whether the author's ids can be copied into the reader's prompt."""
        return self.voice(reader).vocabulary == self.voice(author).vocabulary

    def plan(
        self,
        problem: Problem,
        stage: Stage,
        agent: Agent,
        prompt: Prompt,
        round: int,
        sample: int,
        step: int,
        *,
        alone: bool = True,
    ) -> "Plan":
        """The call of an agent that reads a prompt; unless `alone`, others read the same."""
        sampling, recorded = self._sampling(stage, agent)
        # What follows a tool's answer is drawn anew, and not as what came before it.
        group = f"{stage.seed_key}/{step}" if step else stage.seed_key
        seed = call_seed(self.seed + agent.seed_offset, problem.id, agent.id, group, round, sample)
        name = call_id(
            problem_id=problem.id,
            model=self.model_ids[agent.model],
            stage=stage.name,
            round=round,
            agent=agent.id,
            sample=sample,
            prompt_ids=prompt.ids,
            sampling=recorded,
            seed=seed,
        )
        shared = prompt.prefix_len, prompt.shared
        prefix_len, shared = shared if alone else whole_prefix(prompt.ids, *shared)
        request = Request(name, prompt.ids, prefix_len, sampling, seed, shared)
        return Plan(self, problem, stage, agent, round, sample, step, prompt, request, recorded)

    def _sampling(self, stage: Stage, agent: Agent) -> tuple[SamplingParams, dict[str, Any]]:
        """How an agent's calls in a stage are drawn, and the same as it is recorded."""
        known = self._samplings.get((stage.name, agent.id))
        if known is None:
            sampling = agent.sampling
            if not sampling.stop_ids:
                ends = self.voice(agent).chat.end_ids
                sampling = dataclasses.replace(sampling, stop_ids=tuple(ends))
            if stage.tools:
                stops = dict.fromkeys((*sampling.stop, *stop_texts()))
                sampling = dataclasses.replace(sampling, stop=tuple(stops))
            known = sampling, sampling_dict(sampling)
            self._samplings[stage.name, agent.id] = known
        return known

    def tool_plan(
        self,
        problem: Problem,
        stage: Stage,
        agent: Agent,
        tool: str,
        input: str,
        round: int,
        sample: int,
        step: int,
        parents: tuple[str, ...],
        error: str = "",
    ) -> "ToolPlan":
        """What a tool is to do for an agent, or in its place."""
        known = self.tools.get(tool)
        identity = f"{ACTION}{tool}/{known.version}" if known else f"{ACTION}{tool}"
        place = [problem.id, identity, stage.name, round, agent.id, sample, step, input, error]
        name = hashlib.sha256(canonical_json([*place, parents]).encode()).hexdigest()[:32]
        return ToolPlan(
            self, problem, stage, agent, known, input, round, sample, step, parents, name, identity,
            error,
        )  # fmt: skip

    def tool_call(
        self, stage: Stage, agent: Agent, text: str, gen_ids: tuple[int, ...]
    ) -> ToolCall | None:
        """The call of a tool in an agent's words, None if there is none."""
        whole = self.voice(agent).tokenizer.decode(gen_ids)
        if whole.startswith(text):
            # A call that a stop text closes is whole, though the words end before that.
            text += next((stop for stop in stop_texts() if whole.startswith(stop, len(text))), "")
        return find_call(text, stage.tools)

    def called_tool(
        self, problem: Problem, stage: Stage, agent: Agent, said: Call, step: int
    ) -> "ToolPlan | None":
        """What an agent's words ask a tool to do, None if they ask nothing."""
        call = self.tool_call(stage, agent, said.text, said.gen_ids)
        if call is None:
            return None
        error = call.error
        if not error and call.name not in stage.tools:
            error = f"there is no tool {call.name!r}; there are: {', '.join(stage.tools)}"
        return self.tool_plan(
            problem,
            stage,
            agent,
            # A name that is no tool's is the model's own, of any length and content.
            call.name if call.name in stage.tools else NO_TOOL,
            call.input,
            said.round,
            said.sample,
            step,
            (said.call_id,),
            error,
        )


def instruction(stage: Stage, tools: Mapping[str, Tool]) -> str:
    """What the speakers of a stage are told: its instruction, and which tools they have."""
    described = describe([tools[name] for name in stage.tools if name in tools])
    return "\n\n".join(filter(None, [stage.instruction, described]))


@dataclasses.dataclass(frozen=True)
class Plan:
    """A call that a debate waits for: who is asked what, and how the outcome is read.

    Attributes:
      sampling: the request's, as it is recorded.
    """

    setting: Setting
    problem: Problem
    stage: Stage
    agent: Agent
    round: int
    sample: int
    step: int
    prompt: Prompt
    request: Request
    sampling: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The call's id."""
        return self.request.id

    def call(self, generation: Generation) -> Call:
        """The record of the call, from what the generator made of its request."""
        voice = self.setting.voice(self.agent)
        ids = tuple(map(int, generation.ids))
        spoken = ids[:-1] if ids and ids[-1] in voice.chat.end_ids else ids
        text = voice.tokenizer.decode(spoken)
        if stop := self.request.sampling.stop:
            # The text ends before what stopped it; the ids hold all that was generated.
            text = text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]
        return Call(
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
            finish_reason=generation.finish_reason,
            sampling=self.sampling,
            seed=self.request.seed,
            model=self.setting.model_ids[self.agent.model],
            seconds=float(generation.seconds),
            step=self.step,
            top_ids=tuple(int(token) for step in generation.top for token, _ in step),
            top_logprobs=tuple(float(value) for step in generation.top for _, value in step),
            **self._reading(text, ids),
        )

    def read(self, call: Call) -> Call:
        """The call as this stage parses and grades it: another team may have read it otherwise."""
        return dataclasses.replace(call, **self._reading(call.text, call.gen_ids))

    def _reading(self, text: str, gen_ids: tuple[int, ...]) -> dict[str, Any]:
        """What is read in words: `parsed`, `parse_ok` and `correct` of a `Call`."""
        stage, setting = self.stage, self.setting
        if self._acts(text, gen_ids):
            # Not the last word of the turn: it states nothing, and is neither right nor wrong.
            return {"parsed": {}, "parse_ok": True, "correct": None}
        parsed: dict[str, str] = {}
        for kind in stage.parsers:
            found = parse(
                kind,
                text,
                pattern=stage.pattern,
                choices=stage.choices,
                extract=setting.grader.extract,
                keys=stage.keys,
                names=setting.names,
            )
            parsed = {**found, **parsed}
        parse_ok = set(stage.fields) <= {*parsed, *stage.optional}
        if not parse_ok and stage.on_parse_failure == "default" and stage.fields:
            parsed = {stage.fields[0]: stage.default, **parsed}
        correct = None
        if "answer" in stage.fields:
            correct = bool(setting.grader.grade(self.problem, text).correct)
        return {"parsed": parsed, "parse_ok": parse_ok, "correct": correct}

    def _acts(self, text: str, gen_ids: tuple[int, ...]) -> bool:
        """Whether words ask a tool to do something, and may: the turn goes on then."""
        stage, acted = self.stage, self.step // 2
        if not stage.tools or acted >= stage.tool_calls:
            return False
        return self.setting.tool_call(stage, self.agent, text, gen_ids) is not None


@dataclasses.dataclass(frozen=True)
class ToolPlan:
    """Something that a debate waits for a tool to do.

    Attributes:
      tool: the tool; None if there is none of that name.
      input: what it is given.
      parents: ids of the calls that it was asked in, or that it reads.
      id: the action's id: a hash of what determines the result.
      model: what the action is recorded as: "tool:", the tool's name and version.
      error: why the tool is not run at all; empty if it is.
    """

    setting: Setting
    problem: Problem
    stage: Stage
    agent: Agent
    tool: Tool | None
    input: str
    round: int
    sample: int
    step: int
    parents: tuple[str, ...]
    id: str
    model: str
    error: str = ""

    def run(self) -> ToolResult:
        """Let the tool do it; safe in any thread."""
        if self.error or self.tool is None:
            return failed(self.error or "there is no such tool")
        return self.tool.run(self.input, self.problem)

    def call(self, result: ToolResult, seconds: float) -> Call:
        """The record of the action: what the tool answered, in the place of generated words."""
        voice = self.setting.voice(self.agent)
        ids = list(voice.tokenizer.encode(result.text))
        cut = len(ids) > self.stage.result_tokens
        ids = (*ids[: self.stage.result_tokens], voice.chat.end_id)
        unknown = (float("nan"),) * len(ids)
        fields = {"status": result.status, "input": self.input, **dict(result.fields)}
        return self.read(
            Call(
                call_id=self.id,
                problem_id=self.problem.id,
                system=self.setting.spec.name,
                stage=self.stage.name,
                round=self.round,
                agent=self.agent.id,
                sample=self.sample,
                parents=self.parents,
                prompt_segments=(),
                prompt_ids=(),
                prefix_len=0,
                cached_len=0,
                gen_ids=ids,
                logprobs=unknown,
                sampling_logprobs=unknown,
                text=voice.tokenizer.decode(ids[:-1]) if cut else result.text,
                parsed=fields,
                parse_ok=True,
                finish_reason="tool",
                sampling=sampling_dict(SamplingParams()),
                seed=0,
                model=self.model,
                correct=None,
                seconds=seconds,
                step=self.step,
            )
        )

    def read(self, call: Call) -> Call:
        """The action as this stage reads it: whether all the fields are there that it asks for."""
        wanted = self.stage.fields if self.agent.tool else ()
        return dataclasses.replace(call, parse_ok=all(name in call.parsed for name in wanted))
