"""Configs: files of plain data, overridden on the command line, built into frozen dataclasses.

Every mistake is found before any work starts, and named by its dotted field.
"""

import ast
import dataclasses
import difflib
import enum
import inspect
import os
import re
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from arkjax.errors import ArkJAXError, ConfigError
from arkjax.shipped import shipped_root
from arkjax.storage import named_fields, plain

T = TypeVar("T")

_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
_OVERRIDE = re.compile(r"--(?:no)?config\.([^=]+)(=.*)?$", re.DOTALL)


def nearest(name: str, names: Sequence[str]) -> str:
    """` (did you mean 'x'?)` for the most similar of `names`, else an empty string."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def load(spec: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Run a config file's `get_config` and apply command-line overrides to what it returns.

    Args:
      spec: a path (`x.py`, or `x.py:arg` to call `get_config("arg")`), or the name of a shipped
        config (`quickstart`, `configs/quickstart.py`, `teams/debate:5`); those in `sweeps/` also
        go by their names alone (`embedded_study`).
      overrides: `--config.a.b=value`; the value is parsed as the type that the field has.

    Raises:
      ConfigError: if there is no such file, it fails, or an override names no field or does not
        parse as the field's type.
    """
    name, colon, argument = spec.partition(":")
    path = _find(name)
    config = _run(path, [argument] if colon else [])
    return _override(config, overrides)


def shown(spec: str) -> str:
    """What `load` takes, as another machine takes it too: shipped configs by their names."""
    name, colon, argument = spec.partition(":")
    path, shipped = _find(name).resolve(), (shipped_root() / "configs").resolve()
    if path.is_relative_to(shipped):
        name = path.relative_to(shipped).with_suffix("").as_posix()
    return f"{name}{colon}{argument}"


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_root() / "configs"
    known = sorted(file.relative_to(shipped).as_posix() for file in shipped.rglob("*.py"))
    relative = name.removeprefix("configs/")
    relative += "" if relative.endswith(".py") else ".py"
    # A sweep goes by its name alone where no other config has it.
    for place in (relative, f"sweeps/{relative}"):
        if place in known:
            return shipped / place
    if path.is_dir():
        raise ConfigError(f"--config {name} is a directory: pass a .py file in it")
    names = [file.removesuffix(".py") for file in known]
    listed = ", ".join(names) or "none"
    hint = nearest(relative.removesuffix(".py"), names)
    raise ConfigError(f"no config {name}{hint}: expected a .py file or a shipped config ({listed})")


def _run(path: Path, arguments: list[str]) -> ml_collections.ConfigDict:
    module = types.ModuleType(f"arkjax_config_{path.stem}")
    module.__file__ = os.fspath(path)
    try:
        exec(compile(path.read_bytes(), os.fspath(path), "exec"), module.__dict__)
        get_config = module.__dict__.get("get_config")
        if not callable(get_config):
            raise ConfigError(f"{path} has no function get_config")
        try:
            inspect.signature(get_config).bind(*arguments)
        except TypeError:
            given = f"the argument {arguments[0]!r}" if arguments else "no argument"
            raise ConfigError(
                f"{path}: get_config{inspect.signature(get_config)} was given {given}: "
                f"write `--config {path}" + ("`" if arguments else ":ARGUMENT`")
            ) from None
        config = get_config(*arguments)
    except ArkJAXError:
        raise
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename or path}: {error.strerror}") from error
    except Exception as error:
        # The user's own line is the one to mend, however deep below it the error was raised.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == os.fspath(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
    if isinstance(config, ml_collections.FrozenConfigDict):
        config = config.as_configdict()
    if not isinstance(config, ml_collections.ConfigDict):
        kind = type(config).__name__
        raise ConfigError(f"{path}: get_config must return a ConfigDict, not {kind}")
    return config


def _override(
    config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> ml_collections.ConfigDict:
    of_types = []
    for override in overrides:
        match = _OVERRIDE.match(override)
        if match is None:
            raise ConfigError(f"{override} is no override: write --config.FIELD=VALUE")
        if not _give_fields(config, match[1], match[2]):
            _check_override(config, match[1], override)
            of_types.append(override)
    overrides = of_types
    # A list of flags of its own: absl's global one belongs to the program that imports us.
    argv = ["arkjax", *overrides]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError) as error:
        failed = next((o for o in overrides if o.partition("=")[0] in str(error)), None)
        if failed is None:
            raise ConfigError(f"{' '.join(overrides)}: {error}") from error
        field = _OVERRIDE.match(failed)[1]
        raise ConfigError(f"{failed}: config.{field} must be {_kind(field, config)}") from error
    return config


def _give_fields(config: ml_collections.ConfigDict, field: str, text: str | None) -> bool:
    """Fill in what is None from a mapping of its fields, `{'rank': 8}`; whether this was that."""
    *path, name = field.split(".")
    holder: Any = config
    for part in path:
        holder = holder.get(part) if isinstance(holder, ml_collections.ConfigDict) else None
    if not isinstance(holder, ml_collections.ConfigDict) or name not in holder:
        return False
    try:
        given = ast.literal_eval((text or "=").removeprefix("="))
    except (SyntaxError, ValueError):
        return False
    if holder.get_type(name) is not type(None) or not isinstance(given, dict):
        return False
    with holder.ignore_type():
        holder[name] = ml_collections.ConfigDict(given)
    return True


def _check_override(config: ml_collections.ConfigDict, field: str, override: str) -> None:
    """Raise ConfigError unless `field` names something in `config` whose type is known."""
    holder: Any = config
    path = "config"
    for name in field.split("."):
        name, bracket, _ = name.partition("[")
        if not isinstance(holder, ml_collections.ConfigDict):
            raise ConfigError(f"{override}: {path} is {_name(holder)} and has no fields")
        if name not in holder:
            raise ConfigError(f"{override}: unknown field {path}.{name}" + _fields(name, holder))
        if bracket:
            try:
                config_path.get_value(field, config)
            except (AttributeError, LookupError, TypeError, ValueError):
                raise ConfigError(f"{override}: config.{field} does not exist") from None
            return
        path += f".{name}"
        kind = holder.get_type(name)
        holder = holder.get_oneway_ref(name).get() if kind is not type(None) else None
        if kind is type(None):
            fields = "{'FIELD': VALUE, ...}"
            raise ConfigError(
                f"{override}: {path} is None in the config, which does not say its type: if it has "
                f'fields, give them all, --{path}="{fields}"; else write '
                "ml_collections.config_dict.placeholder(TYPE) in the config file"
            )
        if issubclass(kind, list):
            raise ConfigError(
                f"{override}: {path} is a list, which has no form on the command line: "
                "make it a tuple in the config"
            )


def _kind(field: str, config: ml_collections.ConfigDict) -> str:
    """What the command line must say for `field`, with the value it has in the config."""
    try:
        kind, value = config_path.get_type(field, config), config_path.get_value(field, config)
    except (LookupError, TypeError, ValueError):
        return "a field of the config"
    now = "" if value is None or isinstance(value, ml_collections.ConfigDict) else f", as {value!r}"
    return _WORDS.get(kind, f"a {kind.__name__}") + now


def _fields(name: str, names: Sequence[str] | Mapping) -> str:
    return nearest(name, [str(n) for n in names]) or f": there are {', '.join(map(str, names))}"


def build(cls: type[T], config: Any, path: str = "config") -> T:
    """Make a frozen dataclass from a config, strictly: every field is known and of its type.

    Fields without a default must be there. A class with a `from_config(config, path)` class method
    builds itself. An int is taken for a float, a bool never for a number.

    Args:
      cls: the dataclass; its fields may be scalars, tuples, mappings, optionals, literals, enums,
        paths and other dataclasses.
      config: a ConfigDict or mapping of the fields.
      path: what to call `config` in messages.

    Raises:
      ConfigError: naming the dotted field, what was found and what was expected.
    """
    if isinstance(config, cls):
        return config
    if not isinstance(config, (Mapping, ml_collections.ConfigDict)):
        fields = ", ".join(field.name for field in dataclasses.fields(cls))
        raise ConfigError(f"{path} is {_name(config)}: expected the fields {fields}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    given = list(config.keys())
    for name in given:
        if name not in fields:
            raise ConfigError(f"unknown field {path}.{name}" + _fields(str(name), list(fields)))
    values = {}
    for name, field in fields.items():
        if name in given:
            values[name] = _convert(hints[name], _get(config, name, path), f"{path}.{name}")
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{path}.{name} is missing: expected {_expected(hints[name])}")
    try:
        return cls(**values)
    except (ArkJAXError, ValueError, TypeError) as error:
        raise ConfigError(_located(str(error), path, fields)) from error


def _located(message: str, path: str, fields: Mapping) -> str:
    """What a dataclass says against its fields, under the dotted names that these have here.

    It may know some of its place, as in "student.lr is 0", or begin with a field: "lr is 0".
    """
    parts = path.split(".")
    for known in range(len(parts)):
        if message.startswith(".".join(parts[known:]) + "."):
            return ".".join([*parts[:known], message])
    first = re.match(r"(\w+)(?: is |[.:\[])", message)
    return f"{path}.{message}" if first and first[1] in fields else f"{path}: {message}"


def _get(config: Any, name: str, path: str) -> Any:
    try:
        return config[name]
    except ml_collections.config_dict.RequiredValueError:
        raise ConfigError(
            f"{path}.{name} must be set: pass --{path}.{name}=VALUE or set it in the config file"
        ) from None


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `hint`. Raises ConfigError at `path` if it is not of it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return to_dict(value)
    if hasattr(hint, "from_config"):
        return value if isinstance(value, hint) else hint.from_config(value, path)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path)
    if origin is typing.Annotated:
        return _convert(arguments[0], value, path)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, arguments, value, path)
    if origin is Literal:
        # 1 == True in Python, but not in a config.
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        hint_text = nearest(value, [str(a) for a in arguments]) if isinstance(value, str) else ""
        raise ConfigError(f"{path} is {value!r}{hint_text}: expected {_expected(hint)}")
    if (origin or hint) in (tuple, list, Sequence):
        return _convert_sequence(hint, origin or hint, arguments, value, path)
    if (origin or hint) in (dict, Mapping):
        if isinstance(value, (Mapping, ml_collections.ConfigDict)):
            item = arguments[1] if arguments else Any
            return {str(k): _convert(item, _get(value, k, path), f"{path}.{k}") for k in value}
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        if isinstance(value, hint):
            return value
        if value in {member.value for member in hint}:
            return hint(value)
    elif hint is Path:
        if isinstance(value, (str, os.PathLike)):
            return Path(value)
    elif hint is None or hint is type(None):
        if value is None:
            return None
    elif isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise ConfigError(f"{path} is {_name(value)}: expected {_expected(hint)}")


def _convert_union(hint: Any, choices: tuple, value: Any, path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    choices = tuple(choice for choice in choices if choice is not type(None))
    if len(choices) == 1 and value is not None:
        return _convert(choices[0], value, path)
    if (fitting := _fitting(choices, value)) is not None:
        return build(fitting, value, path)
    for choice in choices:
        try:
            return _convert(choice, value, path)
        except ConfigError:
            continue
    raise ConfigError(f"{path} is {_name(value)}: expected {_expected(hint)}")


def _fitting(choices: tuple, value: Any) -> Any:
    """The one of several dataclasses that has most of the fields given, so that errors name it."""
    classes = [choice for choice in choices if dataclasses.is_dataclass(choice)]
    if len(classes) < 2 or not isinstance(value, (Mapping, ml_collections.ConfigDict)):
        return None
    names = {choice: {field.name for field in dataclasses.fields(choice)} for choice in classes}
    # Of two that have as many, the one with fewer that are not given.
    given = set(value.keys())
    return max(classes, key=lambda c: (len(given & names[c]), -len(names[c] - given)))


def _convert_sequence(hint: Any, kind: Any, items: tuple, value: Any, path: str) -> Any:
    if not isinstance(value, (tuple, list)):
        raise ConfigError(f"{path} is {_name(value)}: expected {_expected(hint)}")
    if kind is tuple and items and items[-1] is not Ellipsis:
        if len(value) != len(items):
            raise ConfigError(f"{path} has {len(value)} items: expected {_expected(hint)}")
    else:
        items = (items[0] if items else Any,) * len(value)
    made = [
        _convert(item, element, f"{path}[{i}]")
        for i, (item, element) in enumerate(zip(items, value, strict=True))
    ]
    return made if kind is list else tuple(made)


def _name(value: Any) -> str:
    if isinstance(value, (Mapping, ml_collections.ConfigDict)):
        return "a group of fields"
    return f"{value!r} ({type(value).__name__})" if value is not None else "None"


def _expected(hint: Any) -> str:
    """What values a type annotation takes, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if hint is None or hint is type(None):
        return "None"
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(repr(argument) for argument in arguments)
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        return f"a tuple, each item {_expected(arguments[0])}"
    if origin is tuple:
        return f"a tuple of {len(arguments)} ({', '.join(map(_expected, arguments))})"
    if dataclasses.is_dataclass(hint):
        return "a group with the fields " + ", ".join(f.name for f in dataclasses.fields(hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(repr(member.value) for member in hint)
    return f"a {getattr(origin or hint, '__name__', hint)}"


def to_dict(value: Any) -> Any:
    """Dataclasses, ConfigDicts and mappings as plain dicts and lists that JSON can say."""
    if isinstance(value, ml_collections.ConfigDict):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_dict(item) for name, item in named_fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    return plain(value)
