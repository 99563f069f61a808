"""The manifests against the schemas of Kubernetes and of the training operator, offline."""

import functools
import importlib
import json
import operator
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.cli import flags
from pipeline.runners import submit
from trainer_module.util.preemption import EXIT_STATUS

# Apart from the environment, whose runs would load it.
sys.path.append(str(Path(sys.prefix, "share", "kubernetes-validate")))
kubernetes_validate = importlib.import_module("kubernetes_validate")

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy/manifests"
TFJOB_SCHEMA = json.loads(Path(__file__).with_name("tfjob.schema.json").read_text())
# The oldest with all the fields used (timeZone of a CronJob), and the newest one known.
VERSIONS = ("1.27", kubernetes_validate.latest_version())

Manifest = dict[str, Any]


def load(name: str) -> Manifest:
    (document,) = yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text())
    return document


def check(manifest: Manifest, version: str = VERSIONS[-1]) -> None:
    """Raise ValidationError unless the API server would take it, and know each field of it.

    A kind that has no schema is an error of its own.
    """
    if manifest["kind"] != "TFJob":
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    jsonschema.Draft202012Validator(TFJOB_SCHEMA).validate(manifest)
    for replica in manifest["spec"]["tfReplicaSpecs"].values():
        # A kind of Kubernetes's own that is made of the same two parts.
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": manifest["metadata"]}
        kubernetes_validate.validate(
            {**template, "template": replica["template"]}, version, strict=True
        )


def pod(manifest: Manifest) -> Manifest:
    if manifest["kind"] == "TFJob":
        return manifest["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]
    return manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", sorted(MANIFESTS.iterdir()), ids=lambda path: path.name)
def test_the_api_server_would_take_it(path: Path, version: str) -> None:
    check(load(path.stem), version)


def test_runs_do_not_find_the_validator() -> None:
    """The Kubernetes client that TFX imports would load it, for a second a run."""
    code = "from importlib.util import find_spec; print(find_spec('kubernetes_validate'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(TFJOB_SCHEMA)


WORKER = ("spec", "tfReplicaSpecs", "Worker")
CONTAINER = (*WORKER, "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("tfjob", ("apiVersion",), "kubeflow.org/v2"),
        ("tfjob", ("metadata", "labels", "version"), 1),
        ("tfjob", ("spec",), {}),
        ("tfjob", ("spec", "runPolicy", "cleanPodsPolicy"), "All"),
        ("tfjob", ("spec", "tfReplicaSpecs", "Workers"), {}),
        ("tfjob", (*WORKER, "replica"), 2),
        ("tfjob", (*WORKER, "replicas"), "2"),
        ("tfjob", (*WORKER, "restartPolicy"), "OnExit"),
        ("tfjob", (*CONTAINER, "volumeMount"), []),
        ("tfjob", (*CONTAINER, "args"), [3]),
        ("schedule", ("spec", "concurrencyPolicies"), "Forbid"),
        ("schedule", ("spec", "schedule"), 3),
        ("volume", ("spec", "accessMode"), ["ReadWriteMany"]),
        ("volume", ("spec", "resources"), "50Gi"),
    ],
)
def test_a_damaged_manifest_is_refused(name: str, path: tuple[Any, ...], value: object) -> None:
    manifest = load(name)
    *parents, last = path
    functools.reduce(operator.getitem, parents, manifest)[last] = value
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def test_a_kind_without_a_schema_is_an_error() -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check({**load("volume"), "kind": "PersistentVolumeClam"})


def test_what_the_operator_asks_for_beside_the_schema() -> None:
    """Its webhook refuses other names of the job and container, and it finds the port by name."""
    job = load("tfjob")
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", job["metadata"]["name"])
    (container,) = pod(job)["containers"]
    assert container["name"] == "tensorflow"
    assert [port["name"] for port in container["ports"]] == ["tfjob-port"]
    worker = job["spec"]["tfReplicaSpecs"]["Worker"]
    # Under this policy, a status of 128 or more is tried again.
    assert worker["restartPolicy"] == "ExitCode"
    assert EXIT_STATUS >= 128
    # Only the operator may say how a pod is restarted.
    assert "restartPolicy" not in pod(job)


def test_the_workers_look_for_each_other_by_the_name_of_their_job() -> None:
    job = load("tfjob")
    (constraint,) = pod(job)["topologySpreadConstraints"]
    (name,) = constraint["labelSelector"]["matchLabels"].values()
    assert name == job["metadata"]["name"]


def test_checkpoints_belong_to_the_image() -> None:
    (container,) = pod(load("tfjob"))["containers"]
    args = container["args"]
    assert args[args.index("--code") + 1] == container["image"]


def test_the_schedule_submits_as_the_command_line_does(monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = pod(load("schedule"))["containers"]
    words = [*container["command"], *container["args"]]
    assert words[:2] == ["plateau", "submit"]
    # The file is there when Kubernetes has mounted it.
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    config = flags.parse(submit.default(), words[2:], "plateau submit", "")
    assert config.wait
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    assert config.file.parent == mounts["pipeline"]
    (variable,) = container["env"]
    assert config.namespace == f"$({variable['name']})"
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_the_schedule_signs_in_with_a_token_that_is_renewed() -> None:
    """The API server reviews tokens of this audience: backend/src/apiserver/common/const.go."""
    spec = pod(load("schedule"))
    (container,) = spec["containers"]
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "token")
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "token")
    (source,) = volume["projected"]["sources"]
    token = source["serviceAccountToken"]
    assert token["audience"] == "pipelines.kubeflow.org"
    # Less than this, Kubernetes does not grant.
    assert token["expirationSeconds"] >= 600
    args = container["args"]
    assert args[args.index("--token-file") + 1] == f"{mount['mountPath']}/{token['path']}"
    assert spec["serviceAccountName"] == "default-editor"


@pytest.mark.parametrize("name", ["tfjob", "schedule"])
def test_pods_have_the_rights_of_the_restricted_standard(name: str) -> None:
    """The rules of Kubernetes's restricted Pod Security Standard, and a root that is read only."""
    spec = pod(load(name))
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    (container,) = spec["containers"]
    rights = container["securityContext"]
    assert not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert rights["readOnlyRootFilesystem"]
    assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]


@pytest.mark.parametrize("name", ["tfjob", "schedule"])
def test_pods_run_as_the_user_of_the_image(name: str) -> None:
    (user,) = re.findall(
        r"^USER (\d+):(\d+)$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE
    )
    context = pod(load(name))["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == tuple(map(int, user))


def test_volumes_are_mounted_and_the_claim_is_there() -> None:
    for name in ("tfjob", "schedule"):
        spec = pod(load(name))
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} == volumes
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod(load("tfjob"))["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [load("volume")["metadata"]["name"]]
    # Workers on two nodes cannot share anything else.
    assert load("volume")["spec"]["accessModes"] == ["ReadWriteMany"]
