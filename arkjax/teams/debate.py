"""What a team made of a problem, and what it took."""

import dataclasses
import math
from collections.abc import Sequence

from arkjax.tasks.problems import Problem
from arkjax.trajectories.schema import Call


@dataclasses.dataclass(frozen=True)
class Cost:
    """What was spent, counted from the recorded calls.

    Attributes:
      calls: generations, repeated attempts included.
      prompt_tokens: prompt tokens of all calls, shared ones counted for each.
      prefill_tokens: prompt tokens that had to be computed, shared ones counted once.
      generated_tokens: generated tokens, end tokens included.
      seconds: sum of the calls' shares of the generator's wall time.
      actions: what tools did; not among the calls, and their words not among the tokens.
    """

    calls: int = 0
    prompt_tokens: int = 0
    prefill_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    actions: int = 0

    @classmethod
    def of(cls, calls: Sequence[Call]) -> "Cost":
        """The cost of calls."""
        made = [call for call in calls if not call.is_action]
        prompt_tokens = sum(len(call.prompt_ids) for call in made)
        return cls(
            calls=len(made),
            prompt_tokens=prompt_tokens,
            prefill_tokens=prompt_tokens - sum(call.cached_len for call in made),
            generated_tokens=sum(len(call.gen_ids) for call in made),
            seconds=sum(call.seconds for call in made),
            actions=len(calls) - len(made),
        )


@dataclasses.dataclass(frozen=True)
class Debate:
    """A team's finished work on one problem.

    Attributes:
      problem: the problem.
      system: name of the team.
      calls: every call and every action of a tool, in the order of the schedule, the team and the
        samples.
      answer: the team's answer, or None if it has none.
      correct: whether the answer equals the gold one.
      rounds: how many stages were played.
      tied: whether the tie rule chose the answer.
      parse_failures: turns of which the stage's parser could not read every field.
      stopped: what ended the last repeat early: "rounds", "tokens", "agree", "unchanged", "oracle",
        "budget", or the field of a condition; several joined by "+" where all had to hold; empty if
        the schedule ran to its end.
      cost: what it took.
      opening: the answer that it would have given without talking; see `arkjax.teams.opening`.
      opening_correct: whether that is right.
      in_pool: whether some message states a right answer, or the team's own is right.
      confidence: in its answer, see `arkjax.teams.confidence`; NaN where it is not known.
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
    opening: str | None = None
    opening_correct: bool = False
    in_pool: bool = False
    confidence: float = math.nan
