"""Students by name: from whose calls they learn, through which gate, with which loss."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from arkjax.errors import ConfigError
from arkjax.synthesis.examples import Example
from arkjax.synthesis.selection import Gate, SelectionConfig, Trace
from arkjax.teams.prompts import Chat

Source = Literal["team", "single_agent", "roles"]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How one student is made.

    Attributes:
      dataset: name of the examples; students that share it learn from the same ones.
      source: whose calls are read: the team's debates; samples of the single agent; samples of the
        team's roles without communication. All three have the same sampling budget.
      gate: see `SelectionConfig.gate`.
      one_trace: RSFT's single trace a problem (AgentArk eq. 1) instead of DA's several diverse ones
        (eq. 2).
      logits: whether the loss holds the student to the team's distribution as well.
    """

    dataset: str
    source: Source
    gate: Gate = "gold"
    one_trace: bool = False
    logits: bool = False

    def selection(self, config: SelectionConfig) -> SelectionConfig:
        """The filters of this student, given those of the run."""
        return dataclasses.replace(
            config, gate=self.gate, max_traces=1 if self.one_trace else config.max_traces
        )


STRATEGIES = {
    "student_rsft": Strategy("rsft", "team", one_trace=True),
    "student_rsft_unverified": Strategy("rsft_unverified", "team", gate="team", one_trace=True),
    "student_da": Strategy("da", "team"),
    "student_da_unverified": Strategy("da_unverified", "team", gate="team"),
    "student_logit": Strategy("da", "team", logits=True),
    "control_single_agent": Strategy("control_single_agent", "single_agent"),
    "control_no_debate": Strategy("control_no_debate", "roles"),
}


def strategy(name: str) -> Strategy:
    """The strategy of a student. Raises ConfigError if there is none of that name."""
    if name not in STRATEGIES:
        import difflib

        near = difflib.get_close_matches(name, STRATEGIES, 1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown student {name!r}{hint}. There are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def to_examples(
    traces: list[Trace],
    questions: dict[str, str],
    chat: Chat,
    role: str,
    weights: Sequence[float] | None = None,
) -> list[Example]:
    """Retag traces to the bare prompt: the student answers alone what a team member said.

    The tokens are those that were generated; nothing is tokenised again.

    Args:
      traces: the chosen calls.
      questions: the question's text by problem id.
      chat: the chat template.
      role: byline under which the student will be asked.
      weights: of the traces; None gives each 1.
    """
    examples = []
    for trace, weight in zip(traces, weights or [1.0] * len(traces), strict=True):
        call = trace.call
        prompt = [*chat.question(questions[call.problem_id]), *chat.turn(role)]
        provenance = {
            "problem_id": call.problem_id,
            "call_ids": [call.call_id],
            "kind": trace.kind,
            "agent": call.agent,
            "round": call.round,
        }
        examples.append(Example(tuple(prompt), call.gen_ids, weight, provenance))
    return examples
