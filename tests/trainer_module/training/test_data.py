from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from examples import example, picture, write_records
from trainer_module.config import ImageFeatures
from trainer_module.training.data import (
    Split,
    evaluation_dataset,
    read_split,
    records_at_once,
    rows,
    training_factory,
)


def numbered(count: int, side: int = 4) -> Split:
    """Pictures that hold their own number."""
    x = (
        np.zeros((count, side, side, 1), np.uint8)
        + np.arange(count, dtype=np.uint8)[:, None, None, None]
    )
    return Split(x, np.arange(count, dtype=np.int64))


def epoch_of(factory, batch_size, epoch):
    return [(x.numpy(), y.numpy()) for x, y in factory(batch_size, epoch)]


@pytest.mark.parametrize("cache_mib", [1, 1024])
def test_reads_every_record_once_in_order(tmp_path, image_records, image_transform, cache_mib):
    path = write_records(tmp_path / "a.gz", image_records)
    split = read_split([path], image_transform, is_image=True, cache_mib=cache_mib)
    assert split.x.shape == (40, 8, 8, 3)
    assert split.x.dtype == np.uint8
    assert split.y.tolist() == [0, 1] * 20
    assert ((split.x.mean((1, 2, 3)) > 128) == (split.y == 1)).all()


def test_a_split_over_the_budget_stays_a_file_and_gives_the_same_batches(
    tmp_path, image_records, image_transform
):
    path = write_records(tmp_path / "a.gz", image_records * 200)
    args = {"is_image": True}
    in_memory = read_split([path], image_transform, cache_mib=100, **args)
    on_disk = read_split([path], image_transform, cache_mib=1, **args)
    assert isinstance(on_disk.x, np.memmap)
    assert not isinstance(in_memory.x, np.memmap)
    factories = [training_factory(s, ImageFeatures(), 0) for s in (in_memory, on_disk)]
    for (x, y), (other_x, other_y) in zip(
        epoch_of(factories[0], 999, 1), epoch_of(factories[1], 999, 1), strict=True
    ):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)


@pytest.mark.parametrize(
    ("sizes", "count"), [([900] * 16, 256), ([10**6, 4 * 10**6], 4), ([10**8], 1), ([], 256)]
)
def test_few_large_records_are_decoded_together(sizes, count):
    assert records_at_once(sizes) == count


def test_an_unknown_label_is_counted_and_refused(tmp_path, image_transform):
    records = [
        example(image=picture(1), label=label, file_name=b"a") for label in (b"dark", b"odd")
    ]
    path = write_records(tmp_path / "a.gz", records)
    with pytest.raises(ValueError, match="1 of 2 examples with another label"):
        read_split([path], image_transform, is_image=True, cache_mib=1)


def test_an_empty_split_is_refused(tmp_path, image_transform):
    path = write_records(tmp_path / "a.gz", [])
    with pytest.raises(ValueError, match="at least one example"):
        read_split([path], image_transform, is_image=True, cache_mib=1)


def test_batches_are_whole_and_the_rest_differs_by_epoch():
    factory = training_factory(numbered(50), ImageFeatures(), seed=3)
    dropped = []
    for epoch in (1, 2):
        batches = epoch_of(factory, 16, epoch)
        assert [len(y) for _, y in batches] == [16, 16, 16]
        seen = np.concatenate([y for _, y in batches])
        assert len(set(seen)) == 48
        dropped.append(set(range(50)) - set(seen))
    assert dropped[0] != dropped[1]


def test_a_split_smaller_than_the_batch_is_one_batch():
    batches = epoch_of(training_factory(numbered(5), ImageFeatures(), 0), 16, 1)
    assert [sorted(y) for _, y in batches] == [[0, 1, 2, 3, 4]]


def test_order_is_fixed_by_seed_and_epoch():
    split = numbered(30)

    def order(seed, epoch):
        batches = epoch_of(training_factory(split, ImageFeatures(), seed), 30, epoch)
        return batches[0][1].tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    assert order(0, 1) != order(1, 0)


def test_evaluation_takes_every_example_in_order():
    batches = list(evaluation_dataset(numbered(10), 4))
    assert np.concatenate([y for _, y in batches]).tolist() == list(range(10))


def test_datasets_know_how_many_batches_they_hold():
    assert training_factory(numbered(50), ImageFeatures(), 0)(16, 1).cardinality() == 3
    assert isinstance(evaluation_dataset(numbered(3), 2), tf.data.Dataset)


def mapped_mib() -> float:
    """Pages of files that this process holds, in MiB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssFile"].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_a_split_on_disk_takes_no_memory_when_it_has_been_read(tmp_path):
    count, side = 6_000, 64
    x = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(count, side, side, 3))
    x[:, 0, 0, 0] = np.arange(count) % 256
    x.flush()
    split = Split(np.memmap(tmp_path / "x", np.uint8, "r", shape=x.shape), np.zeros(count, int))
    del x
    assert split.x.nbytes > 70 * 2**20
    before = mapped_mib()
    batches = epoch_of(training_factory(split, ImageFeatures(), 0), 100, 1)
    assert sum(int(x[:, 0, 0, 0].astype(int).sum()) for x, _ in batches) == sum(
        i % 256 for i in range(count)
    )
    assert mapped_mib() - before < 20
    assert sum(len(rows(split.x, slice(i, i + 1000))) for i in range(0, count, 1000)) == count
    assert mapped_mib() - before < 20
