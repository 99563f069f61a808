"""MySQL database of ML Metadata, for runs that a team shares.

The password is not part of anything that is compiled, stored or logged: the client library of ML
Metadata reads it from the environment, where it is set while a connection is made.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from trainer_module.util import files
from trainer_module.util.checks import require

if TYPE_CHECKING:
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig

FILE_NAME = "metadata.json"
"""File of an output folder that names the database of its runs."""

PASSWORD = "PLATEAU_METADATA_PASSWORD"
"""Environment variable with the database's password."""

FOLDER = "plateau.Folder"
"""Type of the ML Metadata contexts that stand for output folders."""

PORT = 3306
# The name of a database is what ML Metadata, which does not quote it, can use.
_URL = re.compile(
    r"mysql://(?P<user>[^:/?#@]+)@(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/?#@\[\]]+)(:(?P<port>[0-9]{1,5}))?"
    r"/(?P<name>[A-Za-z0-9_$]{1,64})"
)
# Where the client library of MySQL looks for a password.
_CLIENT_PASSWORD = "MYSQL_PWD"
_CONNECT_SECONDS = 20.0
_ATTEMPTS = 8
_LOST = re.compile(
    r"Failed to establish connection to Metadata storage|mysql_real_connect failed"
    r"|gone away|Lost connection|shutdown in progress|Connection was killed|not connected",
    re.IGNORECASE,
)
# What the first runs in an empty database meet, which create its tables at the same time.
_CONFLICT = re.compile(r"subset of tables|already exist|Duplicate|Deadlock|retry", re.IGNORECASE)


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
        """Checks the form of the URL."""
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
        folder: Random identifier of the output folder; empty for a database without one.
        password_file: File with the password; None for the environment variable.
    """

    user: str
    host: str
    port: int
    name: str
    folder: str = ""
    password_file: Path | None = None

    def __str__(self) -> str:
        """Returns the URL, which has no password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mysql://{quote(self.user, safe='')}@{host}:{self.port}/{self.name}"

    @property
    def place(self) -> tuple[str, int, str]:
        """What identifies the database, whoever connects."""
        return self.host, self.port, self.name

    def mark(self, name: str) -> str:
        """Returns a name that no other output folder has in this database."""
        return f"{name}-{self.folder}"

    def owns(self, name: str) -> bool:
        """Returns True for a name that `mark` gave in this output folder."""
        return name.endswith(f"-{self.folder}")


def parse(url: str) -> Database:
    """Returns the database that a URL names.

    Args:
        url: As mysql://USER@HOST[:PORT]/DATABASE.

    Raises:
        ValueError: It has another form; the error does not repeat the URL, which may hold a
            password.
    """
    parts = _URL.fullmatch(url)
    port = int((parts and parts["port"]) or PORT)
    require(
        parts is not None and 0 < port < 65536,
        "metadata must be mysql://USER@HOST[:PORT]/DATABASE, with a database of letters, digits, "
        "_ and $, and without a password",
        "another form",
        f"Put the password into {PASSWORD}, or name a file with --metadata-password-file.",
    )
    assert parts is not None
    host = parts["host"].strip("[]").lower()
    return Database(unquote(parts["user"]), host, port, parts["name"])


def remembered(output: Path) -> Database | None:
    """Returns the database of an output folder's runs; None if it remembers none.

    Raises:
        ValueError: The file that names it is damaged.
    """
    file = output / FILE_NAME
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        password_file = record["password_file"]
        return replace(
            parse(record["metadata"]),
            folder=str(record["folder"]),
            password_file=Path(password_file) if password_file else None,
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{FILE_NAME} must say which database the runs are in, got a damaged one, {file}. "
            "Restore it, or give the run another folder with --output."
        ) from error


def chosen(config: MetadataConfig, output: Path, file: Path) -> Database | None:
    """Returns the database for a run, as the flags say or as the output folder remembers.

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
    asked = parse(config.metadata) if config.metadata is not None else before
    if asked is None:
        require(
            config.metadata_password_file is None,
            "metadata_password_file needs a database",
            str(config.metadata_password_file),
            "Name one with --metadata.",
        )
        return None
    require(
        before is not None or not file.exists(),
        "metadata must be left out for an output folder whose runs are in a file",
        str(file),
        "Leave out --metadata, or give the run another folder with --output.",
    )
    before = before or replace(asked, folder=secrets.token_hex(4))
    require(
        asked.place == before.place,
        f"metadata must name the database of the output folder's earlier runs, {before}",
        str(asked),
        "Give the run another folder with --output, or, where the database has moved, "
        f"write its new place into {output / FILE_NAME}.",
    )
    password_file = config.metadata_password_file
    return replace(
        before,
        user=asked.user,
        password_file=password_file.expanduser().absolute()
        if password_file
        else before.password_file,
    )


@contextlib.contextmanager
def ready(database: Database, output: Path) -> Iterator[None]:
    """Checks that a database can be used, and lets TFX connect to it within the context.

    Args:
        database: The database. The caller holds the output folder's lock.
        output: Output folder, which remembers the database from here on.

    Raises:
        ValueError: The server cannot be reached, it refuses the user, or the user may not write.
    """
    with _password_set(database):
        store = connect(database)
        with quiet():
            _retried(lambda: _register(store, database, output), database)
        record = {
            "metadata": str(database),
            "folder": database.folder,
            "password_file": str(database.password_file) if database.password_file else None,
        }
        with files.whole(output / FILE_NAME) as unfinished:
            unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        yield


def connection(database: Database) -> "ConnectionConfig":
    """Returns how TFX connects; there is no password in it."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    config = mlmd.ConnectionConfig()
    # The client library takes the name localhost for a socket in a folder of its own.
    config.mysql.host = "127.0.0.1" if database.host == "localhost" else database.host
    config.mysql.port = database.port
    config.mysql.database = database.name
    config.mysql.user = database.user
    config.mysql.skip_db_creation = True
    return config


def connect(database: Database) -> "MetadataStore":
    """Opens ML Metadata.

    Raises:
        ValueError: The server cannot be reached, or it refuses the user.
    """
    _check_reachable(database)
    with _password_set(database), quiet():
        from ml_metadata.metadata_store import MetadataStore

        return _retried(lambda: MetadataStore(connection(database)), database)


def lost(error: BaseException, database: Database) -> ConnectionLostError | None:
    """Returns a plain error if a connection was lost; None for any other error.

    Args:
        error: What a component failed with. Its cause may be the one that matters.
        database: The database.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if _is_metadata(link) and _LOST.search(str(link)):
            return ConnectionLostError(
                f"the connection to ML Metadata's database {database} was lost. What was finished "
                "is kept: start the server, and run the same command again to resume."
            )
        link = link.__cause__ or link.__context__
    return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the log of ML Metadata's client, whose errors are raised as well."""
    # Read once, when its C++ part is loaded.
    os.environ.setdefault("GLOG_minloglevel", "3")
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _is_metadata(error: BaseException) -> bool:
    """Returns True for an error of ML Metadata's client, or of TFX's connection."""
    return type(error) is RuntimeError or type(error).__module__ == "ml_metadata.errors"


def _password(database: Database) -> str:
    """Returns the password of the file or of the environment variable; empty if there is none.

    Raises:
        ValueError: The file cannot be read.
    """
    file = database.password_file
    if file is None or (PASSWORD in os.environ and not file.exists()):
        return os.environ.get(PASSWORD, "")
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            "metadata_password_file must be a text file that can be read, got "
            f"{str(file)!r}. Name another one, or put the password into {PASSWORD}."
        ) from error


@contextlib.contextmanager
def _password_set(database: Database) -> Iterator[None]:
    password = _password(database)
    before = os.environ.get(_CLIENT_PASSWORD)
    os.environ[_CLIENT_PASSWORD] = password
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CLIENT_PASSWORD]
        else:
            os.environ[_CLIENT_PASSWORD] = before


def _check_reachable(database: Database) -> None:
    """Raises ValueError unless a server answers; the client library waits without end for one."""
    try:
        with socket.create_connection((database.host, database.port), _CONNECT_SECONDS) as channel:
            # A MySQL server speaks first.
            if not channel.recv(1):
                raise ConnectionError("no answer")
    except OSError as error:
        why = error.strerror or str(error)
        raise ValueError(
            f"the server of ML Metadata's database must be reachable, got {database} ({why}). "
            "Check --metadata, and that the server runs and takes connections from this machine."
        ) from error


def _retried(call: Callable[[], Any], database: Database) -> Any:
    """Returns what a call gives, made again while other runs create the tables.

    Raises:
        ValueError: The server refuses the user, or what it wants to do.
    """
    from ml_metadata import errors

    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except (RuntimeError, errors.StatusError) as error:
            if not _CONFLICT.search(str(error)) or attempt == _ATTEMPTS - 1:
                # The client gives its reason twice.
                reason = str(error).rpartition("errno: ")[2].partition(", error:")[0].strip()
                password = database.password_file or PASSWORD
                raise ValueError(
                    f"the database of ML Metadata must accept the password of {database.user!r}, "
                    f"and let that user create tables, got {database} ({reason}). Check "
                    f"{password}; the account must log in by mysql_native_password. Let an "
                    f"administrator run: CREATE DATABASE {database.name}; "
                    f"GRANT ALL ON {database.name}.* TO {database.user!r};"
                ) from error
            time.sleep((attempt + secrets.randbelow(1000) / 1000) * 0.2)
    raise AssertionError("unreachable")


def _register(store: "MetadataStore", database: Database, output: Path) -> None:
    """Records whose folder this is, for a person to read; only a user who may write can."""
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
