"""Train the SentencePiece model again: `python data/embedded_world/train_tokenizer.py [FOLDER]`.

The text is questions and answers of the embedded world, drawn with a fixed seed and whatever the
world's config says, so that anybody gets the same bytes again. Every printable ASCII character is a
piece, so any English role text can be encoded as well.
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]

from tokenizer_training import train_tokenizer  # noqa: E402

from arkjax.tasks import embedded_world as world  # noqa: E402

QUESTIONS = 20_000
VOCAB_SIZE = 192


def sentences() -> Iterator[str]:
    """Questions, each with an answer under some byline."""
    rng = random.Random(0)
    bylines = [world.BARE_BYLINE, world.JUDGE, *world.EXPERTS]
    for _ in range(QUESTIONS):
        items = [
            (rng.choice(list(world.SKILLS)), rng.randrange(10), rng.randrange(10))
            for _ in range(rng.randint(2, 6))
        ]
        yield f"question: {world.question_text(items)}"
        verbs = [rng.choice(world.VERBS) for _ in items]
        text = world.solution_text(items, world.true_values(items), verbs, rng.choice(world.TOTALS))
        yield f"{rng.choice(bylines)}: {text}"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    train_tokenizer(sentences(), VOCAB_SIZE, folder / "tokenizer.model")
