"""DriftGate: stops the run where new data lies too far from that of the last blessed model."""

from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import ExampleStatistics, Schema

from components import io
from components.artifacts import DataDrift
from components.drift_gate.distances import check, distances
from components.drift_gate.drift import FILE_NAME, to_json
from trainer_module.util import files


@component  # type: ignore[untyped-decorator]
def DriftGate(  # noqa: N802  (TFX's style of components)
    statistics: InputArtifact[ExampleStatistics],
    schema: InputArtifact[Schema],
    drift: OutputArtifact[DataDrift],
    baseline_statistics: InputArtifact[ExampleStatistics] = None,
    max_drift: Parameter[float] = None,
    max_skew: Parameter[float] = None,
    split: Parameter[str] = "train",
    other_split: Parameter[str] = None,
) -> None:
    """Measures drift from the last blessed model's data, and skew between two splits.

    Nodes that must not see data beyond the thresholds call `add_upstream_node(gate)`.

    Args:
        statistics: ExampleStatistics of the new data.
        schema: Its schema.
        drift: Output: `drift.json`, every distance with its threshold, the largest first.
        baseline_statistics: ExampleStatistics of the last blessed run, as from a Resolver with
            `LatestBlessedStatistics`; may be empty, and then there is no drift.
        max_drift: Largest distance (0 to 1) of any feature from the baseline; measured only,
            if None. Of categorical features it is TFDV's L-infinity distance, of numeric ones the
            Kolmogorov-Smirnov distance; from both the sampling error is taken off.
        max_skew: Largest distance (0 to 1) of any feature between the splits.
        split: Split to compare with its baseline.
        other_split: Split to compare it with for skew; `test` if None, or `eval` where the
            statistics have no `test`.

    Raises:
        GateError: A distance is beyond its threshold.
        UserError: The statistics have no such split.
    """
    measured = distances(
        io.schema(schema),
        io.statistics(statistics, split),
        baseline=io.statistics(baseline_statistics, split) if baseline_statistics else None,
        other_split=io.statistics(statistics, other_split or io.judged_split(statistics)),
        max_drift=max_drift,
        max_skew=max_skew,
    )
    check(measured)
    folder = Path(drift.uri)
    folder.mkdir(parents=True, exist_ok=True)
    with files.atomic(folder / FILE_NAME) as temporary:
        temporary.write_text(to_json(measured))
