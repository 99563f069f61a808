"""Data of a run, located and checked before TensorFlow or TFX is imported."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import schemas
from components.image_example_gen.folder import ImageFolder, scan
from components.image_example_gen.split import SHARES, check_groups
from trainer_module.config import ImageFeatures, TableFeatures, is_regression
from trainer_module.util import files
from trainer_module.util.checks import require

from ..config import RunConfig

DIGITS, TAXI = "digits", "taxi"
SCHEMA, TABLE = "schema.pbtxt", "table"
"""Names of an inferred schema and of the folder of a table's files, below OUTPUT/data."""
BUILTIN = frozenset({DIGITS, TAXI})

TRAIN, EVAL, TEST = "train", "eval", "test"
TABLE_SPLITS = {TRAIN: 8, EVAL: 1, TEST: 1}
"""Hash buckets of the rows of a table by split."""


@dataclass(frozen=True)
class TrainingSize:
    """How many examples the split train has."""

    count: int
    """Number of examples; the expected one where the splits are drawn by hash."""
    most: int
    """Number it cannot exceed: that of all examples the splits are drawn from."""
    source: str
    """Where the number comes from, in words."""

    def __str__(self) -> str:
        """The number, with "about" where it is an expectation."""
        return f"{'' if self.count == self.most else 'about '}{self.count:,}"


@dataclass(frozen=True)
class Dataset:
    """Data that has passed its first checks."""

    folder: Path
    """Folder of images by class, or of CSV files; absolute."""
    source: Path
    """What the user knows it by: the table that the CSV files are copied from; else the folder."""
    classes: tuple[str, ...]
    """Class names in the order of the label indices."""
    schema: str
    """The schema, as text (.pbtxt)."""
    size: TrainingSize
    """How many examples there are to train on."""


def needs_data(config: RunConfig) -> bool:
    """Returns whether the run cannot start without `data`."""
    return config.data is None and config.data_set not in BUILTIN


def resolve(config: RunConfig, output: Path) -> Dataset:
    """Finds the data, checks what can be checked cheaply, and settles classes and schema.

    Args:
        config: The run.
        output: Output folder, absolute; built-in images are written there.

    Raises:
        UserError: No data, or data that breaks a rule; the message names the place.
    """
    from . import csv_check
    from . import schema as contract

    folder = source = _folder(config, output)
    schema = _written_schema(config, output)
    classes = config.classes
    if isinstance(config.features, ImageFeatures):
        images = scan(folder)
        if config.group_by is not None:
            check_groups(images, config.group_by)
        require(
            not classes or set(classes) == set(images.classes),
            "`classes` must name exactly the class folders",
            classes,
            f"Leave it out, or put these in order: {', '.join(images.classes)}.",
        )
        classes = classes or images.classes
        size = _size_of_images(images)
        if schema is not None:
            contract.check_classes(folder, images.classes, schema)
    else:
        require(
            schema is not None,
            "`schema` must be given for a table",
            schema,
            "Write one, or infer one with TensorFlow Data Validation.",
        )
        assert schema is not None
        copy = output / "data" / TABLE
        rows = csv_check.check_table(
            folder, schema, config.features, classes, config.on_missing_label, copy
        )
        size = _size_of_table(folder, rows)
        folder = copy
    config.forecast(size.most)
    return Dataset(folder, source, classes, schema_text(config, classes), size)


def class_names(config: RunConfig) -> tuple[str, ...]:
    """Returns the class names of a run whose data may lie elsewhere.

    They are those of the config, of a local copy of the data, or of the schema; a regression has
    none.

    Raises:
        UserError: None of them has any.
    """
    if config.classes or is_regression(config.features):
        return config.classes
    if config.data is not None and isinstance(config.features, ImageFeatures):
        return scan(config.data.expanduser().resolve()).classes
    from . import schema as contract

    file = schema_file(config)
    classes = contract.labels(file) if file is not None else ()
    require(
        len(classes) >= 2,
        "the names of the classes must be known when a pipeline is compiled",
        classes,
        "Name the `classes`, or a copy of the data on this machine as `data`.",
    )
    return classes


def schema_file(config: RunConfig) -> Path | None:
    """Returns the schema file of a run; None where a schema is made from the classes.

    Raises:
        UserError: `schema` names no file.
    """
    if config.schema is not None:
        require(
            config.schema.is_file(),
            "`schema` must be a .pbtxt file",
            str(config.schema),
            "Check its path.",
        )
        return config.schema
    return schemas.committed(config.data_set)


def _written_schema(config: RunConfig, output: Path) -> Path | None:
    """Returns the schema file of a run; an inferred one is written, so that it can be edited."""
    file = schema_file(config)
    if file is not None or not config.inferred_schema:
        return file
    file = output / "data" / SCHEMA
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(file) as temporary:
        temporary.write_text(config.inferred_schema, "utf-8")
    return file


def schema_text(config: RunConfig, classes: tuple[str, ...]) -> str:
    """Returns the schema of a run as text: that of its file, or one made from the classes.

    Of a table's schema only what the run uses is left (`schema.of_table`).
    """
    from schemas.images import image_schema_text

    from . import schema as contract

    file = schema_file(config)
    if file is None and not config.inferred_schema:
        return image_schema_text(classes)
    text = file.read_text("utf-8") if file is not None else config.inferred_schema
    if isinstance(config.features, TableFeatures):
        return contract.of_table(text, config.features)
    return text


def training_size(config: RunConfig) -> TrainingSize:
    """Returns how many examples a run would train on, without writing anything.

    Raises:
        UserError: No data, or a folder that breaks a rule of layout.
    """
    if config.data is None and config.data_set == DIGITS:
        from . import digits

        count = digits.TRAIN_EXAMPLES
        return TrainingSize(count, count, "the images that come with scikit-learn")
    folder = _folder_of_config(config)
    if isinstance(config.features, ImageFeatures):
        return _size_of_images(scan(folder))
    from . import csv_check

    return _size_of_table(folder, csv_check.count_rows(folder))


def _size_of_images(images: ImageFolder) -> TrainingSize:
    most = len(images.files[TRAIN])
    if not images.carved:
        return TrainingSize(most, most, f"the images below {images.root}/train")
    drawn = " and ".join(images.carved)
    count = most - round(most * sum(SHARES[split] for split in images.carved))
    return TrainingSize(
        count, most, f"{most:,} images below {images.root}, less those drawn for {drawn}"
    )


def _size_of_table(folder: Path, rows: int) -> TrainingSize:
    share = TABLE_SPLITS[TRAIN] / sum(TABLE_SPLITS.values())
    return TrainingSize(round(rows * share), rows, f"{share:.0%} of {rows:,} rows in {folder}")


def _folder(config: RunConfig, output: Path) -> Path:
    if config.data is None and config.data_set == DIGITS:
        from . import digits

        return digits.write_digits(output / "data" / DIGITS)
    return _folder_of_config(config)


def _folder_of_config(config: RunConfig) -> Path:
    """Returns the folder of `data`, or of the table that comes with TFX."""
    if config.data is not None:
        try:
            folder = config.data.expanduser().resolve()
            exists = folder.exists()
        # Links in a circle, a user who is not known, a name too long.
        except (OSError, RuntimeError):
            exists = False
        require(exists, "`data` must exist", str(config.data), "Check its path.")
        return folder
    require(
        not needs_data(config),
        f"`data` must be given for the preset {config.name}",
        config.data,
        "Try `data=PATH`.",
    )
    # find_spec of a top-level package locates it without importing it.
    spec = find_spec("tfx")
    assert spec is not None and spec.submodule_search_locations is not None
    package = Path(next(iter(spec.submodule_search_locations)))
    return package / "examples" / "chicago_taxi_pipeline" / "data" / "simple"
