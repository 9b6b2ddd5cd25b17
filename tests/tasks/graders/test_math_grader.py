r"""Which answers are the same; golds of real problem sets; comparisons that are stopped."""

import json
import os
import random
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.tasks.graders import MathGrader, symbolic
from arkjax.tasks.graders.final_answer import read_answer
from arkjax.tasks.problems import Problem

GRADER = MathGrader()
# Takes as long as it is given.
ENDLESS = r"(a+b+c+d+e+f)^{300}"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1234", "1,234"),
        ("1200", "$1,200.00"),
        ("0.75", r"\frac{3}{4}"),
        ("3/2", "1 1/2"),
        ("50", "50%"),
        (r"50\%", "50"),
        ("18", "18 dollars"),
        ("18", "€18,00"),
        ("1500", "$1.5k"),
        ("5000", "5k"),
        ("-3000000", "-3M"),
        ("5k", "5 k"),
        ("5", "x = 5"),
        ("120000", "1.2e5"),
        (r"\text{Tuesday}", "tuesday"),
        (r"\text{(C)}", "C"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"\dfrac{\sqrt{3}}{2}", r"\frac{\sqrt{3}}{2}"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        ("x^2+2x+1", "(x+1)^2"),
        (r"\{1,2\}", r"\{2,1\}"),
        (r"[0,1)\cup(2,3]", r"[0, 1) \cup (2, 3]"),
        (r"\frac{\pi}{2}", "π/2"),
        (r"\frac{\pi}{2}", "pi/2"),
        (r"\sqrt{5}", "√5"),
        ("100000", "10^5"),
        ("3+4i", "4i + 3"),
        ("y=2x+1", "y = 1 + 2x"),
        (
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
            r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        ),
    ],
)
def test_the_same_answer(a, b, problem):
    assert GRADER.equal(a, b) and GRADER.equal(b, a)
    assert GRADER.accepts(problem(a), b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1234", "234"),
        ("-3.5", "3.5"),
        ("-3.5", "5"),
        (r"\frac{3}{4}", "4"),
        ("1/3", "0.333333"),
        ("0.5", "50%"),
        ("3/4", "4/3"),
        ("18", "18.0001"),
        ("18", "180"),
        ("1e999999999", "1"),
        ("18", "x"),
        ("18", "18.00.00"),
        ("18", "18,00"),
        ("5", "5k"),
        ("", ""),
        ("18", ""),
        (r"\text{Tuesday}", "Wednesday"),
        ("Tuesday", "18"),
        ("(1,2)", "(2,1)"),
        ("[0,1)", "[0,1]"),
        (r"2\sqrt{2}", r"\sqrt{2}"),
        ("x^2+1", "x^2+2"),
        (r"\{1,2\}", r"\{1,3\}"),
        (r"\frac{1}{0}", "0"),
        (
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
            r"\begin{pmatrix}1&2\\3&5\end{pmatrix}",
        ),
    ],
)
def test_another_answer(a, b, problem):
    assert not GRADER.equal(a, b) and not GRADER.equal(b, a)
    assert not GRADER.accepts(problem(a), b)


def test_a_grade_says_what_was_read_and_why(problem):
    grade = GRADER.grade(problem("18"), "So it is $18.")
    assert (grade.correct, grade.extracted) == (True, "18")
    assert grade.reason == "matches; read the last number"
    grade = GRADER.grade(problem("18"), "#### 1,234")
    assert (grade.correct, grade.extracted) == (False, "1234")
    assert grade.reason == "expected 18; read behind '####'"
    grade = GRADER.grade(problem("18"), "The answer is")
    assert (grade.correct, grade.extracted) == (False, None)
    assert grade.reason == "nothing to read behind 'answer is'"


def test_a_gold_answer_may_be_a_whole_solution(problem):
    assert GRADER.grade(problem("It is <<9*2=18>>18.\n#### 18"), "\\boxed{18}").correct
    assert GRADER.accepts(problem(r"so $\boxed{\frac12}$"), "0.5")


# --- comparisons that are stopped -----------------------------------------------------------------


def test_an_endless_comparison_is_killed_and_the_next_one_works(problem):
    grader = MathGrader(seconds=0.3)
    assert grader.accepts(problem(r"\sqrt{8}"), r"2\sqrt{2}")
    process = symbolic._WORKER._process
    grade = grader.grade(problem(r"\sqrt{2}"), rf"\boxed{{{ENDLESS}}}")
    assert not grade.correct and grade.extracted == ENDLESS
    assert "more than 0.3 s" in grade.reason
    assert process.returncode is not None and process.returncode < 0
    assert grader.accepts(problem(r"\sqrt{18}"), r"3\sqrt{2}")
    assert symbolic._WORKER._process.pid != process.pid


def test_a_process_that_somebody_ended_is_started_anew(problem):
    assert GRADER.accepts(problem(r"\sqrt{8}"), r"2\sqrt{2}")
    process = symbolic._WORKER._process
    process.kill()
    process.wait()
    assert GRADER.accepts(problem(r"\sqrt{27}"), r"3\sqrt{3}")


def test_memory_is_limited():
    assert symbolic.compare(r"\sqrt{50}", r"5\sqrt{2}").equal
    limits = f"/proc/{symbolic._WORKER._process.pid}/limits"
    if not os.path.exists(limits):
        pytest.skip("the system does not tell the limits of a process")
    with open(limits) as lines:
        granted = next(line.split()[3] for line in lines if line.startswith("Max address space"))
    assert int(granted) <= symbolic.MEMORY


def test_threads_share_the_process():
    pairs = [
        (rf"\sqrt{{{n * n * 2}}}", rf"{n + n % 2}\sqrt{{2}}", n % 2 == 0) for n in range(2, 40)
    ]
    found = {}

    def work(part):
        for a, b, _ in pairs[part::4]:
            found[a] = symbolic.compare(a, b).equal

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {a: equal for a, _, equal in pairs}


def test_votes_over_the_same_answers_are_compared_once(monkeypatch):
    symbolic.compare.cache_clear()
    asked = []
    worker = symbolic._WORKER
    ask = worker.ask

    def counted(request, seconds):
        asked.append(request)
        return ask(request, seconds)

    monkeypatch.setattr(worker, "ask", counted)
    for _ in range(50):
        assert GRADER.equal(r"\sqrt{12}", r"2\sqrt{3}")
    assert len(asked) == 1


def test_the_process_ends_with_its_parent():
    code = (
        "from arkjax.tasks.graders import symbolic\n"
        "assert symbolic.compare(r'\\sqrt{8}', r'2\\sqrt{2}').equal\n"
        "print(symbolic._WORKER._process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@pytest.mark.slow
def test_heavy_expressions_are_wrong_and_harmless(heavy, problem):
    grader = MathGrader(seconds=0.3)
    grade = grader.grade(problem(r"\frac{\sqrt{3}}{2}"), heavy)
    assert not grade.correct and grade.extracted and grade.reason
    assert grader.extract(heavy) == grade.extracted


def test_nasty_texts_are_wrong_and_harmless(nasty, problem):
    gold = problem("-271828")
    grade = GRADER.grade(gold, nasty)
    assert not grade.correct and grade.reason and len(grade.reason) < 2000
    assert grade.extracted is None or len(grade.extracted) <= symbolic.LONGEST
    assert GRADER.extract(nasty) == grade.extracted
    assert not GRADER.accepts(gold, nasty)


# Pieces of which answers are made, so that any order of them occurs.
PIECES = [
    "18", "1,234", "-", ".", "5", "/", "%", "$", "#### ", r"\boxed{", "}", "{", r"\frac", "\n", " ",
    "The answer is ", "Answer:", "A:", "Q:", "<<", ">>", "=", "x", "(", ")", r"\text{", "*", "^",
    "½", "\u2212", "\u202f", "٣", "\ud800", "\x00", r"\(", r"\)", r"\[", "because", "dollars",
    "e9", "million",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text())
def test_any_text_is_read_in_one_way(text):
    reading = read_answer(text)
    assert reading == read_answer(text)
    assert reading.answer is None or 0 < len(reading.answer) <= symbolic.LONGEST


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text())
def test_any_text_is_graded_within_the_limits(text):
    grade = MathGrader(seconds=1.0).grade(Problem("p", "q", "271828", "t", "d"), text)
    assert grade.extracted == read_answer(text).answer
    assert not grade.correct and grade.reason


@settings(max_examples=300, deadline=None)
@given(
    st.fractions(max_denominator=1000),
    st.sampled_from(["{}", "#### {}", "The answer is {}.", r"\boxed{{{}}}", "it is {} dollars"]),
)
def test_every_fraction_equals_itself_and_no_other(value, form):
    problem = Problem("p", "q", str(value), "t", "d")
    assert GRADER.grade(problem, form.format(value)).correct
    for other in (value + 1, value * 10, -value):
        assert GRADER.grade(problem, form.format(other)).correct == (other == value)


# --- real problem sets ----------------------------------------------------------------------------

FORMS = [
    "{}",
    "#### {}",
    r"So it is \boxed{{{}}}.",
    "The answer is {}.",
    "After 3 days and 5 nights she pays ${} in total.",
    "**Answer:** {} dollars",
    "A: {}",
    "Final answer: ${}$",
    "The answer is 7 * 1 + 2 = {} kg",
    r"\[\boxed{{\text{{{}}}}}\]",
    "#### {}\n\nQuestion: Tom has 4 and gets 73.\n#### 77",
    "<answer>{}</answer>",
]


@pytest.mark.slow
def test_every_gold_of_gsm8k_is_read_and_equals_itself_alone(datasets, problem):
    count = 0
    for split in ("train", "test"):
        for line in (datasets / "gsm8k" / f"{split}.jsonl").read_text("utf-8").splitlines():
            solution = json.loads(line)["answer"]
            gold = solution.rpartition("#### ")[2]
            number = int(gold.replace(",", ""))
            posed = problem(gold)
            # As published, with annotations.
            assert read_answer(solution) == read_answer(f"#### {number}")
            # Two forms for each, with and without separators; all of them take a while.
            for form in (FORMS[count % 12], FORMS[(count + 5) % 12]):
                for written in (gold, f"{number:,}", f"{number}.00"):
                    grade = GRADER.grade(posed, form.format(written))
                    assert grade.correct and grade.extracted == str(number), (form, written, grade)
            truncated = int(number / 10)
            for other in {number + 1, number * 10, -number, truncated} - {number}:
                assert not GRADER.accepts(posed, str(other)), (gold, other)
            count += 1
    assert count == 8792


@pytest.mark.slow
def test_every_gold_of_gsm8k_equals_itself_in_every_form(datasets, problem):
    for split in ("train", "test"):
        for line in (datasets / "gsm8k" / f"{split}.jsonl").read_text("utf-8").splitlines():
            gold = json.loads(line)["answer"].rpartition("#### ")[2]
            posed = problem(gold)
            for form in FORMS:
                grade = GRADER.grade(posed, form.format(gold))
                assert grade.correct, (form, gold, grade)


@pytest.mark.slow
def test_golds_of_svamp_are_right_and_shuffled_ones_only_where_they_coincide(datasets, problem):
    records = json.loads((datasets / "svamp" / "SVAMP.json").read_text("utf-8"))
    golds = [str(record["Answer"]) for record in records]
    assert len(golds) == 1000 and golds[1].endswith(".0")
    for gold in golds:
        for form in FORMS:
            for written in (gold, gold.removesuffix(".0")):
                assert GRADER.grade(problem(gold), form.format(written)).correct, (form, written)
    shuffled = random.Random(0).sample(golds, len(golds))
    accepted = [
        (i, gold, other)
        for i, (gold, other) in enumerate(zip(golds, shuffled, strict=True))
        if GRADER.grade(problem(gold), f"The answer is {other}").correct
    ]
    # A coincidence is the same number in both places.
    assert [i for i, *_ in accepted] == [
        i for i in range(len(golds)) if float(golds[i]) == float(shuffled[i])
    ]
    assert all(gold == other for _, gold, other in accepted)
