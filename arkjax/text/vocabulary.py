"""What a vocabulary can do, whatever library reads it."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from arkjax.errors import DataError

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Token ids of a text and where each comes from.

    Attributes:
      ids: the tokens.
      offsets: for each token the first character that it stands for and the one after the last.
        Several tokens of one character have the same; a space that only the tokenizer put there is
        empty.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


class Vocabulary(Protocol):
    """Text to ids and back, by one library.

    Attributes:
      size: number of tokens.
      id_limit: the highest id + 1.
      added: ids of the tokens that are found in a text before the model sees it, by their text.
      special: those of them that control a model.
      named: special tokens by role as far as the vocabulary itself knows them.
    """

    size: int
    id_limit: int
    added: Mapping[str, int]
    special: Mapping[str, int]
    named: Mapping[str, str]

    def encode(self, text: str, special: bool) -> list[int]:
        """Ids; special tokens are found in the text only if `special`."""

    def encode_batch(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """Ids of many texts."""

    def encode_offsets(self, text: str, special: bool) -> Encoding:
        """Ids with offsets."""

    def encode_rest(self, text: str, special: bool) -> Encoding:
        """Ids with offsets of the rest of some text: no space is put before it."""

    def decode(self, ids: Sequence[int], special: bool) -> str:
        """Text; special tokens leave theirs only if `special`, unknown ids leave none."""

    def token(self, index: int) -> str | None:
        """The token with this id as the vocabulary writes it."""

    def token_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it."""

    def is_byte(self, index: int) -> bool:
        """Whether the token is one byte of a character that has no token."""


def readable(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer takes, as U+FFFD; offsets stay."""
    return _SURROGATE.sub("\ufffd", text)


def cut_encode(
    vocabulary: Vocabulary,
    text: str,
    special: bool,
    forged: Callable[[int, int, int], tuple[int, int] | None],
) -> Encoding:
    """Encode a text in which some tokens may not be found, though it spells them.

    A token that may not be is cut in two behind its first character, and what lies between two
    cuts is encoded on its own.

    Args:
      vocabulary: encodes the pieces.
      text: the text.
      special: whether special tokens are found at all.
      forged: for an id and its offsets in `text`, where the token is spelled if it may not be
        there, else None.

    Raises:
      DataError: if such a token is a single character, which cannot be cut.
    """
    cuts = {0, len(text)}
    while True:
        ends = sorted(cuts)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for start, end in zip(ends, ends[1:], strict=False):
            part = text[start:end]
            encoding = (vocabulary.encode_rest if start else vocabulary.encode_offsets)(
                part, special
            )
            for index, (first, last) in zip(encoding.ids, encoding.offsets, strict=True):
                offsets.append((start + first, start + last))
                spelled = forged(index, *offsets[-1])
                if spelled is None:
                    continue
                if spelled[1] - spelled[0] < 2:
                    raise DataError(
                        f"the text {text[spelled[0] : spelled[1]]!r} stands for the special token "
                        f"{vocabulary.token(index)!r} and cannot be anything else: take it out"
                    )
                cuts.add(spelled[0] + 1)
            ids += encoding.ids
        if len(cuts) == len(ends):
            return Encoding(ids, offsets)
