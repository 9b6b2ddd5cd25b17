"""A tiny model with a tokenizer and a chat template, served on a free port."""

import asyncio
import contextlib
import dataclasses
import functools
import http.client
import importlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.models.huggingface.speaker import Speaker
from arkjax.models.presets import tiny
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.sampling.engine import Engine
from arkjax.serving.prompts import Prompts
from arkjax.serving.protocol import Limits
from arkjax.text.templates import load_chat_template
from arkjax.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "chat"
SLOTS, CONTEXT, NAME = 4, 512, "tiny"


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("ARKJAX_PARITY") == "1":
            pytest.fail(f"ARKJAX_PARITY is 1, but {name} cannot be imported: {error}")
        pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="session")
def openai() -> ModuleType:
    """OpenAI's client; ARKJAX_PARITY=1 demands that it is installed."""
    return _installed("openai")


@pytest.fixture(scope="session")
def parity() -> ModuleType:
    """`transformers`, to compare with; see `openai`."""
    return _installed("transformers")


@pytest.fixture(scope="session")
def serving() -> ModuleType:
    """`arkjax.serving.service`, which needs aiohttp; see `openai`."""
    _installed("aiohttp")
    return importlib.import_module("arkjax.serving.service")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the committed tokenizers and templates."""
    return GOLDEN


@pytest.fixture(scope="session")
def tokenizers_of() -> Callable[[str], Tokenizer]:
    """Loads a committed tokenizer once: a folder's name, or that of a file in it."""
    return functools.cache(lambda name: Tokenizer(GOLDEN / name))


@pytest.fixture(scope="session")
def speaker() -> Speaker:
    """A small model with random weights that reads and writes Qwen's chats."""
    tokenizer = Tokenizer(GOLDEN / "qwen")
    config = dataclasses.replace(
        tiny(), num_layers=1, vocab_size=tokenizer.id_limit, max_context=CONTEXT
    )
    rng = np.random.default_rng(3)
    weights = {
        name: jnp.asarray(
            rng.normal(0, 3 * spec.fan_in**-0.5, spec.shape)
            if spec.fan_in
            else np.full(spec.shape, spec.constant),
            np.float32,
        )
        for name, spec in weight_specs(config).items()
    }
    template = load_chat_template(GOLDEN / "templates" / "qwen3.jinja")
    return Speaker(GOLDEN, Transformer(config, weights), tokenizer, template)


@pytest.fixture(scope="session")
def limits(speaker) -> Limits:
    return Limits(
        model=NAME,
        context=CONTEXT,
        vocab_size=speaker.model.config.vocab_size,
        end_ids=speaker.tokenizer.end_ids,
        max_tokens=16,
        calls=SLOTS + 400,
    )


@pytest.fixture(scope="session")
def prompts(speaker, limits) -> Prompts:
    return Prompts(speaker.tokenizer, speaker.template, {}, limits)


@pytest.fixture(scope="session")
def offline(serving, speaker, limits) -> Engine:
    """An engine like the served one, which nobody serves."""
    return serving.make_engine(speaker, limits, SLOTS)


class Served:
    """A server in a thread, and the means to speak with it."""

    def __init__(self, service: Any, port: int, stop: Callable[[], None]):
        self.service, self.port, self.stop = service, port, stop
        self.url = f"http://127.0.0.1:{port}/v1"

    def connect(self, seconds: float = 20.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def ask(
        self, path: str, body: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of one exchange; `body` is JSON to be, or bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            said = {"Content-Type": "application/json"} if body is not None else {}
            said |= {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method or ("POST" if body is not None else "GET"), path, body, said)
            response = connection.getresponse()
            raw = response.read()
            return response.status, dict(response.getheaders()), json.loads(raw) if raw else None


@pytest.fixture(scope="session")
def start(serving, speaker, limits) -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """A function that serves the model for the length of a block."""

    @contextlib.contextmanager
    def start(
        max_queue: int = 400,
        wrap: Callable[[Engine], Any] = lambda engine: engine,
        send_buffer: int | None = None,
        **settings: Any,
    ) -> Iterator[Served]:
        own = dataclasses.replace(limits, calls=SLOTS + max_queue)
        engine = wrap(serving.make_engine(speaker, own, SLOTS))
        reader = Prompts(speaker.tokenizer, speaker.template, {}, own)
        service = serving.Service(engine, speaker.tokenizer, reader, own, SLOTS, max_queue)
        listener = serving.bind("127.0.0.1", 0)
        if send_buffer is not None:
            # Connections inherit it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        ready = threading.Event()
        told: dict[str, Any] = {}

        async def main() -> None:
            told["loop"], told["stop"] = asyncio.get_running_loop(), asyncio.Event()
            await serving.serve(
                service, listener, told["stop"], ready=lambda port: ready.set(), **settings
            )

        def work() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                told["error"] = error
                raise
            finally:
                ready.set()

        thread = threading.Thread(target=work)
        port = listener.getsockname()[1]
        thread.start()

        def stop() -> None:
            with contextlib.suppress(RuntimeError):
                told["loop"].call_soon_threadsafe(told["stop"].set)

        try:
            assert ready.wait(60) and "error" not in told
            yield Served(service, port, stop)
        finally:
            stop()
            thread.join(60)
            listener.close()
        assert not thread.is_alive() and "error" not in told

    return start


@pytest.fixture(scope="session")
def served(serving, start) -> Iterator[Served]:
    """A server that many tests share; none may leave anything behind in it."""
    timeouts = serving.Timeouts(head=1.5, idle=30.0, body=1.5, send=5.0)
    with start(timeouts=timeouts, grace=5.0) as served:
        yield served


class Gated:
    """An engine that steps only when it may, and fails when it is told to.

    Attributes:
      gate: while it is set, the engine may step.
      turns: steps that it may make without.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.gate, self.turns = threading.Event(), threading.Semaphore(0)
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def step(self) -> list:
        while not (self.gate.is_set() or self.turns.acquire(timeout=0.02)):
            pass
        if self.fails:
            self.fails = False
            # As after an error on the device: arrays that were being replaced are gone.
            self.engine.step()
            raise RuntimeError("the device is on fire")
        return self.engine.step()


@pytest.fixture
def gated() -> Callable[[Engine], Gated]:
    """Wraps an engine; `gated.engines` are the wrapped ones."""

    def wrap(engine: Engine) -> Gated:
        wrap.engines.append(Gated(engine))
        return wrap.engines[-1]

    wrap.engines = []
    yield wrap
    for engine in wrap.engines:
        engine.gate.set()
