"""Who contributed what, written and read again."""

import pytest

from arkjax.errors import DataError
from arkjax.trajectories.attribution import AgentCredit, Attribution, MessageCredit

pytestmark = pytest.mark.fast


def some():
    return Attribution.of(
        [
            MessageCredit("c1", "p1", "a", 0, 1.5, 0.0, True, False, 0.25, 3),
            MessageCredit("c2", "p1", "b", 1, 0.0, 1.0, False, True),
        ],
        [AgentCredit("p1", "a", 1.5, 0.0, True, False, 0.25, -0.5, 0.1)],
    )


def test_what_is_written_is_read(tmp_path):
    for credit in (some(), Attribution.of([], [])):
        credit.save(tmp_path / "x")
        assert Attribution.load(tmp_path / "x") == credit


def test_a_damaged_file_is_named(tmp_path):
    some().save(tmp_path)
    (tmp_path / "agents.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"agents\.parquet cannot be read"):
        Attribution.load(tmp_path)
