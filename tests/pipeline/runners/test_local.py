import dataclasses
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import schemas
from components.gate import GateError
from pipeline import presets
from pipeline.config import GateConfig, RunConfig
from pipeline.metadata import store
from pipeline.runners import local, lock


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Images of two classes, one of which is no image."""
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (8, 8), i).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "data" / "dog" / "7.png").write_bytes(b"no image")
    return dataclasses.replace(presets.images(), data=tmp_path / "data", output=tmp_path / "out")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def record(model: Path, *classes: str) -> dict[str, bytes]:
    """Write what an exported model says of its classes; the file and its content."""
    file = model / schemas.CLASSES_FILE
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"kind": "images", "classes": classes}))
    return {str(file): file.read_bytes()}


def test_failure_names_component_and_log_and_spares_what_was_pushed(
    config: RunConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    earlier = config.output / "pushed" / "1" / "saved_model.pb"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"a model")
    before = {**record(earlier.parent, "cat", "dog"), str(earlier): b"a model"}
    shown = io.StringIO()
    with pytest.raises(local.RunFailedError, match=r"7\.png") as failure:
        local.run(config, Console(file=shown))
    assert failure.value.component == "ImageExampleGen"
    assert "Traceback" in failure.value.log.read_text()
    assert files(config.output / "pushed") == before
    # Nothing but our own lines reaches the console, at the file descriptors even.
    captured = capfd.readouterr()
    assert captured.out + captured.err + shown.getvalue() == ""


def test_output_in_use_is_refused_before_anything_is_written(config: RunConfig) -> None:
    with lock.hold(config.output):
        before = files(config.output)
        # The lock belongs to a file handle, so a second one in this process is refused as well.
        with pytest.raises(lock.OutputBusyError, match="`output`"):
            local.run(config, Console(file=io.StringIO()))
        assert files(config.output) == before


@pytest.mark.parametrize("classes", [("cat", "owl"), ("cat", "dog", "owl"), ()])
def test_a_model_of_other_classes_is_not_replaced_unless_asked_for(
    config: RunConfig, classes: tuple[str, ...]
) -> None:
    earlier = config.output / "pushed" / "1" / "saved_model.pb"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"a model")
    if classes:
        record(earlier.parent, *classes)
    with pytest.raises(GateError, match="allow_class_change") as stopped:
        local.run(config, Console(file=io.StringIO()))
    assert str(earlier.parent) in str(stopped.value)
    assert not (config.output / "artifacts").exists()
    allowed = dataclasses.replace(config, gates=GateConfig(allow_class_change=True))
    with local.session(allowed) as here:
        assert here.config.classes == ("cat", "dog")


@pytest.mark.parametrize("below", ["", "out"])
def test_output_behind_links_in_a_circle_is_refused(config: RunConfig, below: str) -> None:
    config.output.symlink_to(config.output)
    config = dataclasses.replace(config, output=config.output / below)
    with pytest.raises(ValueError, match=r"`output` must be a folder.*circle.*Remove the link"):
        local.run(config, Console(file=io.StringIO()))


def test_records_that_cannot_be_opened_are_told_before_anything_runs(config: RunConfig) -> None:
    config.output.mkdir()
    store.file_of(config.output).write_bytes(b"not a database at all")
    with pytest.raises(local.RunFailedError, match="ML Metadata that can be wr") as failure:
        local.run(config, Console(file=io.StringIO()))
    assert failure.value.component is None
    assert "Traceback" in failure.value.log.read_text()
    assert not (config.output / "artifacts").exists()


@pytest.mark.parametrize(
    ("workers", "complaint"),
    [
        ('["a:1", "b:1"]', r"must not name several workers .*'worker 1, one of 2 workers.*worker`"),
        ('["a:1", ', "TF_CONFIG must be JSON"),
    ],
)
def test_a_tf_config_that_a_run_cannot_honour_is_refused(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, workers: str, complaint: str
) -> None:
    cluster = f'{{"cluster": {{"worker": {workers}}}, "task": {{"type": "worker", "index": 1}}}}'
    monkeypatch.setenv("TF_CONFIG", cluster)
    with pytest.raises(ValueError, match=complaint):
        local.run(config, Console(file=io.StringIO()))
    assert not config.output.exists()
