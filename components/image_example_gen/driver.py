"""Driver of ImageExampleGen: a cache key that follows the images."""

import hashlib
from pathlib import Path
from typing import Any

from tfx.components.example_gen import driver, input_processor

from components.image_example_gen import folder
from trainer_module.serving import decoding, request


class ImageInputProcessor(input_processor.FileBasedInputProcessor):  # type: ignore[misc]
    """Fingerprints the images themselves.

    TFX's own adds up modification times to the second, so an image that moves to another class
    goes unseen.
    """

    def resolve_span_and_version(self) -> tuple[int, int | None]:
        """Scans the folder; images have neither spans nor versions."""
        # A cached result of older code must not pass for one of this code.
        code = hashlib.sha256()
        checks = (Path(str(module.__file__)) for module in (decoding, request))
        for source in (*sorted(Path(__file__).parent.glob("*.py")), *checks):
            code.update(source.read_bytes())
        images = folder.fingerprint(folder.scan(self._input_base_uri))
        # `plateau runs` reads this.
        self._fingerprint = f"images:{images},code:{code.hexdigest()}"
        return 0, None


class Driver(driver.FileBasedDriver):  # type: ignore[misc]
    """TFX's driver with our fingerprint."""

    def get_input_processor(
        self, splits: Any, range_config: Any = None, input_base_uri: str | None = None
    ) -> ImageInputProcessor:
        """Returns the processor that fingerprints images."""
        return ImageInputProcessor(input_base_uri, splits, range_config)
