import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.metadata import store, versions
from pipeline.metadata.versions import Rollback, Version

RETRAINED = ("ImageExampleGen", "InlineSchemaGen", "Transform")
UNCHANGED = (*RETRAINED, "Trainer")


def read(archive: Any) -> store.Records:
    return store.read(store.file_of(archive.output))


def served(archive: Any) -> Version | None:
    return versions.served(read(archive), archive.output)


def roll_back(archive: Any, wanted: int | None = None, now: float = 1000) -> Version:
    return versions.apply(versions.plan(archive.output, wanted), now=lambda: now)


def names(archive: Any) -> set[str]:
    return {path.name for path in versions.folder_of(archive.output).iterdir()}


@pytest.fixture
def three(archive: Any) -> Any:
    """Three models, the last one pushed twice."""
    archive.run("first", version=100)
    archive.run("second", version=200, cached=RETRAINED)
    archive.run("third", version=300, cached=RETRAINED)
    archive.run("again", version=301, cached=UNCHANGED)
    return archive


def test_the_highest_number_is_served(three: Any) -> None:
    (versions.folder_of(three.output) / "next").mkdir()
    (versions.folder_of(three.output) / "999").write_text("a file")
    found = versions.versions(read(three), three.output)
    assert [version.number for version in found] == [100, 200, 300, 301]
    assert [version.run for version in found] == ["first", "second", "third", "again"]
    assert found[2].model == found[3].model != found[1].model
    assert served(three) == found[3]


def test_nothing_is_served_before_the_first_push(archive: Any) -> None:
    archive.run("first", blessed=False)
    assert served(archive) is None


def test_a_folder_that_no_run_pushed_is_served_all_the_same(three: Any) -> None:
    (versions.folder_of(three.output) / "500").mkdir()
    found = served(three)
    assert found is not None
    assert (found.number, found.model, found.run) == (500, None, "")
    assert versions.plan(three.output).target.number == 301


def test_default_is_the_newest_other_model(three: Any) -> None:
    made = roll_back(three)
    assert (made.number, made.origin, made.run) == (1000, 200, "second")
    assert (made.path / "saved_model.pb").read_text() == "model pushed as 200"
    assert (made.path / "variables" / "variables.index").read_text() == "weights"
    assert names(three) == {"100", "200", "300", "301", "1000"}
    found = served(three)
    assert found is not None
    assert (found.number, found.origin, found.run, found.model) == (
        1000,
        200,
        "second",
        made.model,
    )


def test_the_next_rollback_goes_further_back(three: Any) -> None:
    roll_back(three)
    assert roll_back(three).origin == 100
    with pytest.raises(ValueError, match=r"none before 1001 \(a copy of 100\)"):
        roll_back(three)


def test_a_version_can_be_named_to_go_forward_again(three: Any) -> None:
    roll_back(three)
    made = roll_back(three, 300, now=2000)
    assert (made.number, made.origin) == (2000, 300)
    again = roll_back(three, 1000, now=3000)
    assert (again.number, again.origin, again.run) == (3000, 200, "second")


@pytest.mark.parametrize(("now", "number"), [(50, 302), (301, 302), (302, 302), (303.9, 303)])
def test_numbers_grow_even_when_the_clock_went_back(three: Any, now: float, number: int) -> None:
    assert roll_back(three, now=now).number == number


def test_numbers_grow_beyond_versions_that_are_gone(three: Any) -> None:
    shutil.rmtree(versions.folder_of(three.output) / "301")
    assert roll_back(three, now=0).number == 302


def test_a_rollback_is_recorded_with_its_lineage(
    three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(three)
    # A relative path would lead nowhere from another folder.
    monkeypatch.chdir(three.output.parent)
    versions.apply(versions.plan(Path(three.output.name)), now=lambda: 1000)
    found = read(three)
    (execution,) = (found.executions[id] for id in found.executions.keys() - before.executions)
    assert (execution.type, execution.state, execution.run) == ("plateau.Rollback", "complete", "")
    assert execution.properties == {
        "pushed_version": 1000,
        "source_version": 200,
        "origin_version": 200,
        "replaced_version": 301,
    }
    inputs = dict(execution.inputs)
    assert inputs["pushed_model"].properties["pushed_version"] == "200"
    assert inputs["model"].uri.endswith("Trainer/model/2")
    ((key, made),) = execution.outputs
    assert (key, made.type) == ("pushed_model", "PushedModel")
    assert made.properties["pushed_destination"] == made.uri
    assert made.uri == str(versions.folder_of(three.output) / "1000")
    assert versions.pushed_version(made) == 1000
    assert found.runs == before.runs
    assert {id: found.artifacts[id] for id in before.artifacts} == dict(before.artifacts)
    (context,) = three.store.get_contexts_by_execution(execution.id)
    assert context.type == "pipeline"


def failed(archive: Any) -> list[str]:
    return [e.state for e in read(archive).executions.values() if e.type == versions.ROLLBACK]


def test_a_copy_that_fails_leaves_nothing(three: Any) -> None:
    before = names(three), served(three)
    pipe = versions.folder_of(three.output) / "200" / "variables" / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="named pipe"):
        roll_back(three)
    assert (names(three), served(three)) == before
    assert failed(three) == ["failed"]
    pipe.unlink()
    assert roll_back(three).origin == 200


def test_an_interrupted_copy_leaves_nothing(three: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names(three), served(three)
    there: set[str] = set()

    def interrupt(_: int) -> None:
        there.update(names(three))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupt)
        roll_back(three)
    (half,) = there - before[0]
    assert not half.isdecimal()
    assert (names(three), served(three)) == before
    assert failed(three) == ["failed"]


def test_a_rollback_killed_before_its_last_record_is_known(
    three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(versions, "_end", die)
    with pytest.raises(SystemExit):
        roll_back(three)
    found = served(three)
    assert found is not None
    assert (found.number, found.origin, found.run) == (1000, 200, "second")


def nothing_pushed(archive: Any) -> int | None:
    archive.run("first", blessed=False)
    return None


def one_model(archive: Any) -> int | None:
    archive.run("first", version=100)
    return None


def one_model_pushed_twice(archive: Any) -> int | None:
    archive.run("first", version=100)
    archive.run("again", version=200, cached=UNCHANGED)
    return None


def no_such_version(archive: Any) -> int | None:
    archive.run("first", version=100)
    archive.run("second", version=200)
    return 150


def version_that_no_run_pushed(archive: Any) -> int | None:
    archive.run("first", version=100)
    (versions.folder_of(archive.output) / "50").mkdir()
    return 50


def present_version(archive: Any) -> int | None:
    archive.run("first", version=100)
    return 100


def another_copy_of_the_present_model(archive: Any) -> int | None:
    one_model_pushed_twice(archive)
    return 100


def damaged(archive: Any) -> int | None:
    archive.run("first", version=100)
    archive.run("second", version=200)
    (versions.folder_of(archive.output) / "100" / "saved_model.pb").unlink()
    return None


@pytest.mark.parametrize(
    ("make", "rule", "value", "remedy"),
    [
        (nothing_pushed, "needs a pushed model", "none in", "Push one with `plateau run`"),
        (one_model, "needs an earlier version", "none before 100", "Push another model"),
        (one_model_pushed_twice, "of another model", "none before 200", "there: 100, 200"),
        (no_such_version, "must be one that was pushed", "got 150", "there: 100, 200"),
        (version_that_no_run_pushed, "must be one that was pushed", "got 50", "there: 100."),
        (present_version, "must hold another model", "got '100", "there: 100."),
        (another_copy_of_the_present_model, "another model", "served already as 200", "there:"),
        (damaged, "must hold saved_model.pb", "pushed/100 without", "name another version"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_done_is_explained(
    archive: Any, make: Callable[[Any], int | None], rule: str, value: str, remedy: str
) -> None:
    wanted = make(archive)
    with pytest.raises(ValueError, match=r"(?i)version|model") as error:
        versions.plan(archive.output, wanted)
    for part in (rule, value, remedy):
        assert part in str(error.value)


def test_a_damaged_present_model_can_be_replaced_by_its_own_copy(archive: Any) -> None:
    wanted = another_copy_of_the_present_model(archive)
    (versions.folder_of(archive.output) / "200" / "saved_model.pb").unlink()
    assert roll_back(archive, wanted).origin == 100


def test_what_changed_since_the_plan_stops_it(three: Any) -> None:
    plan: Rollback = versions.plan(three.output)
    three.run("fifth", version=400)
    with pytest.raises(ValueError, match="a change in"):
        versions.apply(plan)
    assert "400" in names(three)
    assert len(names(three)) == 5
