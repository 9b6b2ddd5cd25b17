"""Texts that end a call, wherever in its tokens they begin and end."""

import copy
from collections.abc import Collection, Sequence

from arkjax.text.stream import StreamDecoder
from arkjax.text.tokenizer import Tokenizer


class StopTexts:
    """The text of a call as its tokens come, cut where it ends.

        text = StopTexts(tokenizer, stop_ids, ("\\n\\n", "Question:"))
        for index in ids:
            show(text.push(index))
            if text.stopped:
                break
        show(text.flush())

    Attributes:
      stopped: whether a stop id or a stop text was met.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: Collection[int], stop: Sequence[str]):
        """Begin a call.

        Args:
          tokenizer: decodes.
          stop_ids: tokens that end the call and are no part of its text.
          stop: texts that end the call and are no part of its text.
        """
        self.stopped = False
        self._decoder = StreamDecoder(tokenizer)
        self._stop_ids, self._stop = frozenset(stop_ids), tuple(stop)
        self._held = ""
        self._beginnings = {text[:size] for text in self._stop for size in range(1, len(text))}
        self._longest = max(map(len, self._beginnings), default=0)

    def push(self, index: int) -> str:
        """The text that is certain now: none that may yet turn out to be the start of a stop text.

        Nothing comes any more once the call has stopped.
        """
        if self.stopped:
            return ""
        if index in self._stop_ids:
            text = self._cut(self._decoder.flush())
            self.stopped = True
            return text + self._let_go(len(self._held))
        return self._cut(self._decoder.push(index))

    def take(self, ids: Sequence[int]) -> int:
        """How many of these ids there are to the end of the call, or all of them if it goes on.

        As `push` of one after the other, but decoded at once as long as nothing ends.
        """
        if self._stop_ids.isdisjoint(ids):
            before = copy.copy(self._decoder), self._held
            self._cut(self._decoder.push(*ids))
            if not self.stopped:
                return len(ids)
            (self._decoder, self._held), self.stopped = before, False
        for count, index in enumerate(ids, start=1):
            self.push(index)
            if self.stopped:
                return count
        return len(ids)

    def flush(self) -> str:
        """The text still held back, when no more tokens come."""
        if self.stopped:
            return ""
        text = self._cut(self._decoder.flush())
        return text if self.stopped else text + self._let_go(len(self._held))

    def _cut(self, fresh: str) -> str:
        self._held += fresh
        # Of texts that overlap, that which is complete first ends the call, and of those the first.
        ends = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            text, self._held = self._held[: min(ends)[1]], ""
            return text
        return self._let_go(len(self._held) - self._may_begin())

    def _may_begin(self) -> int:
        """Characters at the end of the held text with which a stop text may begin."""
        for size in range(min(self._longest, len(self._held)), 0, -1):
            if self._held[-size:] in self._beginnings:
                return size
        return 0

    def _let_go(self, size: int) -> str:
        text, self._held = self._held[:size], self._held[size:]
        return text
