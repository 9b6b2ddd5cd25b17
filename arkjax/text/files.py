"""The files of a Hugging Face checkpoint that say how its text becomes tokens."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from arkjax.errors import DataError
from arkjax.storage import content_hash, sha256_file

TOKENIZER_JSON = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"
CONFIG = "tokenizer_config.json"
_GENERATION = "generation_config.json"
_TEMPLATE = "chat_template.jinja"
_TEMPLATE_JSON = "chat_template.json"
_TEMPLATE_FOLDER = "additional_chat_templates"
_NAMES = (
    TOKENIZER_JSON,
    SENTENCEPIECE,
    CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    _TEMPLATE,
    _TEMPLATE_JSON,
    _GENERATION,
)
# In the order in which `transformers` hands them to templates.
_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text before the model of the tokenizer sees it.

    Attributes:
      text: what stands for it in a text.
      id: its id, or None where the tokenizer is to choose.
      special: whether it controls the model; it is then found only on request.
      lstrip, rstrip: whether it takes the white space before or after it with it.
      single_word: whether it is found only between other characters than letters and digits.
      normalized: whether it is searched for in the normalized text.
    """

    text: str
    id: int | None
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


@dataclasses.dataclass(frozen=True)
class Settings:
    """What lies beside the vocabulary of a tokenizer.

    Attributes:
      named: special tokens by their role, such as "bos_token", as text.
      added: tokens that the vocabulary may lack.
      end_ids: ids that end a generation, as generation_config.json has them.
      legacy: whether SentencePiece puts a space before each piece of text between special tokens,
        and not only at the start.
    """

    named: Mapping[str, str] = dataclasses.field(default_factory=dict)
    added: tuple[AddedToken, ...] = ()
    end_ids: tuple[int, ...] = ()
    legacy: bool = False


def tokenizer_files(folder: str | Path) -> tuple[Path, ...]:
    """The files of a checkpoint folder that a copy of its tokenizer needs, chat templates included.

    Raises:
      DataError: if there is neither a tokenizer.json nor a tokenizer.model.
    """
    folder = Path(folder)
    found = [folder / name for name in _NAMES if (folder / name).is_file()]
    if not {TOKENIZER_JSON, SENTENCEPIECE} & {path.name for path in found}:
        raise DataError(
            f"no tokenizer in {folder}: expected {TOKENIZER_JSON} or {SENTENCEPIECE}; copy them "
            "from the checkpoint that the model comes from"
        )
    return (*found, *sorted((folder / _TEMPLATE_FOLDER).glob("*.jinja")))


def tokenizer_hash(folder: str | Path) -> str:
    """SHA-256 over the names and contents of `tokenizer_files`.

    Of generation_config.json only the end tokens count: how to sample is no matter of the
    tokenizer. A folder with one file has the hash of that file.
    """
    folder = Path(folder)
    files = {path.relative_to(folder).as_posix(): path for path in tokenizer_files(folder)}
    generation = files.pop(_GENERATION, None)
    hashes: dict[str, Any] = {name: sha256_file(path) for name, path in files.items()}
    if generation is not None:
        hashes[_GENERATION] = _end_ids(generation)
    return next(iter(hashes.values())) if len(hashes) == 1 else content_hash(hashes)


def read_settings(folder: Path) -> Settings:
    """Settings of the tokenizer in `folder`; a file that is not there says nothing.

    Raises:
      DataError: if a file is damaged, or holds something else than it should.
    """
    config = _read_optional(folder / CONFIG)
    listed = config.get("added_tokens_decoder")
    if listed is None:
        # Older checkpoints spread the same over two files more.
        config = {**config, **_read_optional(folder / "special_tokens_map.json")}
        listed = {
            index: {"content": text, "special": False}
            for text, index in _read_optional(folder / "added_tokens.json").items()
        }
    source = folder / CONFIG
    named = {
        role: _text(source, role, value)
        for role, value in config.items()
        if role.endswith("_token") and isinstance(value, (str, dict))
    }
    named = {role: named[role] for role in sorted(named, key=_role_order)}
    extra = _extra_tokens(source, config)
    special = {*named.values(), *extra}
    added = [_added_token(source, index, token, special) for index, token in _items(source, listed)]
    known = {token.text for token in added}
    added += [
        AddedToken(text, None, True)
        for text in dict.fromkeys([*named.values(), *extra])
        if text not in known
    ]
    generation = folder / _GENERATION
    return Settings(
        named=named,
        added=tuple(sorted(added, key=lambda token: (token.id is None, token.id or 0))),
        end_ids=tuple(_end_ids(generation)) if generation.is_file() else (),
        legacy=config.get("legacy") is True,
    )


def read_templates(folder: Path) -> tuple[dict[str, str], Path]:
    """Chat templates by name, "default" first, and the file or folder that they come from.

    A chat_template.jinja and the folder beside it come before chat_template.json, and this before
    tokenizer_config.json.

    Raises:
      DataError: if there is none, or a file is damaged.
    """
    files = {path.stem: path for path in sorted((folder / _TEMPLATE_FOLDER).glob("*.jinja"))}
    if (folder / _TEMPLATE).is_file():
        files = {"default": folder / _TEMPLATE, **files}
    if files:
        source = folder if len(files) > 1 else next(iter(files.values()))
        return {name: read_text(path) for name, path in files.items()}, source
    for name in (_TEMPLATE_JSON, CONFIG):
        path = folder / name
        templates = _read_optional(path).get("chat_template")
        if templates is not None:
            return _named_templates(path, templates), path
    raise DataError(
        f"no chat template in {folder}: expected {_TEMPLATE}, or a field chat_template in {CONFIG}"
        "; take a checkpoint that was tuned for chats, or add its template as that file"
    )


def has_chat_template(folder: str | Path) -> bool:
    """Whether a checkpoint folder has a chat template.

    Raises:
      DataError: if a file that could hold one is damaged.
    """
    folder = Path(folder)
    return (
        (folder / _TEMPLATE).is_file()
        or any((folder / _TEMPLATE_FOLDER).glob("*.jinja"))
        or any(
            _read_optional(folder / name).get("chat_template") is not None
            for name in (_TEMPLATE_JSON, CONFIG)
        )
    )


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
      DataError: if it is missing or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}{_remedy(path)}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      DataError: if the file is missing or damaged, or holds something else.
    """
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}{_remedy(path)}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _remedy(path: Path) -> str:
    """What to do about a file that cannot be read, by how it begins."""
    try:
        with path.open("rb") as handle:
            start = handle.read(64)
    except OSError:
        return "; copy it from the checkpoint that it belongs to"
    if start.startswith(b"version https://git-lfs"):
        return "; it is a Git LFS pointer: run `git lfs pull` where it comes from"
    if start.startswith((b"\x80", b"PK\x03\x04")):
        return "; it looks like a pickle, which is never loaded: take the checkpoint's own file"
    return "; it is damaged or incomplete: download it again"


def damaged(path: Path, kind: str, error: BaseException | str) -> DataError:
    """The error for a vocabulary that a library cannot load."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(f"{path} is not {kind}: {first}{_remedy(path)}")


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _role_order(role: str) -> int:
    return _ROLES.index(role) if role in _ROLES else len(_ROLES)


def _items(source: Path, listed: Any) -> Iterable[tuple[Any, Any]]:
    if not isinstance(listed, dict):
        raise DataError(f"{source}: added_tokens_decoder is not an object from ids to tokens")
    return listed.items()


def _text(source: Path, field: str, value: Any) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text:
        raise DataError(f"{source}: {field} is {value!r}, expected a token's text")
    return text


def _extra_tokens(source: Path, config: Mapping[str, Any]) -> list[str]:
    extra: list[str] = []
    for field in ("additional_special_tokens", "extra_special_tokens"):
        values = config.get(field) or []
        values = list(values.values()) if isinstance(values, dict) else values
        if not isinstance(values, list):
            raise DataError(f"{source}: {field} is {values!r}, expected a list of tokens")
        extra += [_text(source, field, value) for value in values]
    return extra


def _added_token(source: Path, index: Any, token: Any, special: set[str]) -> AddedToken:
    text = _text(source, f"added_tokens_decoder[{index!r}]", token)
    try:
        number = int(index)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < 2**31:
        raise DataError(f"{source}: the token {text!r} has the id {index!r}, expected a number")
    flags = {flag: token.get(flag) is True for flag in _FLAGS} if isinstance(token, dict) else {}
    is_special = text in special or (isinstance(token, dict) and token.get("special") is True)
    return AddedToken(text, number, is_special, **flags)


def _end_ids(path: Path) -> list[int]:
    value = read_json(path).get("eos_token_id")
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in values):
        raise DataError(f"{path}: eos_token_id is {value!r}, expected an id or a list of ids")
    return values


def _named_templates(path: Path, templates: Any) -> dict[str, str]:
    if isinstance(templates, str):
        return {"default": templates}
    try:
        if isinstance(templates, list):
            templates = {entry["name"]: entry["template"] for entry in templates}
        if templates and all(isinstance(part, str) for pair in templates.items() for part in pair):
            return dict(sorted(templates.items(), key=lambda pair: pair[0] != "default"))
    except (AttributeError, KeyError, TypeError):
        pass
    raise DataError(
        f"{path}: chat_template is neither a text nor a list of "
        '{"name": ..., "template": ...}; copy it again from the checkpoint'
    )
