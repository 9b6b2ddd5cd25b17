"""Text of token ids that arrive one after the other."""

import itertools
import os.path
from collections.abc import Iterable

from arkjax.text.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"


class StreamDecoder:
    """Decodes a stream of ids, as a model generates them, to text that can be shown at once.

    A character whose bytes are spread over several tokens comes when it is whole. What `push` and
    `flush` return, put together, is `tokenizer.decode` of all ids.

        decoder = StreamDecoder(tokenizer)
        for index in ids:
            show(decoder.push(index))
        show(decoder.flush())
    """

    def __init__(self, tokenizer: Tokenizer, *, special: bool = False):
        """Begin a stream; `special` as in `Tokenizer.decode`."""
        self._tokenizer = tokenizer
        self._special = special
        self._silent = frozenset() if special else frozenset(tokenizer.special_tokens.values())
        # Ids whose text is out, as far back as it matters to what follows: a decoder treats the
        # start of a text in its own way, so new ids are never decoded without those before them.
        self._said: list[int] = []
        self._held: list[int] = []

    def push(self, *ids: int) -> str:
        """The text that these ids complete; often that of the ids themselves, sometimes none.

        Of several at once as much is certain as of the last one alone.
        """
        known = [int(index) for index in ids]
        # Ids that no token has leave no text; what decides is the last one that may.
        while known and self._tokenizer.token(known[-1]) is None:
            known.pop()
        if not known:
            return ""
        self._held = [*self._held, *known]
        # Whether bytes make a character is decided by the whole run of them, and by some decoders
        # across a token that leaves no text.
        if self._tokenizer.is_byte(known[-1]) or (
            len(self._held) > 1 and known[-1] in self._silent
        ):
            return ""
        text = self._new_text()
        return "" if text.endswith(_REPLACEMENT) else self._say(text)

    def flush(self) -> str:
        """The text still held back, at the end of the stream."""
        return self._say(self._new_text())

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._said, special=self._special)
        whole = self._tokenizer.decode([*self._said, *self._held], special=self._special)
        return whole[len(before) :]

    def _say(self, text: str) -> str:
        # A decoder may drop any space at the start, so that spaces alone are no text to build on.
        self._said = self._held if text.strip() else [*self._said, *self._held]
        self._held = []
        return text


# Tokens that together make one piece of text are few, unless they make none.
_MOST_TOGETHER = 64


def token_texts(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """For each id the text that it completes; put together, `tokenizer.decode` of all of them.

    A character whose bytes are spread over several tokens is the text of the last of these.
    """
    decoder, texts, group = StreamDecoder(tokenizer), [], []
    for index in ids:
        piece = decoder.push(index)
        group.append(int(index))
        if piece:
            texts += _divided(tokenizer, piece, group)
            group = []
    return texts + (_divided(tokenizer, decoder.flush(), group) if group else [])


def _divided(tokenizer: Tokenizer, piece: str, group: list[int]) -> list[str]:
    """Which of the tokens completes which part of the text that they make together."""
    if len(group) == 1:
        return [piece]
    if _REPLACEMENT not in piece and any(map(tokenizer.is_byte, group)):
        bytes_left, ends, at = 0, [], 0
        for index in group[:-1]:
            bytes_left += tokenizer.is_byte(index)
            if at < len(piece) and bytes_left == len(piece[at].encode()):
                bytes_left, at = 0, at + 1
            ends.append(at)
    elif len(group) <= _MOST_TOGETHER:
        whole = tokenizer.decode(group)
        # At the start of a text a decoder may drop a space.
        dropped = len(piece) - len(whole)
        if not piece.endswith(whole):
            return [""] * (len(group) - 1) + [piece]
        ends, at = [], 0
        for length in range(1, len(group)):
            known = os.path.commonprefix([tokenizer.decode(group[:length]), whole])
            at = max(at, len(known) + dropped if known else 0)
            ends.append(at)
    else:
        ends = [0] * (len(group) - 1)
    return [piece[a:b] for a, b in itertools.pairwise([0, *ends, len(piece)])]
