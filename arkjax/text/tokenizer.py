"""Text to token ids and back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from arkjax.errors import DataError
from arkjax.storage import sha256_file
from arkjax.text.files import (
    CONFIG,
    SENTENCEPIECE,
    TOKENIZER_JSON,
    Settings,
    read_settings,
    tokenizer_files,
    tokenizer_hash,
)
from arkjax.text.sentencepiece_model import SentencePieceVocabulary
from arkjax.text.tokenizer_json import JsonVocabulary
from arkjax.text.vocabulary import Encoding, Vocabulary, cut_encode


def load_tokenizer(path: str | Path) -> "Tokenizer":
    """The tokenizer in a file or a checkpoint folder; see `Tokenizer`.

    Raises:
      DataError: if there is none, or its files are damaged or contradict each other.
    """
    return Tokenizer(path)


class Tokenizer:
    """A tokenizer, from a `tokenizer.json` or a SentencePiece `tokenizer.model`.

    Special tokens are parsed in a text only with `special=True`. Without, a text that spells one is
    text: no special token comes out of what a user wrote.

    Attributes:
      path: the file or folder that it was loaded from.
      vocab_size: number of tokens.
      id_limit: the highest id + 1; more than `vocab_size` where ids are left out.
      bos_id, unk_id: ids of the tokens that begin a text and stand for what has no token, or None.
      eos_id: id of the token that ends a text or a turn.
      pad_id: id of padding; 0 or, in a checkpoint, `eos_id` where no token is meant for it.
      end_ids: all ids that end a generation, `eos_id` first.
      named_tokens: special tokens by role ("bos_token", ...), as text.
      special_tokens: ids of all special tokens by their text.
      added_tokens: ids of all tokens that are found in a text as they stand, special or not.
      hash: SHA-256 of the file, or of the folder's `tokenizer_files`; recorded with everything that
        is made with it.
    """

    def __init__(self, path: str | Path):
        """Load a tokenizer.

        Args:
          path: a `tokenizer.model`; a `tokenizer.json`, with the files beside it; or the folder of
            a Hugging Face checkpoint, of which `tokenizer.json` goes first.

        Raises:
          DataError: if it is missing, damaged or has no token that ends a text.
        """
        self.path = Path(path)
        self._vocabulary, settings, self.hash = _load(self.path)
        vocabulary = self._vocabulary
        self.vocab_size = vocabulary.size
        self.id_limit = vocabulary.id_limit
        self.named_tokens: Mapping[str, str] = MappingProxyType(
            {**vocabulary.named, **settings.named}
        )
        self.special_tokens = vocabulary.special
        self.added_tokens = vocabulary.added
        self.bos_id, eos_id, self.unk_id, pad_id = (
            self._role(f"{role}_token") for role in ("bos", "eos", "unk", "pad")
        )
        if eos_id is None:
            raise DataError(
                f"{path} has no end-of-sentence piece, so turns could not end: name its token as "
                f"eos_token in a {CONFIG} beside it"
            )
        self.eos_id: int = eos_id
        fallback = 0 if isinstance(vocabulary, SentencePieceVocabulary) else eos_id
        self.pad_id = fallback if pad_id is None else pad_id
        self.end_ids = tuple(dict.fromkeys([eos_id, *settings.end_ids]))
        if max(self.end_ids) >= self.id_limit:
            raise DataError(
                f"{path}: generation_config.json ends generations with the ids {settings.end_ids}, "
                f"but the tokenizer's highest is {self.id_limit - 1}: take both from one checkpoint"
            )
        self._control = frozenset(self.special_tokens.values())

    def _role(self, role: str) -> int | None:
        text = self.named_tokens.get(role)
        return None if text is None else self._vocabulary.token_id(text)

    def check_fits(self, rows: int, model: str | Path) -> None:
        """Make sure that a model has a row for every id.

        Args:
          rows: the model's vocabulary size.
          model: where the model comes from, for the message.

        Raises:
          DataError: if it has fewer, with both numbers and both places.
        """
        if self.id_limit > rows:
            raise DataError(
                f"the tokenizer {self.path} has ids up to {self.id_limit - 1} "
                f"({self.token(self.id_limit - 1)!r}), but the model {model} has {rows} rows: take "
                "the tokenizer of that model, or widen the model's vocabulary to "
                f"{self.id_limit}"
            )

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of the text's tokens, with nothing added.

        Args:
          text: the text; a lone surrogate counts as U+FFFD.
          special: parse special tokens in the text. For text that this program has made only.

        Raises:
          DataError: if the text holds a character that cannot be anything but a special token.
        """
        ids = self._vocabulary.encode(text, special)
        return ids if special or self._control.isdisjoint(ids) else self._as_words(text).ids

    def encode_batch(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Ids of many texts, as `encode` gives them; faster than one by one."""
        batch = self._vocabulary.encode_batch(list(texts), special)
        if special:
            return batch
        return [
            ids if self._control.isdisjoint(ids) else self._as_words(text).ids
            for text, ids in zip(texts, batch, strict=True)
        ]

    def encode_with_offsets(self, text: str, *, special: bool = False) -> Encoding:
        """Ids as `encode` gives them, and for each where in the text it comes from."""
        encoding = self._vocabulary.encode_offsets(text, special)
        if special or self._control.isdisjoint(encoding.ids):
            return encoding
        return self._as_words(text)

    def encode_except(
        self, text: str, forged: Callable[[int, int, int], tuple[int, int] | None]
    ) -> Encoding:
        """Encode with special tokens parsed, except where `forged` says so; see `cut_encode`."""
        return cut_encode(self._vocabulary, text, True, forged)

    def _as_words(self, text: str) -> Encoding:
        """Encode a text of which the vocabulary itself makes special tokens."""

        def forged(index: int, start: int, end: int) -> tuple[int, int] | None:
            if index not in self._control:
                return None
            # The unknown token also stands for what has no token.
            unknown = index == self.unk_id and self.named_tokens["unk_token"] not in text[start:end]
            return None if unknown else (start, end)

        return cut_encode(self._vocabulary, text, False, forged)

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Text of the ids.

        Special tokens leave their text only if `special`; ids that no token has leave none.
        """
        return self._vocabulary.decode([int(index) for index in ids], special)

    def token(self, index: int) -> str | None:
        """The token with this id as the vocabulary writes it, or None."""
        return self._vocabulary.token(int(index))

    def token_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it, such as "<|im_end|>", or None."""
        return self._vocabulary.token_id(token)

    def is_byte(self, index: int) -> bool:
        """Whether the token is one byte of a character that has no token of its own."""
        return self._vocabulary.is_byte(int(index))


def _load(path: Path) -> tuple[Vocabulary, Settings, str]:
    if not path.exists():
        raise DataError(f"no tokenizer at {path}: give a tokenizer file or a checkpoint folder")
    if path.is_dir():
        names = {file.name for file in tokenizer_files(path)}
        path /= TOKENIZER_JSON if TOKENIZER_JSON in names else SENTENCEPIECE
    elif path.suffix != ".json":
        # Such a file is complete in itself.
        return SentencePieceVocabulary(path, Settings()), Settings(), sha256_file(path)
    settings = read_settings(path.parent)
    vocabulary = JsonVocabulary if path.suffix == ".json" else SentencePieceVocabulary
    named = path.name in (TOKENIZER_JSON, SENTENCEPIECE)
    digest = tokenizer_hash(path.parent) if named else sha256_file(path)
    return vocabulary(path, settings), settings, digest
