"""InteractiveContext in a real kernel: our components, and our gates behind TFX's own examples."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image
from tfx.examples import penguin

from runs import ROOT

pytestmark = pytest.mark.e2e


def execute(cells: Sequence[str], **environment: str) -> list[list[Mapping[str, object]]]:
    """The outputs of the cells of a notebook, run in a process of its own."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    given = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(env=given)
    return [cell.outputs for cell in notebook.cells]


def shown(outputs: Sequence[Mapping[str, object]]) -> str:
    """The HTML that a cell displays."""
    data = [output["data"] for output in outputs if "data" in output]
    return "".join(str(each["text/html"]) for each in data if "text/html" in each)


def printed(outputs: Sequence[Mapping[str, object]]) -> str:
    return "".join(str(o["text"]) for o in outputs if o.get("name") == "stdout")


OURS = """
import dataclasses
from pathlib import Path
from trainer_module.util import environment
environment.prepare()
from tfx.orchestration.experimental.interactive.interactive_context import InteractiveContext
from pipeline import graph, presets
from pipeline.metadata import store as metadata
from schemas.images import image_schema_text
from trainer_module.config import ImageFeatures

config = presets.get("images").build()
config = dataclasses.replace(
    config,
    classes=("bright", "dark"),
    features=ImageFeatures(height=8, width=8, channels=1),
    schedule=dataclasses.replace(config.schedule, max_epochs=3),
)
paths = graph.PipelinePaths(
    data="data",
    artifacts="root",
    pushed="pushed",
    checkpoints="root/checkpoints",
    metadata=metadata.store_of(Path("root")),
)
made = graph.create_pipeline(config, paths, image_schema_text(["bright", "dark"]))
context = InteractiveContext("plateau", pipeline_root="root")
for component in made.components:
    context.run(component)
nodes = {component.id: component for component in made.components}
print(*nodes)
"""


def test_every_component_runs_and_history_and_report_are_displayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name, shade in (("dark", 50), ("bright", 205)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(40):
            noise = random.normal(shade, 20, (8, 8)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / "data" / name / f"{i}.png")
    ran, *displays = execute(
        [
            OURS,
            "context.show(nodes['Trainer'].outputs['training_history'])",
            "context.show(nodes['TrainingReport'].outputs['report'])",
            "nodes['Trainer'].outputs['training_history'].get()[0]",
            "from pathlib import Path\n"
            "from trainer_module import history\n"
            "uri = nodes['Trainer'].outputs['training_history'].get()[0].uri\n"
            "history.read(Path(uri) / 'history.jsonl')",
            "nodes['TrainingReport'].outputs['report'].get()[0]",
        ]
    )
    assert {"AnomalyGate", "DriftGate", "Servable", "Pusher"} <= set(printed(ran).split())
    channel, report, artifact, record, page = map(shown, displays)
    for plotted in (channel, artifact, record):
        assert "Plotly.react" in plotted
        assert "learning rate" in plotted
    assert "Training report, written" in report
    assert "Training report, written" in page


FOREIGN = """
import json, sys
from pathlib import Path
import tensorflow_model_analysis as tfma
from tfx import components as theirs
from tfx.proto import example_gen_pb2, trainer_pb2
from tfx.orchestration.experimental.interactive.interactive_context import InteractiveContext
from components.anomaly_gate.component import AnomalyGate
from components.drift_gate.component import DriftGate
from components.servable.component import Servable
from components.training_report.component import TrainingReport

sys.path.insert(0, "modules")

def through_our_gates(name, examples, module, label, spec, metric):
    context = InteractiveContext(name, pipeline_root=name)

    def run(component):
        context.run(component)
        return component.outputs

    examples = run(examples)["examples"]
    statistics = run(theirs.StatisticsGen(examples))["statistics"]
    schema = run(theirs.SchemaGen(statistics))["schema"]
    anomalies = run(theirs.ExampleValidator(statistics, schema))["anomalies"]
    run(AnomalyGate(anomalies=anomalies, statistics=statistics, schema=schema, label=label))
    drift = run(DriftGate(statistics=statistics, schema=schema, max_skew=0.1))["drift"]
    transform = theirs.Transform(
        examples,
        schema,
        preprocessing_fn=f"{module}.preprocessing_fn",
        disable_statistics=True,
    )
    transformed = run(transform)
    trained = run(
        theirs.Trainer(
            examples=transformed["transformed_examples"],
            transform_graph=transformed["transform_graph"],
            schema=schema,
            run_fn=f"{module}.run_fn",
            train_args=trainer_pb2.TrainArgs(num_steps=10),
            eval_args=trainer_pb2.EvalArgs(num_steps=2),
        )
    )
    config = tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(**spec)],
        slicing_specs=[tfma.SlicingSpec()],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name="ExampleCount"),
                    tfma.MetricConfig(class_name=metric),
                ]
            )
        ],
    )
    evaluated = run(theirs.Evaluator(examples, trained["model"], eval_config=config))
    servable = Servable(trained["model"], examples, evaluated["evaluation"], label=label)
    blessing = run(servable)["blessing"]
    report = TrainingReport(
        evaluated["evaluation"],
        evaluated["blessing"],
        statistics,
        schema,
        history=trained["model_run"],
        anomalies=anomalies,
        model=trained["model"],
        examples=examples,
        infra_blessing=blessing,
        drift=drift,
        label=label,
    )
    page = Path(run(report)["report"].get()[0].uri, "report.html").read_text()
    checks = json.loads(Path(blessing.get()[0].uri, "servable.json").read_text())["checks"]
    Path(f"{name}.json").write_text(json.dumps({"checks": checks, "page": page}))
"""

PENGUIN = """
splits = [
    example_gen_pb2.Input.Split(name=split, pattern=f"Split-{split}/*")
    for split in ("train", "eval")
]
penguins = str(Path(theirs.__file__).parent / "testdata/penguin/data")
examples = theirs.ImportExampleGen(penguins, input_config=example_gen_pb2.Input(splits=splits))
spec = {
    "signature_name": "serving_default",
    "label_key": "species_xf",
    "preprocessing_function_names": ["transform_features"],
}
through_our_gates(
    "penguin", examples, "recorded", "species", spec, "SparseCategoricalAccuracy"
)
"""

TAXI = """
trips = Path(theirs.__file__).parents[1] / "examples/chicago_taxi_pipeline/data/simple/data.csv"
Path("trips").mkdir()
Path("trips/trips.csv").write_text("".join(trips.read_text().splitlines(True)[:2000]))
spec = {
    "signature_name": "serving_default",
    "label_key": "tips_xf",
    "preprocessing_function_names": ["transform_features"],
}
through_our_gates(
    "taxi",
    theirs.CsvExampleGen("trips"),
    "tfx.examples.chicago_taxi_pipeline.taxi_utils_native_keras",
    "tips",
    spec,
    "BinaryAccuracy",
)
"""


@pytest.fixture(scope="module")
def examples_of_tfx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what our gates say of the models of TFX's examples, by their own Trainer."""
    folder = tmp_path_factory.mktemp("foreign")
    source = Path(penguin.__file__).with_name("penguin_utils_keras.py").read_text()
    (folder / "modules").mkdir()
    # All that their module changes for a history in the report.
    recorder = "[tensorboard_callback, HistoryRecorder(fn_args.model_run_dir, batch_size=20)]"
    changed = source.replace(
        "import keras_tuner", "import keras_tuner\nfrom trainer_module import HistoryRecorder"
    ).replace("callbacks=[tensorboard_callback]", f"callbacks={recorder}")
    (folder / "modules/recorded.py").write_text(changed)
    cells = [FOREIGN, PENGUIN, TAXI]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # The examples are written for Keras 2.
        execute(cells, TF_USE_LEGACY_KERAS="1")
    return folder


@pytest.mark.parametrize("name", ["penguin", "taxi"])
def test_our_gates_behind_the_trainer_of_tfx(examples_of_tfx: Path, name: str) -> None:
    found = json.loads((examples_of_tfx / f"{name}.json").read_text())
    verdicts = {check["rule"]: check["passed"] for check in found["checks"]}
    failed = [check for check in found["checks"] if check["passed"] is False]
    assert not failed
    assert verdicts["session"]
    assert verdicts["accuracy"], "measured once more from the served model"
    page = found["page"]
    assert "The model can be served" in page
    assert ("The report was given no history" in page) == (name != "penguin")
    assert ("the confidence is their softmax" in page) == (name != "taxi")
