"""Words of a model with another tokenizer, as a student reads and learns them.

Ids are otherwise copied from the record and never made of text again, since that may give others
than were generated. Of a model with other tokens there is no such copy: its words are all that a
student can learn, as in sequence-level distillation between families of models (arXiv 1606.07947).
"""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Literal

from arkjax.errors import DataError
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import Call

Foreign = Literal["leave_out", "reencode"]


def in_own_tokens(
    calls: Iterable[Call], models: Collection[str], how: Foreign, tokenizer: Tokenizer, end_id: int
) -> list[Call]:
    """The calls in the student's tokens.

    Args:
      calls: of any models.
      models: identities of those with another tokenizer.
      how: what becomes of their calls.
      tokenizer, end_id: see `reencoded`.
    """
    found = []
    for call in calls:
        own: Call | None = call
        if call.model in models:
            own = reencoded(call, tokenizer, end_id) if how == "reencode" else None
        found += [own] if own is not None else []
    return found


def reencoded(call: Call, tokenizer: Tokenizer, end_id: int) -> Call | None:
    """A recorded call in other tokens.

    The call keeps its id, its author and all that was found in its text. Its prompt, its
    log-probabilities and its most probable tokens are of the tokens that it was generated in, and
    are left out.

    Args:
      call: of a model with another tokenizer.
      tokenizer: the student's.
      end_id: what ends an answer there; put behind an answer that had come to its end.

    Returns:
      None if the student's tokens cannot say the call's words.
    """
    try:
        words = tokenizer.encode(call.text)
    except DataError:
        return None
    if tokenizer.decode(words) != call.text:
        return None
    return dataclasses.replace(
        call,
        gen_ids=(*words, end_id) if call.finish_reason == "stop" else tuple(words),
        prompt_segments=(),
        prompt_ids=(),
        prefix_len=0,
        cached_len=0,
        logprobs=(),
        sampling_logprobs=(),
        top_ids=(),
        top_logprobs=(),
    )
