"""The data of a run, found and checked before TensorFlow or TFX is imported."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import schemas
from components.image_example_gen.folder import ImageFolder, scan
from components.image_example_gen.split import SHARES, check_groups
from trainer_module.config import ImageFeatures, TableFeatures
from trainer_module.util.checks import require

from ..config import RunConfig

DIGITS, TAXI = "digits", "taxi"
BUILTIN = frozenset({DIGITS, TAXI})

TRAIN, EVAL, TEST = "train", "eval", "test"
TABLE_SPLITS = {TRAIN: 8, EVAL: 1, TEST: 1}
"""Shares by which the rows of a table are dealt, by hash."""


@dataclass(frozen=True)
class TrainingSize:
    """How many examples the split train has.

    Attributes:
        count: Number of examples; the expected one where the splits are drawn by hash.
        most: Number it cannot exceed: that of all examples the splits are drawn from.
        source: Where the number comes from, in words.
    """

    count: int
    most: int
    source: str

    def __str__(self) -> str:
        """The number, with "about" where it is an expectation."""
        return f"{'' if self.count == self.most else 'about '}{self.count:,}"


@dataclass(frozen=True)
class Dataset:
    """Data that has passed its first checks.

    Attributes:
        folder: Folder of pictures by class, or of CSV files; absolute.
        classes: Class names in the order of the label indices.
        schema: The schema, as text (.pbtxt).
        size: How many examples there are to train on.
    """

    folder: Path
    classes: tuple[str, ...]
    schema: str
    size: TrainingSize


def needs_data(config: RunConfig) -> bool:
    """Whether the run cannot start without `--data`."""
    return config.data is None and config.data_set not in BUILTIN


def resolve(config: RunConfig, output: Path) -> Dataset:
    """Find the data, check what can be checked cheaply, and settle classes and schema.

    Args:
        config: The run.
        output: Output folder, absolute; built-in pictures are written there.

    Raises:
        ValueError: No data, or data that breaks a rule; the message names the place.
    """
    folder = _folder(config, output)
    if isinstance(config.features, ImageFeatures):
        pictures = scan(folder)
        if config.group_by is not None:
            check_groups(pictures, config.group_by)
        found, size = pictures.classes, _size_of_pictures(pictures)
        require(
            not config.classes or set(config.classes) == set(found),
            "--classes must name exactly the class folders",
            config.classes,
            f"Leave it out, or put these in order: {', '.join(found)}.",
        )
        classes = config.classes or found
    else:
        classes = config.classes
    schema = schema_file(config)

    from . import csv_check

    if isinstance(config.features, TableFeatures):
        require(
            schema is not None,
            "a table needs a schema",
            config.schema,
            "Write one, or infer one with TensorFlow Data Validation, and name it with --schema.",
        )
        assert schema is not None
        rows = csv_check.check_table(
            folder, schema, config.features, classes, config.on_missing_label
        )
        size = _size_of_table(folder, rows)
    elif schema is not None:
        csv_check.check_classes(folder, found, schema)
    config.forecast(size.most)
    return Dataset(folder, classes, schema_text(config, classes), size)


def schema_file(config: RunConfig) -> Path | None:
    """The schema file that a run is held against; None where one is made from the classes.

    Raises:
        ValueError: `--schema` names no file.
    """
    if config.schema is not None:
        require(
            config.schema.is_file(),
            "the schema must be a .pbtxt file",
            str(config.schema),
            "Check --schema.",
        )
        return config.schema
    return schemas.committed(config.data_set)


def labels(schema: Path) -> tuple[str, ...]:
    """Values of the label in the schema of pictures, in the order of the label indices.

    Args:
        schema: TFMD schema as text (.pbtxt).

    Returns:
        The values; empty if the label has no domain.

    Raises:
        csv_check.SchemaError: It is no schema.
    """
    from . import csv_check

    return csv_check.values(schema, schemas.LABEL)


def schema_text(config: RunConfig, classes: tuple[str, ...]) -> str:
    """The schema of a run as text: that of its file, or one made from the classes of pictures.

    Of a table's schema only what the run uses is left (`contract.of_table`).
    """
    from schemas.images import image_schema_text

    file = schema_file(config)
    if file is None:
        return image_schema_text(classes)
    text = file.read_text("utf-8")
    if isinstance(config.features, TableFeatures):
        from . import schema as contract

        return contract.of_table(text, config.features)
    return text


def training_size(config: RunConfig) -> TrainingSize:
    """How many examples a run would train on, found without writing anything.

    Raises:
        ValueError: No data, or a folder that breaks a rule of layout.
    """
    if config.data is None and config.data_set == DIGITS:
        from . import digits

        count = digits.TRAIN_EXAMPLES
        return TrainingSize(count, count, "the pictures that come with scikit-learn")
    folder = _given_folder(config)
    if isinstance(config.features, ImageFeatures):
        return _size_of_pictures(scan(folder))
    from . import csv_check

    return _size_of_table(folder, csv_check.count_rows(folder))


def _size_of_pictures(pictures: ImageFolder) -> TrainingSize:
    most = len(pictures.files[TRAIN])
    if not pictures.carved:
        return TrainingSize(most, most, f"the pictures below {pictures.root}/train")
    drawn = " and ".join(pictures.carved)
    count = most - round(most * sum(SHARES[split] for split in pictures.carved))
    return TrainingSize(
        count, most, f"{most:,} pictures below {pictures.root}, less those drawn for {drawn}"
    )


def _size_of_table(folder: Path, rows: int) -> TrainingSize:
    share = TABLE_SPLITS[TRAIN] / sum(TABLE_SPLITS.values())
    return TrainingSize(round(rows * share), rows, f"{share:.0%} of {rows:,} rows in {folder}")


def _folder(config: RunConfig, output: Path) -> Path:
    if config.data is None and config.data_set == DIGITS:
        from . import digits

        return digits.write_digits(output / "data" / DIGITS)
    return _given_folder(config)


def _given_folder(config: RunConfig) -> Path:
    """The folder of `--data`, or the table that comes with TFX."""
    if config.data is not None:
        try:
            folder = config.data.expanduser().resolve()
            there = folder.exists()
        # Links in a circle, a person who is not known, a name too long.
        except (OSError, RuntimeError):
            there = False
        require(there, "the data folder must exist", str(config.data), "Check --data.")
        return folder
    require(
        not needs_data(config),
        f"the preset {config.name} needs data",
        config.data,
        "Say where it is with --data PATH.",
    )
    # find_spec of a top-level package locates it without importing it.
    spec = find_spec("tfx")
    assert spec is not None and spec.submodule_search_locations is not None
    package = Path(next(iter(spec.submodule_search_locations)))
    return package / "examples" / "chicago_taxi_pipeline" / "data" / "simple"
