"""A MySQL database in which ML Metadata keeps runs, for teams: named, reached, and checked.

The password is no part of anything that is compiled, stored or logged: the client library of ML
Metadata reads it from the environment, where it stands while a connection is made.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from trainer_module import files
from trainer_module.checks import require

if TYPE_CHECKING:
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig

FILE_NAME = "metadata.json"
"""In an output folder: which database its runs are in."""

PASSWORD = "PLATEAU_METADATA_PASSWORD"
"""Environment variable with the database's password."""

FOLDER = "plateau.Folder"
"""Type of the contexts that ML Metadata has of output folders."""

PORT = 3306
_EXAMPLE = "Try --metadata mysql://USER@HOST/DATABASE."
# What the client library of MySQL reads where it is given no password.
_CLIENT_PASSWORD = "MYSQL_PWD"
_PATIENCE = 20.0
_ATTEMPTS = 8
_PROTOCOL, _REFUSAL = 10, 0xFF
_LOST = re.compile(
    r"Failed to establish connection to Metadata storage|mysql_real_connect failed"
    r"|gone away|Lost connection|shutdown in progress|Connection was killed|not connected",
    re.IGNORECASE,
)
_AT_ONCE = re.compile(r"subset of tables|already exist|Duplicate|Deadlock|retry", re.IGNORECASE)


class ConnectionLostError(RuntimeError):
    """The database cannot be reached any more."""


@dataclass(frozen=True)
class MetadataConfig:
    """Where ML Metadata keeps the runs.

    Attributes:
        metadata: MySQL database for ML Metadata, as mysql://USER@HOST/DATABASE, in place of a file
            in the output folder; the folder remembers it. The password is read from
            PLATEAU_METADATA_PASSWORD.
        metadata_password_file: File that holds the database's password, in place of that
            variable; the folder remembers the file's name.
    """

    metadata: str | None = None
    metadata_password_file: Path | None = None

    def __post_init__(self) -> None:
        """Check the form of the URL."""
        if self.metadata is not None:
            parse(self.metadata)


@dataclass(frozen=True)
class Database:
    """A database, and which of its runs are those of one output folder.

    Attributes:
        user: The account.
        host: Name or address of the server.
        port: Port of the server.
        name: Name of the database.
        folder: Drawn once for an output folder; empty where none is meant yet.
        password_file: File with the password; None for the environment.
    """

    user: str
    host: str
    port: int
    name: str
    folder: str = ""
    password_file: Path | None = None

    def __str__(self) -> str:
        """As a URL, which has no password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mysql://{quote(self.user, safe='')}@{host}:{self.port}/{self.name}"

    @property
    def place(self) -> tuple[str, int, str]:
        """What makes it this database, whoever connects."""
        return self.host, self.port, self.name

    def mark(self, name: str) -> str:
        """A name that no other output folder has in this database."""
        return f"{name}-{self.folder}"

    def owns(self, name: str) -> bool:
        """Whether a name was marked as that of this output folder."""
        return name.endswith(f"-{self.folder}")


def parse(url: str) -> Database:
    """The database that a URL names.

    Args:
        url: As mysql://USER@HOST[:PORT]/DATABASE.

    Raises:
        ValueError: It has another form, or a password in it; the error does not repeat the URL.
    """
    split = _split(url)
    # A slash in a password ends the host there, which leaves a port that is no number.
    _must(split is not None, "one that cannot be read")
    assert split is not None
    parts, port = split
    _must(parts.scheme == "mysql", f"the scheme {parts.scheme!r}" if parts.scheme else "no scheme")
    require(
        ":" not in parts.netloc.rpartition("@")[0] and parts.netloc.count("@") < 2,
        "metadata must be a URL without a password",
        "one with a password",
        f"Put the password into {PASSWORD}, or name a file with --metadata-password-file.",
    )
    _must(not parts.query and not parts.fragment, "one with something after the database")
    _must(bool(parts.username), "one without a user")
    _must(bool(parts.hostname), "one without a host")
    name = parts.path.removeprefix("/")
    _must(bool(name), "one without a database")
    # ML Metadata does not quote the name.
    _must(
        re.fullmatch(r"[A-Za-z0-9_$]{1,64}", name) is not None,
        "a database's name with other characters than letters, digits, _ and $",
    )
    return Database(unquote(parts.username or ""), parts.hostname or "", port or PORT, name)


def remembered(output: Path) -> Database | None:
    """The database that an output folder's runs are in; None if it remembers none.

    Raises:
        ValueError: The file that says so is damaged.
    """
    file = output / FILE_NAME
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        found = parse(record["metadata"])
        password_file = record["password_file"]
        return replace(
            found,
            folder=str(record["folder"]),
            password_file=Path(password_file) if password_file else None,
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{FILE_NAME} must say which database the runs are in, got a damaged one, {file}. "
            "Restore it, or give the run another folder with --output."
        ) from error


def chosen(config: MetadataConfig, output: Path, file: Path) -> Database | None:
    """The database for a run: as the flags say, or as the output folder remembers.

    Args:
        config: The flags.
        output: Output folder.
        file: SQLite file that it has where it has no database.

    Returns:
        The database; None for the file.

    Raises:
        ValueError: The runs of the folder are elsewhere, or the flags do not go together.
    """
    before = remembered(output)
    if config.metadata is None and before is None:
        require(
            config.metadata_password_file is None,
            "metadata_password_file needs a database",
            str(config.metadata_password_file),
            "Name one with --metadata.",
        )
        return None
    asked = parse(config.metadata) if config.metadata is not None else before
    assert asked is not None
    if before is None:
        require(
            not file.exists(),
            "metadata must be left out for an output folder whose runs are in a file",
            str(file),
            "Leave out --metadata, or give the run another folder with --output.",
        )
        found = replace(asked, folder=secrets.token_hex(4))
    else:
        require(
            asked.place == before.place,
            f"metadata must name the database of the output folder's earlier runs, {before}",
            str(asked),
            "Give the run another folder with --output, or, where the database has moved, "
            f"write its new place into {output / FILE_NAME}.",
        )
        found = replace(before, user=asked.user)
    if config.metadata_password_file is not None:
        found = replace(found, password_file=config.metadata_password_file.expanduser().absolute())
    return found


@contextlib.contextmanager
def ready(database: Database, output: Path) -> Iterator[None]:
    """Check that a database can be used, and let TFX connect to it within the context.

    Args:
        database: The database. The caller holds the output folder's lock.
        output: Output folder, which remembers the database from here on.

    Raises:
        ValueError: The server cannot be reached, it refuses the user, or the user may not write.
    """
    with _password_at_hand(database):
        reach(database)
        _register(database, output)
        record = {
            "metadata": str(database),
            "folder": database.folder,
            "password_file": str(database.password_file) if database.password_file else None,
        }
        with files.whole(output / FILE_NAME) as unfinished:
            unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        yield


def connection(database: Database) -> "ConnectionConfig":
    """How TFX connects; there is no password in it."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    found = mlmd.ConnectionConfig()
    # The client library takes this name for a socket at a place of its own.
    found.mysql.host = "127.0.0.1" if database.host == "localhost" else database.host
    found.mysql.port = database.port
    found.mysql.database = database.name
    found.mysql.user = database.user
    found.mysql.skip_db_creation = True
    return found


def connect(database: Database) -> "MetadataStore":
    """Open ML Metadata.

    Raises:
        ValueError: The server cannot be reached, or it refuses the user.
    """
    reach(database)
    with _password_at_hand(database):
        return _open(database)


def reach(database: Database) -> None:
    """Check that there is a MySQL server, before anything slow or silent tries to use it.

    Raises:
        ValueError: There is none.
    """
    rule = "the server of ML Metadata's database must be reachable"
    remedy = "Check --metadata, and that the server runs and takes connections from this machine."
    try:
        greeting = _greeting(database)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise ValueError(f"{rule}, got {database} ({why}). {remedy}") from error
    if greeting[:1] == bytes([_REFUSAL]):
        why = greeting[3:].decode(errors="replace")
        raise ValueError(f"{rule}, got {database}, which refuses ({why}). {remedy}")
    if greeting[:1] != bytes([_PROTOCOL]):
        raise ValueError(f"{rule}, got {database}, which is no MySQL server. {remedy}")


def lost(error: BaseException, database: Database) -> ConnectionLostError | None:
    """What to say if an error means that the connection was lost; None if it means another thing.

    Args:
        error: What a component failed with. It may stand behind others.
        database: The database.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if _is_metadata(link) and _LOST.search(str(link)):
            return ConnectionLostError(
                f"the connection to ML Metadata's database {database} was lost. What was finished "
                "is kept: start the server, and run the same command again to go on."
            )
        link = link.__cause__ or link.__context__
    return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let ML Metadata's client say nothing by itself: errors are ours to tell."""
    # Read once, when its C++ part is loaded.
    os.environ.setdefault("GLOG_minloglevel", "3")
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _split(url: str) -> tuple[SplitResult, int | None] | None:
    """A URL's parts and its port; an error would have the URL in it."""
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        return None


def _must(holds: bool, value: str) -> None:
    if not holds:
        # The URL itself is not repeated: there may be a password in it.
        raise ValueError(f"metadata must be mysql://USER@HOST/DATABASE, got {value}. {_EXAMPLE}")


def _is_metadata(error: BaseException) -> bool:
    """Whether an error is one of ML Metadata's client, or TFX's of its connection."""
    return type(error) is RuntimeError or type(error).__module__ == "ml_metadata.errors"


def _password(database: Database) -> tuple[str, str]:
    """The password, and in words where it was found.

    Raises:
        ValueError: The file cannot be read.
    """
    file = database.password_file
    if file is not None and (file.exists() or PASSWORD not in os.environ):
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n"), f"with that of {file}"
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                "metadata_password_file must be a text file that can be read, got "
                f"{str(file)!r}. Name another one, or put the password into {PASSWORD}."
            ) from error
    if PASSWORD in os.environ:
        return os.environ[PASSWORD], f"with that of {PASSWORD}"
    return "", "without one"


@contextlib.contextmanager
def _password_at_hand(database: Database) -> Iterator[None]:
    password, _ = _password(database)
    before = os.environ.get(_CLIENT_PASSWORD)
    os.environ[_CLIENT_PASSWORD] = password
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CLIENT_PASSWORD]
        else:
            os.environ[_CLIENT_PASSWORD] = before


def _greeting(database: Database) -> bytes:
    """What the server says first, which the client library would keep to itself."""
    with socket.create_connection((database.host, database.port), _PATIENCE) as channel:
        channel.settimeout(_PATIENCE)
        stream = channel.makefile("rb")
        # Three bytes of length, and one that counts packets.
        size = int.from_bytes(stream.read(4)[:3], "little")
        return stream.read(min(size, 1024))


def _open(database: Database) -> "MetadataStore":
    with quiet():
        from ml_metadata import errors
        from ml_metadata.metadata_store import MetadataStore

        config = connection(database)
        for attempt in range(_ATTEMPTS):
            try:
                return MetadataStore(config)
            except (RuntimeError, errors.StatusError) as error:
                # The first runs in an empty database make its tables at the same time.
                if not _AT_ONCE.search(str(error)) or attempt == _ATTEMPTS - 1:
                    raise ValueError(_refused(database, str(error))) from error
                _wait(attempt)
    raise AssertionError("unreachable")


def _refused(database: Database, said: str) -> str:
    """Why a server that is there could not be used, in words.

    Raises:
        ValueError: It is not there.
    """
    if "mysql_real_connect" in said:
        # The client gives no reason; that the server went away meanwhile would be one.
        reach(database)
        _, how = _password(database)
        return (
            f"the server must accept the user {database.user!r} and the password, got a refusal by "
            f"{database} {how}. Put the right password into {PASSWORD}, or name a file with "
            "--metadata-password-file; the account must log in by mysql_native_password."
        )
    if "Changing to database" in said:
        return (
            f"the database must be there and open to the user {database.user!r}, got {database}. "
            f"Let an administrator run: CREATE DATABASE {database.name}; {_grant(database)}"
        )
    return _denied(database, said)


def _denied(database: Database, said: str) -> str:
    if "denied" in said:
        return (
            f"the user {database.user!r} must be allowed to make tables in the database and to "
            f"write to them, got {database} ({_first(said)}). "
            f"Let an administrator run: {_grant(database)}"
        )
    return (
        f"the database must be one that ML Metadata can use, got {database} ({_first(said)}). "
        "Name another one with --metadata."
    )


def _grant(database: Database) -> str:
    return f"GRANT ALL ON {database.name}.* TO {database.user!r};"


def _first(said: str) -> str:
    """The reason, which the client gives twice."""
    return said.rpartition("errno: ")[2].partition(", error:")[0].strip()


def _register(database: Database, output: Path) -> None:
    """Write down whose folder this is: of use to a person, and proof that one may write.

    Raises:
        ValueError: The user may not write.
    """
    store = _open(database)
    with quiet():
        from ml_metadata import errors

        for attempt in range(_ATTEMPTS):
            try:
                _put_folder(store, database, output)
                return
            except errors.StatusError as error:
                if not _AT_ONCE.search(str(error)) or attempt == _ATTEMPTS - 1:
                    raise ValueError(_denied(database, str(error))) from error
                _wait(attempt)


def _put_folder(store: "MetadataStore", database: Database, output: Path) -> None:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    kind = store.put_context_type(mlmd.ContextType(name=FOLDER))
    context: Any = store.get_context_by_type_and_name(FOLDER, database.folder)
    context = context or mlmd.Context(type_id=kind, name=database.folder)
    for name, value in (
        ("path", str(output)),
        ("host", socket.gethostname()),
        ("last_run", f"{time.time():.6f}"),
    ):
        context.custom_properties[name].string_value = value
    store.put_contexts([context])


def _wait(attempt: int) -> None:
    """A while that differs from that of whoever else tries again."""
    time.sleep((attempt + secrets.randbelow(1000) / 1000) * 0.2)
