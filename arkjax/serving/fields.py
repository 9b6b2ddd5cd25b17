"""Reads a JSON body field by field; nothing of it is trusted."""

import difflib
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from arkjax.serving.refusals import Refusal

# Characters of a client's own words that a message repeats.
_QUOTED = 60


def read_json(body: bytes) -> dict[str, Any]:
    """The object in a request's body.

    Raises:
      Refusal: if it is no UTF-8, no JSON (NaN, Infinity and numbers beyond a double are none), or
        no object.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(f"the body is not UTF-8: byte {error.start} is wrong") from None
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise Refusal("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Refusal(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except ValueError:
        # Python converts no integer of more than some thousand digits.
        raise Refusal("the body holds a number with too many digits") from None
    if not isinstance(value, dict):
        raise Refusal(f"the body is {kind(value)}: expected an object")
    return value


def _no_constant(name: str) -> float:
    raise Refusal(f"the body is not JSON: {name} is no number there")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Refusal(f"the body holds a number that is too large: {text[:_QUOTED]}")
    return value


def kind(value: Any) -> str:
    """What a JSON value is, with its article."""
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a text"}
    names |= {list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def quoted(value: Any) -> str:
    """A client's value for a message, cut where it is long."""
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):
        return kind(value)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


def check_text(value: Any, param: str) -> str:
    """`value` if it is a text of whole characters.

    Raises:
      Refusal: if it is something else, or holds a lone surrogate.
    """
    if not isinstance(value, str):
        raise Refusal(f"{param} is {kind(value)}: expected a text", param)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal(
            f"{param} holds half of a character (a lone surrogate) at {error.start}", param
        ) from None
    return value


def is_integer(value: Any) -> bool:
    """Whether a JSON value is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


class Fields:
    """The fields of an object, each to be taken by its name; null is the same as not there."""

    def __init__(self, values: Mapping[str, Any], where: str = ""):
        self._values, self._where = values, where
        self._known: set[str] = set()

    def param(self, name: str) -> str:
        """The whole name of a field, such as "stream_options.include_usage"."""
        return f"{self._where}.{name}" if self._where else name

    def take(self, name: str) -> Any:
        """A field of any type, or None."""
        self._known.add(name)
        return self._values.get(name)

    def flag(self, name: str, default: bool = False) -> bool:
        """A field that is true or false."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A field that is an integer from `low` to `high`, or None."""
        value = self.take(name)
        if value is None:
            return None
        if not is_integer(value) or not low <= value <= high:
            raise self.wrong(name, value, f"an integer from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """A field that is a number from `low` to `high`."""
        value = self.take(name)
        if value is None:
            return default
        number = isinstance(value, float) or is_integer(value)
        if not number or not low <= value <= high:
            raise self.wrong(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def text(self, name: str) -> str | None:
        """A field that is a text, or None."""
        value = self.take(name)
        return None if value is None else check_text(value, self.param(name))

    def object(self, name: str) -> "Fields | None":
        """A field that is an object, or None."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, value, "an object")
        return Fields(value, self.param(name))

    def ignore(self, names: Collection[str]) -> None:
        """Know fields that change nothing of what is generated."""
        self._known.update(names)

    def refuse(self, name: str, harmless: Collection[Any], why: str) -> None:
        """Refuse a field unless it has one of these values, which ask for nothing."""
        value = self.take(name)
        # True equals 1, and 0 equals False.
        if value is None or any(value == x and type(value) is type(x) for x in harmless):
            return
        raise Refusal(
            f"{self.param(name)} is {quoted(value)}, and {why}: leave it out",
            self.param(name),
            code="unsupported_parameter",
        )

    def wrong(self, name: str, value: Any, expected: str) -> Refusal:
        """The refusal of a field that is not as expected."""
        return Refusal(
            f"{self.param(name)} is {quoted(value)}: expected {expected}", self.param(name)
        )

    def finish(self) -> None:
        """Refuse what was not taken, ignored or refused."""
        unknown = next((name for name in self._values if name not in self._known), None)
        if unknown is None:
            return
        close = difflib.get_close_matches(unknown[:_QUOTED], sorted(self._known), n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        raise Refusal(
            f"unknown field {quoted(self.param(unknown))}{hint}",
            self.param(unknown[:_QUOTED]),
            code="unknown_parameter",
        )
