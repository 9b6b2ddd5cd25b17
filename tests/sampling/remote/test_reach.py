"""The way to a server: keys, certificates, proxies."""

import json
import logging
import re
import ssl
import subprocess
import sys
import traceback

import pytest

from arkjax.errors import ArkJAXError, ConfigError
from arkjax.extras import install
from arkjax.sampling.remote import RemoteConfig, RemoteGenerator

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("shift", [0, 16])
@pytest.mark.parametrize("kind", ["401", "400", "500", "307", "200"])
def test_the_key_is_in_no_message(toy, serve, connect, monkeypatch, caplog, capfd, kind, shift):
    """Nor in what is logged, printed or shown of the generator, though the server repeats it."""
    key = "sk-unspeakable.42"
    monkeypatch.setenv("TOY_KEY", f" {key}\n")
    message = f"you sent AUTHORIZATION, that is {key} {'.' * (shift + 230)} {key}"
    body = json.dumps({"error": {"message": message}}).encode()
    trouble = {"status": int(kind), "body": body}
    if kind == "200":
        trouble = {"edit": lambda reply: {"choices": [{"finish_reason": key}]}}
    server = serve(trouble=lambda body, attempt: trouble, key=key)
    with caplog.at_level(logging.DEBUG):
        model = connect(server, api_key_env="TOY_KEY", retries=0)
        with pytest.raises(ArkJAXError) as error:
            model.generate([toy.request()])
    shown = "".join(traceback.format_exception(error.value))
    assert "***" in str(error.value)
    out = capfd.readouterr()
    for text in (shown, repr(error.value), caplog.text, out.out, out.err, repr(vars(model))):
        assert "unsp" not in text
    server.trouble = lambda body, attempt: None
    toy.check(model.generate([toy.request()]), [toy.request()])


def test_a_key_is_needed_where_one_is_named(monkeypatch):
    config = RemoteConfig("https://api.example.com/v1", "toy", api_key_env="TOY_KEY")
    monkeypatch.delenv("TOY_KEY", raising=False)
    with pytest.raises(ConfigError, match="variable TOY_KEY is not set"):
        RemoteGenerator(config)
    monkeypatch.setenv("TOY_KEY", "a\nb: c")
    with pytest.raises(ConfigError, match="TOY_KEY holds characters that no key has"):
        RemoteGenerator(config)


def test_without_aiohttp_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    remedy = re.escape(install("serve"))
    with pytest.raises(ConfigError, match=f"need the package aiohttp, .*{remedy}"):
        RemoteGenerator(RemoteConfig("https://api.example.com/v1", "toy"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"url": "http://10.0.0.9:8000/v1", "api_key_env": "K"}, "carry the key in K unencrypted"),
        ({"url": "http://localhost.evil.com/v1", "api_key_env": "K"}, "unencrypted"),
        ({"url": "ftp://a/v1"}, "must be http"),
        ({"url": "http://me:secret7@a/v1"}, "no user"),
        ({"url": "http://a/v1?key=secret7"}, "no user"),
        ({"url": "http:///v1"}, "must be http"),
        ({"url": "http://a:99999/v1"}, "must be http"),
        ({"api_key_env": "sk-secret7"}, "give the name, never the key"),
        ({"prompts": "chat"}, "wrap them in its own template"),
        ({"prompts": "words"}, "'ids' or 'text'"),
        ({"server": "openai"}, "returns no token ids"),
        ({"server": "tgi"}, "'sglang' or 'openai'"),
        ({"model": ""}, "remote.model is empty"),
        ({"max_concurrency": 0}, "max_concurrency is 0: it must be positive"),
        ({"retries": -1}, "retries is -1: it must be 0 or more"),
    ],
)
def test_configs_that_cannot_be_meant(changes, why):
    with pytest.raises(ConfigError, match=why) as error:
        RemoteConfig(**({"url": "https://a.example/v1", "model": "toy"} | changes))
    assert "secret7" not in str(error.value)


def test_a_key_may_travel_where_nobody_listens():
    for url in (
        "http://localhost:1/v1",
        "http://127.0.0.1/v1",
        "http://[::1]:8/v1",
        "https://a/v1",
    ):
        RemoteConfig(url, "toy", api_key_env="K")
    RemoteConfig("http://10.0.0.9/v1", "toy", api_key_env="K", allow_insecure=True)


def test_a_certificate_must_be_trusted(toy, serve, connect, run_apart, tmp_path, monkeypatch):
    """Nothing is sent to a server that cannot prove who it is; SSL_CERT_FILE says whom to trust."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-keyout", key, "-out", certificate]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate")
    server = serve()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    with pytest.raises(ConfigError, match=r"call r0: https://\S+ has no certificate that .*_FILE"):
        connect(url, max_context=99).generate([toy.request()])
    assert server.bodies == []
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    done = run_apart(url, "print")
    assert done.stdout == f"{toy.expected(toy.request()).ids}\n", done.stderr


def test_proxies_lead_to_other_machines_only(toy, serve, connect, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = serve()
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    far = connect("http://model.example.invalid/v1", max_context=99)
    toy.check(far.generate([toy.request()]), [toy.request()])
    assert server.paths == ["http://model.example.invalid/v1/completions"]
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    toy.check(connect(server).generate([toy.request()]), [toy.request()])
