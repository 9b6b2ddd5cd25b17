"""The page of a real run: what it says of every system is what the run recorded."""

import json

from arkjax.evaluation.outcomes import Outcomes
from arkjax.trajectories.store import CallStore

from .debate_pages import debates, view


def test_the_page_of_a_run_agrees_with_its_records(tiny_run, tmp_path):
    data = view(tiny_run, tmp_path / "page.html", tokenizer=None)
    groups = data["facts"]["groups"]
    seed = tiny_run / "seed-0"
    outcomes = Outcomes.load(seed / "evaluate" / "outcomes.parquet")
    recorded = {path.parent for path in seed.rglob("calls-*.parquet")}
    assert len(groups) == len(recorded)
    assert data["facts"]["notes"] == []
    for number, group in enumerate(groups):
        shown = list(debates(data, number))
        folders = [seed / group["stage"] / group["split"] / group["system"]]
        if group["stage"] == "sample":
            folders = [seed / "sample" / group["system"]]
        assert sum(len(one["calls"]) for one in shown) == len(CallStore(folders[0]))
        for one in shown:
            assert one["question"] and one["row"]["domain"]
            for call in one["calls"]:
                # Every token of the run's own tokenizer has its place in the text.
                assert sum(call["lengths"]) == len(call["text"])
                assert len(call["lengths"]) + len(call["after"]) == call["generated"]
        if group["stage"] == "evaluate":
            rows = outcomes.select(split=group["split"], system=group["system"])
            verdicts = dict(zip(rows["problem_id"], rows["correct"], strict=True))
            assert {one["row"]["id"]: one["row"]["right"] for one in shown} == verdicts
    summary = json.loads((seed / "sample" / "stage.json").read_text())["summary"]
    team = [one["row"] for one in debates(data)]
    assert sum(bool(row["right"]) for row in team) / len(team) == summary["accuracy"]["team"]
