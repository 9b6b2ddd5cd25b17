"""Debates as OpenTelemetry traces: OTLP in JSON, one trace a line.

Attributes follow the semantic conventions of generative AI as of 1.41
(https://opentelemetry.io/docs/specs/semconv/gen-ai/), which are still in development; lines the
OTLP file format (https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/), in which ids
are hexadecimal, 64-bit integers are strings and enumerations are numbers.

A trace is one team's debate of one problem: `invoke_workflow TEAM`, below it a span for each stage,
below that `chat MODEL` for a call and `execute_tool TOOL` for an action; links lead to the calls
that the prompt shows. The record has durations and no times of day, so the times are made up: a
stage begins when the one before has ended, a call when the stage began and all that it shows has
ended, and traces follow one another from a given instant. Spans say so in `arkjax.time`.
"""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from arkjax import __version__
from arkjax.errors import ConfigError
from arkjax.trajectories.exports.folder import Selection, json_line
from arkjax.trajectories.schema import ACTION, Call, canonical_json
from arkjax.trajectories.store import CallStore
from arkjax.trajectories.transcript import Decoder, messages

_SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
_INTERNAL, _CLIENT = 1, 3  # Span.SpanKind
_START = 946_684_800_000_000_000  # 2000-01-01T00:00:00Z, in nanoseconds.


def write_otel(
    store: CallStore,
    selection: Selection,
    folder: Path,
    tokenizer: Decoder | None,
    advance: Callable[[int], None],
) -> int:
    """Write `traces.jsonl`; the words of prompts and answers only if `selection.content`.

    The words of prompts need a tokenizer, and are left out without one.

    Raises:
      ConfigError: if only right calls are asked for: a trace is a whole debate.
    """
    if selection.only_correct:
        raise ConfigError("--only-correct: a trace is a whole debate; choose by --system alone")
    words = tokenizer if selection.content else None
    now, written = _START, 0
    with (folder / "traces.jsonl").open("w", encoding="utf-8") as file:
        for _, calls in store.by_problem():
            teams: dict[str, list[Call]] = defaultdict(list)
            for call in calls:
                teams[call.system].append(call)
            for system, own in sorted(teams.items()):
                if selection.system not in (None, system):
                    continue
                trace = Trace(own, now, words, selection.content)
                file.write(json_line(trace.resource_spans()))
                now = trace.end
                written += len(own)
            advance(len(calls))
    return written


def trace_id(calls: Sequence[Call]) -> str:
    """32 hex digits: of the team, the problem and the ids of its calls."""
    ids = sorted(call.call_id for call in calls)
    return _digest("trace", calls[0].system, calls[0].problem_id, *ids)[:32]


def span_id(trace: str, *names: object) -> str:
    """16 hex digits: of the trace, and the call's id or what else the span stands for."""
    return _digest("span", trace, *names)[:16]


def _digest(*parts: object) -> str:
    return hashlib.sha256(canonical_json(list(parts)).encode("utf-8", "replace")).hexdigest()


@dataclasses.dataclass
class Trace:
    """One debate as spans.

    Attributes:
      calls: of one team and problem, in canonical order; at least one.
      start: when it begins, in nanoseconds since 1970.
      tokenizer: decodes prompts, if their words are wanted.
      content: whether answers are told.
    """

    calls: Sequence[Call]
    start: int
    tokenizer: Decoder | None
    content: bool

    def __post_init__(self) -> None:
        self.id = trace_id(self.calls)
        self.root = span_id(self.id, "team")
        stages: dict[tuple[int, str], list[Call]] = defaultdict(list)
        for call in self.calls:
            stages[call.round, call.stage].append(call)
        # Steps of one turn in their order, whatever round or stage has which name.
        self._ends: dict[str, int] = {}
        self._spans: list[dict[str, Any]] = []
        now = self.start
        for (number, stage), calls in sorted(stages.items()):
            now = self._stage(number, stage, calls, now)
        self.end = now

    def resource_spans(self) -> dict[str, Any]:
        """The trace as one `TracesData` in OTLP's JSON."""
        first = self.calls[0]
        root = self._span(
            self.root,
            None,
            f"invoke_workflow {first.system}",
            _INTERNAL,
            (self.start, self.end),
            {
                "gen_ai.operation.name": "invoke_workflow",
                "gen_ai.workflow.name": first.system,
                "arkjax.problem.id": first.problem_id,
            },
        )
        return {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes({"service.name": "arkjax"})},
                    "scopeSpans": [
                        {
                            "scope": {"name": "arkjax.trajectories", "version": __version__},
                            "spans": [root, *self._spans],
                            "schemaUrl": _SCHEMA_URL,
                        }
                    ],
                    "schemaUrl": _SCHEMA_URL,
                }
            ]
        }

    def _stage(self, number: int, stage: str, calls: Sequence[Call], start: int) -> int:
        """Add a stage and its calls; returns when it ends."""
        own = span_id(self.id, "stage", number, stage)
        turns: dict[tuple[str, int], int] = {}
        spans, left = [], sorted(calls, key=lambda call: call.step)
        here = {call.call_id for call in calls}
        while left:
            # In a sequential stage some hear others of it, who must have ended before.
            ready = [c for c in left if not any(p in here - self._ends.keys() for p in c.parents)]
            for call in ready or left[:1]:
                turn = (call.agent, call.sample)
                begin = max(
                    [
                        start,
                        turns.get(turn, start),
                        *(self._ends.get(p, start) for p in call.parents),
                    ]
                )
                end = begin + max(0, round(call.seconds * 1e9))
                turns[turn] = self._ends[call.call_id] = end
                spans.append(self._call(call, own, (begin, end)))
                left.remove(call)
        end = max(self._ends[call.call_id] for call in calls)
        attributes = {"arkjax.stage": stage, "arkjax.round": number}
        self._spans.append(
            self._span(own, self.root, f"stage {stage}", _INTERNAL, (start, end), attributes)
        )
        self._spans += spans
        return end

    def _call(self, call: Call, parent: str, times: tuple[int, int]) -> dict[str, Any]:
        facts = {
            "gen_ai.agent.name": call.agent,
            "arkjax.call.id": call.call_id,
            "arkjax.sample": call.sample,
            "arkjax.step": call.step,
        }
        if call.correct is not None:
            facts["arkjax.correct"] = call.correct
        if call.is_action:
            tool = call.model.removeprefix(ACTION)
            name, kind = f"execute_tool {tool}", _INTERNAL
            facts |= {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": tool,
                "gen_ai.tool.type": "function",
                "gen_ai.tool.call.id": call.call_id,
            }
            if self.content:
                facts["gen_ai.tool.call.result"] = call.text
        else:
            name, kind = f"chat {call.model}", _CLIENT
            facts |= self._inference(call)
        links = [
            {"traceId": self.id, "spanId": span_id(self.id, "call", source)}
            for source in call.parents
            if source in self._ends
        ]
        own = span_id(self.id, "call", call.call_id)
        span = self._span(own, parent, name, kind, times, facts)
        return {**span, "links": links} if links else span

    def _inference(self, call: Call) -> dict[str, Any]:
        sampling = call.sampling
        facts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "arkjax",
            "gen_ai.conversation.id": f"{call.system}/{call.problem_id}",
            "gen_ai.request.model": call.model,
            "gen_ai.request.seed": call.seed,
            "gen_ai.response.id": call.call_id,
            "gen_ai.response.model": call.model,
            "gen_ai.response.finish_reasons": [call.finish_reason],
            "gen_ai.usage.input_tokens": len(call.prompt_ids),
            "gen_ai.usage.output_tokens": len(call.gen_ids),
            "gen_ai.usage.cache_read.input_tokens": call.cached_len,
        }
        for name, kind in {"max_tokens": int, "temperature": float, "top_p": float}.items():
            if name in sampling:
                facts[f"gen_ai.request.{name}"] = kind(sampling[name])
        if sampling.get("top_k"):  # 0 keeps all tokens.
            facts["gen_ai.request.top_k"] = float(sampling["top_k"])
        if sampling.get("stop"):
            facts["gen_ai.request.stop_sequences"] = [str(text) for text in sampling["stop"]]
        if self.content:
            facts |= self._words(call)
        return facts

    def _words(self, call: Call) -> dict[str, Any]:
        """Opt-in attributes; as JSON texts, which all readers of spans can hold."""
        answer = [
            {
                "role": "assistant",
                "parts": [{"type": "text", "content": call.text}],
                "finish_reason": call.finish_reason,
            }
        ]
        facts = {"gen_ai.output.messages": canonical_json(answer)}
        if self.tokenizer is not None:
            said = [
                {
                    "role": "system" if message.kind == "header" else "user",
                    "parts": [{"type": "text", "content": message.text}],
                }
                for message in messages(call, self.tokenizer)
            ]
            facts["gen_ai.input.messages"] = canonical_json(said)
        return facts

    def _span(
        self,
        own: str,
        parent: str | None,
        name: str,
        kind: int,
        times: tuple[int, int],
        attributes: dict[str, Any],
    ) -> dict[str, Any]:
        facts = {**attributes, "arkjax.time": "synthesised from recorded durations"}
        return {
            "traceId": self.id,
            "spanId": own,
            **({"parentSpanId": parent} if parent else {}),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": str(times[0]),
            "endTimeUnixNano": str(times[1]),
            "attributes": _attributes(facts),
            "status": {},
        }


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": value}
