"""Train the embedded world's SentencePiece model: `python data/embedded_world/train_tokenizer.py`.

The text is the world's own, drawn with a fixed seed, so that anybody gets the same pieces again. Every
printable ASCII character is a piece, so any English role text can be encoded as well.
"""

import itertools
import string
import sys
from pathlib import Path

import sentencepiece

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from arkjax.tasks import embedded_world as world  # noqa: E402

DOCUMENTS = 20_000
VOCAB_SIZE = 192


def sentences(config: world.WorldConfig):
    """Every turn of the world's documents as one line, its byline first."""
    for document in itertools.islice(world.make_documents(config, seed=0), DOCUMENTS):
        yield f"question: {document.question}"
        for turn in document.turns:
            yield f"{turn.byline}: {turn.text}"


def main() -> None:
    """Write `tokenizer.model` beside this script."""
    config = world.WorldConfig(
        negative=False,
        items=4,
        ood_items=6,
        document_items=(2, 3, 4, 5),
        discussion_steps=20,
        part_rates=(0.4, 0.3, 0.3),
        train_part_rates=(0.4, 0.3, 0.3),
        trap_rate=0.25,
        slip_rate=0.02,
        untagged_rate=0.3,
        byline_rate=0.3,
        expert_among_untagged=0.5,
        adoption_rate=0.9,
        earlier_weight=1.0,
    )
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(config)),
        model_prefix=str(HERE / "tokenizer"),
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
    (HERE / "tokenizer.vocab").unlink()


if __name__ == "__main__":
    main()
