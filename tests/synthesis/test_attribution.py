"""From a record to who contributed what: streamed, resumed, and only as far as it was asked for."""

import dataclasses
import itertools

import numpy as np
import pytest

import arkjax.synthesis.attribution as module
from arkjax import teams
from arkjax.errors import ConfigError, DataError
from arkjax.synthesis.attribution import AttributionConfig, attribute, counted
from arkjax.teams.spec import TeamSpec

pytestmark = pytest.mark.fast
END, HEADER = 1, 2
TEAM = teams.debate(roles=["a", "b", "c"])
ALL = AttributionConfig(kinds=("flips", "influence", "shapley"))


def debate(call, problem, number, answers=("344", "334")):
    """Three agents speak twice; the recorded prompts show the first round in the second."""
    question = (10 + number, 5)
    opening = [
        dataclasses.replace(
            call(a, agent=n, problem=problem, prompt=(*question, HEADER)), prefix_len=2
        )
        for n, a in zip("abc", answers[0], strict=True)
    ]
    ids, segments = [*question], []
    for said in opening:
        segments += [("template", segments[-1][2] if segments else 0, len(ids) + 1)]
        ids += [HEADER, *said.gen_ids]
        segments += [(said.call_id, segments[-1][2], len(ids))]
    segments.append(("template", len(ids), len(ids) + 1))
    rebuttal = [
        dataclasses.replace(
            call(a, agent=n, problem=problem, round=1, parents=tuple(opening)),
            prompt_ids=(*ids, HEADER),
            prefix_len=len(ids),
            prompt_segments=tuple(segments),
        )
        for n, a in zip("abc", answers[1], strict=True)
    ]
    return [*opening, *rebuttal]


class Scorer:
    """Every token of a prompt makes every token of the target likelier by a thousandth."""

    def __init__(self):
        self.batches = []

    def __call__(self, pairs):
        self.batches.append(list(pairs))
        return [np.full(len(t), -1 + 1e-3 * len(p), np.float32) for p, t in pairs]


def work(calls, grader, config=ALL, **options):
    answers = dict.fromkeys({c.problem_id for c in calls}, "3")
    return attribute(calls, TEAM, answers, grader, config, end_id=END, **options)


def test_every_message_and_every_agent_has_its_record(call, grader):
    calls = debate(call, "p0", 0) + debate(call, "p1", 1)
    scorer = Scorer()
    found = work(calls[::-1], grader, scorer=scorer)
    assert set(found.messages) == {c.call_id for c in calls}
    assert set(found.agents) == set(itertools.product(("p0", "p1"), "abc"))
    assert len(scorer.batches) == 1 and len(set(scorer.batches[0])) == len(scorer.batches[0])
    first = found.messages["p0/0/a/0"]
    # A header, eight words and the end; targets of nine tokens.
    assert first.influence == pytest.approx(9 * 10 * 1e-3, rel=1e-4) and first.readers == 3
    assert (first.first, first.own, first.corrected) == (True, True, 1.0)
    last = found.messages["p0/1/a/0"]
    assert last.influence is None and last.readers == 0
    for name in "abc":
        agent = found.agents["p0", name]
        assert agent.influence == found.messages[f"p0/0/{name}/0"].influence
        assert agent.shapley == pytest.approx(agent.influence, rel=1e-4)
        assert agent.shapley_error == 0.0


def test_flips_alone_ask_no_model(call, grader):
    found = work(debate(call, "p0", 0), grader, AttributionConfig())
    assert all(m.influence is None for m in found.messages.values())
    assert found.agents["p0", "a"].corrected == 1.0 and found.agents["p0", "a"].shapley is None


def test_only_what_is_named_is_worked_out(call, grader):
    calls = debate(call, "p0", 0)
    sizes = {}
    for kinds in (("influence",), ("shapley",), ("influence", "shapley")):
        scorer = Scorer()
        found = work(calls, grader, AttributionConfig(kinds=kinds), scorer=scorer)
        has = found.agents["p0", "b"]
        assert (has.influence is None, has.shapley is None) == (
            "influence" not in kinds,
            "shapley" not in kinds,
        )
        sizes[kinds] = len(scorer.batches[0])
    # A coalition without one agent is a prompt without one message: asked once.
    assert sizes["influence", "shapley"] == sizes[("shapley",)] == 2 * sizes[("influence",)]


def test_the_model_is_asked_first_where_right_and_wrong_met(call, grader):
    calls = debate(call, "p0", 0, ("333", "333")) + debate(call, "p1", 1)
    calls += debate(call, "p2", 2, ("444", "444"))
    config = dataclasses.replace(ALL, problems=1)
    found = work(calls, grader, config, scorer=Scorer())
    told = {m.problem_id for m in found.messages.values() if m.influence is not None}
    assert told == {"p1"} and len(found.messages) == len(calls)
    # Nobody was right: there is nothing to ask.
    scorer = Scorer()
    found = work(debate(call, "p2", 2, ("444", "444")), grader, scorer=scorer)
    assert scorer.batches == [] and found.agents["p2", "a"].influence is None


def test_an_interrupted_work_goes_on_where_it_was(call, grader, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TOGETHER", 1)
    calls = [c for i in range(4) for c in debate(call, f"p{i}", i)]
    whole = work(calls, grader, scorer=Scorer())

    class Killed(Scorer):
        def __call__(self, pairs):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().__call__(pairs)

    scratch = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        work(calls, grader, scorer=Killed(), scratch=scratch)
    # What a kill in the middle of a write leaves is done again.
    parts = sorted(scratch.iterdir())
    assert len(parts) == 2
    (parts[1] / "agents.parquet").unlink()
    scorer = Scorer()
    assert work(calls, grader, scorer=scorer, scratch=scratch) == whole
    assert len(scorer.batches) == 3
    scorer = Scorer()
    assert work(calls, grader, scorer=scorer, scratch=scratch) == whole and not scorer.batches


def test_progress_counts_problems(call, grader):
    class Task:
        done = 0

        def advance(self, n=1, note=""):
            self.done += n

    task = Task()
    work(
        [c for i in range(3) for c in debate(call, f"p{i}", i)], grader, scorer=Scorer(), task=task
    )
    assert task.done == 3


def test_of_repeated_attempts_the_last_counts(call):
    spec = TeamSpec.from_config(
        {
            "name": "t",
            "agents": [{"id": n, "role": n} for n in "ba"],
            "stages": [{"name": "opening", "n_samples": 2}],
            "schedule": ["opening"],
        }
    )
    calls = [call(agent=a, sample=s) for a, s in (("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1))]
    # Sample 2 is the second attempt at sample 0; the team's order is b, a.
    kept = [(c.agent, c.sample) for c in counted(calls, spec)]
    assert kept == [("b", 0), ("b", 1), ("a", 2), ("a", 1)]


def test_a_record_of_another_team_is_refused_by_name(call, grader):
    with pytest.raises(DataError, match="call p/0/x/0 is of agent 'x' in stage 'opening', which"):
        work([call(problem="p", agent="x")], grader, AttributionConfig())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kinds": ()}, "kinds is \\(\\): name at least one of flips, influence, shapley"),
        ({"kinds": ("flips", "flips")}, "each once"),
        ({"kinds": ("flip",)}, "kinds is \\('flip',\\)"),
        ({"problems": -1}, "problems is -1: 0 takes all"),
        ({"exact_up_to": 17}, "exact_up_to is 17: expected 1 to 16"),
        ({"pairs": 1}, "pairs is 1"),
    ],
)
def test_wrong_configs_name_their_field(fields, message):
    with pytest.raises(ConfigError, match=message):
        AttributionConfig(**fields)
