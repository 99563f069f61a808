"""A compiled pipeline, as `plateau submit` reads it."""

import json

import yaml

from pipeline.runners import kubeflow_checks, submit
from tests.fuzz.reader import Reader, refused, scratch

FILE = scratch() / "pipeline.yaml"
SPEC = {
    "pipelineInfo": {"name": "plateau-digits"},
    "schemaVersion": "2.1.0",
    "sdkVersion": "tfx-1.16.0",
    "defaultPipelineRoot": "minio://bucket/root",
    "root": {
        "inputDefinitions": {"parameters": {"n": {"parameterType": "NUMBER_INTEGER"}}},
        "dag": {
            "tasks": {
                "Gen": {
                    "componentRef": {"name": "Gen"},
                    "taskInfo": {"name": "Gen"},
                    "inputs": {"parameters": {"n": {"componentInputParameter": "n"}}},
                    "triggerPolicy": {"condition": "inputs.parameter_values['n'] > 1.0"},
                }
            }
        },
    },
    "components": {
        "Gen": {
            "executorLabel": "Gen",
            "inputDefinitions": {"parameters": {"n": {"parameterType": "NUMBER_INTEGER"}}},
            "outputDefinitions": {
                "artifacts": {"out": {"artifactType": {"instanceSchema": "title: tfx.Examples\n"}}}
            },
        }
    },
    "deploymentSpec": {
        "executors": {
            "Gen": {
                "container": {
                    "image": "example.org/a:1",
                    "command": ["python", "-m", "components.container"],
                    "args": ["--executor_class_path", "a.b.C", "{{$}}"],
                }
            }
        }
    },
}
PLATFORM = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"Gen": {}}}}}}


def reader() -> Reader:
    seeds = [
        yaml.safe_dump(SPEC),
        yaml.safe_dump_all([SPEC, PLATFORM]),
        json.dumps(SPEC),
        json.dumps({"pipelineSpec": SPEC, "runtimeConfig": {"parameterValues": {"n": 3}}}),
        "root: &a {}\ncomponents: *a\n",
        "root: 1" + ":1" * 60,
        "root: !!python/object/apply:os.system ['false']\n",
        "root: 0x" + "f" * 90,
    ]
    return Reader(check, [seed.encode() for seed in seeds])


def check(data: bytes) -> None:
    FILE.write_bytes(data)
    try:
        found = kubeflow_checks.load(FILE)
        assert all(kubeflow_checks.warnings(found))
        submit.read(FILE)
    except ValueError as error:
        refused(error, longest=200_000)
