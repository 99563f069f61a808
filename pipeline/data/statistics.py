"""Options of StatisticsGen, by which its memory does not grow with the number of images."""

from typing import TYPE_CHECKING

import schemas
from trainer_module.config import Features, ImageFeatures

if TYPE_CHECKING:
    import tensorflow_data_validation as tfdv


def options(features: Features) -> "tfdv.StatsOptions | None":
    """Returns TFDV's options for a kind of data; None where its defaults are right.

    TFDV takes any bytes for words and counts how often each comes, for which it holds every one of
    them. Of images these are the data set itself, of file names one for each image.

    Args:
        features: How raw examples become tensors.
    """
    if not isinstance(features, ImageFeatures):
        return None
    import tensorflow_data_validation as tfdv
    from tensorflow_metadata.proto.v0 import schema_pb2

    known = schema_pb2.Schema()
    image = known.feature.add(name=schemas.IMAGE, type=schema_pb2.BYTES)
    image.image_domain.SetInParent()
    file_name = known.feature.add(name=schemas.FILE_NAME, type=schema_pb2.BYTES)
    file_name.string_domain.is_categorical = schema_pb2.StringDomain.CATEGORICAL_NO
    known.feature.add(name=schemas.LABEL, type=schema_pb2.BYTES)
    # Only the counters that sketch know words that need no counting. Up to 1,000 classes they count
    # exactly; of more, the report says that the counts are not kept.
    return tfdv.StatsOptions(schema=known, use_sketch_based_topk_uniques=True)
