"""A `tokenizer.model`, read by SentencePiece."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType

from arkjax.errors import DataError
from arkjax.text.files import CONFIG, AddedToken, Settings, damaged
from arkjax.text.vocabulary import Encoding, readable

# ModelProto.normalizer_spec (field 3) with add_dummy_prefix (its field 3) false. Appended to a
# serialized model it overrides the field: that is how protocol buffers merge messages.
_NO_PREFIX = b"\x1a\x02\x18\x00"


class SentencePieceVocabulary:
    """A `Vocabulary` from a `tokenizer.model`, with the tokens that a checkpoint adds to it.

    SentencePiece itself never finds a control piece in a text; here the text is taken apart at
    these and at added tokens first. The space that SentencePiece puts before a text comes at its
    start only, or with `Settings.legacy` before each part.
    """

    def __init__(self, path: Path, settings: Settings):
        """Load the model.

        Raises:
          DataError: if the file is missing or is not a SentencePiece model, or other files give
            one of its pieces another id.
        """
        import sentencepiece

        try:
            serialized = path.read_bytes()
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=serialized)
            # Loads no model from no bytes without complaint.
            if not serialized:
                raise RuntimeError("the file is empty")
            self._rest = sentencepiece.SentencePieceProcessor(model_proto=serialized + _NO_PREFIX)
            pieces = self._pieces.vocab_size()
            texts = [self._pieces.id_to_piece(index) for index in range(pieces)]
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            raise damaged(path, "a SentencePiece model", error) from error
        self._tokens = {
            text: AddedToken(text, index, True)
            for index, text in enumerate(texts)
            if self._pieces.is_control(index)
        }
        self._tokens |= self._added(path, settings)
        tokens = self._tokens.values()
        # What SentencePiece decodes by itself is left to it.
        self._by_id = {t.id: t for t in tokens if t.special or texts[t.id : t.id + 1] != [t.text]}
        self._legacy = settings.legacy
        self._patterns = {
            special: _pattern([t for t in tokens if special or not t.special])
            for special in (False, True)
        }
        self.size = pieces + sum(index >= pieces for index in self._by_id)
        self.id_limit = max([pieces - 1, *self._by_id]) + 1
        self.added = MappingProxyType({token.text: token.id for token in tokens})
        self.special = MappingProxyType({t.text: t.id for t in tokens if t.special})
        ids = {
            "bos_token": self._pieces.bos_id(),
            "eos_token": self._pieces.eos_id(),
            "unk_token": self._pieces.unk_id(),
            "pad_token": self._pieces.pad_id(),
        }
        self.named = MappingProxyType(
            {role: self._pieces.id_to_piece(index) for role, index in ids.items() if index >= 0}
        )

    def _added(self, path: Path, settings: Settings) -> dict[str, AddedToken]:
        """The tokens that the files beside the model add to it, each with an id."""
        tokens = {}
        numbers = [token.id + 1 for token in settings.added if token.id is not None]
        free = max([self._pieces.vocab_size(), *numbers])
        for token in settings.added:
            index = self.token_id(token.text)
            if index is not None and token.id not in (None, index):
                raise DataError(
                    f"{path} gives the token {token.text!r} the id {index}, and {CONFIG} or "
                    f"added_tokens.json beside it {token.id}: take all of them from one checkpoint"
                )
            if index is not None and index == self._pieces.unk_id():
                # The unknown piece stands for what has no piece; its text is text like any other.
                continue
            if index is None:
                index = free if token.id is None else token.id
                free += index == free
            tokens[token.text] = dataclasses.replace(token, id=index)
        return tokens

    def _parts(self, text: str, special: bool) -> Iterator[tuple[int, int, int | None]]:
        """The text as (start, end, token), token None for what SentencePiece is to encode."""
        pattern, start = self._patterns[special], 0
        for match in pattern.finditer(text) if pattern else ():
            token = self._tokens[match[0]]
            begin, end = match.span()
            if token.lstrip:
                begin = start + len(text[start:begin].rstrip())
            if token.rstrip:
                end = len(text) - len(text[end:].lstrip())
            if begin > start:
                yield start, begin, None
            yield begin, end, token.id
            start = end
        if start < len(text):
            yield start, len(text), None

    def encode(self, text: str, special: bool) -> list[int]:
        """See `Vocabulary`."""
        ids: list[int] = []
        for start, end, token in self._parts(text, special):
            if token is None:
                pieces = self._pieces if self._legacy or not start else self._rest
                ids += pieces.encode(readable(text[start:end]))
            else:
                ids.append(token)
        return ids

    def encode_batch(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """See `Vocabulary`."""
        pattern = self._patterns[special]
        if pattern and any(map(pattern.search, texts)):
            return [self.encode(text, special) for text in texts]
        return self._pieces.encode([readable(text) for text in texts], num_threads=1)

    def encode_offsets(self, text: str, special: bool) -> Encoding:
        """See `Vocabulary`."""
        return self._encode_offsets(text, special, self._pieces)

    def encode_rest(self, text: str, special: bool) -> Encoding:
        """See `Vocabulary`."""
        return self._encode_offsets(text, special, self._rest)

    def _encode_offsets(self, text: str, special: bool, first: object) -> Encoding:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for start, end, token in self._parts(text, special):
            if token is None:
                later = self._pieces if self._legacy else self._rest
                new, spans = self._spans(later if start else first, readable(text[start:end]))
                ids += new
                offsets += [(start + begin, start + stop) for begin, stop in spans]
            else:
                ids.append(token)
                offsets.append((start, end))
        return Encoding(ids, offsets)

    def _spans(self, pieces, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        if hasattr(pieces, "encode_as_offset_mapping"):
            mapping = pieces.encode_as_offset_mapping(text)
            ids, spans = list(mapping["ids"]), [tuple(span) for span in mapping["offsets"]]
        else:  # before SentencePiece 0.2.2
            found = pieces.encode(text, out_type="immutable_proto").pieces
            ids, spans = [p.id for p in found], [(p.begin, p.end) for p in found]
        # Of a character's bytes only the last has its span.
        for i in range(len(ids) - 2, -1, -1):
            if spans[i][0] == spans[i][1] and self.is_byte(ids[i]) and self.is_byte(ids[i + 1]):
                spans[i] = spans[i + 1]
        return ids, spans

    def decode(self, ids: Sequence[int], special: bool) -> str:
        """See `Vocabulary`."""
        limit = self._pieces.vocab_size()
        text: list[str] = []
        run: list[int] = []

        def close() -> None:
            if run:
                text.append((self._rest if any(text) else self._pieces).decode(run))
                run.clear()

        for index in ids:
            token = self._by_id.get(index)
            if token is None:
                run += [index] if 0 <= index < limit else []
            elif not token.special or special:
                close()
                text.append(token.text)
            elif index < limit and self._pieces.is_control(index):
                # Leaves no text, but ends a character's bytes.
                run.append(index)
        close()
        return "".join(text)

    def token(self, index: int) -> str | None:
        """See `Vocabulary`."""
        if index in self._by_id:
            return self._by_id[index].text
        return self._pieces.id_to_piece(index) if 0 <= index < self._pieces.vocab_size() else None

    def token_id(self, token: str) -> int | None:
        """See `Vocabulary`."""
        if token in self._tokens:
            return self._tokens[token].id
        index = self._pieces.piece_to_id(token)
        return index if self._pieces.id_to_piece(index) == token else None

    def is_byte(self, index: int) -> bool:
        """See `Vocabulary`."""
        return 0 <= index < self._pieces.vocab_size() and self._pieces.is_byte(index)


def _pattern(tokens: Sequence[AddedToken]) -> re.Pattern | None:
    """Finds any of the tokens, longer ones first."""
    alternatives = []
    for token in sorted(tokens, key=lambda token: -len(token.text)):
        text = re.escape(token.text)
        alternatives.append(rf"(?<!\w){text}(?!\w)" if token.single_word else text)
    return re.compile("|".join(alternatives)) if alternatives else None
