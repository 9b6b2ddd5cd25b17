"""Published checkpoints by name: fetched into the local cache of the Hugging Face Hub."""

import re
from pathlib import Path

from arkjax.errors import DataError
from arkjax.hub import check_reachable

PREFIX = "hf:"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
# Weights in safetensors, configs and tokenizers; no pickles, no other frameworks, no code.
_WANTED = ("*.json", "model*.safetensors", "tokenizer.model", "merges.txt", "*.jinja")
_UNWANTED = ("original/*", "onnx/*")


def checkpoint_folder(source: str | Path) -> Path:
    """The folder of a checkpoint that is named by its path, or as `hf:owner/name[@revision]`.

    The latter is fetched unless the cache has it; only weights in safetensors, configs and the
    tokenizer are.

    Raises:
      DataError: if the name is none, or nothing can be fetched; the message says how to go on.
    """
    text = str(source)
    if not text.startswith(PREFIX):
        return Path(source)
    match = _NAME.fullmatch(text.removeprefix(PREFIX))
    if match is None:
        raise DataError(f"{text!r} names no checkpoint: expected {PREFIX}owner/name[@revision]")
    repo, revision = match["repo"], match["revision"]
    command = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
    remedy = (
        f"; or run `{command} --local-dir FOLDER` where there is a network, "
        "and give the folder in its place"
    )
    try:
        import huggingface_hub
    except ImportError as error:
        raise DataError(
            f"fetching {text} needs huggingface_hub: pip install huggingface_hub{remedy}"
        ) from error
    wanted = {"allow_patterns": _WANTED, "ignore_patterns": _UNWANTED, "revision": revision}
    try:
        try:
            check_reachable()
        except ConnectionError as error:
            try:
                cached = huggingface_hub.snapshot_download(repo, local_files_only=True, **wanted)
            except Exception:
                raise error from error.__cause__
            return Path(cached)
        folder = huggingface_hub.snapshot_download(repo, **wanted)
    except Exception as error:  # Of the network, of its libraries and of the Hub; many kinds.
        lines = str(error).strip().splitlines()
        reason = lines[0][:300] if lines else type(error).__name__
        raise DataError(
            f"cannot fetch {repo} ({type(error).__name__}: {reason}): check its name and revision, "
            f"the network, and with `hf auth login` your access{remedy}"
        ) from error
    return Path(folder)
