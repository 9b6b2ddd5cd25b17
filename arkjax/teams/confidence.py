"""How sure a team is of its answer, as a number that can be held against how often it is right.

Of several voters, and of one voter with several samples, it is the share of their last messages
that state the team's answer; silence dissents. That is the estimate of self-consistency (Wang et
al. 2022, arXiv 2203.11171, section 3.1). A single message has no such share. Its confidence is the
probability that the model gave to the words of the answer, given what it wrote before them: a
probability of the answer itself (Kadavath et al. 2022, arXiv 2207.05221), and so comparable with
accuracy. The probability of the whole text is not, since many texts end in one answer, nor is the
mean over its tokens, which is no probability of any event.
"""

import bisect
import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from arkjax.teams.reducers import Equal, last_round
from arkjax.teams.rules import Reducer
from arkjax.trajectories.schema import Call

Decode = Callable[[Sequence[int]], str]

# What graders leave out of an answer as it is written, or put there: "$1,000" is read as "1000".
_FILLERS = r"[\s,$\\{}]*"
_LONGEST = 500  # characters of an answer that is looked for as one expression


def confidence(
    reducer: Reducer,
    voters: Sequence[str],
    said: Sequence[Call],
    answer: str | None,
    equal: Equal,
    decode: Callable[[Call], Decode],
) -> float:
    """How sure a team is of its answer, in [0, 1].

    Args:
      reducer: the team's rule.
      voters: ids of the agents whose answers count; a judge is not among them.
      said: the messages that count, in the order spoken.
      answer: the team's; without one it is sure of nothing, 0.
      equal: the task's equality of answers.
      decode: gives what turns a message's token ids into text.

    Returns:
      NaN if it is not known: a single message whose log-probabilities are not recorded, or in
      whose words the answer cannot be found.
    """
    if answer is None:
        return 0.0
    ballots = last_round(voters, said, reducer.latest)
    if len(ballots) == 1:
        only = ballots[0]
        if not _states(only, reducer.field, answer, equal):
            return 0.0
        return answer_probability(only, only.parsed[reducer.field], decode(only))
    if not ballots:
        return math.nan
    agreeing = sum(_states(call, reducer.field, answer, equal) for call in ballots)
    return agreeing / len(ballots)


def answer_probability(call: Call, answer: str, decode: Decode) -> float:
    """The probability of the tokens that state a message's answer, given those before them.

    The product over the tokens of the answer's last mention in the text, in the unmodified
    distribution. NaN where there are no log-probabilities, or the answer is not mentioned as it
    stands, but for spaces, commas, dollar signs and braces.
    """
    if len(call.logprobs) != len(call.gen_ids):
        return math.nan
    span = _last_mention(call.text, answer)
    if span is None:
        return math.nan
    ids, places = call.gen_ids, range(len(call.gen_ids) + 1)

    def reached(count: int) -> int:
        return len(decode(ids[:count]))

    # The fewest tokens whose text reaches into the mention, and to its end.
    first = bisect.bisect_left(places, span[0] + 1, key=reached)
    last = bisect.bisect_left(places, span[1], key=reached)
    # Records hold 32 bits of each: a play that goes on from them must come to the same.
    logprobs = np.asarray(call.logprobs[max(first - 1, 0) : last], np.float32)
    if not logprobs.size or not np.isfinite(logprobs).all():
        return math.nan
    return float(min(1.0, math.exp(float(logprobs.sum(dtype=np.float64)))))


def _states(call: Call, field: str, answer: str, equal: Equal) -> bool:
    stated = call.parsed.get(field)
    return stated is not None and (stated == answer or bool(equal(stated, answer)))


def _last_mention(text: str, answer: str) -> tuple[int, int] | None:
    """Where a text mentions an answer last, as a word of its own where that is possible."""
    if len(answer) > _LONGEST:
        start = text.rfind(answer)
        return (start, start + len(answer)) if start >= 0 else None
    letters = re.sub(_FILLERS, "", answer)
    if not letters:
        return None
    words = _FILLERS.join(map(re.escape, letters))
    alone = rf"(?<![^\W_]){words}(?![^\W_])"
    for pattern, flags in ((alone, 0), (alone, re.IGNORECASE), (words, re.IGNORECASE)):
        found = list(re.finditer(pattern, text, flags))
        if found:
            return found[-1].span()
    return None
