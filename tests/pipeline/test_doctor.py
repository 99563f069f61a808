import copy
import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline import console, doctor, doctor_console, doctor_modules, flags
from pipeline.doctor import Compiled, DoctorConfig, Finding

TFX = "tfx.components.statistics_gen.executor.Executor"
IMAGE = "example.org/plateau:0.1.0"


def artifact(title: str) -> dict[str, Any]:
    return {"artifactType": {"instanceSchema": f"title: {title}\ntype: object\n"}}


def executor(path: str) -> dict[str, Any]:
    return {
        "container": {
            "image": IMAGE,
            "command": ["python", "-m", "pipeline.kubeflow_task"],
            "args": [
                "--executor_class_path",
                path,
                "--json_serialized_invocation_args",
                "{{$}}",
                "--json_serialized_inputs_spec_args",
                "{}",
            ],
        }
    }


def healthy() -> dict[str, Any]:
    """A PipelineSpec with one of everything, of the shape that TFX compiles."""
    return {
        "pipelineInfo": {"name": "plateau-digits-0a1b2c3d"},
        "schemaVersion": "2.1.0",
        "sdkVersion": "tfx-1.16.0",
        "defaultPipelineRoot": "minio://mlpipeline/plateau",
        "root": {
            "inputDefinitions": {
                "parameters": {
                    "data": {"parameterType": "STRING", "defaultValue": "gs://bucket/data"},
                    "patience": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3.0},
                }
            },
            "dag": {
                "tasks": {
                    "Gen": {
                        "componentRef": {"name": "Gen"},
                        "taskInfo": {"name": "Gen"},
                        "inputs": {
                            "parameters": {
                                "input_base": {"componentInputParameter": "data"},
                                "output_data_format": {"runtimeValue": {"constant": 6.0}},
                            }
                        },
                    },
                    "Model": {"componentRef": {"name": "Model"}, "taskInfo": {"name": "Model"}},
                    "Trainer": {
                        "componentRef": {"name": "Trainer"},
                        "taskInfo": {"name": "Trainer"},
                        "dependentTasks": ["Gen", "Model"],
                        "inputs": {
                            "artifacts": {
                                "examples": {
                                    "taskOutputArtifact": {
                                        "producerTask": "Gen",
                                        "outputArtifactKey": "examples",
                                    }
                                },
                                "base_model": {
                                    "taskOutputArtifact": {
                                        "producerTask": "Model",
                                        "outputArtifactKey": "result",
                                    }
                                },
                            },
                            "parameters": {
                                "patience": {"componentInputParameter": "patience"},
                                "count": {
                                    "taskOutputParameter": {
                                        "producerTask": "Gen",
                                        "outputParameterKey": "count",
                                    }
                                },
                            },
                        },
                    },
                    "Statistics": {
                        "componentRef": {"name": "Statistics"},
                        "taskInfo": {"name": "Statistics"},
                        "dependentTasks": ["Trainer"],
                        "inputs": {
                            "artifacts": {
                                "examples": {
                                    "taskOutputArtifact": {
                                        "producerTask": "Gen",
                                        "outputArtifactKey": "examples",
                                    }
                                }
                            },
                            "parameters": {"exclude_splits": {"runtimeValue": {"constant": "[]"}}},
                        },
                        "triggerPolicy": {
                            "condition": "inputs.artifacts['examples'].artifacts[0].metadata['n']"
                            " > 1.0 && inputs.parameter_values[\"exclude_splits\"] == '[]'"
                        },
                    },
                }
            },
        },
        "components": {
            "Gen": {
                "executorLabel": "Gen_executor",
                "inputDefinitions": {
                    "parameters": {
                        "input_base": {"parameterType": "STRING"},
                        "output_data_format": {"parameterType": "NUMBER_INTEGER"},
                        "span": {"parameterType": "NUMBER_INTEGER", "isOptional": True},
                    }
                },
                "outputDefinitions": {
                    "artifacts": {"examples": artifact("tfx.Examples")},
                    "parameters": {"count": {"parameterType": "NUMBER_INTEGER"}},
                },
            },
            "Model": {
                "executorLabel": "Model_executor",
                "outputDefinitions": {"artifacts": {"result": artifact("tfx.Model")}},
            },
            "Trainer": {
                "executorLabel": "Trainer_executor",
                "inputDefinitions": {
                    "artifacts": {
                        "examples": artifact("tfx.Examples"),
                        "base_model": artifact("tfx.Model"),
                        "schema": {**artifact("tfx.Schema"), "isOptional": True},
                    },
                    "parameters": {
                        "patience": {"parameterType": "NUMBER_INTEGER"},
                        "count": {"parameterType": "NUMBER_INTEGER"},
                        "decay": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5},
                    },
                },
                "outputDefinitions": {
                    "artifacts": {
                        "training_history": artifact("plateau.TrainingHistory"),
                        "page": {"artifactType": {"schemaTitle": "system.HTML"}},
                    }
                },
            },
            "Statistics": {
                "executorLabel": "Statistics_executor",
                "inputDefinitions": {
                    "artifacts": {"examples": artifact("tfx.Examples")},
                    "parameters": {"exclude_splits": {"parameterType": "STRING"}},
                },
                "outputDefinitions": {"artifacts": {"statistics": artifact("tfx.Examples")}},
            },
        },
        "deploymentSpec": {
            "executors": {
                "Gen_executor": executor("components.image_example_gen.executor.Executor"),
                "Model_executor": {
                    "importer": {
                        "artifactUri": {"constant": "gs://bucket/model"},
                        "typeSchema": artifact("tfx.Model")["artifactType"],
                    }
                },
                "Trainer_executor": executor("components.plateau_trainer.executor.Executor"),
                "Statistics_executor": executor(TFX),
            }
        },
    }


def kfp(spec: dict[str, Any], platform: dict[str, Any] | None = None) -> Compiled:
    return Compiled(spec, platform)


def job(spec: dict[str, Any], **runtime: Any) -> Compiled:
    return Compiled(spec, None, {"gcsOutputDirectory": "gs://bucket/root", **runtime}, "vertex")


def task(spec: dict[str, Any], name: str = "Trainer") -> dict[str, Any]:
    found: dict[str, Any] = spec["root"]["dag"]["tasks"][name]
    return found


def container(spec: dict[str, Any], name: str = "Trainer") -> dict[str, Any]:
    found: dict[str, Any] = spec["deploymentSpec"]["executors"][f"{name}_executor"]["container"]
    return found


def mounts(*paths: str) -> dict[str, Any]:
    executors = {
        f"{name}_executor": {"pvcMount": [{"constant": "claim", "mountPath": p} for p in paths]}
        for name in ("Gen", "Trainer")
    }
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def rules(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.rule for finding in findings]


@pytest.mark.parametrize("compiled", [kfp(healthy()), job(healthy())], ids=["kfp", "vertex"])
def test_a_healthy_pipeline_has_no_finding(compiled: Compiled) -> None:
    assert doctor.check(compiled) == ()


def put(*path: str, to: object) -> Callable[[dict[str, Any]], None]:
    """A change that sets the value at a path of keys."""

    def change(spec: dict[str, Any]) -> None:
        for key in path[:-1]:
            spec = spec[key]
        spec[path[-1]] = to

    return change


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    """A change that takes the value at a path of keys away."""

    def change(spec: dict[str, Any]) -> None:
        for key in path[:-1]:
            spec = spec[key]
        del spec[path[-1]]

    return change


TASKS = ("root", "dag", "tasks")
PARAMETERS = ("root", "inputDefinitions", "parameters")
EXECUTORS = ("deploymentSpec", "executors")
TRAINER = (*EXECUTORS, "Trainer_executor", "container")
BASE = (*TASKS, "Trainer", "inputs", "artifacts", "base_model")
COUNT = (*TASKS, "Trainer", "inputs", "parameters", "count", "taskOutputParameter")
CONDITION = (*TASKS, "Statistics", "triggerPolicy", "condition")
TITLE = ("components", "Trainer", "outputDefinitions", "artifacts", "training_history")

# The change, the rule it breaks, and words of where, what and remedy.
BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str, str, str, str]] = {
    "old schema": (
        put("schemaVersion", to="2.0.0"),
        "schema",
        "schemaVersion",
        "got 2.0.0",
        "use_pipeline_spec_2_1",
    ),
    "no schema": (drop("schemaVersion"), "schema", "schemaVersion", "got none", ""),
    "name": (
        put("pipelineInfo", "name", to="My Pipeline"),
        "name",
        "pipelineInfo.name",
        "got 'My Pipeline'",
        "another name",
    ),
    "resolver": (
        put(*EXECUTORS, "Model_executor", to={"resolver": {"outputArtifactQueries": {}}}),
        "executor-kind",
        "executor Model_executor",
        "got a resolver",
        "replace the Resolver",
    ),
    "custom job": (
        put(*EXECUTORS, "Model_executor", to={"customJob": {}}),
        "executor-kind",
        "executor Model_executor",
        "got a customJob",
        "in a container",
    ),
    "no kind": (
        put(*EXECUTORS, "Model_executor", to={}),
        "executor-kind",
        "executor Model_executor",
        "neither",
        "again",
    ),
    "no such producer": (
        put(*BASE, "taskOutputArtifact", "producerTask", to="Elsewhere"),
        "producer",
        "task Trainer, input base_model",
        "got 'Elsewhere'",
        "Gen, Model",
    ),
    "stray suffix of TFX": (
        put(*COUNT, "producerTask", to="Gen_task"),
        "producer",
        "task Trainer, parameter count",
        "got 'Gen_task'",
        "TFX appends _task to the producer of a parameter by mistake: name Gen.",
    ),
    "no such dependency": (
        put(*TASKS, "Trainer", "dependentTasks", to=["Gen", "Model", "Gone"]),
        "producer",
        "task Trainer, dependentTasks",
        "got 'Gone'",
        "",
    ),
    "no such output": (
        put(*BASE, "taskOutputArtifact", "outputArtifactKey", to="model"),
        "producer",
        "task Trainer, input base_model",
        "got 'model'",
        "result",
    ),
    "artifact where a parameter is asked for": (
        put(*COUNT, "outputParameterKey", to="examples"),
        "producer",
        "task Trainer, parameter count",
        "among its parameters, got 'examples'",
        "count",
    ),
    "circle": (
        put(*TASKS, "Gen", "dependentTasks", to=["Statistics"]),
        "cycle",
        "root",
        "circle",
        "away",
    ),
    "waits for itself": (
        put(*TASKS, "Model", "dependentTasks", to=["Model"]),
        "cycle",
        "root",
        "Model -> Model",
        "away",
    ),
    "order": (
        put(*TASKS, "Trainer", "dependentTasks", to=["Gen"]),
        "order",
        "task Trainer",
        "leads to Model",
        "Add Model",
    ),
    "condition on an artifact": (
        put(*CONDITION, to="inputs.artifacts['model'].artifacts[0].metadata['ok'] == 1.0"),
        "condition",
        "task Statistics, condition",
        "got 'model'",
        "examples",
    ),
    "condition on a parameter": (
        put(*CONDITION, to="inputs.parameters['examples'] == 1.0"),
        "condition",
        "task Statistics, condition",
        "parameters that the task takes, got 'examples'",
        "exclude_splits",
    ),
    "main in the class path": (
        put(*TRAINER, "args", to=["--executor_class_path", "__main__.Make_Executor"]),
        "main-module",
        "executor Trainer_executor",
        "__main__.Make_Executor",
        "Move the definition",
    ),
    "main in the command": (
        put(*TRAINER, "command", to=["python", "-c", "import __main__"]),
        "main-module",
        "executor Trainer_executor",
        "__main__",
        "Move the definition",
    ),
    "main in an artifact type": (
        put(*TITLE, to=artifact("__main__.History")),
        "main-module",
        "component Trainer, output training_history",
        "__main__.History",
        "Move the definition",
    ),
    "main in a constant": (
        put(
            *(*TASKS, "Statistics", "inputs", "parameters", "exclude_splits"),
            to={"runtimeValue": {"constant": "__main__.run_fn"}},
        ),
        "main-module",
        "task Statistics, parameter exclude_splits",
        "__main__.run_fn",
        "Move the definition",
    ),
    "parameter without a value": (
        drop(*TASKS, "Trainer", "inputs", "parameters", "patience"),
        "input",
        "task Trainer, parameter patience",
        "got none",
        "leaves out what is None",
    ),
    "parameter with an empty value": (
        put(*TASKS, "Trainer", "inputs", "parameters", "patience", to={"runtimeValue": {}}),
        "input",
        "task Trainer, parameter patience",
        "got none",
        "",
    ),
    "artifact without a value": (
        drop(*BASE),
        "input",
        "task Trainer, input base_model",
        "got none",
        "",
    ),
    "no such pipeline parameter": (
        put(
            *(*TASKS, "Trainer", "inputs", "parameters", "patience"),
            to={"componentInputParameter": "paitence"},
        ),
        "input",
        "task Trainer, parameter patience",
        "input of the pipeline, got 'paitence'",
        "data, patience",
    ),
    "parameter nobody declared": (
        put(
            *(*TASKS, "Trainer", "inputs", "parameters", "colour"),
            to={"runtimeValue": {"constant": "red"}},
        ),
        "input",
        "task Trainer, parameter colour",
        "must declare what a task gives it, got 'colour'",
        "count, decay, patience",
    ),
    "constant of another type": (
        put(
            *(*TASKS, "Gen", "inputs", "parameters", "output_data_format"),
            to={"runtimeValue": {"constant": 6.5}},
        ),
        "value",
        "task Gen, parameter output_data_format",
        "NUMBER_INTEGER, got 6.5",
        "3",
    ),
    "pipeline parameter of another type": (
        put(*PARAMETERS, "patience", to={"parameterType": "STRING", "defaultValue": "3"}),
        "value",
        "task Trainer, parameter patience",
        "NUMBER_INTEGER, got the parameter patience, which is STRING",
        "same type",
    ),
    "no default": (
        drop(*PARAMETERS, "patience", "defaultValue"),
        "value",
        "parameter patience",
        "got neither",
        "--param patience=VALUE",
    ),
    "default of another type": (
        put(*PARAMETERS, "patience", "defaultValue", to=True),
        "value",
        "parameter patience, default",
        "NUMBER_INTEGER, got True",
        "",
    ),
    "unknown type": (
        put(*PARAMETERS, "patience", "parameterType", to="NUMBER"),
        "value",
        "parameter patience",
        "got 'NUMBER'",
        "",
    ),
    "no root": (
        drop("defaultPipelineRoot"),
        "pipeline-root",
        "defaultPipelineRoot",
        "got no pipeline root",
        "minio://BUCKET",
    ),
    "local root": (
        put("defaultPipelineRoot", to="/tmp/root"),
        "pipeline-root",
        "defaultPipelineRoot",
        "got '/tmp/root'",
        "minio://BUCKET",
    ),
    "root without a bucket": (
        put("defaultPipelineRoot", to="minio://"),
        "pipeline-root",
        "defaultPipelineRoot",
        "got 'minio://'",
        "",
    ),
    "no such module": (
        put(*TRAINER, "args", to=["--executor_class_path", "components.gone.executor.Executor"]),
        "executor-class",
        "executor Trainer_executor",
        "got 'components.gone.executor.Executor'",
        "components.gone.executor in the image",
    ),
    "no such class": (
        put(*TRAINER, "args", to=["--executor_class_path=components.reading.Executor"]),
        "executor-class",
        "executor Trainer_executor",
        "has no such class, got 'Executor'",
        "Mend",
    ),
    "no class at all": (
        put(*TRAINER, "args", to=["--executor_class_path"]),
        "executor-class",
        "executor Trainer_executor",
        "got none",
        "package.module.Class",
    ),
    "no image": (
        drop(*TRAINER, "image"),
        "image",
        "executor Trainer_executor",
        "got ''",
        "Build the image",
    ),
    "image with a blank": (
        put(*TRAINER, "image", to="example.org/plateau :1"),
        "image",
        "executor Trainer_executor",
        "without blanks",
        "Build the image",
    ),
    "image of TFX": (
        put(*TRAINER, "image", to="gcr.io/tfx-oss-public/tfx:1.16.0"),
        "image",
        "executor Trainer_executor",
        "TFX's own",
        "Build the image",
    ),
    "artifact type of nobody": (
        put(*TITLE, to=artifact("mine.History")),
        "artifact-type",
        "component Trainer, output training_history",
        "got 'mine.History'",
        "components.artifacts",
    ),
    "artifact type that TFX has not": (
        put(*TITLE, to=artifact("tfx.History")),
        "artifact-type",
        "component Trainer, output training_history",
        "got 'tfx.History'",
        "components.artifacts",
    ),
    "artifact type without a title": (
        put(*TITLE, to={"artifactType": {"instanceSchema": "type: object\n"}}),
        "artifact-type",
        "component Trainer, output training_history",
        "got no title",
        "",
    ),
    "artifact type of an importer": (
        put(*EXECUTORS, "Model_executor", "importer", "typeSchema", to={"schemaTitle": "a.B"}),
        "artifact-type",
        "executor Model_executor",
        "got 'a.B'",
        "",
    ),
    "no command": (
        drop(*TRAINER, "command"),
        "command",
        "executor Trainer_executor",
        "ENTRYPOINT would run",
        "python -m pipeline.kubeflow_task",
    ),
    "no such executor": (
        put("components", "Trainer", "executorLabel", to="Trainer"),
        "reference",
        "component Trainer",
        "got 'Trainer'",
        "",
    ),
    "no such component": (
        put(*TASKS, "Statistics", "componentRef", to={"name": "Stats"}),
        "reference",
        "task Statistics",
        "got 'Stats'",
        "",
    ),
    "no tasks": (put("root", "dag", "tasks", to={}), "reference", "root", "got none", ""),
    "tasks that are a list": (
        put(*TASKS, "Statistics", to=["Gen"]),
        "malformed",
        "task Statistics",
        "Must be a mapping, got a list",
        "again",
    ),
    "label that is a number": (
        put("components", "Trainer", "executorLabel", to=3),
        "malformed",
        "component Trainer, executorLabel",
        "got 3",
        "",
    ),
    "schema with an alias": (
        put(*TITLE, to={"artifactType": {"instanceSchema": "a: &a x\ntitle: *a\n"}}),
        "malformed",
        "component Trainer, output training_history",
        "mapping in YAML",
        "",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str) -> None:
    change, rule, where, what, remedy = BROKEN[name]
    spec = healthy()
    change(spec)
    findings = doctor.check(kfp(spec))
    found = [finding for finding in findings if finding.rule == rule]
    assert [finding.where for finding in found] == [where]
    assert what in found[0].what
    assert remedy in found[0].remedy
    assert found[0].severity == "error"
    assert doctor.broken(findings)


@pytest.mark.parametrize(
    "name",
    [
        "resolver",
        "stray suffix of TFX",
        "order",
        "main in the class path",
        "main in an artifact type",
        "no such pipeline parameter",
        "no such class",
        "image of TFX",
    ],
)
def test_one_cause_is_one_finding(name: str) -> None:
    spec = healthy()
    BROKEN[name][0](spec)
    assert rules(doctor.check(kfp(spec))) == [BROKEN[name][1]]


@pytest.mark.parametrize("name", ["resolver", "order", "old schema"])
def test_vertex_does_what_kubeflow_does_not(name: str) -> None:
    spec = healthy()
    BROKEN[name][0](spec)
    assert doctor.check(job(spec)) == ()


def test_vertex_runs_no_custom_job_and_stages_in_cloud_storage_only() -> None:
    spec = healthy()
    BROKEN["custom job"][0](spec)
    findings = doctor.check(job(spec, gcsOutputDirectory="minio://bucket/root"))
    assert rules(findings) == ["pipeline-root", "executor-kind"]
    assert findings[0].where == "runtimeConfig.gcsOutputDirectory"


def test_each_target_takes_a_file_of_its_own_form() -> None:
    both = {**healthy(), "defaultPipelineRoot": "gs://bucket/root"}
    for compiled, target, got in (
        (kfp(both), "vertex", "takes a PipelineJob, got a PipelineSpec"),
        (job(both), "kfp", "takes a PipelineSpec, got a PipelineJob"),
    ):
        (finding,) = doctor.check(compiled, target)  # type: ignore[arg-type]
        assert finding.rule == "form"
        assert got in finding.what
        assert f"--target {compiled.target}" in finding.remedy


def test_a_driver_is_left_out_unless_our_entrypoint_runs_it() -> None:
    spec = healthy()
    container(spec, "Gen")["lifecycle"] = {"preCacheCheck": {"command": ["driver"]}}
    assert doctor.check(kfp(spec)) == ()
    container(spec, "Gen")["command"] = ["python", "-m", "tfx.run_executor"]
    (finding,) = doctor.check(kfp(spec))
    assert (finding.rule, finding.where) == ("driver-hook", "executor Gen_executor")
    assert doctor.check(job(spec)) == ()


def test_a_dependency_may_lead_to_a_producer_by_other_tasks() -> None:
    spec = healthy()
    assert "Gen" not in task(spec, "Statistics")["dependentTasks"]
    task(spec)["dependentTasks"] = ["Model"]
    found = [f.where for f in doctor.check(kfp(spec)) if f.rule == "order"]
    assert found == ["task Trainer", "task Statistics"]


def test_a_condition_may_be_about_a_default() -> None:
    spec = healthy()
    put(*TASKS, "Trainer", "triggerPolicy", to={"condition": "inputs.parameters['decay'] > 0.1"})(
        spec
    )
    assert doctor.check(kfp(spec)) == ()


def test_main_within_a_package_is_a_module_like_any_other() -> None:
    spec = healthy()
    container(spec)["command"] = ["python", "-m", "json.__main__", "lib/__main__.py"]
    assert doctor.check(kfp(spec)) == ()


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("example.org:5000/plateau", ["image-tag"]),
        ("plateau", ["image-tag"]),
        ("example.org/plateau:latest", ["image-tag"]),
        ("example.org/plateau@sha256:0a1b", []),
        ("gcr.io/tfx-oss-public/tfx@sha256:0a1b", ["image"]),
        ("example.org/tfx:1", []),
    ],
)
def test_an_image_has_a_tag_that_stays(image: str, found: list[str]) -> None:
    spec = healthy()
    for name in ("Gen", "Trainer", "Statistics"):
        container(spec, name)["image"] = image
    findings = doctor.check(kfp(spec))
    assert rules(findings) == found
    assert all(finding.where == "executor Gen_executor and 2 more" for finding in findings)
    assert doctor.broken(findings) is (found == ["image"])


def test_errors_come_before_warnings() -> None:
    spec = healthy()
    container(spec)["image"] = "plateau"
    container(spec, "Statistics")["image"] = ""
    assert [f.severity for f in doctor.check(kfp(spec))] == ["error", "warning"]


@pytest.mark.parametrize(
    ("type", "text", "fits"),
    [
        ("NUMBER_INTEGER", "3", True),
        ("NUMBER_INTEGER", "3.0", True),
        ("NUMBER_INTEGER", "3.5", False),
        ("NUMBER_INTEGER", "three", False),
        ("NUMBER_INTEGER", "true", False),
        ("NUMBER_INTEGER", "1" + "0" * 400, True),
        ("NUMBER_DOUBLE", "1e-3", True),
        ("NUMBER_DOUBLE", "NaN", False),
        ("NUMBER_DOUBLE", "1e999", False),
        ("BOOLEAN", "True", True),
        ("BOOLEAN", "1", False),
        ("STRING", "3", True),
        ("LIST", "[1]", True),
        ("LIST", "{}", False),
        ("STRUCT", "{}", True),
    ],
)
def test_a_value_is_what_the_text_spells(type: str, text: str, fits: bool) -> None:
    spec = healthy()
    spec["root"]["inputDefinitions"]["parameters"]["extra"] = {"parameterType": type}
    findings = doctor.check(kfp(spec), values={"extra": text})
    assert rules(findings) == ([] if fits else ["value"])


def test_a_value_stands_in_for_a_default() -> None:
    spec = healthy()
    del spec["root"]["inputDefinitions"]["parameters"]["patience"]["defaultValue"]
    assert doctor.check(kfp(spec), values={"patience": "3"}) == ()
    assert doctor.check(kfp(spec), values={"patience": 3}) == ()
    assert doctor.check(job(spec, parameterValues={"patience": 3})) == ()
    assert rules(doctor.check(job(spec, parameterValues={"patience": "3"}))) == ["value"]


def test_a_value_for_nothing_is_found() -> None:
    (finding,) = doctor.check(kfp(healthy()), values={"pateince": "3"})
    assert (finding.rule, finding.where) == ("value", "parameter pateince")
    assert "data, patience" in finding.remedy


def test_a_folder_in_a_container_needs_a_volume() -> None:
    (finding,) = doctor.check(kfp(healthy()), values={"data": "/workspace/data"})
    assert (finding.rule, finding.severity) == ("volume", "warning")
    assert "task Gen" in finding.what
    values = {"data": "/workspace/data"}
    assert doctor.check(kfp(healthy(), mounts("/data", "/workspace")), values=values) == ()
    assert rules(doctor.check(kfp(healthy(), mounts("/work")), values=values)) == ["volume"]
    assert doctor.check(job(healthy()), values={"data": "/gcs/bucket/data"}) == ()
    assert rules(doctor.check(job(healthy()), values=values)) == ["volume"]


def test_a_volume_is_for_an_executor_that_is_there() -> None:
    spec = healthy()
    spec["deploymentSpec"]["executors"]["T"] = spec["deploymentSpec"]["executors"].pop(
        "Trainer_executor"
    )
    spec["components"]["Trainer"]["executorLabel"] = "T"
    (finding,) = doctor.check(kfp(spec, mounts("/workspace")))
    assert (finding.rule, finding.where) == ("reference", "platforms, executor Trainer_executor")


def test_tasks_within_a_component_are_checked_too() -> None:
    spec = healthy()
    inner = spec["root"]["dag"]
    spec["components"]["all"] = {
        "dag": inner,
        "inputDefinitions": spec["root"]["inputDefinitions"],
    }
    spec["root"]["dag"] = {
        "tasks": {
            "all": {
                "componentRef": {"name": "all"},
                "inputs": {
                    "parameters": {
                        "data": {"componentInputParameter": "data"},
                        "patience": {"runtimeValue": {"constant": 3}},
                    }
                },
            }
        }
    }
    assert doctor.check(kfp(spec)) == ()
    inner["tasks"]["Trainer"]["dependentTasks"] = ["Gone", "Gen", "Model"]
    (finding,) = doctor.check(kfp(spec))
    assert finding.where == "task Trainer of component all, dependentTasks"


def test_the_older_schema_is_understood_where_it_runs() -> None:
    spec = healthy()
    spec["schemaVersion"] = "2.0.0"
    declared = spec["components"]["Gen"]["inputDefinitions"]["parameters"]["output_data_format"]
    declared["type"] = {"NUMBER_INTEGER": "INT"}[declared.pop("parameterType")]
    given = task(spec, "Gen")["inputs"]["parameters"]["output_data_format"]["runtimeValue"]
    given["constantValue"] = {"intValue": str(int(given.pop("constant")))}
    assert doctor.check(job(spec)) == ()


def test_names_cannot_steer_a_terminal() -> None:
    spec = healthy()
    spec["components"]["\x1b[31mevil\n"] = {"executorLabel": "x" * 10_000}
    (finding,) = doctor.check(kfp(spec))
    assert finding.where == "component ?[31mevil?"
    assert len(finding.what) < 200


PLACES: list[tuple[str | int, ...]] = []


def _places(value: object, path: tuple[str | int, ...] = ()) -> None:
    PLACES.append(path)
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, part in items:
        _places(part, (*path, key))


_places({"spec": healthy(), "platform": mounts("/workspace"), "runtime": {"parameterValues": {}}})

ODD = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.builds(lambda: 16**5000),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["Gen", "Trainer_task", "__main__.X", "a: &a [*a]", "[" * 500, "a..b"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=3), st.integers(), st.none()), inner, max_size=3
        ),
    ),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(PLACES[1:]), st.booleans(), ODD), min_size=1, max_size=4),
    st.sampled_from(["kfp", "vertex"]),
    st.sampled_from(["kfp", "vertex"]),
    st.dictionaries(st.sampled_from(["data", "patience", "x"]), ODD, max_size=2),
)
def test_whatever_is_malformed_becomes_a_finding(
    changes: list[tuple[tuple[str | int, ...], bool, object]],
    form: Any,
    target: Any,
    values: dict[str, object],
) -> None:
    whole: Any = {
        "spec": healthy(),
        "platform": mounts("/workspace"),
        "runtime": {"parameterValues": {"patience": 3}},
    }
    for path, drops, value in changes:
        owner = whole
        try:
            for key in path[:-1]:
                owner = owner[key]
            if drops:
                del owner[path[-1]]
            else:
                owner[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue
    compiled = Compiled(whole.get("spec", {}), whole.get("platform"), whole.get("runtime"), form)
    findings = doctor.check(compiled, target, values)
    assert all(finding.where and finding.what and finding.remedy for finding in findings)


def write(path: Path, *documents: object) -> Path:
    path.write_text(yaml.safe_dump_all(documents))
    return path


def test_a_yaml_file_is_for_kubeflow(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", healthy(), mounts("/workspace"))
    compiled = doctor.load(path)
    assert compiled == Compiled(healthy(), mounts("/workspace"), None, "kfp")
    assert doctor.check(compiled) == ()


def test_the_platform_may_come_first_and_need_not_be_there(tmp_path: Path) -> None:
    first = doctor.load(write(tmp_path / "a.yaml", mounts("/workspace"), None, healthy()))
    assert first.platform == mounts("/workspace")
    assert doctor.load(write(tmp_path / "b.yaml", healthy())).platform is None
    path = tmp_path / "c.json"
    path.write_text(json.dumps(healthy()))
    assert doctor.load(path) == Compiled(healthy())


def test_a_job_is_for_vertex(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    runtime = {"gcsOutputDirectory": "gs://bucket/root"}
    path.write_text(
        "\ufeff" + json.dumps({"pipelineSpec": healthy(), "runtimeConfig": runtime}),
        encoding="utf-8",
    )
    assert doctor.load(path) == Compiled(healthy(), None, runtime, "vertex")


def bomb() -> str:
    lines = ["root: {}", "a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    return "\n".join(lines)


UNREADABLE = {
    "empty": (b" \n", "must have content"),
    "only a separator": (b"---\n...\n", "no keys"),
    "not UTF-8": (b"root: \xff\xfe", "UTF-8 text, got a stray byte at 6"),
    "a list": (b"- root\n", "must be a mapping, got a list"),
    "text": (b"hello", "must be a mapping, got a str"),
    "other YAML": (b"name: Build\non: push\n", "got the keys name, True"),
    "other JSON": (b'{"name": 1}', "got the keys name"),
    "two pipelines": (b"root: {}\n---\nroot: {}\n", "must hold one pipeline, got 2"),
    "two platforms": (b"root: {}\n---\nplatforms: {}\n---\nplatforms: {}\n", "got 2"),
    "a stranger beside it": (b"root: {}\n---\nname: x\n", "got the keys root, name"),
    "job without a spec": (
        b'{"pipelineSpec": null}',
        "pipelineSpec must be a mapping, got nothing",
    ),
    "job with a list": (b'{"pipelineSpec": {}, "runtimeConfig": []}', "runtimeConfig must be"),
    "truncated JSON": (b'{"pipelineSpec": {"root": {"dag"', "JSON must be whole, got"),
    "truncated YAML": (b'root: {}\ncomponents: {"a": ', "YAML must be whole"),
    "control character": (b"root: \x00\n", "YAML must be whole"),
    "an object": (b"root: !!python/object/apply:os.getcwd []\n", "YAML must be whole and plain"),
    "a date that is none": (b"root: 2001-99-99\n", "YAML must be whole and plain"),
    "an alias": (b"root: &a {}\ncomponents: *a\n", "no aliases, got *a at line 2"),
    "a bomb": (bomb().encode(), "no aliases, got *a0 at line 3"),
    "deep YAML": (b"root: " + b"[" * 100_000, "must not exceed 64 levels"),
    "deep JSON": (b'{"root":' + b"[" * 100_000, "must not exceed 64 levels"),
    "somewhat deep JSON": (
        b'{"root":' + b"[" * 100 + b"]" * 100 + b"}",
        "must not exceed 64 levels",
    ),
    "a number of JSON": (b'{"root": ' + b"1" * 5000 + b"}", "got Exceeds the limit"),
    # Each of these would take hours to compute with, or to print.
    "a number to the base of 60": (b"root: 1" + b":1" * 2**20, "at most 100 characters, got one"),
    "a number to the base of 16": (b"root: 0x" + b"f" * 2**20, "at most 100 characters, got one"),
    "a tagged number": (b'root: !!int "1' + b":1" * 2**20 + b'"', "at most 100 characters"),
    "too large": (b"root: {}\n" + b"#" * 10 * 2**20, "at most 10 MB"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    content, message = UNREADABLE[name]
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="got") as error:
        doctor.load(path)
    assert message in str(error.value)
    assert "plateau compile" in str(error.value)
    assert len(str(error.value)) < 500


def test_a_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which is no file"):
        doctor.load(tmp_path / "gone.yaml")
    with pytest.raises(ValueError, match="got the folder"):
        doctor.load(tmp_path)


YAMLISH = st.lists(
    st.sampled_from(
        [
            "root",
            "components",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "\n",
            "---\n",
            "- ",
            "&a ",
            "*a",
            '"',
            "!!set ",
            "? ",
            "<<",
            "1e999",
            "0x",
            ".nan",
            "2001-01-01",
            "\t",
            "#",
            "|",
            "pipelineSpec",
            "\u2028",
        ]
    ),
    max_size=20,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(YAMLISH, st.text(max_size=40)))
def test_any_text_is_a_pipeline_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        compiled = doctor.load(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        doctor.check(compiled)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that fails when it is imported, found from the current folder only."""
    folder = tmp_path / "their_own"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit\nfrom .parts import Outer as Inner\n")
    (folder / "parts.py").write_text(
        "import os\n"
        "if os.name:\n    class Outer: ...\n"
        "try:\n    pass\nexcept OSError:\n    class Late: ...\n"
        "Alias = Outer\n"
        "@component\ndef Make(): ...\n"
        "def plain(): ...\n"
        "def outer():\n    class Hidden: ...\n"
    )
    (folder / "stars.py").write_text("from their_own.parts import *\n")
    (folder / "circle.py").write_text("from their_own.circle import Executor\n")
    (folder / "wrong.py").write_text("class Executor(:\n")
    (folder / "latin.py").write_bytes(b"class Executor:\n    x = '\xff'\n")
    (folder / "compiled.so").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return "their_own"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("parts.Outer", "found"),
        ("parts.Late", "found"),
        ("parts.Alias", "found"),
        ("Inner", "found"),
        ("parts.Make_Executor", "found"),
        ("parts.plain_Executor", "no class"),
        ("parts.Hidden", "no class"),
        ("parts.Gone", "no class"),
        ("stars.Outer", "found"),
        ("stars.Gone", "no class"),
        ("circle.Executor", "no class"),
        ("wrong.Executor", "unreadable"),
        ("latin.Executor", "unreadable"),
        ("parts.Outer.Inner", "no module"),
        ("..parts.Outer", "no module"),
        ("gone.Executor", "no module"),
        ("a/../parts.Outer", "no module"),
    ],
)
def test_classes_are_found_without_importing(package: str, path: str, found: str) -> None:
    assert doctor_modules.look_up(f"{package}.{path}") == found
    assert package not in sys.modules


@pytest.mark.parametrize("path", ["", "Executor", "__main__.X", "sys.path", "os.path.join"])
def test_odd_paths_are_looked_up_all_the_same(path: str) -> None:
    assert doctor_modules.look_up(path) in ("found", "no module", "no class")


@pytest.mark.component
def test_the_artifact_types_of_the_project_are_known() -> None:
    from components import artifacts

    names = doctor_modules.type_names("components.artifacts")
    assert artifacts.TrainingHistory.TYPE_NAME in names
    assert artifacts.DataDrift.TYPE_NAME in names


def test_nothing_is_imported_to_check(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", healthy())
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline import doctor\n"
        f"assert doctor.check(doctor.load(Path({str(path)!r}))) == ()\n"
        "heavy = {'tensorflow', 'keras', 'tfx', 'kfp', 'apache_beam', 'components'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_flags() -> None:
    config = flags.parse(
        doctor.default(),
        ["a.yaml", "--target", "vertex", "--param", "data=gs://b/x=1", "--param", "patience=3"],
        prog="plateau doctor",
        description="",
    )
    assert config == DoctorConfig(
        Path("a.yaml"), "vertex", ("data=gs://b/x=1", "patience=3"), json=False
    )
    assert config.values == {"data": "gs://b/x=1", "patience": "3"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"param": ("patience",)}, "param must be NAME=VALUE, got 'patience'"),
        ({"param": ("=3",)}, "param must be NAME=VALUE, got '=3'"),
        ({"param": ("a=1", "a=2")}, "param must name each parameter once, got 'a'"),
        ({"target": "airflow"}, "target must be one of kfp, vertex, got 'airflow'"),
    ],
)
def test_bad_flags_are_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"Try|Drop|Leave") as error:
        dataclasses.replace(DoctorConfig(Path("a.yaml")), **changes)
    assert message in str(error.value)


def printed(findings: tuple[Finding, ...], width: int) -> str:
    out = io.StringIO()
    made = Console(file=out, width=width, highlight=False)
    doctor_console.print_findings(made, findings, Path("a/long/path" * 10), "kfp")
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_findings_fit_the_console(width: int) -> None:
    spec = healthy()
    for name in ("stray suffix of TFX", "no such module", "no command"):
        BROKEN[name][0](spec)
    container(spec, "Gen")["image"] = "plateau"
    findings = doctor.check(kfp(spec))
    text = printed(findings, width)
    assert "broken for kfp: 3 errors and 1 warning" in text
    assert f"file   {'a/long/path' * 10}\n" in text
    assert all(len(line) <= width for line in text.splitlines() if "a/long/path" not in line)
    words = " ".join(text.split())
    for finding in findings:
        assert f"[{finding.rule}]" in words
        for part in (finding.what, finding.remedy):
            assert all(word in words for word in part.split() if len(word) < width - 12)


def test_the_verdict_says_how_bad_it_is() -> None:
    warning = Finding("image-tag", "warning", "executor [bold]", "What.", "Remedy.")
    assert "healthy for kfp: nothing found" in printed((), 80)
    text = printed((warning,), 80)
    assert "doubtful for kfp: 1 warning\n" in text
    assert "executor [bold]" in text
    many = printed((dataclasses.replace(warning, severity="error"),) * 60, 80)
    assert "and 10 more" in many
    assert "broken for kfp: 60 errors" in many


def test_findings_as_json() -> None:
    finding = Finding("command", "error", "executor X", "What.", "Remedy.")
    (plain,) = json.loads(console.as_json([finding]))
    assert plain == dataclasses.asdict(finding)


SCRIPT = """
import sys
from typing import TypedDict
from tfx.components import CsvExampleGen, StatisticsGen
from tfx.dsl.component.experimental.annotations import OutputDict, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.common.importer import Importer
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.experimental.conditionals import conditional
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as runner
from tfx.orchestration.pipeline import Pipeline
from tfx.types import Channel
from tfx.types.standard_artifacts import Model, ModelBlessing


@component
def Count() -> OutputDict(number=int):
    return {"number": 1}


@component
def Use(number: Parameter[int]):
    pass


def good():
    examples = CsvExampleGen(input_base=RuntimeParameter("data", str))
    statistics = StatisticsGen(examples.outputs["examples"])
    passed = statistics.outputs["statistics"].future()[0].custom_property("ok") == 1
    with conditional.Cond(passed):
        again = StatisticsGen(examples.outputs["examples"]).with_id("Again")
    imported = Importer(source_uri="gs://bucket/model", artifact_type=Model).with_id("Import")
    return [examples, statistics, again, imported]


def bad():
    blessed = Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
    ).with_id("Blessed")
    count = Count()
    return [blessed, count, Use(number=count.outputs["number"].future()[0].value)]


def both():
    return good() + bad()


config = runner.KubeflowV2DagRunnerConfig(
    default_image="example.org/plateau:1", use_pipeline_spec_2_1=True
)
for make in (good, both):
    pipeline = Pipeline(make.__name__, "gs://bucket/root", components=make())
    runner.KubeflowV2DagRunner(config, sys.argv[1], f"{make.__name__}.json").run(pipeline)
"""


@pytest.fixture(scope="module")
def compiled_by_tfx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what TFX itself compiles from a script."""
    folder = tmp_path_factory.mktemp("compiled")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.component
def test_what_tfx_compiles_for_vertex_is_healthy(compiled_by_tfx: Path) -> None:
    compiled = doctor.load(compiled_by_tfx / "good.json")
    assert doctor.check(compiled, values={"data": "gs://bucket/data"}) == ()
    # TFX does not write the defaults of runtime parameters.
    assert [finding.where for finding in doctor.check(compiled)] == ["parameter data"]


@pytest.mark.component
def test_what_tfx_compiles_wrongly_is_found(compiled_by_tfx: Path) -> None:
    compiled = doctor.load(compiled_by_tfx / "both.json")
    found = [(f.rule, f.where) for f in doctor.check(compiled, values={"data": "gs://b"})]
    assert found == [
        ("producer", "task Use, parameter number"),
        ("main-module", "executor Count_executor"),
        ("main-module", "executor Use_executor"),
    ]


@pytest.mark.component
def test_what_kubeflow_does_not_run_is_found(compiled_by_tfx: Path) -> None:
    spec = doctor.load(compiled_by_tfx / "both.json").spec
    compiled = Compiled({**spec, "defaultPipelineRoot": "minio://bucket/root"})
    found = [f"{f.rule}: {f.where}" for f in doctor.check(compiled, values={"data": "gs://b"})]
    assert found == [
        "executor-kind: executor Blessed-model-blessing-resolver_executor",
        "executor-kind: executor Blessed-model-resolver_executor",
        "driver-hook: executor CsvExampleGen_executor",
        "producer: task Use, parameter number",
        "order: task Blessed-model-resolver",
        "main-module: executor Count_executor",
        "main-module: executor Use_executor",
    ]
