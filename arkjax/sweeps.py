"""Sweeps: studies of several runs, as the fields in which each differs from a common base.

A *point* is a mapping of dotted fields of a run's config to their values, such as
`{"team": "debate:rounds=3", "student.train.steps": 40}`. Points are combined by `product`, `zip`
and `chain`, which keep each once, in the order in which it first comes.

A file in `configs/sweeps/` has `get_config(arg)`, which gives one point as a whole config, and
`get_sweep(arg)`, which gives all points; most make both with `Sweep`.
"""

import builtins
import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from arkjax.config import load, nearest, to_dict
from arkjax.errors import ConfigError

Point = dict[str, Any]


def axis(field: str, values: Iterable[Any]) -> list[Point]:
    """The points of one field: one for each value."""
    return _once({field: value} for value in values)


def product(*axes: Sequence[Point]) -> list[Point]:
    """Every combination of a point of each axis; those of the last axis change fastest.

    Raises:
      ConfigError: if two axes give one field different values.
    """
    return _once(_merged(points) for points in itertools.product(*axes))


def zip(*axes: Sequence[Point]) -> list[Point]:
    """The first points of all axes together, the second ones, and so on.

    Raises:
      ConfigError: if the axes are not equally long, or give one field different values.
    """
    lengths = [len(points) for points in axes]
    if len(set(lengths)) > 1:
        raise ConfigError(f"zip of axes of {lengths} points: they must have equally many")
    return _once(_merged(points) for points in builtins.zip(*axes, strict=True))


def chain(*sweeps: Sequence[Point]) -> list[Point]:
    """The points of all, one sweep after the other."""
    return _once(itertools.chain(*sweeps))


def _merged(points: Iterable[Point]) -> Point:
    merged: Point = {}
    for point in points:
        for field, value in point.items():
            if field in merged and merged[field] != value:
                raise ConfigError(
                    f"two axes give {field} different values, {merged[field]!r} and {value!r}: "
                    "name a field in one axis"
                )
            merged[field] = value
    return merged


def _once(points: Iterable[Point]) -> list[Point]:
    kept: dict[str, Point] = {}
    for point in points:
        # 1 and True, or 1 and 1.0, are not the same value of a field.
        kept.setdefault(json.dumps(to_dict(point), sort_keys=True), dict(point))
    return list(kept.values())


def applied(config: ConfigDict, point: Mapping[str, Any]) -> ConfigDict:
    """A copy of a config with the fields of a point; a mapping takes the place of a whole group.

    Raises:
      ConfigError: if the config has no such field.
    """
    made = config.copy_and_resolve_references()
    for field, value in point.items():
        *groups, name = field.split(".")
        holder: Any = made
        for depth, group in enumerate((*groups, name)):
            if not isinstance(holder, ConfigDict) or group not in holder:
                path = ".".join(("config", *groups[:depth]))
                hint = nearest(group, list(holder)) if isinstance(holder, ConfigDict) else ""
                raise ConfigError(f"{field}: {path} has no field {group!r}{hint}")
            if depth < len(groups):
                holder = holder[group]
        with holder.unlocked(), holder.ignore_type():
            holder[name] = ConfigDict(value) if isinstance(value, Mapping) else value
    return made


def difference(base: ConfigDict, other: ConfigDict) -> Point:
    """The point that makes `other` of `base`: `applied(base, difference(base, other))`."""
    point: Point = {}
    _difference(base, other, (), point)
    return point


def _difference(base: ConfigDict, other: ConfigDict, path: tuple[str, ...], point: Point) -> None:
    for name in other:
        # Placeholders give None here, and are compared as it.
        before, after = base.get(name), other.get(name)
        groups = isinstance(before, ConfigDict) and isinstance(after, ConfigDict)
        if groups and set(before) == set(after):
            _difference(before, after, (*path, name), point)
        elif to_dict(before) != to_dict(after) or type(before) is not type(after):
            value = after.to_dict() if isinstance(after, ConfigDict) else after
            point[".".join((*path, name))] = value


@dataclasses.dataclass(frozen=True)
class Study:
    """One run of a sweep.

    Attributes:
      choice: how an argument names it: `{"agents": "5"}`.
      embedded: in what it differs from `Sweep.common` on the embedded world; None: not there.
      agentark: the argument of `configs/agentark.py` that it stands for; None: not there.
      fields: in what it differs from that besides.
    """

    choice: Mapping[str, str]
    embedded: Point | None = None
    agentark: str | None = None
    fields: Point = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep on the embedded world, and on the paper's benchmarks and models.

    Its argument is `base=agentark` for the latter, with any options of `configs/agentark.py`, and
    for `get_config` what is chosen: `agents=5`, `base=agentark,agents=10,student=Qwen3-8B`.

    Attributes:
      name: of the sweep, with which the names of its runs begin.
      studies: its runs.
      common: what all runs on the embedded world change in `configs/quickstart.py`.
    """

    name: str
    studies: Sequence[Study]
    common: Point = dataclasses.field(default_factory=dict)

    def get_config(self, arg: str = "") -> ConfigDict:
        """The run that is chosen; without a choice the first one.

        Raises:
          ConfigError: if there is no such run, or the argument cannot be read.
        """
        base, choice, rest = self._read(arg)
        studies = self._of(base)
        for name, value in choice.items():
            known = list(dict.fromkeys(s.choice[name] for s in studies if name in s.choice))
            studies = [study for study in studies if study.choice.get(name) == value]
            if not studies:
                raise ConfigError(
                    f"argument {arg!r}: {name} is {value!r}{nearest(value, known)}: there are "
                    f"{', '.join(known) or 'no others'} among what is chosen"
                )
        return self._config(studies[0], base, rest)

    def get_sweep(self, arg: str = "") -> list[Point]:
        """All runs, as the fields in which each differs from `get_base(arg)`.

        Raises:
          ConfigError: as `get_config` does.
        """
        base, choice, rest = self._read(arg)
        chosen = [s for s in self._of(base) if choice.items() <= dict(s.choice).items()]
        start = self.get_base(arg)
        return _once(difference(start, self._config(study, base, rest)) for study in chosen)

    def get_base(self, arg: str = "") -> ConfigDict:
        """The config that the points of `get_sweep(arg)` are applied to."""
        base, _, rest = self._read(arg)
        return load(f"agentark:{rest}" if base == "agentark" else "quickstart")

    def _config(self, study: Study, base: str, rest: str) -> ConfigDict:
        if base == "agentark":
            config = load("agentark:" + ",".join(filter(None, (rest, study.agentark))))
            config = applied(config, study.fields)
        else:
            config = applied(load("quickstart"), {**self.common, **(study.embedded or {})})
        where = ["agentark"] if base == "agentark" else []
        config.name = "-".join((self.name, *where, *study.choice.values()))
        return config

    def _of(self, base: str) -> list[Study]:
        return [study for study in self.studies if getattr(study, base) is not None]

    def _read(self, arg: str) -> tuple[str, dict[str, str], str]:
        """The base, what is chosen, and what is left for the base."""
        base, choice, rest = "embedded", {}, []
        names = list(dict.fromkeys(name for study in self.studies for name in study.choice))
        for part in filter(None, (item.strip() for item in (arg or "").split(","))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                raise ConfigError(f"argument {arg!r}: {part!r} must be written NAME=VALUE")
            if name == "base":
                base = value
            elif name in names:
                choice[name] = value
            else:
                rest.append(part)
        if base not in ("embedded", "agentark"):
            near = nearest(base, ["embedded", "agentark"])
            raise ConfigError(
                f"argument {arg!r}: base is {base!r}{near}: it is embedded or agentark"
            )
        if rest and base == "embedded":
            name = rest[0].partition("=")[0].strip()
            known = [*names, "base"]
            raise ConfigError(
                f"argument {arg!r}: there is no option {name!r}{nearest(name, known)}: there are "
                f"{', '.join(known)}, and with base=agentark those of configs/agentark.py"
            )
        return base, choice, ",".join(rest)
