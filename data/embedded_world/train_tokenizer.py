"""Train the SentencePiece model again: `python data/embedded_world/train_tokenizer.py [FOLDER]`.

The text is questions and answers of the embedded world, drawn with a fixed seed and whatever the
world's config says, so that anybody gets the same bytes again. Every printable ASCII character is a
piece, so any English role text can be encoded as well.
"""

import io
import random
import string
import sys
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

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


def main(folder: Path) -> None:
    """Write `tokenizer.model` into `folder`."""
    # Through a writer, because the trainer would store the path of a file in the file itself.
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        hard_vocab_limit=False,
        required_chars=string.ascii_letters + string.digits + string.punctuation,
        normalization_rule_name="identity",
        num_threads=1,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=2,
        minloglevel=1,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
