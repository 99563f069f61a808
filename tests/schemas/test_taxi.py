"""The committed taxi schema against the table that comes with tfx."""

from pathlib import Path

import pytest
import tensorflow_data_validation as tfdv
import tfx
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

import schemas

pytestmark = pytest.mark.component

TABLE = Path(tfx.__file__).parent / "examples/chicago_taxi_pipeline/data/simple/data.csv"


@pytest.fixture(scope="module")
def schema() -> schema_pb2.Schema:
    path = schemas.committed("taxi")
    assert path is not None
    return text_format.Parse(path.read_text(), schema_pb2.Schema())


@pytest.fixture(scope="module")
def statistics() -> statistics_pb2.DatasetFeatureStatisticsList:
    return tfdv.generate_statistics_from_csv(str(TABLE))


def test_the_table_follows_the_schema(
    schema: schema_pb2.Schema, statistics: statistics_pb2.DatasetFeatureStatisticsList
) -> None:
    assert not tfdv.validate_statistics(statistics, schema).anomaly_info


def test_a_new_payment_type_is_an_anomaly_and_a_few_new_companies_are_none(
    schema: schema_pb2.Schema, statistics: statistics_pb2.DatasetFeatureStatisticsList
) -> None:
    smaller = schema_pb2.Schema()
    smaller.CopyFrom(schema)
    for domain in smaller.string_domain:
        rarest = {"payment_type": "Prcard", "company": "Chicago Medallion Leasing INC"}
        domain.value.remove(rarest[domain.name])
    assert list(tfdv.validate_statistics(statistics, smaller).anomaly_info) == ["payment_type"]
