"""The data of a run, found and checked before TensorFlow or TFX is imported."""

import hashlib
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import schemas
from components.image_example_gen.logic import scan
from pipeline.config import RunConfig
from trainer_module.checks import require
from trainer_module.config import ImageFeatures

DIGITS, TAXI = "digits", "taxi"
BUILTIN = frozenset({DIGITS, TAXI})


@dataclass(frozen=True)
class Dataset:
    """Data that has passed its first checks.

    Attributes:
        folder: Folder of pictures by class, or of CSV files; absolute.
        classes: Class names in the order of the label indices.
        schema: Schema file whose name changes with its content; absolute.
    """

    folder: Path
    classes: tuple[str, ...]
    schema: Path


def needs_data(config: RunConfig) -> bool:
    """Whether the run cannot start without `--data`."""
    return config.data is None and config.data_set not in BUILTIN


def resolve(config: RunConfig, output: Path) -> Dataset:
    """Find the data, check what can be checked cheaply, and settle classes and schema.

    Args:
        config: The run.
        output: Output folder, absolute; built-in pictures and the schema are written there.

    Raises:
        ValueError: No data, or data that breaks a rule; the message names the place.
    """
    folder = _folder(config, output)
    if isinstance(config.features, ImageFeatures):
        found = scan(folder).classes
        require(
            not config.classes or set(config.classes) == set(found),
            "--classes must name exactly the class folders",
            config.classes,
            f"Leave it out, or put these in order: {', '.join(found)}.",
        )
        classes = config.classes or found
    else:
        classes = config.classes
    schema = _schema(config, classes, output)
    if not isinstance(config.features, ImageFeatures):
        from pipeline import preflight

        preflight.check_table(folder, schema)
    return Dataset(folder, classes, _keyed_by_content(schema, output / "schemas"))


def _folder(config: RunConfig, output: Path) -> Path:
    if config.data is not None:
        folder = config.data.expanduser().resolve()
        require(folder.exists(), "the data folder must exist", str(config.data), "Check --data.")
        return folder
    require(
        not needs_data(config),
        f"the preset {config.name} needs data",
        config.data,
        "Say where it is with --data PATH.",
    )
    if config.data_set == DIGITS:
        from pipeline import digits

        return digits.write_digits(output / "data" / DIGITS)
    # find_spec of a top-level package locates it without importing it.
    spec = find_spec("tfx")
    assert spec is not None and spec.submodule_search_locations is not None
    package = Path(next(iter(spec.submodule_search_locations)))
    return package / "examples" / "chicago_taxi_pipeline" / "data" / "simple"


def _schema(config: RunConfig, classes: tuple[str, ...], output: Path) -> Path:
    if config.schema is not None:
        require(
            config.schema.is_file(),
            "the schema must be a .pbtxt file",
            str(config.schema),
            "Check --schema.",
        )
        return config.schema
    committed = schemas.committed(config.data_set)
    if committed is not None:
        return committed
    require(
        isinstance(config.features, ImageFeatures),
        "a table needs a schema",
        config.schema,
        "Write one and name it with --schema.",
    )
    from schemas.images import write_image_schema

    return write_image_schema(classes, output / "schemas" / f"{config.name}.pbtxt")


def _keyed_by_content(schema: Path, folder: Path) -> Path:
    """A copy whose name tells its content: TFX caches an imported schema by its name alone."""
    digest = hashlib.sha256(schema.read_bytes()).hexdigest()[:12]
    copy = folder / f"{schema.stem}-{digest}.pbtxt"
    if not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(schema, copy)
    return copy
