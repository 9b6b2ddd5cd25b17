"""How to install what an optional part of ArkJAX needs."""

from pathlib import Path

from arkjax.shipped import checkout

REASONS = {
    "lora": "int8 or nf4 weights",
    "tasks": "SeqIO tasks and `tfds:` sources",
    "serve": "`arkjax serve` and remote generators",
    "beam": "Beam pipelines, in an environment without the extra `tasks`",
    "gpu": "NVIDIA GPUs",
    "tpu": "TPUs",
}
"""What each extra is for."""


def install(extra: str) -> str:
    """The command that installs an extra of `REASONS` into this installation of ArkJAX."""
    if extra not in REASONS:
        raise ValueError(f"there is no extra {extra!r}")
    root = checkout()
    if root is None:
        return f"pip install 'arkjax[{extra}]'"
    return f"pip install -e '{'.' if root == Path.cwd() else root}[{extra}]'"
