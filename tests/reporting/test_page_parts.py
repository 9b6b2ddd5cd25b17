"""The parts of the page: order of headings, tables, pictures in words, and older reports."""

import copy
import re
import xml.etree.ElementTree as ElementTree

import pytest

from arkjax.reporting import drawing, evidence_plots, evidence_tables, plots, systems
from arkjax.reporting.html import render_html
from arkjax.reporting.readings import debates

from .test_page import CURVES, HOSTILE, debate, parse
from .test_report import build, outcomes

SPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def report():
    return build(outcomes(), resamples=300)


@pytest.fixture(scope="module")
def figures(report):
    return plots.all_plots(report, CURVES)


@pytest.fixture(scope="module")
def page(report, figures):
    shown = [{**debate("p", [False, True], True), "why_chosen": "It is short."}]
    more = {
        "quality": {
            "team": {"verified_steps": {"value": 0.75, "ci95": [0.7, 0.8], "n": 1200}},
            "student_da": {"verified_steps": {"value": 0.9, "ci95": None, "n": 5}},
            "measures": {"verified_steps": "share of steps that hold"},
        },
        "published": {
            "title": "GSM8K",
            "source": "a paper",
            "rows": [{"name": "DA", "ours": None, "paper": 84.25, "model": "Qwen3-8B"}],
        },
    }
    return render_html({**report, **more}, CURVES, shown, figures=figures)


def test_headings_go_down_one_step_at_a_time(page):
    levels = [int(name[1]) for name, _ in parse(page).tags if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_landmarks_and_tables_say_what_they_are(page):
    tags = parse(page).tags
    names = [name for name, _ in tags]
    for landmark in ("header", "nav", "main", "footer"):
        assert names.count(landmark) == 1
    assert names.index("h1") < names.index("nav") < names.index("main")
    headers = [attributes for name, attributes in tags if name == "th"]
    assert headers and all(a.get("scope") in ("col", "row") for a in headers)
    assert names.count("caption") == names.count("table")
    boxes = [a for name, a in tags if a.get("class") == "wide"]
    assert len(boxes) == names.count("table")
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in boxes)
    for _, attributes in tags:
        assert attributes.get("class") != ""


def test_every_picture_is_said_in_words(figures, report):
    titles = set()
    for name, svg in figures.items():
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        title, said = root.find(f"{SPACE}title"), root.find(f"{SPACE}desc")
        assert root.get("aria-labelledby").split() == [title.get("id"), said.get("id")]
        assert len(title.text) > 10 and len(said.text) > 30, name
        titles.add(title.text)
    assert len(titles) == len(figures)
    said = ElementTree.fromstring(figures["flips_0"]).find(f"{SPACE}desc").text
    flips = report["splits"]["test"]["systems"]["team"]["flips"]
    assert f"{flips['corrected']['count']:,} corrected" in said
    said = ElementTree.fromstring(figures["accuracy_cost_0"]).find(f"{SPACE}desc").text
    assert "On the Pareto front: " in said


def test_pictures_are_drawn_for_a_phone(figures):
    for name, svg in figures.items():
        root = ElementTree.fromstring(svg)
        width = float(root.get("viewBox").split()[2])
        assert width == pytest.approx(72 * drawing.WIDTH, abs=0.01)
        sizes = [
            float(size)
            for text in root.iter(f"{SPACE}text")
            for size in re.findall(r"(?:font-size: |font: (?:\w+ )*)([\d.]+)px", text.get("style"))
        ]
        assert sizes, name
        # As wide as a phone of 360 pixels less its margins.
        assert min(sizes) * (360 - 32) / width >= 11, name


def test_hostile_names_stay_text_in_pictures_and_tables(report):
    hostile = copy.deepcopy(report)
    section = hostile["splits"]["test"]
    hostile["splits"] = {"test": section, HOSTILE: copy.deepcopy(section)}
    gains = hostile["captured_gain_by_domain"]["test"]
    hostile["captured_gain_by_domain"][HOSTILE] = {}
    hostile["captured_gain_by_split"][HOSTILE] = {}
    section["domains"] = {HOSTILE: 60, "gap": 60}
    gains[HOSTILE] = gains.pop("coins")
    section["difficulties"] = {HOSTILE: 1}
    for entry in section["systems"].values():
        entry["by_domain"][HOSTILE] = entry["by_domain"]["coins"]
        entry["by_difficulty"][HOSTILE] = {"n": 1, "accuracy": 0.5, "ci95": [0.0, 1.0]}
    section["systems"][f"student_{HOSTILE}"] = copy.deepcopy(section["systems"]["student_da"])
    section["systems"][f"student_{HOSTILE}"]["accuracy"] = 0.99
    section["systems"][HOSTILE] = section["systems"].pop("role_vote")
    hostile |= {
        "title": HOSTILE,
        "quality": {HOSTILE: {HOSTILE: {"value": 1, "ci95": [0, 1], "n": 3}}, "measures": {}},
        "published": {
            "title": HOSTILE, "source": HOSTILE,
            "rows": [{"name": HOSTILE, "ours": HOSTILE, "paper": [HOSTILE], HOSTILE: HOSTILE}],
        },
        "records": {HOSTILE: {HOSTILE: [{"seed": 0, "path": HOSTILE, "calls": 3}]}},
        "runs": [
            {
                "name": HOSTILE, "path": HOSTILE, "config_hash": HOSTILE, "seeds": [HOSTILE],
                "device": {"kind": HOSTILE}, "command": HOSTILE,
            }
        ],
    }  # fmt: skip
    hostile["quality"]["measures"] = {HOSTILE: HOSTILE}
    shown = {**debate("p", [True], False), "why_chosen": HOSTILE, "seed": HOSTILE}
    shown |= {"store": HOSTILE, "call_ids": [HOSTILE], "problem_id": HOSTILE}
    shown["base"] = {
        "system": HOSTILE, "text": HOSTILE, "answer": HOSTILE, "correct": False,
        "call_ids": [HOSTILE],
    }  # fmt: skip
    page = render_html(hostile, None, [shown])
    tags = parse(page).tags
    assert not {name for name, _ in tags} & {"script", "img"}
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert "<script" not in page and "\x00" not in page
    for svg in plots.all_plots(hostile).values():
        ElementTree.fromstring(svg)


def test_an_older_report_has_a_page(report):
    old = copy.deepcopy(report)
    for key in ("records", "counts_by_seed", "process_rewards"):
        del old[key]
    for entry in old["splits"]["test"]["systems"].values():
        for key in (
            "device_seconds", "by_domain_ci95", "by_difficulty", "over_seeds", "pool", "flips",
            "calibration",
        ):  # fmt: skip
            del entry[key]
        del entry["per_correct"]["device_seconds"]
    figures = plots.all_plots(old)
    assert list(figures) == [
        "accuracy_cost_0", "accuracy_calls", "accuracy_seconds", "accuracy_by_part",
        "captured_gain_by_domain",
    ]  # fmt: skip
    page = render_html(old, figures=figures)
    parse(page)
    for absent in ("talk", "calibration", "difficulty", "quality", "published"):
        assert f'id="{absent}"' not in page and f'href="#{absent}"' not in page


def test_nothing_right_costs_no_price_and_stands_on_no_log_of_zero(report):
    poor = copy.deepcopy(report)
    for entry in poor["splits"]["test"]["systems"].values():
        entry |= {"accuracy": 0.0, "ci95": [0.0, 0.0], "device_seconds": 0.0, "seconds": 0.0}
        entry["per_correct"] = dict.fromkeys(entry["per_correct"])
    assert '<td class="n">–</td>' in render_html(poor)


def test_quality_and_published_numbers_are_tables(page):
    text = " ".join(parse(page).text)
    assert "0.75" in text and "[0.7, 0.8] n = 1,200" in text and "share of steps that hold" in text
    assert '<td class="n paper">84.25</td>' in page and "Qwen3-8B" in text
    assert "the paper's, quoted and not measured here" in text and "Source: a paper." in text
    for empty in (None, {}, {"rows": []}, {"measures": {"a": "b"}}):
        assert evidence_tables.quality(empty) == "" == evidence_tables.published(empty)


def test_figures_of_the_grader_are_shown_by_system(report):
    evaluated = {
        **report,
        "task": "truthful<b>qa",
        "scores": {
            "team": {"bleu_diff": -0.0625, "f1": 0.875, HOSTILE: 1},
            "base": {"bleu_diff": 0.5, "f1": 0.25, "rouge1": None},
            HOSTILE: {"bleu": 31.25},
        },
        "choices": {"mc1": 0.375, "mc2": 0.5},
    }
    page = render_html(evaluated, figures={})
    parse(page)
    assert HOSTILE not in page and "<h1>truthful&lt;b&gt;qa</h1>" in page
    assert "Task: truthful&lt;b&gt;qa. Problems: " in page
    part = page[page.index('<section id="figures"') :]
    part = part[: part.index("</section>")]
    assert '<a href="#figures">Figures of the grader</a>' in page
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', part)
    # Shares in per cent; not what can be negative or above 1.
    assert heads[:3] == ["system", "bleu diff", "f1, %"] and heads[3].endswith(", %")
    assert heads[4:] == ["rouge1, %", "bleu", "measure", "mean"]
    cells = [re.findall(r'<td class="n">([^<]*)</td>', row) for row in part.split("<tr>")[2:]]
    assert [row for row in cells if row] == [
        ["0.500", "25.0", "–", "–", "–"],
        ["−0.062", "87.5", "100.0", "–", "–"],
        ["–", "–", "–", "–", "31.250"],
        ["37.5"],
        ["50.0"],
    ]


def test_a_report_without_figures_of_a_grader_has_no_part_for_them(report):
    page = render_html({**report, "scores": {}, "choices": {}}, figures={})
    assert page == render_html(report, figures={})
    assert "Figures of the grader" not in page and "Task: " not in page
    alone = evidence_tables.grader_figures({"choices": {"mc1": 0.0}})
    assert "Means over all problems" not in alone and "mc1, %" in alone


def test_quality_of_several_splits_says_what_was_judged_and_how():
    figure = {"value": 0.5, "ci95": [0.4, 0.6], "n": 3}
    figure["minus_base"] = {"value": -0.25, "ci95": [-0.5, 0.125]}
    measured = {
        "measures": {"coherence": "how well it hangs together"},
        "splits": {"ood": {"team": {"coherence": figure}}, "test": {"team": {"coherence": figure}}},
        "judge": {"player": "<big>", "rubric": {"scale": 5}},
    }
    text = evidence_tables.quality(measured)
    assert text.index("Reasoning on test") < text.index("Reasoning on ood")
    assert "−0.25 to base [−0.5, 0.125]" in text and text.count("hangs together") == 1
    assert "&lt;big&gt;" in text and "rubric · scale" in text
    assert evidence_tables.quality({"measures": {}, "splits": {}, "judge": None}) == ""


def test_talk_is_said_with_its_intervals(report):
    said = evidence_tables.talk_sentences(report, "test")
    assert len(said) == 1  # Nobody but the team talks.
    flips = report["splits"]["test"]["systems"]["team"]["flips"]
    corrected, misled = flips["corrected"], flips["misled"]
    assert f"of {corrected['n']:,} answers that opened wrong it put right" in said[0]
    assert f"of {misled['n']:,} answers that opened right it turned wrong" in said[0]
    counted = evidence_plots.counts_of(flips)
    assert sum(counted.values()) == corrected["n"] + misled["n"] == 240
    assert counted["wrong", "right"] == corrected["count"]
    changed = copy.deepcopy(report)
    for ci95, words in (
        ([0.1, 0.3], "adds accuracy"), ([-0.3, -0.1], "costs accuracy"), ([-0.1, 0.1], "is open"),
    ):  # fmt: skip
        of_team = changed["splits"]["test"]["systems"]["team"]["flips"]
        of_team["net"] = {"value": sum(ci95) / 2, "ci95": ci95}
        assert words in evidence_tables.talk_sentences(changed, "test")[0]


def test_each_call_of_a_debate_can_be_found_again():
    shown = debate("it's", [False, True], True)
    shown |= {"why_chosen": "w", "store": "seed-0/evaluate/test/team", "call_ids": ["aa11", "bb22"]}
    text = " ".join(parse(f"<div>{debates([shown])}</div>").text)
    assert "call aa11" in text and "call bb22" in text
    assert "arkjax trajectories show RUN/seed-0/evaluate/test/team --problem" in text
    assert "4 more" in debates([shown] * 7) and "more" not in debates([shown] * 3)


def test_page_tells_where_each_number_comes_from(page):
    text = " ".join(parse(page).text)
    for words in ("outcomes.parquet", "arkjax view RUN", "arkjax trajectories show RUN/seed-0/"):
        assert words in text


def test_ticks_of_a_logarithmic_axis():
    assert drawing.log_ticks(14, 475) == [20, 50, 100, 200]
    assert drawing.log_ticks(0.5, 2e5) == [1, 100, 10000]
    for low, high in ((3.1, 3.9), (28, 55), (0.0011, 0.0019), (1, 1e12)):
        ticks = drawing.log_ticks(low, high)
        assert 2 <= len(ticks) <= 5 and all(low <= tick <= high for tick in ticks)


def test_short_counts_and_wrapped_names():
    counts = [evidence_plots.short(n) for n in (0, 999, 1000, 9949, 9999, 34_000, 5_600_000)]
    assert counts == ["0", "999", "1.0k", "9.9k", "10k", "34k", "5.6M"]
    assert drawing.wrapped("base", 9) == "base"
    assert drawing.wrapped("control: single agent", 14) == "control:\nsingle agent"
    assert drawing.wrapped("one two three four five six", 9) == "one two\nthree…"


def test_names_of_runs_stand_behind_those_of_systems():
    assert systems.label("student_da, wide") == "student DA, wide"
    assert systems.kind("base, wide") == "base" and systems.kind("student_da_unverified, w") == (
        "unverified"
    )
    assert systems.start("student_da_then_grpo, wide") == "student_da, wide"
    assert systems.ordered(["team, b", "base, b", "team, a", "student_da, a"]) == [
        "base, b", "team, a", "team, b", "student_da, a",
    ]  # fmt: skip
