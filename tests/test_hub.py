"""Without a network the Hub is given up in a second or two; what was fetched before is taken."""

import socket
import sys
import time
import types

import pytest

from arkjax import hub
from arkjax.errors import DataError
from arkjax.models.huggingface.hub import checkpoint_folder
from arkjax.tasks.registry import get_task

pytestmark = pytest.mark.fast


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """A Hub whose address refuses every connection; the list of the waits between tries."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.delenv("ARKJAX_DATASETS", raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        waits = []
        monkeypatch.setattr(time, "sleep", waits.append)
        huggingface_hub.close_session()
        yield waits
        huggingface_hub.close_session()


@pytest.mark.parametrize(
    "fetch",
    [
        lambda: checkpoint_folder("hf:owner/name"),
        lambda: get_task("gsm8k").load("test"),
        lambda: get_task("gsm8k").load("test", source="hf:owner/name"),
    ],
)
def test_a_refused_connection_ends_after_two_tries(refused, caplog, capfd, fetch):
    with pytest.raises(DataError) as error:
        fetch()
    said = str(error.value)
    assert "cannot be reached, connection refused" in said and "hf download" in said
    assert "\n" not in said
    assert refused == [1.0]
    assert "Retry" not in caplog.text + capfd.readouterr().err


def test_a_checkpoint_that_was_fetched_before_is_taken(refused, tmp_path):
    repo = tmp_path / "cache" / "models--owner--name"
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    assert checkpoint_folder("hf:owner/name") == repo / "snapshots" / "abc"


def answering(monkeypatch, *errors):
    """A Hub that answers the first calls with these errors; None: as it should."""
    left = list(errors)

    def head(url, timeout):
        if (error := left.pop(0)) is not None:
            raise error

    fake = types.ModuleType("huggingface_hub")
    fake.HfApi = lambda: types.SimpleNamespace(endpoint="https://hub.invalid")
    fake.get_session = lambda: types.SimpleNamespace(head=head)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return left


def test_a_name_that_does_not_resolve_is_asked_for_twice(monkeypatch):
    unknown = RuntimeError("connection failed")
    unknown.__cause__ = socket.gaierror(-2, "Name or service not known")
    left = answering(monkeypatch, unknown, unknown, None)
    with pytest.raises(ConnectionError, match="its name does not resolve: Name or service not"):
        hub.check_reachable()
    assert left == [None]


def test_a_flaky_network_is_left_to_those_who_try_again(monkeypatch):
    left = answering(monkeypatch, TimeoutError("timed out"), None)
    hub.check_reachable()
    assert left == [None]
    left = answering(monkeypatch, socket.gaierror(-3, "Temporary failure"), None)
    hub.check_reachable()
    assert left == []
