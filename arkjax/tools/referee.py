"""The two programs in which code is tested: one runs the code, the other the tests.

`assertions.py` starts this file twice, each time locked in by `jail.py`, joined by two pipes. The
*player* loads a stranger's code; the *referee* executes the tests, in which the code's functions
and classes stand for the player's: a call asks the player, and what comes back is data. So nothing
that the code does can pass a test but giving the values that the tests expect. It does not know
them, its process does not hold the tests, and its own words are never a verdict: printing, leaving
early, changing Python's functions or this file's under itself all happen in the player alone.

Plain values (numbers, texts, containers, some of the library's) are copied. Any other object stays
with the player and the referee holds a `Remote` of it: it can be called, asked for attributes and
items and walked through, but it equals no value and takes part in no arithmetic, or an object that
calls itself equal to everything would pass. Both need the standard library and `wire.py` only.
"""

import ast
import builtins
import contextlib
import importlib
import io
import json
import linecache
import operator
import sys
import traceback
import types

from arkjax.tools.wire import CodeError, Wire, decode, encode

CODE, TESTS = "solution.py", "test"
# Of these, and only of these, a function that the code has imported is the referee's own.
LIBRARY = frozenset(
    "bisect cmath collections copy datetime decimal fractions functools heapq itertools json math "
    "operator random re statistics string".split()
)

# --- the player ----------------------------------------------------------------------------------


def _describe(value):
    """How the referee may find a thing that the code has by name."""
    if isinstance(value, types.ModuleType):
        return {"module": value.__name__}
    place = _place(value)
    return {"library": place} if place and _of_library(*place) is value else {}


def _place(value):
    """Module and name of a thing as it says itself; modules in C begin with an underscore."""
    module = str(getattr(value, "__module__", "")).lstrip("_")
    return [module, str(getattr(value, "__name__", ""))] if module in LIBRARY else None


def _of_library(module, name):
    """A function or class of the library's: the module's own, and public; else None."""
    if module not in LIBRARY or name.startswith("_"):
        return None
    value = getattr(importlib.import_module(module), name, None)
    return value if str(getattr(value, "__module__", "")).lstrip("_") == module else None


_ORDER = "lt le gt ge add sub mul truediv floordiv mod or_ and_ xor".split()
_OPERATORS = ["getitem", "setitem", "delitem", "contains", "eq", "ne", *_ORDER]
_OPERATIONS = {
    "call": lambda function, *arguments, **named: function(*arguments, **named),
    "isinstance": lambda kind, value: isinstance(value, kind),
    **{f.__name__: f for f in (getattr, setattr, delattr, len, iter, next, str, repr, bool, dir)},
    **{name: getattr(operator, name) for name in _OPERATORS},
}


class Player:
    """Holds the code's objects, and does with them what the referee asks for."""

    def __init__(self, wire):
        self.wire, self.objects = wire, []

    def refer(self, value):
        self.objects.append(value)
        return {"object": [len(self.objects) - 1, type(value).__name__[:100]]}

    def resolve(self, name, data):
        if name == "mine":
            return self.objects[data]
        if name == "builtin":
            return getattr(builtins, data)
        if name == "library":
            return getattr(importlib.import_module(data[0]), data[1])
        return lambda *arguments: self.ask(data, arguments)

    def ask(self, number, arguments):
        """Call a function of the tests that was given to the code."""
        self.wire.send({"ask": number, "arguments": encode(list(arguments), self.refer)})
        return self.serve()

    def serve(self):
        """Do what is asked for; returns the answer to a question of one's own."""
        while True:
            message = self.wire.receive()
            if "answer" in message:
                return decode(message["answer"], self.resolve)
            try:
                answer = self.do(message)
            except BaseException as error:  # Whatever the code raises is its result.
                answer = self.error(error)
            try:
                self.wire.send(answer)
            except ValueError as error:
                self.wire.send(self.error(error))

    def do(self, message):
        arguments = decode(message["arguments"], self.resolve)
        named = decode(message["named"], self.resolve)
        before = [encode(argument, lambda x: None) for argument in arguments]
        value = _OPERATIONS[message["do"]](*arguments, **named)
        answer = {"value": encode(value, self.refer)}
        # A function may be there to change what it is given.
        for i, argument in enumerate(arguments):
            if isinstance(argument, list | dict | set | bytearray):
                if encode(argument, lambda x: None) != before[i]:
                    answer.setdefault("changed", {})[i] = encode(argument, self.refer)
        return answer

    def error(self, error):
        kind = type(error)
        text = str(error)[:1000] if isinstance(error, Exception) else f"{kind.__name__}: {error}"
        names = [k.__name__ for k in kind.__mro__ if k.__module__ == "builtins"]
        return {"raised": names[0], "kind": kind.__name__, "text": text, "trace": trace(error)}


def trace(error):
    """The traceback of the code's own frames."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == CODE]
    lines = traceback.format_list(frames[-4:])
    return "".join([*lines, *traceback.format_exception_only(error)])[-2000:]


def play(wire, code):
    """Load the code, say which names it has, and do what is asked for until nobody asks."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    sys.stdin = io.StringIO()
    linecache.cache[CODE] = (len(code), None, code.splitlines(True), CODE)
    player = Player(wire)
    try:
        exec(compile(code, CODE, "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:  # Leaving, too.
        wire.send(player.error(error))
        return
    names = {}
    for name in wire.receive()["wanted"]:
        if name in module.__dict__ and not name.startswith("__"):
            value = module.__dict__[name]
            names[name] = {"value": encode(value, player.refer), **_describe(value)}
    wire.send({"names": names})
    player.serve()


# --- the referee ---------------------------------------------------------------------------------


class Remote:
    """An object of the code's, which the player holds."""

    __slots__ = ("_referee", "_number", "_kind")

    def __init__(self, referee, number, kind):
        for name, value in (("_referee", referee), ("_number", number), ("_kind", kind)):
            object.__setattr__(self, name, value)

    def __call__(self, *arguments, **named):
        return self._referee.do("call", [self, *arguments], named)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self._referee.do("getattr", [self, name])

    def __instancecheck__(self, value):
        return isinstance(value, Remote) and self._referee.do("isinstance", [self, value])

    def __hash__(self):
        return self._number


def _forward(name):
    """An operation that the code's object does with whatever it is."""
    return lambda self, *arguments: self._referee.do(name, [self, *arguments])


def _between(name, otherwise):
    """An operation that only objects of the code's own do with one another."""

    def operate(self, other):
        return self._referee.do(name, [self, other]) if isinstance(other, Remote) else otherwise

    return operate


for _name in "setattr delattr len iter next str repr bool getitem setitem delitem contains".split():
    setattr(Remote, f"__{_name}__", _forward(_name))
for _name in _ORDER:
    setattr(Remote, f"__{_name.rstrip('_')}__", _between(_name, NotImplemented))
Remote.__eq__, Remote.__ne__ = _between("eq", False), _between("ne", True)


class Referee:
    """Asks the player, and tests what comes back."""

    def __init__(self, wire):
        self.wire, self.functions, self.trace = wire, [], ""

    def refer(self, value):
        if isinstance(value, Remote):
            return {"mine": value._number}
        if getattr(builtins, getattr(value, "__name__", ""), None) is value:
            return {"builtin": value.__name__}
        if "library" in (what := _describe(value)):
            return what
        if isinstance(value, types.FunctionType):
            self.functions.append(value)
            return {"function": len(self.functions) - 1}
        raise TypeError(f"a test gives the code a {type(value).__name__}, which cannot be copied")

    def resolve(self, name, data):
        if name != "object":
            raise CodeError("the code gave back what is no value")
        return Remote(self, int(data[0]), str(data[1]))

    def do(self, operation, arguments, named=()):
        data = [encode(argument, self.refer) for argument in arguments]
        named = encode(dict(named), self.refer)
        self.wire.send({"do": operation, "arguments": data, "named": named})
        while "ask" in (answer := self.wire.receive()):
            asked = decode(answer["arguments"], self.resolve)
            value = self.functions[answer["ask"]](*asked)
            self.wire.send({"answer": encode(value, self.refer)})
        if "raised" in answer:
            raise self.error(answer)
        for i, data in answer.get("changed", {}).items():
            _replace(arguments[int(i)], decode(data, self.resolve))
        return decode(answer["value"], self.resolve)

    def error(self, answer):
        kind = getattr(builtins, answer["raised"], None)
        self.trace = str(answer["trace"])
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = CodeError
        try:
            return kind(str(answer["text"]))
        except TypeError:  # UnicodeDecodeError and its like take more than a text.
            return CodeError(f"{kind.__name__}: {answer['text']}")

    def names(self, offered, mentioned, entry_point):
        """What the tests may call by the code's names."""
        found = {}
        for name in sorted(mentioned & offered.keys()):
            what = offered[name]
            # A test of sum() may be one of the code's sum(); a test of abs(f(x) - 1) is not one of
            # its abs().
            others = {n for n in mentioned if n in offered and not hasattr(builtins, n)}
            if hasattr(builtins, name) and name != entry_point and (entry_point or others):
                continue
            if what.get("module") in sys.stdlib_module_names and name != entry_point:
                found[name] = importlib.import_module(what["module"])
                continue
            known = _of_library(*what["library"]) if "library" in what else None
            if known is None or name == entry_point:
                known = decode(what["value"], self.resolve)
            found[name] = known
        return found


def _replace(value, other):
    """Make a container of the tests what the code has made of its copy."""
    if isinstance(value, list | bytearray):
        value[:] = other
    elif isinstance(value, dict | set):
        value.clear()
        value.update(other)


def mentioned(texts):
    """All names that stand in Python texts; none of a text that is no Python."""
    found = set()
    for text in texts:
        try:
            found |= {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
        except (SyntaxError, ValueError, RecursionError):
            continue
    return found


class _Noting(ast.NodeTransformer):
    """Has both sides of `assert a == b` noted, to tell what was expected and what came."""

    def visit_Assert(self, node):
        if isinstance(node.test, ast.Compare) and len(node.test.ops) == 1:
            note = ast.Name("__note__", ast.Load())
            sides = [node.test.left, node.test.comparators[0]]
            left, right = (ast.Call(note, [side], []) for side in sides)
            test = ast.Compare(left, node.test.ops, [right])
            return ast.copy_location(ast.Assert(test, node.msg), node)
        return node


def judge(wire, setup, tests, entry_point):
    """Results of the tests, each with `passed` and what there is to say about a failure."""
    referee = Referee(wire)
    wanted = mentioned([*setup, *tests]) | ({entry_point} if entry_point else set())
    try:
        with contextlib.suppress(CodeError):
            wire.send({"wanted": sorted(wanted)})
        loaded = wire.receive()
        if "raised" in loaded:
            return {"loaded": str(loaded["trace"])}
        names = referee.names(loaded["names"], wanted, entry_point)
    except Exception:  # What the player says may be anything.
        return {"loaded": "the code ended before it could be tested"}
    names["__name__"] = "test"
    if entry_point and entry_point in names:
        names.setdefault("candidate", names[entry_point])
    for text in setup:
        try:
            exec(compile(text, "test_setup", "exec"), names)
        except Exception as error:
            return {"setup": "".join(traceback.format_exception_only(error))}
    results = [_test(referee, text, names) for text in tests]
    # Only the first failure is told, so that a verdict is short however many there are.
    failures = [i for i, result in enumerate(results) if not result["passed"]]
    return {"results": [r if i in failures[:1] else r["passed"] for i, r in enumerate(results)]}


def _test(referee, text, names):
    noted = []
    referee.trace = ""
    names["__note__"] = lambda value: noted.append(value) or value
    try:
        tree = ast.fix_missing_locations(_Noting().visit(ast.parse(text)))
        exec(compile(tree, TESTS, "exec"), names)
        return {"passed": True}
    except AssertionError as error:
        if referee.trace:
            return {"passed": False, "error": referee.trace}
        sides = [_shown(value) for value in noted[-2:]] if len(noted) > 1 else []
        return {"passed": False, "sides": sides, "said": str(error)[:300]}
    except CodeError as error:
        return {"passed": False, "error": referee.trace or str(error)}
    except Exception as error:
        said = "".join(traceback.format_exception_only(error))[:1000]
        return {"passed": False, "error": referee.trace or said}


def _shown(value):
    try:
        return f"an object of {value._kind}" if isinstance(value, Remote) else repr(value)[:500]
    except Exception:
        return "what cannot be shown"


def main():
    asked = json.load(sys.stdin)
    wire = Wire(asked["reading"], asked["writing"])
    if asked["part"] == "player":
        play(wire, asked["code"])
        return
    # What the tests print is no verdict.
    verdict, sys.stdout = sys.stdout, io.StringIO()
    found = judge(wire, asked["setup"], asked["tests"], asked["entry_point"])
    verdict.write(json.dumps(found))


if __name__ == "__main__":
    main()
