import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[1]
# From the ground up: a file imports from its own floor and from those below it, never from above.
FLOORS = [
    {"errors", "extras", "hub", "isolation", "options"}
    | {"storage", "progress", "rundir", "shipped", "versions"},
    {"tasks", "text", "tools", "sharding"},
    {"models"},
    {"sampling"},
    {"trajectories"},
    {"teams"},
    {"synthesis", "evaluation"},
    {"distillation", "reporting", "beam"},
    {"training"},
    {"config", "run_config", "student_config", "sweeps"},
    {"players", "origins", "session"},
    {"stages"},
    {"api", "pipeline", "run_report", "convert", "comparing", "records", "serving"},
    {"chat", "benchmark", "doctor", "commands", "cli", "__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LIGHT_ROOMS = {
    "models",
    "sampling",
    "teams",
    "tools",
    "trajectories",
    "synthesis",
    "distillation",
    "training",
}
HEAVY = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio", "torch", "apache_beam"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted((ROOT / "arkjax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "_shipped" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def import_nodes(node: ast.AST, functions: bool):
    """Import statements below `node`; those inside functions only if `functions`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif is_type_checking(child):
            continue
        elif functions or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from import_nodes(child, functions)


def imported(name: str, functions: bool) -> set[str]:
    """Dotted names that a module imports: modules of the package by their own name."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names = set()
    for node in import_nodes(ast.parse(path.read_text()), functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            continue
        source = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*above, source] if source else above)
        for alias in node.names:
            whole = f"{source}.{alias.name}"
            names.add(whole if whole in MODULES else source)
    return names


def room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else None


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """One circle of a directed graph, or None."""
    state: dict[str, int] = {}

    def visit(node: str, trail: list[str]) -> list[str] | None:
        state[node] = 1
        for following in sorted(graph.get(node, ())):
            if state.get(following) == 1:
                return [*trail[trail.index(following) :], following]
            if following not in state and (found := visit(following, [*trail, following])):
                return found
        state[node] = 2
        return None

    for node in sorted(graph):
        if node not in state and (found := visit(node, [node])):
            return found
    return None


def ours(name: str, functions: bool) -> set[str]:
    return {other for other in imported(name, functions) if other in MODULES and other != name}


def test_the_checks_below_find_what_they_look_for():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
    assert "arkjax.errors" in ours("arkjax.rundir", functions=False)
    assert "arkjax.doctor" not in ours("arkjax.commands", functions=False)
    assert "arkjax.doctor" in ours("arkjax.commands", functions=True)


def test_every_room_has_a_floor():
    assert {room(name) for name in MODULES} - {None} <= FLOOR.keys()


@pytest.mark.parametrize("name", MODULES)
def test_no_module_imports_from_a_floor_above(name):
    if room(name) is None:
        assert ours(name, functions=True) == set()
        return
    above = {
        other
        for other in ours(name, functions=True)
        if room(other) is not None and FLOOR[room(other)] > FLOOR[room(name)]
    }
    assert not above, f"{name} is on floor {FLOOR[room(name)]} and imports from above: {above}"


def test_no_circles_between_files_or_rooms():
    assert cycle({name: ours(name, functions=False) for name in MODULES}) is None
    rooms: dict[str, set[str]] = {}
    for name in MODULES:
        used = {room(other) for other in ours(name, functions=True)}
        rooms.setdefault(room(name) or "", set()).update(used - {room(name), None})
    assert cycle(rooms) is None


def test_light_rooms_need_no_heavy_framework():
    for name in MODULES:
        tops = {other.partition(".")[0] for other in imported(name, functions=True)}
        assert room(name) not in LIGHT_ROOMS or not tops & HEAVY, name


def test_beam_is_imported_where_a_pipeline_is_built():
    for name in MODULES:
        if room(name) != "beam":
            assert "apache_beam" not in {n.partition(".")[0] for n in imported(name, True)}, name
    steps = {"arkjax.beam.steps", "arkjax.beam.flow"}
    at_once = {name for name in MODULES if name not in steps and steps & imported(name, False)}
    assert not at_once


def test_no_file_names_a_path_of_one_machine():
    # A home, a mount, somebody's desk: such a path works nowhere else.
    places = "|".join(["work", "root", "home", "Users"])
    foreign = re.compile(rf"(?<![\w.~}}\])*+-])/(?:{places})/")
    suffixes = {".py", ".sh", ".toml", ".md", ".yaml", ".yml", ".ipynb", ""}
    for folder in ("arkjax", "configs", "launch", "tests", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if ".peers" in path.parts or path == Path(__file__).resolve():
                continue  # the environment that launch/bench/peers.sh makes, and this file
            if path.is_file() and path.suffix in suffixes:
                match = foreign.search(path.read_text(errors="replace"))
                assert match is None, f"{path}: {match[0]}"
