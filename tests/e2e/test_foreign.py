"""A TFX pipeline that is not ours, compiled by TFX's own runner, on open-source Kubeflow."""

import os
import random
import subprocess
import sys
import zipfile

import cluster
import layout
import pytest

from runs import ROOT

reason = cluster.unavailable()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(reason is not None, reason=str(reason)),
]
PENGUIN = "tfx.examples.penguin.penguin_utils"
LISTING = """
from tfx import v1 as tfx
from components import DataDrift


@tfx.dsl.components.component
def Listing(
    drift: tfx.dsl.components.InputArtifact[DataDrift],
    listing: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.Schema],
):
    from tfx.dsl.io import fileio

    fileio.makedirs(listing.uri)
    with fileio.open(f"{listing.uri}/listing.txt", "w") as file:
        file.write(" ".join(fileio.listdir(drift.uri)))
"""
PIPELINE = f"""
import tensorflow_model_analysis as tfma
from tfx import v1 as tfx
from components import DriftGate
from pipeline.listing import Listing

gen = tfx.components.CsvExampleGen(input_base="/app/data")
statistics = tfx.components.StatisticsGen(examples=gen.outputs["examples"])
schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"])
gate = DriftGate(
    statistics=statistics.outputs["statistics"],
    schema=schema.outputs["schema"],
    split="train",
    other_split="eval",
)
transform = tfx.components.Transform(
    examples=gen.outputs["examples"],
    schema=schema.outputs["schema"],
    preprocessing_fn="{PENGUIN}_base.preprocessing_fn",
)
trainer = tfx.components.Trainer(
    run_fn="{PENGUIN}_keras.run_fn",
    examples=transform.outputs["transformed_examples"],
    transform_graph=transform.outputs["transform_graph"],
    schema=schema.outputs["schema"],
    train_args=tfx.proto.TrainArgs(num_steps=100),
    eval_args=tfx.proto.EvalArgs(num_steps=5),
)
accuracy = tfma.MetricConfig(
    class_name="SparseCategoricalAccuracy",
    threshold=tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={{"value": 0.6}})
    ),
)
evaluator = tfx.components.Evaluator(
    examples=gen.outputs["examples"],
    model=trainer.outputs["model"],
    eval_config=tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name="serving_default",
                label_key="species_xf",
                preprocessing_function_names=["transform_features"],
            )
        ],
        slicing_specs=[tfma.SlicingSpec()],
        metrics_specs=[tfma.MetricsSpec(metrics=[accuracy])],
    ),
)
with tfx.dsl.Cond(evaluator.outputs["blessing"].future()[0].custom_property("blessed") == 1):
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory="/tmp/pushed")
        ),
    )
listing = Listing(drift=gate.outputs["drift"])
pipeline = tfx.dsl.Pipeline(
    pipeline_name="penguin",
    pipeline_root="s3://bucket/penguin",
    components=[gen, statistics, schema, gate, listing, transform, trainer, evaluator, pusher],
)
"""


def snippet() -> str:
    """The lines of docs/components-kubeflow.md that compile a pipeline."""
    lines = (ROOT / "docs/components-kubeflow.md").read_text().splitlines()
    return "\n".join(line[4:] for line in lines if line.startswith("    ") or not line)


@pytest.fixture(scope="module")
def image(tmp_path_factory, wheel):
    """/app of an image with their own package called pipeline, and ours as it is installed."""
    folder = tmp_path_factory.mktemp("foreign") / "app"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "pipeline").mkdir()
    (folder / "pipeline/__init__.py").touch()
    (folder / "pipeline/listing.py").write_text(LISTING)
    (folder / "data").mkdir()
    noise = random.Random(0)
    means = [(38, 18, 190, 3700), (48, 18, 196, 3700), (47, 15, 217, 5100)]
    rows = ["species,culmen_length_mm,culmen_depth_mm,flipper_length_mm,body_mass_g"]
    for number in range(330):
        species = number % 3
        values = (f"{noise.gauss(mean, mean / 30):.4f}" for mean in means[species])
        rows.append(",".join((str(species), *values)))
    (folder / "data/penguins.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def ran(image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("penguin")
    done = subprocess.run(
        [sys.executable, "-c", PIPELINE + snippet()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(image)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # Nothing of it is said in their Dockerfile.
    ours = ("TF_USE_LEGACY_KERAS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_CPP_MIN_LOG_LEVEL")
    environment = {k: v for k, v in layout.environment().items() if k not in ours}
    machine = cluster.Cluster(folder / "cluster", image, {}, cluster.V2_17, environment=environment)
    yield machine.run(folder / "penguin.yaml"), machine, folder / "penguin.yaml"
    machine.close()


@pytest.fixture(scope="module")
def run(ran):
    return ran[0]


def test_every_task_succeeds(run):
    assert run.succeeded, run.failures
    assert len(run.tasks) == 9


def test_their_model_is_blessed_and_pushed(run):
    assert run.output("Evaluator", "blessing")["metadata"]["blessed"] == 1
    assert run.output("Pusher", "pushed_model")["metadata"]["pushed"] == 1


def test_our_artifact_type_reaches_a_component_of_theirs(run):
    assert (run.stored("Listing", "listing") / "listing.txt").read_text() == "drift.json"


def test_tfxs_own_entrypoint_fails_in_the_first_task(ran):
    """The reason why there is another; `components.container` can go when this test fails."""
    _, machine, file = ran
    own = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
    theirs = file.with_name("theirs.yaml")
    theirs.write_text(file.read_text().replace("components.container", own))
    run = machine.run(theirs, only={"CsvExampleGen"})
    assert not run.succeeded
    assert "Could not import system.Artifact" in run.tasks["CsvExampleGen"].log
