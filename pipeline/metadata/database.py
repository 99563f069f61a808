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
from trainer_module.util.checks import UserError, chain, require

if TYPE_CHECKING:
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto.metadata_store_pb2 import ConnectionConfig

FILE_NAME = "metadata.json"
"""File of an output folder that names the database of its runs."""

PASSWORD = "PLATEAU_METADATA_PASSWORD"
"""Environment variable with the database's password."""

FOLDER = "plateau.Folder"
"""Type of the ML Metadata contexts that stand for output folders."""

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
# Errors of the first runs in an empty database, which create its tables at the same time.
_CONFLICT = re.compile(r"subset of tables|already exist|Duplicate|Deadlock|retry", re.IGNORECASE)


class ConnectionLostError(UserError):
    """The connection to the database was lost during a run."""


@dataclass(frozen=True)
class Database:
    """A database, and which of its runs are those of one output folder."""

    user: str
    host: str
    port: int
    name: str
    folder: str = ""
    """Random identifier of the output folder; empty for a database without one."""
    password_file: Path | None = None
    """File with the password; None for the environment variable."""

    def __str__(self) -> str:
        """Returns the URL, which has no password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mysql://{quote(self.user, safe='')}@{host}:{self.port}/{self.name}"

    def mark(self, name: str) -> str:
        """Returns a name that no other output folder has in this database."""
        return f"{name}-{self.folder}"

    def owns(self, name: str) -> bool:
        """Returns True for a name that `mark` gave in this output folder."""
        return name.endswith(f"-{self.folder}")


def parse(url: str) -> Database:
    """Returns the database of a URL, mysql://USER@HOST[:PORT]/DATABASE."""
    parts = _URL.fullmatch(url)
    # The error does not repeat the URL, which may hold a password.
    port = int((parts and parts["port"]) or 3306)
    require(
        parts is not None and 0 < port < 65536,
        "`metadata` must be mysql://USER@HOST[:PORT]/DATABASE, with a database of letters, digits, "
        "_ and $, and without a password",
        "another form",
        f"Put the password into {PASSWORD}, or name a file with `metadata_password_file`.",
    )
    assert parts is not None
    host = parts["host"].strip("[]").lower()
    return Database(unquote(parts["user"]), host, port, parts["name"])


def remembered(output: Path) -> Database | None:
    """Returns the database of an output folder's runs; None if it has none."""
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
        raise UserError(
            f"{FILE_NAME} must say which database the runs are in",
            str(file),
            "It is damaged: restore it, or give the run another folder with `output`.",
        ) from error


def choose(
    url: str | None, password_file: Path | None, output: Path, *, has_file: bool
) -> Database | None:
    """Returns the database that the flags or the output folder name; None for a SQLite file."""
    earlier = remembered(output)
    new = parse(url) if url is not None else earlier
    if new is None:
        require(
            password_file is None,
            "`metadata_password_file` needs a database",
            str(password_file),
            "Name one with `metadata`.",
        )
        return None
    require(
        earlier is not None or not has_file,
        "`metadata` must be left out for an output folder whose runs are in a file",
        str(output),
        "Leave it out, or give the run another folder with `output`.",
    )
    earlier = earlier or replace(new, folder=secrets.token_hex(4))
    require(
        (new.host, new.port, new.name) == (earlier.host, earlier.port, earlier.name),
        f"`metadata` must name the database of the output folder's earlier runs, {earlier}",
        str(new),
        "Give the run another folder with `output`, or, where the database has moved, "
        f"write its new place into {output / FILE_NAME}.",
    )
    file = password_file.expanduser().absolute() if password_file else earlier.password_file
    return replace(earlier, user=new.user, password_file=file)


@contextlib.contextmanager
def ready(database: Database, output: Path) -> Iterator[None]:
    """Checks that a database can be used, and lets TFX connect to it within the context.

    The output folder, whose lock the caller holds, remembers the database from here on.
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
        with files.atomic(output / FILE_NAME) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
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
    """Opens ML Metadata."""
    try:
        # The client library waits without end for a server that does not answer.
        with socket.create_connection((database.host, database.port), _CONNECT_SECONDS) as channel:
            if not channel.recv(1):
                raise ConnectionError("no answer")
    except OSError as error:
        raise UserError(
            f"the server of ML Metadata's database must be reachable ({error.strerror or error})",
            str(database),
            "Check `metadata`, and that the server runs and takes connections from this machine.",
        ) from error
    with _password_set(database), quiet():
        from ml_metadata.metadata_store import MetadataStore

        return _retried(lambda: MetadataStore(connection(database)), database)


def lost(error: BaseException, database: Database) -> ConnectionLostError | None:
    """Returns a readable error if the error, or its cause, is a lost connection; else None."""
    for link in chain(error):
        # Of ML Metadata's client, or of TFX's connection.
        is_metadata = type(link) is RuntimeError or type(link).__module__ == "ml_metadata.errors"
        if is_metadata and _LOST.search(str(link)):
            return ConnectionLostError(
                "the connection to ML Metadata's database must last for the run",
                f"{database}, which was lost",
                "Start the server, and run the same command again: it resumes.",
            )
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


@contextlib.contextmanager
def _password_set(database: Database) -> Iterator[None]:
    """Sets the password of the file, or else of our variable, for the client library."""
    file = database.password_file
    password = os.environ.get(PASSWORD, "")
    if file is not None and (file.exists() or PASSWORD not in os.environ):
        try:
            password = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                "`metadata_password_file` must be a text file that can be read",
                str(file),
                f"Name another one, or put the password into {PASSWORD}.",
            ) from error
    before = os.environ.get(_CLIENT_PASSWORD)
    os.environ[_CLIENT_PASSWORD] = password
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CLIENT_PASSWORD]
        else:
            os.environ[_CLIENT_PASSWORD] = before


def _retried(call: Callable[[], Any], database: Database) -> Any:
    """Returns what a call returns, repeated while other runs create the tables."""
    from ml_metadata import errors

    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except (RuntimeError, errors.StatusError) as error:
            if not _CONFLICT.search(str(error)) or attempt == _ATTEMPTS - 1:
                # The client gives its reason twice.
                reason = str(error).rpartition("errno: ")[2].partition(", error:")[0].strip()
                raise UserError(
                    f"the database of ML Metadata must accept the password of {database.user!r}, "
                    f"and let that user create tables ({reason})",
                    str(database),
                    f"Check {database.password_file or PASSWORD}; the account must log in by "
                    f"mysql_native_password. Let an administrator run: "
                    f"CREATE DATABASE {database.name}; "
                    f"GRANT ALL ON {database.name}.* TO {database.user!r};",
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
