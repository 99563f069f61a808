"""A compiled pipeline, as `plateau submit` reads it."""

import json

import yaml

from pipeline.runners import submit
from tests.fuzz.reader import Reader, refused, scratch

FILE = scratch() / "pipeline.yaml"
PARAMETERS = ("data", "strategy", "patience", "max_epochs", "pushed")
SPEC = {
    "pipelineInfo": {"name": "plateau-digits"},
    "defaultPipelineRoot": "minio://bucket/root",
    "root": {
        "inputDefinitions": {"parameters": {name: {"defaultValue": 1} for name in PARAMETERS}}
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
        submit.read(FILE)
    except ValueError as error:
        refused(error, longest=200_000)
