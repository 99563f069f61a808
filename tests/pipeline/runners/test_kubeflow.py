import dataclasses
import json
import random
import re
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from PIL import Image

from pipeline import presets
from pipeline.config import MetadataConfig
from pipeline.data import dataset
from pipeline.runners import kubeflow
from pipeline.runners.kubeflow import CompileConfig
from trainer_module.config import TrainConfig
from trainer_module.util.checks import UserError

RUN = presets.get("digits").build()
VERTEX = {
    "target": "vertex",
    "root": "gs://bucket/root/",
    "data_location": "gs://bucket/data",
    "pushed": "gs://bucket/pushed",
}


def config(**fields: Any) -> CompileConfig:
    volume = None if fields.get("target") == "vertex" else "plateau:/workspace"
    defaults = {"run": RUN, "image": "registry.example/plateau:1", "volume": volume}
    return CompileConfig(**{**defaults, **fields})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("compiled") / "digits.yaml"
    kubeflow.run(config(file=file, cpus=4, memory_gib=8, gpus=1))
    return file


@pytest.fixture(scope="module")
def spec(digits: Path) -> dict[str, Any]:
    return dict(next(yaml.safe_load_all(digits.read_text())))


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    return dict(spec["root"]["dag"]["tasks"])


# Newer than the protocol buffers installed here.
NEW_FIELDS = re.compile(r"resource(Cpu|Memory)(Limit|Request)|resource(Type|Count)")


def known(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: known(v) for k, v in value.items() if not NEW_FIELDS.fullmatch(k)}
    return [known(each) for each in value] if isinstance(value, list) else value


def test_the_backend_can_read_it(spec: dict[str, Any]) -> None:
    json_format.ParseDict(known(spec), pipeline_spec_pb2.PipelineSpec())
    assert spec["schemaVersion"].startswith("2.1.")
    for task in tasks(spec).values():
        for source in task.get("inputs", {}).get("artifacts", {}).values():
            # They alone order tasks.
            assert source["taskOutputArtifact"]["producerTask"] in task["dependentTasks"]
    # Kubeflow Pipelines 2.14 to 2.17 take none for 0 and never try again.
    assert tasks(spec)["Trainer"]["retryPolicy"]["backoffMaxDuration"]


def test_every_run_may_set_five_parameters(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: found["defaultValue"] for name, found in parameters.items()} == {
        "data": "/workspace/data/digits",
        "pushed": "/workspace/pushed/digits",
        "strategy": RUN.schedule.strategy,
        "patience": RUN.schedule.plateau.patience,
        "max_epochs": RUN.schedule.max_epochs,
    }
    given = tasks(spec)["Trainer"]["inputs"]["parameters"]
    assert given["patience"] == {"componentInputParameter": "patience"}
    for task, name in (("Pusher", "push_destination"), ("LatestBlessed", "pushed")):
        found = tasks(spec)[task]["inputs"]["parameters"][name]
        assert found == {"componentInputParameter": "pushed"}


def test_the_baseline_comes_from_an_ordinary_component(spec: dict[str, Any]) -> None:
    kinds = {kind for e in spec["deploymentSpec"]["executors"].values() for kind in e}
    assert kinds == {"container"}
    baseline = tasks(spec)["Evaluator"]["inputs"]["artifacts"]["baseline_model"]
    assert baseline["taskOutputArtifact"]["producerTask"] == "LatestBlessed"


def test_open_source_kubeflow_gets_no_lifecycle_hooks(spec: dict[str, Any]) -> None:
    assert "lifecycle" not in json.dumps(spec["deploymentSpec"])


def test_vertex_gets_a_job_with_all_values_and_lifecycle_hooks(tmp_path: Path) -> None:
    file = tmp_path / "digits.json"
    kubeflow.run(config(**VERTEX, file=file))
    job = json.loads(file.read_text())
    assert "preCacheCheck" in json.dumps(job["pipelineSpec"]["deploymentSpec"])
    runtime = job["runtimeConfig"]
    assert runtime["gcsOutputDirectory"] == "gs://bucket/root"
    assert runtime["parameterValues"]["pushed"] == "gs://bucket/pushed"
    trainer = job["pipelineSpec"]["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    assert trainer["checkpoints"]["runtimeValue"]["constant"] == "/gcs/bucket/root/checkpoints"


def test_what_looks_at_folders_is_not_cached(spec: dict[str, Any]) -> None:
    uncached = {name for name, task in tasks(spec).items() if "cachingOptions" not in task}
    assert uncached == {"ImageExampleGen", "LatestBlessed", "Pusher"}


def test_only_the_trainer_gets_its_resources_and_is_tried_again(spec: dict[str, Any]) -> None:
    assert list(resources(spec)) == ["Trainer_executor"]
    gigabytes = pytest.approx(8 * 2**30 / 1e9)
    assert resources(spec)["Trainer_executor"] == {
        **{"cpuLimit": 4, "cpuRequest": 4, "resourceCpuLimit": "4", "resourceCpuRequest": "4"},
        **{"memoryLimit": gigabytes, "memoryRequest": gigabytes},
        **{"resourceMemoryLimit": "8Gi", "resourceMemoryRequest": "8Gi"},
        "accelerator": {
            **{"type": "nvidia.com/gpu", "count": "1"},
            **{"resourceType": "nvidia.com/gpu", "resourceCount": "1"},
        },
    }
    assert [name for name, task in tasks(spec).items() if "retryPolicy" in task] == ["Trainer"]


COMMAND = "plateau compile digits --classes 'a  b'"


@pytest.fixture(scope="module")
def other() -> dict[str, Any]:
    """Another compiled pipeline, with a root and resources for every task."""
    run = dataclasses.replace(RUN, classes=dataset.class_names(RUN))
    fields = {"task_cpus": 0.5, "task_memory_gib": 2.5, "cpus": 4, "root": "s3://bucket/root/"}
    return kubeflow.compile_spec(config(run=run, **fields), COMMAND)


def test_every_task_gets_resources_where_a_namespace_has_quotas(other: dict[str, Any]) -> None:
    found = resources(other)
    assert found.keys() == other["deploymentSpec"]["executors"].keys()
    assert found["Evaluator_executor"]["resourceCpuLimit"] == "0.5"
    assert found["Evaluator_executor"]["resourceMemoryRequest"] == "2.5Gi"
    assert found["Trainer_executor"]["resourceCpuLimit"] == "4"
    assert found["Trainer_executor"]["resourceMemoryLimit"] == "2.5Gi"


def test_the_trainer_goes_to_the_nodes_with_gpus_and_every_task_pulls_with_the_secret() -> None:
    found = config(
        toleration=("nvidia.com/gpu:NoSchedule", "pool=ml:NoExecute", "spot"),
        node_selector=("pool=gpu",),
        image_pull_secret="registry",
    )
    spec = {"deploymentSpec": {"executors": {"Trainer_executor": {}, "Evaluator_executor": {}}}}
    platform = kubeflow.platform_spec(spec, found)
    assert platform is not None
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert all(e["imagePullSecret"] == [{"secretName": "registry"}] for e in executors.values())
    assert executors["Trainer_executor"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert executors["Trainer_executor"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "pool", "operator": "Equal", "value": "ml", "effect": "NoExecute"},
        {"key": "spot", "operator": "Exists"},
    ]
    assert not {"nodeSelector", "tolerations"} & executors["Evaluator_executor"].keys()


def resources(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        name: e["container"]["resources"]
        for name, e in spec["deploymentSpec"]["executors"].items()
        if "resources" in e["container"]
    }


def test_the_volume_is_mounted_everywhere(digits: Path, spec: dict[str, Any]) -> None:
    _, platform = yaml.safe_load_all(digits.read_text())
    mounted = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert mounted.keys() == spec["deploymentSpec"]["executors"].keys()
    (mount,) = mounted["Trainer_executor"]["pvcMount"]
    assert (mount["constant"], mount["mountPath"]) == ("plateau", "/workspace")


def test_the_workers_configuration_lies_beside(digits: Path) -> None:
    text = digits.with_suffix(".train_config.json").read_text()
    assert TrainConfig.from_json(text).schedule == RUN.schedule


def test_the_servers_own_root_holds_unless_another_is_given(
    spec: dict[str, Any], other: dict[str, Any]
) -> None:
    assert "defaultPipelineRoot" not in spec
    assert other["defaultPipelineRoot"] == "s3://bucket/root"


def test_the_report_has_the_type_of_a_page(spec: dict[str, Any]) -> None:
    outputs = spec["components"]["TrainingReport"]["outputDefinitions"]["artifacts"]
    assert outputs["report"]["artifactType"] == {
        "schemaTitle": "system.HTML",
        "schemaVersion": "0.0.1",
    }


NO_TASKS: dict[str, Any] = {"deploymentSpec": {"executors": {}}}


@pytest.mark.parametrize("text", ["1e3", "0o17", "yes", "~", "1:30", "2001-01-01", "0x1f", ".5"])
def test_every_text_of_the_file_is_quoted(text: str) -> None:
    """YAML has several versions, and Kubeflow's reader takes some plain words for numbers."""
    found = kubeflow.as_text({"a": text, "b": [text], **NO_TASKS}, config())
    assert found.count(f'"{text}"') == 2


def test_the_command_is_recorded_as_it_was_given(other: dict[str, Any]) -> None:
    report = tasks(other)["TrainingReport"]["inputs"]["parameters"]["command"]
    assert report["runtimeValue"]["constant"] == COMMAND


def test_four_thousand_classes_fit(tmp_path: Path) -> None:
    letters = random.Random(0).choices(string.ascii_lowercase, k=4000 * 20)
    names = tuple("".join(letters[i : i + 20]) for i in range(0, len(letters), 20))
    images = dataclasses.replace(presets.get("images").build(), classes=names)
    file = tmp_path / "images.yaml"
    command = f"plateau compile images --classes {' '.join(names)}"
    kubeflow.run(CompileConfig(images, image="r/p:1", volume="plateau:/w", file=file), command)
    assert "TrainingReport" in tasks(next(yaml.safe_load_all(file.read_text())))


def test_more_classes_than_fit_are_refused(tmp_path: Path) -> None:
    letters = random.Random(0).choices(string.ascii_lowercase, k=8000 * 20)
    names = tuple("".join(letters[i : i + 20]) for i in range(0, len(letters), 20))
    images = dataclasses.replace(presets.get("images").build(), classes=names)
    with pytest.raises(UserError, match=r"InlineSchemaGen, .* must fit in 100,000 bytes"):
        kubeflow.run(
            CompileConfig(images, image="r/p:1", volume="plateau:/w", file=tmp_path / "i.yaml")
        )
    assert list(tmp_path.iterdir()) == []


def test_classes_come_from_flags_a_copy_of_the_data_or_the_schema(tmp_path: Path) -> None:
    images = presets.get("images").build()
    with pytest.raises(ValueError, match="classes must be known"):
        dataset.class_names(images)
    assert dataset.class_names(dataclasses.replace(images, classes=("b", "a"))) == ("b", "a")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    found = dataset.class_names(dataclasses.replace(images, data=tmp_path))
    assert found == ("cat", "dog")
    assert dataset.class_names(RUN) == tuple("0123456789")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"volume": None}, "`data_location` must be given"),
        ({"volume": None, "data_location": "/d"}, "`pushed` must be given"),
        *(({"volume": bad}, "CLAIM:/PATH") for bad in ("no-path", "a.b:/w", f"{'a' * 64}:/w")),
        *(({"image": bad}, "`image` must be one word") for bad in ("", "a b")),
        *(({"root": bad}, "`root` must begin with") for bad in ("file:///tmp", "s3://")),
        ({**VERTEX, "root": "s3://bucket"}, "`root` must begin with gs://"),
        (
            {"target": "vertex", "data_location": "/d", "pushed": "/p"},
            "`root` must begin with gs://",
        ),
        ({"target": "argo"}, "`target` must be one of kfp, vertex"),
        ({"gpus": -1}, "`gpus` must be at least 0"),
        ({"cpus": 0}, "`cpus` must be above 0"),
        ({"toleration": ("a b",)}, "`toleration` must be"),
        ({"toleration": ("gpu:Never",)}, "`toleration` must be"),
        ({"node_selector": ("pool",)}, "`node_selector` must be"),
        ({**VERTEX, "toleration": ("gpu",)}, "`toleration` is for `target=kfp` only"),
        ({**VERTEX, "volume": "plateau:/w"}, "`volume` is for `target=kfp` only"),
        (
            {"run": dataclasses.replace(RUN, metadata=MetadataConfig("mysql://ana@host/plateau"))},
            "`metadata` must be left out",
        ),
    ],
)
def test_bad_flags(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**fields)
