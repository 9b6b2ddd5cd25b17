"""The table in a Markdown file: filled, idempotent, checked."""

import importlib.util
import json
from pathlib import Path

import pytest

from arkjax.config import build as build_config
from arkjax.config import load
from arkjax.run_config import RunConfig

from .test_report import build, outcomes

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "readme_table.py"
# By their blocks in the README: reports beside the config that made them.
STUDIES = {
    "study": "embedded_study.report.json",
    "search": "embedded_study_search.report.json",
}
TEXT = (
    "# Title\n\n<!-- results:begin -->\nstale\n<!-- results:end -->\n\n"
    "<!-- big:begin -->\n<!-- big:end -->\nend\n"
)


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("readme_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def files(tmp_path):
    report = build(outcomes(), command="arkjax run --config quickstart")
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "README.md").write_text(TEXT)
    return [str(tmp_path / "report.json"), str(tmp_path / "README.md")]


def test_fills_once_and_then_changes_nothing(main, files):
    readme = Path(files[1])
    assert main([*files, "--check"]) == 1
    assert readme.read_text() == TEXT
    assert main(files) == 0
    first = readme.read_text()
    assert "stale" not in first and "| team |" in first and first.endswith("end\n")
    assert "`arkjax run --config quickstart`" in first and "config `c0ffeec0ffee`" in first
    assert main(files) == 0 and readme.read_text() == first
    assert main([*files, "--check"]) == 0


def test_another_block_leaves_the_first_alone(main, files):
    assert main([*files, "--block", "big"]) == 0
    text = Path(files[1]).read_text()
    assert "\nstale\n" in text and text.index("| team |") > text.index("<!-- big:begin -->")


def test_missing_markers_and_foreign_reports_are_errors(main, files, capsys):
    assert main([*files, "--block", "none"]) == 3
    assert "none:begin" in capsys.readouterr().err
    Path(files[0]).write_text("{}")
    assert main(files) == 3
    assert "not a report" in capsys.readouterr().err
    assert main([files[0] + "x", files[1]]) == 3


@pytest.mark.parametrize("block, report", STUDIES.items())
def test_the_readme_shows_the_studies_that_are_kept(main, block, report):
    file = ROOT / "configs" / "sweeps" / report
    assert main([str(file), str(ROOT / "README.md"), "--block", block, "--check"]) == 0
    kept = json.loads(file.read_text())
    assert kept["seeds"] == [0, 1, 2] and not kept["missing"] and not kept["oracle"]
    assert build_config(RunConfig, load(kept["command"].split()[3])).seeds == (0, 1, 2)
