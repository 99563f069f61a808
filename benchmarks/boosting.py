"""Tables by `plateau run --data FILE --label COLUMN`, beside scikit-learn's gradient boosting."""

import csv
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tyro
from annotated_types import Ge
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from benchmarks import child, report
from benchmarks.settings import ROOT
from pipeline.data import inference
from trainer_module.config import TableFeatures
from trainer_module.util import environment

TABLES = {
    "iris": "target",
    "wine": "target",
    "breast_cancer": "target",
    "penguins": "species",
    "titanic": "survived",
    "diamonds": "cut",
    "diabetes": "target",
    "mpg": "mpg",
}
"""Label column of each table."""

MARGINS = {"accuracy": 0.02, "R²": 0.05}
"""By how much a model may be below gradient boosting."""

_SMALL = 1000

Values = list[str | float | None]


@dataclass(frozen=True)
class BoostingConfig:
    """Compares runs on tables with gradient boosting on the same split, and writes a page."""

    tables: tyro.conf.Positional[tuple[str, ...]] = tuple(TABLES)
    """Tables of the archive."""
    splits: Annotated[int, Ge(1)] = 5
    """Splits that a table of fewer than a thousand rows is dealt into, one after the other."""
    data: Path = ROOT.parent / "shared" / "data" / "tables.tar.gz"
    """Archive of the tables, tables/NAME.csv."""
    output: Path = ROOT / "docs" / "results" / "tables.md"
    """The page."""
    note: str = ""
    """Remark about the machine, for readers of the page."""


@dataclass(frozen=True)
class Outcome:
    """What both made of a table.

    Attributes:
        metric: What is compared: accuracy for classes, R² for numbers.
        trained: Examples of the train split.
        own: Skill of Plateau on each example of a test split, whose mean is the metric.
        boosted: The same of gradient boosting.
        seconds: Of a run, and of training gradient boosting.
        cpu: Processor seconds of a run.
        splits: Number of splits, of which the values above are those of all or the means.
    """

    metric: str
    trained: int
    own: npt.NDArray[np.float64]
    boosted: npt.NDArray[np.float64]
    seconds: tuple[float, float]
    cpu: float
    splits: int = 1

    @classmethod
    def mean(cls, outcomes: Sequence["Outcome"]) -> "Outcome":
        """Returns the outcome of several splits of a table."""
        own, boosted = (
            np.concatenate([getattr(each, name) for each in outcomes])
            for name in ("own", "boosted")
        )
        ours, theirs = np.mean([each.seconds for each in outcomes], axis=0)
        trained = round(np.mean([each.trained for each in outcomes]))
        cpu = float(np.mean([each.cpu for each in outcomes]))
        metric = outcomes[0].metric
        return cls(metric, trained, own, boosted, (ours, theirs), cpu, len(outcomes))

    @property
    def cells(self) -> list[str]:
        """The outcome as a row of the page."""
        differences = self.own - self.boosted
        error = differences.std() / len(differences) ** 0.5
        return [
            str(self.splits),
            f"{self.trained:,}",
            f"{len(self.own):,}",
            self.metric,
            f"{self.own.mean():.4f}",
            f"{self.boosted.mean():.4f}",
            f"{differences.mean():+.4f} ± {error:.4f}",
            "yes" if differences.mean() >= -MARGINS[self.metric] else "**no**",
            f"{self.seconds[0]:.0f}",
            f"{self.cpu:.0f}",
            f"{self.seconds[1]:.1f}",
        ]


def main() -> int:
    """Compares each table and writes the page; 1 if data is missing or a run fails."""
    config = tyro.cli(BoostingConfig, prog="python -m benchmarks.boosting")
    environment.prepare()
    machine = report.machine() | {"note": config.note}
    rows: dict[str, list[str]] = {}
    try:
        with tempfile.TemporaryDirectory() as folder, tarfile.open(config.data) as archive:
            archive.extractall(folder, filter="data")
            for name in config.tables:
                print(f"{name} ...", file=sys.stderr, flush=True)
                file = Path(folder) / "tables" / f"{name}.csv"
                rows[name] = compare_splits(file, TABLES[name], config.splits).cells
                # What has been measured stays if a later run fails.
                config.output.write_text(page(rows, machine))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(config.output)
    return 0


def compare_splits(file: Path, label: str, splits: int) -> Outcome:
    """Compares both on several splits of a small table, and on one of a large table."""
    outcomes = []
    for split in range(splits if inference.infer(file, label).rows < _SMALL else 1):
        dealt = deal(file, label, split)
        table = inference.infer(dealt, label)
        outcomes.append(compare(dealt, table, dealt.parent / f"run-{dealt.stem}"))
    return Outcome.mean(outcomes)


def deal(file: Path, label: str, split: int) -> Path:
    """Returns a copy of a table whose rows fall into other splits; the file itself for split 0.

    A row's split is a hash of its columns with their names, so the columns get other names.
    """
    if split == 0:
        return file
    with file.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    renamed = [name if name == label else f"{name} {split}" for name in header]
    dealt = file.with_stem(f"{file.stem}-{split}")
    with dealt.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([renamed, *rows])
    return dealt


def compare(file: Path, table: inference.Table, output: Path) -> Outcome:
    """Runs the command on a table, and trains gradient boosting on what it trained on."""
    import tensorflow as tf

    features = table.features
    arguments = ["run", "--data", str(file), "--label", features.label, "--output", str(output)]
    began, used = time.monotonic(), _cpu()
    child.run("pipeline.cli", arguments, f"plateau run on {file.name}", cwd=file.parent)
    seconds, cpu = time.monotonic() - began, _cpu() - used
    (examples,) = (output / "artifacts" / "CsvExampleGen" / "examples").iterdir()
    train, test = (_records(examples / f"Split-{split}") for split in ("train", "test"))
    (pushed,) = (output / "pushed").iterdir()
    answer = tf.saved_model.load(str(pushed)).signatures["serving_default"]
    outputs = answer(examples=tf.constant(test))
    labels = np.array(_columns(test, (features.label,))[features.label])
    # A number has no classes.
    metric = "accuracy" if table.classes else "R²"
    if table.classes:
        names = np.char.decode(outputs["class"].numpy()[:, 0].astype(bytes), "utf-8")
        own = skill(names, labels.astype(str), metric)
    else:
        own = skill(outputs["prediction"].numpy()[:, 0], labels, metric)
    began = time.monotonic()
    predicted = boost(train, test, features, metric)
    spent = time.monotonic() - began
    boosted = skill(predicted, labels, metric)
    return Outcome(metric, len(train), own, boosted, (seconds, spent), cpu)


def skill(
    predicted: npt.NDArray[Any], labels: npt.NDArray[Any], metric: str
) -> npt.NDArray[np.float64]:
    """Returns values for each example whose mean is the metric."""
    if metric == "accuracy":
        return np.equal(predicted, labels).astype(float)
    skills: npt.NDArray[np.float64] = 1 - (predicted - labels) ** 2 / labels.var()
    return skills


def boost(
    train: Sequence[bytes], test: Sequence[bytes], features: TableFeatures, metric: str
) -> npt.NDArray[Any]:
    """Trains gradient boosting as it comes, and returns what it predicts for the test examples."""
    names = (*features.inputs, features.label)
    trained, tested = _columns(train, names), _columns(test, names)
    x, held_out = np.empty((len(train), 0)), np.empty((len(test), 0))
    for name in features.inputs:
        codes: dict[Any, float] | None = None
        if name in features.categorical:
            known = dict.fromkeys(value for value in trained[name] if value is not None)
            codes = {value: float(code) for code, value in enumerate(known)}
        x = np.column_stack([x, _numbers(trained[name], codes)])
        held_out = np.column_stack([held_out, _numbers(tested[name], codes)])
    is_class = metric == "accuracy"
    kind = HistGradientBoostingClassifier if is_class else HistGradientBoostingRegressor
    model = kind(
        categorical_features=[name in features.categorical for name in features.inputs],
        random_state=0,
    )
    model.fit(x, trained[features.label])
    predicted: npt.NDArray[Any] = model.predict(held_out)
    return predicted


def page(rows: dict[str, list[str]], machine: dict[str, Any]) -> str:
    """Returns the page about all tables."""
    columns = (
        "splits",
        "train",
        "test",
        "metric",
        "Plateau",
        "boosting",
        "difference",
        "within margin",
    )
    table = report.columns(
        "table", (*columns, "seconds", "processor seconds", "boosting, seconds"), rows
    )
    margins = " and ".join(f"{margin:g} of {metric}" for metric, margin in MARGINS.items())
    parts = [
        "# Tables: one command beside gradient boosting",
        "`plateau run --data FILE --label COLUMN` with no other flag, and scikit-learn's "
        "HistGradientBoosting with its defaults, on the columns and the train split of that run. "
        f"The metric is that of the pushed model on the test split, the margin {margins}. A small "
        "table is dealt several times, since its test split decides little: the test examples are "
        "those of all splits, the other values are means. After ± stands the standard error of the "
        "difference, example by example. Seconds are of the whole command, from Python's start to "
        "the report.",
        report.hardware_line(machine),
        table,
        "## Repeat\n\n    python -m benchmarks.boosting",
    ]
    return "\n\n".join(parts) + "\n"


def _records(folder: Path) -> list[bytes]:
    import tensorflow as tf

    files = sorted(map(str, folder.iterdir()))
    return list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())


def _columns(records: Sequence[bytes], names: Sequence[str]) -> dict[str, Values]:
    """Returns columns of tf.Examples by name; None for a missing value."""
    import tensorflow as tf

    columns: dict[str, Values] = {name: [] for name in names}
    for record in records:
        features = tf.train.Example.FromString(record).features.feature
        for name, column in columns.items():
            kind = features[name].WhichOneof("kind")
            values = getattr(features[name], kind).value if kind else ()
            value = values[0] if values else None
            column.append(value.decode() if isinstance(value, bytes) else value)
    return columns


def _numbers(values: Values, codes: dict[Any, float] | None) -> list[float]:
    """Returns a column as numbers, NaN for a missing value and an unknown category."""
    if codes is not None:
        return [codes.get(value, float("nan")) for value in values]
    return [float("nan") if value is None else float(value) for value in values]


def _cpu() -> float:
    """Processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
