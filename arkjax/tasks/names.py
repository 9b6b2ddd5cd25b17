"""What is said of a name that nobody knows."""

import difflib
from collections.abc import Sequence


def unknown_name(what: str, name: str, known: Sequence[str]) -> str:
    """Says that there is no such thing, which known one is meant perhaps, and which there are."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"there is no {what} {name!r}; {hint}known: {', '.join(known)}"
