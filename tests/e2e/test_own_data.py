"""Other data than the bundled: a slice of CIFAR-10, the taxi table, a folder of one's own."""

import csv
import re
import shutil
import tarfile
from datetime import date, timedelta

import numpy as np
import pytest
from PIL import Image

from pipeline.cli import main
from runs import plateau, predict

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def cifar_slice(shared_data, tmp_path_factory):
    """The first 60 training and 20 test images of each class."""
    folder = tmp_path_factory.mktemp("cifar")
    with tarfile.open(shared_data / "cifar10-images.tar.gz") as archive:
        for member in archive:
            parts = member.name.split("/")
            if len(parts) == 3 and parts[2]:
                limit = {"train": 60, "test": 20}[parts[0]]
                if int(parts[2].split(".")[0]) < limit:
                    archive.extract(member, folder, filter="data")
    return folder


def test_a_folder_of_images_is_enough(cifar_slice, tmp_path):
    done = plateau(
        *("run", "--data", cifar_slice, "--max-epochs", 8, "--min-accuracy", 0.15),
        output=tmp_path / "run",
    )
    assert done.status == 0, done.out + done.err
    assert len(done.pushed) == 1


def test_cifar10_vgg16_is_the_published_experiment(cifar_slice, tmp_path):
    done = plateau(
        *("run", "cifar10-vgg16", "--data", cifar_slice, "--width-multiplier", 0.05),
        # Nothing improves that much, so the schedule acts after the second epoch.
        *("--patience", 1, "--min-delta", 100, "--max-epochs", 3),
        *("--min-accuracy", 0, "--min-class-accuracy", 0),
        output=tmp_path / "run",
    )
    assert done.status == 0, done.out + done.err
    assert "learning rate 0.001 -> 0.00025" in done.out


def test_taxi(tmp_path):
    done = plateau("run", "taxi", "--min-roc-auc", 0.8, output=tmp_path / "run")
    assert done.status == 0, done.out + done.err
    assert done.accuracy() >= 0.85
    assert "no better val_loss" in done.out
    assert "roc_auc, all examples" in done.out
    (page,) = done.output.glob("artifacts/TrainingReport/report/*/report.html")
    assert "Other thresholds" in page.read_text()


def test_a_csv_file_and_the_name_of_its_label_are_enough(shared_data, tmp_path, capsys):
    with tarfile.open(shared_data / "tables.tar.gz") as archive:
        archive.extract("tables/penguins.csv", tmp_path, filter="data")
        archive.extract("tables/titanic.csv", tmp_path, filter="data")
    file = tmp_path / "tables" / "penguins.csv"
    done = plateau("run", "--data", file, "--label", "species", output=tmp_path / "run")
    assert done.status == 0, done.out + done.err
    assert re.search(r"^species +label .* Adelie, Chinstrap, Gentoo *$", done.out, re.MULTILINE)
    assert done.accuracy() > 0.85
    # The learning rate and the actions were chosen by measurement.
    assert "found by a range test" in done.out
    assert re.search(r'the plan "[^"]+" repeats these actions', done.out)
    answered = predict(tmp_path / "run", file)
    assert answered.status == 0, answered.out + answered.err
    assert float(re.search(r"accuracy +([\d.]+)", answered.out)[1]) > 0.95

    # The schema that the run wrote is one that is taken.
    schema = tmp_path / "run" / "data" / "schema.pbtxt"
    words = ("plan", "--data", str(file), "--label", "species", "--schema", str(schema))
    assert main.main(words) == 0

    titanic = tmp_path / "tables" / "titanic.csv"
    assert main.main(["schema", str(titanic), "--label", "survived"]) == 0
    assert "each of its values fixes survived" in " ".join(capsys.readouterr().out.split())


def test_a_number_is_learned_gated_and_predicted(shared_data, tmp_path):
    """Fuel consumption, whose label has fractions; the same model must answer everywhere."""
    import tensorflow as tf

    with tarfile.open(shared_data / "tables.tar.gz") as archive:
        archive.extract("tables/mpg.csv", tmp_path, filter="data")
    file = tmp_path / "tables" / "mpg.csv"
    command = ("run", "--data", file, "--label", "mpg", "--max-epochs", 12, "--label-scale", "log")
    done = plateau(*command, output=tmp_path / "run")
    assert done.status == 0, done.out + done.err
    assert re.search(r"^mpg +label .* a number", done.out, re.MULTILINE)
    assert "lower end of the 95 % interval of r2" in re.sub(r"\s+", " ", done.out)
    assert float(re.search(r"candidate +\d+ +([\d.]+)", done.out)[1]) > 0.6

    written = tmp_path / "predictions.csv"
    answered = predict(tmp_path / "run", file, "--file", written)
    assert answered.status == 0, answered.out + answered.err
    assert float(re.search(r"r2 +([\d.]+), mean absolute error", answered.out)[1]) > 0.7
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with written.open(newline="") as stream:
        predicted = [float(row["prediction"]) for row in csv.DictReader(stream)]
    (pushed,) = done.pushed
    signature = tf.saved_model.load(str(pushed)).signatures["serving_columns"]
    inputs = signature.structured_input_signature[1]
    missing = {tf.float32: "nan", tf.int64: str(-(2**63)), tf.string: ""}
    kinds = {tf.float32: float, tf.int64: int, tf.string: str}
    answer = signature(
        **{
            name: tf.constant([kinds[s.dtype](r[name] or missing[s.dtype]) for r in rows], s.dtype)
            for name, s in inputs.items()
        }
    )
    assert answer["prediction"].numpy()[:, 0] == pytest.approx(predicted, rel=1e-5)

    refused = plateau(*command, "--task", "classification", output=tmp_path / "run")
    assert refused.status == 2
    assert "set --task regression to predict the number" in refused.err
    held = plateau(*command, "--max-mae", 0.5, "--tune", 2, output=tmp_path / "run")
    assert held.status == 3, held.out + held.err
    losses = re.findall(r"trial  \d/2 .*  val_loss ([\d.]+)", held.out)
    (kept,) = re.findall(r"keeping the weights of epoch \d+ \(val_loss ([\d.]+)\)", held.out)
    assert min(losses) == kept and len(losses) == 2
    assert re.search(r"mae, all examples is [\d.]+, must be <= 0.5", held.out + held.err)
    assert held.pushed == done.pushed


def test_a_table_of_ones_own(tmp_path):
    """Names that TensorFlow refuses, a schema that TFDV infers, dates, rows without a label."""
    import tensorflow as tf
    import tensorflow_data_validation as tfdv

    random = np.random.default_rng(0)
    rows = [
        f"{i},{'' if i % 9 == 0 else random.normal(i % 2)},{random.integers(3)},{'uv'[i % 2]},"
        f"{'' if i % 40 == 0 else date(2026, 1, 1) + timedelta(i)},"
        f"{'' if i % 50 == 0 else ('no', 'yes')[i % 2]}"
        for i in range(400)
    ]
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.csv").write_text(
        "\n".join(["_id,petal width (cm),% fat,self,when,label", *rows, ""])
    )
    statistics = tfdv.generate_statistics_from_csv(f"{data}/*.csv")
    tfdv.write_schema_text(tfdv.infer_schema(statistics), str(tmp_path / "schema.pbtxt"))
    done = plateau(
        *("run", "taxi", "--data", data, "--schema", tmp_path / "schema.pbtxt"),
        *("--numeric", "petal width (cm)", "--bucketized", "% fat", "--categorical", "self"),
        *("--dates", "when", "--class-weight", "balanced"),
        *("--label", "label", "--label-over", "None", "--classes", "no", "yes"),
        *("--on-missing-label", "skip", "--max-epochs", 8),
        output=tmp_path / "run",
    )
    assert done.status == 0, done.out + done.err
    assert "8 rows without a label left out" in done.out
    (pushed,) = done.pushed
    signature = tf.saved_model.load(str(pushed)).signatures["serving_columns"]
    answer = signature(
        petal_width_cm=tf.constant([float("nan"), 1.0]),
        fat=tf.constant([0, 2], tf.int64),
        self_=tf.constant(["u", "v"]),
        when=tf.constant(["", "2026-02-03T10:30"]),
    )
    assert answer["class"].numpy().tolist() == [[b"no"], [b"yes"]]
    predicted = predict(tmp_path / "run", data, "--threshold", 0.7, "--file", tmp_path / "p.csv")
    assert "predicted  400, of which 20 are shown" in predicted.out
    assert re.search(r"accuracy +[\d.]+, of the 392 with a label", predicted.out)
    with (tmp_path / "p.csv").open(newline="") as stream:
        answers = [(row["class"], float(row["probability"])) for row in csv.DictReader(stream)]
    yes = [probability for name, probability in answers if name == "yes"]
    no = [probability for name, probability in answers if name == "no"]
    assert min(yes) >= 0.7 and 0.3 < min(no) < 0.5


def squares(folder, colours, count):
    """Images of mixed sizes and formats, half of them grey, each class a shade of its own."""
    random = np.random.default_rng(0)
    for name, shade in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            size = (int(random.integers(10, 40)), int(random.integers(10, 40)))
            noise = random.normal(shade, 20, (*size, 3)).clip(0, 255).astype(np.uint8)
            suffix = ("png", "jpg", "bmp", "gif", "JPEG")[i % 5]
            image = Image.fromarray(noise).convert("L" if i // 5 % 2 else "RGB")
            image.save(folder / name / f"{i} é.{suffix}")
    return folder


def test_folders_without_splits_and_what_is_refused_before_training(tmp_path):
    """Data that moved, and other classes than the baseline's."""
    flags = ("--height", 16, "--width", 16, "--max-epochs", 15, "--batch-size", 8)
    flags += ("--strategy", "lr_decay", "--min-accuracy", 0.7, "--max-accuracy-drop", 1)
    data = squares(tmp_path / "two", {"dark one": 50, "bright ü": 205}, 60)
    first = plateau("run", "--data", data, *flags, output=tmp_path / "run")
    assert first.status == 0, first.out + first.err

    moved = shutil.copytree(data, tmp_path / "moved")
    for path in list((moved / "dark one").iterdir())[6:]:
        path.unlink()
    done = plateau("run", "--data", moved, *flags, "--max-drift", 0.1, output=tmp_path / "run")
    assert done.status == 3, done.out + done.err
    assert "drift of label is" in done.err
    assert "must be <= 0.1000" in done.err
    assert done.pushed == first.pushed
    assert "Trainer" not in done.out

    three = squares(tmp_path / "three", {"dark one": 50, "mid": 128, "bright ü": 205}, 40)
    refused = plateau("run", "--data", three, *flags, output=tmp_path / "run")
    assert refused.status == 3, refused.out + refused.err
    both = "images, 'bright ü', 'dark one'"
    assert f"{both} (rule: {both}, 'mid')" in refused.err
    assert refused.pushed == first.pushed
    assert "ImageExampleGen" not in refused.out

    done = plateau(
        *("run", "--data", three, *flags, "--allow-class-change"), output=tmp_path / "run"
    )
    assert done.status == 0, done.out + done.err
    assert "accuracy_shared_classes - baseline's" in done.out
    assert len(done.pushed) == 2
