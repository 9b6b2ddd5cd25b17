"""Fields of a config.json that somebody else wrote, checked as they are read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from arkjax.errors import DataError
from arkjax.models.huggingface.families import Family

LOCAL, GLOBAL = "sliding_attention", "full_attention"
_LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of a config.json, with the defaults of its family; reading one checks it.

    Attributes:
      source: path of the file, for messages.
      values: what it says.
      family: of the model that it describes.
    """

    source: str
    values: Mapping[str, Any]
    family: Family

    def get(self, name: str) -> Any:
        """What the file says, or what the family takes where it says nothing."""
        return self.values.get(name, self.family.defaults.get(name))

    def wrong(self, name: str, expected: str) -> DataError:
        """The error for a field that is something else."""
        found = "nothing" if self.get(name) is None else str(self.get(name))[:100]
        return DataError(
            f"{self.source}: {name} of {self.family.architecture} should be {expected}, found "
            f"{found}; take the config.json that belongs to the checkpoint"
        )

    def integer(self, name: str, most: int = _LARGEST) -> int:
        """An integer from 1 to `most`."""
        value = self.get(name)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not 1 <= value <= most:
            raise self.wrong(name, f"an integer from 1 to {most:,}")
        return value

    def number(self, name: str) -> float:
        """A positive, finite number."""
        value = self.get(name)
        if type(value) not in (int, float) or not 0 < value < 1e12:
            raise self.wrong(name, "a positive number")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.get(name)
        if type(value) is not bool:
            raise self.wrong(name, "true or false")
        return value
