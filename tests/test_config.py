import dataclasses
import enum
import itertools
import json
import re
from pathlib import Path
from typing import Any, Literal

import ml_collections
import pytest
from ml_collections import config_dict

from arkjax import config as configs
from arkjax import shipped
from arkjax.config import build, load, to_dict
from arkjax.errors import ArkJAXError, ConfigError, DataError
from arkjax.models.config import Lora
from arkjax.progress import Progress
from arkjax.run_config import RunConfig
from arkjax.rundir import RunDirectory
from arkjax.session import Session
from arkjax.tasks.registry import get_task
from arkjax.training.base import document_examples

pytestmark = pytest.mark.fast

FILE = """
import ml_collections
from ml_collections import config_dict

def get_config(size="small"):
    config = ml_collections.ConfigDict()
    config.size = size
    config.seeds = (0, 1)
    config.notes = [1, 2]
    config.label = None
    config.limit = config_dict.placeholder(int)
    config.student = ml_collections.ConfigDict({"lr": 1e-3, "steps": 10, "tie": True})
    config.agents = ({"id": "a"}, {"id": "b"})
    return config
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Student:
    lr: float
    steps: int
    tie: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}: it must be >= 1")


@dataclasses.dataclass(frozen=True)
class Custom:
    n: int

    @classmethod
    def from_config(cls, config, path):
        if "n" not in config:
            raise ConfigError(f"{path}.n is missing")
        return cls(config["n"] * 2)


@dataclasses.dataclass(frozen=True)
class Run:
    name: str
    seeds: tuple[int, ...]
    pair: tuple[int, str]
    student: Student
    mode: Literal["da", "rsft"]
    limit: int | None
    colour: Colour
    path: Path
    students: tuple[Student, ...]
    by_name: dict[str, Student]
    anything: Any
    either: int | str
    custom: Custom


def whole() -> ml_collections.ConfigDict:
    student = {"lr": 1, "steps": 10}
    return ml_collections.ConfigDict(
        {
            "name": "x",
            "seeds": (0, 1),
            "pair": (1, "a"),
            "student": student,
            "mode": "da",
            "limit": None,
            "colour": "blue",
            "path": "a/b",
            "students": ({"lr": 0.5, "steps": 1},),
            "by_name": {"small": student},
            "anything": {"deep": {"er": (1, 2)}},
            "either": "word",
            "custom": {"n": 2},
        }
    )


def test_overrides_take_the_type_of_their_field(file):
    overrides = [
        "--config.student.lr=1",
        "--config.student.steps=20",
        "--noconfig.student.tie",
        "--config.seeds=(4,5,6)",
        "--config.limit=7",
        "--config.size=a=b",
        "--config.agents[1].id=c",
    ]
    config = load(str(file), overrides)
    assert config.student.to_dict() == {"lr": 1.0, "steps": 20, "tie": False}
    assert isinstance(config.student.lr, float)
    assert config.seeds == (4, 5, 6)
    assert config.limit == 7
    assert config.size == "a=b"
    assert config.agents[1]["id"] == "c"


def test_argument_goes_to_get_config(file):
    assert load(str(file)).size == "small"
    assert load(f"{file}:large").size == "large"
    file.write_text("def get_config():\n    return 3\n")
    with pytest.raises(ConfigError, match=r"get_config\(\) was given the argument 'large'"):
        load(f"{file}:large")
    with pytest.raises(ConfigError, match="must return a ConfigDict, not int"):
        load(str(file))
    file.write_text("def get_config(size):\n    pass\n")
    with pytest.raises(ConfigError, match=r"\(size\) was given no argument: .*:ARGUMENT`"):
        load(str(file))


def test_what_is_none_is_filled_in_from_a_mapping_of_its_fields(file):
    config = load(str(file), ["--config.label={'rank': 8, 'alpha': 16.0}", "--config.label.rank=4"])
    assert config.label.to_dict() == {"rank": 4, "alpha": 16.0}


def test_adapters_are_switched_on_from_the_command_line():
    config = load("tiny", ["--config.student.lora={'rank': 8, 'alpha': 16.0}"])
    assert build(RunConfig, config).student.lora == Lora(rank=8, alpha=16.0)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("strategy=rsf", "config.student.strategy: unknown strategy 'rsf': did you mean 'rsft'"),
        ("strategy=rsft_then_da", "write ('rsft', 'da'), its phases in order"),
        ("strategy=rsft,da", "write ('rsft', 'da'), its phases in order"),
        ("strategy=student_da", "write 'da', its phases in order"),
        ("objective.weight=0", "config.student.objective.weight is 0.0, but the strategy"),
        ("objective.divergence=none", "config.student.objective.divergence is 'none'"),
    ],
)
def test_mistakes_in_how_students_are_trained_are_found_at_once(override, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        build(RunConfig, load("tiny", [f"--config.student.{override}"]))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tape=sampled", "draws=0"], "config.teacher: tape draws are 0; expected 1 to"),
        (["top_k=0"], "config.teacher: tape k is 0"),
        (["tape=hidden", "contexts.mixture=arithmetic"], "config.teacher.contexts.mixture"),
    ],
)
def test_a_tape_that_cannot_be_written_is_refused_at_once(overrides, said):
    given = [f"--config.teacher.{override}" for override in overrides]
    with pytest.raises(ConfigError, match=said):
        build(RunConfig, load("tiny", given))
    # Where no student reads one it does not matter.
    build(RunConfig, load("tiny", [*given, "--config.students=('student_da',)"]))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--config.student.stps=3", "unknown field config.student.stps (did you mean 'steps'?"),
        ("--config.zzz=3", "unknown field config.zzz: there are agents, label"),
        ("--config.size.x=3", "config.size is 'small' (str) and has no fields"),
        ("--config.student.steps=1.5", "config.student.steps must be an integer, as 10"),
        ("--config.student.steps=", "config.student.steps must be an integer, as 10"),
        ("--config.student.lr=fast", "config.student.lr must be a number, as 0.001"),
        ("--config.student.tie=maybe", "config.student.tie must be true or false, as True"),
        ("--config.limit=x", "config.limit must be an integer"),
        ("--config.student=x", "config.student must be a ConfigDict"),
        ("--config.agents[7].id=x", "config.agents[7].id does not exist"),
        ("--config.label=x", "config.label is None in the config, which does not say its type"),
        ("--config.notes=[1]", "config.notes is a list"),
        ("--student.steps=1", "is no override: write --config.FIELD=VALUE"),
    ],
)
def test_wrong_overrides_name_field_and_type(file, override, said):
    with pytest.raises(ConfigError) as caught:
        load(str(file), ["--config.size=fine", override])
    assert said in str(caught.value)
    assert override in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_in_a_config_file_name_its_line(file):
    file.write_text("def get_config():\n    return 1 +\n")
    with pytest.raises(ConfigError, match=r"mine\.py:2: invalid syntax"):
        load(str(file))
    file.write_text("import json\ndef get_config():\n    return json.loads('{')\n")
    with pytest.raises(ConfigError, match=r"mine\.py:3: JSONDecodeError"):
        load(str(file))
    file.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="has no function get_config"):
        load(str(file))


def test_shipped_configs_are_found_by_name_from_anywhere(file, tmp_path, monkeypatch):
    folder = tmp_path / "installed" / "configs" / "teams"
    folder.mkdir(parents=True)
    (folder / "debate.py").write_text(FILE)
    (folder.parent / "quickstart.py").write_text(FILE)
    monkeypatch.setattr(configs, "shipped_root", lambda: tmp_path / "installed")
    monkeypatch.chdir(tmp_path)
    names = ["quickstart", "configs/quickstart.py", "quickstart.py", "teams/debate"]
    assert [load(name).size for name in names] == ["small"] * 4
    assert load("teams/debate:5").size == "5"
    assert load("mine.py").size == "small"
    with pytest.raises(ConfigError, match="no config quikstart .did you mean 'quickstart'."):
        load("quikstart")
    with pytest.raises(ConfigError, match="is a directory"):
        load("installed")


def test_a_shipped_config_is_shown_by_its_name_and_another_as_it_was_given(file):
    quickstart = str(shipped.shipped_path("configs/quickstart.py"))
    given = ["quickstart", "configs/quickstart.py", quickstart]
    assert {configs.shown(spec) for spec in given} == {"quickstart"}
    sweep = "sweeps/embedded_study:world=search"
    assert configs.shown("embedded_study:world=search") == configs.shown(sweep) == sweep
    assert configs.shown(f"{file}:5") == f"{file}:5"
    assert load(configs.shown(sweep)).task == "search_world"


def test_shipped_path_finds_the_repository_and_names_what_is_missing():
    assert shipped.shipped_path("configs").is_dir()
    with pytest.raises(DataError, match="data/none.bin is not in this installation"):
        shipped.shipped_path("data/none.bin")


def test_build_converts_every_kind_of_field():
    run = build(Run, whole())
    assert run == Run(
        name="x",
        seeds=(0, 1),
        pair=(1, "a"),
        student=Student(1.0, 10),
        mode="da",
        limit=None,
        colour=Colour.BLUE,
        path=Path("a/b"),
        students=(Student(0.5, 1),),
        by_name={"small": Student(1.0, 10)},
        anything={"deep": {"er": [1, 2]}},
        either="word",
        custom=Custom(4),
    )
    assert isinstance(run.student.lr, float)
    assert build(Run, run) is run
    plain = to_dict(run)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["colour"] == "blue" and plain["path"] == "a/b"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"student.steps": 1.5}, "config.student.steps is 1.5 (float): expected an integer"),
        ({"student.steps": True}, "config.student.steps is True (bool): expected an integer"),
        ({"student.lr": True}, "config.student.lr is True (bool): expected a number"),
        ({"student.tie": 1}, "config.student.tie is 1 (int): expected true or false"),
        ({"student.stepz": 1}, "unknown field config.student.stepz (did you mean 'steps'?)"),
        ({"student.steps": 0}, "config.student.steps is 0: it must be >= 1"),
        ({"student": 3}, "config.student is 3 (int): expected the fields lr, steps, tie"),
        (
            {"mode": "rsf"},
            "config.mode is 'rsf' (did you mean 'rsft'?): expected one of 'da', 'rsft'",
        ),
        ({"limit": "x"}, "config.limit is 'x' (str): expected an integer"),
        ({"seeds": (0, "1")}, "config.seeds[1] is '1' (str): expected an integer"),
        ({"seeds": 0}, "config.seeds is 0 (int): expected a tuple, each item an integer"),
        ({"seeds": "01"}, "config.seeds is '01' (str): expected a tuple"),
        ({"pair": (1,)}, "config.pair has 1 items: expected a tuple of 2 (an integer, a string)"),
        ({"colour": "green"}, "config.colour is 'green' (str): expected one of 'red', 'blue'"),
        ({"students": ({"lr": 1},)}, "config.students[0].steps is missing: expected an integer"),
        ({"by_name": {"a": {"lr": 1}}}, "config.by_name.a.steps is missing"),
        ({"either": 1.5}, "config.either is 1.5 (float): expected an integer or a string"),
        ({"custom": {}}, "config.custom.n is missing"),
        ({"name": None}, "config.name is None: expected a string"),
    ],
)
def test_build_names_the_dotted_field_and_what_it_expects(change, said):
    config = whole().to_dict()
    for field, value in change.items():
        *groups, last = field.split(".")
        holder = config
        for group in groups:
            holder = holder[group]
        holder[last] = value
    with pytest.raises(ConfigError) as caught:
        build(Run, ml_collections.ConfigDict(config))
    assert said in str(caught.value)


def test_of_two_dataclasses_the_one_with_most_of_the_fields_is_built():
    """So that a mistake is named by its field, and not as neither of the two."""

    @dataclasses.dataclass(frozen=True)
    class Circle:
        colour: str
        radius: int

    @dataclasses.dataclass(frozen=True)
    class Box:
        colour: str
        width: int
        height: int

    @dataclasses.dataclass(frozen=True)
    class Holder:
        shape: Circle | Box

    box = {"colour": "red", "width": 1, "height": 2}
    assert build(Holder, {"shape": box}).shape == Box("red", 1, 2)
    assert build(Holder, {"shape": {"colour": "red", "radius": 1}}).shape == Circle("red", 1)
    with pytest.raises(ConfigError, match=r"config.shape.width is 'x' .*: expected an integer"):
        build(Holder, {"shape": box | {"width": "x"}})
    with pytest.raises(ConfigError, match=r"unknown field config.shape.hight.*'height'"):
        build(Holder, {"shape": {"colour": "red", "width": 1, "hight": 2}})
    with pytest.raises(ConfigError, match=r"config.shape is 3 .*: expected"):
        build(Holder, {"shape": 3})


def test_every_world_has_its_own_settings():
    for name, task in (("quickstart", "embedded_world"), ("search_quickstart", "search_world")):
        config = build(RunConfig, load(name))
        assert config.task == task and type(config.world) is get_task(task).world.config
    with pytest.raises(ConfigError, match="config.world.stray_rate is 2.0: it must be in"):
        build(RunConfig, load("search_quickstart", ["--config.world.stray_rate=2.0"]))


def test_the_world_of_another_task_is_refused_before_any_work(tmp_path):
    config = build(RunConfig, load("search_quickstart", ["--config.task=embedded_world"]))
    with RunDirectory(tmp_path / "run") as directory:
        session = Session(config, directory, 0, Progress(enabled=False))
        with pytest.raises(ConfigError, match="has the fields of SearchWorldConfig, but task"):
            session.check(("base",))


def test_whole_searches_fit_into_the_search_quickstarts_engine_and_rows(tmp_path):
    config = build(RunConfig, load("search_quickstart"))
    with RunDirectory(tmp_path / "run") as directory:
        session = Session(config, directory, 0, Progress(enabled=False))
        session.check(("base", "sample", "evaluate"))
        documents = session.task.world.documents(config.world, 0, frozenset())
        examples = document_examples(
            itertools.islice(documents, 500), session.tokenizer, session.chat
        )
        longest = max(len(e.prompt_ids) + len(e.target_ids) for e in examples)
        assert longest <= config.base.row_length
        assert longest <= config.student.row_length


def test_missing_and_required_fields_are_told_apart():
    config = whole()
    del config["mode"]
    with pytest.raises(ConfigError, match="config.mode is missing: expected one of 'da', 'rsft'"):
        build(Run, config)
    student = ml_collections.ConfigDict({"lr": config_dict.required_placeholder(float), "steps": 1})
    with pytest.raises(ConfigError, match="config.student.lr must be set: pass --config"):
        build(Student, student, "config.student")
    assert issubclass(ConfigError, ArkJAXError)
