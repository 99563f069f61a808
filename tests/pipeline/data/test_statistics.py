from collections import Counter

import pyarrow as pa
import pytest

import schemas
from pipeline import presets
from pipeline.data import statistics as counting

pytestmark = pytest.mark.component

# As many classes as are counted exactly, some with a single image.
CLASSES = 1000
LABELS = [f"class {i}" for i in range(CLASSES) for _ in range(1 + i % 5)]
COUNT = len(LABELS)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Statistics of pictures by feature, made by Beam out of several batches."""
    import apache_beam as beam
    import tensorflow_data_validation as tfdv

    features = {
        schemas.IMAGE: [b"\xff\xd8 picture %d" % i for i in range(COUNT)],
        schemas.LABEL: [label.encode() for label in LABELS],
        schemas.FILE_NAME: [b"a/%d.jpg" % i for i in range(COUNT)],
    }
    batches = [
        pa.RecordBatch.from_arrays(
            [pa.array([[value] for value in values[i::7]]) for values in features.values()],
            list(features),
        )
        for i in range(7)
    ]
    # As TFX hands them over.
    options = tfdv.StatsOptions.from_json(counting.options(presets.cifar10().features).to_json())
    file = str(tmp_path_factory.mktemp("statistics") / "FeatureStats.pb")
    with beam.Pipeline() as pipeline:
        made = pipeline | beam.Create(batches) | tfdv.GenerateStatistics(options)
        _ = made | tfdv.WriteStatisticsToBinaryFile(file)
    (dataset,) = tfdv.load_stats_binary(file).datasets
    return {feature.path.step[0]: feature for feature in dataset.features}


def test_nothing_is_counted_that_differs_from_picture_to_picture(found):
    image, name = found[schemas.IMAGE], found[schemas.FILE_NAME]
    assert image.bytes_stats.common_stats.num_non_missing == COUNT
    assert not image.HasField("string_stats")
    assert name.string_stats.common_stats.num_non_missing == COUNT
    assert name.string_stats.unique == 0
    assert not name.string_stats.top_values
    assert not name.string_stats.rank_histogram.buckets


def test_labels_are_counted_exactly(found):
    statistics = found[schemas.LABEL].string_stats
    assert statistics.unique == CLASSES
    counted = {bucket.label: bucket.sample_count for bucket in statistics.rank_histogram.buckets}
    assert counted == Counter(LABELS)


def test_of_tables_all_is_counted():
    assert counting.options(presets.taxi().features) is None
