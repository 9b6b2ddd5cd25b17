"""`arkjax trajectories` as a user calls it: real stores, real processes, real exit codes."""

import dataclasses
import json
import os
import pty
import re
import shutil
import subprocess
import sys

import pytest

from arkjax.distillation.rows import Rows
from arkjax.shipped import shipped_path
from arkjax.trajectories.schema import content_hash, from_table, to_table
from arkjax.trajectories.shards import read_shard, write_shard
from arkjax.trajectories.store import CallStore

TOKENIZER = "data/embedded_world/tokenizer.model"


@pytest.fixture
def run_copy(tiny_run, tmp_path):
    """The tiny run, to be changed."""
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def team(run_copy):
    """The store of the team's debates in it."""
    return run_copy / "seed-0/sample/team"


@pytest.fixture
def trajectories(arkjax_command):
    """Runs `arkjax trajectories` with these arguments."""
    return lambda *arguments, **settings: arkjax_command("trajectories", *arguments, **settings)


def test_stats_of_a_run_are_those_of_all_its_stores(trajectories, run_copy, team):
    done = trajectories("stats", run_copy, "--json")
    assert done.returncode == 0, done.stderr
    stores = {store["store"]: store for store in json.loads(done.stdout)["stores"]}
    assert str(team) in stores and len(stores) > 8
    calls = CallStore(team).load()
    assert stores[str(team)]["calls"] == len(calls)
    assert stores[str(team)]["right"] == sum(bool(call.correct) for call in calls)
    assert "count: " in done.stderr and "calls/s" in done.stderr
    table = trajectories("stats", team, "--quiet")
    assert table.returncode == 0 and table.stderr == ""
    assert f"{len(calls):,}" in table.stdout and "right, round 1" in table.stdout
    assert "\033" not in table.stdout


def test_a_debate_and_a_call_can_be_read(trajectories, team):
    store = CallStore(team)
    problem = store.problems()[3]
    calls = store.of_problem(problem)
    shown = trajectories("show", team, "--problem", problem, "--quiet")
    assert shown.returncode == 0, shown.stderr
    assert f"problem {problem}\n  question: " in shown.stdout
    assert all(call.text in shown.stdout for call in calls)
    places = [shown.stdout.index(call.call_id) for call in calls]
    assert places == sorted(places)
    two = trajectories("show", team, "--limit", 2)
    assert two.stdout.count("problem ") == 2
    heard = next(call for call in calls if call.parents)
    one = trajectories("show", team, "--call", heard.call_id)
    assert store.get(heard.parents[0]).text in one.stdout and "its answer:" in one.stdout
    assert trajectories("show", team, "--problem", "nobody").returncode == 3
    missing = trajectories("show", team, "--call", "nobody")
    assert missing.returncode == 3 and "has no call nobody" in missing.stderr


def test_a_bare_store_is_shown_without_the_words_of_prompts_until_told_how(
    trajectories, team, tmp_path
):
    bare = shutil.copytree(team, tmp_path / "bare")
    call = CallStore(bare).load()[0]
    shown = trajectories("show", bare, "--call", call.call_id)
    assert shown.returncode == 0 and "template [0, " in shown.stdout
    path = shipped_path(TOKENIZER)
    shown = trajectories("show", bare, "--call", call.call_id, "--tokenizer", path)
    assert "question: " in shown.stdout
    refused = trajectories("export", bare, "--format", "chat-jsonl", "--out", tmp_path / "x")
    assert refused.returncode == 2 and "give --tokenizer" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_another_tokenizer_than_the_calls_were_made_with_is_refused(trajectories, team, run_copy):
    info = run_copy / "seed-0/sample/run.json"
    told = json.loads(info.read_text()) | {"tokenizer": "f" * 64}
    info.write_text(json.dumps(told))
    done = trajectories("show", team)
    assert done.returncode == 3 and "another tokenizer" in done.stderr


def through_a_terminal(command, *arguments):
    """What a process writes to a terminal of its own."""
    main, other = pty.openpty()
    environment = {**command.environment, "TERM": "xterm-256color", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "arkjax", "trajectories", *map(str, arguments)],
        env=environment,
        stdout=other,
        stderr=subprocess.DEVNULL,
    )
    os.close(other)
    data = b""
    try:
        while chunk := os.read(main, 65536):
            data += chunk
    except OSError:  # The other end was closed.
        pass
    os.close(main)
    assert process.wait() == 0
    return data.decode()


def test_no_escape_sequence_of_a_model_reaches_a_terminal(arkjax_command, team, tmp_path):
    call = CallStore(team).load()[0]
    wild = "\x1b]0;owned\x07\x1b[2J\x9b31m[bold red]so 3[/] \u202e :boom:"
    place = {
        "agent": "a\x1b[5m",
        "problem_id": "p\x1b[5m",
        "stage": "\x1b[7m",
        "system": "s\x1b[5m",
    }
    bad = dataclasses.replace(call, text=wild, finish_reason="\x1b[5m", **place)
    with CallStore(tmp_path / "bad") as store:
        store.append(bad)
    shows = [("show", tmp_path / "bad"), ("show", tmp_path / "bad", "--call", bad.call_id)]
    for arguments in (*shows, ("stats", tmp_path / "bad")):
        told = through_a_terminal(arkjax_command, *arguments)
        # Colours are ours: sequences that end in m, none of which blinks or reverses.
        ours = re.findall(r"\x1b\[[0-9;]*m", told)
        assert ours and told.count("\x1b") == len(ours)
        assert not {"\x1b[5m", "\x1b[7m"} & set(ours)
        assert not any(char in told for char in "\x07\x9b\u202e")
        if arguments in shows:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", told)
            assert "\\x1b]0;owned\\x07\\x1b[2J\\x9b31m[bold red]so 3[/] \\u202e :boom:" in plain

    for wrong in (["show", tmp_path / "bad", "--problem", "x"], ["verify", tmp_path / "bad"]):
        done = arkjax_command("trajectories", *wrong)
        assert done.returncode == 3 or wrong[0] == "verify"
        assert "\x1b" not in done.stdout + done.stderr


def test_verify_says_what_is_wrong_and_where(trajectories, run_copy, team):
    whole = trajectories("verify", run_copy)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "all whole" in whole.stdout and "calls/s" in whole.stderr
    # In its own shard: on a busy machine a play writes several.
    first = team / "calls-00000.parquet"
    calls = from_table(read_shard(first))
    first.unlink()
    write_shard(
        first, to_table([dataclasses.replace(calls[0], seed=calls[0].seed + 1), *calls[1:]])
    )
    shard = run_copy / "seed-0/sample/roles/calls-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    done = trajectories("verify", run_copy / "seed-0/sample", run_copy / "seed-0/evaluate")
    assert done.returncode == 3
    assert f"{first}: call {calls[0].call_id}: its id does not" in done.stdout
    assert f"{shard}: is damaged" in done.stdout
    assert "2 faults in " in done.stderr


def test_a_store_that_is_lost_is_missed(trajectories, run_copy):
    """Of a finished stage, even where nothing of the store is left but what the stage recorded."""
    lost = run_copy / "seed-0" / "sample" / "roles" / "calls-00000.parquet"
    for path in lost.parent.iterdir():
        path.unlink()
    for place in (run_copy, run_copy / "seed-0" / "sample"):
        done = trajectories("verify", place)
        assert done.returncode == 3
        assert f"{lost}: it is missing, and the calls in it are lost" in done.stdout
    assert trajectories("verify", run_copy / "seed-0" / "evaluate").returncode == 0


def test_merge_puts_the_stores_of_two_processes_together(trajectories, team, tmp_path):
    calls = CallStore(team).load()
    for name, some in {"a": calls[:30], "b": calls[20:]}.items():
        with CallStore(tmp_path / name, shard_calls=16) as store:
            store.append(some)
    arguments = ("merge", tmp_path / "out", tmp_path / "a", tmp_path / "b")
    done = trajectories(*arguments)
    assert done.returncode == 0, done.stderr
    assert CallStore(tmp_path / "out").content_hash() == content_hash(calls)
    assert "merged before" in trajectories(*arguments).stderr
    # The folder that holds them, and by now what was made of them.
    folders = [tmp_path / name for name in ("out", "a", "out", "b")]
    inside = trajectories("merge", *folders)
    assert inside.returncode == 0 and "merged before" in inside.stderr
    refused = trajectories("merge", tmp_path / "a", tmp_path / "b")
    assert refused.returncode == 2 and "is there already" in refused.stderr


@pytest.mark.parametrize("name", ["chat-jsonl", "hf", "tfds", "otel"])
def test_export_writes_each_format_without_a_heavy_framework(trajectories, team, tmp_path, name):
    # In these processes TensorFlow, its datasets and Torch are not installed.
    arguments = ("export", team, "--format", name, "--out", tmp_path / "out")
    done = trajectories(*arguments)
    assert done.returncode == 0, done.stderr
    n = len(CallStore(team))
    assert done.stdout == f"{tmp_path / 'out'}: {n:,} calls as {name}\n"
    assert f"export {name}: {n:,}/{n:,} calls" in done.stderr
    again = trajectories(*arguments)
    assert again.returncode == 2 and "--overwrite" in again.stderr
    assert trajectories(*arguments, "--overwrite", "--quiet").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["stats", "nowhere"], 3, "nowhere does not exist"),
        (["stats", "."], 3, "holds no recorded calls"),
        (["show", "."], 3, "holds no recorded calls"),
        ([], 2, "the following arguments are required: ACTION"),
        (["shwo"], 2, "invalid choice"),
        (["show", ".", "--limt=2"], 2, "--limt: did you mean --limit?"),
        (["show", ".", "--limit=0"], 2, "0 is not positive"),
        (["export", ".", "--format=xml", "--out=y"], 2, "invalid choice"),
        (["rescore", "nowhere"], 3, "not an ArkJAX run directory"),
        (["rescore", ".", "--tolerance=-1"], 2, "it must be 0 or more"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments, code, said, tmp_path, monkeypatch, capsys):
    from arkjax import cli

    monkeypatch.chdir(tmp_path)
    assert cli.main(["trajectories", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_one_of_several_stores_has_to_be_named(trajectories, run_copy):
    done = trajectories("show", run_copy)
    assert done.returncode == 2
    assert "stores: give one of" in done.stderr and "seed-0/evaluate/" in done.stderr


@pytest.mark.slow
def test_rescore_agrees_with_the_record_and_finds_a_changed_one(trajectories, run_copy, team):
    done = trajectories("rescore", run_copy, "--limit", 40)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("0 by more than 0.001") == 3
    calls = CallStore(team).load()
    changed = [dataclasses.replace(c, logprobs=(-9.0, *c.logprobs[1:])) for c in calls]
    shutil.rmtree(team)
    with CallStore(team) as store:
        store.append(changed)
    done = trajectories("rescore", run_copy, "--limit", 10)
    assert done.returncode == 3
    assert f"{team}: 10 of " in done.stderr and f"{calls[0].call_id} by " in done.stderr


@pytest.mark.slow
def test_resample_gives_the_same_tokens_and_names_calls_that_it_does_not(
    trajectories, run_copy, team
):
    done = trajectories("resample", run_copy, "--stage-name", "evaluate", "--limit", 12)
    assert done.returncode == 0, done.stderr
    assert "12 calls with the same tokens" in done.stderr
    calls = CallStore(team).load()
    shutil.rmtree(team)
    with CallStore(team) as store:
        store.append([dataclasses.replace(calls[0], gen_ids=(1, *calls[0].gen_ids[1:]))])
        store.append(calls[1:])
    done = trajectories("resample", run_copy, "--limit", 20)
    assert done.returncode == 3
    assert f"1 of 20 calls came out with other tokens: {calls[0].call_id} from token 0" in (
        done.stderr
    )


def test_calls_of_other_models_cannot_be_replayed(trajectories, run_copy, team):
    for store in team.parent.iterdir():
        if store.is_dir():
            calls = CallStore(store).load()
            shutil.rmtree(store)
            with CallStore(store) as changed:
                changed.append([dataclasses.replace(c, model="far") for c in calls])
    done = trajectories("resample", run_copy)
    assert done.returncode == 3 and "none of its calls can be replayed" in done.stderr


# --- select ---------------------------------------------------------------------------------------


def test_what_is_selected_by_beam_is_what_the_stage_synthesize_made(
    beam, trajectories, run_copy, team, tmp_path
):
    out, rows = tmp_path / "examples", tmp_path / "rows"
    command = ("select", run_copy, "--out", out, "--rows", rows, "--workers", 1)
    done = trajectories(*command)
    assert done.returncode == 0, done.stderr
    made = Rows.load(run_copy / "seed-0/synthesize/da")
    assert Rows.load(rows).content_hash == made.content_hash
    assert [p.provenance for p in Rows.load(rows).placements] == [
        p.provenance for p in made.placements
    ]
    calls = len(CallStore(team))
    assert f"{out}: {len(made.placements)} examples of " in done.stdout
    assert f"from {calls} calls in " in done.stdout and "dead letters" not in done.stdout
    assert f"read: {calls}/{calls} calls" in done.stderr and "Traceback" not in done.stderr
    again = trajectories(*command)
    assert again.returncode == 2 and "--overwrite replaces it" in again.stderr


def test_a_selection_that_cannot_be_is_refused_in_one_line(trajectories, run_copy, team, tmp_path):
    out = tmp_path / "examples"
    for arguments, code, said in (
        ((run_copy, "--data", "correctiv"), 2, "did you mean 'corrective'"),
        ((run_copy, "--seed", 7), 2, "seed 7 is not one of"),
        ((shutil.copytree(team, tmp_path / "bare"),), 2, "give the run as --run"),
    ):
        done = trajectories("select", *arguments, "--out", out)
        assert done.returncode == code and said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1 and not out.exists()
