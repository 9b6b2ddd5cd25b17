"""What became of every record: the account that has to add up."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from arkjax.errors import DataError
from arkjax.synthesis.counts import Counts, Passed

DEAD, SHARD = "dead_", "dead_shard"
_FILTERS = ("gate", "agreement", "finished", "distinct", "limit", "form", "near_duplicates")


@dataclasses.dataclass
class Tally:
    """A part of the account, or all of it.

    Attributes:
      records: how many, by what became of them: "shards" and "calls" came in; "dead_shard" shards,
        and the calls of "dead_row_group", "dead_row" and "dead_problem", are dead letters;
        "repeated" calls were there already, "told_differently" of them with other content;
        "foreign" are in another tokenizer; "actions" are words of tools. "dead_letters" counts
        letters, whatever they stand for.
      counts: what the filters did with all other calls.
      shards: name, number of examples and SHA-256 of what was written.
    """

    records: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    counts: Counts = dataclasses.field(default_factory=Counts)
    shards: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def dead(self, letter: Mapping[str, Any]) -> None:
        """Count a dead letter."""
        self.records[DEAD + letter["kind"]] += 1 if letter["kind"] == "shard" else letter["calls"]
        self.records["dead_letters"] += 1

    def add(self, other: "Tally") -> None:
        """Add another part of the account."""
        self.records.update(other.records)
        add_counts(self.counts, other.counts)
        self.shards.update(other.shards)

    def plain(self) -> dict[str, Any]:
        """As JSON says it."""
        counts = dataclasses.asdict(self.counts)
        ordered = sorted(counts["filters"], key=lambda n: (n not in _FILTERS, _order(n), n))
        counts["filters"] = {name: counts["filters"][name] for name in ordered}
        counts["forms"] = dict(sorted(counts["forms"].items()))
        shards = dict(sorted(self.shards.items()))
        return {"records": dict(sorted(self.records.items())), "counts": counts, "shards": shards}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Tally":
        """What `plain` gave."""
        fields = dict(told["counts"])
        filters = {name: Passed(**passed) for name, passed in fields.pop("filters").items()}
        counts = Counts(**fields, filters=filters)
        return cls(collections.Counter(told["records"]), counts, dict(told["shards"]))

    def check(self, shards: int) -> None:
        """Make sure that everything that came in is accounted for.

        Args:
          shards: how many were given.

        Raises:
          DataError: naming the sum that does not come out.
        """
        r, c = self.records, self.counts
        dead = {n: r[n] for n in (DEAD + k for k in ("row_group", "row", "problem"))}
        dropped = {name: passed.calls_dropped for name, passed in c.filters.items()}
        written = sum(shard.get("examples", 0) for shard in self.shards.values())
        letters = sum(shard.get("letters", 0) for shard in self.shards.values())
        left_out = {name: r[name] for name in ("repeated", "foreign", "actions")}
        _equal("shards given", shards, {"read": r["shards"], SHARD: r[SHARD]})
        _equal("calls read", r["calls"], {**dead, **left_out, "selected from": c.calls})
        _equal("calls selected from", c.calls, {**dropped, "examples": c.examples})
        _equal("examples", c.examples, {"written": written})
        _equal("dead letters", r["dead_letters"], {"written": letters})


def total(parts: Iterable[Tally]) -> Tally:
    """The sum of the parts of an account, whatever their order."""
    whole = Tally()
    for part in parts:
        whole.add(part)
    return whole


def add_counts(into: Counts, other: Counts) -> None:
    """Add what the filters did with other problems."""
    for field in dataclasses.fields(Counts):
        value = getattr(other, field.name)
        if isinstance(value, int):
            setattr(into, field.name, getattr(into, field.name) + value)
    for name, times in other.forms.items():
        into.form(name, times)
    for name, passed in other.filters.items():
        known = into.filters.setdefault(name, Passed())
        for field in dataclasses.fields(Passed):
            more = getattr(known, field.name) + getattr(passed, field.name)
            setattr(known, field.name, more)


def _order(name: str) -> int:
    return _FILTERS.index(name) if name in _FILTERS else len(_FILTERS)


def _equal(what: str, came: int, became: Mapping[str, int]) -> None:
    if came == sum(became.values()):
        return
    told = " + ".join(f"{number:,} {name}" for name, number in became.items())
    raise DataError(
        f"the account does not add up: {came:,} {what}, but {told}: nothing was kept; run it "
        "again, and report it if it comes out the same"
    )
