"""The small tokenizers and expected chats of tests/golden/chat, and `transformers` where it is."""

import functools
import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arkjax.text.templates import ChatTemplate
from arkjax.text.tokenizer import Tokenizer, load_tokenizer

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "chat"


@pytest.fixture(scope="session")
def parity() -> Any:
    """`transformers`, to compare with; ARKJAX_PARITY=1 demands that it is installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        if os.environ.get("ARKJAX_PARITY") == "1":
            pytest.fail(f"ARKJAX_PARITY is 1, but transformers cannot be imported: {error}")
        pytest.skip("transformers is not installed")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the committed tokenizers, templates and expected chats."""
    return GOLDEN


@pytest.fixture(scope="session")
def tokenizers() -> Callable[[str], Tokenizer]:
    """Loads a committed tokenizer once: a folder's name, or "llama2/tokenizer.model"."""
    return functools.cache(lambda name: load_tokenizer(GOLDEN / name))


@pytest.fixture(scope="session")
def chats() -> Callable[[str], dict[str, Any]]:
    """The expected chats of one template, as written by tests/golden/write_chat.py."""
    return functools.cache(lambda name: json.loads((GOLDEN / f"{name}.json").read_text("utf-8")))


@pytest.fixture(scope="session")
def templates(chats, tokenizers) -> Callable[[str], tuple[ChatTemplate, Tokenizer]]:
    """A committed template with the special tokens of its tokenizer, and this tokenizer."""

    @functools.cache
    def load(name: str) -> tuple[ChatTemplate, Tokenizer]:
        tokenizer = tokenizers(chats(name)["tokenizer"])
        text = (GOLDEN / "templates" / f"{name}.jinja").read_text("utf-8")
        return ChatTemplate(text, source=name, named_tokens=tokenizer.named_tokens), tokenizer

    return load


@pytest.fixture
def checkpoint(tmp_path) -> Callable[..., Path]:
    """A copy of a committed tokenizer's folder without the files named."""

    def copy(name: str, *without: str) -> Path:
        folder = tmp_path / "checkpoint"
        shutil.copytree(GOLDEN / name, folder)
        for file in without:
            (folder / file).unlink()
        return folder

    return copy
