"""Every data set as published: small files of our own in its format, copies of the Hub's form."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arkjax.errors import DataError
from arkjax.tasks.benchmarks import files
from arkjax.tasks.benchmarks.mathematics import last_boxed
from arkjax.tasks.benchmarks.table import BENCHMARKS
from arkjax.tasks.registry import get_task

pytestmark = pytest.mark.fast

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setenv("ARKJAX_DATASETS", str(FIXTURES))


def load(task, split, **options):
    return get_task(task).load(split, **options)


AVAILABLE = [
    ("gsm8k", "train", ["36", "6,000"]),
    ("gsm8k", "test", ["5", "-7", "2"]),
    ("math", "train", ["3"]),
    ("math", "test", [r"\frac{1}{2}", r"\left\{-2,2\right\}", r"$90^\circ$"]),
    ("math_500", "test", [r"\frac14", "4"]),
    ("metamath_qa", "train", ["12", r"\frac{1}{2}"]),
    ("svamp", "test", ["5", "3.5"]),
    ("aqua", "validation", ["A"]),
    ("aqua", "test", ["C", "E", "A"]),
    ("medmcqa", "train", ["C", "D"]),
    ("medmcqa", "validation", ["B", "B"]),
    ("hotpotqa", "validation", ["no", "the Ilse"]),
    (
        "qasper",
        "validation",
        ["Foo, Bar corpus", "No", "Unanswerable", "They look like an X."],
    ),
    (
        "qmsum",
        "validation",
        ["They wait.", "They chose a colour, yellow.", "Marketing proposed yellow."],
    ),
    ("truthfulqa", "validation", ["No, goats nibble at labels", "Nothing falls"]),
]


@pytest.mark.parametrize(("task", "split", "golds"), AVAILABLE)
def test_golds_ids_and_meta(task, split, golds):
    problems = load(task, split)
    assert [p.answer for p in problems] == golds
    assert len({p.id for p in problems}) == len(problems)
    for problem in problems:
        assert problem.id.startswith(f"{task}-{split}-000") and problem.task == task
        assert problem.domain and problem.question == problem.question.strip()
        assert json.loads(json.dumps(problem.meta)) == problem.meta


@pytest.mark.parametrize(("task", "split", "golds"), AVAILABLE)
def test_golds_are_graded_right_where_they_stand_as_asked(task, split, golds):
    benchmark = BENCHMARKS[task]
    for problem in load(task, split):
        said = f"Answer: {problem.answer}"
        if "boxed" in benchmark.instruction:
            said = f"So it is \\boxed{{{problem.answer}}}."
        elif "sentence" in benchmark.instruction:
            said = problem.answer
        grade = benchmark.grader.grade(problem, said)
        assert grade.correct, (problem.id, grade)
        assert not benchmark.grader.grade(problem, "Answer: zebra crossing").correct


def test_questions_end_with_how_to_answer_unless_told_otherwise():
    told, bare = load("gsm8k", "test")[0], load("gsm8k", "test", instruct=False)[0]
    assert bare.question == "Olu owes 9 coins and pays 4. How many does he still owe?"
    assert told.question.startswith(bare.question) and told.question.endswith("\\boxed{answer}.")
    assert told.id == bare.id


def test_gsm8k_counts_calculations_and_leaves_their_marks_out():
    problem = load("gsm8k", "test")[2]
    assert problem.meta["difficulty"] == 3
    assert problem.meta["solution"].endswith("Both take 1 + 1 = 2 hours.")


def test_math_takes_the_last_box_and_the_files_in_their_order():
    problems = load("math", "test")
    assert [p.domain for p in problems] == ["Algebra", "Algebra", "Geometry"]
    assert [p.meta["difficulty"] for p in problems] == [2, 5, "?"]
    assert problems[1].question.startswith("Which set solves")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\boxed{a} and \boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 5$.", "5"),
        (r"\boxed{ 3 }", "3"),
        (r"\boxed{", None),
        (r"\boxed", None),
        (r"\boxed{}", None),
        ("no box", None),
    ],
)
def test_last_boxed(text, found):
    assert last_boxed(text) == found


def test_options_are_listed_without_their_published_letters():
    problems = load("aqua", "test", instruct=False)
    assert problems[0].question.endswith("?\n\nA) 4\nB) 5\nC) 6\nD) a dozen\nE) 8")
    assert problems[1].meta["options"] == ["√3", "-3, 3", "9", "A) is right", "3"]
    assert problems[2].meta["options"][:2] == ["a)/2", "(B)"]


def test_medmcqa_counts_from_one_in_the_authors_files_and_from_none_in_the_hubs(tmp_path):
    rows = [value for _, value in files.read(FIXTURES / "medmcqa/train.json")]
    copies = [{**row, "cop": row["cop"] - 1} for row in rows]
    pq.write_table(pa.Table.from_pylist(copies), tmp_path / "train-00000-of-00001.parquet")
    authors, hubs = load("medmcqa", "train"), load("medmcqa", "train", source=str(tmp_path))
    assert [p.answer for p in hubs] == [p.answer for p in authors] == ["C", "D"]
    # Neither 0 nor 4: by its format the file counts from 1; with a 0, it counts from 0.
    lines = tmp_path / "train.jsonl"
    lines.write_text("".join(json.dumps({**rows[0], "cop": cop}) + "\n" for cop in (0, 2, 3)))
    found = load("medmcqa", "train", source=str(lines))
    assert [p.answer for p in found] == ["A", "C", "D"]
    lines.write_text("".join(json.dumps({**rows[0], "cop": cop}) + "\n" for cop in (0, 4)))
    with pytest.raises(DataError, match=r"line 1, field 'cop': 0 and 4 in one file"):
        load("medmcqa", "train", source=str(lines))


def test_hotpotqa_reads_pairs_as_well_as_lists(tmp_path):
    authors = load("hotpotqa", "validation")
    assert authors[0].question.startswith(
        "Alpha tower\nThe Alpha tower stands in Ost. It is 90 m high.\n\nBeta tower\n"
    )
    assert authors[0].domain == "comparison" and authors[0].meta["difficulty"] == "hard"
    rows = []
    for _, row in files.read(FIXTURES / "hotpotqa/hotpot_dev_distractor_v1.json"):
        titles, sentences = zip(*row["context"], strict=True)
        facts, numbers = zip(*row["supporting_facts"], strict=True)
        row["context"] = {"title": list(titles), "sentences": list(sentences)}
        row["supporting_facts"] = {"title": list(facts), "sent_id": list(numbers)}
        rows.append({"id": row.pop("_id"), **row})
    (tmp_path / "distractor").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "distractor/validation-0.parquet")
    assert load("hotpotqa", "validation", source=str(tmp_path)) == authors


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_qasper_reads_papers_of_lists_as_well(tmp_path):
    authors = load("qasper", "validation")
    first = authors[0]
    assert first.id == "qasper-validation-00000-0" and authors[3].id == "qasper-validation-00001-0"
    assert first.question.startswith("Counting Words\n\nWe count words.\n\nIntroduction\nWords")
    assert "It has 12 % noise.\n\nQuestion: Which corpora do they use?" in first.question
    assert first.meta["answers"] == ["Foo, Bar corpus", "Two corpora, Foo and Bar."]
    assert [p.domain for p in authors] == ["extractive", "boolean", "none", "abstractive"]
    rows = []
    for key, paper in json.loads((FIXTURES / "qasper/qasper-dev-v0.3.json").read_text()).items():
        asked = [{**qa, "answers": columns(qa["answers"])} for qa in paper["qas"]]
        rows.append(
            {
                "id": key,
                "title": paper["title"],
                "abstract": paper["abstract"],
                "full_text": columns(paper["full_text"]),
                "qas": columns(asked),
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "validation.parquet")
    assert load("qasper", "validation", source=str(tmp_path)) == authors


def test_qmsum_asks_all_queries_over_the_whole_meeting():
    problems = load("qmsum", "validation")
    assert [p.domain for p in problems] == ["academic", "product", "product"]
    assert [p.meta["part"] for p in problems] == ["specific", "general", "specific"]
    assert problems[0].meta["spans"] == [[0, 0], [1, 1]]
    assert problems[1].question.startswith("Project Manager: Good morning . {vocalsound} We need")


def test_truthfulqa_in_csv_and_in_parquet(tmp_path):
    authors = load("truthfulqa", "validation")
    assert authors[0].question.startswith('Do goats eat tins, or "cans"?')
    assert authors[1].meta["incorrect_answers"] == ["Rain", "Snow", "Hail"]
    rows = [
        {
            "type": p.meta["type"],
            "category": p.domain,
            "question": load("truthfulqa", "validation", instruct=False)[i].question,
            "best_answer": p.answer,
            "correct_answers": p.meta["correct_answers"],
            "incorrect_answers": p.meta["incorrect_answers"],
            "source": "",
        }
        for i, p in enumerate(authors)
    ]
    (tmp_path / "generation").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "generation/validation-0.parquet")
    assert load("truthfulqa", "validation", source=str(tmp_path)) == authors


def test_choices_of_truthfulqa_are_shuffled_and_keep_their_targets(tmp_path):
    authors = load("truthfulqa_mc", "validation")
    first = authors[0]
    right = first.meta["options"]["ABC".index(first.answer)]
    assert right == "No, they nibble at labels."
    assert first.meta["stem"] == "Do goats eat tins?" and right not in first.meta["stem"]
    assert first.meta["mc1"]["labels"] == [1, 0, 0]
    assert first.meta["mc2"]["labels"] == [1, 1, 0, 0]
    # Were the right choice always A, a model that says A would be perfect.
    drawn = tmp_path / "mc_task.json"
    asked = [f"Question {n}?" for n in range(40)]
    targets = {"right": 1, "wrong": 0, "also wrong": 0}
    drawn.write_text(
        json.dumps([{"question": q, "mc1_targets": targets, "mc2_targets": targets} for q in asked])
    )
    letters = [p.answer for p in load("truthfulqa_mc", "validation", source=str(drawn))]
    assert {letters.count(letter) > 5 for letter in "ABC"} == {True}
    rows = [
        {
            "question": p.meta["stem"],
            **{f"{name}_targets": p.meta[name] for name in ("mc1", "mc2")},
        }
        for p in authors
    ]
    (tmp_path / "multiple_choice").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "multiple_choice/validation-0.parquet")
    copies = load("truthfulqa_mc", "validation", source=str(tmp_path))
    assert copies == authors


def changed(task, name, **fields):
    """The first record of a fixture with other fields; None takes one away."""
    record = dict(next(files.read(FIXTURES / task / name, keyed=task == "qasper"))[1])
    for field, value in fields.items():
        record[field] = value
        if value is None:
            del record[field]
    return record


@pytest.mark.parametrize(
    ("task", "split", "name", "fields", "said"),
    [
        ("gsm8k", "test", "test.jsonl", {"answer": "36"}, "'answer': expected a solution that end"),
        ("gsm8k", "test", "test.jsonl", {"answer": None}, r"'answer': it is missing \(there are q"),
        ("gsm8k", "test", "test.jsonl", {"question": " "}, "'question': it is empty"),
        ("gsm8k", "test", "test.jsonl", {"question": 7}, "'question': expected text, found int"),
        ("math_500", "test", "test.jsonl", {"level": None}, "'level': it is missing"),
        ("metamath_qa", "train", "MetaMathQA-395K.json", {"response": "12"}, "The answer is: ANS"),
        ("svamp", "test", "SVAMP.json", {"Answer": "many"}, "'Answer': expected a number"),
        ("svamp", "test", "SVAMP.json", {"Answer": float("nan")}, "'Answer': expected a number"),
        ("aqua", "test", "test.json", {"correct": "F"}, "'correct': 'F' is the letter of no opti"),
        ("aqua", "test", "test.json", {"options": "A)1"}, "'options': expected a list, found str"),
        ("medmcqa", "train", "train.json", {"cop": 7}, "'cop': '7' is none of 1 to 4"),
        ("medmcqa", "train", "train.json", {"cop": "a"}, "'cop': 'a' is none of"),
        ("medmcqa", "train", "train.json", {"opc": None}, "'opc': it is missing"),
        ("hotpotqa", "validation", "hotpot_dev_distractor_v1.json", {"context": [["a"]]}, "pairs"),
        ("hotpotqa", "validation", "hotpot_dev_distractor_v1.json",
         {"context": {"title": ["a"], "sentences": []}}, "1 of 'title' and 0 of 'sentences'"),
        ("qmsum", "validation", "Product/jsonl/val.jsonl",
         {"specific_query_list": [{"query": "q", "answer": "a", "relevant_text_span": ["x"]}]},
         r"record 1, specific_query_list\[0\], field 'relevant_text_span': expected pairs"),
        ("qmsum", "validation", "Product/jsonl/val.jsonl",
         {"meeting_transcripts": [{"content": "x"}]},
         r"meeting_transcripts\[0\], field 'speaker': it is missing"),
        ("truthfulqa", "validation", "TruthfulQA.csv", {"Correct Answers": ";"}, "it is empty"),
        ("truthfulqa_mc", "validation", "mc_task.json", {"mc1_targets": {"a": 1, "b": 2}}, "label"),
        ("truthfulqa_mc", "validation", "mc_task.json",
         {"mc1_targets": {"a": 1, "b": 1, "c": 0}}, "2 choices are right"),
    ],
)  # fmt: skip
def test_records_that_are_not_as_published_are_refused(tmp_path, task, split, name, fields, said):
    folder = {"truthfulqa_mc": "truthfulqa"}.get(task, task)
    path = tmp_path / "data.json"
    path.write_text(json.dumps([changed(folder, name, **fields)]))
    with pytest.raises(DataError, match=said) as error:
        load(task, split, source=str(path))
    message = str(error.value)
    assert message.startswith(f"{path}, record 1") and "mend the record" in message
    assert "\n" not in message


@pytest.mark.parametrize("answers", [[], [{"answer": {"unanswerable": False}}], [{}]])
def test_questions_on_papers_need_answers(tmp_path, answers):
    paper = changed("qasper", "qasper-dev-v0.3.json")
    paper["qas"] = [{"question": "q", "question_id": "1", "answers": answers}]
    path = tmp_path / "papers.json"
    path.write_text(json.dumps({paper.pop("_key"): paper}))
    with pytest.raises(DataError, match=r"record '1111\.00001', qas\[0\].*answer"):
        load("qasper", "validation", source=str(path))
