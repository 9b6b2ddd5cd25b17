"""The base model's training rows: the embedded world's documents, packed."""

import itertools
from collections.abc import Iterable, Iterator

from arkjax.distillation.rows import Rows, pack
from arkjax.errors import ConfigError
from arkjax.synthesis.examples import Example
from arkjax.tasks.documents import Document
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer

_AT_ONCE = 1024
# Best-fit-decreasing leaves about this share of the rows empty on short documents.
_SLACK = 0.01


def document_examples(
    documents: Iterable[Document], tokenizer: Tokenizer, chat: PlainChat
) -> Iterator[Example]:
    """Documents as examples: the question is the prompt, each turn's words carry the turn's weight.

    The question and the headers between turns carry no loss: who asks and who speaks is given.
    """
    documents = iter(documents)
    while group := list(itertools.islice(documents, _AT_ONCE)):
        words = iter(tokenizer.encode_batch([t.text for d in group for t in d.turns]))
        for document in group:
            first = chat.turn(document.turns[0].byline)
            target: list[int] = []
            weights: list[float] = []
            for i, turn in enumerate(document.turns):
                if i:
                    header = chat.turn(turn.byline)
                    target += header
                    weights += [0.0] * len(header)
                spoken = [*next(words), chat.end_id]
                target += spoken
                weights += [turn.weight] * len(spoken)
            prompt = (*chat.question(document.question), *first)
            yield Example(prompt, tuple(target), 1.0, {"kind": "document"}, tuple(weights))


def base_rows(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    chat: PlainChat,
    row_length: int,
    num_rows: int,
) -> Rows:
    """As many documents of the world as fill about `num_rows` rows.

    Args:
      documents: of the world, without end.
      tokenizer, chat: turn documents into tokens.
      row_length: T.
      num_rows: rows wanted; a few more or less come out.

    Raises:
      ConfigError: if a document is longer than a row.
    """
    room = int(num_rows * row_length * (1 - _SLACK))
    examples = []
    for example in document_examples(documents, tokenizer, chat):
        length = len(example.prompt_ids) + len(example.target_ids)
        if length > row_length:
            raise ConfigError(
                f"base.row_length is {row_length}, but a document has {length} tokens: "
                "raise it, or lower world.document_items or world.discussion_steps"
            )
        room -= length
        if room < 0:
            return pack(examples, row_length)
        examples.append(example)
    raise AssertionError("the world's documents never end")
