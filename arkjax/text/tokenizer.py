"""Text to token ids and back, by SentencePiece."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from arkjax.errors import DataError


class Tokenizer:
    """A SentencePiece model.

    Attributes:
      vocab_size: number of pieces.
      pad_id, eos_id: ids of padding and of the token that ends a turn.
      hash: SHA-256 of the model file; recorded with everything that is made with it.
    """

    def __init__(self, path: str | Path):
        """Load a `tokenizer.model`.

        Raises:
          DataError: if the file is missing or is not a SentencePiece model with an end token.
        """
        import sentencepiece

        path = Path(path)
        try:
            serialized = path.read_bytes()
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=serialized)
        except (OSError, RuntimeError) as error:
            raise DataError(f"cannot load the SentencePiece model {path}: {error}") from error
        self.vocab_size = self._pieces.vocab_size()
        self.eos_id = self._pieces.eos_id()
        self.pad_id = max(self._pieces.pad_id(), 0)
        if self.eos_id < 0:
            raise DataError(f"{path} has no end-of-sentence piece: turns could not end")
        self.hash = hashlib.sha256(serialized).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of the text's pieces, with nothing added."""
        return self._pieces.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts; faster than one by one."""
        return self._pieces.encode(list(texts), num_threads=1)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; control pieces such as the end token leave none."""
        return self._pieces.decode([int(i) for i in ids])
