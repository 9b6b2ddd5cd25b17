"""Text of token ids that arrive one after the other."""

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
