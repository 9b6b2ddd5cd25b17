"""Records out of files of every kind: in order, with their places, and errors that name both."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import DataError
from arkjax.tasks.benchmarks import files

pytestmark = pytest.mark.fast

ROWS = [{"a": 'x, "y"\n', "b": [1, 2.5, None]}, {"a": "ü 𝒳 \u2028", "b": []}]


def values(path, **settings):
    return [value for _, value in files.read(path, **settings)]


def write(path, data):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl", "\ufeff\n" + LINES.replace("\n", "\r\n\n")),
        ("a.json", LINES),
        ("a.json", json.dumps(ROWS)),
        (
            "a.json",
            "\ufeff [\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS) + "]",
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_json_in_all_its_forms(tmp_path, name, data, packed):
    data = data.encode()
    path = write(
        tmp_path / (name + ".gz" * packed), gzip.compress(data, mtime=0) if packed else data
    )
    assert values(path) == ROWS


def test_places_are_lines_records_and_rows(tmp_path):
    lines = write(tmp_path / "a.jsonl", '{"a": 1}\n\n{"a": 2}\n')
    assert [place for place, _ in files.read(lines)] == ["line 1", "line 3"]
    array = write(tmp_path / "a.json", '[{"a": 1}, {"a": 2}]')
    assert [place for place, _ in files.read(array)] == ["record 1", "record 2"]
    table = write(tmp_path / "a.csv", 'a,b\n1,"x\ny"\n2,"z, ""w"""\n')
    assert list(files.read(table)) == [
        ("line 3", {"a": "1", "b": "x\ny"}),
        ("line 4", {"a": "2", "b": 'z, "w"'}),
    ]
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert list(files.read(tmp_path / "a.parquet")) == [("row 1", ROWS[0]), ("row 2", ROWS[1])]


def test_one_object_is_one_record_or_many_by_their_keys(tmp_path):
    one = write(tmp_path / "1.json", json.dumps({"a": {"b": 1}}, indent=1))
    assert values(one) == [{"a": {"b": 1}}]
    assert list(files.read(one, keyed=True)) == [("record 'a'", {"_key": "a", "b": 1})]
    assert values(write(tmp_path / "2.json", '{"a": 1}')) == [{"a": 1}]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=3),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=30),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=5,
            ),
            max_size=3,
        ),
        max_size=6,
    ),
    st.integers(1, 12),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_arrays_are_read_alike_whatever_the_pieces(
    tmp_path_factory, rows, piece, indent, ascii_only
):
    path = tmp_path_factory.mktemp("arrays") / "a.json"
    write(path, json.dumps(rows, indent=indent, ensure_ascii=ascii_only))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_PIECE", piece)
        # The file's kind is told from its first piece.
        assert [value for _, value in files._array(path, open(path, "rb"))] == rows


def test_the_first_records_of_a_large_array_are_read_alone(tmp_path):
    path = tmp_path / "a.json"
    # Broken at its end, which nobody gets to.
    write(path, "[" + ", ".join(json.dumps({"n": n}) for n in range(300_000)) + ", {broken")
    stream = files.read(path)
    assert [next(stream)[1]["n"] for _ in range(50)] == list(range(50))
    with pytest.raises(DataError, match=r"a\.json, record 300001: no valid JSON"):
        list(stream)


def test_parquet_is_read_in_pieces(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": range(5000)}), path, row_group_size=500)
    stream = files.read(path)
    assert [next(stream)[1]["n"] for _ in range(3)] == [0, 1, 2]
    assert [value["n"] for _, value in stream] == list(range(3, 5000))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"a\.jsonl, line 2: no valid JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"line 2: expected a JSON object, found list"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"line 2: not UTF-8"),
        ("a.jsonl", "[" * 200_000, r"line 1: no valid JSON \(RecursionError"),
        ("a.json", "", r"its whole: no valid JSON"),
        ("a.json", '[{"a": 1} {"a": 2}]', r"record 2: no valid JSON \(expected ','"),
        ("a.json", '[{"a": 1},', r"record 2: no valid JSON"),
        ("a.json", '[{"a": 1}', r"record 2: no valid JSON \(it ends early"),
        ("a.json", '[{"a": 1}, 5]', r"record 2: expected a JSON object, found int"),
        ("a.json", b'[{"a": "\xff"}]', r"a\.json: not UTF-8"),
        ("a.csv", "a,b\n1,2\n3\n", r"line 3: expected 2 cells \(a, b\)"),
        ("a.csv", "a,b\n1,2,3\n", r"line 2: expected 2 cells"),
        ("a.csv", 'a,b\n"1" x,2\n', r"line 2: no valid CSV"),
        ("a.parquet", b"PAR1 and no more", r"a\.parquet is no whole Parquet file"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], r"a\.jsonl\.gz is damaged"),
        ("a.txt", "x", r"a\.txt is no data file: expected one of \.parquet"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, name, data, said):
    with pytest.raises(DataError, match=said):
        values(write(tmp_path / name, data))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(DataError, match="does not exist"):
        values(tmp_path / name)
