"""What `arkjax view` finds in a run, and how it writes the page."""

import dataclasses
import json

import pyarrow as pa
import pytest

from arkjax import cli
from arkjax.errors import DataError, StorageError
from arkjax.progress import Progress
from arkjax.reporting.viewer.sources import find_sources
from arkjax.reporting.viewer.write import write_page
from arkjax.storage import write_atomic
from arkjax.trajectories.attribution import AgentCredit, Attribution, MessageCredit
from arkjax.trajectories.schema import to_table
from arkjax.trajectories.store import CallStore

from .debate_pages import TOKENIZER, debate, debates, record, say, small_run, unpack, view

pytestmark = pytest.mark.fast


def test_a_run_shows_all_seeds_systems_and_answers(tmp_path):
    data = view(small_run(tmp_path / "run"), tmp_path / "page.html")
    places = [(g["seed"], g["stage"], g["split"], g["system"]) for g in data["facts"]["groups"]]
    assert places == [
        (0, "sample", "train", "team"), (0, "evaluate", "test", "base"),
        (0, "evaluate", "test", "team"), (1, "sample", "train", "team"),
    ]  # fmt: skip
    rows = [one["row"] for one in debates(data)]
    # Without the task, a message that states the team's answer tells whether it is right.
    assert [(row["answer"], row["right"]) for row in rows] == [
        ("3", True), ("7", False), (None, None),
    ]  # fmt: skip
    assert [one["row"]["right"] for one in debates(data, 2)] == [True]
    # The team's own order, not that of names.
    assert [call["agent"] for call in next(debates(data))["calls"]][:2] == ["bob", "ann"]
    assert any("'mine'" in note for note in data["facts"]["notes"])


def test_a_run_at_work_shows_what_is_recorded(tmp_path):
    data = view(small_run(tmp_path / "run", finished=False), tmp_path / "page.html")
    assert [group["debates"] for group in data["facts"]["groups"]] == [3, 3]
    assert {one["row"]["answer"] for one in debates(data)} == {None}
    assert any("not finished" in note for note in data["facts"]["notes"])


def test_recorded_credit_goes_before_that_of_the_answers(tmp_path):
    run = small_run(tmp_path / "run")
    calls = debate("p-0")
    messages = [
        MessageCredit(c.call_id, "p-0", c.agent, c.round, 0.0, 0.0, False, False, 0.125, 2)
        for c in calls
    ]
    agents = [
        AgentCredit("p-0", name, 2.0, 0.0, True, False, 0.25, 1.5, 0.1) for name in ("ann", "bob")
    ]
    Attribution.of(messages, agents).save(run / "seed-0" / "synthesize" / "attribution")
    data = view(run, tmp_path / "page.html")
    first, second, _ = debates(data)
    assert {call["credit"]["influence"] for call in first["calls"]} == {0.125}
    assert first["agents"]["bob"]["shapley"] == 1.5
    # Of a debate without a record, what its answers say.
    assert second["agents"]["bob"]["misled"] == 1
    assert data["facts"]["groups"][0]["credited"]
    assert not data["facts"]["groups"][-1]["credited"]


def test_questions_and_domains_come_from_the_task(tiny_run_inputs, tmp_path):
    run, problem = tiny_run_inputs
    (one,) = debates(view(run, tmp_path / "page.html"))
    assert one["question"] == problem.question
    assert one["row"]["domain"] == problem.domain
    assert one["row"]["gold"] == problem.answer
    assert one["row"]["right"] is True


@pytest.fixture
def tiny_run_inputs(tmp_path):
    """A run of the embedded world with one problem, and that problem."""
    from arkjax.tasks.embedded_sets import EMBEDDED_SETS

    world = EMBEDDED_SETS.shipped
    (problem,) = EMBEDDED_SETS.load("train", 1, world=world, seed=4)
    folder = tmp_path / "run" / "seed-4" / "sample"
    record(folder / "team", [say(problem.id, "ann", 0, "so 3", problem.answer, True)])
    inputs = {
        "task": "embedded_world", "world": dataclasses.asdict(world), "seed": 4,
        "sample": {"problems": 1}, "team": {"agents": [{"id": "ann"}]},
    }  # fmt: skip
    summary = {"team_answers": {problem.id: problem.answer}}
    state = {"status": "done", "inputs": inputs, "files": {}, "summary": summary}
    write_atomic(folder / "stage.json", json.dumps(state))
    return tmp_path / "run", problem


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_the_page_and_says_where(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    run = small_run(tmp_path / "run")
    assert cli.main(["view", str(run), "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(run / "debates.html")
    out = tmp_path / "one.html"
    assert cli.main(["view", str(run), "--out", str(out), "--no-open", "--seed", "1"]) == 0
    assert [group["seed"] for group in unpack(out)["facts"]["groups"]] == [1]
    assert "3 debates, 12 calls" in capsys.readouterr().err
    assert cli.main(["view", str(run), "--out", str(out), "--quiet", "--limit", "2"]) == 0
    facts = unpack(out)["facts"]
    assert [group["debates"] for group in facts["groups"]] == [2, 1, 1, 2]
    assert any("at most the first 2 debates" in note for note in facts["notes"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["{empty}"], 3, "holds no recorded calls"),
        (["{nowhere}"], 3, "holds no recorded calls"),
        (["{run}", "--seed", "7"], 3, "has no seed 7"),
        (["{run}", "--limit", "0"], 2, "not positive"),
        (["{run}", "--out", "{run}"], 5, "it is a directory"),
        (["{run}", "--out", "{thesis}"], 5, "is no page of debates"),
        (["{run}", "--out", "{nowhere}/page.html"], 5, "make it first"),
        (["{run}", "--tokenizer", "{empty}"], 3, "tokenizer"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, capsys, arguments, code, says):
    places = {"run": tmp_path / "run", "empty": tmp_path / "empty", "nowhere": tmp_path / "none"}
    small_run(places["run"])
    places["empty"].mkdir()
    places["thesis"] = tmp_path / "thesis.txt"
    places["thesis"].write_text("years of work")
    words = [word.format(**places) for word in arguments]
    assert cli.main(["view", *words, "--no-open", "--quiet"]) == code
    assert says in capsys.readouterr().err
    assert places["thesis"].read_text() == "years of work"


def test_a_damaged_shard_leaves_the_old_page(tmp_path):
    folder = record(tmp_path / "store", [c for i in range(9) for c in debate(f"p-{i}")])
    path = tmp_path / "page.html"
    path.write_text("the old page")
    sources = find_sources(folder, tokenizer=TOKENIZER)
    shard = sorted(folder.glob("*.parquet"))[-1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match=shard.name):
        write_page(path, sources)
    assert path.read_text() == "the old page"
    assert {entry.name for entry in tmp_path.iterdir()} == {"store", "page.html"}


def test_what_stops_the_writing_leaves_the_old_page(tmp_path):
    folder = record(tmp_path / "store", debate("p"))
    path = tmp_path / "page.html"
    path.write_text("the old page")

    class Stop(Progress):
        def task(self, *arguments, **settings):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_page(path, find_sources(folder), progress=Stop())
    assert path.read_text() == "the old page"
    assert {entry.name for entry in tmp_path.iterdir()} == {"store", "page.html"}
    with pytest.raises(StorageError, match="cannot write"):
        write_page(tmp_path / "none" / "page.html", find_sources(folder))


def test_progress_counts_every_call(tmp_path):
    folder = record(tmp_path / "store", [c for i in range(5) for c in debate(f"p-{i}")])
    seen = []

    class Watch(Progress):
        def say(self, text):
            seen.append(text)

    write_page(tmp_path / "page.html", find_sources(folder), limit=2, progress=Watch())
    assert "20/20 calls" in seen[-1]


def test_tables_go_through_a_store_shard_by_shard(tmp_path):
    calls = [c for i in range(5) for c in debate(f"p-{i}")]
    store = CallStore(record(tmp_path / "store", calls, shard_calls=6))
    tables = list(store.tables())
    assert [len(table) for table in tables] == [6, 6, 6, 2]
    together = pa.concat_tables(tables).sort_by("call_id")
    assert together.equals(to_table(sorted(calls, key=lambda call: call.call_id)))
