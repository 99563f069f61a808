"""InteractiveContext in a real kernel: our components, and our gates behind TFX's own examples."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

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
from trainer_module import environment
environment.prepare()
from tfx.orchestration.experimental.interactive.interactive_context import InteractiveContext
from pipeline import graph, metadata, presets
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
        assert "Plotly.newPlot" in plotted
        assert "training loss" in plotted
    assert "Training report, written" in report
    assert "Training report, written" in page
