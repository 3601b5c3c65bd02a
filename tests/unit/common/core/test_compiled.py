"""The compiled core is found for the very sources that it was made of, and can be passed by."""

import subprocess
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from common import core
from common.core import compiled

ROOT = Path(__file__).parents[4]
WHERE = "import common.core.engine as engine; print(engine.__file__)"


def test_what_runs_was_made_of_the_sources_as_they_are() -> None:
    """Fails after a change of the core until `make setup` has compiled it again, or with `-X pure_core`."""
    builds = [build for build in compiled.BUILDS.glob("*") if compiled.is_complete(build)]
    if builds and "pure_core" not in sys._xoptions:
        assert core.COMPILED, "common.core was compiled from other sources: run `make setup`"
    expected = compiled.folder() if core.COMPILED else compiled.SOURCES
    for name in compiled.MODULES:
        module = import_module(f"common.core.{name}")
        assert module.__file__ is not None
        assert expected in Path(module.__file__).parents
        assert module.__file__.endswith(".py") != core.COMPILED


def test_the_sources_can_be_run_instead() -> None:
    for options, pure in ((["-X", "pure_core"], True), ([], not compiled.is_complete(compiled.folder()))):
        command = [sys.executable, *options, "-c", WHERE]
        found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
        assert (found == str(compiled.SOURCES / "engine.py")) == pure


def test_any_change_of_a_source_names_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in compiled.MODULES:
        (tmp_path / f"{name}.py").write_bytes((compiled.SOURCES / f"{name}.py").read_bytes())
    monkeypatch.setattr(compiled, "SOURCES", tmp_path)
    folders = {compiled.folder()}
    for name in compiled.MODULES:
        with (tmp_path / f"{name}.py").open("a") as source:
            source.write("#")
        folders.add(compiled.folder())
    assert len(folders) == 1 + len(compiled.MODULES)


def test_a_build_that_lacks_a_module_is_none(tmp_path: Path) -> None:
    for name in compiled.MODULES:
        assert not compiled.is_complete(tmp_path)
        (tmp_path / f"{name}{EXTENSION_SUFFIXES[0]}").touch()
    assert compiled.is_complete(tmp_path)
