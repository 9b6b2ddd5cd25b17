"""A record of calls in the formats of other programs: `FORMATS` has them by name."""

from arkjax.trajectories.exports.chat import write_chat
from arkjax.trajectories.exports.folder import Selection, export
from arkjax.trajectories.exports.huggingface import write_huggingface
from arkjax.trajectories.exports.otel import write_otel
from arkjax.trajectories.exports.tfds import write_tfds

__all__ = ["FORMATS", "Selection", "export"]

FORMATS = {
    "chat-jsonl": write_chat,
    "hf": write_huggingface,
    "tfds": write_tfds,
    "otel": write_otel,
}
"""What writes each format: (store, selection, folder, tokenizer, advance) -> None."""
