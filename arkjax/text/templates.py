"""Chat templates of checkpoints: messages to one text, or to token ids.

A template is a jinja2 program that comes with a checkpoint. It is rendered as
`transformers.PreTrainedTokenizerBase.apply_chat_template` renders it, in a process of its own with
little time and memory (`isolation.py`).
"""

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from arkjax.errors import DataError
from arkjax.isolation.worker import Stopped
from arkjax.storage import content_hash
from arkjax.text.files import read_settings, read_templates, read_text
from arkjax.text.guard import Control, control_of, encode_chat, free_marks, marked_variables
from arkjax.text.isolation import MEMORY, ask
from arkjax.text.messages import (
    Message,
    check_messages,
    check_objects,
    open_end,
    plain,
    until_end,
)
from arkjax.text.tokenizer import Tokenizer

TEMPLATE_LIMIT = 256 * 1024
"""Characters that a template may have; those of checkpoints have up to some thirty thousand."""
OUTPUT_LIMIT = 16 * 1024 * 1024
"""Characters that a rendered chat may have."""

_TOOL_USE = "tool_use"


def load_chat_template(path: str | Path, *, now: datetime.datetime | None = None) -> "ChatTemplate":
    """The chat template of a Hugging Face checkpoint folder, or that in a file; see `ChatTemplate`.

    Raises:
      DataError: if there is none, or it is damaged or no template.
    """
    path = Path(path)
    if path.is_file():
        return ChatTemplate(read_text(path), source=str(path), now=now)
    templates, source = read_templates(path)
    return ChatTemplate(
        templates, source=str(source), named_tokens=read_settings(path).named, now=now
    )


class ChatTemplate:
    """A chat template, or several by name of which each chat takes one.

    Attributes:
      source: where it comes from, for messages.
      hash: SHA-256 of its text, or over the texts by name.
    """

    def __init__(
        self,
        template: str | Mapping[str, str],
        *,
        source: str = "the chat template",
        named_tokens: Mapping[str, str] | None = None,
        now: datetime.datetime | None = None,
    ):
        """Parse a template.

        Args:
          template: its text, or texts by name. A chat with tools takes "tool_use" if there is one,
            and else "default".
          source: where it comes from.
          named_tokens: what it is given as "bos_token" and so on; None takes the tokenizer's when
            there is one.
          now: the time that its `strftime_now` tells; None is the time of rendering. Some templates
            write the date into every prompt, so set it to make runs repeatable.

        Raises:
          DataError: if it is too long or no valid template, with the line.
        """
        self._templates = {"default": template} if isinstance(template, str) else dict(template)
        self.source = source
        self._named = named_tokens
        self._now = None if now is None else now.isoformat()
        only = self._templates.get("default") if len(self._templates) == 1 else None
        self.hash = (
            content_hash(self._templates)
            if only is None
            else hashlib.sha256(only.encode("utf-8", "surrogatepass")).hexdigest()
        )
        self._literals = {name: self._parse(name) for name in self._templates}
        self._controls: WeakKeyDictionary[Tokenizer, dict[str, Control]] = WeakKeyDictionary()

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool | str = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        name: str | None = None,
        **variables: Any,
    ) -> str:
        """The messages as one text.

        Args:
          messages: {"role", "content"} and whatever else the template reads, such as "tool_calls"
            or "reasoning_content". A content is a text or a list of {"type": "text", "text"}.
          add_generation_prompt: end with the header of the assistant's turn.
          continue_final_message: end inside the last message, behind its content or the field named
            here, so that the model goes on with it. There is no generation prompt then.
          tools: JSON schemas of the tools that the model may call.
          documents: what it may look up.
          name: the template to take; None decides by `tools`.
          **variables: more that the template reads, such as `enable_thinking`.

        Raises:
          DataError: if a message is malformed, with its index; if the template refuses the
            messages, fails, reaches for what is closed to it, or takes too much time, memory or
            text, with its source and line.
        """
        request = self._request(
            messages, add_generation_prompt, continue_final_message, tools, documents, name,
            self._named or {}, variables,
        )  # fmt: skip
        return self._render(request, continue_final_message, messages)["text"]

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool | str = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        name: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """The messages as token ids; arguments and errors as in `render`.

        Only the template and `named_tokens` make control tokens, which are all special tokens and
        those added tokens that the template writes. One that is spelled, wholly or in part, by a
        message, a tool, a document or a variable is text. Only the added tokens that are not
        special, such as "<think>", may also come from a message of the assistant, which a model has
        written. Where no input spells a special token, the ids are those of `transformers`.

        Roles are trusted to be names: a template that writes "<|" role "|>" makes whatever control
        token a role names, so take roles from the program and not from a user. And what a template
        makes of the words of a message, by taking out a part of them for instance, is protected
        only as far as the template does not write the token that results.

        Raises:
          DataError: as `render`; and if an input spells a control token and the template compares
            what it writes itself, because then one cannot be told from the other.
        """
        named = tokenizer.named_tokens if self._named is None else self._named
        request = self._request(
            messages, add_generation_prompt, continue_final_message, tools, documents, name, named,
            variables,
        )  # fmt: skip
        control = self._control(tokenizer, request["name"], named)
        inputs = {key: request["variables"][key] for key in request["untrusted"]}
        marks = free_marks(json.dumps(request, ensure_ascii=False))
        request |= {
            "fragments": control.fragments,
            "marks": marks,
            "marked": marked_variables(control, marks, inputs, named),
        }
        reply = self._render(request, continue_final_message, messages)
        return encode_chat(tokenizer, control, reply["text"], reply["spans"], inputs, self.source)

    def _control(self, tokenizer: Tokenizer, name: str, named: Mapping[str, str]) -> Control:
        known = self._controls.setdefault(tokenizer, {})
        if name not in known:
            known[name] = control_of(tokenizer, named.values(), self._literals[name])
        return known[name]

    def _parse(self, name: str) -> list[str]:
        text = self._templates[name]
        if len(text) > TEMPLATE_LIMIT:
            raise DataError(
                f"{self._where(name)} has {len(text)} characters, and a chat template may have "
                f"{TEMPLATE_LIMIT}: take the template of the checkpoint"
            )
        return self._ask({"do": "parse", "template": text}, name)["literals"]

    def _where(self, name: str) -> str:
        return self.source if len(self._templates) == 1 else f"{self.source}, template {name!r}"

    def _request(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        continue_final_message: bool | str,
        tools: Sequence[Mapping[str, Any]] | None,
        documents: Sequence[Mapping[str, Any]] | None,
        name: str | None,
        named: Mapping[str, str],
        variables: Mapping[str, Any],
    ) -> dict[str, Any]:
        """What the renderer is asked for."""
        if name is None:
            tool_use = tools is not None and _TOOL_USE in self._templates
            name = _TOOL_USE if tool_use else "default"
        if name not in self._templates:
            raise DataError(
                f"{self.source} has no template {name!r}, only {', '.join(self._templates)}: "
                "choose one with `name`"
            )
        checked = check_messages(messages)
        if continue_final_message:
            open_end(checked, continue_final_message)
        untrusted = {
            "messages": checked,
            "tools": check_objects("tools", tools),
            "documents": check_objects("documents", documents),
            **{key: plain(value, key) for key, value in variables.items()},
        }
        return {
            "do": "render",
            "name": name,
            "template": self._templates[name],
            "now": self._now,
            "limit": OUTPUT_LIMIT,
            "variables": {
                **named,
                "add_generation_prompt": add_generation_prompt and not continue_final_message,
                **untrusted,
            },
            "untrusted": list(untrusted),
            "marks": None,
        }

    def _render(
        self, request: dict[str, Any], continues: bool | str, messages: Sequence[Message]
    ) -> dict[str, Any]:
        reply = self._ask(request, request["name"])
        if continues:
            reply["text"] = until_end(
                reply["text"], continues, self._where(request["name"]), len(messages) - 1
            )
        return reply

    def _ask(self, request: dict[str, Any], name: str) -> dict[str, Any]:
        where = self._where(name)
        try:
            reply = ask(request)
        except Stopped as error:
            raise DataError(
                f"{where} was stopped: {error}; do not use this template, or send shorter messages"
            ) from None
        kind = reply.get("error")
        if kind is None:
            return reply
        line = "" if reply["line"] is None else f", line {reply['line']}"
        message = reply["message"]
        raise DataError(
            f"{where}{line} "
            + {
                "syntax": f"is no valid template: {message}; take the checkpoint's own",
                "refused": f"refuses these messages: {message}",
                "forbidden": f"was stopped: {message}; do not use this template",
                "memory": f"was stopped: it takes more than {MEMORY / 2**20:.0f} MiB of memory; do "
                "not use this template, or send shorter messages",
                "failed": f"fails: {message}; check the messages and variables that it reads",
            }[kind]
        )
