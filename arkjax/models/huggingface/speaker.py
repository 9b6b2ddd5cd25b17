"""A model that talks: its weights, its tokenizer and its chat template from one place."""

import dataclasses
from pathlib import Path

from arkjax.errors import DataError
from arkjax.models.huggingface.opening import find, open_model
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh
from arkjax.text.files import has_chat_template
from arkjax.text.templates import ChatTemplate, load_chat_template
from arkjax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Speaker:
    """What it takes to talk with a model.

    Attributes:
      folder: where it lies.
      model: the model.
      tokenizer: its tokenizer.
      template: its chat template; None if it has none, as models of the embedded world.
    """

    folder: Path
    model: Transformer
    tokenizer: Tokenizer
    template: ChatTemplate | None


def open_speaker(checkpoint: str | Path, progress: Progress | None = None) -> Speaker:
    """Open a model with its tokenizer and its template.

    Args:
      checkpoint: a model directory, a published checkpoint, or `hf:owner/name`.
      progress: shows bytes, rate and remaining time.

    Raises:
      DataError: if the model, its tokenizer or its template is missing or damaged.
    """
    source = find(checkpoint)
    if source.tokenizer is None:
        raise DataError(
            f"{checkpoint} has no tokenizer beside its weights: put the tokenizer.json or "
            "tokenizer.model of its checkpoint into that folder, and import it again"
        )
    tokenizer = Tokenizer(source.tokenizer)
    template = None
    if has_chat_template(source.tokenizer):
        template = load_chat_template(source.tokenizer)
    # A talk is one row: heads and hidden units are all that can be shared.
    mesh = make_mesh(MeshConfig(data=1, fsdp=1, tensor=-1))
    model = open_model(source, mesh, ShardingRules(), progress=progress).model
    tokenizer.check_fits(model.config.vocab_size, source.folder)
    return Speaker(source.folder, model, tokenizer, template)
