"""The tokens with which a checkpoint has every text begin."""

from arkjax.text.files import CONFIG, TOKENIZER_JSON, read_json
from arkjax.text.tokenizer import Tokenizer


def leading_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that belong before a text to be continued: that of the beginning, or none.

    `Tokenizer.encode` leaves them out, and chat templates write them themselves. A `tokenizer.json`
    tells them by its post-processor, the files beside a SentencePiece model by "add_bos_token".

    Raises:
      DataError: if a file is damaged.
    """
    path = tokenizer.path
    vocabulary = path / TOKENIZER_JSON if path.is_dir() else path
    if vocabulary.suffix == ".json" and vocabulary.is_file():
        import tokenizers

        whole = tokenizers.Tokenizer.from_file(str(vocabulary)).encode("a", add_special_tokens=True)
        own = whole.special_tokens_mask.index(0) if 0 in whole.special_tokens_mask else 0
        return tuple(whole.ids[:own])
    config = path / CONFIG if path.is_dir() else None
    if config is None or not config.is_file() or tokenizer.bos_id is None:
        return ()
    return (tokenizer.bos_id,) if read_json(config).get("add_bos_token") is True else ()
