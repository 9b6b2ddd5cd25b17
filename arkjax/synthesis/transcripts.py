"""Recorded prompts without some of the messages in them, from what a record holds alone.

A prompt is an opening, messages, and the speaker's own header. A message is a header, the call's
ids, and what closes it; of these only the ids have a span of their own in the record, since
neighbouring parts of the template are one. The rest follows:

- The opening is what stands before the header of a call that was shown nothing. Where the role
  comes first, the opening goes on with the speaker's header and an end token.
- What closes the last message stands between its ids and `prefix_len`. It closes the others as
  well; one that was cut off by its limit has the end token before it.
- What is left between two messages is the header of the second.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from arkjax.trajectories.schema import TEMPLATE, Call

Ids = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Transcript:
    """A prompt taken apart.

    Attributes:
      opening: what stands before the first message.
      messages: by call id, in the prompt's order, each with its header and all that closes it.
      own: the speaker's header, and whatever follows it.
    """

    opening: Ids
    messages: Mapping[str, Ids]
    own: Ids

    def without(self, removed: Collection[str]) -> Ids:
        """The prompt as it would be had these messages not been shown."""
        kept = [ids for name, ids in self.messages.items() if name not in removed]
        return sum([*kept, self.own], self.opening)


def transcript(call: Call, calls: Iterable[Call], end_id: int | None) -> Transcript | None:
    """Take a call's prompt apart.

    Args:
      call: the call.
      calls: all calls of its debate.
      end_id: the token that ends a message; None where messages are shown without it.

    Returns:
      None where it cannot be told: a message is shown as its answer only or is empty, there is no
      call that was shown nothing, or headers depend on what stands around them.
    """
    spans = [(name, a, b) for name, a, b in call.prompt_segments if name != TEMPLATE]
    if not {*call.parents} <= {name for name, _, _ in spans}:
        return None
    spans = [(name, a, b) for name, a, b in spans if b <= call.prefix_len]
    own = call.prompt_ids[call.prefix_len :]
    opening = _opening(call, calls, end_id, spans[0][1] if spans else call.prefix_len)
    if opening is None or (not spans and len(opening) != call.prefix_len):
        return None
    if not spans:
        return Transcript(opening, {}, own)
    # What the template has of its own after each message, up to the next one's ids.
    ends = [b for _, _, b in spans]
    starts = [*(a for _, a, _ in spans[1:]), call.prefix_len]
    after = [call.prompt_ids[b:a] for b, a in zip(ends, starts, strict=True)]
    end = () if end_id is None else (end_id,)
    cut = [() if call.prompt_ids[b - 1 : b] == end else end for b in ends]
    closing = after[-1][len(cut[-1]) :]
    closings = [mark + closing for mark in cut]
    if any(run[: len(c)] != c for run, c in zip(after, closings, strict=True)):
        return None
    headers = [call.prompt_ids[len(opening) : spans[0][1]]]
    headers += [run[len(c) :] for run, c in zip(after, closings, strict=True)][:-1]
    messages = {
        name: header + call.prompt_ids[a:b] + c
        for (name, a, b), header, c in zip(spans, headers, closings, strict=True)
    }
    return Transcript(opening, messages, own)


def _opening(call: Call, calls: Iterable[Call], end_id: int | None, most: int) -> Ids | None:
    """What the prompt begins with before any message, within its first `most` tokens."""
    for other in calls:
        if other.parents or any(name != TEMPLATE for name, _, _ in other.prompt_segments):
            continue
        question, role = other.prompt_ids[: other.prefix_len], other.prompt_ids[other.prefix_len :]
        if end_id is not None:
            question = _without_end(question, (*role, end_id))
        if call.prompt_ids[: len(question)] != question:
            continue
        if end_id is None:
            return question if len(question) <= most else None
        role_first = (*question, *call.prompt_ids[call.prefix_len :], end_id)
        opening = role_first if call.prompt_ids[: len(role_first)] == role_first else question
        return opening if len(opening) <= most else None
    return None


def _without_end(ids: Ids, end: Ids) -> Ids:
    return ids[: -len(end)] if ids[-len(end) :] == end else ids
