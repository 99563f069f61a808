import numpy as np
import pytest
import tensorflow as tf

from trainer_module.training.batch import pieces


def batches(sizes):
    start = 0
    for size in sizes:
        yield np.arange(start, start + size, dtype=np.float32), np.arange(start, start + size)
        start += size


def dataset(*sizes):
    spec = (tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.int64))
    return tf.data.Dataset.from_generator(lambda: batches(sizes), output_signature=spec)


def cut(*sizes, **options):
    return [[part.numpy() for part in element] for element in pieces(dataset(*sizes), **options)]


def test_whole_batches_pass_as_they_are():
    assert [(list(x), list(y)) for x, y in cut(4, 3)] == [
        (list(x), list(y)) for x, y in batches((4, 3))
    ]


def test_a_static_batch_size_is_forgotten():
    fixed = tf.data.Dataset.range(8).batch(4, drop_remainder=True)
    both = tf.data.Dataset.zip(fixed, fixed)
    for micro_batch, ranks in ((None, [1, 1]), (3, [1, 1, 0, 0])):
        spec = pieces(both, micro_batch=micro_batch).element_spec
        assert [part.shape.rank for part in spec] == ranks
        assert spec[0].shape[0] is None


@pytest.mark.parametrize("micro_batch", [1, 4, 100])
def test_micro_batches_cover_the_batch_in_even_pieces(micro_batch):
    parts = cut(10, micro_batch=micro_batch)
    sizes = [len(x) for x, *_ in parts]
    assert sorted(np.concatenate([y for _, y, *_ in parts])) == list(range(10))
    assert max(sizes) <= micro_batch
    assert max(sizes) - min(sizes) <= 1
    assert [last for *_, last in parts] == [False] * (len(parts) - 1) + [True]
    assert {total for _, _, total, _ in parts} == {10}


@pytest.mark.parametrize(("size", "micro_batch"), [(16, None), (17, 4), (5, 1)])
def test_replicas_share_a_batch_and_take_equally_many_pieces(size, micro_batch):
    options = {"micro_batch": micro_batch, "replicas": 4}
    shares = [cut(size, local=range(r, r + 1), **options) for r in range(4)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(x) > 0 for share in shares for x, *_ in share)
    everything = np.concatenate([y for share in shares for _, y, *_ in share])
    assert sorted(everything) == list(range(size))


def test_local_replicas_take_turns():
    together = cut(8, replicas=2, local=range(2), micro_batch=2)
    apart = [cut(8, replicas=2, local=range(r, r + 1), micro_batch=2) for r in range(2)]
    expected = [part for turn in zip(*apart, strict=True) for part in turn]
    for (x, *_), (other, *_) in zip(together, expected, strict=True):
        np.testing.assert_array_equal(x, other)


def test_elements_must_be_pairs():
    with pytest.raises(ValueError, match=r"must yield \(x, y\) pairs"):
        pieces(tf.data.Dataset.range(3))
