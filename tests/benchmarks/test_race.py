from types import SimpleNamespace

import pytest

from benchmarks import race


def test_rivals_run_between_our_epochs_and_warmup_is_left_out():
    order = []

    def rival(name, seconds):
        def run(epoch):
            order.append(f"{name}{epoch}")
            return seconds * epoch

        return run

    def train(callback):
        callback.on_train_begin(None)
        for epoch in (1, 2, 3):
            order.append(f"own{epoch}")
            callback.on_epoch_end(SimpleNamespace(epoch=epoch))

    seconds = race.race(train, {"a": rival("a", 1.0), "b": rival("b", 2.0)})
    assert order == ["own1", "a1", "b1", "own2", "a2", "b2", "own3", "a3", "b3"]
    assert seconds["a"] == [2.0, 3.0] and seconds["b"] == [4.0, 6.0]
    assert len(seconds[race.OWN]) == 2


def test_our_time_holds_our_epoch_and_not_the_rivals(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def rival(epoch):
        now[0] += 100
        return 100.0

    def train(callback):
        callback.on_train_begin(None)
        for epoch in (1, 2, 3):
            now[0] += epoch
            callback.on_epoch_end(SimpleNamespace(epoch=epoch))

    assert race.race(train, {"a": rival})[race.OWN] == [2.0, 3.0]


def test_the_fastest_is_found_by_its_median_after_a_warmup():
    times = {"slow start": [99.0, 1.0, 1.0, 1.2], "steady": [0.0, 2.0, 2.0, 0.1]}
    candidates = {name: lambda epoch, t=t: t[epoch - 1] for name, t in times.items()}
    best, medians = race.fastest(candidates, trials=3)
    assert best == "slow start"
    assert medians == pytest.approx({"slow start": 1.0, "steady": 2.0})
