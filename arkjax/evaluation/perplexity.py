"""How probable a team's right messages are to a model that answers alone."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from arkjax.sampling.scoring import Scored
from arkjax.teams.debate import Debate
from arkjax.trajectories.schema import Call

ScoreFn = Callable[[Sequence[Sequence[int]]], Sequence[Scored]]
"""Log-probabilities of sequences by the forward pass that training uses: `Engine.score`.

Bare prompts are short and share next to nothing: what they share is not worth a cache of prefixes.
"""

# Traces between two reports of progress.
_TOGETHER = 64


class Trace(NamedTuple):
    """A message of the team as a model alone would say it.

    Attributes:
      problem_id: the problem.
      call_id: the recorded call.
      prompt: ids of the bare prompt.
      target: ids of the call, the end token included where it was met.
    """

    problem_id: str
    call_id: str
    prompt: tuple[int, ...]
    target: tuple[int, ...]


def team_traces(
    debates: Iterable[Debate],
    prompt: Callable[[str], Sequence[int]],
    in_own_tokens: Callable[[list[Call]], list[Call]],
    most: int,
    longest: int,
) -> tuple[list[Trace], int]:
    """Right messages of the last round of each debate, none twice for one problem.

    Chosen by hashes, so that the same record always gives the same; first one of each problem, then
    a second one, and so on.

    Args:
      debates: of the team on held-out problems.
      prompt: the bare prompt of a question.
      in_own_tokens: leaves out calls whose ids are of another tokenizer.
      most: how many.
      longest: tokens that prompt and target may have together.

    Returns:
      The traces, and how many more there were that are too long.
    """
    found: dict[str, dict[tuple[int, ...], Trace]] = defaultdict(dict)
    too_long = 0
    for debate in debates:
        said = [c for c in debate.calls if not c.is_action and c.correct is not None and c.gen_ids]
        last = max((call.round for call in said), default=0)
        right = in_own_tokens([call for call in said if call.round == last and call.correct])
        asked = tuple(prompt(debate.problem.question)) if right else ()
        for call in sorted(right, key=lambda call: call.call_id):
            target = tuple(call.gen_ids)
            if len(asked) + len(target) > longest:
                too_long += 1
                continue
            name = debate.problem.id
            found[name].setdefault(target, Trace(name, call.call_id, asked, target))
    ranked = [
        (rank, hashlib.sha256(name.encode()).hexdigest(), trace)
        for name, traces in found.items()
        for rank, trace in enumerate(traces.values())
    ]
    return [trace for _, _, trace in sorted(ranked)[:most]], too_long


def surprise(
    traces: Sequence[Trace], score: ScoreFn, progress: Callable[[int], None] | None = None
) -> dict[str, tuple[float, int]]:
    """Minus the mean log-probability of a target's tokens, in nats, and their number.

    Args:
      traces: whose targets are read behind their prompts.
      score: of the model.
      progress: told how many traces have been done since it was told last.

    Returns:
      Both by id of the call. Perplexity of several traces is exp of their mean by tokens.
    """
    found = {}
    for start in range(0, len(traces), _TOGETHER):
        some = traces[start : start + _TOGETHER]
        scored = score([(*trace.prompt, *trace.target) for trace in some])
        for trace, sequence in zip(some, scored, strict=True):
            # Entry t is that of token t + 1.
            own = np.asarray(sequence.logprobs[len(trace.prompt) - 1 :], np.float64)
            found[trace.call_id] = -float(own.mean()), len(trace.target)
        if progress:
            progress(len(some))
    return found
