"""AnomalyGate: stops the run where ExampleValidator reports anomalies."""

from tfx.dsl.component.experimental.annotations import InputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import ExampleAnomalies, ExampleStatistics, Schema

import schemas
from components import io
from components.anomaly_gate.anomalies import check


@component  # type: ignore[untyped-decorator]
def AnomalyGate(  # noqa: N802  (TFX's style of components)
    anomalies: InputArtifact[ExampleAnomalies],
    statistics: InputArtifact[ExampleStatistics],
    schema: InputArtifact[Schema],
    label: Parameter[str] = schemas.LABEL,
) -> None:
    """Fails, with every problem in words, where the data breaks its schema.

    ExampleValidator only writes its findings. Nodes that must not see bad data call
    `add_upstream_node(gate)`.

    Args:
        anomalies: ExampleAnomalies of every split.
        statistics: ExampleStatistics in which the anomalies were found.
        schema: Schema by which they were found.
        label: Name of the label feature, which must take at least two values in each split.

    Raises:
        GateError: The data breaks the schema, a split is empty, or the label never varies.
    """
    check(
        {split: io.anomalies(anomalies, split) for split in io.splits(anomalies)},
        {split: io.statistics(statistics, split) for split in io.splits(statistics)},
        io.schema(schema),
        label,
    )
