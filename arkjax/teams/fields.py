"""Reads the fields of a team specification: strictly, and with the place in every complaint."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from arkjax.errors import ConfigError

_REQUIRED = object()
_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def unknown_name(path: str, name: Any, known: Iterable[str], what: str) -> ConfigError:
    """The error for a name that is not among the known ones; it suggests the nearest of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names) or "none"
    return ConfigError(f"{path}: there is no {what} {name!r}; {hint}known: {listed}")


def unwrapped(value: Any) -> Any:
    """`value` with every ConfigDict and mapping as a dict and every sequence as a list."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): unwrapped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [unwrapped(item) for item in value]
    return value


class Fields:
    """The fields of one record of a config, each read once, by name and kind.

    Raises:
      ConfigError: from every method, with the dotted path, what stands there and what is expected.
    """

    def __init__(self, data: Any, path: str, known: Iterable[str]) -> None:
        if not isinstance(data, Mapping):
            raise ConfigError(f"{path} is {data!r}: expected fields, that is a dictionary")
        self.path = path
        self._data = data
        known = set(known)
        for name in data:
            if name not in known:
                raise unknown_name(f"{path}.{name}", name, known, "field")

    def at(self, name: str) -> str:
        """The dotted path of a field."""
        return f"{self.path}.{name}"

    def raw(self, name: str, default: Any = _REQUIRED) -> Any:
        """The field as it stands."""
        value = self._data.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise ConfigError(f"{self.at(name)} is missing")
        return default

    def number(self, name: str, default: Any = _REQUIRED, *, low: float, kind: type = int) -> Any:
        """A number of at least `low`."""
        value = self._typed(self.raw(name, default), self.at(name), kind)
        if not value >= low:  # Also what is no number at all, NaN.
            raise ConfigError(f"{self.at(name)} is {value!r}: it must be at least {low}")
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        """A string."""
        return self._typed(self.raw(name, default), self.at(name), str)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        return self._typed(self.raw(name, default), self.at(name), bool)

    def choice(self, name: str, choices: Iterable[str], default: Any = _REQUIRED) -> str:
        """One of the named values."""
        value = self.raw(name, default)
        if value not in (names := list(choices)):
            raise unknown_name(self.at(name), value, names, "choice")
        return value

    def items(self, name: str, default: Any = _REQUIRED) -> list[tuple[str, Any]]:
        """A list, as (path, item) pairs."""
        value = self.raw(name, default)
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{self.at(name)} is {value!r}: expected a list")
        return [(f"{self.at(name)}[{i}]", item) for i, item in enumerate(value)]

    def texts(self, name: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(self._typed(item, path, str) for path, item in self.items(name, default))

    def selector(self, name: str, default: Any = "all") -> str | tuple[str, ...]:
        """Some agents: "all", "tag:NAME", or a list of ids."""
        value = self.raw(name, default)
        if isinstance(value, str):
            if value == "all" or value.startswith("tag:"):
                return value
            return (value,)
        return self.texts(name, default)

    @staticmethod
    def _typed(value: Any, path: str, kind: type) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{path} is {value!r}: expected {_KINDS[kind]}")
        return value
