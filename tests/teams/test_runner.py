"""Plays: debates advance alone, what is recorded is not made again, costs are what was made."""

import contextlib
import dataclasses
import gc

import pytest

from arkjax import teams
from arkjax.errors import ConfigError, DataError
from arkjax.teams.rules import Budget, Stop
from arkjax.teams.runner import play_as_finished
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.fast


class Count:
    def __init__(self):
        self.n = 0

    def advance(self, n):
        self.n += n


def open_ended(rounds=5, **changes):
    """A debate that may stop after its opening already."""
    spec = teams.debate(rounds=rounds)
    repeat = dataclasses.replace(spec.schedule[1], min=0)
    return dataclasses.replace(spec, schedule=("opening", repeat), **changes)


def test_a_play_is_recorded_whole_and_graded(world, tmp_path):
    problems, count = world.problems(6), Count()
    with CallStore(tmp_path) as store:
        debates = world.play(teams.debate(), problems, world.Model(), store, progress=count)
    assert [debate.problem for debate in debates] == problems
    assert count.n == 6
    recorded = CallStore(tmp_path)
    assert len(recorded) == 6 * 8
    for debate in debates:
        assert [recorded.get(call.call_id) for call in debate.calls] == list(debate.calls)
        assert [call.round for call in debate.calls] == [0] * 4 + [1] * 4
        assert all(c.correct == (c.parsed["answer"] == debate.problem.answer) for c in debate.calls)
        assert debate.correct == (debate.answer == debate.problem.answer)
        assert (debate.rounds, debate.stopped, debate.parse_failures) == (2, "", 0)
        assert debate.cost.calls == 8 and debate.cost.seconds == 4.0
        assert debate.cost.generated_tokens == sum(len(call.gen_ids) for call in debate.calls)
        assert debate.cost.prompt_tokens == sum(len(call.prompt_ids) for call in debate.calls)
        assert debate.cost.prefill_tokens < debate.cost.prompt_tokens
        assert all(call.sampling["stop_ids"] == [world.end] for call in debate.calls)


def test_the_order_of_completion_does_not_matter(world, tmp_path):
    """Same calls, words and answers when some calls take long, few debates run, or many."""
    spec, problems = teams.debate_judge(rounds=3), world.problems(9)
    reference = world.play(spec, problems, world.Model())
    for i, window in enumerate((1, 4, 1024)):
        model = world.Model(delay=lambda request: 1 + request.seed % 7)
        with CallStore(tmp_path / str(i), shard_calls=5) as store:
            debates = world.play(spec, problems, model, store, max_active=window)
        assert [d.answer for d in debates] == [d.answer for d in reference]
        assert [[c.call_id for c in d.calls] for d in debates] == [
            [c.call_id for c in d.calls] for d in reference
        ]
    hashes = {CallStore(tmp_path / str(i)).content_hash() for i in range(3)}
    assert len(hashes) == 1


def test_no_debate_waits_for_another(world):
    slow = "p0"
    model = world.Model(delay=lambda request: 50 if "is 0" in world.text_of(request) else 1)
    finished = play_as_finished(
        teams.debate(rounds=3),
        world.problems(4),
        {"policy": model},
        world.chat,
        world.tokenizer,
        world.grader,
        None,
        0,
    )
    order = [debate.problem.id for _, debate in finished]
    assert order[-1] == slow and len(order) == 4
    waited = [i for i, r in enumerate(model.requests) if "is 0" in world.text_of(r)]
    # The others' 9 later stages were submitted while the slow one still waited for its opening.
    assert waited[:4] == [0, 1, 2, 3] and waited[4] == 4 + 3 * 12


def test_the_window_bounds_what_is_under_way(world):
    model = world.Model()
    peak = 0

    def delay(request):
        nonlocal peak
        peak = max(peak, model.pending + 1)
        return 1

    model.delay = delay
    world.play(teams.roles(), world.problems(20), model, max_active=2)
    assert peak == 8 and len(model.requests) == 80


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
def test_a_killed_play_goes_on_and_ends_the_same(world, tmp_path, steps):
    spec, problems = teams.debate_judge(rounds=2), world.problems(5)
    with CallStore(tmp_path / "whole") as store:
        whole = world.play(spec, problems, world.Model(delay=lambda r: 1 + r.seed % 3), store)

    class Dying(world.Model):
        left = steps

        def step(self):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().step()

    first = Dying(delay=lambda request: 1 + request.seed % 3)
    store = CallStore(tmp_path / "killed", shard_calls=3)
    with pytest.raises(KeyboardInterrupt):
        world.play(spec, problems, first, store)
    resumed = CallStore(tmp_path / "killed")
    kept = len(resumed)
    second = world.Model()
    debates = world.play(spec, problems, second, resumed)
    assert len(second.requests) == 5 * 9 - kept
    assert resumed.content_hash() == CallStore(tmp_path / "whole").content_hash()
    for a, b in zip(debates, whole, strict=True):
        assert (a.answer, a.correct, a.cost.generated_tokens) == (
            b.answer,
            b.correct,
            b.cost.generated_tokens,
        )


def test_a_finished_play_makes_no_call_and_costs_the_same(world, tmp_path):
    problems = world.problems(4)
    with CallStore(tmp_path) as store:
        first = world.play(teams.judge(), problems, world.Model(), store)
    model = world.Model()
    assert world.play(teams.judge(), problems, model, CallStore(tmp_path)) == first
    assert not model.requests


def test_a_damaged_shard_costs_its_own_calls_only(world, tmp_path):
    problems = world.problems(6)
    with CallStore(tmp_path, shard_calls=8) as store:
        world.play(teams.debate(), problems, world.Model(), store)
        reference = store.content_hash()
    (tmp_path / "calls-00003.parquet").unlink()
    model = world.Model()
    with CallStore(tmp_path) as store:
        world.play(teams.debate(), problems, model, store)
        assert store.content_hash() == reference
    assert len(model.requests) == 8


def test_a_generator_may_hold_calls_of_an_interrupted_play(world):
    model = world.Model(delay=lambda request: 3)
    left = play_as_finished(
        teams.roles(),
        world.problems(2),
        {"policy": model},
        world.chat,
        world.tokenizer,
        world.grader,
        None,
        0,
        max_active=1,
    )
    next(left)
    left.close()
    assert len(world.play(teams.roles(), world.problems(3), model)) == 3


def test_teams_share_the_calls_that_they_have_in_common(world, tmp_path):
    problems = world.problems(5)
    with CallStore(tmp_path / "roles") as roles_store:
        roles = world.play(teams.roles(), problems, world.Model(), roles_store)
    for name, new in (("debate", 4), ("judge", 1), ("debate_judge", 5), ("roles:n=2", 4)):
        model = world.Model()
        with CallStore(tmp_path / name.replace(":", "-")) as store:
            debates = world.play(teams.load(name), problems, model, store, known=roles_store)
            assert len(model.requests) == 5 * new
            # Each store is whole, so that each team's record can be read alone.
            assert len(store) == sum(len(debate.calls) for debate in debates)
        opening = {call.call_id for debate in debates for call in debate.calls if call.round == 0}
        assert {call.call_id for debate in roles for call in debate.calls} <= opening
        assert {call.system for call in store.load()} == {teams.load(name).name}


def test_models_and_seeds_tell_calls_apart(world):
    def ids(seed=0, **options):
        debates = world.play(teams.roles(), world.problems(3), world.Model(), None, seed, **options)
        return {call.call_id for debate in debates for call in debate.calls}

    assert ids() == ids()
    assert not ids() & ids(seed=1)
    assert not ids() & ids(model_ids={"policy": "policy@abc"})


def test_agents_may_be_played_by_different_models(world):
    spec = teams.judge()
    judge = dataclasses.replace(spec.agents[-1], model="critic")
    spec = dataclasses.replace(spec, agents=(*spec.agents[:-1], judge))
    policy, critic = world.Model(), world.Model()
    world.play(spec, world.problems(3), {"policy": policy, "critic": critic})
    assert (len(policy.requests), len(critic.requests)) == (12, 3)
    with pytest.raises(ConfigError, match=r"agents\[4\]\.model: there is no model 'critic'"):
        world.play(spec, world.problems(3), policy)


def test_problems_must_differ(world):
    with pytest.raises(DataError, match="two problems have the id 'p0'"):
        world.play(teams.vanilla(), world.problems(1) * 2, world.Model())


@pytest.mark.parametrize(
    ("changes", "say", "rounds", "stopped"),
    [
        ({}, "so 1", 5, ""),
        ({"stop": Stop(agree=1.0)}, "so 1", 1, "agree"),
        ({"stop": Stop(unchanged=2)}, "so 1", 3, "unchanged"),
        ({"stop": Stop(rounds=4)}, "so 1", 4, "rounds"),
        ({"stop": Stop(oracle=True)}, "so 1", 1, "oracle"),
        ({"stop": Stop(oracle=True)}, "so 2", 5, ""),
        ({"budget": Budget(calls=12)}, "so 1", 3, "budget"),
        ({"budget": Budget(tokens=4 * 64 + 4 * 5)}, "so 1", 2, "budget"),
    ],
)
def test_what_ends_a_debate(world, changes, say, rounds, stopped):
    spec = open_ended(**changes)
    assert spec.uses_oracle == ("stop" in changes and changes["stop"].oracle)
    problem = world.problems(2)[1:]
    (debate,) = world.play(spec, problem, world.Model(say=lambda request, draw: say))
    assert (debate.rounds, debate.stopped) == (rounds, stopped)
    assert len(debate.calls) == 4 * rounds


def test_a_budget_is_never_exceeded_and_leaves_the_judge_its_call(world):
    spec = teams.debate_judge(rounds=9)
    repeat = dataclasses.replace(spec.schedule[1], min=0)
    schedule = ("opening", repeat, "verdict")
    for limit in range(5, 30, 3):
        team = dataclasses.replace(spec, schedule=schedule, budget=Budget(calls=limit))
        (debate,) = world.play(team, world.problems(1), world.Model())
        assert debate.cost.calls <= limit < debate.cost.calls + 4
        assert debate.calls[-1].agent == "judge" and debate.answer is not None


def test_failed_parses_are_repeated_and_all_attempts_recorded(world):
    spec = teams.roles(roles=["x", "y"])
    stage = dataclasses.replace(spec.stages[0], on_parse_failure="resample", resamples=3)
    attempts = {}

    def say(request, draw):
        key = world.text_of(request)
        attempts[key] = attempts.get(key, 0) + 1
        return "so 1" if attempts[key] == (3 if "x" in key else 1) else "mumble"

    team = dataclasses.replace(spec, stages=(stage,))
    (debate,) = world.play(team, world.problems(1), world.Model(say=say))
    assert [(c.agent, c.sample, c.parse_ok) for c in debate.calls] == [
        ("x", 0, False),
        ("x", 1, False),
        ("x", 2, True),
        ("y", 0, True),
    ]
    assert debate.parse_failures == 2 and debate.answer == "1" and not debate.tied


@pytest.mark.parametrize(("how", "answer"), [("keep", None), ("default", "4")])
def test_failed_parses_are_kept_or_replaced(world, how, answer):
    spec = teams.vanilla()
    stage = dataclasses.replace(spec.stages[0], on_parse_failure=how, default="4")
    team = dataclasses.replace(spec, stages=(stage,))
    (debate,) = world.play(team, world.problems(1), world.Model(say=lambda request, draw: "hm"))
    assert debate.answer == answer and not debate.correct
    assert not debate.calls[0].parse_ok and debate.calls[0].correct is False


def test_lost_calls_are_no_silent_hang(world):
    class Losing(world.Model):
        def submit(self, request):
            pass

    with pytest.raises(RuntimeError, match="lost 4"):
        world.play(teams.roles(), world.problems(1), Losing())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_collections_pass_over_what_was_there_only_while_a_play_goes_on(world, frozen, fails):
    """And where the caller has frozen the heap, it stays as it is."""
    during = []

    class Model(world.Model):
        def step(self):
            during.append(gc.get_freeze_count())
            if fails:
                raise RuntimeError("gone")
            return super().step()

    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()
    before = gc.get_freeze_count()
    try:
        with pytest.raises(RuntimeError) if fails else contextlib.nullcontext():
            world.play(teams.debate(), world.problems(1), Model())
        after = gc.get_freeze_count()
    finally:
        gc.unfreeze()
    if frozen:  # what was frozen may be gone since then
        assert 0 < after <= before and 0 < min(during) and max(during) <= before
    else:  # before, the interpreter's own objects may be frozen
        assert after == 0 and min(during) > 10 * before + 1000
