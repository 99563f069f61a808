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
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trainer_module.distributed.cluster import TF_CONFIG, Place
from trainer_module.util.preemption import EXIT_STATUS, FINAL

WAIT = 600.0
"""Seconds to wait for other workers."""

SAY_EVERY = 10.0
"""Seconds between two lines about who is missing."""

_PROTOCOL = "plateau-rendezvous-1"
_MAX_LINE = 4 * 2**20
_MAX_STRANGERS = 64
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_NAMED = 5
_REMEDY = "Give each process an index of its own in TF_CONFIG."
# A connection whose other side is silent for idle + interval * count seconds is broken.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


class DisagreementError(ValueError):
    """The workers are not about to train the same."""


class AbsentError(Exception):
    """Not all workers came in time."""


class DismissedError(Exception):
    """The chief does alone what is left to do."""


class Connection:
    """Lines of JSON over a socket that does not block."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.socket = sock
        self.closed = ""
        self._received = b""

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; an error shows when the connection is read."""
        try:
            self.socket.settimeout(_CONNECT_SECONDS)
            self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            self.closed = self.closed or str(error)
        finally:
            self.socket.setblocking(False)

    def receive(self) -> list[dict[str, Any]]:
        """Returns the messages that have arrived; sets `closed` at the end of the connection."""
        try:
            while data := self.socket.recv(2**16):
                self._received += data
                if len(self._received) > _MAX_LINE:
                    self.closed = "a message is too long"
                    break
            else:
                self.closed = self.closed or "the connection was closed"
        except BlockingIOError:
            pass
        except OSError as error:
            self.closed = self.closed or str(error)
        *lines, self._received = self._received.split(b"\n")
        messages = []
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                # Another program, such as the gRPC server of TensorFlow in a run that is under way.
                self.closed = "the answer is not one of a worker that waits for others"
                break
            messages.append(message)
        return messages

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class Party:
    """The workers that have met, connected through the chief."""

    def __init__(self, place: Place, connections: Mapping[str, Connection]) -> None:
        """Take over the connections.

        Args:
            place: Position of this process.
            connections: Connections to the other workers by name; to the chief only, unless this
                is the chief.
        """
        self._place = place
        self._connections = dict(connections)

    def lost(self) -> tuple[int, str] | None:
        """Status to end with and why, if a worker is gone that had not finished; else None."""
        for name, connection in list(self._connections.items()):
            who = self._place.describe(name)
            for message in connection.receive():
                status = message.get("status")
                if status == 0:
                    connection.close()
                    del self._connections[name]
                    break
                why = message.get("why") or f"{who} ended with status {status}"
                # As after a signal, which another start may be spared.
                again = isinstance(status, int) and status > 128
                return EXIT_STATUS if again else FINAL, str(why)
            else:
                if connection.closed:
                    return EXIT_STATUS, f"{who} is gone: {connection.closed}"
        return None

    @property
    def is_chief(self) -> bool:
        """Whether this process is the chief."""
        return self._place.is_chief

    @property
    def connected(self) -> bool:
        """Whether this worker still needs others."""
        return bool(self._connections)

    def leave(self, status: int, why: str = "") -> None:
        """Tell the others that this worker ends, or with status 0 that it needs them no longer.

        Args:
            status: Exit status.
            why: Reason, if it lies with another worker.
        """
        for connection in self._connections.values():
            connection.send({"status": status, "why": why})
        self.close()

    def close(self) -> None:
        """Close the connections without a word, as a forked process must."""
        for connection in self._connections.values():
            connection.close()
        self._connections = {}


def meet(
    place: Place,
    facts: Mapping[str, str],
    *,
    wait: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Party:
    """Wait until all workers are there, and compare what they are about to train.

    Args:
        place: Position of this process.
        facts: What must be the same on all workers: a short text or a digest by name.
        wait: Seconds to wait for the others.
        say: Receives a line about who is missing, every `SAY_EVERY` seconds.
        clock: Seconds, monotonic.

    Raises:
        DisagreementError: A fact differs; all workers raise it.
        AbsentError: Not all workers came within `wait` seconds.
        DismissedError: The run is over but for the export.
    """
    # Two jobs whose workers mistake each other's addresses would otherwise mix.
    addresses = ", ".join(map(place.describe, place.addresses))
    facts = {TF_CONFIG: addresses, **facts}
    patience = _Patience(place, wait, say, clock)
    if place.is_chief:
        return _receive(place, facts, patience)
    return _visit(place, facts, patience)


@contextlib.contextmanager
def dismissing(place: Place) -> Iterator[None]:
    """Tell workers that come within the context that the chief needs them no longer.

    Args:
        place: Position of this process, the chief.
    """
    over = threading.Event()

    def dismiss(listener: socket.socket) -> None:
        with listener:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    connection = Connection(listener.accept()[0])
                    connection.send({"status": 0})
                    connection.close()

    listener, _ = _listen(*place.addresses[place.name])
    thread = None
    if listener:
        listener.settimeout(_RETRY_SECONDS)
        thread = threading.Thread(target=dismiss, args=(listener,), daemon=True)
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread:
            thread.join()


@contextlib.contextmanager
def guarded(party: Party) -> Iterator[None]:
    """Ends this process if another worker is gone within the context; leaves the party after it.

    For a process that cannot be forked. A worker leaves after the chief, whose model it may need.

    Args:
        party: Connections to the other workers.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_RETRY_SECONDS):
            if lost := party.lost():
                print(f"error: {lost[1]}", file=sys.stderr, flush=True)
                party.leave(*lost)
                os._exit(lost[0])

    thread = threading.Thread(target=watch, name="worker-watch", daemon=True)
    thread.start()
    status = FINAL
    try:
        yield
        while not party.is_chief and party.connected:
            time.sleep(_RETRY_SECONDS)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else FINAL
        raise
    finally:
        over.set()
        thread.join()
        party.leave(status)


def difference(names: Mapping[str, str], facts: Mapping[str, Mapping[str, str]]) -> str:
    """What differs between workers, in a sentence; empty if nothing does.

    Args:
        names: How to name each worker, the chief first.
        facts: Facts of each worker, by its name and theirs.
    """
    (chief, expected), *others = ((names[name], facts[name]) for name in names)
    found = [
        f"{key} is {_shown(values.get(key))} on {name} and {_shown(expected.get(key))} on {chief}"
        for name, values in others
        for key in sorted({*expected, *values})
        if expected.get(key) != values.get(key)
    ]
    if not found:
        return ""
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f"all workers must train the same, but {'; '.join(found[:_NAMED])}{more}. "
        "Give all of them the same image, flags and files."
    )


def _shown(value: str | None) -> str:
    return "absent" if value is None else value[:200]


class _Patience:
    """How long to wait yet, and what to say meanwhile."""

    def __init__(
        self, place: Place, wait: float, say: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._place = place
        self._wait = wait
        self._say = say
        self._clock = clock
        self._started = self._said = clock()
        self.missing = ""

    def check(self) -> None:
        """Say who is missing if it is time to.

        Raises:
            AbsentError: The time is over.
        """
        now = self._clock()
        waited = now - self._started
        if waited >= self._wait:
            raise AbsentError(
                f"all workers must be there within {self._wait:g} seconds (--wait), "
                f"but {self._place.name} missed {self.missing}. "
                "Start all workers that TF_CONFIG lists; each needs to reach the chief's address."
            )
        if now - self._said >= SAY_EVERY:
            self._said = now
            self._say(f"{self._place.name} has waited {waited:.0f} s for {self.missing}")


def _receive(place: Place, facts: Mapping[str, str], patience: _Patience) -> Party:
    """The chief's part."""
    known: dict[str, tuple[Connection, dict[str, str]]] = {}
    strangers: list[Connection] = []
    listener: socket.socket | None = None
    reason = ""

    def absent() -> list[str]:
        return [name for name in place.addresses if name != place.name and name not in known]

    try:
        told = ""
        while absent():
            patience.missing = ", ".join(map(place.describe, absent())) + reason
            patience.check()
            if listener is None:
                listener, reason = _listen(*place.addresses[place.name])
                if listener is None:
                    time.sleep(_RETRY_SECONDS)
                    continue
            if patience.missing != told:
                told = patience.missing
                for connection, _ in known.values():
                    connection.send({"missing": told})
            if _ready([listener, *(c.socket for c in strangers)], known) is listener:
                strangers.append(Connection(listener.accept()[0]))
            for name in [name for name, (c, _) in known.items() if c.receive() or c.closed]:
                known.pop(name)[0].close()
            strangers = _introduce(place, strangers, known)
        wrong = difference(
            {name: place.describe(name) for name in place.addresses},
            {place.name: facts, **{name: its for name, (_, its) in known.items()}},
        )
        for connection, _ in known.values():
            connection.send({"different": wrong} if wrong else {"start": True})
        if wrong:
            raise DisagreementError(wrong)
        return Party(place, {name: known.pop(name)[0] for name in list(known)})
    except AbsentError as error:
        for connection, _ in known.values():
            connection.send({"absent": str(error)})
        raise
    finally:
        # The port is TensorFlow's from here on.
        if listener:
            listener.close()
        for connection in [*strangers, *(c for c, _ in known.values())]:
            connection.close()


def _introduce(
    place: Place,
    strangers: list[Connection],
    known: dict[str, tuple[Connection, dict[str, str]]],
) -> list[Connection]:
    """Those who have not said who they are yet; the others are known from here on."""
    silent = []
    others = set(place.addresses) - {place.name}
    for connection in strangers:
        messages = connection.receive()
        if connection.closed or len(strangers) > _MAX_STRANGERS:
            connection.close()
            continue
        if not messages:
            silent.append(connection)
            continue
        name, facts = str(messages[0].get("name")), messages[0].get("facts")
        is_worker = messages[0].get("protocol") == _PROTOCOL
        if not (is_worker and name in others and isinstance(facts, dict)):
            if is_worker:
                connection.send({"different": f"{place.name} knows no other {name!r}. {_REMEDY}"})
            connection.close()
            continue
        if name in known:
            # One that was started again comes while its former connection still looks whole.
            known[name][0].send({"different": f"another process came as {name}. {_REMEDY}"})
            known[name][0].close()
        known[name] = connection, facts
    return silent


def _listen(host: str, port: int) -> tuple[socket.socket | None, str]:
    """A listening socket, or why there is none yet."""
    error: OSError | None = None
    # The own address may be one that only others know, as behind a Service.
    for address in (host, ""):
        try:
            name = address or "0.0.0.0"  # noqa: S104
            family = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((address, port), family=family), ""
        except OSError as failed:
            error = error or failed
            if failed.errno == errno.EADDRINUSE:
                break
    return None, f" (and cannot listen on port {port}: {error}; is a process there already?)"


def _ready(
    sockets: list[socket.socket], known: Mapping[str, tuple[Connection, Any]]
) -> socket.socket | None:
    """Wait for something to happen; the first of `sockets` if that is what is ready."""
    with selectors.DefaultSelector() as selector:
        for sock in [*sockets, *(c.socket for c, _ in known.values())]:
            selector.register(sock, selectors.EVENT_READ)
        ready = [key.fileobj for key, _ in selector.select(_RETRY_SECONDS)]
    return sockets[0] if sockets[0] in ready else None


def _visit(place: Place, facts: Mapping[str, str], patience: _Patience) -> Party:
    """The part of a worker that is not the chief."""
    chief = place.describe(place.chief)
    connection: Connection | None = None
    reason = ""
    try:
        while True:
            if connection is None:
                patience.missing = f"{chief}{reason and f': {reason}'}"
                patience.check()
                try:
                    sock = socket.create_connection(
                        place.addresses[place.chief], timeout=_CONNECT_SECONDS
                    )
                except OSError as error:
                    reason = str(error)
                    time.sleep(_RETRY_SECONDS)
                    continue
                connection = Connection(sock)
                connection.send({"protocol": _PROTOCOL, "name": place.name, "facts": facts})
            patience.check()
            _ready([connection.socket], {})
            for message in connection.receive():
                if message.get("status") == 0:
                    raise DismissedError(f"{chief} needs no other worker any more")
                if message.get("start"):
                    party = Party(place, {place.chief: connection})
                    connection = None
                    return party
                if message.get("different"):
                    raise DisagreementError(str(message["different"]))
                if message.get("absent"):
                    raise AbsentError(str(message["absent"]))
                patience.missing = str(message.get("missing", patience.missing))
            if connection.closed:
                reason = connection.closed
                connection.close()
                connection = None
                time.sleep(_RETRY_SECONDS)
    finally:
        if connection:
            connection.close()
