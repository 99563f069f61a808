"""TableExampleGen: CsvExampleGen without the rows that have no label."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from tfx import types
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2
from tfx.types import component_spec, standard_artifacts, standard_component_specs

from components.table_example_gen import executor


class TableExampleGenSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """TFX's file-based spec and the columns that the label is made of."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        **standard_component_specs.FileBasedExampleGenSpec.PARAMETERS,
        executor.LABELS_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS = standard_component_specs.FileBasedExampleGenSpec.INPUTS
    OUTPUTS = standard_component_specs.FileBasedExampleGenSpec.OUTPUTS


class TableExampleGen(FileBasedExampleGen):  # type: ignore[misc]
    """Reads CSV files as CsvExampleGen does, and leaves out the rows without a label.

    The artifact's custom property `unlabelled_rows` counts them.
    """

    SPEC_CLASS = TableExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        input_base: str | RuntimeParameter,
        input_config: example_gen_pb2.Input,
        output_config: example_gen_pb2.Output,
        labels: Sequence[str],
    ) -> None:
        """Constructs the component.

        Args:
            input_base: Folder of the CSV files.
            input_config: As of CsvExampleGen.
            output_config: As of CsvExampleGen.
            labels: Columns that the label is made of. A row has a label if all of them have a
                value, and numbers are finite.
        """
        spec = TableExampleGenSpec(
            input_base=input_base,
            input_config=input_config,
            output_config=output_config,
            output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
            output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
            labels=json.dumps(list(labels)),
            examples=types.Channel(type=standard_artifacts.Examples),
        )
        # FileBasedExampleGen's own constructor knows only its own spec.
        super(FileBasedExampleGen, self).__init__(spec=spec)
