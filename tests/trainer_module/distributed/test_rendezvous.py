"""Workers of one process each, here threads, meet over the loopback interface."""

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainer_module.distributed import rendezvous
from trainer_module.distributed.cluster import Place
from trainer_module.distributed.rendezvous import ClusterError, meet
from trainer_module.util.preemption import EXIT_STATUS, FINAL

FACTS = {"config loop.seed": "0", "the training examples": "sha256:1"}


@pytest.fixture
def places() -> list[Place]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        addresses = {f"worker {i}": free.getsockname() for i, free in enumerate(sockets)}
    return [Place(name, addresses) for name in addresses]


def meet_all(places, facts=(FACTS,) * 3, waits=(30.0,) * 3, logs=None):
    logs = logs or [[] for _ in places]
    with ThreadPoolExecutor() as pool:
        return [
            pool.submit(meet, place, its, wait=wait, log=log.append)
            for place, its, wait, log in zip(places, facts, waits, logs, strict=False)
        ]


def lost(party):
    """Status and reason that a party reports within seconds."""
    for _ in range(500):
        if error := party.lost():
            return error.status, str(error)
        threading.Event().wait(0.01)
    return None


def test_workers_that_agree_meet_and_the_port_is_free_again(places):
    parties = [future.result() for future in meet_all(places)]
    # As TensorFlow's server does, while the connections are open.
    with socket.create_server(places[0].addresses["worker 0"]):
        assert all(party.lost() is None for party in parties)
    for party in parties:
        party.close()


def test_what_differs_is_named_on_all(places):
    facts = [FACTS, FACTS, {**FACTS, "config loop.seed": "1"}]
    for future in meet_all(places, facts):
        with pytest.raises(ClusterError) as error:
            future.result()
        assert error.value.status == FINAL
        port = places[2].addresses["worker 2"][1]
        assert str(error.value).startswith(
            f"all workers must train the same, but config loop.seed is 1 on worker 2 "
            f"(127.0.0.1:{port}) and 0 on worker 0"
        )


def test_other_addresses_are_a_difference(places):
    other = Place("worker 1", {**places[1].addresses, "worker 2": ("127.0.0.1", 1)})
    for future in meet_all([places[0], other, places[2]]):
        with pytest.raises(ClusterError, match="TF_CONFIG is worker 0"):
            future.result()


def test_the_missing_are_named_while_others_wait_and_at_the_end(places, monkeypatch):
    monkeypatch.setattr(rendezvous, "LOG_EVERY", 0.2)
    logs = [[], []]
    futures = meet_all(places[:2], waits=(2.5, 30.0), logs=logs)
    for future, log in zip(futures, logs, strict=True):
        with pytest.raises(
            ClusterError, match=r"within 2.5 seconds \(--wait\).* missed worker 2 "
        ) as error:
            future.result()
        assert error.value.status == EXIT_STATUS
        assert any("s for worker 2 (127.0.0.1:" in line for line in log)
        assert not any("worker 1 (" in line for line in log[-1:])


@pytest.mark.parametrize(
    ("address", "reason"), [(("127.0.0.1", 1), "refused"), (("no-such-host.invalid", 1), "resol")]
)
def test_why_the_chief_cannot_be_reached_is_said(places, address, reason):
    place = Place("worker 1", {**places[1].addresses, "worker 0": address})
    with pytest.raises(ClusterError, match=f"missed worker 0 .*{address[0]}:1.*(?i:{reason}|name)"):
        meet(place, FACTS, wait=1.5, log=print)


def test_a_second_chief_on_the_same_machine_says_that_the_port_is_taken(places):
    with (
        socket.create_server(places[0].addresses["worker 0"]),
        pytest.raises(ClusterError, match="is a process there already"),
    ):
        meet(places[0], FACTS, wait=0.5, log=print)


def test_strangers_are_turned_away(places):
    strange = [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"[" * 99_999 + b"\n", b"{}\n", b"\0" * 9]
    stop = threading.Event()

    def disturb():
        while not stop.wait(0.05):
            for text in strange:
                with contextlib.suppress(OSError):
                    s = socket.create_connection(places[0].addresses["worker 0"], timeout=1)
                    s.sendall(text)
                    s.close()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        futures = meet_all(places)
    finally:
        stop.set()
        thread.join()
    for future in futures:
        future.result().close()


def test_of_two_processes_with_one_index_the_older_is_told(places):
    with ThreadPoolExecutor() as pool:
        chief = pool.submit(meet, places[0], FACTS, wait=30, log=print)
        twins = [pool.submit(meet, places[1], FACTS, wait=30, log=print) for _ in range(2)]
        while not any(twin.done() for twin in twins):
            threading.Event().wait(0.05)
        third = pool.submit(meet, places[2], FACTS, wait=30, log=print)
        (older,) = [twin for twin in twins if isinstance(twin.exception(), ClusterError)]
        assert "another process came as worker 1" in str(older.exception())
    (newer,) = [twin for twin in twins if twin is not older]
    for future in (chief, newer, third):
        future.result().close()


def test_the_end_of_a_worker_reaches_all_with_its_reason(places):
    chief, one, two = [future.result() for future in meet_all(places)]
    one.leave(0)
    assert chief.lost() is None
    two.leave(2)
    status, why = lost(chief)
    assert status == 2
    assert why.startswith("worker 2 (127.0.0.1:")
    assert why.endswith("ended with status 2")
    chief.close()


def test_a_worker_that_dies_is_named_to_those_it_never_spoke_to(places):
    chief, one, two = [future.result() for future in meet_all(places)]
    two.close()
    status, why = lost(chief)
    assert status == 143
    assert "worker 2" in why
    assert "is gone" in why
    chief.leave(status, why)
    assert lost(one) == (status, why)
    one.close()


def test_a_worker_that_has_finished_waits_for_the_chief(places):
    chief, one, two = [future.result() for future in meet_all(places)]
    for worker in (one, two):
        worker.finish()
        assert worker.waits_for_chief
    two.close()
    assert chief.lost() is None
    assert not chief.waits_for_chief
    chief.leave(0)
    assert one.lost() is None
    assert not one.waits_for_chief
    one.leave(0)
