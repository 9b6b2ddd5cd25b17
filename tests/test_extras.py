"""What installs an optional part, from a checkout and for an installed package."""

from pathlib import Path

import pytest

from arkjax import doctor, extras, shipped

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[1]


def test_a_checkout_is_installed_from_wherever_one_is(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert extras.install("lora") == "pip install -e '.[lora]'"
    monkeypatch.chdir(tmp_path)
    assert extras.install("lora") == f"pip install -e '{ROOT}[lora]'"


def test_an_installed_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "site-packages" / "arkjax")
    assert extras.install("beam") == "pip install 'arkjax[beam]'"
    with pytest.raises(ValueError, match="no extra 'bean'"):
        extras.install("bean")


def test_every_extra_is_one_of_the_package_and_there_is_one_form():
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}": ' in setup for extra in extras.REASONS)
    for path in (ROOT / "arkjax").rglob("*.py"):
        if path.name != "extras.py":
            text = path.read_text()
            assert "arkjax[" not in text and "-e '.[" not in text, path


def test_doctor_says_what_each_extra_is_for(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    remedies = {f.what.split()[0]: f.remedy for f in doctor._packages() if "optional" in f.what}
    assert remedies["qwix"] == f"{extras.install('lora')} if you use int8 or nf4 weights"
    assert remedies["seqio"].endswith("if you use SeqIO tasks and `tfds:` sources")
    assert remedies["aiohttp"].endswith("if you use `arkjax serve` and remote generators")
