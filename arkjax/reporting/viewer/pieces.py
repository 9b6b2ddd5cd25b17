"""Which characters of a message each of its tokens wrote."""

from collections.abc import Sequence

from arkjax.text.stream import StreamDecoder
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import Call


class Pieces:
    """Splits messages at their tokens; remembers what tokens look like, as most come again.

    A token's text depends on its neighbours: on the spaces at a text's beginning, and on the other
    bytes of a character. What is put together from memory is therefore compared with the text that
    was recorded, and where it differs the tokens are decoded one after the other.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.special_tokens.values())
        self._first: dict[int, str] = {}
        self._later: dict[int, str] = {}
        # What later tokens are decoded behind; any that has a text and is no part of a character.
        self._before = next(
            (i for i in range(tokenizer.id_limit) if self._plain(i)), tokenizer.eos_id
        )

    def of(self, call: Call) -> tuple[list[str], list[str]] | None:
        """The text of each token of a message, and of those after its end.

        Returns:
          Two lists, together as long as `gen_ids`: the pieces of the first make up `call.text`, the
          pieces of the second are what the text leaves out, such as the end token by its name. None
          if the ids do not spell the text.
        """
        for split in (self._remembered, self._decoded):
            found = _fit(split(call.gen_ids), call.text)
            if found is not None:
                inside, after = found
                names = call.gen_ids[len(inside) :]
                return inside, [
                    piece or self._tokenizer.token(index) or ""
                    for piece, index in zip(after, names, strict=True)
                ]
        return None

    def name(self, index: int) -> str:
        """One token by itself, as text or by its name in the vocabulary."""
        return self._text(index) or self._tokenizer.token(index) or f"#{index}"

    def _plain(self, index: int) -> bool:
        decode = self._tokenizer.decode
        return (
            index not in self._special
            and not self._tokenizer.is_byte(index)
            and bool(decode([index]).strip())
            and "\ufffd" not in decode([index])
        )

    def _text(self, index: int) -> str:
        if index not in self._later:
            decode = self._tokenizer.decode
            self._later[index] = decode([self._before, index])[len(decode([self._before])) :]
        return self._later[index]

    def _remembered(self, ids: Sequence[int]) -> list[str]:
        if not ids:
            return []
        if ids[0] not in self._first:
            self._first[ids[0]] = self._tokenizer.decode([ids[0]])
        return [self._first[ids[0]], *map(self._text, ids[1:])]

    def _decoded(self, ids: Sequence[int]) -> list[str]:
        decoder = StreamDecoder(self._tokenizer)
        pieces = [decoder.push(index) for index in ids]
        if pieces:
            pieces[-1] += decoder.flush()
        return pieces


def _fit(pieces: Sequence[str], text: str) -> tuple[list[str], list[str]] | None:
    """Cut the pieces where the text ends; None if it is not their beginning."""
    if not "".join(pieces).startswith(text):
        return None
    inside: list[str] = []
    left = len(text)
    for piece in pieces:
        if left <= 0:
            break
        inside.append(piece[:left])
        left -= len(piece)
    # Tokens without a text of their own, in front of the end, belong to what is left out.
    return inside, list(pieces[len(inside) :])
