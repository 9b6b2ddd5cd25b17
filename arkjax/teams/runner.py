"""Plays a team on many problems at once.

Every debate is a script that asks for calls. The runner submits whatever any of them can ask for,
lets the generators work, and hands each debate its calls the moment its stage is complete: no
debate waits for another. Tools work in threads beside the generators. Calls and actions that are
recorded already are not made again.
"""

import contextlib
import dataclasses
import gc
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

from arkjax.errors import ConfigError, DataError
from arkjax.sampling.params import Generator
from arkjax.tasks.problems import Grader, Problem
from arkjax.teams.context import check_context
from arkjax.teams.debate import Debate
from arkjax.teams.fields import unknown_name
from arkjax.teams.plans import Plan, Setting, ToolPlan, Voice
from arkjax.teams.prompts import Chat, Tokenizer
from arkjax.teams.script import Script, script
from arkjax.teams.spec import TeamSpec
from arkjax.tools.protocol import Tool, ToolResult
from arkjax.tools.registry import make_tools
from arkjax.trajectories.schema import Call
from arkjax.trajectories.store import CallStore


class Known(Protocol):
    """Where calls of earlier plays can be looked up: a `CallStore` or a dict."""

    def get(self, call_id: str) -> Call | None:
        """The call of that id, or None."""


class Progress(Protocol):
    """Told how many more debates are finished."""

    def advance(self, n: int) -> None:
        """Count `n` more."""


@dataclasses.dataclass
class _Active:
    """A debate that waits for calls."""

    index: int
    script: Script
    plans: list[Plan | ToolPlan] = dataclasses.field(default_factory=list)
    calls: dict[str, Call] = dataclasses.field(default_factory=dict)


def play(
    spec: TeamSpec,
    problems: Sequence[Problem],
    models: Mapping[str, Generator],
    chat: Chat | Mapping[str, Voice],
    tokenizer: Tokenizer,
    grader: Grader,
    store: CallStore | None,
    seed: int,
    progress: Progress | None = None,
    known: Known | Sequence[Known] | None = None,
    *,
    model_ids: Mapping[str, str] | None = None,
    max_active: int = 1024,
) -> list[Debate]:
    """The team's debates in the order of the problems; arguments as of `play_as_finished`."""
    finished = play_as_finished(
        spec,
        problems,
        models,
        chat,
        tokenizer,
        grader,
        store,
        seed,
        progress,
        known,
        model_ids=model_ids,
        max_active=max_active,
    )
    return [debate for _, debate in sorted(finished, key=lambda pair: pair[0])]


def play_as_finished(
    spec: TeamSpec,
    problems: Sequence[Problem],
    models: Mapping[str, Generator],
    chat: Chat | Mapping[str, Voice],
    tokenizer: Tokenizer,
    grader: Grader,
    store: CallStore | None,
    seed: int,
    progress: Progress | None = None,
    known: Known | Sequence[Known] | None = None,
    *,
    model_ids: Mapping[str, str] | None = None,
    max_active: int = 1024,
) -> Iterator[tuple[int, Debate]]:
    """Play a team on problems; yields (index of the problem, debate) as debates finish.

    Args:
      spec: the team.
      problems: what it works on; their ids must differ.
      models: the generators, by the names that the team's agents use.
      chat: the chat template, or for each named model its own `Voice`; then models may have
        different tokenizers.
      tokenizer: decodes what is generated, where `chat` is one for all.
      grader: grades every call, and says when two answers are equal.
      store: where every call is recorded, in the order of completion; None records nothing. What
        it holds already is not made again, so a killed play goes on where it was.
      seed: seed of the run; calls that hold the same place in two teams draw alike.
      progress: told of each finished debate.
      known: calls of other teams that need not be made again, as one store or dict or several; a
        call found there is copied into `store`, so that each store is whole.
      model_ids: identity of each named model, for example with the hash of its weights: part of
        every call's id. By default the name.
      max_active: how many debates are under way at once.

    Raises:
      ConfigError: if the team needs a model that is not there.
      DataError: if problems share an id, or one cannot fit into the context; before any call.
    """
    for i, agent in enumerate(spec.agents):
        if not agent.tool and agent.model not in models:
            place = f"team {spec.name!r}: agents[{i}].model"
            raise unknown_name(place, agent.model, models, "model")
    if max_active < 1:
        raise ConfigError(f"max_active is {max_active}: at least one debate must be under way")
    _check_ids(problems)
    if not isinstance(chat, Mapping):
        chat = dict.fromkeys(spec.models, Voice(chat, tokenizer))
    voices = {name: chat[name] for name in spec.models}
    tools = team_tools(spec)
    check_context(
        spec,
        problems,
        {name: voice.chat for name, voice in voices.items()},
        {name: models[name].max_context for name in spec.models},
        tools,
    )
    identities = {name: (model_ids or {}).get(name, name) for name in spec.models}
    setting = Setting(spec, voices, grader, seed, identities, tools)
    play = _Play(setting, models, store, _sources(known))
    return play.run(problems, progress, max_active)


def team_tools(spec: TeamSpec) -> dict[str, Tool]:
    """The tools of a team, ready for use, by name.

    Raises:
      ConfigError: if there is no such tool or option.
      DataError: if a file that one reads is missing or damaged.
      IsolationError: if agents' programs cannot be isolated here.
    """
    configs = {tool.name: dict(tool.options) for tool in spec.tools}
    return make_tools(configs, f"team {spec.name!r}: tools")


class _Play:
    """The debates of one play that are under way."""

    def __init__(
        self,
        setting: Setting,
        models: Mapping[str, Generator],
        store: CallStore | None,
        known: Sequence[Known],
    ) -> None:
        self.setting = setting
        self.models = models
        self.store = store
        self.known = known
        self.generators = list({id(m): m for m in map(models.get, setting.spec.models)}.values())
        self.waiting: dict[str, tuple[_Active, Plan]] = {}
        self.acting: dict[Future, tuple[_Active, ToolPlan]] = {}
        self.workers = _Workers()

    def run(
        self, problems: Sequence[Problem], progress: Progress | None, max_active: int
    ) -> Iterator[tuple[int, Debate]]:
        """Play all problems, at most `max_active` at once; yields debates as they finish."""
        ahead = iter(enumerate(problems))
        active = 0
        with self._settled():
            while True:
                ended: list[tuple[_Active, Debate]] = []
                while active < max_active and (item := next(ahead, None)) is not None:
                    debate = _Active(item[0], script(self.setting, item[1]))
                    active += 1
                    self._advance(debate, ended)
                    active -= len(ended)
                    yield from self._told(ended, progress)
                if not active:
                    return
                self._work(ended)
                active -= len(ended)
                yield from self._told(ended, progress)

    @contextlib.contextmanager
    def _settled(self) -> Iterator[None]:
        """What a play needs around it."""
        # A play makes many objects and no cycles of them. The collections that this sets off need
        # not go through all that was there before: that took a fifth of the runner's time.
        # A caller may have frozen the heap; some interpreters begin with a few objects frozen.
        freezes = gc.get_freeze_count() < len(gc.get_objects())
        if freezes:
            gc.collect()
            gc.freeze()
        try:
            yield
        finally:
            if freezes:
                gc.unfreeze()
            self.workers.close()
            # Also when interrupted: what was generated is kept, and the next play goes on there.
            if self.store is not None:
                self.store.flush()

    def _told(
        self, ended: list[tuple[_Active, Debate]], progress: Progress | None
    ) -> Iterator[tuple[int, Debate]]:
        while ended:
            debate, result = ended.pop(0)
            if progress is not None:
                progress.advance(1)
            yield debate.index, result

    def _work(self, ended: list[tuple[_Active, Debate]]) -> None:
        """Let generators and tools work for a while, and their debates go on."""
        busy = [generator for generator in self.generators if generator.pending]
        if not busy and not self.acting:
            raise RuntimeError(f"generators lost {len(self.waiting)} submitted calls")
        for generator in busy:
            for generation in generator.step():
                # What is not waited for was left in the generator by an interrupted play.
                if (place := self.waiting.pop(generation.request_id, None)) is not None:
                    debate, plan = place
                    self._take(debate, plan.call(generation), ended)
        done = [future for future in self.acting if future.done()]
        if not done and not busy:
            done = list(wait(self.acting, return_when=FIRST_COMPLETED).done)
        for future in done:
            debate, plan = self.acting.pop(future)
            self._take(debate, plan.call(*future.result()), ended)

    def _take(self, debate: _Active, call: Call, ended: list[tuple[_Active, Debate]]) -> None:
        """Record what a debate has waited for; it goes on if that was the last of it."""
        if self.store is not None:
            self.store.append(call)
        debate.calls[call.call_id] = call
        if len(debate.calls) == len(debate.plans):
            self._advance(debate, ended)

    def _advance(self, debate: _Active, ended: list[tuple[_Active, Debate]]) -> None:
        """Hand over the complete stage and submit the next one, until there is one to wait for."""
        while len(debate.calls) == len(debate.plans):
            calls = [debate.calls[plan.id] for plan in debate.plans]
            try:
                debate.plans = debate.script.send(calls if calls else None)
            except StopIteration as end:
                ended.append((debate, end.value))
                return
            debate.calls = {}
            for plan in debate.plans:
                call = self._look_up(plan)
                if call is not None:
                    debate.calls[plan.id] = call
                elif isinstance(plan, ToolPlan):
                    self.acting[self.workers.submit(plan)] = (debate, plan)
                else:
                    self.waiting[plan.id] = (debate, plan)
                    self.models[plan.agent.model].submit(plan.request)

    def _look_up(self, plan: Plan | ToolPlan) -> Call | None:
        """A call that has been made before, as this team reads it."""
        if self.store is not None and (call := self.store.get(plan.id)) is not None:
            return plan.read(call)
        for source in self.known:
            if (call := source.get(plan.id)) is not None:
                call = dataclasses.replace(plan.read(call), system=self.setting.spec.name)
                if self.store is not None:
                    self.store.append(call)
                return call
        return None


class _Workers:
    """Threads in which tools work; none is started before the first is needed."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, plan: ToolPlan) -> Future:
        """Let a tool do something; the future holds the result and the seconds that it took."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "arkjax-tool")
        return self._pool.submit(_timed, plan)

    def close(self) -> None:
        """Begin nothing more, and wait for what has begun."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _timed(plan: ToolPlan) -> tuple[ToolResult, float]:
    start = time.monotonic()
    return plan.run(), time.monotonic() - start


def _sources(known: Known | Sequence[Known] | None) -> Sequence[Known]:
    if known is None:
        return ()
    return (known,) if hasattr(known, "get") else tuple(known)


def _check_ids(problems: Sequence[Problem]) -> None:
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise DataError(
                f"two problems have the id {problem.id!r}: ids must differ, calls are kept by them"
            )
        seen.add(problem.id)
