import errno
import gc
import os
import sys

import keras
import numpy as np
import pytest

from trainer_module.training.checkpoint import Checkpoints, Snapshot, claim


def snapshot(epoch, value=None):
    value = float(epoch) if value is None else value
    return Snapshot(epoch, (np.full((2, 3), value, np.float32),), (np.array(epoch),))


def save(checkpoints, epoch, best):
    checkpoints.save(snapshot(epoch), snapshot(best), {"note": epoch})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_nothing_saved_is_nothing_loaded(tmp_path):
    assert Checkpoints(tmp_path / "new", "a").load() is None


def test_loads_what_was_saved_last(tmp_path):
    checkpoints = Checkpoints(tmp_path, "a")
    save(checkpoints, 1, 1)
    save(checkpoints, 2, 1)
    latest, best, state = Checkpoints(tmp_path, "a").load()
    assert (latest.epoch, best.epoch, state) == (2, 1, {"note": 2})
    np.testing.assert_array_equal(latest.model[0], snapshot(2).model[0])
    np.testing.assert_array_equal(best.model[0], snapshot(1).model[0])


def test_keeps_the_last_two_and_the_best_they_need(tmp_path):
    checkpoints = Checkpoints(tmp_path, "a")
    for epoch, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 5)):
        save(checkpoints, epoch, best)
    assert names(tmp_path) == [
        "best-000002.npz",
        "best-000005.npz",
        "epoch-000004.npz",
        "epoch-000005.npz",
    ]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
@pytest.mark.parametrize("file", ["epoch-000003.npz", "best-000003.npz"])
def test_falls_back_over_a_damaged_file(tmp_path, damage, file):
    checkpoints = Checkpoints(tmp_path, "a")
    for epoch, best in ((1, 1), (2, 2), (3, 3)):
        save(checkpoints, epoch, best)
    path = tmp_path / file
    data = bytearray(path.read_bytes())
    # A byte in the middle of the stored weights, which the archive's checksum covers.
    data[data.index(np.float32(3.0).tobytes() * 6) + 5] ^= 255
    path.write_bytes({"cut": bytes(data[: len(data) // 2]), "flip": data, "empty": b""}[damage])
    resumed = Checkpoints(tmp_path, "a")
    latest, best, _ = resumed.load()
    assert (latest.epoch, best.epoch) == (2, 2)
    # The epoch is trained again, and replaces what is damaged.
    save(resumed, 3, 3)
    latest, best, _ = Checkpoints(tmp_path, "a").load()
    assert (latest.epoch, best.epoch) == (3, 3)


def test_no_damage_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path, "a")
    save(checkpoints, 1, 1)
    save(checkpoints, 2, 1)
    path = tmp_path / "epoch-000002.npz"
    whole = path.read_bytes()
    # What a loss of power leaves.
    path.write_bytes(bytes(len(whole)))
    assert checkpoints.load()[0].epoch == 1
    for place in range(len(whole)):
        value = (0, 255, whole[place] ^ 1)[place % 3]
        path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        assert checkpoints.load()[0].epoch in (1, 2), (place, value)


def test_a_write_that_was_cut_off_leaves_no_trace(tmp_path):
    save(Checkpoints(tmp_path, "a"), 1, 1)
    (tmp_path / ".epoch-000002.npz.part").write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path, "a")
    assert checkpoints.load()[0].epoch == 1
    assert names(tmp_path) == ["best-000001.npz", "epoch-000001.npz"]


# Less than a file's buffer holds, which fails as it is closed, and more.
@pytest.mark.parametrize("values", [6, 100_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, values, monkeypatch):
    checkpoints = Checkpoints(tmp_path, "a")
    save(checkpoints, 1, 1)
    before = names(tmp_path)
    # A device of Linux that is always full.
    (tmp_path / f".epoch-000002.npz.{os.getpid()}.part").symlink_to("/dev/full")
    unheard = []
    monkeypatch.setattr(sys, "unraisablehook", unheard.append)
    latest = Snapshot(2, (np.zeros(values),), ())
    with pytest.raises(OSError) as caught:
        checkpoints.save(latest, snapshot(1), {})
    assert caught.value.errno == errno.ENOSPC
    del caught
    gc.collect()
    assert unheard == []
    assert names(tmp_path) == before
    assert checkpoints.load()[0].epoch == 1


def test_refuses_another_run(tmp_path):
    save(Checkpoints(tmp_path, "a"), 1, 1)
    with pytest.raises(ValueError, match="only with the config, model and data it was started"):
        Checkpoints(tmp_path, "b").load()


def test_snapshot_brings_model_and_optimizer_back():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    ones = [np.ones(v.shape, np.float32) for v in model.trainable_variables]
    optimizer.apply(ones, model.trainable_variables)
    before = Snapshot.take(1, model, optimizer)
    optimizer.apply(ones, model.trainable_variables)
    before.restore_model(model)
    before.restore_optimizer(optimizer)
    after = Snapshot.take(1, model, optimizer)
    for a, b in zip(before.model + before.optimizer, after.model + after.optimizer, strict=True):
        np.testing.assert_array_equal(a, b)


def test_claim_keeps_the_runs_used_last(tmp_path):
    for age, name in enumerate(["d", "c", "b", "a"]):
        claim(tmp_path, name, kept=9)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "a" / "epoch-000001.npz").write_bytes(b"")
    assert claim(tmp_path, "a", kept=3) == tmp_path / "a"
    assert names(tmp_path) == ["a", "c", "d"]
    assert names(tmp_path / "a") == ["epoch-000001.npz"]


def test_claim_keeps_its_own_run_where_the_clock_is_behind_the_others(tmp_path):
    claim(tmp_path, "a")
    (tmp_path / "a" / "epoch-000001.npz").write_bytes(b"")
    for name in "bcd":
        claim(tmp_path, name, kept=9)
        os.utime(tmp_path / name, (2**34, 2**34))
    assert claim(tmp_path, "a", kept=3) == tmp_path / "a"
    assert len(names(tmp_path)) == 3
    assert names(tmp_path / "a") == ["epoch-000001.npz"]
