"""The page and its pictures: hostile text stays text, nothing runs, same figures draw the same."""

import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting import plots
from arkjax.reporting.html import render_html

from .test_report import ACCURACY, build, outcomes

HOSTILE = (
    "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"
    "<a href=\"javascript:alert(3)\">x</a>' onmouseover='alert(4) \x00\x1b[31m &lt;"
)
CURVES = {"base": [(0, 2.0), (10, 1.0), (20, float("nan"))], "student_da": [(0, 1.0), (5, 0.5)]}


class Tags(HTMLParser):
    """Collects every element with its attributes, and checks that elements close in order."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    parser = Tags()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def call(agent, correct, answer, number=0, text="so 3", stage="debate"):
    return {
        "stage": stage, "round": number, "agent": agent, "text": text, "answer": answer,
        "correct": correct,
    }  # fmt: skip


def debate(problem_id, opening, right, student=None, part="plain", **changes):
    calls = [call(f"agent {i}", ok, "3" if ok else "5") for i, ok in enumerate(opening)]
    return {
        "problem_id": problem_id, "problem": "coins 4 7", "gold": "3", "part": part,
        "split": "test", "calls": calls, "answer": "3" if right else "5", "correct": right,
        "student": student, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def report():
    return build(outcomes(), counts={"student_da": {"traces": {"kept": 1234, "dropped": 2}}})


@pytest.fixture(scope="module")
def figures(report):
    return plots.all_plots(report, CURVES)


@pytest.fixture(scope="module")
def page(report, figures):
    shown = [{**debate("p", [False, True], True), "why_chosen": "It is short."}]
    return render_html(report, CURVES, shown, figures=figures)


def test_page_is_self_contained_and_cannot_run_anything(page):
    tags = parse(page).tags
    names = {name for name, _ in tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "img"}
    policy = next(a["content"] for _, a in tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    for _, attributes in tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    led = [attributes["href"] for name, attributes in tags if name == "a"]
    assert led and {place.removeprefix("#") for place in led} <= set(ids)
    for _, attributes in tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(attributes.get(name, "").split()) <= set(ids)


def test_page_says_what_it_must(page, report, figures):
    text = " ".join(parse(page).text)
    for sentence in report["headline"]:
        assert sentence in text
    for words in ("1,234", report["config_hash"], "elicitation and composition"):
        assert words in text
    assert "no difference shown" in text and "It is short." in text
    assert page.count('<svg role="img"') == len(figures)


def opening(page):
    return page.split("<header>")[1].split("</header>")[0]


def test_what_is_missing_stands_behind_what_was_found():
    lacking = build(outcomes(["base", "team", "student_da"]), name="small", task="sums")
    head = opening(render_html(lacking, figures={}))
    assert head.startswith("<h1>small: sums</h1><p>What the team added")
    assert "test (120 problems); seeds 0, 1." in head
    assert head.index("the team answers") < head.index('class="warning">Missing from this')
    assert lacking["first_line"].startswith("Missing from this comparison")


def test_a_look_at_the_gold_answer_is_said_before_what_was_found():
    head = opening(render_html(build(outcomes(), oracle=["team"]), figures={}))
    assert head.index('class="warning">A stop that looks at') < head.index("the team answers")
    assert "Missing" not in head


def test_a_page_is_called_after_run_and_task(report):
    assert report.keys().isdisjoint({"name", "task"})
    for changes, title in (
        ({}, "ArkJAX report"), ({"task": "gsm8k"}, "gsm8k"), ({"name": "a", "title": "t"}, "t"),
    ):  # fmt: skip
        page = render_html({**report, **changes}, figures={})
        assert f"<title>{title}</title>" in page and f"<h1>{title}</h1>" in page
    page = render_html({**report, "command": "arkjax run"}, figures={})
    assert "<p>An equivalent command: <code>arkjax run</code></p>" in page


def test_a_single_system_is_no_comparison():
    alone = build(outcomes(["base"]), claims=[], task="gsm8k", command="arkjax evaluate")
    assert alone["missing"] == {} and len(alone["headline"]) == 1
    right = 100 * alone["splits"]["test"]["systems"]["base"]["accuracy"]
    assert alone["first_line"].startswith(f"On test, base answers {right:.1f}% right [")
    figures = plots.all_plots(alone)
    assert not any(name.startswith("accuracy_c") for name in figures)
    text = " ".join(parse(render_html(alone, figures=figures)).text)
    for words in ("Missing", "Pareto", "What the team", "Where the team", "student", "compared"):
        assert words not in text, words
    for words in ("gsm8k", "Cost of a correct answer", "arkjax evaluate"):
        assert words in text, words


def test_what_was_not_compared_is_said_once_for_each_reason():
    absent = ("student_rsft_unverified", "control_answer_only")
    names = [name for name in [*ACCURACY, "student_rsft"] if name not in absent]
    both = [outcomes(names, accuracy={"student_rsft": 0.8}, split=s) for s in ("test", "ood")]
    found = build(Outcomes.concatenate(both), resamples=300)
    assert len(found["not_compared"]) == 12
    page = render_html(found, figures={})
    said = page.split("Not compared (12)</summary><ul>")[1].split("</ul>")[0]
    places = "(test; test, multi; ood; ood, multi)."
    assert said.split("</li>")[:-1] == [
        "<li>control_answer_only was not evaluated: student DA and student RSFT against control: "
        f"answer only {places}",
        "<li>student_rsft_unverified was not evaluated: student RSFT against student RSFT, no gold "
        f"{places}",
    ]


def test_hostile_text_stays_text_everywhere():
    hostile = build(
        outcomes(),
        versions={HOSTILE: HOSTILE},
        device={HOSTILE: HOSTILE},
        counts={HOSTILE: {HOSTILE: {HOSTILE: HOSTILE}}},
        notes=[HOSTILE],
        command=HOSTILE,
        wall_seconds={HOSTILE: 1.0},
        oracle=[HOSTILE],
        claims=[("team", HOSTILE, "test", None)],
    )
    student = call(HOSTILE, False, HOSTILE, text=HOSTILE) | {"system": HOSTILE}
    shown = debate("p", [True], False, student, problem=HOSTILE, gold=HOSTILE, answer=HOSTILE)
    shown["calls"].append(call(HOSTILE, True, HOSTILE, 1, HOSTILE, HOSTILE))
    shown |= {"why_chosen": HOSTILE, "split": HOSTILE}
    page = render_html(hostile, {HOSTILE: [(0, 1.0), (1, 2.0)]}, [shown])
    tags = parse(page).tags
    assert not {name for name, _ in tags} & {"script", "img"}
    assert all(attributes["href"].startswith("#") for name, attributes in tags if name == "a")
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert "<script" not in page and "\x00" not in page and "\x1b" not in page


def test_hostile_systems_splits_and_domains_stay_text():
    rows = [vars(row).copy() for row in outcomes(n=12).records()]
    for row in rows:
        row["split"] = row["domain"] = row["part"] = "<script>$x_$"
        if row["system"] == "role_vote":
            row["system"] = "<script>alert('$\\frac$')</script>"
    hostile = build(Outcomes.from_records(rows))
    assert "<script" not in render_html(hostile)
    for svg in plots.all_plots(hostile).values():
        ElementTree.fromstring(svg)


def test_pictures_of_the_json_are_those_of_the_report(report, figures):
    again = json.loads(json.dumps(report, sort_keys=True))
    assert plots.all_plots(again, CURVES) == figures


def test_pictures_are_valid_and_named(report, figures):
    assert list(figures) == [
        "accuracy_cost_0", "accuracy_calls", "accuracy_device_seconds", "accuracy_by_part",
        "captured_gain_by_domain", "accuracy_by_difficulty", "oracle_gap", "flips_0",
        "calibration_0", "calibration_1", "calibration_2", "learning_curves",
    ]  # fmt: skip
    for svg in figures.values():
        root = ElementTree.fromstring(plots.standalone(svg).encode())
        space = "{http://www.w3.org/2000/svg}"
        assert root.get("role") == "img"
        assert root.find(f"{space}title").text and root.find(f"{space}desc").text
        assert "<metadata" not in svg and plots.INK not in svg
    accuracy = 100 * report["splits"]["test"]["systems"]["team"]["accuracy"]
    assert f"; team {accuracy:.1f}% at 270 tokens" in figures["accuracy_cost_0"]
