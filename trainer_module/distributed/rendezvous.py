"""Rendezvous of several workers over TCP, before TensorFlow connects them.

TensorFlow waits for a missing worker in silence and holds Python's lock meanwhile, so that not even
a signal handler runs; and it trains whatever it is given. The workers therefore meet at the chief's
address first and compare what they are about to train. The connections stay open while they train:
their end tells at once who has left.

Messages are lines of JSON. Like TensorFlow's own, the connections are not authenticated: who can
reach the ports of a job can disturb it.
"""

import contextlib
import errno
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from trainer_module.distributed.cluster import TF_CONFIG, Place
from trainer_module.util.preemption import EXIT_STATUS, FINAL

WAIT = 600.0
"""Seconds to wait for other workers."""

LOG_EVERY = 10.0
"""Seconds between two lines about missing workers."""

_PROTOCOL = "plateau-rendezvous-2"
_MAX_LINE = 4 * 2**20
_POLL_SECONDS = 0.1
_HELLO_SECONDS = 2.0
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_MAX_DIFFERENCES = 5
_LONGEST_VALUE = 200
_REMEDY = "Give each process an index of its own in TF_CONFIG."
# A connection whose other side is silent for idle + interval * count seconds is broken.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


class ClusterError(Exception):
    """The workers cannot train together.

    Attributes:
        status: Exit status of this process: `EXIT_STATUS` if starting all workers again may help.
    """

    def __init__(self, reason: str, status: int) -> None:
        self.status = status
        super().__init__(reason)


class Connection:
    """Lines of JSON over a non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        sock.setblocking(False)
        self.socket = sock
        self.closed = ""
        self._received = b""

    def send(self, **message: Any) -> None:
        """Sends a message; an error shows when the connection is read."""
        try:
            self.socket.settimeout(_CONNECT_SECONDS)
            self.socket.sendall(json.dumps(message).encode() + b"\n")
            self.socket.setblocking(False)
        except OSError as error:
            self.closed = self.closed or str(error)

    def receive(self) -> list[dict[str, Any]]:
        """Returns the messages that have arrived; sets `closed` at the end of the connection."""
        try:
            while data := self.socket.recv(2**16):
                self._received += data
                if len(self._received) > _MAX_LINE:
                    raise OSError("a message is too long")
            self.closed = self.closed or "the connection was closed"
        except BlockingIOError:
            pass
        except OSError as error:
            self.closed = self.closed or str(error)
        *lines, self._received = self._received.split(b"\n")
        messages = []
        try:
            for line in lines:
                # Another program, such as the gRPC server of TensorFlow in a run that is under way,
                # sends something else.
                messages.append({**json.loads(line)})
        except (ValueError, TypeError, RecursionError):
            self.closed = "the answer is not one of a worker that waits for others"
        return messages

    def close(self) -> None:
        """Closes the socket."""
        self.socket.close()


class Party:
    """The workers that have met, connected through the chief."""

    def __init__(self, place: Place, connections: Mapping[str, Connection]) -> None:
        """Takes over the connections: the chief's to all others, another worker's to the chief."""
        self.is_chief = place.is_chief
        self._place = place
        self._connections = dict(connections)
        self._running = set(connections)

    def lost(self) -> ClusterError | None:
        """Returns why this worker must end, if another one is gone that had not finished."""
        for name in sorted(self._running):
            connection, worker = self._connections[name], self._place.describe(name)
            for message in connection.receive():
                status = message.get("status")
                if status == 0:
                    self._running.discard(name)
                    break
                # As after a signal, starting again may help.
                may_restart = isinstance(status, int) and status > 128
                reason = message.get("reason") or f"{worker} ended with status {status}"
                return ClusterError(str(reason), EXIT_STATUS if may_restart else FINAL)
            else:
                if connection.closed:
                    return ClusterError(f"{worker} is gone: {connection.closed}", EXIT_STATUS)
        return None

    @property
    def waits_for_chief(self) -> bool:
        """Returns True while the chief runs and this is another worker."""
        return not self.is_chief and bool(self._running)

    def finish(self) -> None:
        """Says that this worker has trained to the end; the chief goes on to export the model."""
        if not self.is_chief:
            self._send(0, "")

    def leave(self, status: int, reason: str = "") -> None:
        """Tells the others that this worker ends, with which exit status, and why."""
        self._send(status, reason)
        self.close()

    def close(self) -> None:
        """Closes the connections without a word, as a forked process must."""
        for connection in self._connections.values():
            connection.close()
        self._connections, self._running = {}, set()

    def _send(self, status: int, reason: str) -> None:
        for connection in self._connections.values():
            connection.send(status=status, reason=reason)


def meet(
    place: Place,
    facts: Mapping[str, str],
    *,
    wait: float,
    log: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Party:
    """Waits until all workers have come, and compares what they are about to train.

    Args:
        place: Position of this process.
        facts: What must be the same on all workers: a short text or a digest by name.
        wait: Seconds to wait for the others.
        log: Receives a line about missing workers, every `LOG_EVERY` seconds.
        clock: Seconds, monotonic.

    Raises:
        ClusterError: A fact differs, or not all workers came within `wait` seconds; all workers
            raise it.
    """
    # Two jobs whose workers mistake each other's addresses would otherwise mix.
    facts = {TF_CONFIG: ", ".join(map(place.describe, place.addresses)), **facts}
    meeting = _Meeting(place, facts, wait, log, clock)
    return meeting.gather() if place.is_chief else meeting.join()


class _Meeting:
    """The time before all workers have come."""

    def __init__(
        self,
        place: Place,
        facts: Mapping[str, str],
        wait: float,
        log: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._place, self._facts = place, {place.name: dict(facts)}
        self._wait, self._log, self._clock = wait, log, clock
        self._start = self._logged = clock()
        self._workers: dict[str, Connection] = {}

    @property
    def _others(self) -> list[str]:
        return [name for name in self._place.addresses if name != self._place.name]

    def gather(self) -> Party:
        """The chief's part: waits for all others, and tells them to start."""
        listener: socket.socket | None = None
        missing = reason = ""
        try:
            while absent := [name for name in self._others if name not in self._workers]:
                before, missing = missing, ", ".join(map(self._place.describe, absent)) + reason
                self._check_time(missing)
                if listener is None:
                    listener, reason = _listen(*self._place.addresses[self._place.name])
                    continue
                if missing != before:
                    self._tell(missing=missing)
                with contextlib.suppress(TimeoutError):
                    self._introduce(Connection(listener.accept()[0]))
                for name, connection in list(self._workers.items()):
                    if connection.receive() or connection.closed:
                        self._workers.pop(name).close()
            if difference := self._difference():
                raise ClusterError(difference, FINAL)
            self._tell(start=True)
        except BaseException as error:
            if isinstance(error, ClusterError):
                self._tell(status=error.status, reason=str(error))
            for connection in self._workers.values():
                connection.close()
            raise
        finally:
            # The port is TensorFlow's from here on.
            if listener:
                listener.close()
        return Party(self._place, self._workers)

    def join(self) -> Party:
        """The part of another worker: connects to the chief, and waits until all have come."""
        chief = self._place.describe(self._place.chief)
        connection, missing = None, chief
        try:
            while True:
                self._check_time(missing)
                try:
                    connection = connection or self._connect()
                    messages = connection.receive()
                    if connection.closed and not messages:
                        raise ConnectionError(connection.closed)
                except OSError as error:
                    missing = f"{chief}: {error}"
                    if connection:
                        connection.close()
                    connection, messages = None, []
                for message in messages:
                    if message.get("start") and connection:
                        return Party(self._place, {self._place.chief: connection})
                    if status := message.get("status"):
                        raise ClusterError(str(message.get("reason")), int(status))
                    missing = str(message.get("missing", missing))
                time.sleep(_POLL_SECONDS if connection else _RETRY_SECONDS)
        except BaseException:
            if connection:
                connection.close()
            raise

    def _check_time(self, missing: str) -> None:
        """Raises ClusterError if the time is over; logs who is missing if it is time to."""
        now, name = self._clock(), self._place.name
        waited = now - self._start
        if waited >= self._wait:
            raise ClusterError(
                f"all workers must be there within {self._wait:g} seconds (--wait), but {name} "
                f"missed {missing}. Start all workers that TF_CONFIG lists; each needs to reach "
                "the chief's address.",
                EXIT_STATUS,
            )
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            self._log(f"{name} has waited {waited:.0f} s for {missing}")

    def _connect(self) -> Connection:
        address = self._place.addresses[self._place.chief]
        connection = Connection(socket.create_connection(address, timeout=_CONNECT_SECONDS))
        connection.send(
            protocol=_PROTOCOL, name=self._place.name, facts=self._facts[self._place.name]
        )
        return connection

    def _tell(self, **message: Any) -> None:
        for connection in self._workers.values():
            connection.send(**message)

    def _introduce(self, connection: Connection) -> None:
        """Takes in a worker by its first message; closes the connection of anybody else."""
        limit = time.monotonic() + _HELLO_SECONDS
        while not (messages := connection.receive()) and not connection.closed:
            if time.monotonic() > limit:
                break
            time.sleep(_POLL_SECONDS / 10)
        hello = messages[0] if messages else {}
        name, facts = hello.get("name"), hello.get("facts")
        if hello.get("protocol") != _PROTOCOL or not isinstance(facts, dict):
            connection.close()
        elif name not in self._others:
            _refuse(connection, f"{self._place.name} knows no other {name!r}")
        else:
            if name in self._workers:
                # One that was started again comes while its former connection still looks whole.
                _refuse(self._workers[name], f"another process came as {name}")
            self._workers[name], self._facts[name] = connection, facts

    def _difference(self) -> str:
        """Returns in a sentence how the facts of the workers differ; "" if they do not."""
        chief, expected = self._place.name, self._facts[self._place.name]
        differences = [
            f"{fact} is {_short(self._facts[name].get(fact))} on {self._place.describe(name)}"
            f" and {_short(expected.get(fact))} on {self._place.describe(chief)}"
            for name in self._others
            for fact in sorted({*expected, *self._facts[name]})
            if self._facts[name].get(fact) != expected.get(fact)
        ]
        if not differences:
            return ""
        more = len(differences) - _MAX_DIFFERENCES
        return (
            f"all workers must train the same, but {'; '.join(differences[:_MAX_DIFFERENCES])}"
            f"{f'; and {more} more' if more > 0 else ''}. "
            "Give all of them the same image, flags and files."
        )


def _short(value: object) -> str:
    return "absent" if value is None else str(value)[:_LONGEST_VALUE]


def _refuse(connection: Connection, reason: str) -> None:
    connection.send(status=FINAL, reason=f"{reason}. {_REMEDY}")
    connection.close()


def _listen(host: str, port: int) -> tuple[socket.socket | None, str]:
    """Returns a listening socket, or None after a pause and why there is none."""
    error: OSError | None = None
    # The own address may be one that only others know, as behind a Service.
    for address in (host, ""):
        try:
            name = address or "0.0.0.0"  # noqa: S104
            family = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((address, port), family=family)
        except OSError as failed:
            error = error or failed
            if failed.errno == errno.EADDRINUSE:
                break
        else:
            listener.settimeout(_POLL_SECONDS)
            return listener, ""
    time.sleep(_RETRY_SECONDS)
    return None, f" (and cannot listen on port {port}: {error}; is a process there already?)"
