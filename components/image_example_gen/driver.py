"""Decides whether the pictures changed since a cached run."""

import hashlib
from pathlib import Path
from typing import Any

from tfx.components.example_gen import driver, input_processor

from components.image_example_gen import folder
from trainer_module.serving import decoding, request


class ImageInputProcessor(input_processor.FileBasedInputProcessor):  # type: ignore[misc]
    """Fingerprints the pictures themselves.

    TFX's own adds up modification times to the second, so a picture that moves to another class
    goes unseen.
    """

    def resolve_span_and_version(self) -> tuple[int, int | None]:
        """Scan the folder; pictures have neither spans nor versions."""
        # A cached result of older code must not pass for one of this code.
        code = hashlib.sha256()
        checks = (Path(str(module.__file__)) for module in (decoding, request))
        for source in (*sorted(Path(__file__).parent.glob("*.py")), *checks):
            code.update(source.read_bytes())
        pictures = folder.fingerprint(folder.scan(self._input_base_uri))
        self._fingerprint = f"pictures:{pictures},code:{code.hexdigest()}"
        return 0, None


class Driver(driver.FileBasedDriver):  # type: ignore[misc]
    """TFX's driver with our fingerprint."""

    def get_input_processor(
        self, splits: Any, range_config: Any = None, input_base_uri: str | None = None
    ) -> ImageInputProcessor:
        """Return the processor that fingerprints pictures."""
        return ImageInputProcessor(input_base_uri, splits, range_config)
