"""Every config under configs/ builds, with every argument that its docstring offers."""

import ast
import importlib.util
import itertools
import re
from pathlib import Path

import pytest

from arkjax.config import build, load, to_dict
from arkjax.errors import ConfigError
from arkjax.reporting.published import published, tables
from arkjax.run_config import RunConfig
from arkjax.shipped import shipped_path
from arkjax.storage import content_hash
from arkjax.sweeps import applied
from arkjax.teams import library

FOLDER = shipped_path("configs")
CONFIGS = sorted(path.stem for path in FOLDER.glob("*.py"))
SWEEPS = sorted(path.stem for path in (FOLDER / "sweeps").glob("*.py"))

TEACHERS = ("Qwen3-32B", "Qwen3-8B", "Gemma-3-27B-it")
STUDENTS = ("Qwen3-8B", "Qwen3-1.7B", "Qwen3-0.6B", "Llama-3-8B-Instruct", "Gemma-7B")
DATASETS = ("gsm8k", "medmcqa", "metamath_qa", "math")
STRATEGIES = ("rsft", "da", "pad", "rsft+da", "pad+da")


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def built(config) -> RunConfig:
    """The config, with all that can be checked of it before a model is there."""
    made = build(RunConfig, config)
    team, single = library.load(made.team), library.load(made.sample.single)
    made.check_players(team, single)
    # As the stages ask for them.
    for spec in (made.sample.samples, made.sample.roles):
        library.load(f"{spec},n=2")
    return made


def sweep(name: str):
    spec = importlib.util.spec_from_file_location(f"sweep_{name}", FOLDER / "sweeps" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_build_as_they_are(name):
    made = built(load(name))
    assert docstring(FOLDER / f"{name}.py") and made.name


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("base", ["", "base=agentark"])
def test_every_point_of_a_sweep_builds_and_is_a_run_of_its_own(name, base):
    module = sweep(name)
    if name == "embedded_study":
        assert [applied(module.get_config(), p) for p in module.get_sweep()] == [load(name)]
        return
    points = module.get_sweep(base)
    start = module.get_base(base)
    runs = [built(applied(start, point)) for point in points]
    assert len({content_hash(run.to_dict()) for run in runs}) == len(points) > 3
    assert len({run.name for run in runs}) == len(points)
    # Each is also had by its choice.
    chosen = [s.choice for s in module.SWEEP.studies if base == "" and s.embedded is not None]
    for choice, run in zip(chosen, runs, strict=False):
        arg = ",".join(f"{option}={value}" for option, value in choice.items())
        assert build(RunConfig, load(f"sweeps/{name}:{arg}")) == run


@pytest.mark.parametrize("name", ["agentark", *(f"sweeps/{name}" for name in SWEEPS)])
def test_options_are_described_and_others_refused(name):
    with pytest.raises(ConfigError) as refused:
        load(f"{name}:nonsense=1")
    listed = re.search(r"(?:known:|there are) ([\w, ]+?)(?:, and|$)", str(refused.value))
    options = [option.strip() for option in listed[1].split(",")]
    assert options
    text = docstring(FOLDER / f"{name}.py")
    for option in options:
        assert re.search(rf"\b{option}\b", text), f"configs/{name}.py does not describe {option}"


def test_a_sweep_goes_by_its_name_alone():
    assert load("embedded_study") == load("sweeps/embedded_study")
    assert load("embedded_study").seeds == (0, 1, 2)
    with pytest.raises(ConfigError, match=r"world is 'serch' \(did you mean 'search'\?\)"):
        load("embedded_study:world=serch")


def grid():
    """All pairs of models, and all pairs of data set and strategy; not all of all."""
    turns = itertools.cycle(itertools.product(DATASETS, STRATEGIES))
    for (teacher, student), (dataset, strategy) in zip(
        itertools.product(TEACHERS, STUDENTS), turns, strict=False
    ):
        yield teacher, student, dataset, strategy
    for dataset, strategy in itertools.product(DATASETS, STRATEGIES):
        yield "Qwen3-8B", "Llama-3-8B-Instruct", dataset, strategy


def test_the_papers_grid_builds():
    hashes = set()
    points = sorted(set(grid()))
    for teacher, student, dataset, strategy in points:
        spec = f"teacher={teacher},student={student},dataset={dataset},strategy={strategy}"
        made = built(load(f"agentark:{spec}"))
        hashes.add(content_hash(made.to_dict()))
        known = tables()["models"]
        assert made.base.checkpoint == f"hf:{known[student]}" and made.task == dataset
        if teacher == student:
            assert made.policy == "base" and not made.models
        else:
            assert made.models[made.policy].checkpoint == f"hf:{known[teacher]}"
        assert made.students[0] == "student_" + strategy.replace("+", "_then_")
        # A student whose tokens are not the teacher's can learn its words.
        assert made.synthesis.foreign == "reencode" and made.model.remat
        assert made.engine.length_classes[-1] <= made.model.max_context
        assert made.model.dtype == "bfloat16"
        # It is a point of the paper's tables, under the names that those have.
        tested = {"systems": {"base": {"accuracy": 0.5}}}
        report = {"splits": dict.fromkeys(made.evaluation.splits, tested)}
        rows = published(to_dict(made), report)["rows"]
        assert {row["dataset"] for row in rows} == {"gsm8k", "medmcqa"}
        assert {row["student"] for row in rows} == {student}
        assert {row["teacher"] for row in rows} == {teacher, None}
    assert len(hashes) == len(points)


def test_the_papers_numbers_are_in_the_config():
    made = build(RunConfig, load("agentark:strategy=pad"))
    team = library.load(made.team)
    assert len(team.agents) == 5 + 1
    assert {agent.sampling.temperature for agent in team.agents} == {0.5}
    assert (made.sample.problems, made.synthesis.min_agreeing) == (7473, 2)
    reward, policy = made.student.reward_model, made.student.policy
    assert (reward.loss, reward.batch_rows, reward.optimizer.learning_rate) == (
        "contrastive",
        64,
        1e-4,
    )
    assert reward.head_epochs + reward.epochs == 3
    assert (policy.rollouts.samples, policy.rollouts.temperature) == (8, 0.5)
    assert policy.rollouts.prompts * policy.rollouts.samples == 128
    assert policy.rollouts.prompts * policy.rollouts.refresh_steps == 64
    assert (policy.grpo.clip_low, policy.grpo.clip_high, policy.grpo.kl_coefficient) == (
        0.2,
        0.2,
        1e-3,
    )
    assert policy.train.optimizer.learning_rate == 5e-7


@pytest.mark.parametrize(
    "arg, message",
    [
        ("teacher=Qwen3-23B", r"teacher is 'Qwen3-23B' \(did you mean 'Qwen3-32B'\?\)"),
        ("student=Qwen3-4B", "student is 'Qwen3-4B'.*: there are Qwen3-8B, Qwen3-1.7B"),
        ("dataset=gsm8", r"dataset is 'gsm8' \(did you mean 'gsm8k'\?\)"),
        ("strategy=ppd", r"strategy is 'ppd' \(did you mean 'pad'\?\): write one of rsft, da, pad"),
        ("strategy=pad+ad", r"strategy is 'pad\+ad'"),
        ("tests=gsm8k+svanp", r"tests is 'svanp' \(did you mean 'svamp'\?\)"),
        ("agents=0", "agents is 0: expected 1 or more"),
        (
            "agents=10,student=Gemma-7B",
            "need contexts of 13312, but Gemma-7B holds 8192: lower agents",
        ),
        ("studend=Qwen3-8B", "no option 'studend'; did you mean 'student'"),
        ("strategy=logit", "student_logit is held to the distributions .* not 'teacher'"),
    ],
)
def test_points_that_are_not_in_the_grid(arg, message):
    with pytest.raises(ConfigError, match=message):
        built(load(f"agentark:{arg}"))


def test_distributions_are_learned_of_ones_own_model():
    made = built(load("agentark:teacher=Qwen3-8B,student=Qwen3-8B,strategy=sequence+logit"))
    assert made.students[0] == "student_sequence+logit"
