"""Debates as the page holds them: plain data, the words apart from the figures.

The words are what a search goes through, so they are kept where they can be read without the rest.
Log-probabilities are whole thousandths of a nat, and a message's tokens are lengths in its text, in
the units of JavaScript's strings (UTF-16).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.reporting.viewer.pieces import Pieces
from arkjax.reporting.viewer.sources import Source
from arkjax.synthesis.flips import Flips, flips
from arkjax.teams.debate import Cost
from arkjax.trajectories.schema import Call

HEAD = 140
"""Characters of a question that the list shows."""

SCALE = 1000
"""Steps of a recorded log-probability in one nat."""

_CREDIT = ("corrected", "misled", "first", "own", "influence", "readers")
_AGENT_CREDIT = (*_CREDIT[:5], "shapley", "shapley_error")


@dataclasses.dataclass(frozen=True)
class Record:
    """One debate.

    Attributes:
      row: its line in the list: `id, question, domain, part, gold, answer, right, known, calls,
        rounds, tokens, corrected, misled, failures`.
      words: its question, and the text of every message.
      figures: all else.
    """

    row: dict[str, Any]
    words: tuple[str, list[str]]
    figures: dict[str, Any]


def in_order(calls: Sequence[Call], agents: Sequence[str] = ()) -> list[Call]:
    """A debate's calls as they were said: by round, who heard whom, agent, sample and step.

    Args:
      calls: of one debate, in any order.
      agents: ids in the team's order; others follow by name.
    """
    place = {name: number for number, name in enumerate(agents)}
    turns: dict[tuple, set[tuple]] = {}
    turn_of = {call.call_id: (call.round, call.agent, call.sample) for call in calls}
    for call in calls:
        heard = {turn_of[parent] for parent in call.parents if parent in turn_of}
        turns.setdefault(turn_of[call.call_id], set()).update(heard)
    depths: dict[tuple, int] = {}

    def depth(turn: tuple) -> int:
        """How many turns of its own round stand before it; 0 where all spoke at once."""
        # Whoever hears others of the round was heard by none of them: there are no circles, and a
        # chain has a turn for each speaker at most, so a loop without recursion ends soon.
        pending = [turn]
        while pending:
            top = pending[-1]
            same = [t for t in turns[top] if t[0] == top[0] and t != top]
            waiting = [t for t in same if t not in depths and t not in pending]
            if waiting:
                pending += waiting
                continue
            depths[top] = max((depths.get(t, -1) + 1 for t in same), default=0)
            pending.pop()
        return depths[turn]

    for turn in turns:
        if turn not in depths:
            depth(turn)

    def key(call: Call) -> tuple:
        at = place.get(call.agent, len(place))
        before = depths[turn_of[call.call_id]]
        return (call.round, before, at, call.agent, call.sample, call.step, call.call_id)

    return sorted(calls, key=key)


class Recorder:
    """Makes records of the debates of one play.

    Args:
      source: the play.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pieces = Pieces(source.tokenizer) if source.tokenizer else None

    def record(
        self,
        problem_id: str,
        calls: Sequence[Call],
        messages: Mapping[str, Mapping[str, Any]] | None = None,
        agents: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Record:
        """One debate.

        Args:
          problem_id: what it was about.
          calls: all of it.
          messages: recorded credit by call id, where there is any.
          agents: recorded credit by agent id, where there is any.
        """
        source = self._source
        calls = in_order(calls, source.agents)
        problem = source.problems.get(problem_id)
        answer, right = source.answers.get(problem_id, (None, None))
        if answer is not None and right is None:
            right = _verdict(calls, answer, source)
        moved = flips(calls, answer, source.equal)
        question = problem.question if problem else self._asked(calls)
        kinds = [turn.kind for turn in moved.turns]
        cost = Cost.of(calls)
        row = {
            "id": problem_id,
            "question": " ".join(question[: 4 * HEAD].split())[:HEAD],
            "domain": problem.domain if problem else "",
            "part": str(problem.meta.get("part", "")) if problem else "",
            "gold": problem.answer if problem else None,
            "answer": answer,
            "right": right,
            "known": problem_id in source.answers,
            "calls": cost.calls,
            "rounds": len({call.round for call in calls}),
            "tokens": cost.generated_tokens,
            "corrected": kinds.count("corrected"),
            "misled": kinds.count("misled"),
            "failures": sum(not call.parse_ok for call in calls),
        }
        places = {call.call_id: at for at, call in enumerate(calls)}
        figures = {
            "calls": [
                self._call(call, places, (messages or {}).get(call.call_id), moved)
                for call in calls
            ],
            "turns": [
                {
                    "at": places[turn.call_id],
                    "before": places[turn.before] if turn.before else None,
                    "kind": turn.kind,
                    "sources": [places[source_id] for source_id in turn.sources],
                }
                for turn in moved.turns
            ],
            "agents": _agents(calls, agents, moved),
            "cost": vars(cost),
        }
        return Record(row, (question, [call.text for call in calls]), figures)

    def _asked(self, calls: Sequence[Call]) -> str:
        """The question as the first prompt asks it: the words around it are the template's."""
        if self._source.tokenizer is None or not calls:
            return ""
        return self._source.tokenizer.decode(calls[0].prompt_ids)

    def _call(
        self,
        call: Call,
        places: Mapping[str, int],
        credit: Mapping[str, Any] | None,
        moved: Flips,
    ) -> dict[str, Any]:
        made = {
            "id": call.call_id,
            "stage": call.stage,
            "round": call.round,
            "agent": call.agent,
            "sample": call.sample,
            "step": call.step,
            "action": call.is_action,
            "parents": [places.get(parent, parent) for parent in call.parents],
            "prompt": len(call.prompt_ids),
            "prefix": call.prefix_len,
            "cached": call.cached_len,
            "generated": len(call.gen_ids),
            "logprobs": [_steps(value) for value in call.logprobs],
            "parsed": dict(call.parsed),
            "parse_ok": call.parse_ok,
            "finish": call.finish_reason,
            "sampling": dict(call.sampling),
            "seed": call.seed,
            "model": call.model,
            "correct": call.correct,
            "seconds": float(f"{call.seconds:.4g}"),
            "credit": _message_credit(call, credit, moved),
        }
        found = self._pieces.of(call) if self._pieces else None
        if found is not None:
            inside, after = found
            made["lengths"] = [_units(piece) for piece in inside]
            made["after"] = after
        else:
            made["ids"] = list(call.gen_ids)
        if call.top_ids:
            made["top"] = self._top(call)
        return made

    def _top(self, call: Call) -> list[list[list[Any]]]:
        """For each token the most probable ones: their text and log-probability."""
        k = len(call.top_ids) // max(1, len(call.gen_ids))
        name = self._pieces.name if self._pieces else lambda index: f"#{index}"
        pairs = [
            [name(index), _steps(value)]
            for index, value in zip(call.top_ids, call.top_logprobs, strict=False)
        ]
        return [pairs[at : at + k] for at in range(0, len(pairs), k)] if k else []


def _verdict(calls: Sequence[Call], answer: str, source: Source) -> bool | None:
    """Whether the team's answer is right, by the grade of a message that states it."""
    for call in calls:
        said = call.parsed.get("answer")
        if call.correct is not None and said is not None and source.equal(said, answer):
            return call.correct
    return None


def _message_credit(call: Call, recorded: Mapping[str, Any] | None, moved: Flips) -> dict[str, Any]:
    if recorded is not None:
        return _short({name: recorded[name] for name in _CREDIT})
    return _short(vars(moved.messages[call.call_id]))


def _agents(
    calls: Sequence[Call], recorded: Mapping[str, Mapping[str, Any]] | None, moved: Flips
) -> dict[str, dict[str, Any]]:
    """Credit by agent id, in the order in which the agents spoke."""
    found = {}
    for name in dict.fromkeys(call.agent for call in calls):
        if recorded is not None and name in recorded:
            found[name] = _short({key: recorded[name][key] for key in _AGENT_CREDIT})
        else:
            found[name] = _short(vars(moved.agents[name]))
    return found


def _short(credit: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is nothing, and with four digits."""
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in credit.items()
        if value not in (None, False, 0) or name == "shapley" and value is not None
    }


def _steps(value: float) -> int | None:
    return round(value * SCALE) if math.isfinite(value) else None


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
