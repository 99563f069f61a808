from pathlib import Path
from types import ModuleType

import pytest

from pipeline.data import fingerprint
from trainer_module.config import MODELS


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "trainer_module"
    (root / "models").mkdir(parents=True)
    (root / "models" / "cnn.py").write_text("a = 1\n")
    stand_in = ModuleType("trainer_module")
    stand_in.__path__ = [str(root)]
    monkeypatch.setattr(fingerprint, "trainer_module", stand_in)
    return root


def test_changes_with_a_source_in_a_subfolder(package: Path) -> None:
    before = fingerprint.of_sources()
    (package / "models" / "cnn.py").write_text("a = 2\n")
    assert fingerprint.of_sources() != before


def test_changes_with_a_name(package: Path) -> None:
    before = fingerprint.of_sources()
    (package / "models" / "cnn.py").rename(package / "models" / "net.py")
    assert fingerprint.of_sources() != before


def test_changes_with_where_one_file_ends(package: Path) -> None:
    (package / "a.py").write_text("xy")
    (package / "b.py").write_text("")
    before = fingerprint.of_sources()
    (package / "a.py").write_text("x")
    (package / "b.py").write_text("y")
    assert fingerprint.of_sources() != before


def test_ignores_what_is_no_source(package: Path) -> None:
    before = fingerprint.of_sources()
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "cnn.pyc").write_text("compiled")
    (package / "notes.txt").write_text("notes")
    assert fingerprint.of_sources() == before


def test_covers_a_model_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    own = tmp_path / "plateau_own_model.py"
    own.write_text("def build(): ...\n")
    before = fingerprint.of_sources("plateau_own_model.build")
    own.write_text("def build(): return 1\n")
    assert fingerprint.of_sources("plateau_own_model.build") != before


@pytest.mark.parametrize("name", ["", ".", "gpt", "a/b", "layers", "registry"])
def test_a_model_that_is_not_built_in_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="`model`"):
        fingerprint.module_of(name)


def test_built_in_models_are_found() -> None:
    for name in MODELS:
        assert fingerprint.module_of(name).name == f"{name}.py"


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got 'nowhere\.at\.all'.*PYTHONPATH"):
        fingerprint.of_sources("nowhere.at.all")
