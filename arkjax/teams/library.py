"""Teams by name: the shipped configs, config files of users, and constructors for notebooks."""

import importlib.util
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import ConfigError
from arkjax.shipped import shipped_path
from arkjax.teams.fields import unknown_name
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import BARE

BARE_ROLE = BARE
"""The role of an agent that has none: the byline under which a lone model answers."""

# What shipped teams were called when older runs were made.
_RENAMED = {"single": "vanilla", "samples": "self_consistency"}


def load(name: str) -> TeamSpec:
    """The team of a shipped config or a config file; options follow after a colon.

    `load("debate")`, `load("debate:rounds=3,temperature=0.9")`, `load("my/team.py:agents=7")`.

    Raises:
      ConfigError: if there is no such team, or its config or argument is wrong.
    """
    return TeamSpec.from_config(load_config(name), path=f"team {name}")


def load_config(name: str) -> Any:
    """The ConfigDict behind `load(name)`. Runs the named config file, and no other code."""
    base, _, arg = name.partition(":")
    path = Path(base)
    if path.suffix != ".py":
        folder = shipped_path("configs/teams")
        path = folder / f"{base}.py"
        if not path.is_file() and base in _RENAMED:
            raise ConfigError(f"team: {base!r} is called {_RENAMED[base]!r} now: write that")
        if not path.is_file():
            known = [p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")]
            raise unknown_name("team", base, known, "shipped team")
    elif not path.is_file():
        raise ConfigError(f"team config {base} does not exist: give the path of a config file")
    module_spec = importlib.util.spec_from_file_location(f"arkjax_team_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise _failure(path, error) from error
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} defines no get_config(arg): it is not a team config")
    try:
        return module.get_config(arg)
    except ConfigError:
        raise
    except Exception as error:
        given = f" with the argument {arg!r}" if arg else ""
        raise _failure(path, error, given) from error


def _failure(path: Path, error: Exception, given: str = "") -> ConfigError:
    """What went wrong in a team's config, and in which of its lines."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f"{path}:{lines[-1]}" if lines else str(path)
    return ConfigError(f"{where}{given}: {type(error).__name__}: {error}")


def vanilla(temperature: float = 0.0, max_tokens: int | None = None) -> TeamSpec:
    """One agent, one call: by default the most probable answer."""
    return _spec("vanilla", None, temperature=temperature, max_tokens=max_tokens)


def self_consistency(
    n: int = 8, temperature: float | None = None, max_tokens: int | None = None
) -> TeamSpec:
    """`n` samples of one agent, which vote."""
    return _spec("self_consistency", None, n=n, temperature=temperature, max_tokens=max_tokens)


def roles(
    roles: Sequence[str] | None = None,
    n: int = 1,
    temperature: float | None = None,
    max_tokens: int | None = None,
) -> TeamSpec:
    """Agents of the given roles, by default the shipped experts, who vote without communication."""
    return _spec("roles", _agents(None, roles), n=n, temperature=temperature, max_tokens=max_tokens)


def debate(
    agents: int | None = None,
    rounds: int = 2,
    roles: Sequence[str] | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
) -> TeamSpec:
    """Agents answer, then read all answers and answer again, `rounds` rounds in all; they vote.

    Args:
      agents: number of agents without a role of their own; by default the shipped experts.
      rounds: how often everybody speaks, the first, independent answer included.
      roles: role texts, one an agent, in place of `agents`.
      temperature: of all agents.
      max_tokens: most tokens of one message.

    Raises:
      ConfigError: if a number is out of range, or `agents` and `roles` differ in number.
    """
    return _spec(
        "debate",
        _agents(agents, roles),
        rounds=rounds,
        temperature=temperature,
        max_tokens=max_tokens,
    )


def judge(
    agents: int | None = None,
    roles: Sequence[str] | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
) -> TeamSpec:
    """Agents answer independently; a judge reads all answers and decides."""
    chosen = _agents(agents, roles)
    return _spec("judge", chosen, temperature=temperature, max_tokens=max_tokens)


def debate_judge(
    agents: int | None = None,
    rounds: int = 2,
    roles: Sequence[str] | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
) -> TeamSpec:
    """A debate as in `debate`, whose last round a judge reads and decides."""
    return _spec(
        "debate_judge",
        _agents(agents, roles),
        rounds=rounds,
        temperature=temperature,
        max_tokens=max_tokens,
    )


def _spec(name: str, agents: list[tuple[str, str]] | None, **options: Any) -> TeamSpec:
    """The shipped team of that name, its experts exchanged for (id, role) pairs where given."""
    arg = ",".join(f"{key}={value}" for key, value in options.items() if value is not None)
    config = load_config(f"{name}:{arg}")
    if agents is not None:
        expert = next(agent for agent in config.agents if agent.get("tags"))
        others = [agent for agent in config.agents if not agent.get("tags")]
        config.agents = [{**expert, "id": id_, "role": role} for id_, role in agents] + others
    return TeamSpec.from_config(config, path=f"team {name}")


def _agents(count: int | None, roles: Sequence[str] | None) -> list[tuple[str, str]] | None:
    if roles is None and count is None:
        return None
    if count is not None and count < 1:
        raise ConfigError(f"agents is {count}: a team needs at least one")
    if roles is None:
        return [(f"agent-{i + 1}", BARE_ROLE) for i in range(count)]
    roles = list(roles)
    if not roles or count not in (None, len(roles)):
        raise ConfigError(f"agents is {count}, but there are {len(roles)} roles: leave agents out")
    if len(set(roles)) == len(roles) and all(re.fullmatch(r"\w+", role) for role in roles):
        # Bylines are good ids, and with these a team shares its calls with the shipped ones.
        return [(role, role) for role in roles]
    return [(f"agent-{i + 1}", role) for i, role in enumerate(roles)]
