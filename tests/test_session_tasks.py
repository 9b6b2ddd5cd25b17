"""A run's splits, those of other tasks among them, and the grader that judges each."""

import dataclasses

import pytest

from arkjax import session as sessions
from arkjax.config import build, load
from arkjax.errors import ConfigError, DataError
from arkjax.progress import Progress
from arkjax.run_config import RunConfig
from arkjax.session import Session
from arkjax.tasks import registry
from arkjax.tasks.problems import Grade, Problem
from arkjax.tasks.registry import Task

pytestmark = pytest.mark.fast


class Lenient:
    """Everything is right."""

    def extract(self, text):
        return text

    def equal(self, a, b):
        return a == b

    def accepts(self, problem, answer):
        return True

    def grade(self, problem, text):
        return Grade(True, text, "it is")


@pytest.fixture
def toy(monkeypatch):
    """A task of two problems that notes what it is asked for."""
    asked = []

    def problems(split, limit=None, *, source=""):
        asked.append((split, limit, source))
        if split == "none":
            return []
        made = [Problem(f"toy-{i}", f"What is {i}?", str(i), "toy", "d") for i in range(2)]
        return made[:limit]

    task = Task("toy", Lenient(), ("test", "none"), problems, options=("source",))
    monkeypatch.setitem(registry._TASKS, "toy", task)
    return asked


def session(*overrides):
    return Session(build(RunConfig, load("tiny", overrides)), None, 0, Progress(enabled=False))


def test_a_split_of_another_task_is_that_tasks(toy):
    made = session("--config.evaluation.splits=('test','toy:test')")
    assert made.task_of("test") is made.task and made.task.name == "embedded_world"
    assert made.task_of("toy:test").name == "toy"
    assert [p.task for p in made.problems("toy:test", None)] == ["toy", "toy"]
    assert len(made.problems("toy:test", 1)) == 1
    assert {p.task for p in made.problems("test", 3)} == {"embedded_world"}
    # The run's source is where its own task's data lie, and no other's.
    other = Session(
        dataclasses.replace(made.config, source="somewhere"), None, 0, Progress(enabled=False)
    )
    other.problems("toy:test", 1)
    assert toy == [("test", None, ""), ("test", 1, ""), ("test", 1, "")]
    own = dataclasses.replace(other.config, task="toy")
    Session(own, None, 0, Progress(enabled=False)).problems("test", 1)
    assert toy[-1] == ("test", 1, "somewhere")


def test_what_is_not_there_is_named(toy):
    made = session()
    with pytest.raises(ConfigError, match="there is no task 'tony'; did you mean 'toy'"):
        made.problems("tony:test", None)
    with pytest.raises(DataError, match="task 'toy' has no problems in split 'none'"):
        made.problems("toy:none", None)
    # And found before anything is done.
    with pytest.raises(ConfigError, match="there is no task 'tony'"):
        session("--config.evaluation.splits=('tony:test',)").check({"evaluate"})


def test_its_grader_judges_its_answers(toy, monkeypatch, tmp_path):
    judged = {}

    def play(team, problems, generators, voices, tokenizer, grader, *rest, **more):
        judged[problems[0].task] = grader
        return []

    made = session()
    monkeypatch.setattr(sessions, "play", play)
    monkeypatch.setattr(sessions.Players, "generators", lambda *given: {})
    monkeypatch.setattr(Session, "model_id", lambda *given: "m")
    for split in ("test", "toy:test"):
        problems = made.problems(split, 1)
        task = made.task_of(split)
        made.play(made.single, problems, "base", tmp_path / split, split, task=task)
    assert isinstance(judged["toy"], Lenient)
    assert judged["embedded_world"] is made.task.grader


def test_nothing_to_learn_is_said_before_anything_is_done(monkeypatch):
    made = session()
    monkeypatch.setattr(sessions.Players, "is_foreign", lambda self, name: True)
    with pytest.raises(
        ConfigError, match="foreign is 'leave_out', but all of the team.*'reencode'"
    ):
        made.check({"sample"})
    session("--config.synthesis.foreign=reencode").check({"synthesize"})


def test_a_split_of_a_task_in_a_file_and_of_the_other_world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    monkeypatch.setattr(registry, "_FILES", {})
    file = tmp_path / "mine.py"
    file.write_text(
        "from arkjax.tasks.graders import MathGrader\n"
        "from arkjax.tasks.problems import Problem\n"
        "from arkjax.tasks.registry import Task, register_task\n"
        "one = Problem('a', 'Why?', '1', 'mine', 'd')\n"
        "load = lambda split, limit=None: [one][:limit]\n"
        "register_task(Task('mine', MathGrader(), ('test',), load))\n"
    )
    split = "mine.py:mine:test"
    made = session(f"--config.evaluation.splits=('test','{split}')")
    assert made.task_of(split).name == "mine"
    assert [problem.id for problem in made.problems(split, None)] == ["a"]
    with pytest.raises(ConfigError, match="a folder of the run is called after each"):
        session(f"--config.evaluation.splits=('test','{file}:mine:test')")
    # The run's world says nothing about another one: its problems are the shipped ones.
    other = registry.get_task("search_world").load("test", 3)
    assert made.problems("search_world:test", 3) == other
