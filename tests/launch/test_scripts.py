import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = "bash cat cut dirname awk df mkdir rm ls sha256sum cp touch".split()

# A Python that answers what the scripts ask, makes an "environment", and notes what pip was told.
FAKE_PYTHON = """#!/bin/bash
case "$*" in
*version_info*) echo {version} ;;
*ensurepip*) exit {venv_module} ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg" ;;
"-m pip "*) echo "$@" >>"$ARKJAX_TEST_LOG"; exit ${{ARKJAX_TEST_PIP:-0}} ;;
"-m arkjax "*) echo "ran $@" ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def world(tmp_path):
    """A PATH of the shell's own tools, a home without pyenv, and a copy of launch/."""
    return World(tmp_path)


class World:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "bin"
        self.repo = path / "a repo"
        self.venv = self.repo / ".venv"
        self.log = path / "pip.log"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        shutil.copytree(ROOT / "launch", self.repo / "launch")
        for name in ("setup.py", "pyproject.toml"):
            (self.repo / name).write_text(name)

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def add_python(self, name: str, version: str, venv_module: bool = True) -> None:
        self.add(name, FAKE_PYTHON.format(version=version, venv_module=int(not venv_module)))

    def run(self, script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess:
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.path),
            "ARKJAX_TEST_LOG": str(self.log),
        }
        return subprocess.run(
            [self.bin / "bash", self.repo / "launch" / script, *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=self.path,
            env=environment | more,
        )

    def installs(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh"])
def test_too_old_or_no_python_says_what_to_do(world, script):
    result = world.run(script)
    assert result.returncode == 2
    assert "no Python was found; ArkJAX needs Python 3.11 or newer" in result.stderr
    world.add_python("python3", "3.8")
    result = world.run(script)
    assert result.returncode == 2
    assert "python3 is Python 3.8, too old; ArkJAX needs Python 3.11" in result.stderr
    assert "set ARKJAX_PYTHON" in result.stderr
    result = world.run(script, ARKJAX_PYTHON="nowhere/python")
    assert result.returncode == 2
    assert "ARKJAX_PYTHON is nowhere/python, which does not run" in result.stderr
    assert not world.venv.exists()


def test_python_without_venv_is_passed_over_or_explained(world):
    world.add_python("python3.11", "3.11", venv_module=False)
    result = world.run("quickstart.sh")
    assert result.returncode == 2
    assert "(Python 3.11) has no venv module" in result.stderr
    assert "apt install python3-venv" in result.stderr
    world.add_python("python3.12", "3.12")
    assert "python3.12 (Python 3.12)" in world.run("quickstart.sh").stdout


def test_pyenv_versions_that_are_not_on_the_path_are_found(world):
    world.add_python("python3", "3.8")
    folder = world.path / ".pyenv" / "versions" / "3.11.7" / "bin"
    folder.mkdir(parents=True)
    (world.bin / "python3").rename(world.bin / "kept")
    world.add_python("python3.11", "3.11")
    (world.bin / "python3.11").rename(folder / "python3.11")
    (world.bin / "kept").rename(world.bin / "python3")
    assert "3.11.7/bin/python3.11 (Python 3.11)" in world.run("quickstart.sh").stdout


def test_a_full_disk_is_noticed_before_anything_is_made(world):
    world.add_python("python3.11", "3.11")
    (world.bin / "df").unlink()
    world.add("df", "#!/bin/bash\necho Filesystem\necho /dev/x 9 9 2097152 99% /\n")
    result = world.run("quickstart.sh")
    assert result.returncode == 5
    assert "only 2048 MiB free" in result.stderr and "needs 3 GiB" in result.stderr
    assert "ARKJAX_VENV" in result.stderr
    assert not world.venv.exists()


def test_quickstart_installs_once_runs_and_names_the_report(world):
    world.add_python("python3.11", "3.11")
    for _ in range(2):
        result = world.run("quickstart.sh", "--config.seeds=(0,)")
        assert result.returncode == 0, result.stderr
        assert f"ran -m arkjax run --config {world.repo}/configs/quickstart.py" in result.stdout
        assert "--config.seeds=(0,)" in result.stdout
        report = f"Report: {world.repo}/runs/quickstart/report/report.html\n"
        assert result.stdout.endswith(report)
    assert len(world.installs()) == 1
    (world.repo / "setup.py").write_text("changed")
    result = world.run("quickstart.sh", "--workdir", "elsewhere")
    assert "Installed in" in result.stdout
    assert result.stdout.endswith("Report: elsewhere/report/report.html\n")
    assert len(world.installs()) == 2


def test_a_failed_or_killed_installation_is_made_anew(world):
    world.add_python("python3.11", "3.11")
    result = world.run("quickstart.sh", ARKJAX_TEST_PIP="1")
    assert result.returncode == 1
    assert "pip could not install ArkJAX" in result.stderr and "network" in result.stderr
    (world.venv / "half").touch()
    assert "Remaking" in world.run("quickstart.sh").stdout
    assert not (world.venv / "half").exists()
    (world.venv / "bin" / "python").unlink()
    assert "Remaking" in world.run("quickstart.sh").stdout
    assert "Remaking" not in world.run("quickstart.sh").stdout


def test_foreign_folders_are_never_deleted(world):
    world.add_python("python3.11", "3.11")
    foreign = world.path / "thesis"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    result = world.run("quickstart.sh", ARKJAX_VENV=str(foreign))
    assert result.returncode == 2
    assert "not empty and not a virtual environment" in result.stderr
    assert (foreign / "thesis.tex").exists()


def test_every_script_parses():
    for script in [*(ROOT / "launch").rglob("*.sh"), ROOT / ".ci" / "run"]:
        subprocess.run(["bash", "-n", script], check=True)
        if script.name != "environment.sh":
            assert os.access(script, os.X_OK), script
            assert "set -euo pipefail" in script.read_text(), script
