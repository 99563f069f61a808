"""Each rule, broken in a pipeline that was really compiled."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import presets
from pipeline.runners import kubeflow, kubeflow_checks
from pipeline.runners.kubeflow import CompileConfig
from pipeline.runners.kubeflow_checks import Compiled
from trainer_module.util.checks import UserError

Json = dict[str, Any]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    path = tmp_path_factory.mktemp("compiled") / "digits.yaml"
    run = presets.get("digits").build()
    kubeflow.run(CompileConfig(run, image="r/p:1", volume="plateau:/workspace", file=path))
    return kubeflow_checks.load(path)


@pytest.fixture
def compiled(digits: Compiled) -> Compiled:
    return copy.deepcopy(digits)


def named(name: str) -> Callable[[Json, Json], None]:
    return lambda spec, _: spec["pipelineInfo"].update(name=name)


def rooted(root: str) -> Callable[[Json, Json], None]:
    return lambda spec, _: spec.update(defaultPipelineRoot=root)


def with_image(image: str) -> Callable[[Json, Json], None]:
    return lambda spec, _: container(spec).update(image=image)


def mounted(**fields: str) -> Callable[[Json, Json], None]:
    return lambda _, executors: executors["Trainer_executor"]["pvcMount"][0].update(fields)


def container(spec: Json) -> Json:
    found: Json = spec["deploymentSpec"]["executors"]["Trainer_executor"]["container"]
    return found


def task(spec: Json, name: str = "Trainer") -> Json:
    found: Json = spec["root"]["dag"]["tasks"][name]
    return found


def constant(value: str) -> Callable[[Json, Json], None]:
    def change(spec: Json, _: Json) -> None:
        schema = task(spec, "InlineSchemaGen")["inputs"]["parameters"]["text"]
        schema["runtimeValue"]["constant"] = value

    return change


def without_maximum(spec: Json, _: Json) -> None:
    del task(spec)["retryPolicy"]["backoffMaxDuration"]


def mistyped_default(spec: Json, _: Json) -> None:
    spec["root"]["inputDefinitions"]["parameters"]["patience"]["defaultValue"] = 2.5


def lost_parameter(spec: Json, _: Json) -> None:
    del spec["root"]["inputDefinitions"]["parameters"]["patience"]


def unordered(spec: Json, _: Json) -> None:
    task(spec)["dependentTasks"].remove("Transform")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec, _: spec.update(schemaVersion="2.0.0"), "schemaVersion must be 2.1"),
        (named("Plateau"), "a pipeline's name must be"),
        (named("a" * 129), "a pipeline's name must be"),
        (rooted("file:///tmp"), "must begin with minio://"),
        (rooted("s3://"), "must begin with minio://"),
        (with_image(""), "`image` must be one word"),
        (with_image("a b"), "`image` must be one word"),
        (with_image("tensorflow/tfx:1.16.0"), "must contain this project's packages"),
        (with_image("gcr.io/tfx-oss-public/tfx@sha256:0"), "must contain this project's packages"),
        (without_maximum, "must have a backoffMaxDuration"),
        (mounted(constant="plateau.workspace"), "name of a volume"),
        (mounted(constant="a" * 64), "name of a volume"),
        *((mounted(mountPath=path), "mounted apart") for path in ("/tmp", "/minio/data", "/app")),
        *((mounted(mountPath=path), "mounted apart") for path in ("/", "/var", "/var/run/argo/a")),
        (lambda _, executors: executors.update(Other={}), "must name executors"),
        (mistyped_default, "must be NUMBER_INTEGER, got 2.5"),
        (lost_parameter, "must come from a parameter of the pipeline"),
        (unordered, "dependentTasks"),
        (constant("a" * 100_000), "must fit in 100,000 bytes"),
        (constant('value: "$$"'), r"must not contain \$\$"),
        (constant("$(KFP_POD_NAME)"), r"must not contain \$\$"),
        (constant("{{$.inputs}}"), r"must not contain \$\$"),
    ],
)
def test_a_rule_is_broken(
    compiled: Compiled, change: Callable[[Any, Any], None], message: str
) -> None:
    assert compiled.platform is not None
    change(
        compiled.spec, compiled.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    )
    with pytest.raises(UserError, match=message):
        kubeflow_checks.check(compiled)


@pytest.mark.parametrize("preset", ["digits", "taxi", "cifar10"])
@pytest.mark.parametrize("target", ["kfp", "vertex"])
def test_what_is_compiled_passes(preset: str, target: str, tmp_path: Path) -> None:
    where: Json = {"volume": "plateau:/workspace"}
    if target == "vertex":
        where = {"root": "gs://b/r", "data_location": "/gcs/b/d", "pushed": "/gcs/b/p"}
    run = presets.get(preset).build()
    path = tmp_path / ("p.yaml" if target == "kfp" else "p.json")
    config = CompileConfig(run, image="r/p:1", target=target, file=path, **where)  # type: ignore[arg-type]
    assert kubeflow.run(config).warnings == ()
    assert kubeflow_checks.load(path).target == target


def test_warnings(compiled: Compiled) -> None:
    with_image("r/p")(compiled.spec, {})  # type: ignore[arg-type]
    compiled.spec["root"]["inputDefinitions"]["parameters"]["data"]["defaultValue"] = "/elsewhere"
    tag, folder = kubeflow_checks.warnings(compiled)
    assert "got 'r/p'" in tag
    assert "got '/elsewhere'" in folder


FOREIGN = yaml.safe_dump(
    {
        "pipelineInfo": {"name": "two-step"},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {"a": {"componentRef": {"name": "comp-a"}}}}},
        "components": {"comp-a": {"executorLabel": "exec-a"}},
        "deploymentSpec": {"executors": {"exec-a": {"container": {"image": "python:3.11"}}}},
    }
)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a: [", "{", "[]", "null", "a: 1", "{}", "{}\n---\n{}\n---\n{}", FOREIGN),
        *("root: &a {}\ncomponents: *a\n", "root: 1" + ":1" * 100_000, "root: 2001-99-99"),
        *("root: !!python/object/apply:os.system ['false']\n", "[" * 100_000, '{"a": ' * 100_000),
        *('{"pipelineSpec": 1}', '{"pipelineSpec": {"root": 1}}', "a" * (11 * 2**20), "\x00"),
    ],
)
def test_another_file_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="must be a pipeline that `plateau compile` wrote") as no:
        kubeflow_checks.load(path)
    assert len(str(no.value)) < 600
    assert "\n" not in str(no.value)


@pytest.mark.parametrize("part", ["root", "components", "deploymentSpec", "schemaVersion"])
@pytest.mark.parametrize("instead", [None, 1, "a", [], {}, {"a": 1}])
def test_a_damaged_file_is_refused(
    compiled: Compiled, part: str, instead: Any, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.yaml"
    path.write_text(json.dumps({**compiled.spec, part: instead}))
    with pytest.raises(UserError, match=r"must be|`plateau compile`"):
        kubeflow_checks.load(path)


@pytest.mark.parametrize("platform", [1, [], {"a": 1}, {"platforms": 1}, {"platforms": {"a": []}}])
def test_a_damaged_platform_is_refused(compiled: Compiled, platform: Any, tmp_path: Path) -> None:
    path = tmp_path / "damaged.yaml"
    path.write_text("".join(f"---\n{json.dumps(part)}\n" for part in (compiled.spec, platform)))
    if platform == {"platforms": {"a": []}}:
        assert kubeflow_checks.load(path).kubernetes == {}
        return
    with pytest.raises(UserError, match="`plateau compile` wrote"):
        kubeflow_checks.load(path)
