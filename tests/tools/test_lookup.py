"""Looking things up in passages and tables, of files and of problems."""

import json
import random

import pytest

from arkjax.errors import DataError
from arkjax.tasks.problems import Problem
from arkjax.tools import lookup
from arkjax.tools.lookup import LookupOptions, LookupTool

pytestmark = pytest.mark.fast


def problem(**meta) -> Problem:
    return Problem("p", "Which?", "the gold answer", "t", "d", meta)


PASSAGES = [
    {"title": "Colorado", "text": "The High Plains rise in elevation from 1,800 to 7,000 ft."},
    "Milhouse was named after Richard Nixon.",
    {"title": "日本", "text": "東京は日本の首都です。"},
]


@pytest.fixture
def passages(tmp_path):
    path = tmp_path / "passages.jsonl"
    lines = [json.dumps(p, ensure_ascii=i == 0) for i, p in enumerate(PASSAGES)]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def test_passages_of_a_file(passages):
    tool = LookupTool(LookupOptions(passages=str(passages), top=1))
    result = tool.run("elevation of the high plains", problem())
    assert result.text == f"[1] Colorado\n{PASSAGES[0]['text']}"
    assert (result.status, dict(result.fields)) == ("ok", {"found": "1"})
    assert "Nixon" in tool.run("Milhouse", problem()).text
    assert "東京" in tool.run("日本の首都", problem()).text
    nothing = tool.run("zebra", problem())
    assert (nothing.status, nothing.fields["found"]) == ("ok", "0") and "zebra" in nothing.text


def test_a_problems_own_passages_come_first_and_its_answer_is_never_looked_at(passages):
    tool = LookupTool(LookupOptions(passages=str(passages)))
    own = problem(passages=["plains of Mars", {"title": "Venus", "text": "no plains"}])
    assert tool.run("plains", own).text == "[1] plains of Mars\n[2] Venus\nno plains"
    assert tool.run("gold answer", own).fields["found"] == "0"


def test_lines_of_a_text_file_are_passages_also_long_ones(tmp_path):
    path = tmp_path / "p.txt"
    long = "long " * 10_000
    path.write_text(f"first line\n\n{long}\r\nlast é", encoding="utf-8")
    tool = LookupTool(LookupOptions(passages=str(path), characters=10**5))
    assert tool.run("long", problem()).text == f"[1] {long.strip()}"
    assert tool.run("é", problem()).text == "[1] last é"
    short = LookupTool(LookupOptions(passages=str(path), characters=200)).run("long", problem())
    assert len(short.text) < 300 and "left out" in short.text


def test_every_passage_is_found_by_its_own_word(tmp_path):
    rng = random.Random(0)
    path = tmp_path / "p.jsonl"
    texts = [f"k{i} " + "filler " * rng.randint(0, 3000) for i in range(200)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tool = LookupTool(LookupOptions(passages=str(path), characters=10**5))
    for i in rng.sample(range(200), 40):
        assert tool.run(f"k{i}", problem()).text == f"[1] {texts[i].strip()}"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'"fine"\n{"title": "x"}\n', ":2: no passage .it has no text"),
        (b'{"text": "a"}\n{"text": \n', ":2: no passage"),
        (b'{"text": "a", "title": 3}\n', ":1: no passage .its title"),
        (b'"fine"\n"\xff"\n', ":2: no passage"),
        (b"[" * 100_000, ":1: no passage"),
        (b"\n\n", "has no passages"),
    ],
)
def test_a_damaged_file_of_passages_is_refused_with_its_line(tmp_path, content, complaint):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        LookupTool(LookupOptions(passages=str(path)))


def test_a_missing_file_is_named(tmp_path):
    for field in ("passages", "table"):
        with pytest.raises(DataError, match="nowhere"):
            LookupTool(LookupOptions(**{field: str(tmp_path / "nowhere")}))
        with pytest.raises(DataError, match="cannot read"):
            LookupTool(LookupOptions(**{field: str(tmp_path)}))


TABLE = [
    {"City": "Berlin", "Population": "3,700,000", "Note": "capital"},
    {"City": "Paris, TX", "Population": 24000, "Note": None},
    {"City": "Paris", "Population": 2100000, "Note": "capital"},
]


@pytest.mark.parametrize(
    ("query", "cities"),
    [
        ("city=berlin", ["Berlin"]),
        ("City = 'Paris'", ["Paris"]),
        ("City=Paris, TX", ["Paris, TX"]),
        ("population==3700000", ["Berlin"]),
        ("Population=24,000.0", ["Paris, TX"]),
        ("note=capital; city=paris", ["Paris"]),
        ("note=capital and city=Paris", ["Paris"]),
        ("Note=capital, Population=1", []),
        ("note=", ["Paris, TX"]),
        ("texas tx", ["Paris, TX"]),
        # Rows of equal length: the earlier one first.
        ("paris", ["Paris, TX", "Paris"]),
    ],
)
def test_rows_by_columns_and_by_words(query, cities, tmp_path):
    rows = [["City", "Population", "Note"], *[list(row.values()) for row in TABLE]]
    file = tmp_path / "t.csv"
    cells = [[str(c if c is not None else "") for c in row] for row in rows]
    file.write_text("\n".join(",".join(f'"{c}"' for c in row) for row in cells), encoding="utf-8")
    tabs = tmp_path / "t.tsv"
    tabs.write_text("\n".join("\t".join(row) for row in cells), encoding="utf-8-sig")
    for tool, own in (
        (LookupTool(), problem(table=TABLE)),
        (LookupTool(), problem(table=rows)),
        (LookupTool(LookupOptions(table=str(file))), problem()),
        (LookupTool(LookupOptions(table=str(tabs))), problem()),
    ):
        result = tool.run(query, own)
        assert result.status == "ok" and result.fields["found"] == str(len(cities)), result
        found = result.text.splitlines() if cities else []
        for line, city in zip(found, cities, strict=True):
            assert f"City: {city} |" in line


def test_numbers_written_alike_are_not_mixed_up():
    tool = LookupTool()
    own = problem(table=[["id"], ["1,2"], ["12"], ["9007199254740993"], ["012"], ["1e3"]])
    assert tool.run("id=12", own).fields["found"] == "2"  # 12 and 012
    assert tool.run("id=1,2", own).fields["found"] == "1"
    assert tool.run("id=9007199254740992", own).fields["found"] == "0"


def test_an_unknown_column_is_told_with_the_nearest():
    result = LookupTool().run("citty=Berlin", problem(table=TABLE))
    assert result.status == "error" and "'City'" in result.text and "\n" not in result.text


def test_more_rows_than_are_shown_are_counted():
    own = problem(table=[["a", "b"], *[["x", str(i)] for i in range(10)]])
    result = LookupTool(LookupOptions(top=2)).run("a=x", own)
    assert result.text == "[1] a: x | b: 0\n[2] a: x | b: 1\n(8 more)"


@pytest.mark.parametrize(
    "text", [b"a,a\n1,2\n", b"a,b\n1\n", b"", b"a,b\n\xff,1\n", b'a,b\n"1,2\n', b",b\n1,2\n"]
)
def test_what_is_no_table_is_refused(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    with pytest.raises(DataError, match="t.csv is no table"):
        LookupTool(LookupOptions(table=str(path)))


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"passages": "one text"},
        {"passages": [3]},
        {"passages": 7},
        {"passages": [{"title": "x"}]},
        {"table": "x"},
        {"table": [["a", "b"], ["1"]]},
        {"table": [3, 4]},
        {"table": [{"a": 1}, 3]},
    ],
)
def test_without_anything_to_look_at_the_result_is_an_error(meta):
    result = LookupTool().run("a", problem(**meta))
    assert result.status == "error" and result.fields["found"] == "0"


@pytest.mark.parametrize("query", ["", " \n", "=" * 2000, "a=" * 1000, "[" * 99, "x" * 10**6, "\0"])
def test_odd_queries_are_answered(query, passages):
    tool = LookupTool(LookupOptions(passages=str(passages)))
    for own in (problem(), problem(table=TABLE), problem(table=[["a(", "["], ["1", "2"]])):
        result = tool.run(query, own)
        assert result.text and len(result.text) < 3000


def test_problems_are_indexed_once_and_not_for_ever(monkeypatch):
    made = []
    real = lookup._passages
    monkeypatch.setattr(lookup, "_passages", lambda value: made.append(1) or real(value))
    tool = LookupTool()
    problems = [problem(passages=[f"word{i}"]) for i in range(lookup._KEPT + 1)]
    for i, one in enumerate(problems):
        assert f"word{i}" in tool.run(f"word{i}", one).text
        assert f"word{i}" in tool.run(f"word{i}", one).text
    assert len(made) == len(problems) and len(tool._kept) == lookup._KEPT
    assert "word0" in tool.run("word0", problems[0]).text
    assert len(made) == len(problems) + 1


def test_the_version_stands_for_options_and_content(tmp_path):
    path = tmp_path / "p.txt"

    def version(content: str, **options) -> str:
        path.write_text(content)
        return LookupTool(LookupOptions(passages=str(path), **options)).version

    first = version("one")
    assert first != version("two") != version("two and")
    assert first != version("one", top=5)
    other = tmp_path / "elsewhere.txt"
    other.write_text("one")
    assert LookupTool(LookupOptions(passages=str(other))).version == first
