"""`arkjax chat`: talk to a model in the terminal, under any role."""

import dataclasses
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import ArkJAXError, ConfigError, DataError
from arkjax.models.cache import Precision
from arkjax.models.huggingface.speaker import open_speaker
from arkjax.models.transformer import Transformer
from arkjax.models.weights import num_parameters
from arkjax.progress import Progress, colours, is_terminal
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Request, SamplingParams
from arkjax.storage import write_atomic
from arkjax.teams.library import BARE_ROLE
from arkjax.text.dialogue import Message, prompt_ids, template_variable
from arkjax.text.stream import StreamDecoder
from arkjax.text.templates import ChatTemplate
from arkjax.text.tokenizer import Tokenizer

_HELP = """\
/role TEXT     speak to another role: a system prompt, or a byline; without TEXT, none
/next          let the role at hand speak once more on the same question
/undo          forget the last question and its answer
/clear         forget everything said so far
/history       show what is remembered
/set NAME=X    temperature, top_k, top_p, min_p, max_tokens, seed
/save FILE     write the talk as JSON lines
/help          this text
/exit          leave; so does Ctrl-D. Ctrl-C stops an answer"""


class Talk:
    """A talk with one model: what was said, and the engine that says the rest."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        variables: Mapping[str, Any],
        *,
        role: str,
        sampling: SamplingParams,
        seed: int,
        context: int,
        cache: Precision = "model",
        weights: Precision = "model",
    ):
        """Set up a talk; nothing is compiled before the first answer.

        Args:
          model: who answers.
          tokenizer: its tokenizer.
          template: its chat template; None writes turns as the embedded world does.
          variables: for the template, such as `enable_thinking`.
          role: under which it answers.
          sampling: how; `stop_ids` are the tokenizer's.
          seed: of the first answer; each later one takes the next.
          context: most tokens of a prompt with its answer.
          cache: in what keys and values are kept; see `EngineConfig`.
          weights: in what the layers' matrices are kept.
        """
        self.role, self.messages = role, []
        self.sampling, self.seed = sampling, seed
        self._tokenizer, self._template, self._variables = tokenizer, template, variables
        self._names = (f"answer-{n}" for n in itertools.count())
        stops = tokenizer.end_ids
        self._engine = Engine(
            model,
            EngineConfig(
                length_classes=(context,),
                slots=1,
                prefixes=1,
                admit_rows=1,
                prefix_rows=1,
                chunk=min(64, context),
                block_steps=4,  # tokens come in small groups, so that an answer flows
                max_stop_ids=len(stops),
                cache=cache,
                weights=weights,
            ),
        )

    def answer(self) -> Iterator[str]:
        """Answer what was said last; yields the text piece by piece and remembers it.

        Stopped half-way (by an exception in the consumer, such as Ctrl-C), what was generated is
        remembered as the answer.

        Raises:
          DataError: if the talk has grown beyond the context.
        """
        prompt = prompt_ids(
            self.messages, self.role, self._tokenizer, self._template, self._variables
        )
        sampling = dataclasses.replace(self.sampling, stop_ids=self._tokenizer.end_ids)
        room = self._engine.max_context - len(prompt)
        if room < 1:
            raise DataError(
                f"the talk has {len(prompt)} tokens, and the context only "
                f"{self._engine.max_context}: /undo, /clear, or start with a larger --max-context"
            )
        sampling = dataclasses.replace(sampling, max_tokens=min(sampling.max_tokens, room))
        name, decoder = next(self._names), StreamDecoder(self._tokenizer)
        self._engine.submit(Request(name, tuple(prompt), 0, sampling, self.seed))
        self.seed += 1
        ids: list[int] = []
        try:
            while self._engine.pending:
                ended = self._engine.step()
                now = ended[0].ids if ended else self._engine.partial(name).ids
                fresh, ids = now[len(ids) :], list(now)
                yield "".join(decoder.push(i) for i in fresh if i not in sampling.stop_ids)
            yield decoder.flush()
        finally:
            if self._engine.pending:
                self._engine.cancel()
            text = self._tokenizer.decode(i for i in ids if i not in sampling.stop_ids)
            self.messages.append(Message("assistant", text, self.role, tuple(ids)))

    def ask(self, text: str) -> Iterator[str]:
        """Say something; yields the answer as `answer` does. What fails is forgotten."""
        self.messages.append(Message("user", text))
        try:
            yield from self.answer()
        except ArkJAXError:
            # What cannot be answered would stand in the way of all that follows.
            if self.messages[-1].role == "user":
                self.messages.pop()
            raise

    def undo(self) -> None:
        """Forget the last question and all answers to it."""
        while self.messages and self.messages.pop().role != "user":
            pass


def run(talk: Talk, read: Callable[[str], str], title: str) -> int:
    """Read lines and answer them until they end. Returns the exit code."""
    colour = colours(sys.stdout)
    dim, bold, plain = ("\033[2m", "\033[1m", "\033[0m") if colour else ("", "", "")
    print(f"{bold}{title}{plain}\n{dim}/help lists the commands{plain}")
    while True:
        role = f" ({talk.role.splitlines()[0][:40]})" if talk.role else ""
        try:
            line = read(f"{bold}you{plain}{dim}{role}{plain}> ").strip()
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print(f"\n{dim}/exit or Ctrl-D leaves{plain}")
            continue
        if not line:
            continue
        try:
            if line.startswith("/"):
                name, _, rest = line[1:].partition(" ")
                if name in ("exit", "quit"):
                    return 0
                stream = _command(talk, name, rest.strip())
            else:
                stream = talk.ask(line)
            if stream is not None:
                _show(stream)
        except ArkJAXError as error:
            print(f"{dim}{error}{plain}")


def _show(stream: Iterator[str]) -> None:
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" [stopped]", end="")
    finally:
        stream.close()
        print()


def _command(talk: Talk, name: str, rest: str) -> Iterator[str] | None:
    """Do a command; returns the answer that it asks for, if any."""
    if name == "role":
        talk.role = rest
    elif name == "next":
        if not any(message.role == "user" for message in talk.messages):
            raise ConfigError("nothing was asked yet")
        return talk.answer()
    elif name == "undo":
        talk.undo()
    elif name == "clear":
        talk.messages.clear()
    elif name == "history":
        for message in talk.messages:
            print(f"{message.byline or message.role}: {message.content}")
    elif name == "set":
        _set(talk, rest)
    elif name == "save":
        _save(talk, rest)
    elif name == "help":
        print(_HELP)
    else:
        raise ConfigError(f"there is no command /{name}; /help lists them")
    return None


def _set(talk: Talk, rest: str) -> None:
    kinds = {"temperature": float, "top_k": int, "top_p": float, "min_p": float}
    kinds |= {"max_tokens": int, "seed": int}
    for word in shlex.split(rest) or ["?"]:
        name, _, value = word.partition("=")
        try:
            number = kinds[name](value)
        except (KeyError, ValueError):
            raise ConfigError(
                f"/set {word}: write NAME=NUMBER, NAME being one of {', '.join(kinds)}"
            ) from None
        if name == "seed":
            talk.seed = number
        else:
            talk.sampling = dataclasses.replace(talk.sampling, **{name: number})


def _save(talk: Talk, name: str) -> None:
    if not name:
        raise ConfigError("/save needs the name of a file")
    lines = [json.dumps(dataclasses.asdict(message)) for message in talk.messages]
    write_atomic(Path(name).expanduser(), "".join(f"{line}\n" for line in lines))


def read_line(prompt: str) -> str:
    """One line from the terminal, with editing and recall; from a pipe, without a prompt."""
    if is_terminal(sys.stdin):
        import contextlib

        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (gives input() its editing)
        return input(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def main(
    checkpoint: str,
    *,
    role: str | None,
    sampling: SamplingParams,
    seed: int,
    max_context: int,
    variables: Sequence[str],
    cache: Precision = "model",
    weights: Precision = "model",
) -> int:
    """Open a model and talk to it until the input ends. Returns the exit code.

    Args:
      checkpoint: a model directory, a published checkpoint, or `hf:owner/name`.
      role: under which the model answers at first; None is no role, or the embedded world's bare
        one.
      sampling: how answers are drawn.
      seed: of the first answer.
      max_context: most tokens of the talk; at most what the model was made for.
      variables: for the chat template, each NAME=JSON.
      cache: in what keys and values are kept; see `EngineConfig`.
      weights: in what the layers' matrices are kept.

    Raises:
      DataError: if the model, its tokenizer or its template is missing or damaged.
      ConfigError: if a variable is not written so, or the model cannot be kept so.
    """
    speaker = open_speaker(checkpoint, Progress())
    if role is None:
        role = "" if speaker.template else BARE_ROLE
    config = speaker.model.config
    talk = Talk(
        speaker.model,
        speaker.tokenizer,
        speaker.template,
        dict(map(template_variable, variables)),
        role=role,
        sampling=sampling,
        seed=seed,
        context=min(max_context, config.max_context),
        cache=cache,
        weights=weights,
    )
    return run(talk, read_line, f"{checkpoint}, {num_parameters(config):,} parameters")
