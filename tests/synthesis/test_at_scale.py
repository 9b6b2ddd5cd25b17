"""Selection by Beam: the same examples, weights and counts as in one process; nothing lost."""

import dataclasses
import json
import random
import re
import shutil
import sys

import pyarrow as pa
import pytest

from arkjax.beam.pipeline import select
from arkjax.beam.recipe import Recipe, facts
from arkjax.distillation.rows import pack
from arkjax.errors import ConfigError, DataError
from arkjax.extras import install
from arkjax.synthesis.example_files import read_counts, read_examples
from arkjax.tasks.world_grader import WorldGrader
from arkjax.trajectories.schema import SCHEMA, to_table
from arkjax.trajectories.shards import write_shard
from arkjax.trajectories.store import CallStore


@pytest.fixture(scope="module")
def record(world, tmp_path_factory):
    """The debates of the world, spread over the shards of three stores."""
    folder = tmp_path_factory.mktemp("record")
    spread(world, folder, 3, 50)
    return folder


def spread(world, folder, stores, shard_calls, seed=0):
    calls = [call for _, calls in world.debates for call in calls]
    random.Random(seed).shuffle(calls)
    for number in range(stores):
        with CallStore(folder / f"s{number}", shard_calls=shard_calls) as store:
            store.append(calls[number::stores])


def recipe(world, **changes):
    config = dataclasses.replace(world.base, **changes)
    files = {"tokenizer.model": world.tokenizer.path.read_bytes()}
    return Recipe(config, world.grader, files, chat="plain", role="answer", synthesizer="d")


def run(world, out, paths, known="credits", workers=1, shards=3, problems=None, **changes):
    return select(
        out,
        paths,
        recipe(world, **changes),
        (problems or world.problems).values(),
        world.votes,
        world.credits if known == "credits" else None,
        workers=workers,
        shards=shards,
    )


CASES = {
    "da": {},
    "corrective, all filters": {
        "form": "corrective",
        "weights": "agreement",
        "balance": "problems",
        "near_duplicates": 0.6,
        "max_per_difficulty": 5,
    },
    "consolidated, by credit": {
        "form": "consolidated",
        "weights": "corrected",
        "diversity": "steps",
        "near_duplicates": 0.4,
    },
    "unverified, without fallback": {
        "form": "synthesizer",
        "gate": "team",
        "fallback": False,
        "weights": "agreement",
        "near_duplicates": 0.9,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_examples_weights_and_counts_are_those_of_one_process(beam, world, record, tmp_path, case):
    tally = run(world, tmp_path / "out", [record], **CASES[case])
    expected, counts = world.unify(**CASES[case])
    found = list(read_examples(tmp_path / "out"))
    assert found == expected and len(found) > 5
    assert tally.counts == counts
    if CASES[case].get("near_duplicates"):
        assert 0 <= counts.near_duplicates < len(expected)
    told = read_counts(tmp_path / "out")
    assert told["records"]["calls"] == len(world.calls) == counts.calls
    assert told["counts"] == json.loads(json.dumps(dataclasses.asdict(counts)))
    assert pack(found, 256).content_hash == pack(expected, 256).content_hash


def test_what_is_written_does_not_depend_on_workers_or_on_how_calls_are_spread(
    beam, world, record, tmp_path
):
    changes = {"near_duplicates": 0.5, "weights": "agreement", "max_per_difficulty": 9}
    spread(world, tmp_path / "other", 1, 1000, seed=1)
    one = run(world, tmp_path / "one", [record], **changes)
    two = run(world, tmp_path / "two", [tmp_path / "other"], workers=2, **changes)
    assert one.counts == two.counts and one.counts.near_duplicates > 0
    assert one.counts.beyond_difficulty > 0
    assert one.shards == two.shards and len(one.shards) == 3
    for name in one.shards:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        sidecar = (tmp_path / "one" / f"{name}.sha256").read_text().split()
        assert sidecar == [one.shards[name]["sha256"], name]


class Stumbling(WorldGrader):
    """A grader that does not get over one problem."""

    def __init__(self, name):
        self.name = name

    def grade(self, problem, text):
        return 1 / 0 if problem.id == self.name else super().grade(problem, text)


def test_what_cannot_be_used_is_told_and_the_rest_is_selected_from(beam, world, record, tmp_path):
    """A damaged shard, hostile rows, a problem nobody has, one that stops the grader, doubles."""
    folder = shutil.copytree(record, tmp_path / "record")
    damaged = folder / "s0" / "calls-00001.parquet"
    lost = {c.call_id for c in calls_of(damaged)}
    damaged.write_bytes(damaged.read_bytes()[:-9])
    again = calls_of(folder / "s1" / "calls-00000.parquet")
    twice = [*again[:5], dataclasses.replace(again[5], correct=not again[5].correct)]
    unknown = [dataclasses.replace(c, problem_id="nobody", call_id=c.call_id + "!") for c in again]
    rows = to_table([*twice, *unknown[:4]]).to_pylist()
    for number, parsed in enumerate(["{", "[1]"]):
        rows.append({**rows[0], "call_id": f"hostile{number}", "parsed": parsed})
    name, _ = world.debates[7]
    (tmp_path / "more").mkdir()
    write_shard(tmp_path / "more/calls-00000.parquet", pa.Table.from_pylist(rows, SCHEMA))

    stumbling = dataclasses.replace(recipe(world, form="consolidated"), grader=Stumbling(name))
    paths = [folder, tmp_path / "more"]
    tally = select(
        tmp_path / "out",
        paths,
        stumbling,
        world.problems.values(),
        world.votes,
        world.credits,
        workers=1,
    )
    kept = [
        (n, [c for c in calls if c.call_id not in lost]) for n, calls in world.debates if n != name
    ]
    expected, counts = world.unify([(n, calls) for n, calls in kept if calls], form="consolidated")
    assert list(read_examples(tmp_path / "out")) == expected
    assert tally.counts == counts
    stopped = sum(c.call_id not in lost for c in dict(world.debates)[name])
    r = tally.records
    assert (r["dead_shard"], r["dead_row"], r["dead_problem"]) == (1, 2, 4 + stopped)
    assert (r["repeated"], r["told_differently"]) == (6, 1)
    assert r["calls"] == len(world.calls) - len(lost) + len(rows)
    letters = [
        json.loads(line)
        for path in sorted((tmp_path / "out").glob("dead-letters-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert sorted(letter["kind"] for letter in letters) == ["problem"] * 2 + ["row"] * 2 + ["shard"]
    reasons = {letter["file"]: letter["reason"] for letter in letters}
    assert "no such problem" in reasons["nobody"] and "ZeroDivisionError" in reasons[name]


def calls_of(path):
    from arkjax.trajectories.schema import from_table
    from arkjax.trajectories.shards import read_shard

    return from_table(read_shard(path))


def test_nothing_at_all_gives_no_examples_and_an_account_that_says_so(beam, world, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no recorded calls"):
        run(world, tmp_path / "out", [tmp_path / "empty"])
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]
    write_shard(tmp_path / "empty/calls-00000.parquet", to_table([]))
    changes = {"near_duplicates": 0.5, "weights": "agreement", "max_per_difficulty": 9}
    tally = run(world, tmp_path / "out", [tmp_path / "empty"], **changes)
    assert list(read_examples(tmp_path / "out")) == [] and tally.shards == {}
    assert tally.records["shards"] == 1 and tally.records["calls"] == 0


def test_what_stands_there_stays_and_what_was_left_half_done_goes(
    beam, world, record, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="choose another place"):
        run(world, out, [record])
    assert (out / "mine").read_text() == "mine"
    (out / "mine").unlink()
    left = tmp_path / ".out.aside-selecting"
    left.mkdir()
    (left / "examples-00077.parquet").write_text("half")
    run(world, out, [record])
    assert not left.exists() and not (out / "examples-00077.parquet").exists()
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(ConfigError, match="--overwrite"):
        run(world, out, [record])

    def refuse(*_):
        raise DataError("the account does not add up")

    monkeypatch.setattr("arkjax.beam.tally.Tally.check", refuse)
    with pytest.raises(DataError, match="add up"):
        select(out, [record], recipe(world), world.problems.values(), {}, workers=1, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == before and not left.exists()
    (out / "counts.json").unlink()
    with pytest.raises(DataError, match="no whole set of examples"):
        next(read_examples(out))


def test_an_error_of_ours_in_a_worker_is_one_line(beam, world, record, tmp_path):
    with pytest.raises(ConfigError, match="^synthesis.correction is 'é'") as caught:
        run(world, tmp_path / "out", [record], form="corrective", correction="é")
    assert "\n" not in str(caught.value) and "while running" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_coder_of_the_pipeline_unpickles_what_workers_send(beam, world, tmp_path):
    from arkjax.beam.files import Source
    from arkjax.beam.flow import build

    changes = CASES["corrective, all filters"]
    pipeline = beam.Pipeline()
    build(pipeline, [Source(0, "x")], ["y"], recipe(world, **changes), "o", "t", 2)
    graph = pipeline.to_runner_api()
    coders = graph.components.coders
    sent = set()
    for transform in graph.components.transforms.values():
        if transform.spec.urn == "beam:transform:group_by_key:v1":
            sent |= set(transform.inputs.values()) | set(transform.outputs.values())
    assert len(sent) > 10

    def urns(name):
        yield coders[name].spec.urn
        for part in coders[name].component_coder_ids:
            yield from urns(part)

    used = {u for p in sent for u in urns(graph.components.pcollections[p].coder_id)}
    assert not [urn for urn in used if "pickle" in urn], used


def test_options_and_forms_that_cannot_be_are_refused_before_anything_is_done(
    beam, world, record, tmp_path
):
    def refused(match, **given):
        with pytest.raises(ConfigError, match=match):
            select(tmp_path / "out", [record], recipe(world), [], {}, **given)
        assert list(tmp_path.iterdir()) == []

    refused("no such option", options=["--flink_mastr=x"])
    refused("Beam refuses", options=["--direct_running_mode=sideways"])
    refused("NoRunner", runner="NoRunner")
    refused("workers", runner="FlinkRunner", workers=2)
    with pytest.raises(ConfigError, match="hidden"):
        recipe(world, diversity="hidden")


def test_without_beam_it_is_said_what_to_install(world, record, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ConfigError, match=re.escape(install("beam"))):
        run(world, tmp_path / "out", [record])
    assert list(tmp_path.iterdir()) == []


def test_facts_are_json_and_hold_all_credit(world):
    told = dict(facts(world.problems.values(), world.votes, world.credits))
    assert told.keys() == world.problems.keys()
    assert json.loads(json.dumps(told)) == told
    assert sum(len(fact["messages"]) for fact in told.values()) == len(world.credits.messages)
