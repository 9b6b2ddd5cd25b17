"""Points of sweeps: how they are combined, applied and chosen."""

import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from arkjax import sweeps
from arkjax.config import to_dict
from arkjax.errors import ConfigError
from arkjax.sweeps import Study, Sweep, applied, axis, chain, difference, product

pytestmark = pytest.mark.fast


def config() -> ConfigDict:
    c = ConfigDict({"name": "x", "team": "debate", "seeds": (0, 1), "models": {}})
    c.student = ConfigDict({"lr": 1e-3, "steps": 10, "lora": None})
    c.student.clip = placeholder(float)
    return c.lock()


def test_product_changes_the_last_axis_fastest():
    made = product(axis("a", [1, 2]), axis("b.c", ["x", "y"]))
    assert made == [
        {"a": 1, "b.c": "x"},
        {"a": 1, "b.c": "y"},
        {"a": 2, "b.c": "x"},
        {"a": 2, "b.c": "y"},
    ]
    assert product(axis("a", [1]), []) == [] and product() == [{}]


def test_zip_takes_points_together_and_chain_one_after_the_other():
    assert sweeps.zip(axis("a", [1, 2]), axis("b", [3, 4])) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert chain(axis("a", [1, 2]), axis("b", [3])) == [{"a": 1}, {"a": 2}, {"b": 3}]
    with pytest.raises(ConfigError, match=r"axes of \[1, 2\] points: they must have equally many"):
        sweeps.zip(axis("a", [1]), axis("b", [3, 4]))


def test_every_point_is_there_once_and_in_its_first_place():
    assert axis("a", [2, 1, 2]) == [{"a": 2}, {"a": 1}]
    assert chain(axis("a", [1, 2]), axis("a", [3, 1])) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert product(axis("a", [1, 2]), axis("a", [1])[:0] or [{}, {}]) == [{"a": 1}, {"a": 2}]
    # Equal in Python, and other values of a field all the same.
    assert axis("a", [1, 1.0, True]) == [{"a": 1}, {"a": 1.0}, {"a": True}]
    assert [type(point["a"]) for point in axis("a", [1, 1.0, True])] == [int, float, bool]
    assert axis("a", [(1, 2), [1, 2]]) == [{"a": (1, 2)}]


def test_a_field_has_one_value():
    assert product(axis("a", [1]), axis("a", [1])) == [{"a": 1}]
    with pytest.raises(ConfigError, match="two axes give a different values, 1 and 2"):
        product(axis("a", [1]), axis("a", [2]))


def test_points_do_not_share_their_values_with_the_axes():
    first = axis("a", [1])
    product(first, axis("b", [1]))[0]["a"] = 5
    chain(first)[0]["a"] = 5
    assert first == [{"a": 1}]


def test_a_point_is_applied_to_a_copy():
    base = config()
    point = {
        "team": "ring",
        "seeds": (0,),
        "student.lr": 1.0,
        "student.clip": 0.5,
        "student.lora": {"rank": 8},
        "models": {"big": {"checkpoint": "hf:a/b"}},
    }
    made = applied(base, point)
    assert base == config() and made.is_locked
    assert made.student.lora.rank == 8 and made.models.big.checkpoint == "hf:a/b"
    assert (made.team, made.seeds, made.student.lr, made.student.clip) == ("ring", (0,), 1.0, 0.5)
    assert made.student.steps == 10
    assert difference(base, made) == point
    assert difference(base, base) == {}
    # And back again: what a group has no more is gone.
    assert to_dict(applied(made, difference(made, base))) == to_dict(base)


@pytest.mark.parametrize(
    "field, message",
    [
        ("tean", r"tean: config has no field 'tean' \(did you mean 'team'\?\)"),
        ("student.step", r"config.student has no field 'step' \(did you mean 'steps'\?\)"),
        ("name.first", r"name.first: config.name has no field 'first'"),
        ("nowhere.a", r"nowhere.a: config has no field 'nowhere'"),
    ],
)
def test_a_field_that_is_not_there_is_named(field, message):
    with pytest.raises(ConfigError, match=message):
        applied(config(), {field: 1})


SWEEP = Sweep(
    "size",
    [
        *(Study({"n": str(n)}, {"sample.problems": n}, f"problems={n}") for n in (10, 20)),
        Study({"n": "30", "loss": "jsd"}, {"sample.problems": 30}),
        Study({"n": "30", "loss": "tvd"}, {"sample.problems": 31}),
        Study({"n": "40"}, agentark="problems=40", fields={"seeds": (5,)}),
    ],
    {"evaluation.limit": 7},
)


def test_a_sweep_gives_one_run_or_the_points_of_all():
    chosen = SWEEP.get_config("n=30,loss=tvd")
    assert (chosen.sample.problems, chosen.evaluation.limit) == (31, 7)
    assert chosen.name == "size-30-tvd"
    assert SWEEP.get_config().name == "size-10" and SWEEP.get_config("n=30").name == "size-30-jsd"
    points = SWEEP.get_sweep()
    assert [point["name"] for point in points] == [
        "size-10",
        "size-20",
        "size-30-jsd",
        "size-30-tvd",
    ]
    for point in points:
        choice = ",".join(f"{k}={v}" for k, v in SWEEP.studies[points.index(point)].choice.items())
        made = applied(SWEEP.get_base(), point)
        assert to_dict(made) == to_dict(SWEEP.get_config(choice))
    assert SWEEP.get_sweep("n=20") == points[1:2]


def test_a_sweep_on_the_papers_models_takes_their_options():
    made = SWEEP.get_config("base=agentark,n=40,student=Qwen3-8B")
    assert (made.sample.problems, made.seeds) == (40, (5,))
    assert made.base.checkpoint == "hf:Qwen/Qwen3-8B" and made.name == "size-agentark-40"
    points = SWEEP.get_sweep("student=Qwen3-8B,base=agentark")
    assert [point["name"] for point in points] == [f"size-agentark-{n}" for n in (10, 20, 40)]
    assert all("base.checkpoint" not in point for point in points)


@pytest.mark.parametrize(
    "arg, message",
    [
        ("n=11", "n is '11': there are 10, 20, 30 among"),
        ("n=10,loss=jsd", "loss is 'jsd': there are no others among what is chosen"),
        ("m=10", r"there is no option 'm' \(did you mean 'n'\?\)|no option 'm': there are n, loss"),
        ("n", "'n' must be written NAME=VALUE"),
        ("base=agentarc", r"base is 'agentarc' \(did you mean 'agentark'\?\)"),
        ("base=agentark,studend=x", "no option 'studend'; did you mean 'student'"),
    ],
)
def test_arguments_that_cannot_be_meant(arg, message):
    with pytest.raises(ConfigError, match=message):
        SWEEP.get_config(arg)
