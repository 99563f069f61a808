"""ImageExampleGen: a folder of images as the splits train, eval and test."""

from typing import Any, ClassVar, Literal

from tfx import types
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2
from tfx.types import component_spec, standard_artifacts, standard_component_specs

from components.image_example_gen import driver, executor, folder, split
from trainer_module.util.checks import require

# On Kubeflow, TFX's own driver adds up sizes and times of all that matches. Folders match too, so
# that it notices an image that moves to another class.
_PATTERNS = tuple("/".join("*" * depth) for depth in range(1, folder.MAX_DEPTH + 1))


class ImageExampleGenSpec(component_spec.ComponentSpec):  # type: ignore[misc]
    """TFX's file-based spec, what to do about bad images, and how to split."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        **standard_component_specs.FileBasedExampleGenSpec.PARAMETERS,
        executor.ON_BAD_IMAGE_KEY: component_spec.ExecutionParameter(type=str),
        executor.GROUP_BY_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.SPLIT_RULE_KEY: component_spec.ExecutionParameter(type=int),
    }
    INPUTS = standard_component_specs.FileBasedExampleGenSpec.INPUTS
    OUTPUTS = standard_component_specs.FileBasedExampleGenSpec.OUTPUTS


class ImageExampleGen(FileBasedExampleGen):  # type: ignore[misc]
    """Reads images into tf.Examples, each checked by decoding it once.

    The output `examples` has the splits train, eval and test. Its features (names in `schemas`)
    are the encoded image, the class name and the path relative to the data folder. Layouts and
    rules are those of `components.image_example_gen.folder.scan`. The artifact's custom properties
    `bad_images` and `converted_images` count what was skipped and what was stored as PNG instead;
    `left_out_files` and `left_out_suffixes`, the files that are no images. Beside the splits lies
    a sample of the files that were converted (`schemas.ORIGINALS`), which Servable sends.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
    DRIVER_CLASS = driver.Driver

    def __init__(
        self,
        input_base: str,
        on_bad_image: Literal["fail", "skip"] = "fail",
        group_by: str | None = None,
    ) -> None:
        """Constructs the component.

        Args:
            input_base: The data folder.
            on_bad_image: "fail" names the bad images and stops the run, "skip" leaves them out.
            group_by: Regular expression that finds in the path of an image, below the data folder,
                the group it belongs to. The images of a group lie in one split.

        Raises:
            UserError: on_bad_image is neither, or group_by is no regular expression.
        """
        require(
            on_bad_image in ("fail", "skip"),
            "`on_bad_image` must be fail or skip",
            on_bad_image,
            "Try `on_bad_image=skip` to leave bad images out.",
        )
        if group_by is not None:
            split.check_expression(group_by)
        spec = ImageExampleGenSpec(
            input_base=input_base,
            input_config=example_gen_pb2.Input(
                splits=[
                    example_gen_pb2.Input.Split(name=f"level{i}", pattern=pattern)
                    for i, pattern in enumerate(_PATTERNS)
                ]
            ),
            output_config=example_gen_pb2.Output(),
            output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
            output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
            on_bad_image=on_bad_image,
            group_by=group_by,
            split_rule=split.RULE,
            examples=types.Channel(type=standard_artifacts.Examples),
        )
        # FileBasedExampleGen's own constructor knows only its own spec.
        super(FileBasedExampleGen, self).__init__(spec=spec)
