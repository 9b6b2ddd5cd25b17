"""Versions of what a run was made with."""

import importlib.metadata
import platform

from arkjax import __version__

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "sentencepiece",
    "pyarrow",
)


def versions() -> dict[str, str]:
    """Version of ArkJAX, of Python and of the packages whose numbers a run depends on."""
    found = {"arkjax": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
