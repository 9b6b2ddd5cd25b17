"""Which server generates, how it is reached, and how hard it may be pressed."""

import dataclasses
import ipaddress
import re
import urllib.parse
from typing import Literal

from arkjax.errors import ConfigError
from arkjax.storage import content_hash

# Whoever puts the key itself where its variable's name belongs must not see it in an error.
_VARIABLE = re.compile("[A-Z_][A-Z0-9_]{0,63}")
_POSITIVE = (
    "max_concurrency",
    "backoff_seconds",
    "connect_seconds",
    "idle_seconds",
    "total_seconds",
)
_NOT_NEGATIVE = ("max_context", "requests_per_minute", "tokens_per_minute", "retries")


@dataclasses.dataclass(frozen=True)
class RemoteConfig:
    """A model behind an OpenAI-compatible server.

    Attributes:
      url: what its paths begin with, as "http://127.0.0.1:8000/v1" or "https://api.example.com/v1".
      model: the model's name there.
      server: what kind it is; says which fields it takes, and of which distribution its
        log-probabilities are. See `arkjax.sampling.completions.SERVERS`.
      api_key_env: name of the environment variable that holds the key; empty sends none.
      weights: names what generates, as "qwen3-8b at 4f2a": records know their calls by it, and a
        run goes on when another server has the same weights. Empty takes url and model.
      max_context: most prompt plus generated tokens of a call; 0 asks the server.
      prompts: "ids" sends token ids; "text" their text, to servers that take no ids.
      allow_retokenised: take a server that returns no token ids: its text is encoded again, into
        ids that the model may not have generated. With `prompts="text"` also prompts of which the
        text encodes into other ids.
      allow_insecure: send the key over http:// to another machine, for all between to read.
      max_concurrency: most calls under way at once.
      requests_per_minute, tokens_per_minute: limits to keep; 0 knows none. A call counts with its
        prompt and its `max_tokens`; what its answer did not use is given back.
      retries: attempts after the first, where another one may succeed.
      backoff_seconds: wait before the second attempt; each further one doubles it, up to half a
        minute. A server that asks for more time gets it.
      connect_seconds: longest time to connect.
      idle_seconds: longest time without a byte from the server. An answer comes in one piece, so
        this bounds its time in the server's queue and its generation.
      total_seconds: longest time of one attempt.

    Raises:
      ConfigError: if a value is outside its range, or the key would travel unprotected.
    """

    url: str
    model: str
    server: Literal["arkjax", "vllm", "sglang", "openai"] = "arkjax"
    api_key_env: str = ""
    weights: str = ""
    max_context: int = 0
    prompts: Literal["ids", "text"] = "ids"
    allow_retokenised: bool = False
    allow_insecure: bool = False
    max_concurrency: int = 64
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    retries: int = 8
    backoff_seconds: float = 0.5
    connect_seconds: float = 10.0
    idle_seconds: float = 600.0
    total_seconds: float = 1800.0

    def __post_init__(self) -> None:
        for name in (*_POSITIVE, *_NOT_NEGATIVE):
            value = getattr(self, name)
            if value < 0 or (name in _POSITIVE and value == 0):
                rule = "positive" if name in _POSITIVE else "0 or more"
                raise ConfigError(f"remote.{name} is {value!r}: it must be {rule}")
        if not self.model:
            raise ConfigError("remote.model is empty: give the model's name on the server")
        if self.server not in ("arkjax", "vllm", "sglang", "openai"):
            raise ConfigError(
                f"remote.server is {self.server!r}: it is 'arkjax', 'vllm', 'sglang' or 'openai'"
            )
        if self.prompts == "chat":
            raise ConfigError(
                "remote.prompts is 'chat': teams write their prompts whole, template included, and "
                "a chat endpoint would wrap them in its own template: take 'ids' or 'text', which "
                "go to /completions"
            )
        if self.prompts not in ("ids", "text"):
            raise ConfigError(f"remote.prompts is {self.prompts!r}: it is 'ids' or 'text'")
        if self.server == "openai" and not self.allow_retokenised:
            raise ConfigError(
                "remote.server is 'openai', which returns no token ids: set allow_retokenised=True "
                "to encode its texts again, into ids that the model may not have generated"
            )
        self._check_url()

    def _check_url(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            whole = bool(parts.hostname) and parts.scheme in ("http", "https")
            _ = parts.port
        except ValueError:
            whole = False
        if not whole or parts.query or parts.fragment or "@" in parts.netloc:
            # Not shown: it may hold a key or a password.
            raise ConfigError(
                "remote.url must be http://HOST[:PORT]/PATH or https://..., with no user, password "
                "or query in it; a key belongs into an environment variable named by api_key_env"
            )
        if self.api_key_env and not _VARIABLE.fullmatch(self.api_key_env):
            raise ConfigError(
                "remote.api_key_env is no name of an environment variable, in capitals as "
                "OPENAI_API_KEY: give the name, never the key itself"
            )
        if self.api_key_env and parts.scheme == "http" and not self.is_loopback:
            if not self.allow_insecure:
                raise ConfigError(
                    f"remote.url {self.url} would carry the key in {self.api_key_env} unencrypted: "
                    "take https://, or set allow_insecure=True"
                )

    def identity(self, tokenizer: str) -> str:
        """What records call the model by: nothing in it is secret.

        Args:
          tokenizer: hash of its tokenizer.
        """
        parts = urllib.parse.urlsplit(self.url)
        place = [parts.scheme, parts.hostname, parts.port, parts.path.rstrip("/"), self.model]
        named = {"weights": self.weights} if self.weights else {"server": place}
        return f"remote-{content_hash({**named, 'tokenizer': tokenizer})[:16]}"

    @property
    def is_loopback(self) -> bool:
        """Whether the server runs on this machine."""
        host = urllib.parse.urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False
