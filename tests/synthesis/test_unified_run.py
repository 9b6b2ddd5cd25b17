"""Unified traces of a run that models have played."""

import dataclasses
import json

import pytest

from arkjax.synthesis.selection import grouped
from arkjax.synthesis.unified import Unifier
from arkjax.tasks.embedded_sets import EMBEDDED_SETS
from arkjax.tasks.embedded_world import WorldConfig
from arkjax.trajectories.store import CallStore


@pytest.fixture(scope="module")
def played(tiny_run):
    """The config's world and problems, and the team's calls and answers."""
    config = json.loads((tiny_run / "config.json").read_text())
    config = config.get("config", config)
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config["world"].items()}
    count = config["sample"]["problems"]
    problems = EMBEDDED_SETS.load("train", count, world=WorldConfig(**fields), seed=0)
    sample = tiny_run / "seed-0" / "sample"
    stage = json.loads((sample / "stage.json").read_text())
    answers = stage["summary"]["team_answers"]
    return {p.id: p for p in problems}, list(CallStore(sample / "team")), answers


@pytest.mark.parametrize("form", ["none", "corrective", "consolidated", "answer_only"])
@pytest.mark.parametrize("gate", ["gold", "team"])
def test_what_models_said_becomes_examples(world, played, form, gate):
    problems, calls, answers = played
    by_id = {call.call_id: call for call in calls}
    config = dataclasses.replace(world.base, min_agreeing=1, form=form, gate=gate)
    unifier = Unifier(config, world.grader, world.tokenizer, problems, world.prompt)
    examples, counts = unifier(grouped(calls), answers)
    assert counts.calls == len(calls) and counts.examples == len(examples) > 0
    for example in examples:
        name = example.provenance["problem_id"]
        stated = world.grader.extract(world.tokenizer.decode(example.target_ids))
        assert stated == (problems[name].answer if gate == "gold" else answers[name])
        recorded = 0
        for call_id, start, end, at in example.provenance["spans"]:
            words = by_id[call_id].gen_ids[start:end]
            assert example.target_ids[at : at + end - start] == words
            recorded += end - start
        connecting = len(world.no) if example.target_weights is not None else 0
        assert recorded + connecting == len(example.target_ids)
