"""A model that is served: from its checkpoint to the last answer."""

import asyncio
import contextlib
import dataclasses
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

from aiohttp import web

from arkjax.errors import ConfigError
from arkjax.models.cache import Precision
from arkjax.models.huggingface.speaker import Speaker, open_speaker
from arkjax.progress import Progress, is_terminal
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.serving.driver import Driver
from arkjax.serving.prompts import Prompts
from arkjax.serving.protocol import MOST_ALTERNATIVES, MOST_STOP_IDS, Limits, read_chat
from arkjax.serving.server import Application, Timeouts
from arkjax.text.dialogue import template_variable
from arkjax.text.tokenizer import Tokenizer

# Seconds that connections have to close when all calls have ended.
_CLOSING = 2.0
# Seconds for the step at which the engine is when all calls have ended.
_LAST_STEP = 5.0
# Seconds between two looks of a terminal's progress line.
_TICK = 2.0
# Connections that the system holds until they are taken: a burst of clients comes at once.
_BACKLOG = 1024


@dataclasses.dataclass(frozen=True)
class Service:
    """A model that is ready to be served.

    Attributes:
      engine: generates; whoever serves has it for himself.
      tokenizer: of the model.
      prompts: read orders.
      limits: what one request may ask for.
      slots: calls that the engine decodes at once.
      max_queue: most calls that wait for a slot.
    """

    engine: Engine
    tokenizer: Tokenizer
    prompts: Prompts
    limits: Limits
    slots: int
    max_queue: int


def open_service(
    checkpoint: str,
    *,
    name: str | None,
    slots: int,
    max_queue: int,
    context: int,
    max_tokens: int,
    variables: Sequence[str],
    cache: Precision = "model",
    weights: Precision = "model",
) -> Service:
    """Open a model to be served.

    Args:
      checkpoint: a model directory, a published checkpoint, or `hf:owner/name`.
      name: what clients call it; None takes the folder's.
      slots: calls that are decoded at once.
      max_queue: most calls that wait for a slot.
      context: most tokens of a prompt with its answer; at most what the model was made for.
      max_tokens: of an answer where the request does not say.
      variables: for the chat template, each NAME=JSON.
      cache: in what keys and values are kept; see `EngineConfig`.
      weights: in what the layers' matrices are kept.

    Raises:
      DataError: if the model, its tokenizer or its template is missing or damaged.
      ConfigError: if a variable is not written so, or the model cannot be kept so.
    """
    chosen = dict(map(template_variable, variables))
    speaker = open_speaker(checkpoint, Progress())
    limits = Limits(
        model=name or speaker.folder.resolve().name,
        context=min(context, speaker.model.config.max_context),
        vocab_size=speaker.model.config.vocab_size,
        end_ids=speaker.tokenizer.end_ids,
        max_tokens=max_tokens,
        calls=slots + max_queue,
    )
    prompts = Prompts(speaker.tokenizer, speaker.template, chosen, limits)
    engine = make_engine(speaker, limits, slots, cache, weights)
    return Service(engine, speaker.tokenizer, prompts, limits, slots, max_queue)


def make_engine(
    speaker: Speaker,
    limits: Limits,
    slots: int,
    cache: Precision = "model",
    weights: Precision = "model",
) -> Engine:
    """An engine that can do what `limits` allow."""
    config = EngineConfig(
        length_classes=(limits.context,),
        slots=slots,
        prefixes=max(slots, 8),
        admit_rows=min(slots, 8),
        prefix_rows=min(slots, 4),
        chunk=min(64, limits.context),
        block_steps=8,  # an answer flows in groups of so many tokens
        max_stop_ids=len(limits.end_ids) + MOST_STOP_IDS,
        max_top_logprobs=MOST_ALTERNATIVES,
        cache=cache,
        weights=weights,
    )
    return Engine(speaker.model, config, speaker.tokenizer)


def warm_up(service: Service) -> None:
    """Have compiled what a short chat takes, with log-probabilities and without."""
    told = [{}, {"logprobs": True, "top_logprobs": 1}]
    with Progress().task("compile", len(told), "programs") as task:
        for extra in told:
            body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, **extra}
            order = read_chat(body, service.limits)
            service.engine.generate(service.prompts.requests(order, "warm-up"))
            task.advance()


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address, at which nobody is listened to yet.

    Raises:
      ConfigError: if there is no such address, or it is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # What the last server left half-closed does not keep the port from the next.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise _taken(host, port, error) from None
    return listener


def _taken(host: str, port: int, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or error
    return ConfigError(
        f"cannot listen on {host}, port {port}: {reason}; choose others with --host and --port"
    )


async def serve(
    service: Service,
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    key: str | None = None,
    grace: float = 30.0,
    timeouts: Timeouts | None = None,
    ready: Callable[[int], None] = lambda port: None,
    show: bool = False,
) -> bool:
    """Serve a model until `stop` is set, then end the calls that are open.

    Args:
      service: what is served.
      listener: from `bind`.
      stop: set it to have no more calls taken.
      key: that clients must know, or None.
      grace: seconds for the calls that are open when `stop` is set.
      timeouts: how long clients are waited for.
      ready: is told the port when clients can come.
      show: whether a terminal is shown how many calls there are.

    Returns:
      Whether the engine is at rest. If not, it is deep in a step that nobody waits for any more.

    Raises:
      ConfigError: if another server has taken the address in the meantime.
    """
    driver = Driver(service.engine, service.slots, service.max_queue)
    application = Application(
        driver,
        service.prompts,
        service.tokenizer,
        service.limits,
        key=key,
        timeouts=timeouts or Timeouts(),
    )
    runner = web.ServerRunner(application.server(), shutdown_timeout=_CLOSING)
    await runner.setup()
    try:
        host, port = listener.getsockname()[:2]
        site = web.SockSite(runner, listener, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise _taken(host, port, error) from None
        driver.start()
        ready(port)
        with _shown(driver) if show else contextlib.nullcontext():
            await stop.wait()
        # No new connections, and none that stays open behind its answer.
        await site.stop()
        runner.server.pre_shutdown()
        await application.drain(grace)
    finally:
        await runner.cleanup()
        application.close()
    return await driver.join(_LAST_STEP)


@contextlib.contextmanager
def _shown(driver: Driver) -> Iterator[None]:
    """Show a terminal how many calls there were and are; nothing elsewhere."""

    async def look() -> None:
        while True:
            await asyncio.sleep(_TICK)
            more = driver.ended - task.done
            if more or driver.open:
                said = f"{driver.open} open, {driver.waiting} waiting, {driver.tokens:,} tokens"
                task.advance(more, said)

    with Progress(enabled=is_terminal(sys.stderr)).task("serve", unit="answers") as task:
        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
