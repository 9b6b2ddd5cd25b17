"""What every generated world's documents are made of: a question, and turns that answer it."""

import dataclasses
import random


@dataclasses.dataclass(frozen=True)
class Turn:
    """One message of a document: its author's byline, its words and its loss weight."""

    byline: str
    text: str
    weight: float


@dataclasses.dataclass(frozen=True)
class Document:
    """A training document: a question and the turns that answer it."""

    question: str
    turns: tuple[Turn, ...]


def slip(rng: random.Random, digit: int) -> int:
    """Any other digit, as a slip of the pen writes it."""
    return (digit + rng.randint(1, 9)) % 10
