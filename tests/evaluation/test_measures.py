"""Figures of systems from those of answers, against sums by hand and a bootstrap by loops."""

import math

import numpy as np
import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.evaluation.measures import (
    MEANINGS,
    Measured,
    QualityConfig,
    load_measured,
    quality_section,
    save_measured,
)
from arkjax.evaluation.statistics import PairedRatios, percentile_interval

pytestmark = pytest.mark.fast


def row(system, problem, measure, value, weight=1.0, seed=0, split="test"):
    return Measured(seed, split, system, problem, measure, value, weight, f"{system}-{problem}")


def test_perplexity_is_weighted_by_tokens():
    rows = [
        row("base", "a", "perplexity", 1.0, 3.0),
        row("base", "a", "perplexity", 3.0, 1.0),
        row("base", "b", "perplexity", 2.0, 4.0),
        row("student_da", "a", "perplexity", 0.5, 4.0),
        row("student_da", "b", "perplexity", 1.5, 4.0),
    ]
    section = quality_section(rows)
    assert section["measures"] == {"perplexity": MEANINGS["perplexity"]}
    base, student = (section["splits"]["test"][n]["perplexity"] for n in ("base", "student_da"))
    assert base["value"] == pytest.approx(math.exp((3 + 3 + 8) / 8), rel=1e-12)
    assert student["value"] == pytest.approx(math.e, rel=1e-12)
    assert (base["n"], student["n"]) == (3, 2)
    # Of two problems a quarter of the draws has one or the other alone.
    assert base["ci95"] == pytest.approx([math.exp(1.5), math.exp(2)])
    assert student["ci95"] == pytest.approx([math.exp(0.5), math.exp(1.5)])
    apart = student["minus_base"]
    assert apart["value"] == pytest.approx(student["value"] - base["value"])
    assert apart["ci95"][1] < 0 and "minus_base" not in base


def test_a_ratio_is_resampled_by_problems_and_seeds_together():
    rng = np.random.default_rng(0)
    values, weights = rng.random((3, 7)), rng.integers(0, 4, (3, 7)).astype(float)
    ratios = PairedRatios({"x": (values, weights), "y": (2 * values, weights)}, resamples=500)
    assert ratios.value("x") == pytest.approx(values.sum() / weights.sum())
    np.testing.assert_allclose(ratios.replicates("y"), 2 * ratios.replicates("x"), rtol=1e-12)
    # The same draws by loops.
    draws = np.random.default_rng(0)
    expected = []
    problems = draws.integers(7, size=(500, 7))
    seeds = draws.integers(3, size=(500, 2))
    for chosen, of_seeds in zip(problems, seeds, strict=True):
        cells = [(s, p) for s in of_seeds for p in chosen]
        expected.append(sum(values[c] for c in cells) / sum(weights[c] for c in cells))
    np.testing.assert_allclose(ratios.replicates("x"), expected, rtol=1e-12)


def test_a_ratio_with_nothing_to_tell():
    zero, one = np.zeros((1, 4)), np.ones((1, 4))
    ratios = PairedRatios({"none": (zero, zero), "all": (one, one)}, resamples=50)
    assert ratios.value("none") is None and np.isnan(ratios.replicates("none")).all()
    assert ratios.value("all") == 1.0
    for cells in ({}, {"a": (one, np.ones((1, 3)))}, {"a": (np.ones(4), np.ones(4))}):
        with pytest.raises(DataError, match="expected cells"):
            PairedRatios(cells)
    with pytest.raises(DataError, match="finite"):
        PairedRatios({"a": (np.full((1, 4), np.nan), one)})


def test_intervals_where_resampling_finds_no_spread():
    rows = [row("base", name, "right_steps", 1.0, 3.0) for name in "abcd"]
    rows += [row("team", name, "first_wrong_step", 2.0) for name in "abcd"]
    rows += [row("team", "a", "sound_answers", 0.5)]
    found = quality_section(rows)["splits"]["test"]
    assert found["base"]["right_steps"]["ci95"] == [0.025 ** (1 / 4), 1.0]
    # All alike on no scale, and a single problem: neither tells how far it may be off.
    assert found["team"]["first_wrong_step"] == {
        "value": 2.0,
        "ci95": None,
        "n": 4,
        "distribution": {"2": 4},
    }
    assert found["team"]["sound_answers"] == {"value": 0.5, "ci95": None, "n": 1}
    assert quality_section([]) == {"measures": {}, "splits": {}}


def test_seeds_and_splits_are_kept_apart():
    rows = [
        row("base", f"p{i}", "right_steps", float((i + seed) % 2), 2.0, seed, split)
        for seed in range(3)
        for split, count in (("test", 6), ("ood", 2))
        for i in range(count)
    ]
    section = quality_section(rows, resamples=2000)
    assert [*section["splits"]] == ["ood", "test"]
    figure = section["splits"]["test"]["base"]["right_steps"]
    assert (figure["value"], figure["n"]) == (0.5, 18)
    assert figure["ci95"][0] < 0.5 < figure["ci95"][1]
    assert quality_section(rows[::-1], resamples=2000) == section


def test_meanings_of_further_measures_are_told():
    rows = [row("base", "a", "judge_coherence", 3.0), row("base", "b", "judge_coherence", 5.0)]
    section = quality_section(rows, {"judge_coherence": "Mean score."})
    assert section["measures"] == {"judge_coherence": "Mean score."}
    figure = section["splits"]["test"]["base"]["judge_coherence"]
    assert figure["value"] == 4.0 and figure["ci95"] == [3.0, 5.0]


def test_an_interval_is_the_percentile_one():
    rng = np.random.default_rng(1)
    values = rng.random(40)
    rows = [row("base", f"p{i:02}", "right_steps", v) for i, v in enumerate(values.tolist())]
    figure = quality_section(rows, resamples=400)["splits"]["test"]["base"]["right_steps"]
    ratios = PairedRatios({"x": (values[None], np.ones((1, 40)))}, resamples=400)
    assert figure["ci95"] == pytest.approx(list(percentile_interval(ratios.replicates("x"))))


def test_a_table_comes_back(tmp_path):
    rows = [row("team", "b", "right_steps", 0.5), row("base", "a", "right_steps", 1 / 3, 3.0)]
    path = tmp_path / "quality.parquet"
    assert load_measured(path) == []
    save_measured(path, rows)
    assert load_measured(path) == rows[::-1]
    before = path.read_bytes()
    save_measured(path, rows[::-1])
    assert path.read_bytes() == before
    save_measured(path, [])
    assert load_measured(path) == []
    path.write_bytes(before[:-9])
    with pytest.raises(DataError, match=r"quality.parquet: damaged .*--redo evaluate"):
        load_measured(path)


def test_fewer_than_no_traces():
    with pytest.raises(ConfigError, match="traces is -1"):
        QualityConfig(traces=-1)
