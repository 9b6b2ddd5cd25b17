"""The argument of a team config: "rounds=3,temperature=0.9"."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from arkjax.errors import ConfigError
from arkjax.teams.fields import unknown_name


def options(arg: str, **defaults: Any) -> SimpleNamespace:
    """The defaults, with those that `arg` names replaced by its numbers or texts.

    A list is written "a+b+c".

    Raises:
      ConfigError: if `arg` names another option, or a value is not of the default's type.
    """
    values = dict(defaults)
    for part in filter(None, (item.strip() for item in (arg or "").split(","))):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if name not in defaults:
            raise unknown_name(f"argument {arg!r}", name, defaults, "option")
        kind = type(defaults[name])
        try:
            if not equals:
                raise ValueError
            values[name] = tuple(text.split("+")) if kind is tuple else kind(text)
        except ValueError:
            shown = "+".join(defaults[name]) if kind is tuple else repr(defaults[name])
            what = {int: "a whole number", tuple: "a list"}.get(kind, f"a {kind.__name__}")
            raise ConfigError(
                f"argument {arg!r}: {name} must be written {name}={shown}, with {what}"
            ) from None
    return SimpleNamespace(**values)


def cast(experts: Sequence[str], agents: int) -> list[tuple[str, str]]:
    """Ids and roles of so many agents, in the roles of these experts by turns.

    `cast(("watchman", "climber"), 3)` is a watchman, a climber and `("watchman-2", "watchman")`.

    Raises:
      ConfigError: if there is no agent, or no expert.
    """
    if agents < 1 or not experts or not all(experts):
        raise ConfigError(f"{agents} agents in the roles {experts}: a team needs at least one")
    turns = [divmod(i, len(experts)) for i in range(agents)]
    return [
        (f"{experts[role]}-{turn + 1}" if turn else experts[role], experts[role])
        for turn, role in turns
    ]
