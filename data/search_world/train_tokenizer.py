"""Train the SentencePiece model again: `python data/search_world/train_tokenizer.py [FOLDER]`.

The text is questions, proposals and checks of the search world, drawn with a fixed seed and
whatever the world's config says, so that anybody gets the same bytes again. Each number up to the
largest total of four items is one piece. Every printable ASCII character is a piece, so any English
role text can be encoded as well.
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]

from tokenizer_training import train_tokenizer  # noqa: E402

from arkjax.tasks import search_world as world  # noqa: E402

QUESTIONS = 20_000
VOCAB_SIZE = 224
LARGEST_TOTAL = 4 * world.LARGEST


def sentences() -> Iterator[str]:
    """Questions, each with a proposal, a check of it and a close under some byline."""
    rng = random.Random(0)
    bylines = [world.BARE_BYLINE, *world.BYLINES]
    for _ in range(QUESTIONS):
        items = [
            (rng.choice(list(world.OPERATIONS)), rng.randint(0, 9))
            for _ in range(rng.randint(2, 4))
        ]
        n, total = rng.randint(0, world.LARGEST), rng.randint(0, LARGEST_TOTAL)
        yield f"question: {world.question_text(items, total)}"
        said = [
            world.proposal_text(*sorted(rng.choices(range(10), k=2)), n),
            world.check_text(items, total, n, world.true_values(items, n)),
            world.closing_text(n),
        ]
        for text in said:
            yield f"{rng.choice(bylines)}: {text} ;"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    train_tokenizer(sentences(), VOCAB_SIZE, folder / "tokenizer.model")
