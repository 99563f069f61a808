import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import schemas
from components.gate import GateError
from components.training_report import page
from pipeline.metadata import bless, lineage, runs, store, versions
from pipeline.metadata.bless import Blessing
from pipeline.metadata.versions import Version
from pipeline.runners import baseline

RETRAINED = ("ImageExampleGen", "InlineSchemaGen", "Transform")
REASON = "looked at <all> of it"


def give_model(archive: Any, content: str, classes: tuple[str, ...] = ()) -> Path:
    """Let the newest Model hold a SavedModel."""
    folder = Path(archive.latest["model"].uri) / "Format-Serving"
    (folder / schemas.CLASSES_FILE).parent.mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    if classes:
        known = {"kind": "images", "classes": classes}
        (folder / schemas.CLASSES_FILE).write_text(json.dumps(known))
    return folder


@pytest.fixture
def held(archive: Any) -> Any:
    """A model that was pushed, and a later one that a gate held back."""
    archive.run("first", version=100)
    give_model(archive, "the first model")
    archive.run("second", cached=RETRAINED, blessed=False)
    give_model(archive, "the second model")
    report = Path(archive.latest["html"].uri) / "report.html"
    report.write_text('<p>Not blessed</p><dl class="tiles"><dl class="tiles">')
    return archive


def plan(archive: Any, run: str | None = None, reason: str = REASON, **flags: Any) -> Blessing:
    return bless.plan(archive.output, run, reason, **flags)


def do(archive: Any, now: float = 1000, **flags: Any) -> Version:
    return bless.apply(plan(archive, **flags), now=lambda: now)


def test_a_model_that_was_held_back_is_pushed_and_shown_with_the_reason(held: Any) -> None:
    made = do(held)
    assert (made.number, made.run) == (1000, "second")
    assert (made.path / "saved_model.pb").read_text() == "the second model"
    second, first = runs.read(held.output).runs
    assert (second.reason, second.blessed, second.pushed, second.served) == (
        REASON,
        False,
        1000,
        True,
    )
    assert (first.reason, first.pushed, first.served) == ("", 100, False)
    assert second.state == "finished"
    detail = lineage.read([held.output], "second")
    assert detail.lineage is not None
    assert detail.lineage.type == "Model"


def test_it_is_recorded_and_becomes_the_baseline_of_the_next_run(held: Any) -> None:
    place = store.file_of(held.output)
    before = store.read(place)
    source = plan(held).source
    assert baseline.last_blessed(before) != source
    do(held)
    after = store.read(place)
    (execution,) = (after.executions[id] for id in after.executions.keys() - before.executions)
    assert (execution.type, execution.state) == ("plateau.Bless", "complete")
    assert execution.properties == {"pushed_version": 1000, "run": "second", "reason": REASON}
    outputs = dict(execution.outputs)
    assert outputs["blessing"].properties["blessed"] == 1
    assert (Path(outputs["blessing"].uri) / "BLESSED").is_file()
    assert outputs["pushed_model"].properties["pushed_version"] == "1000"
    assert baseline.last_blessed(after) == source


def test_the_report_tells_of_it_once_and_escaped(held: Any) -> None:
    do(held)
    (text,) = (path.read_text() for path in held.output.rglob("2/report.html"))
    assert text.startswith("<p>Not blessed</p><p ")
    assert "Pushed by hand as 1000 on " in text
    assert text.count("Reason: looked at &lt;all&gt; of it</p>") == 1
    assert page.with_note("no page", "a note") == "no page"


def test_it_can_be_rolled_back_and_forward(held: Any) -> None:
    do(held)
    back = versions.apply(versions.plan(held.output), now=lambda: 2000)
    assert (back.number, back.origin, back.run) == (2000, 100, "first")
    forward = versions.apply(versions.plan(held.output, 1000), now=lambda: 3000)
    assert (forward.number, forward.origin, forward.run) == (3000, 1000, "second")
    assert (forward.path / "saved_model.pb").read_text() == "the second model"


def test_one_that_was_killed_before_its_last_record_is_known(
    held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(versions, "_end", die)
    with pytest.raises(KeyboardInterrupt):
        do(held)
    monkeypatch.undo()
    found = versions.served(store.read(store.file_of(held.output)), held.output)
    assert found is not None
    assert (found.number, found.run) == (1000, "second")
    back = versions.apply(versions.plan(held.output), now=lambda: 2000)
    assert back.origin == 100
    assert versions.apply(versions.plan(held.output, 1000), now=lambda: 3000).origin == 1000


def test_a_copy_that_fails_leaves_nothing(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="no space"):
        do(held)
    assert {path.name for path in versions.folder_of(held.output).iterdir()} == {"100"}
    assert runs.read(held.output).runs[0].reason == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reason": " "}, "`reason` must say why, got ''. Try `reason="),
        ({"run": "first"}, r"a gate held back, got '\w+, which passed its gates"),
        ({"run": "third"}, r"got '\w+, which is failed without a verdict"),
        ({"run": "none"}, "ID must be that of one run"),
    ],
)
def test_what_cannot_be_done_is_explained(held: Any, changes: dict[str, Any], message: str) -> None:
    held.run("third", failed="Trainer")
    with pytest.raises(ValueError, match=message):
        plan(held, **{"run": "second", **changes})


def test_a_model_that_is_served_or_gone_is_not_pushed(held: Any) -> None:
    do(held)
    with pytest.raises(ValueError, match="served as 1000 already"):
        do(held)
    versions.apply(versions.plan(held.output), now=lambda: 2000)
    shutil.rmtree(plan(held).source)
    with pytest.raises(ValueError, match="must still be on the disk"):
        do(held)


def test_a_model_of_other_classes_needs_the_flag(archive: Any) -> None:
    archive.run("first", version=100)
    record = versions.folder_of(archive.output) / "100" / schemas.CLASSES_FILE
    record.parent.mkdir()
    record.write_text('{"kind": "images", "classes": ["cat", "dog"]}')
    archive.run("second", cached=RETRAINED, blessed=False)
    give_model(archive, "the second model", ("car", "bus"))
    with pytest.raises(GateError, match="allow_class_change"):
        do(archive)
    assert do(archive, allow_class_change=True).number == 1000


def test_nothing_is_pushed_after_a_change(held: Any) -> None:
    planned = plan(held)
    held.run("third", version=500, cached=RETRAINED)
    with pytest.raises(ValueError, match="got 'a change in"):
        bless.apply(planned)
