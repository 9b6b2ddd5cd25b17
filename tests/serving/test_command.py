"""`arkjax serve` as a user starts it: ready line, key, signals, and what is wrong at the start."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from arkjax import cli
from arkjax.errors import ConfigError
from arkjax.extras import install
from arkjax.models.placement import save_model
from arkjax.sampling.params import Request, SamplingParams
from arkjax.serving import command

KEY = "sk-nobody-must-see-this"
READY = re.compile(r"(.+) is served at http://127\.0\.0\.1:(\d+)/v1\n")


@pytest.fixture(scope="module")
def checkpoint(speaker, golden, tmp_path_factory) -> Path:
    """The tiny model as a model directory."""
    path = tmp_path_factory.mktemp("models") / "tiny-chat"
    files = {file.name: file for file in (golden / "qwen").iterdir()}
    files["chat_template.jinja"] = golden / "templates" / "qwen3.jinja"
    save_model(path, speaker.model, {}, files)
    return path


@contextlib.contextmanager
def serving_process(
    arkjax_command, *arguments: object
) -> Iterator[tuple[subprocess.Popen, str, int]]:
    """A server in a process of its own, once it is ready: process, its model's name, its port."""
    process = arkjax_command.start("-m", "arkjax", "serve", *arguments, "--port=0")
    killer = threading.Timer(120, process.kill)
    killer.start()
    try:
        line = process.stdout.readline()
        found = READY.fullmatch(line)
        assert found, (line, process.communicate())
        yield process, found[1], int(found[2])
    finally:
        killer.cancel()
        process.kill()
        process.communicate()


def ask(port: int, body: dict, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    said = {"Content-Type": "application/json", **headers}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), said)
    return connection.getresponse()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_finish_and_exit_well(
    arkjax_command, serving, checkpoint, tmp_path, number
):
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    arguments = (checkpoint, "--context=256", "--slots=4", "--api-key-file", key)
    with serving_process(arkjax_command, *arguments) as (process, name, port):
        assert name == "tiny-chat"
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 200, "seed": 1}
        assert ask(port, body).status == 401
        right = {"Authorization": f"Bearer {KEY}"}
        whole = json.load(ask(port, body | {"ignore_eos": True}, **right))
        streamed = ask(port, body | {"ignore_eos": True, "stream": True}, **right)
        assert streamed.readline().startswith(b"data: ")
        process.send_signal(number)
        events = [line[6:] for line in streamed.read().splitlines() if line.startswith(b"data: ")]
        assert events[-1] == b"[DONE]"
        text = "".join(
            json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]
        )
        assert text == whole["choices"][0]["message"]["content"]
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        # The line that said it was ready was all there was to say.
        assert out == ""
        assert KEY not in err and "Traceback" not in err


def test_only_a_key_that_can_be_sent_is_taken(tmp_path):
    file = tmp_path / "key"
    assert command.read_key(None, {}) is None
    assert command.read_key(None, {command.KEY_VARIABLE: f" {KEY}\n"}) == KEY
    file.write_text(f"{KEY}\n")
    assert command.read_key(file, {command.KEY_VARIABLE: "another"}) == KEY
    for wrong in ("", "\n", f"{KEY}\nmore", "a b", "sk-ü"):
        file.write_text(wrong)
        for arguments in ((file, {}), (None, {command.KEY_VARIABLE: wrong})):
            with pytest.raises(ConfigError, match="holds no API key") as caught:
                command.read_key(*arguments)
            assert KEY not in str(caught.value)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="cannot be read"):
            command.read_key(path, {})
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        command.read_key(file, {})


def test_what_is_wrong_is_said_before_the_model_is_read(serving, tmp_path, capsys, monkeypatch):
    missing = str(tmp_path / "nothing")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert cli.main(["serve", missing, "--port", port]) == 2
        assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err
    assert cli.main(["serve", missing, "--host", "no.such.host.invalid"]) == 2
    assert "choose others with --host and --port" in capsys.readouterr().err
    assert cli.main(["serve", missing, "--port", "0"]) == 3
    assert "there is no model at" in capsys.readouterr().err
    for option in ("--slots=0", "--port=70000", "--context=a", "--max-quue=5"):
        assert cli.main(["serve", missing, option]) == 2
    assert "did you mean --max-queue?" in capsys.readouterr().err
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["serve", missing]) == 2
    assert install("serve") in capsys.readouterr().err


def test_a_model_is_served_in_int8_where_asked(serving, checkpoint, capsys, monkeypatch):
    pytest.importorskip("qwix")
    opened = []

    def interrupted(service):
        opened.append(service)
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "warm_up", interrupted)
    arguments = ["serve", str(checkpoint), "--port=0", "--context=64", "--slots=2"]
    assert cli.main([*arguments, "--cache=int8", "--weights=int8"]) == 130
    assert cli.main(arguments) == 130
    small, plain = (service.engine for service in opened)
    assert (small.config.cache, small.config.weights) == ("int8", "int8")
    assert (plain.config.cache, plain.config.weights) == ("model", "model")
    request = Request("a", (3, 4), 0, SamplingParams(max_tokens=2), 1)
    assert len(small.generate([request])[0].ids) == 2
    assert cli.main([*arguments, "--weights=int4"]) == 2
    assert "--weights" in capsys.readouterr().err


def test_who_can_be_reached_without_a_key_is_warned(capsys):
    for host, key, warned in [
        ("127.0.0.1", None, False),
        ("localhost", None, False),
        ("::1", None, False),
        ("0.0.0.0", KEY, False),
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("example.org", None, True),
    ]:
        command._warn_if_open(host, key)
        assert ("no API key is set" in capsys.readouterr().err) == warned, host


def test_the_command_line_does_not_wait_for_the_server_to_be_imported():
    program = (
        "import sys; from arkjax import cli; print(sorted({'aiohttp', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
