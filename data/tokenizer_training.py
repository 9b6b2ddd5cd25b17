"""Training a generated world's SentencePiece model, the same bytes on any machine."""

import io
import string
from collections.abc import Iterable
from pathlib import Path

import sentencepiece


def train_tokenizer(sentences: Iterable[str], vocab_size: int, path: Path) -> None:
    """Train a model on these sentences and write it to `path`.

    Args:
      sentences: texts of the world; the model depends on their order.
      vocab_size: most pieces; every printable ASCII character is one of them.
      path: of the model.
    """
    # Through a writer, because the trainer would store the path of a file in the file itself.
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
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
    path.write_bytes(model.getvalue())
