"""A record of a data set, whose fields are read with errors that say what to mend."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.errors import DataError

_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")


@dataclasses.dataclass(frozen=True)
class Record:
    """One record, and where it stands.

    Attributes:
      value: its fields.
      file: of which file, or other source.
      place: where in it, such as "line 7".
      task: the task that reads it.
    """

    value: Mapping[str, Any]
    file: str
    place: str
    task: str

    def wrong(self, field: str, what: str) -> DataError:
        """The error that says what is wrong with a field."""
        return DataError(
            f"{self.file}, {self.place}, field {field!r}: {what}; task {self.task!r} reads its "
            "data set as it was published: mend the record, or give another source"
        )

    def has(self, field: str) -> bool:
        """Whether the field is there and is not null."""
        return self.value.get(field) is not None

    def any(self, *fields: str) -> Any:
        """The first of these fields that is there. Raises DataError if none is."""
        for field in fields:
            if self.has(field):
                return self.value[field]
        known = ", ".join(str(name)[:40] for name in list(self.value)[:12]) or "no fields"
        raise self.wrong(fields[0], f"it is missing (there are {known})")

    def text(self, *fields: str, empty: bool = False) -> str:
        """The text of the first of these fields that is there, without space around it.

        Raises:
          DataError: if there is none, or it is no text, or has no words and `empty` is False.
        """
        value = self.any(*fields)
        return self.words(value, fields[0], empty=empty)

    def words(self, value: Any, field: str, *, empty: bool = False) -> str:
        """A value as text without space around it. Raises DataError as `text`."""
        if not isinstance(value, str):
            raise self.wrong(field, f"expected text, found {type(value).__name__}")
        value = value.strip()
        if not value and not empty:
            raise self.wrong(field, "it is empty")
        return value

    def texts(self, *fields: str) -> list[str]:
        """A list of texts. Raises DataError if it is none, or a text of it is empty."""
        return [self.words(item, fields[0]) for item in self.items(*fields)]

    def items(self, *fields: str) -> list[Any]:
        """A list, which may be empty. Raises DataError if there is none."""
        value = self.any(*fields)
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self.wrong(fields[0], f"expected a list, found {type(value).__name__}")
        return list(value)

    def mapping(self, *fields: str) -> Mapping[str, Any]:
        """An object. Raises DataError if there is none."""
        value = self.any(*fields)
        if not isinstance(value, Mapping):
            raise self.wrong(fields[0], f"expected an object, found {type(value).__name__}")
        return value

    def number(self, *fields: str) -> str:
        """A number as its shortest text, "51" for 51.0 as well as for "51.0".

        A text may have commas between thousands, "3,000" or "1,234.5", where each group but the
        first has three digits; whole numbers are taken as they are, however long.

        Raises:
          DataError: if there is none.
        """
        value = self.any(*fields)
        text = value.strip() if isinstance(value, str) else value
        if isinstance(text, str) and _THOUSANDS.fullmatch(text):
            text = text.replace(",", "")
        try:
            if isinstance(text, bool):
                raise ValueError
            if isinstance(text, int) or (isinstance(text, str) and _WHOLE.fullmatch(text)):
                return str(int(text))
            number = float(text)
            if not math.isfinite(number):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(
                fields[0],
                f"expected a number such as 3000, 3,000 or 2.5, found {str(value)[:60]!r}",
            ) from None
        return str(int(number)) if number.is_integer() else repr(number)

    def part(self, value: Any, field: str) -> "Record":
        """A record within this one, in the field that errors shall name."""
        if not isinstance(value, Mapping):
            raise self.wrong(field, f"expected an object, found {type(value).__name__}")
        return dataclasses.replace(self, value=value, place=f"{self.place}, {field}")
