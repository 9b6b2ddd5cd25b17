"""How a token is written where its log-probability is told."""

import functools
import math

from arkjax.text.tokenizer import Tokenizer

# Stands for minus infinity, which JSON does not have.
_NEVER = -9999.0
_REPLACEMENT = "\ufffd"


class Tokens:
    """Texts and bytes of single tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.text = functools.lru_cache(maxsize=2**18)(self.text)

    def text(self, index: int) -> str:
        """The text of a token in the midst of others, that of special tokens included.

        A part of a character is U+FFFD.
        """
        part = self._part(index)
        return self._whole(index) if part is None else part.decode("utf-8", "replace")

    def opening(self, index: int) -> str:
        """The text of a token at the start of a text: some decoders drop a space there."""
        return self._tokenizer.decode([index], special=True)

    def spelled(self, index: int) -> list[int] | None:
        """The bytes of a token's text; None if it is a part of a character and does not tell."""
        part = self._part(index)
        if part is not None:
            return list(part)
        text = self._whole(index)
        return None if _REPLACEMENT in text else list(text.encode("utf-8"))

    def name(self, index: int, as_id: bool) -> str:
        """What a token is called: by its text, or by its id, which no two tokens share."""
        return f"token_id:{index}" if as_id else self.text(index)

    def _whole(self, index: int) -> str:
        # Some decoders drop the space at the start of a text, so the second of two is looked at.
        once = self.opening(index)
        return self._tokenizer.decode([index, index], special=True)[len(once) :]

    def _part(self, index: int) -> bytes | None:
        """The bytes of a token that is not made of whole characters, if it tells them."""
        token = self._tokenizer.token(index) or ""
        if self._tokenizer.is_byte(index):
            # "<0xE2>"
            return bytes([int(token[3:5], 16)])
        if _REPLACEMENT not in self._whole(index):
            return None
        known = [_byte_alphabet().get(character) for character in token]
        return None if None in known else bytes(known)


def number(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return logprob if math.isfinite(logprob) else _NEVER


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """The byte that each character stands for in a byte-level vocabulary.

    Printable characters of Latin-1 stand for themselves, the other bytes have, in their order, the
    characters from U+0100 on (Radford et al. 2019, "Language Models are Unsupervised Multitask
    Learners", section 2.2, and the vocabulary that was published with it).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + i): byte for i, byte in enumerate(others)
    }
