"""Files that come with ArkJAX: `configs/` and `data/`, in a checkout or inside the wheel."""

from pathlib import Path

from arkjax.errors import DataError

_PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """The checkout that ArkJAX runs from; None if it is an installed package."""
    root = _PACKAGE.parent
    there = (root / "setup.py").is_file() and (root / "configs").is_dir()
    return root if there else None


def shipped_root() -> Path:
    """The directory that holds `configs/` and `data/`."""
    return checkout() or _PACKAGE / "_shipped"


def shipped_path(name: str) -> Path:
    """The path of a shipped file or folder, named as in the repository: "data/README.md".

    Raises:
      DataError: if this installation does not have it.
    """
    path = shipped_root() / name
    if not path.exists():
        raise DataError(
            f"{name} is not in this installation of ArkJAX (looked for {path}); reinstall it"
        )
    return path
