from pathlib import Path

import pytest

from trainer_module.util import environment

environment.prepare()

from tfx import v1 as tfx  # noqa: E402
from tfx.types import standard_artifacts  # noqa: E402

from components import io  # noqa: E402
from components.inline_schema_gen.component import InlineSchemaGen, WriteSchema  # noqa: E402
from schemas.images import image_schema, image_schema_text  # noqa: E402

pytestmark = pytest.mark.component
CLASSES = ("cat", "żółw", "{{$}}")


def test_the_schema_comes_out_as_it_went_in(tmp_path: Path) -> None:
    artifact = standard_artifacts.Schema()
    artifact.uri = str(tmp_path / "schema")
    WriteSchema.test_call(text=image_schema_text(CLASSES), schema=artifact)
    assert io.schema(artifact) == image_schema(CLASSES)
    assert [path.name for path in tmp_path.rglob("*")] == ["schema", "schema.pbtxt"]


def test_a_path_is_no_schema() -> None:
    with pytest.raises(ValueError, match=r"content of a .pbtxt file"):
        InlineSchemaGen("schemas/digits.pbtxt")


def test_somebody_elses_pipeline(tmp_path: Path) -> None:
    schema = InlineSchemaGen(image_schema_text(CLASSES))
    tfx.orchestration.LocalDagRunner().run(
        tfx.dsl.Pipeline(
            "foreign",
            str(tmp_path / "root"),
            components=[schema],
            metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
                str(tmp_path / "metadata.db")
            ),
        )
    )
    (written,) = tmp_path.rglob("schema.pbtxt")
    assert written.read_text("utf-8") == image_schema_text(CLASSES)
