"""The program that renders chat templates, in a process of its own.

A template comes with a checkpoint and is a program. jinja2's sandbox keeps it from Python's
internals, but not from using up time and memory, which nothing inside a thread can stop. So
`isolation.py` has this file run by a `Worker`, in a process to which the system grants a second of
processor time per rendering, some memory, and no new file, and which is killed when that is not
enough.

Requests and replies are JSON objects.
"""

import datetime
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

# Methods and filters whose arguments say where to look; what they give back is made of the object.
_LOOKING = {
    "count", "endswith", "find", "get", "index", "lstrip", "partition", "removeprefix",
    "removesuffix", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "startswith",
    "strip",
}  # fmt: skip
_GIVING = {"d", "default", "format", "indent", "join"}
_CACHED = 32


class _Forbidden(Exception):
    """The template does what no chat template needs."""


class _Refused(Exception):
    """The template itself refuses the messages, with `raise_exception`."""


@functools.cache
def _environment(now: str | None) -> Any:
    """The environment that `transformers` gives to chat templates, with the sandbox made louder.

    `now` is the time that `strftime_now` tells, as ISO 8601, or None for the clock's.
    """
    import jinja2
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """{% generation %} marks what the assistant says; the text is the same without."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            # A call, so that what is set inside is unknown outside.
            call = self.call_method("_said")
            return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _said(self, caller: Any) -> str:
            return caller()

    class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            # The sandbox's own is silent until it is used.
            raise _Forbidden(f"the attribute {attribute!r} of a {type(obj).__name__} is closed")

    class Namespace(jinja2.utils.Namespace):
        """jinja2's own, closed to the names that Python keeps for itself."""

        def __init__(*args: Any, **kwargs: Any) -> None:
            values = dict(*args[1:], **kwargs)
            for name in values:
                _check_name(name)
            jinja2.utils.Namespace.__init__(args[0], values)

        def __setitem__(self, name: str, value: Any) -> None:
            _check_name(name)
            super().__setitem__(name, value)

    def refuse(message: object) -> None:
        raise _Refused(str(message))

    def tojson(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        # jinja2's own writes <, > and & for HTML.
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    def strftime_now(form: str) -> str:
        moment = datetime.datetime.fromisoformat(now) if now else datetime.datetime.now()
        return moment.strftime(form)

    class Dict:
        """`dict` without what else the type gives access to."""

        def __call__(self, *args: Any, **kwargs: Any) -> dict:
            return dict(*args, **kwargs)

        def fromkeys(self, *args: Any) -> dict:
            return dict.fromkeys(*args)

    environment = Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": strftime_now,
        "dict": Dict(),
        "namespace": Namespace,
    }
    return environment


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise _Forbidden(f"a namespace holds no name with an underscore first, such as {name!r}")


def _parse(environment: Any, text: str) -> Any:
    import jinja2.nodes as nodes

    tree = environment.parse(text)
    outside = (nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)
    for node in tree.find_all(outside):
        tag = type(node).__name__.lower()
        error = _Forbidden(f"{{% {tag} %}} reads another file")
        error.line = node.lineno
        raise error
    return tree


@functools.lru_cache(_CACHED)
def _compiled(text: str, now: str | None) -> Any:
    environment = _environment(now)
    return environment.from_string(_parse(environment, text))


@functools.lru_cache(_CACHED)
def _compiled_with_marks(text: str, now: str | None, fragments: tuple, marks: tuple) -> Any:
    """The template with marks around the fragments in what it writes itself."""
    environment = _environment(now)
    tree = _parse(environment, text)
    longest_first = sorted(fragments, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
    _mark(tree, lambda words: pattern.sub(rf"{marks[0]}\g<0>{marks[1]}", words))
    return environment.from_string(tree)


def _mark(node: Any, wrap: Any) -> None:
    """Wrap the fragments in all literal text that can become part of the output.

    Not in text that is compared, looked for or looked up: there marks would change what is found.
    """
    import jinja2.nodes as nodes

    if isinstance(node, nodes.TemplateData):
        node.data = wrap(node.data)
    elif isinstance(node, nodes.Const):
        if isinstance(node.value, str):
            node.value = wrap(node.value)
    elif not isinstance(node, (nodes.Compare, nodes.Test)):
        for child in _flowing(node):
            _mark(child, wrap)


def _flowing(node: Any) -> Iterator[Any]:
    """The children of a node whose text can be in what the node makes."""
    import jinja2.nodes as nodes

    skipped: list[Any] = []
    if isinstance(node, (nodes.If, nodes.CondExpr, nodes.For)):
        skipped = [node.test]
    elif isinstance(node, nodes.Getitem):
        skipped = [node.arg]
    elif isinstance(node, nodes.Pair):
        skipped = [node.key]
    elif isinstance(node, nodes.Filter) and node.name == "replace":
        skipped = node.args[:1]
    elif isinstance(node, nodes.Filter) and node.name not in _GIVING:
        skipped = [*node.args, *node.kwargs]
    elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        if node.node.attr == "replace":
            skipped = node.args[:1]
        elif node.node.attr in _LOOKING:
            skipped = [*node.args, *node.kwargs]
    for child in node.iter_child_nodes():
        if not any(child is other for other in skipped):
            yield child


def _literals(text: str) -> list[str]:
    """All literal text of a template, wherever it stands."""
    import jinja2.nodes as nodes

    tree = _parse(_environment(None), text)
    found = [node.data for node in tree.find_all(nodes.TemplateData)]
    found += [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return found


def _render(template: Any, variables: dict[str, Any], limit: int) -> str:
    parts, length = [], 0
    for part in template.generate(**variables):
        parts.append(part)
        length += len(part)
        if length > limit:
            raise _Forbidden(f"it writes more than {limit} characters")
    return "".join(parts)


def _spans(request: dict[str, Any], text: str) -> list[list[int]] | None:
    """Where in the rendered `text` a fragment stands that the template wrote itself.

    "marked" holds sets of variables with marks in them, to be tried in this order. None if the
    marks, which find this out, change what the template does.
    """
    marks = tuple(request["marks"])
    for variables in request["marked"]:
        try:
            template = _compiled_with_marks(
                request["template"], request["now"], tuple(request["fragments"]), marks
            )
            marked = _render(template, request["variables"] | variables, 3 * request["limit"])
        except Exception:
            continue
        plain, spans = _take_out(marks, marked)
        if plain == text:
            return spans
    return None


def _take_out(marks: tuple[str, str], text: str) -> tuple[str, list[list[int]]]:
    """A text without its marks, and what parts of it they enclosed."""
    spans: list[list[int]] = []
    plain: list[str] = []
    position, start = 0, None
    for piece in re.split(f"([{''.join(marks)}])", text):
        if piece == marks[0]:
            start = position
        elif piece == marks[1]:
            if start is not None:
                spans.append([start, position])
            start = None
        else:
            plain.append(piece)
            position += len(piece)
    return "".join(plain), spans


def _line(error: BaseException) -> int | None:
    """The line of the template that an error comes from."""
    import jinja2

    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    line, trace = getattr(error, "line", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request: {"literals"}, {"text", "spans"} or {"error", "message", "line"}."""
    import jinja2

    try:
        if request["do"] == "parse":
            return {"literals": _literals(request["template"])}
        template = _compiled(request["template"], request["now"])
        text = _render(template, request["variables"], request["limit"])
        return {"text": text, "spans": _spans(request, text) if request["marks"] else []}
    except MemoryError:
        return {"error": "memory", "message": "", "line": None}
    except _Refused as error:
        return {"error": "refused", "message": str(error), "line": _line(error)}
    except (_Forbidden, jinja2.exceptions.SecurityError) as error:
        return {"error": "forbidden", "message": str(error), "line": _line(error)}
    except jinja2.TemplateSyntaxError as error:
        return {"error": "syntax", "message": str(error.message), "line": error.lineno}
    except Exception as error:
        message = f"{type(error).__name__}: {error}"[:2000]
        return {"error": "failed", "message": message, "line": _line(error)}


def warm() -> None:
    """Import and load now whatever rendering can need later, when no file can be opened."""
    import pprint  # noqa: F401

    import jinja2.constants  # noqa: F401
    import jinja2.debug  # noqa: F401

    for text in ("{{ strftime_now('%A %Z') }}{{ [1, 'é'] | tojson(indent=1) }}", "{{ x.y.z }}"):
        answer({"do": "render", "template": text, "now": None, "variables": {}, "limit": 100,
                "marks": None})  # fmt: skip
    answer({"do": "parse", "template": "{% if %}"})
