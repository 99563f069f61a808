"""Executor of TableExampleGen: CsvExampleGen's with a filter."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx import types
from tfx.components.example_gen.csv_example_gen import executor as csv_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs

LABELS_KEY = "labels"
UNLABELLED_ROWS = "unlabelled_rows"
"""Custom property of the examples: how many rows were left out."""

_COUNT = ".unlabelled"


class Executor(csv_executor.Executor):  # type: ignore[misc]
    """CsvExampleGen's executor, which leaves out and counts the rows without a label."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Ingests the table below `input_base`.

        Args:
            input_dict: Empty.
            output_dict: "examples": one artifact, to which the splits are written. It gets the
                custom property "unlabelled_rows".
            exec_properties: Those of CsvExampleGen, and "labels", a JSON list of columns.
        """
        examples = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.EXAMPLES_KEY]
        )
        self._count = f"{examples.uri}/{_COUNT}"
        fileio.makedirs(examples.uri)
        super().Do(input_dict, output_dict, exec_properties)
        with fileio.open(self._count) as file:
            examples.set_int_custom_property(UNLABELLED_ROWS, int(file.read()))
        fileio.remove(self._count)

    def GetInputSourceToExamplePTransform(  # noqa: N802  (TFX's name)
        self,
    ) -> Callable[[dict[str, Any], str], beam.PTransform]:
        """Returns the transform that reads the rows of the files that match a pattern."""
        read = super().GetInputSourceToExamplePTransform()

        def labelled(exec_properties: dict[str, Any], pattern: str) -> beam.PTransform:
            columns = json.loads(exec_properties[LABELS_KEY])
            return _Labelled(read(exec_properties, pattern), columns, self._count)

        return labelled


class _Labelled(beam.PTransform):  # type: ignore[misc]
    """Rows that have a label; writes the number of the others."""

    def __init__(self, read: beam.PTransform, columns: Sequence[str], count: str) -> None:
        super().__init__()
        self._read = read
        self._columns = columns
        self._count = count

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        rows = pipeline | "Read" >> self._read
        columns, count = self._columns, self._count
        _ = (
            rows
            | "Unlabelled" >> beam.Filter(lambda row: not has_label(row, columns))
            | "Count" >> beam.combiners.Count.Globally()
            | "Write" >> beam.Map(lambda number: _write(count, str(number)))
        )
        return rows | "Labelled" >> beam.Filter(lambda row: has_label(row, columns))


def has_label(row: tf.train.Example, columns: Sequence[str]) -> bool:
    """Returns whether all columns of the label have a value in a row, and numbers are finite."""
    for column in columns:
        feature = row.features.feature.get(column, tf.train.Feature())
        kind = feature.WhichOneof("kind")
        values: Sequence[Any] = getattr(feature, kind).value if kind else ()
        if not values or (kind == "float_list" and not math.isfinite(values[0])):
            return False
    return True


def _write(file: str, content: str) -> None:
    with fileio.open(file, "w") as opened:
        opened.write(content)
