"""Tasks by name, the fixed evaluation sets, and what loads without TensorFlow."""

import dataclasses
import subprocess
import sys

import pytest

from arkjax.errors import ConfigError
from arkjax.tasks import embedded_world as world
from arkjax.tasks import registry
from arkjax.tasks.benchmarks.table import BENCHMARKS
from arkjax.tasks.embedded_sets import EMBEDDED_SETS, SHIPPED_WORLD
from arkjax.tasks.registry import Task, get_task
from arkjax.tasks.world_grader import WorldGrader
from arkjax.tasks.world_sets import EVALUATION_SIZES

pytestmark = pytest.mark.fast

TASK = get_task(world.NAME)


@pytest.fixture
def no_further_tasks(monkeypatch):
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))


def test_unknown_tasks_and_splits_suggest_the_nearest():
    with pytest.raises(ConfigError, match="no task 'embeded_world'; did you mean 'embedded_world'"):
        get_task("embeded_world")
    with pytest.raises(ConfigError, match="did you mean 'validation'.*known: train, validation"):
        TASK.load("validate")


def test_own_tasks_can_be_registered_once(no_further_tasks):
    mine = Task("mine", WorldGrader(), ("test",), lambda split, limit=None: [])
    registry.register_task(mine)
    assert get_task("mine") is mine
    assert set(registry.task_names()) == {"embedded_world", "search_world", "mine", *BENCHMARKS}
    with pytest.raises(ConfigError, match="there is a task 'mine' already"):
        registry.register_task(mine)


def test_evaluation_sets_have_their_sizes_and_share_no_question():
    sets = {split: TASK.load(split) for split in EVALUATION_SIZES}
    assert {split: len(problems) for split, problems in sets.items()} == {
        "validation": 200,
        "test": 1000,
        "ood": 1000,
    }
    hashes = [p.question_hash for problems in sets.values() for p in problems]
    assert len(hashes) == len(set(hashes)) == 2200
    assert EMBEDDED_SETS.hashes() == set(hashes)
    identities = [p.id for problems in sets.values() for p in problems]
    assert len(identities) == len(set(identities))


def test_limits_take_the_first_problems():
    assert TASK.load("test", 10) == TASK.load("test")[:10]
    for split, limit, message in [
        ("test", 1001, "which has 1000"),
        ("test", 0, "at least one"),
        ("train", None, "has no end"),
    ]:
        with pytest.raises(ConfigError, match=message):
            TASK.load(split, limit)


def test_callers_cannot_spoil_the_sets():
    TASK.load("test").clear()
    EMBEDDED_SETS.evaluation()["test"].clear()
    assert len(TASK.load("test")) == 1000


def test_train_asks_no_evaluation_question():
    asked = {p.question_hash for p in TASK.load("train", 3000, seed=1)}
    assert len(asked) == 3000
    assert asked.isdisjoint(EMBEDDED_SETS.hashes())
    assert TASK.load("train", 20, seed=1) != TASK.load("train", 20, seed=2)


def test_worlds_of_other_sizes_have_their_own_sets():
    other = dataclasses.replace(SHIPPED_WORLD, items=2, ood_items=3)
    problems = TASK.load("test", world=other)
    assert {p.meta["items"] for p in problems} == {2}
    assert TASK.load("test", 5, world=other) == problems[:5]
    asked = {p.question_hash for p in TASK.load("train", 2000, world=other)}
    assert asked.isdisjoint(EMBEDDED_SETS.hashes(other))
    # What does not determine the problems does not change the sets.
    negative = dataclasses.replace(SHIPPED_WORLD, negative=True, slip_rate=0.5)
    assert TASK.load("ood", world=negative) == TASK.load("ood")


def test_nothing_heavy_is_imported():
    code = (
        "import sys, arkjax.tasks.registry, arkjax.tasks.embedded_world, arkjax.text.chat\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'seqio', 'jax', 'torch', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# --- files of one's own ---------------------------------------------------------------------------

SHOP = """
from arkjax.tasks.registry import Task, register_task
from arkjax.tasks.world_grader import WorldGrader

for name in {names}:
    register_task(Task(name, WorldGrader(), ("test",), lambda split, limit=None: []))
"""


def test_a_file_of_ones_own_is_run_once_and_its_tasks_are_known(
    no_further_tasks, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry, "_FILES", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text(SHOP.format(names=("sums",)))
    (tmp_path / "two.py").write_text(SHOP.format(names=("left", "right")))
    made = get_task("shop.py:sums")
    assert get_task("sums") is get_task("shop.py") is get_task(f"{tmp_path}/shop.py:sums") is made
    assert get_task("two.py:right").name == "right"
    with pytest.raises(ConfigError, match="no task of two.py 'rigth'; did you mean 'right'"):
        get_task("two.py:rigth")
    with pytest.raises(ConfigError, match="no task of two.py ''; known: left, right"):
        get_task("two.py")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no file .*shop.py: give the path"),
        ("x = 1\ny = 1 / 0\n", "shop.py:2: ZeroDivisionError"),
        ("def\n", "shop.py, line 1: invalid syntax"),
        ("x = 1\n", "shop.py registers no task"),
        (SHOP.format(names=("embedded_world",)), "there is a task 'embedded_world' already"),
    ],
)
def test_files_that_register_nothing_are_refused(no_further_tasks, tmp_path, text, said):
    if text is not None:
        (tmp_path / "shop.py").write_text(text)
    with pytest.raises(ConfigError, match=said):
        get_task(f"{tmp_path}/shop.py:sums")
