"""Plays a team on many problems at once.

Every debate is a script that asks for calls. The runner submits whatever any of them can ask for,
lets the generators work, and hands each debate its calls the moment its stage is complete: no
debate waits for another. Calls that are recorded already are not made again.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from arkjax.errors import ConfigError, DataError
from arkjax.sampling.params import Generator
from arkjax.tasks.problems import Grader, Problem
from arkjax.teams.fields import unknown_name
from arkjax.teams.prompts import Chat, Tokenizer, check_context
from arkjax.teams.script import Debate, Plan, Script, Setting, script
from arkjax.teams.spec import TeamSpec
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
    plans: list[Plan] = dataclasses.field(default_factory=list)
    calls: dict[str, Call] = dataclasses.field(default_factory=dict)


def play(
    spec: TeamSpec,
    problems: Sequence[Problem],
    models: Mapping[str, Generator],
    chat: Chat,
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
    chat: Chat,
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
      chat: the chat template.
      tokenizer: decodes what is generated.
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
        if agent.model not in models:
            place = f"team {spec.name!r}: agents[{i}].model"
            raise unknown_name(place, agent.model, models, "model")
    if max_active < 1:
        raise ConfigError(f"max_active is {max_active}: at least one debate must be under way")
    _check_ids(problems)
    check_context(spec, problems, chat, {name: models[name].max_context for name in spec.models})
    identities = {name: (model_ids or {}).get(name, name) for name in spec.models}
    setting = Setting(spec, chat, tokenizer, grader, seed, identities)
    return _run(setting, problems, models, store, progress, _sources(known), max_active)


def _run(
    setting: Setting,
    problems: Sequence[Problem],
    models: Mapping[str, Generator],
    store: CallStore | None,
    progress: Progress | None,
    known: Sequence[Known],
    max_active: int,
) -> Iterator[tuple[int, Debate]]:
    generators = {id(models[name]): models[name] for name in setting.spec.models}.values()
    waiting: dict[str, tuple[_Active, Plan]] = {}
    ahead = iter(enumerate(problems))
    active = 0

    def look_up(plan: Plan) -> Call | None:
        if store is not None and (call := store.get(plan.request.id)) is not None:
            return plan.read(call)
        for source in known:
            if (call := source.get(plan.request.id)) is not None:
                call = dataclasses.replace(plan.read(call), system=setting.spec.name)
                if store is not None:
                    store.append(call)
                return call
        return None

    def advance(debate: _Active) -> Debate | None:
        """Hand over the complete stage, submit the next one; the debate if it is finished."""
        while True:
            calls = [debate.calls[plan.request.id] for plan in debate.plans]
            try:
                debate.plans = debate.script.send(calls if calls else None)
            except StopIteration as end:
                return end.value
            debate.calls = {}
            for plan in debate.plans:
                call = look_up(plan)
                if call is not None:
                    debate.calls[plan.request.id] = call
                else:
                    waiting[plan.request.id] = (debate, plan)
                    models[plan.agent.model].submit(plan.request)
            if len(debate.calls) < len(debate.plans):
                return None

    try:
        while True:
            while active < max_active and (item := next(ahead, None)) is not None:
                index, problem = item
                debate = _Active(index, script(setting, problem))
                result = advance(debate)
                active += result is None
                if result is not None:
                    if progress is not None:
                        progress.advance(1)
                    yield index, result
            if not active:
                return
            busy = [generator for generator in generators if generator.pending]
            if not busy:
                raise RuntimeError(f"generators lost {len(waiting)} submitted calls")
            for generator in busy:
                for generation in generator.step():
                    place = waiting.pop(generation.request_id, None)
                    if place is None:
                        # Left in the generator by a play that was interrupted.
                        continue
                    debate, plan = place
                    call = plan.call(generation)
                    if store is not None:
                        store.append(call)
                    debate.calls[call.call_id] = call
                    if len(debate.calls) < len(debate.plans):
                        continue
                    result = advance(debate)
                    if result is not None:
                        active -= 1
                        if progress is not None:
                            progress.advance(1)
                        yield debate.index, result
    finally:
        # Also when interrupted: what was generated is kept, and the next play goes on from there.
        if store is not None:
            store.flush()


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
