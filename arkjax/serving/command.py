"""`arkjax serve`: the command, its settings, and the signals that end it."""

import argparse
import asyncio
import contextlib
import importlib.util
import ipaddress
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from arkjax.errors import ConfigError
from arkjax.extras import install
from arkjax.options import add_talking_arguments, positive_count

KEY_VARIABLE = "ARKJAX_API_KEY"


def add_parser(commands: argparse._SubParsersAction, name: str) -> argparse.ArgumentParser:
    """Add the command to the command line."""
    does = "serve a model over HTTP by OpenAI's API"
    parser = commands.add_parser(name, help=does, description=does)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)"
    )
    parser.add_argument("--port", type=_port, default=8000, help="0 takes any (default 8000)")
    parser.add_argument("--model-name", help="what clients call it; by default the folder's name")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help=f"holds the key that clients must send; or set {KEY_VARIABLE}",
    )
    parser.add_argument(
        "--slots", type=positive_count, default=16, help="answers at once (default 16)"
    )
    parser.add_argument(
        "--context",
        type=positive_count,
        default=4096,
        help="of a prompt with its answer (default 4096)",
    )
    parser.add_argument(
        "--max-queue",
        type=positive_count,
        default=256,
        help="answers that wait for a slot (default 256)",
    )
    parser.add_argument(
        "--max-tokens",
        type=positive_count,
        default=512,
        help="of an answer, if not asked (default 512)",
    )
    parser.add_argument(
        "--grace",
        type=positive_count,
        default=30,
        help="seconds to finish when stopped (default 30)",
    )
    add_talking_arguments(parser)
    return parser


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Serve a model until SIGTERM or Ctrl-C. Returns the exit code.

    Raises:
      DataError: if the model, its tokenizer or its template is missing or damaged.
      ConfigError: if a setting is wrong, the address is taken, or aiohttp is not installed.
    """
    if importlib.util.find_spec("aiohttp") is None:
        raise ConfigError(f"arkjax serve needs aiohttp: {install('serve')}")
    key = read_key(arguments.api_key_file, os.environ)

    from arkjax.serving import service

    # Before the model is read, which may take minutes.
    with service.bind(arguments.host, arguments.port) as listener:
        opened = service.open_service(
            arguments.checkpoint,
            name=arguments.model_name,
            slots=arguments.slots,
            max_queue=arguments.max_queue,
            context=arguments.context,
            max_tokens=arguments.max_tokens,
            cache=arguments.cache,
            weights=arguments.weights,
            variables=arguments.variable,
        )
        service.warm_up(opened)

        def ready(port: int) -> None:
            _warn_if_open(arguments.host, key)
            host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
            print(f"{opened.limits.model} is served at http://{host}:{port}/v1", flush=True)

        async def serve_on() -> bool:
            stop = asyncio.Event()
            with _told_by_signals(stop):
                return await service.serve(
                    opened,
                    listener,
                    stop,
                    key=key,
                    grace=arguments.grace,
                    ready=ready,
                    show=True,
                )

        if not asyncio.run(serve_on()):
            # Python would end under the thread that is deep inside XLA, and crash.
            sys.stdout.flush()
            os._exit(0)
    return 0


def read_key(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The key that clients must know, from a file or from the environment; None if none is set.

    Raises:
      ConfigError: if the file cannot be read, or the key is empty or cannot stand in a header. The
        message does not show it.
    """
    if file is None:
        source = KEY_VARIABLE
        if source not in environment:
            return None
        key = environment[source]
    else:
        source = f"--api-key-file {file}"
        try:
            key = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"{source} cannot be read: {reason}") from None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{source} holds no API key: expected one line of printable ASCII without spaces"
        )
    return key


def _warn_if_open(host: str, key: str | None) -> None:
    try:
        near = ipaddress.ip_address(host).is_loopback
    except ValueError:
        near = host == "localhost"
    if key is None and not near:
        print(
            f"arkjax: warning: {host} can be reached from other machines and no API key is set, so "
            f"anybody there can use the model: give --api-key-file, or set {KEY_VARIABLE}",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _told_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Have SIGTERM and Ctrl-C set `stop`; a second one ends the process where it stands."""

    def tell(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, tell, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
