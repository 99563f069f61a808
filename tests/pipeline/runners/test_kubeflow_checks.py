"""Each rule, broken in a pipeline that was really compiled."""

import copy
import dataclasses
from typing import Any

import pytest

from pipeline import presets
from pipeline.data import dataset
from pipeline.runners import kubeflow, kubeflow_checks
from pipeline.runners.kubeflow import CompileConfig
from trainer_module.util.checks import UserError

Json = dict[str, Any]


@pytest.fixture(scope="module")
def digits() -> Json:
    run = presets.get("digits").build()
    run = dataclasses.replace(run, classes=dataset.class_names(run))
    return kubeflow.compile_spec(CompileConfig(run, image="r/p:1", volume="plateau:/workspace"))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("a" * 100_000, "InlineSchemaGen, of which text takes most, must fit in 100,000 bytes"),
        ('value: "$$"', r"text of InlineSchemaGen must not contain \$\$"),
        ("$(KFP_POD_NAME)", r"must not contain \$\$"),
        ("{{$.inputs}}", r"must not contain \$\$"),
    ],
)
def test_what_would_not_arrive_is_refused(digits: Json, schema: str, message: str) -> None:
    spec = copy.deepcopy(digits)
    kubeflow_checks.check(spec, "kfp")
    task = spec["root"]["dag"]["tasks"]["InlineSchemaGen"]
    task["inputs"]["parameters"]["text"]["runtimeValue"]["constant"] = schema
    with pytest.raises(UserError, match=message):
        kubeflow_checks.check(spec, "kfp")
    if len(schema) < 100:
        kubeflow_checks.check(spec, "vertex")
