"""The line of talk that led to an answer, in one voice.

Where an answer was found by proposing, checking and revising, the messages on the way to it are
said one after the other, without bylines: a student that learns them proposes, checks itself,
revises and answers in one call.
"""

from collections.abc import Collection, Sequence

from arkjax.synthesis.pieces import Piece, of_call
from arkjax.synthesis.selection import Accepted
from arkjax.trajectories.schema import Call

NO_TALK = "nobody was heard before the answer"
CUT_OFF = "a message was cut off"


def line_of_talk(call: Call, calls: Sequence[Call], preferred: Collection[str] = ()) -> list[Call]:
    """The messages that lead to a call, one at a time, from an opening to the call itself.

    Before each message stands the latest one that its author had read. Of several that were said
    at once that is one of `preferred`, else one of another agent, else the last of the prompt.

    Args:
      call: what the line ends with.
      calls: of the same debate; what is not among them is passed over.
      preferred: ids of the messages that are heard first.
    """
    known = {other.call_id: other for other in calls}
    line, seen = [call], {call.call_id}
    while heard := [known[name] for name in line[0].parents if name in known and name not in seen]:
        reader = line[0]
        last = max(other.round for other in heard)
        chosen = max(
            (other for other in heard if other.round == last),
            key=lambda other, reader=reader: (
                # The part before of a turn in which tools were used is what it goes on from.
                (other.round, other.agent) == (reader.round, reader.agent),
                other.call_id in preferred,
                other.agent != reader.agent,
                reader.parents.index(other.call_id),
            ),
        )
        line.insert(0, chosen)
        seen.add(chosen.call_id)
    return line


def deliberation_pieces(
    call: Call,
    calls: Sequence[Call],
    accepted: Accepted,
    connecting: Sequence[int],
    end_ids: Collection[int],
    *,
    learn_attempts: bool = True,
    preferred: Collection[str] = (),
) -> list[Piece] | str:
    """The pieces of a deliberation.

    Args:
      call: the accepted answer that it ends with, finished.
      calls: all of the same debate.
      accepted: says whether a call's answer counts as right.
      connecting: tokens between one message and the next.
      end_ids: tokens that end a message; only the last message keeps its own.
      learn_attempts: False gives the messages that state an answer which is not accepted weight 0:
        they are shown, so that what follows makes sense, and not learned.
      preferred: see `line_of_talk`.

    Returns:
      The pieces, or why there are none.
    """
    line = line_of_talk(call, calls, preferred)
    if len(line) == 1:
        return NO_TALK
    pieces = []
    for message in line[:-1]:
        if message.finish_reason != "stop":
            return CUT_OFF
        end = len(message.gen_ids)
        while end and message.gen_ids[end - 1] in end_ids:
            end -= 1
        attempt = "answer" in message.parsed and not accepted(message)
        weight = 1.0 if learn_attempts or not attempt else 0.0
        pieces += [of_call(message, 0, end, weight), Piece(tuple(connecting))]
    return [*pieces, of_call(line[-1])]
