"""`arkjax evaluate --task`: from the command line to the report, with small random models."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from arkjax import benchmark, cli
from arkjax import config as configs
from arkjax.errors import ConfigError
from arkjax.evaluation.outcomes import Outcomes
from arkjax.models.placement import save_model
from arkjax.models.presets import tiny
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.progress import Progress
from arkjax.run_config import RunConfig
from arkjax.session import Session
from arkjax.shipped import shipped_path
from arkjax.tasks import registry
from arkjax.text.files import SENTENCEPIECE
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parent / "tasks" / "fixtures"
REAL = os.environ.get("ARKJAX_DATASETS", "")
TOKENIZER = shipped_path("data/embedded_world/tokenizer.model")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A random model that reads the embedded world's tokens."""
    config = dataclasses.replace(tiny(), vocab_size=192, max_context=256)
    rng = np.random.default_rng(3)
    weights = {
        name: jnp.asarray(
            rng.normal(0, 2 * spec.fan_in**-0.5, spec.shape)
            if spec.fan_in
            else np.full(spec.shape, spec.constant),
            np.float32,
        )
        for name, spec in weight_specs(config).items()
    }
    path = tmp_path_factory.mktemp("model") / "random-1" / "model"
    path.parent.mkdir()
    info = {"tokenizer": Tokenizer(TOKENIZER).hash}
    save_model(path, Transformer(config, weights), info, {SENTENCEPIECE: TOKENIZER})
    return path


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARKJAX_DATASETS", str(FIXTURES))


def evaluate(*arguments, model=None):
    given = ["--max-tokens", 8, "--slots", 8, *(["--model", model] if model else []), *arguments]
    return cli.main(["evaluate", *map(str, given)])


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_model_alone(model, tmp_path, capsys):
    assert evaluate("--task", "gsm8k", model=model) == 0
    said = capsys.readouterr()
    out = tmp_path / "runs/evaluate/gsm8k-test"
    stage = out / "seed-0/evaluate"
    table = said.out.splitlines()
    assert table[0] == "3 problems of split test; costs per problem"
    assert table[1].split()[:2] == ["system", "right,"] and table[2].startswith("random-1 ")
    assert "problems/s" in said.err and "has read nothing but its own small world" not in said.out
    rows = lines(stage / "answers.jsonl")
    assert [row["id"] for row in rows] == [f"gsm8k-test-0000{n}" for n in range(3)]
    assert [row["gold"] for row in rows] == ["5", "-7", "2"]
    calls = {call.problem_id: call for call in CallStore(stage / "calls/base").load()}
    for row, outcome in zip(rows, Outcomes.load(stage / "outcomes.parquet").records(), strict=True):
        call = calls[row["id"]]
        assert (row["system"], row["text"], row["correct"]) == ("base", call.text, call.correct)
        assert outcome.correct == row["correct"] and outcome.calls == 1 and row["reason"]
        assert outcome.generated_tokens == len(call.gen_ids) <= 8
    report = json.loads((out / "report/report.json").read_text())
    assert report["splits"]["test"]["systems"]["base"]["calls"] == 1
    assert report["command"].startswith("arkjax evaluate --task gsm8k --model ")
    assert report["labels"] == {"base": "random-1"}
    page = (out / "report/report.html").read_text()
    assert "random-1<code>base</code>" in page and "<li>random-1<b>" in page


def test_the_same_command_goes_on_and_another_is_refused(model, tmp_path, capsys, monkeypatch):
    command = ["--task", "gsm8k", "--limit", 2, "--out", "here"]
    assert evaluate(*command, model=model) == 0
    first = capsys.readouterr().out
    answers = tmp_path / "here/seed-0/evaluate/answers.jsonl"
    written = answers.read_bytes()

    # Nothing is played again where all is there, ...
    monkeypatch.setattr(benchmark, "Engine", None)
    assert evaluate(*command, model=model) == 0
    again = capsys.readouterr()
    assert again.out == first and "finished before" in again.err
    for other in (["--seed", 1], ["--max-tokens", 9], ["--samples", 2], ["--limit", 3]):
        assert evaluate(*command, *other, model=model) == 4
        said = capsys.readouterr().err
        assert "choose another --out" in said and "--workdir" not in said
    assert answers.read_bytes() == written
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARKJAX_DATASETS", str(FIXTURES))

    # ... nor are recorded calls where it was killed before the end.
    state = tmp_path / "here/seed-0/evaluate/stage.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"status": "running"}))
    answers.unlink()
    shards = sorted((tmp_path / "here/seed-0/evaluate/calls/base").iterdir())
    stamps = [path.stat().st_mtime_ns for path in shards]
    assert evaluate(*command, model=model) == 0
    assert answers.read_bytes() == written
    assert sorted((tmp_path / "here/seed-0/evaluate/calls/base").iterdir()) == shards
    assert [path.stat().st_mtime_ns for path in shards] == stamps
    assert evaluate(*command, "--redo", "evaluate", model=model) == 0
    assert answers.read_bytes() == written


def test_samples_vote(model, tmp_path):
    assert evaluate("--task", "svamp", "--samples", 3, "--quiet", model=model) == 0
    outcomes = Outcomes.load(tmp_path / "runs/evaluate/svamp-test/seed-0/evaluate/outcomes.parquet")
    assert outcomes.distinct("system") == ["base", "self_consistency"]
    assert set(outcomes.select(system="self_consistency")["calls"].tolist()) == {3}
    report = json.loads((tmp_path / "runs/evaluate/svamp-test/report/report.json").read_text())
    (claim,) = report["comparisons"]
    assert (claim["a"], claim["b"], claim["n"]) == ("self_consistency", "base", 2)


def test_a_team_its_roles_and_as_many_samples_as_cost_its_tokens(model, tmp_path):
    command = ["--task", "embedded_world", "--limit", 3, "--team", "debate:rounds=2", "--quiet"]
    assert evaluate(*command, "--out", "out", model=model) == 0
    stage = tmp_path / "out/seed-0/evaluate"
    outcomes = Outcomes.load(stage / "outcomes.parquet")
    assert outcomes.distinct("system") == ["base", "role_vote", "self_consistency", "team"]
    of = {name: outcomes.select(system=name) for name in outcomes.distinct("system")}
    assert set(of["team"]["calls"].tolist()) == {8} and set(of["role_vote"]["calls"]) == {4}
    tokens = {name: rows["generated_tokens"].sum() for name, rows in of.items()}
    samples = int(of["self_consistency"]["calls"][0])
    assert (samples - 1) * tokens["base"] < tokens["team"] <= samples * tokens["base"]
    # What the roles said alone is the debate's opening, and was generated once.
    ids = {name: {call.call_id for call in CallStore(stage / "calls" / name)} for name in of}
    assert ids["role_vote"] < ids["team"]
    everything = CallStore(stage / "calls/team").load()
    assert max(call.sampling["max_tokens"] for call in everything) == 8


def test_problems_without_room_count_as_wrong_and_are_counted(model, tmp_path, capsys):
    data = tmp_path / "test.jsonl"
    records = lines(FIXTURES / "gsm8k/test.jsonl")
    records[1]["question"] = "How many words has this? " * 100
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert evaluate("--task", "gsm8k", "--source", data, "--quiet", model=model) == 0
    said = capsys.readouterr().out
    assert "random-1: 1 of 3 problems do not fit into the model's context" in said
    rows = lines(tmp_path / "runs/evaluate/gsm8k-test/seed-0/evaluate/answers.jsonl")
    assert [row["text"] == "" for row in rows] == [False, True, False]
    assert (rows[1]["correct"], rows[1]["extracted"]) == (False, None)
    assert "does not fit" in rows[1]["reason"]


@pytest.mark.parametrize("team", ["", "debate:rounds=2"])
def test_where_no_problem_has_room_nothing_is_measured(model, team, tmp_path, capsys):
    command = ["--task", "qmsum", "--split", "validation", "--max-tokens", 250]
    if team:
        # Alone the model has room for these.
        command = ["--task", "gsm8k", "--max-tokens", 60, "--team", team]
    assert evaluate(*command, "--quiet", "--out", "here", model=model) == 3
    said = capsys.readouterr()
    assert "none of the 3 problems fits into the model's context" in said.err
    assert f"with team {'debate' if team else 'vanilla'!r}: the shortest needs " in said.err
    assert "the model holds 256; give a model with a longer context" in said.err
    assert not said.out and not (tmp_path / "here/report").exists()
    assert not list(tmp_path.rglob("outcomes.parquet"))


def test_models_are_called_as_they_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert benchmark.model_name("hf:Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
    assert benchmark.model_name("runs/q/seed-0/distill/student_da/model") == "student_da"
    assert benchmark.model_name("models/mine/") == "mine"
    (tmp_path / "model").mkdir()
    assert benchmark.model_name("model") == tmp_path.name


def test_graded_figures_are_in_the_table(model, tmp_path, capsys):
    assert evaluate("--task", "truthfulqa", "--split", "validation", "--quiet", model=model) == 0
    said = capsys.readouterr().out.splitlines()
    assert "bleu_diff" in said[1]
    rows = lines(tmp_path / "runs/evaluate/truthfulqa-validation/seed-0/evaluate/answers.jsonl")
    report = json.loads(
        (tmp_path / "runs/evaluate/truthfulqa-validation/report/report.json").read_text()
    )
    for name, value in report["scores"]["base"].items():
        assert value == pytest.approx(sum(row["scores"][name] for row in rows) / 2)


def test_choices_are_compared_by_their_probability(model, tmp_path, capsys):
    command = ["--task", "truthfulqa_mc", "--split", "validation", "--quiet"]
    assert evaluate(*command, model=model) == 0
    assert "mc1: " in capsys.readouterr().out
    stage = tmp_path / "runs/evaluate/truthfulqa_mc-validation/seed-0/evaluate"
    rows = lines(stage / "choices.jsonl")
    for row, right in zip(rows, ([1, 1, 0, 0], [1, 0]), strict=True):
        chances = np.exp(np.array(row["logprobs"]["mc2"]))
        assert row["mc2"] == pytest.approx(chances[np.array(right) == 1].sum() / chances.sum())
        first = row["logprobs"]["mc1"]
        assert row["mc1"] == float(first[0] > max(first[1:]))


def test_the_real_file(model, tmp_path, monkeypatch, capsys):
    if not REAL or not Path(REAL, "gsm8k").is_dir():
        pytest.skip("ARKJAX_DATASETS names no folder with gsm8k/")
    monkeypatch.setenv("ARKJAX_DATASETS", REAL)
    assert evaluate("--task", "gsm8k", "--split", "test", "--limit", 3, model=model) == 0
    assert "3 problems of split test" in capsys.readouterr().out
    rows = lines(tmp_path / "runs/evaluate/gsm8k-test/seed-0/evaluate/answers.jsonl")
    assert [row["gold"] for row in rows] == ["18", "3", "70000"]


def test_without_a_model_the_note_says_what_the_embedded_one_is(
    model, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(benchmark, "embedded_model", lambda progress: str(model))
    assert evaluate("--task", "gsm8k", "--limit", 1, "--quiet") == 0
    said = capsys.readouterr().out
    assert "has read nothing but its own small world" in said
    assert said.splitlines()[2].startswith("base ")


def test_without_a_model_the_embedded_one_is_taken(tiny_run, tmp_path, monkeypatch, capsys):
    # The quickstart's own takes minutes to train; that of the small run is made by the same stage.
    run = tmp_path / "embedded"
    shutil.copytree(tiny_run / "seed-0" / "base", run / "seed-0" / "base")
    shutil.copyfile(tiny_run / "lock", run / "lock")
    monkeypatch.setattr(benchmark, "EMBEDDED_RUN", run)
    monkeypatch.setattr(benchmark, "EMBEDDED_CONFIG", "tiny")
    made = (run / "seed-0/base/stage.json").read_bytes()
    assert evaluate("--task", "embedded_world", "--limit", 20, "--max-tokens", 30) == 0
    said = capsys.readouterr()
    assert f"the embedded base model of {run} is taken" in said.err
    assert "nothing but its own small world" not in said.out
    assert (run / "seed-0/base/stage.json").read_bytes() == made
    stage = tmp_path / "runs/evaluate/embedded_world-test/seed-0/evaluate"
    assert 0 < Outcomes.load(stage / "outcomes.parquet")["correct"].sum() <= 20
    monkeypatch.setattr(benchmark, "EMBEDDED_CONFIG", "quickstart")
    assert evaluate("--task", "embedded_world", "--limit", 20, "--max-tokens", 30) == 4
    assert "holds the base model of another config: delete it" in capsys.readouterr().err


BILLS = [
    {"items": "3 pens at 2, a cup at 5", "total": 11, "shop": "north"},
    {"items": "a mat at 7.50", "total": 7.5, "shop": "south"},
]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The README's own task, as it stands there, and data for it."""
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    monkeypatch.setattr(registry, "_FILES", {})
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(# shop\.py\n.*?)```", text, re.DOTALL)
    assert code.count("\n") <= 25
    (tmp_path / "shop.py").write_text(code)
    for split, rows in {"train": BILLS, "test": BILLS[::-1]}.items():
        path = tmp_path / "bills" / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_readmes_own_task(shop, model, tmp_path, capsys):
    assert evaluate("--task", "shop.py:shop", "--source", "bills", model=model) == 0
    assert "2 problems of split test" in capsys.readouterr().out
    rows = lines(tmp_path / "runs/evaluate/shop-test/seed-0/evaluate/answers.jsonl")
    assert [(row["id"], row["gold"]) for row in rows] == [
        ("shop-test-00000", "7.5"),
        ("shop-test-00001", "11"),
    ]
    bad = tmp_path / "bills/test.jsonl"
    bad.write_text('{"items": "a mat", "shop": "south"}\n')
    assert evaluate("--task", "shop.py:shop", "--source", "bills", "--out", "o", model=model) == 3
    assert "test.jsonl, line 1, field 'total': it is missing" in capsys.readouterr().err


def test_the_readmes_own_task_in_a_config(shop, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from arkjax import config\n\n\n"
        "def get_config(arg=''):\n"
        "    c = config.load('tiny')\n"
        "    c.task, c.source = 'shop.py:shop', 'bills'\n"
        "    return c\n"
    )
    loaded = configs.build(RunConfig, configs.load("mine.py"))
    session = Session(loaded, None, 0, Progress(enabled=False))
    problems = session.problems("train", None)
    assert [problem.answer for problem in problems] == ["11", "7.5"]
    assert problems[0].question == (
        "What do 3 pens at 2, a cup at 5 cost?\n\nEnd with the sum, as in: Answer: 12"
    )
    assert (problems[0].domain, problems[0].meta["difficulty"]) == ("north", 2)
    assert session.task.grader.grade(problems[0], "Answer: 11.00").correct


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--config and --workdir required: give --config with --workdir to evaluate a run"),
        (["--config", "tiny"], 2, "--workdir required"),
        (["--config", "tiny", "--workdir", "w", "--limit", "3"], 2, "--limit goes with --task"),
        (["--task", "gsm8k", "--config", "tiny"], 2, "--config is for runs and does not go with"),
        (["--task", "gsm8k", "--config.seeds=(1,)"], 2, "--config.seeds is for runs"),
        (["--task", "gsm8k", "--redo", "sample"], 2, "there is only --redo evaluate"),
        (["--task", "gsm8", "--model", "m"], 2, "no task 'gsm8'; did you mean 'gsm8k'"),
        (["--task", "gsm8k", "--split", "dev"], 2, "'dev' of gsm8k; it is called 'validation'"),
        (["--task", "gsm8k", "--limit", "0"], 2, "--limit is 0: it must be at least 1"),
        (["--task", "gsm8k", "--limit", "4"], 2, "which has 3"),
        (["--task", "gsm8k", "--max-tokens", "-1"], 2, "--max-tokens is -1"),
        (["--task", "gsm8k", "--team", "debate", "--samples", "2"], 2, "--samples goes without"),
        (["--task", "embedded_world", "--source", "x", "--limit", "1"], 2, "makes its problems"),
        (["--task", "gsm8k", "--source", "nowhere"], 3, "no such file or folder"),
        (["--task", "gsm8k", "--model", "nowhere"], 3, "there is no model at nowhere"),
        (["--task", "gsm8k", "--limt", "3"], 2, "--limt: did you mean --limit?"),
    ],
)
def test_wrong_usage(arguments, code, said, capsys, tmp_path):
    assert cli.main(["evaluate", *arguments]) == code
    captured = capsys.readouterr().err
    assert said in captured and "Traceback" not in captured
    assert not list(tmp_path.rglob("stage.json"))


def test_a_team_that_is_not_there(model, capsys):
    assert evaluate("--task", "gsm8k", "--team", "debait", model=model) == 2
    assert "debate" in capsys.readouterr().err


def test_slots_follow_the_memory_there_is(monkeypatch):
    config = dataclasses.replace(tiny(), max_context=4096)
    tokenizer = Tokenizer(TOKENIZER)
    position = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4
    monkeypatch.setattr(benchmark, "_cache_bytes", lambda: 2 * 1024 * position * 16)
    needed = [900] * 500
    found = benchmark.sized(config, [*needed, 1000], 0, 1, tokenizer)
    assert (found.length_classes, found.slots) == ((1024,), 16)
    assert benchmark.sized(config, needed, 5, 1, tokenizer).slots == 5
    assert benchmark.sized(config, needed, 0, 32, tokenizer).slots == 32
    few = benchmark.sized(config, [40, 50, 3000], 0, 1, tokenizer)
    assert few.length_classes == (64, 3008) and few.slots < 8
    with pytest.raises(ConfigError, match="--tensor is 0"):
        benchmark.Wish("gsm8k", tensor=0)
