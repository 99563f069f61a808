"""A real MariaDB of one's own: its data in a folder that goes with it, reached on loopback only."""

import contextlib
import getpass
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

USER = "ana"
# What a shell, a URL or SQL would take for something else, and a letter outside ASCII.
PASSWORD = "s3cret é'\"@/:%"
READER, READER_PASSWORD = "ruth", "r3ader"
DATABASE = "plateau"
_SECONDS = 60


def missing() -> str | None:
    """Why there can be no server here; None if there can."""
    for name in ("mariadbd", "mariadb-install-db"):
        if _program(name) is None:
            return f"{name} is not installed (Debian: mariadb-server)"
    return None


class Server:
    """A server that is started, stopped and started again on one port.

    The account `USER` may do everything in `DATABASE` and in any whose name begins with it;
    `READER` may only read there.
    """

    def __init__(self) -> None:
        # Not pytest's folder: the path of a socket may have some hundred characters only.
        self._folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as channel:
            channel.bind(("127.0.0.1", 0))
            self.port: int = channel.getsockname()[1]
        _run(
            "mariadb-install-db",
            *self._common,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        everything = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, REFERENCES"
        self._init = self._folder / "init.sql"
        self._init.write_text(
            f"""\
CREATE DATABASE IF NOT EXISTS {DATABASE} CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{_quoted(PASSWORD)}';
CREATE USER IF NOT EXISTS '{READER}'@'127.0.0.1' IDENTIFIED BY '{READER_PASSWORD}';
GRANT {everything} ON `{DATABASE}%`.* TO '{USER}'@'127.0.0.1';
GRANT SELECT ON `{DATABASE}%`.* TO '{READER}'@'127.0.0.1';
""",
            encoding="utf-8",
        )

    @property
    def _common(self) -> list[str]:
        # Nothing of this machine's configuration; first, or it is not understood.
        data = self._folder / "data"
        return ["--no-defaults", f"--datadir={data}", f"--user={getpass.getuser()}"]

    def url(self, user: str = USER, database: str = DATABASE, host: str = "127.0.0.1") -> str:
        """Where it is, as the flag takes it."""
        return f"mysql://{user}@{host}:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(_program("mariadbd")),
                    *self._common,
                    f"--socket={self._folder / 'socket'}",
                    f"--pid-file={self._folder / 'pid'}",
                    f"--init-file={self._init}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    "--skip-networking=0",
                    "--skip-name-resolve",
                    "--character-set-server=utf8mb4",
                    "--innodb-flush-log-at-trx-commit=2",
                ],
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 1) as channel,
            ):
                if channel.recv(1):
                    return
            time.sleep(0.1)
        raise AssertionError((self._folder / "log").read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        """Stop, if it runs; what was committed stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_SECONDS)
            self._process = None

    def remove(self) -> None:
        """Stop, and take the data away."""
        self.stop()
        shutil.rmtree(self._folder)

    def sql(self, statement: str) -> str:
        """Run a statement as the administrator; rows by line, columns by tab."""
        socket_file = self._folder / "socket"
        words = ["--no-defaults", "-u", "root", "-N", "-S", str(socket_file), "-e", statement]
        return _run("mariadb", *words)

    def dump(self, database: str = DATABASE) -> str:
        """All that is in a database, as SQL."""
        socket_file = self._folder / "socket"
        words = ["--no-defaults", "-u", "root", "-S", str(socket_file), database]
        return _run("mariadb-dump", *words)


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _program(name: str) -> str | None:
    # Debian has the server where only the administrator's PATH leads.
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def _run(name: str, *words: str) -> str:
    command = [str(_program(name)), *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
