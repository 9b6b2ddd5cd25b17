"""What teams of every shape record agrees with itself."""

import dataclasses

import pytest

from arkjax import teams
from arkjax.teams.primitives import View
from arkjax.trajectories.consistency import verify
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.fast


def shapes():
    """Teams that show, order and repeat in different ways."""
    debate = teams.debate(agents=3, rounds=3)

    def with_stage(spec, **changes):
        stages = tuple(dataclasses.replace(stage, **changes) for stage in spec.stages)
        return dataclasses.replace(spec, stages=stages)

    views = {
        "answers": View(graph="full", show="answer"),
        "role first": View(graph="full", layout="role_first"),
        "ring of all rounds": View(graph="ring", rounds="all"),
    }
    return {
        "debate": debate,
        "judge": teams.judge(),
        "samples": teams.self_consistency(4),
        "sequential": with_stage(debate, order="sequential"),
        "several samples": with_stage(debate, n_samples=2),
        **{name: with_stage(debate, view=view) for name, view in views.items()},
    }


@pytest.mark.parametrize("shape", shapes())
def test_a_played_team_has_a_record_without_faults(world, tmp_path, shape):
    spec = shapes()[shape]
    model = world.Model(
        say=lambda request, draw: (f"so {draw % 3}", "no idea", f"so {draw % 3} and…")[draw % 3]
    )
    with CallStore(tmp_path / "calls", shard_calls=10) as store:
        debates = world.play(spec, world.problems(12), model, store)
    assert list(verify(tmp_path / "calls")) == []
    for debate in debates:
        recorded = {call.call_id for call in store.of_problem(debate.problem.id)}
        assert recorded == {call.call_id for call in debate.calls}


def test_a_record_with_calls_of_another_team_has_no_faults(world, tmp_path):
    model, problems = world.Model(), world.problems(8)
    with CallStore(tmp_path / "roles") as known:
        world.play(teams.roles(n=1), problems, model, known)
    with CallStore(tmp_path / "debate") as store:
        world.play(teams.debate(rounds=2), problems, model, store, known=known)
    assert list(verify(tmp_path / "debate")) == []
