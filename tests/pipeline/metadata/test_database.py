import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mariadb_server
import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import presets
from pipeline.cli import flags
from pipeline.metadata import database, runs, versions
from pipeline.metadata import store as metadata
from pipeline.metadata.database import Database
from pipeline.runners import cache

ROOT = Path(__file__).parents[3]
SECRET = "s3cret"
NOWHERE = Database("ana", "127.0.0.1", 1, "plateau", "0a1b2c3d")


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(database.PASSWORD, raising=False)


@pytest.mark.parametrize(
    ("url", "found", "again"),
    [
        ("mysql://ana@db/plateau", ("ana", "db", 3306, "plateau"), "mysql://ana@db:3306/plateau"),
        ("mysql://a%40b@DB:3307/p_1$", ("a@b", "db", 3307, "p_1$"), "mysql://a%40b@db:3307/p_1$"),
        ("mysql://ana@[::1]:3307/x", ("ana", "::1", 3307, "x"), "mysql://ana@[::1]:3307/x"),
    ],
)
def test_a_url_is_read_and_written(url: str, found: tuple[object, ...], again: str) -> None:
    parsed = database.parse(url)
    assert (parsed.user, parsed.host, parsed.port, parsed.name) == found
    assert str(parsed) == again
    assert database.parse(again) == parsed


@pytest.mark.parametrize(
    "url",
    [
        "ana@db/plateau",
        "postgresql://ana@db/plateau",
        "mysql://db/plateau",
        "mysql://ana@/plateau",
        "mysql://ana@db",
        "mysql://ana@db/",
        "mysql://ana@db/a/b",
        "mysql://ana@db/team-a",
        "mysql://ana@db:x/plateau",
        "mysql://ana@db:0/plateau",
        "mysql://ana@db:99999/plateau",
    ],
)
def test_another_form_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"mysql://USER@HOST\[.*, got 'another form'"):
        database.parse(url)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://ana:{SECRET}@db/plateau",
        f"mysql://ana:{SECRET}@@db/plateau",
        f"mysql://ana:@{SECRET}@db/plateau",
        f"mysql://ana:x/{SECRET}@db/plateau",
        f"mysql://ana:x#{SECRET}@db/plateau",
        f"mysql://ana:x?{SECRET}@db/plateau",
        f"mysql://ana:x[{SECRET}@db/plateau",
        f"mysql://ana@db/plateau?password={SECRET}",
        f"mysql://:{SECRET}@db/plateau",
        f"mysql:ana:{SECRET}@db/plateau",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    default = presets.get("digits").build()
    with pytest.raises(ValueError, match=r"^`metadata` must be ") as error:
        flags.parse(default, ["--metadata", url], "plateau run", "")
    assert SECRET not in str(error.value)


def test_a_password_in_the_url_is_not_on_the_console_either(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.cli", "run", "digits", "--output", "out"),
            *("--metadata", f"mysql://ana:{SECRET}@db/plateau"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "and without a password" in done.stderr
    assert "PLATEAU_METADATA_PASSWORD" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def choose(output: Path, url: str | None = None, file: Path | None = None) -> Database | None:
    return database.choose(url, file, output, has_file=metadata.file_of(output).exists())


def remember(output: Path, url: str = "mysql://ana@db/plateau", **fields: object) -> None:
    record = {"metadata": url, "folder": "0a1b2c3d", "password_file": None, **fields}
    (output / database.FILE_NAME).write_text(json.dumps(record))


def test_without_flags_runs_are_in_a_file(tmp_path: Path) -> None:
    assert choose(tmp_path) is None
    assert metadata.store_of(tmp_path) == tmp_path / "metadata.sqlite"
    with metadata.ready(None, None, tmp_path) as store:
        assert store == tmp_path / "metadata.sqlite"
    assert list(tmp_path.iterdir()) == []


def test_each_output_folder_has_a_mark_of_its_own(tmp_path: Path) -> None:
    one, other = (choose(tmp_path, "mysql://ana@db/plateau") for _ in range(2))
    assert one
    assert other
    assert one.folder != other.folder
    assert one.owns(one.mark("plateau-digits"))
    assert not one.owns(other.mark("plateau-digits"))
    assert metadata.mark("name", tmp_path) == metadata.mark("name", None) == "name"


def test_a_folder_remembers_its_database(tmp_path: Path) -> None:
    remember(tmp_path, password_file="/secrets/plateau")
    found = Database("ana", "db", 3306, "plateau", "0a1b2c3d", Path("/secrets/plateau"))
    assert metadata.store_of(tmp_path) == found
    assert metadata.is_there(tmp_path)
    assert choose(tmp_path) == found
    assert choose(tmp_path, "mysql://ben@db/plateau") == dataclasses.replace(found, user="ben")
    assert choose(tmp_path, file=Path("/other")) == dataclasses.replace(
        found, password_file=Path("/other")
    )


@pytest.mark.parametrize(
    "url", ["mysql://ana@db/other", "mysql://ana@elsewhere/plateau", "mysql://ana@db:1/plateau"]
)
def test_a_folder_has_one_database(tmp_path: Path, url: str) -> None:
    remember(tmp_path)
    with pytest.raises(ValueError, match=r"earlier runs, mysql://ana@db:3306/plateau, got "):
        choose(tmp_path, url)


def test_a_folder_with_a_file_gets_no_database(archive: Any) -> None:
    with pytest.raises(ValueError, match=r"^`metadata` must be left out"):
        choose(archive.output, "mysql://ana@db/plateau")


def test_a_password_file_needs_a_database(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^`metadata_password_file` needs a database"):
        choose(tmp_path, file=Path("password"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"metadata": "x", "password_file": null}',
        '{"metadata": 5, "password_file": null, "folder": ""}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_damaged_memory_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / database.FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match=r"must say which database .*metadata\.json.*`output`"):
        metadata.store_of(tmp_path)


def at_hand(found: Database) -> str:
    with database._password_set(found):
        return os.environ["MYSQL_PWD"]


def test_the_password_is_that_of_the_file_or_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    named = dataclasses.replace(NOWHERE, password_file=file)
    assert at_hand(NOWHERE) == ""
    with pytest.raises(ValueError, match=r"^`metadata_password_file` must be .*password'\. Name"):
        at_hand(named)
    monkeypatch.setenv(database.PASSWORD, "from the environment")
    assert at_hand(NOWHERE) == at_hand(named) == "from the environment"
    file.write_text(" from the file \n")
    assert at_hand(named) == " from the file "
    monkeypatch.setenv("MYSQL_PWD", "somebody else's")
    assert at_hand(named) == " from the file "
    assert os.environ["MYSQL_PWD"] == "somebody else's"


def test_what_is_compiled_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(database.PASSWORD, SECRET)
    found = metadata.connection(dataclasses.replace(NOWHERE, host="localhost"))
    assert SECRET not in str(found)
    assert not found.mysql.HasField("password")
    # By its name, the client library would look for a socket.
    assert found.mysql.host == "127.0.0.1"
    assert found.mysql.skip_db_creation


@pytest.mark.component
def test_the_file_is_opened_as_tfx_does(tmp_path: Path) -> None:
    from tfx.orchestration import metadata as tfx_metadata

    file = str(tmp_path / "metadata.sqlite")
    expected = tfx_metadata.sqlite_metadata_connection_config(file)
    assert metadata.connection(Path(file)) == expected


@pytest.mark.component
def test_a_pipeline_is_compiled_with_the_folders_mark_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_metadata.proto import metadata_store_pb2 as mlmd
    from tfx.proto.orchestration import pipeline_pb2

    from pipeline.data.dataset import Dataset, TrainingSize
    from pipeline.runners import local
    from schemas.images import image_schema_text

    monkeypatch.setenv(database.PASSWORD, SECRET)
    config = dataclasses.replace(presets.get("digits").build(), classes=("0", "1"))
    schema = image_schema_text(config.classes)
    data = Dataset(
        Path("/data"), Path("/data"), config.classes, schema, TrainingSize(100, 100, "a test")
    )
    in_a_file = local.compile_pipeline(config, data, tmp_path)
    remember(tmp_path)
    with database._password_set(NOWHERE):
        compiled = local.compile_pipeline(config, data, tmp_path)
    assert compiled.pipeline_info.id == f"{in_a_file.pipeline_info.id}-0a1b2c3d"
    deployment, connection = pipeline_pb2.IntermediateDeploymentConfig(), mlmd.ConnectionConfig()
    assert compiled.deployment_config.Unpack(deployment)
    assert deployment.metadata_connection_config.Unpack(connection)
    assert connection == metadata.connection(metadata.store_of(tmp_path))
    assert SECRET.encode() not in compiled.SerializeToString()


@contextlib.contextmanager
def saying(greeting: bytes) -> Iterator[Database]:
    """A server that says one thing to whoever comes, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            channel, _ = server.accept()
            with channel:
                channel.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        yield dataclasses.replace(NOWHERE, port=server.getsockname()[1])
        thread.join()


def test_a_server_that_hangs_up_is_named() -> None:
    with (
        saying(b"") as database_,
        pytest.raises(ValueError, match=r"be reachable \(no answer\)"),
    ):
        database.connect(database_)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_server_that_is_not_there_is_named(host: str) -> None:
    found = dataclasses.replace(NOWHERE, host=host)
    with pytest.raises(ValueError, match=rf"be reachable \(.*got <?.*mysql://ana@{host}:1/plateau"):
        database.connect(found)


def test_a_run_whose_database_is_not_there_stops_before_tfx(tmp_path: Path) -> None:
    program = (
        "import sys; from pipeline.cli import main; code = main.main(sys.argv[1:]); "
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'ml_metadata'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy or code != 1 else 0)"
    )
    words = ["run", "digits", "--metadata", str(NOWHERE), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "error: the server of ML Metadata's database must be reachable" in done.stderr
    assert not (tmp_path / "out" / database.FILE_NAME).exists()


def failure(text: str, kind: type[Exception] = RuntimeError) -> Exception:
    """An error as TFX raises it: what went wrong first stands behind it."""
    try:
        try:
            raise kind(text)
        except Exception as error:
            raise KeyError("publishing") from error
    except KeyError as error:
        return error


def test_a_lost_connection_is_told_from_other_failures() -> None:
    from ml_metadata import errors

    gone = failure("mysql_query failed: errno: Server has gone away", errors.InternalError)
    for error in (gone, failure("Failed to establish connection to Metadata storage with x")):
        plain = metadata.plain(error, NOWHERE)
        assert isinstance(plain, database.ConnectionLostError)
        assert "mysql://ana@127.0.0.1:1/plateau, which was lost" in str(plain)
        assert "run the same command again" in str(plain)
        assert metadata.plain(error, Path("metadata.sqlite")) is error
    for error in (
        failure("Lost connection", OSError),
        failure("no such column", errors.InternalError),
    ):
        assert metadata.plain(error, NOWHERE) is error


# From here on with a real server.

needs_server = pytest.mark.skipif(
    mariadb_server.missing() is not None, reason=str(mariadb_server.missing())
)


@pytest.fixture(scope="module")
def server() -> Iterator[mariadb_server.Server]:
    made = mariadb_server.Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
def url(server: mariadb_server.Server, request: pytest.FixtureRequest) -> str:
    """A database of the test's own, with nothing in it."""
    name = f"{mariadb_server.DATABASE}_{abs(hash(request.node.nodeid))}"
    server.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    return server.url(database=name)


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(database.PASSWORD, mariadb_server.PASSWORD)


def set_up(output: Path, url: str) -> Database:
    output.mkdir(parents=True, exist_ok=True)
    with metadata.ready(url, None, output) as store:
        assert isinstance(store, Database)
    return store


@pytest.fixture
def recorded(archive_in: Callable[[Path, Database], Any], url: str) -> Callable[[Path], Any]:
    """Makes an output folder whose runs are in the test's database."""
    return lambda output: archive_in(output, set_up(output, url))


@needs_server
@pytest.mark.component
@pytest.mark.usefixtures("password")
def test_two_folders_in_one_database_are_told_apart(
    tmp_path: Path, recorded: Callable[[Path], Any]
) -> None:
    ana, ben = (recorded(tmp_path / name) for name in ("ana", "ben"))
    values = {"text": "bright ü \N{BLACK SUN WITH RAYS} 日本", "real": 0.25, "whole": 7}
    ana.run("2026-01-01T10:00:00", version=100, properties={"training_history": values})
    ben.run("2026-01-01T10:00:00", version=200)
    ana.run("2026-01-02T10:00:00", version=300)
    listed = runs.read(ana.output)
    assert [run.pushed for run in listed.runs] == [300, 100]
    assert [run.pushed for run in runs.read(ben.output).runs] == [200]
    assert listed.runs[0].pipeline != runs.read(ben.output).runs[0].pipeline
    found = metadata.read(metadata.store_of(ana.output))
    history = dict(found.runs[0].outputs)["training_history"]
    assert history.properties == values
    assert history.type == "components.TrainingHistory"
    assert {a.uri.startswith(str(ana.output)) for a in found.artifacts.values()} == {True}


@needs_server
@pytest.mark.component
@pytest.mark.usefixtures("password")
def test_what_another_folder_lost_is_not_looked_for(
    tmp_path: Path, recorded: Callable[[Path], Any]
) -> None:
    ana, ben = (recorded(tmp_path / name) for name in ("ana", "ben"))
    for each in (ana, ben):
        each.run("first", version=100)
    store = metadata.store_of(ana.output)
    # None of the folders holds a file.
    lost = cache.deleted(metadata.read(store).artifacts.values())
    assert lost
    assert sorted(cache.mark_deleted(store), key=lambda a: a.id) == sorted(lost, key=lambda a: a.id)
    deleted = [a for a in ben.store.get_artifacts() if a.state == mlmd.Artifact.DELETED]
    assert {a.id for a in deleted} == {a.id for a in lost}
    assert {a.uri.startswith(str(ana.output)) for a in deleted} == {True}


@needs_server
@pytest.mark.component
@pytest.mark.usefixtures("password")
def test_a_rollback_is_recorded_in_the_database(
    tmp_path: Path, recorded: Callable[[Path], Any]
) -> None:
    ana, ben = (recorded(tmp_path / name) for name in ("ana", "ben"))
    ben.run("first", version=400)
    ana.run("first", version=100)
    ana.run("second", version=200)
    versions.apply(versions.plan(ana.output), now=lambda: 300)
    served = runs.read(ana.output).served
    assert served is not None
    assert (served.number, served.origin, served.run) == (300, 100, ana.marked("first"))
    other = runs.read(ben.output).served
    assert other is not None
    assert other.number == 400
    with pytest.raises(ValueError, match="none before 400"):
        versions.plan(ben.output)


@needs_server
@pytest.mark.component
@pytest.mark.usefixtures("password")
def test_an_empty_folder_has_no_runs(tmp_path: Path, url: str) -> None:
    set_up(tmp_path, url)
    assert runs.read(tmp_path) == runs.Folder(tmp_path, (), None)


@needs_server
@pytest.mark.component
@pytest.mark.usefixtures("password")
def test_many_can_begin_at_once_in_an_empty_database(tmp_path: Path, url: str) -> None:
    program = (
        "import sys; from pathlib import Path; from pipeline.metadata import store as metadata; "
        "Path(sys.argv[2]).mkdir(); "
        "metadata.ready(sys.argv[1], None, Path(sys.argv[2])).__enter__()"
    )

    def begin(number: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", program, url, str(tmp_path / str(number))],
            cwd=ROOT,
            capture_output=True,
            text=True,
        ).stderr

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(begin, range(3))) == [""] * 3
    folders = {json.loads(path.read_text())["folder"] for path in tmp_path.glob("*/metadata.json")}
    assert len(folders) == 3


@needs_server
@pytest.mark.component
@pytest.mark.usefixtures("password")
def test_the_database_says_whose_folder_it_is(
    tmp_path: Path, url: str, server: mariadb_server.Server
) -> None:
    store = set_up(tmp_path, url)
    assert set_up(tmp_path, url) == store
    found = metadata.connect(store).get_contexts_by_type(database.FOLDER)
    assert [context.name for context in found] == [store.folder]
    assert found[0].custom_properties["path"].string_value == str(tmp_path)


def stderr_of(words: list[str], password: str, output: Path) -> str:
    """What a command that fails says."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words, "--output", str(output)],
        cwd=output.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), database.PASSWORD: password},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    # What follows would be escaped in one form or another.
    secret = password[:5]
    assert secret not in done.stdout + done.stderr
    for path in output.rglob("*") if output.exists() else ():
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    # One sentence or several, but nothing from the client library.
    (line,) = done.stderr.splitlines()
    return line


@needs_server
@pytest.mark.component
def test_what_stops_a_run_is_said_in_words(
    tmp_path: Path, url: str, server: mariadb_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"

    def said(url: str, *flags: str, password: str = mariadb_server.PASSWORD) -> str:
        return stderr_of(["run", "digits", "--metadata", url, *flags], password, output)

    line = said(url, password="wr0ng")
    assert "must accept the password of 'ana'" in line
    assert "Check PLATEAU_METADATA_PASSWORD" in line
    file = tmp_path / "password"
    file.write_text("wr0ng")
    assert f"Check {file}" in said(url, "--metadata-password-file", str(file))
    line = said(server.url(database="elsewhere"))
    assert "CREATE DATABASE elsewhere; GRANT ALL ON elsewhere.* TO 'ana';" in line
    # Of tables that are not there, and of tables that are.
    reader = url.replace(mariadb_server.USER, mariadb_server.READER)
    line = said(reader, password=mariadb_server.READER_PASSWORD)
    assert "let that user create tables" in line
    monkeypatch.setenv(database.PASSWORD, mariadb_server.PASSWORD)
    set_up(tmp_path / "ana", url)
    line = said(reader, password=mariadb_server.READER_PASSWORD)
    assert "denied to user 'ruth'" in line
    assert not (output / database.FILE_NAME).exists()


@needs_server
@pytest.mark.component
@pytest.mark.usefixtures("password")
def test_a_folder_whose_server_is_away_can_be_read_later(
    tmp_path: Path, recorded: Callable[[Path], Any], server: mariadb_server.Server
) -> None:
    ana = recorded(tmp_path / "ana")
    ana.run("first", version=100)
    server.stop()
    try:
        line = stderr_of(["runs"], mariadb_server.PASSWORD, ana.output)
        assert "must be reachable" in line
        assert "mysql://ana@127.0.0.1" in line
    finally:
        server.start()
    assert [run.pushed for run in runs.read(ana.output).runs] == [100]


@needs_server
@pytest.mark.component
@pytest.mark.usefixtures("password")
def test_a_connection_that_ends_while_runs_are_read_is_told(
    tmp_path: Path, url: str, server: mariadb_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = set_up(tmp_path, url)
    opened = database.connect(store)
    monkeypatch.setattr(database, "connect", lambda _: opened)
    server.stop()
    try:
        with pytest.raises(ValueError, match=r"must answer .*mysql://.* try again"):
            metadata.read(store)
    finally:
        server.start()
