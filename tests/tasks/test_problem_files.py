"""Files of problems: what is written is read again, and damage is named."""

import pytest

from arkjax.errors import DataError
from arkjax.tasks.embedded_sets import EMBEDDED_SETS
from arkjax.tasks.problem_files import load_problems, save_problems

pytestmark = pytest.mark.fast

PROBLEMS = EMBEDDED_SETS.load("train", 100)


def test_problems_survive_the_file(tmp_path):
    path = tmp_path / "problems.jsonl"
    save_problems(path, PROBLEMS)
    assert load_problems(path) == PROBLEMS


GOOD = '{"id": "a", "question": "q", "answer": "1", "task": "t", "domain": "d", "meta": {}}\n'


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"", "holds no problems"),
        (GOOD.encode() + b"{", "line 2: not a problem"),
        (GOOD.encode() + b"[1, 2]\n", "line 2: not a problem"),
        (GOOD.encode() + b"\n", "line 2: not a problem"),
        (GOOD.replace('"answer": "1", ', "").encode(), "line 1: not a problem .*answer"),
        (GOOD.replace('"1"', "1").encode(), "line 1: not a problem .*answer is not a string"),
        (GOOD.replace("{}", "3").encode(), "line 1: not a problem .*meta is not an object"),
        (GOOD.replace('"id"', '"name"').encode(), "line 1: not a problem .*name"),
        (b"\xff\xfe\x00", "cannot read problems"),
    ],
)
def test_damaged_files_name_file_and_line(tmp_path, content, where):
    path = tmp_path / "problems.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"problems.jsonl.*{where}|{where}.*problems.jsonl") as info:
        load_problems(path)
    assert "\n" not in str(info.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere.jsonl"):
        load_problems(tmp_path / "nowhere.jsonl")
