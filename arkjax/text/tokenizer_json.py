"""A `tokenizer.json`, read by the `tokenizers` library."""

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from arkjax.errors import DataError
from arkjax.text.files import CONFIG, Settings, damaged, read_text
from arkjax.text.vocabulary import Encoding, readable

_BYTE = re.compile("<0x[0-9A-F]{2}>")
# Text to put before a rest so that the space of a text's start is put before this instead.
_ANCHORS = ("\n", ".", "a")


class JsonVocabulary:
    """A `Vocabulary` from a `tokenizer.json`."""

    def __init__(self, path: Path, settings: Settings):
        """Load the file and add what the settings name and it lacks, as `transformers` does.

        Raises:
          DataError: if it is missing or damaged, or another file gives a token another id.
        """
        import tokenizers

        text = read_text(path)
        try:
            tokenizer = tokenizers.Tokenizer.from_str(text)
        except BaseException as error:
            # The library reports all that is wrong as Exception, and some of it as a Rust panic,
            # which is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise damaged(path, "a tokenizer", error) from error
        # A file may say that texts are cut or filled up; here every text is encoded as it is.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        # Whether special tokens are found is a setting of the whole tokenizer.
        self._lock = threading.Lock()
        self._add(path, settings)
        added = tokenizer.get_added_tokens_decoder()
        self.size = tokenizer.get_vocab_size()
        if not self.size:
            raise DataError(f"{path} has no tokens: download it again")
        self.id_limit = max(tokenizer.get_vocab().values()) + 1
        self.added = MappingProxyType({token.content: index for index, token in added.items()})
        self.special = MappingProxyType(
            {token.content: index for index, token in added.items() if token.special}
        )
        self.named: Mapping[str, str] = MappingProxyType({})

    def _add(self, path: Path, settings: Settings) -> None:
        import tokenizers

        known = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        for token in settings.added:
            if token.text not in known:
                self._tokenizer.add_tokens(
                    [
                        tokenizers.AddedToken(
                            token.text,
                            special=token.special,
                            lstrip=token.lstrip,
                            rstrip=token.rstrip,
                            single_word=token.single_word,
                            normalized=token.normalized,
                        )
                    ]
                )
            found = self._tokenizer.token_to_id(token.text)
            if token.id is not None and found != token.id:
                raise DataError(
                    f"{path} gives the token {token.text!r} the id {found}, and {CONFIG} or "
                    f"added_tokens.json beside it {token.id}: take all of them from one checkpoint"
                )

    def _encode(self, method: str, text: Any, special: bool) -> Any:
        with self._lock:
            self._tokenizer.encode_special_tokens = not special
            return getattr(self._tokenizer, method)(text, add_special_tokens=False)

    def encode_offsets(self, text: str, special: bool) -> Encoding:
        """See `Vocabulary`."""
        encoding = self._encode("encode", readable(text), special)
        return Encoding(encoding.ids, encoding.offsets)

    def encode(self, text: str, special: bool) -> list[int]:
        """See `Vocabulary`."""
        return self._encode("encode", readable(text), special).ids

    def encode_batch(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """See `Vocabulary`."""
        texts = [readable(text) for text in texts]
        return [encoding.ids for encoding in self._encode("encode_batch_fast", texts, special)]

    def encode_rest(self, text: str, special: bool) -> Encoding:
        """See `Vocabulary`."""
        for anchor in _ANCHORS:
            whole = self.encode_offsets(anchor + text, special)
            cut = next(
                (i for i, (_, end) in enumerate(whole.offsets) if end > 1), len(whole.offsets)
            )
            if all(start >= 1 for start, _ in whole.offsets[cut:]):
                offsets = [(start - 1, end - 1) for start, end in whole.offsets[cut:]]
                return Encoding(whole.ids[cut:], offsets)
        return self.encode_offsets(text, special)

    def decode(self, ids: Sequence[int], special: bool) -> str:
        """See `Vocabulary`."""
        known = [index for index in ids if 0 <= index < self.id_limit]
        return self._tokenizer.decode(known, skip_special_tokens=not special)

    def token(self, index: int) -> str | None:
        """See `Vocabulary`."""
        return self._tokenizer.id_to_token(index) if 0 <= index < self.id_limit else None

    def token_id(self, token: str) -> int | None:
        """See `Vocabulary`."""
        return self._tokenizer.token_to_id(token)

    def is_byte(self, index: int) -> bool:
        """See `Vocabulary`."""
        return _BYTE.fullmatch(self.token(index) or "") is not None
