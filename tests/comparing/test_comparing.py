"""Several runs in one report: what is shared, what is left out, what is said of each pair."""

import json

import numpy as np
import pytest

from arkjax import cli
from arkjax.comparing.combine import combine
from arkjax.comparing.runs import label_runs, load_run
from arkjax.errors import ConfigError, DataError
from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting.report import build_report, write_report
from arkjax.rundir import RunDirectory
from arkjax.storage import write_atomic

ACCURACY = {"base": 0.4, "team": 0.8, "student_da": 0.7}


def rows(accuracy, seed, split="test", problems=range(90)):
    """Outcomes of a seed; the same for the same accuracy, however many problems there are."""
    found = []
    for system, share in accuracy.items():
        for problem in problems:
            right = np.random.default_rng([seed, problem]).random() < share
            calls = 8 if system == "team" else 1
            found.append(
                {
                    "seed": seed, "split": split, "system": system, "problem_id": f"p{problem}",
                    "part": "", "domain": ("coins", "gap")[problem % 2], "correct": bool(right),
                    "answer": "3" if right else "4", "calls": calls, "prompt_tokens": 9 * calls,
                    "generated_tokens": 30 * calls, "seconds": 0.5 * calls, "difficulty": "",
                    "in_pool": bool(right), "opening_correct": bool(right),
                    "confidence": float("nan"), "rounds": 1,
                }
            )  # fmt: skip
    return found


def make_run(root, accuracy=ACCURACY, seeds=(0, 1), task="mine", devices=1, more=(), **changes):
    """A finished run with the given accuracies."""
    tables = []
    with RunDirectory(root) as directory:
        for seed in seeds:
            stage = directory.stage(seed, "evaluate")
            stage.begin({"task": task})
            of_seed = rows(accuracy, seed, **changes)
            of_seed += [row for one in more for row in rows(accuracy, seed, **one)]
            tables.append(Outcomes.from_records(of_seed))
            tables[-1].save(stage.path / "outcomes.parquet")
            stage.finish({"seconds": 1.0})
        directory.report.mkdir(exist_ok=True)
    report = build_report(
        Outcomes.concatenate(tables),
        config_hash="c0ffee" * 4 + str(len(accuracy)),
        versions={"arkjax": "0"},
        device={"kind": "cpu", "count": devices},
        seeds=list(seeds),
        wall_seconds={"base": 2.0},
        counts={"da": {"kept": 3}},
        resamples=200,
        command=f"arkjax run --workdir {root.name}",
    )
    write_atomic(root / "report" / "report.json", json.dumps(report))
    return root


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs of one base and team; the student of the second is better."""
    folder = tmp_path_factory.mktemp("runs")
    better = {**ACCURACY, "student_da": 0.95}
    return make_run(folder / "narrow"), make_run(folder / "wide", better)


def compared(*roots, **options):
    return combine(
        [load_run(root, name) for root, name in zip(roots, label_runs(roots), strict=True)],
        **options,
    )


@pytest.fixture(scope="module")
def report(pair):
    return compared(*pair)


def test_equal_systems_are_shown_once_and_students_apart(report):
    assert list(report["splits"]["test"]["systems"]) == [
        "base", "team", "student_da, narrow", "student_da, wide",
    ]  # fmt: skip
    assert any("base answered every problem alike in narrow and wide" in n for n in report["notes"])
    assert report["left_out"] == [] and report["title"] == "narrow and wide compared"
    assert [run["name"] for run in report["runs"]] == ["narrow", "wide"]


def test_what_has_one_name_is_paired_and_nothing_else(report):
    assert [(c["a"], c["b"], c["split"]) for c in report["comparisons"]] == [
        ("student_da, wide", "student_da, narrow", "test")
    ]
    found = report["comparisons"][0]
    better = {seed: rows({"student_da": 0.95}, seed) for seed in (0, 1)}
    worse = {seed: rows({"student_da": 0.7}, seed) for seed in (0, 1)}
    share = np.mean([r["correct"] for s in (0, 1) for r in better[s]]) - np.mean(
        [r["correct"] for s in (0, 1) for r in worse[s]]
    )
    assert found["difference"] == pytest.approx(share) and found["shown"]
    assert any(
        "Student DA, wide is better than student DA, narrow" in s for s in report["headline"]
    )


def test_figures_are_those_of_each_run(report, pair):
    for root in pair:
        own = json.loads((root / "report" / "report.json").read_text())
        for name in ACCURACY:
            system = f"{name}, {root.name}" if name.startswith("student") else name
            entry = report["splits"]["test"]["systems"][system]
            of_run = own["splits"]["test"]["systems"][name]
            assert entry["accuracy"] == of_run["accuracy"]
            assert entry["generated_tokens"] == of_run["generated_tokens"]
        gain = report["captured_gain"][f"student_da, {root.name}"]["value"]
        assert gain == pytest.approx(own["captured_gain"]["student_da"]["value"])


def test_runs_with_teams_of_their_own_keep_them(tmp_path):
    a = make_run(tmp_path / "a")
    b = make_run(tmp_path / "b", {"base": 0.4, "team": 0.6, "student_da": 0.5})
    report = compared(a, b)
    names = report["splits"]["test"]["systems"]
    assert {"base", "team, a", "team, b"} <= set(names)
    pairs = {(c["a"], c["b"]) for c in report["comparisons"]}
    assert pairs == {("team, b", "team, a"), ("student_da, b", "student_da, a")}
    own = json.loads((b / "report" / "report.json").read_text())["captured_gain"]["student_da"]
    assert report["captured_gain"]["student_da, b"]["value"] == pytest.approx(own["value"])
    write_report(tmp_path / "out", report)
    assert (tmp_path / "out" / "report.html").read_text().count("<svg") > 2


def test_only_common_problems_and_seeds_are_compared(tmp_path):
    a = make_run(tmp_path / "a", seeds=(0, 1), more=[{"split": "ood"}])
    b = make_run(tmp_path / "b", seeds=(1, 2), problems=range(30, 120))
    report = compared(a, b)
    assert report["seeds"] == [1] and report["splits"]["test"]["n"] == 60
    assert list(report["splits"]) == ["test"]
    said = " ".join(report["left_out"])
    assert "Seeds compared: 1, which all runs have; left out: 0 of a; 2 of b." in said
    assert "On test the 60 problems are compared" in said and "left out: 30 of a, 30 of b" in said
    assert "ood is left out: only a answered it." in said
    assert set(report["left_out"]) <= set(report["notes"])
    expected = np.mean([r["correct"] for r in rows({"base": 0.4}, 1, problems=range(30, 90))])
    assert report["splits"]["test"]["systems"]["base"]["accuracy"] == pytest.approx(expected)


def test_what_cannot_be_compared_says_why(tmp_path, pair):
    far = make_run(tmp_path / "far", problems=range(200, 240))
    with pytest.raises(DataError, match=r"run .*far shares no problem with .*narrow.*leave it out"):
        compared(pair[0], far)
    with pytest.raises(DataError, match=r"narrow and .*wide can be compared"):
        compared(*pair, far)
    with pytest.raises(DataError, match=r"no seed in common \(.*narrow has \[0, 1\]; .* \[7\]"):
        compared(pair[0], make_run(tmp_path / "late", seeds=(7,)))
    with pytest.raises(DataError, match=r"other answers problems of 'yours'"):
        compared(pair[0], make_run(tmp_path / "other", task="yours"))
    with pytest.raises(ConfigError, match="--split odd: no run has it; there are test"):
        compared(*pair, splits=["odd"])
    with pytest.raises(ConfigError, match="two runs at least"):
        compared(pair[0])


def test_one_id_for_two_problems_is_found_out(tmp_path, pair):
    other = make_run(tmp_path / "other")
    run = load_run(other, "other")
    turned = run.outcomes["domain"] == "coins"
    run.outcomes.columns["domain"][turned] = "gap"
    with pytest.raises(DataError, match=r"other: problem 'p0' of test .*different problems"):
        combine([load_run(pair[0], "narrow"), run])


def test_unfinished_and_damaged_runs_are_named_with_the_remedy(tmp_path, pair):
    with pytest.raises(DataError, match=r"nowhere is not an ArkJAX run directory"):
        load_run(tmp_path / "nowhere", "x")
    run = make_run(tmp_path / "run")
    report = run / "report" / "report.json"
    whole = report.read_text()
    for text, words in (("{", "is damaged"), ("[]", "is damaged"), ("{}", "is damaged")):
        report.write_text(text)
        with pytest.raises(DataError, match=rf"run .*run: .*{words}.*arkjax report"):
            load_run(run, "x")
    report.write_text(json.dumps({**json.loads(whole), "schema": 9}))
    with pytest.raises(DataError, match="of schema 9"):
        load_run(run, "x")
    report.unlink()
    with pytest.raises(DataError, match=r"has no report/report.json; finish it with `arkjax run"):
        load_run(run, "x")
    report.write_text(whole)
    (run / "seed-1" / "evaluate" / "outcomes.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged outcome table"):
        load_run(run, "x")
    (run / "seed-1" / "evaluate" / "stage.json").unlink()
    with pytest.raises(DataError, match="seed-1/evaluate is not finished"):
        load_run(run, "x")


def test_names(tmp_path):
    roots = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert label_runs(roots) == ["a-run", "b-run"]
    assert label_runs(roots, {roots[0]: "wide"}) == ["wide", "b-run"]
    assert label_runs([tmp_path / "<script>, x"]) == ["script-x"]
    with pytest.raises(ConfigError, match="would both be called same"):
        label_runs(roots, dict.fromkeys(roots, "same"))
    for bad in ("", "a, b", "<b>", "x" * 41):
        with pytest.raises(ConfigError, match="must be 1 to 40 letters"):
            label_runs(roots, {roots[0]: bad})


def test_a_run_without_a_name_keeps_its_own_and_may_state_its_claims(pair):
    runs = [load_run(pair[0], ""), load_run(pair[1], "wide")]
    report = combine(runs, claims_of=("",), command="mine")
    assert "student_da" in report["splits"]["test"]["systems"]
    pairs = [(c["a"], c["b"]) for c in report["comparisons"]]
    assert pairs[0] == ("team", "base") and ("student_da", "team") in pairs
    assert pairs[-1] == ("student_da, wide", "student_da")
    assert report["command"] == "mine" and "role_vote" in report["missing"]


def test_seconds_count_for_the_devices_of_their_run(tmp_path, pair):
    many = make_run(tmp_path / "many", {**ACCURACY, "student_da": 0.9}, devices=4)
    found = compared(pair[0], many)["splits"]["test"]["systems"]
    assert found["student_da, narrow"]["device_seconds"] == pytest.approx(0.5)
    assert found["student_da, many"]["device_seconds"] == pytest.approx(2.0)
    right = found["student_da, many"]["accuracy"]
    price = found["student_da, many"]["per_correct"]["device_seconds"]
    assert price == pytest.approx(2.0 / right)


def test_command_line_writes_the_page_and_prints_the_tables(pair, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b = map(str, pair)
    short = pair[0].name  # of a run in another folder
    assert cli.main(["compare", a, b, "--name", f"{b}=big run", "--name", f"small={short}"]) == 0
    printed = capsys.readouterr().out
    assert "student DA, big run" in printed and "is better than student DA, small" in printed
    out = tmp_path / "compare" / "small-big-run"
    page = (out / "report.html").read_text()
    assert "small and big run compared" in page and "The runs" in page
    built = json.loads((out / "report.json").read_text())
    assert built["command"].startswith("arkjax compare ") and built["schema"] == 1
    assert cli.main(["compare", a, b, "--out", str(tmp_path / "x"), "--split", "test"]) == 0
    assert (tmp_path / "x" / "report.json").is_file()


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "give at least one more"),
        (["{a}"], "is given twice"),
        (["{b}", "--name", "x"], "expected RUN=NAME"),
        (["{b}", "--name", "{b}=a, b"], "must be 1 to 40 letters"),
        (["{b}", "--out", "{a}"], "would replace the report of run"),
        (["{b}", "--split", "odd"], "no run has it"),
        (["{b}", "--nam", "x"], "unknown option --nam: did you mean --name?"),
    ],
)
def test_wrong_usage_is_one_line(pair, words, said, capsys):
    a, b = map(str, pair)
    words = [word.format(a=a, b=b) for word in words]
    assert cli.main(["compare", a, *words, "--quiet"]) == 2
    assert said in capsys.readouterr().err
