"""A task file of one's own with a mistake in it: the message names its line and the record's."""

import json

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.tasks import registry
from arkjax.tasks.registry import get_task

pytestmark = pytest.mark.fast

FILE = """
from arkjax.tasks.benchmarks import Benchmark, Draft
from arkjax.tasks.graders import ChoiceGrader, MathGrader
from arkjax.tasks.registry import register_benchmark

def read(record):
    {read}

register_benchmark(Benchmark("units", read, {grader}, {splits}))
"""
LINES = [
    {"q": "2 km in m?", "a": 2000, "options": ["2", "2000"]},
    {"q": "3 km in m?", "a": "3,000", "options": ["3", "3000"]},
]


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    monkeypatch.setattr(registry, "_FILES", {})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def load(tmp_path):
    def load(read, grader="MathGrader()", splits='("test",)', lines=LINES):
        (tmp_path / "units.py").write_text(FILE.format(read=read, grader=grader, splits=splits))
        (tmp_path / "conv").mkdir(exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "conv/test.jsonl").write_text(text)
        return get_task("units.py").load("test", source="conv")

    return load


GOOD = 'yield Draft(record.text("q"), record.number("a"))'
FIRST, SECOND = "conv/test.jsonl, line 1", "conv/test.jsonl, line 2"


def test_numbers_may_have_commas_between_thousands(load):
    assert [problem.answer for problem in load(GOOD)] == ["2000", "3000"]


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ('yield Draft(record.text("q"), record.numbr("a"))',
         f"read() failed on {FIRST}: AttributeError: 'Record' object has no attribute 'numbr'; "
         "mend read()"),
        ('return [Draft(record.text("q"), record.numbr("a"))]', f"read() failed on {FIRST}"),
        ('yield Draft(record.text("q"), str(record.value["a"] + 1))',
         f"read() failed on {SECOND}: TypeError"),
        ('yield Draft("q", "1", "d", {}, "too many")', f"read() failed on {FIRST}: TypeError"),
        ('return Draft("q", "1")', "read() returned Draft Draft(question='q', answer='1'"),
        ("return None", f"read() returned None for {FIRST}: it must yield drafts"),
        ('return "q"', f"read() returned 'q' for {FIRST}: it must yield drafts"),
        ('yield "q", "1"', f"read() made tuple ('q', '1') of {FIRST}: it must yield drafts"),
        ('yield Draft("q", None)', f"the answer of {FIRST} is None, not text: give text"),
        ('yield Draft("q", 2.5)',
         f"the answer of {FIRST} is float 2.5, not text: give text, as record.number(FIELD)"),
        ('yield Draft(" ", "1")', f"the question of {FIRST} is empty"),
        ('yield Draft("q", "")', f"the answer of {FIRST} is empty"),
        ('yield Draft("q", "1", 7)', f"the domain of {FIRST} is int 7"),
        ('yield Draft("q", "1", meta="x")', f"the meta of {FIRST} is 'x': give a mapping"),
        ('yield from [Draft("q", "1"), Draft("q", "2")]',
         f"read() made a second problem of {FIRST}: give the Benchmark several=True"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_reader_is_said_with_its_line(load, read, said):
    with pytest.raises(DataError) as error:
        load(read)
    text = str(error.value)
    assert (
        text.startswith("units.py:7: " if "return " not in read else "units.py:") and said in text
    )
    assert "\n" not in text
    if "failed" in said:
        assert type(error.value.__cause__) in (AttributeError, TypeError)


def test_errors_of_records_stay_as_they_are(load):
    with pytest.raises(DataError, match=r"^conv/test.jsonl, line 2, field 'a': expected a number"):
        load(GOOD, lines=[LINES[0], {"q": "3 km in m?", "a": "30,00"}])
    with pytest.raises(DataError, match="field 'a'.* such as 3000, 3,000 or 2.5, found 'many'"):
        load(GOOD, lines=[{"q": "?", "a": "many"}])


def test_whole_numbers_are_kept_to_the_last_digit(load):
    big = 2**53 + 1
    found = load(GOOD, lines=[{"q": "?", "a": big}, {"q": "?", "a": str(big)}])
    assert [problem.answer for problem in found] == [str(big)] * 2


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ('yield Draft("q", "C", meta={"options": record.value["options"]})',
         f"the answer 'C' of {FIRST} is none that ChoiceGrader accepts: expected the letter of an "
         "option: A, B"),
        ('yield Draft("q", "2000", meta={"options": record.value["options"]})',
         "the letter of an option: A, B"),
        ('yield Draft("q", "2000")', "the letter of an option: A, B, C, D, E"),
        ('yield Draft("q", "A", meta={"options": []})', 'none, as meta["options"] is empty'),
    ],
)  # fmt: skip
def test_a_gold_answer_that_its_grader_does_not_accept_is_refused(load, read, said):
    with pytest.raises(DataError) as error:
        load(read, "ChoiceGrader()")
    assert str(error.value).startswith("units.py:7: ") and said in str(error.value)


def test_letters_and_whole_solutions_are_accepted_as_gold(load):
    right = 'yield Draft("q", " b", meta={"options": record.value["options"]})'
    assert len(load(right, "ChoiceGrader()")) == 2


def test_a_solution_as_gold_is_accepted(load):
    assert load('yield Draft("q", "a + b\\n#### 5")')[0].answer.endswith("#### 5")


@pytest.mark.parametrize(
    ("grader", "splits", "said"),
    [
        ('"MathGrader"', '("test",)', "grader is str 'MathGrader', which is none"),
        ("None", '("test",)', "grader is NoneType None, which is none"),
        ("MathGrader", '("test",)', r"grader is the class: give MathGrader\(\)"),
        ("MathGrader()", '"test"', "splits is 'test': give names"),
        ("MathGrader()", "()", r"splits is \(\): give names"),
        ("MathGrader()", '("test",), "bills"', "layout is 'bills': give a Layout"),
        ("MathGrader()", '("test",), instruction=None', "instruction is None: give text"),
        ("MathGrader()", '("test",), begin=1', "begin is 1: give a function"),
    ],
)
def test_a_benchmark_is_checked_when_it_is_made(load, grader, splits, said):
    with pytest.raises(ConfigError, match=rf"units\.py:9: Benchmark 'units': {said}"):
        load(GOOD, grader, splits)


def test_a_file_can_be_mended_and_run_again(load, tmp_path):
    with pytest.raises(ConfigError, match="units.py:10: ZeroDivisionError"):
        load(GOOD, splits='("test",)))\nx = (1 / (0')
    assert len(load(GOOD)) == 2


def test_two_files_that_register_one_name_are_both_named(load, tmp_path):
    load(GOOD)
    (tmp_path / "other.py").write_text((tmp_path / "units.py").read_text())
    with pytest.raises(
        ConfigError, match=r"other\.py:9: there is a task 'units' already, of .*/units\.py: choose"
    ):
        get_task("other.py")


def test_no_source_and_other_names_of_splits(load, tmp_path, monkeypatch):
    problems = load(GOOD, splits='("test", "validation")')
    monkeypatch.setenv("ARKJAX_DATASETS", str(tmp_path))
    (tmp_path / "conv").rename(tmp_path / "units")
    assert get_task("units").load("test", source=None) == problems
    with pytest.raises(
        ConfigError, match="no split 'dev' of units; it is called 'validation' here"
    ):
        get_task("units").load("dev")


def test_a_grader_is_asked_for_by_its_methods(tmp_path):
    class Half:
        def extract(self, text):
            return text

    with pytest.raises(ConfigError, match=r"grader Half lacks equal, accepts, grade\(\)"):
        registry.register_task(registry.Task("half", Half(), ("test",), list))
