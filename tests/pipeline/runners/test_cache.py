import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.metadata import store
from pipeline.metadata.store import Artifact
from pipeline.runners import cache


def marked(archive: Any) -> list[str]:
    """Types of what a call of `mark_deleted` marks."""
    return sorted(a.type for a in cache.mark_deleted(store.file_of(archive.output)))


@pytest.fixture
def whole(archive: Any) -> Any:
    """A run whose artifacts have a file each."""
    archive.run("first", version=100)
    for artifact in store.read(store.file_of(archive.output)).artifacts.values():
        (Path(artifact.uri) / "file").write_text("content")
    return archive


def test_what_is_there_stays_as_it_is(whole: Any) -> None:
    assert marked(whole) == []
    assert {a.state for a in whole.store.get_artifacts()} == {mlmd.Artifact.LIVE}


def test_what_is_gone_is_marked_once(whole: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = whole.latest["model"]
    shutil.rmtree(model.uri)
    assert marked(whole) == ["Model"]
    assert model.uri in caplog.text
    states = {a.id: a.state for a in whole.store.get_artifacts()}
    assert states.pop(model.id) == mlmd.Artifact.DELETED
    assert set(states.values()) == {mlmd.Artifact.LIVE}
    assert marked(whole) == []


def test_only_what_may_be_served_is_looked_at(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Artifact] = []
    look = cache.deleted

    def watched(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
        looked.extend(artifacts)
        return look(looked)

    monkeypatch.setattr(cache, "deleted", watched)
    abandoned = whole.latest["model"]
    abandoned.state = mlmd.Artifact.ABANDONED
    whole.store.put_artifacts([abandoned])
    shutil.rmtree(abandoned.uri)
    assert marked(whole) == []
    everything = {a.id for a in whole.store.get_artifacts()}
    assert {a.id for a in looked} == everything - {abandoned.id}
    [kept] = whole.store.get_artifacts_by_id([abandoned.id])
    assert kept.state == mlmd.Artifact.ABANDONED


def test_an_emptied_folder_counts_as_gone(whole: Any) -> None:
    (Path(whole.latest["blessing"].uri) / "file").unlink()
    assert marked(whole) == ["ModelBlessing"]


def test_a_pushed_model_that_was_deleted_where_it_is_served_counts_as_gone(whole: Any) -> None:
    shutil.rmtree(whole.output / "pushed" / "100")
    assert marked(whole) == ["PushedModel"]


def test_a_folder_without_metadata_has_nothing_to_forget(tmp_path: Path) -> None:
    assert cache.mark_deleted(store.file_of(tmp_path)) == ()
    assert not list(tmp_path.iterdir())


def test_metadata_that_was_killed_while_it_was_made_is_made_anew(tmp_path: Path) -> None:
    file = store.file_of(tmp_path)
    file.touch()
    assert cache.mark_deleted(file) == ()
    assert store.read(file).artifacts == {}


def examples(place: Path | str) -> Artifact:
    return Artifact(1, "Examples", str(place), {"split_names": '["train", "test"]'})


def test_every_split_must_be_there(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"Split-{split}").mkdir()
        (tmp_path / f"Split-{split}" / "data.gz").write_text("content")
    assert cache.deleted([examples(tmp_path)]) == ()
    shutil.rmtree(tmp_path / "Split-test")
    assert cache.deleted([examples(tmp_path)]) == (examples(tmp_path),)


@pytest.mark.parametrize("kind", ["TransformCache", "PushedModel"])
def test_some_artifacts_may_be_empty(kind: str, tmp_path: Path) -> None:
    assert cache.deleted([Artifact(1, kind, str(tmp_path))]) == ()
    gone = Artifact(1, kind, str(tmp_path / "gone"))
    assert cache.deleted([gone]) == (gone,)


def test_an_artifact_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.touch()
    assert cache.deleted([Artifact(1, "String", str(file))]) == ()


def test_what_lies_elsewhere_is_not_judged() -> None:
    assert cache.deleted([examples("gs://bucket/examples/1")]) == ()
