"""The files under data/: whole, described, and what their scripts make."""

import hashlib
import re
import subprocess
import sys

import pytest

from arkjax.shipped import shipped_path
from arkjax.tasks import embedded_world, search_world

pytestmark = pytest.mark.fast

DATA = shipped_path("data")
WORLDS = (embedded_world.NAME, search_world.NAME)
ROW = re.compile(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", re.MULTILINE)
LISTED = dict(ROW.findall((DATA / "README.md").read_text(encoding="utf-8")))
FILES = sorted(
    path.relative_to(DATA).as_posix()
    for path in DATA.rglob("*")
    if path.is_file() and path.suffix not in {".py", ".pyc"} and path.name != "README.md"
)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_readme_lists_every_file():
    assert sorted(LISTED) == FILES


@pytest.mark.parametrize("name", FILES)
def test_checksums_are_those_of_the_files(name):
    assert LISTED[name] == sha256(DATA / name), f"{name} has changed: so must data/README.md"


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("script", ["make_problem_sets.py", "train_tokenizer.py"])
def test_scripts_make_the_shipped_files_again(script, name, tmp_path):
    world = DATA / name
    subprocess.run([sys.executable, world / script, tmp_path], check=True, capture_output=True)
    made = sorted(tmp_path.iterdir())
    assert made
    for path in made:
        same = path.read_bytes() == (world / path.name).read_bytes()
        assert same, f"data/{name}/{path.name} is not what {script} makes: run it again"


def test_files_are_small():
    assert all((DATA / name).stat().st_size < 300_000 for name in FILES)
