import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tfx
from tfx.types import Artifact, standard_artifacts

import schemas
from components.servable import executor
from components.servable.executor import Executor
from trainer_module.util.checks import UserError

pytestmark = pytest.mark.component

TESTDATA = Path(tfx.__file__).parent / "components" / "testdata"


def artifact(kind: type[Artifact], uri: Path, **properties: Any) -> Artifact:
    made = kind()
    made.uri = str(uri)
    for name, value in properties.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def bless(tmp_path: Path) -> Callable[..., tuple[bool, dict[str, Any]]]:
    """Tries the model in a folder; gives the blessing and the checks by name."""

    def run(
        model: Path, examples: Path, evaluation: Path | None = None, **properties: Any
    ) -> tuple[bool, dict[str, Any]]:
        out = tmp_path / "blessing"
        shutil.rmtree(out, ignore_errors=True)
        blessing = artifact(standard_artifacts.InfraBlessing, out)
        names = [folder.name.removeprefix("Split-") for folder in sorted(examples.glob("Split-*"))]
        inputs = {
            "model": [artifact(standard_artifacts.Model, model)],
            "examples": [
                artifact(standard_artifacts.Examples, examples, split_names=json.dumps(names))
            ],
        }
        if evaluation:
            inputs["evaluation"] = [artifact(standard_artifacts.ModelEvaluation, evaluation)]
        given = {"split": "test", "timeout_s": 300, "label": "label", "leave_out": "[]"}
        Executor().Do(inputs, {"blessing": [blessing]}, {**given, **properties})

        blessed = blessing.get_int_custom_property("blessed") == 1
        marker = "INFRA_BLESSED" if blessed else "INFRA_NOT_BLESSED"
        assert {file.name for file in out.iterdir()} == {marker, "servable.json"}
        result = json.loads((out / "servable.json").read_text())
        assert result["blessed"] is blessed
        return blessed, {check["rule"]: check for check in result["checks"]}

    return run


def not_passed(checks: dict[str, Any]) -> list[str]:
    return [name for name, check in checks.items() if check["passed"] is False]


def test_a_good_model_and_limits_that_it_breaks(
    bless: Any, export: Any, make_model: Any, examples: Path
) -> None:
    model, data = export(make_model(numbers=300_000)).parent, examples.parents[1]
    blessed, checks = bless(model, data, max_latency_ms_p99=1e6, max_model_mib=100.0)
    assert blessed, not_passed(checks)
    assert {name for name, check in checks.items() if not check["passed"]} == {
        "accuracy",
        "original files",
    }
    assert checks["loads"]["value"].endswith("without Keras")
    blessed, checks = bless(model, data, max_latency_ms_p99=1e-6, max_model_mib=1.0)
    assert not blessed
    assert not_passed(checks) == ["latency", "size"]


def test_original_files_beside_the_examples_are_sent(
    bless: Any, export: Any, make_model: Any, examples: Path
) -> None:
    record = next(tf.data.TFRecordDataset(str(examples), "GZIP").as_numpy_iterator())
    with tf.io.TFRecordWriter(str(examples.parents[1] / schemas.ORIGINALS), "GZIP") as writer:
        for content in (record, record):
            writer.write(content)
    blessed, checks = bless(export(make_model()).parent, examples.parents[1])
    assert blessed, not_passed(checks)
    assert checks["original files"]["value"] == "3 requests, different by up to 0"


def test_not_a_number(bless: Any, export: Any, make_model: Any, examples: Path) -> None:
    model = make_model(lambda x: {"y": tf.math.log(x - 100)})
    blessed, checks = bless(export(model).parent, examples.parents[1])
    assert not blessed
    assert not_passed(checks) == ["finite"]


def test_a_model_that_never_answers(
    bless: Any, export: Any, make_model: Any, examples: Path
) -> None:
    def forever(x: Any) -> Any:
        # It depends on the input, or it would be computed while the model is saved.
        ends = tf.shape(x)[0] < 0
        return {"y": tf.while_loop(lambda _: tf.logical_not(ends), lambda y: (y,), (x,))[0]}

    blessed, checks = bless(export(make_model(forever)).parent, examples.parents[1], timeout_s=30)
    assert not blessed
    assert checks["process"]["value"].startswith("no end after 30 s while ")
    assert not_passed(checks) == ["process"]


def test_a_broken_file(bless: Any, export: Any, make_model: Any, examples: Path) -> None:
    folder = export(make_model())
    file = folder / "variables" / "variables.data-00000-of-00001"
    file.write_bytes(file.read_bytes()[:5])
    blessed, checks = bless(folder.parent, examples.parents[1])
    assert not blessed
    assert not_passed(checks) == ["loads"]


@pytest.mark.parametrize(
    ("code", "value", "note"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL", ""),
        ("import ctypes; ctypes.string_at(0)", "signal SIGSEGV", "Segmentation fault"),
        ("import no_such_module", "exit code 1", "No module named 'no_such_module'"),
    ],
)
def test_a_process_that_dies(
    bless: Any,
    export: Any,
    make_model: Any,
    examples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    value: str,
    note: str,
) -> None:
    (tmp_path / "dying_probe.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(executor, "PROBE", "dying_probe")
    blessed, checks = bless(export(make_model()).parent, examples.parents[1])
    assert not blessed
    assert not_passed(checks) == ["process"]
    assert checks["process"]["value"] == f"{value} before it began"
    assert note in checks["process"]["note"]


def test_a_model_of_tfx_that_keras_2_saved_with_its_optimizer(bless: Any) -> None:
    blessed, checks = bless(
        TESTDATA / "trainer" / "keras", TESTDATA / "penguin" / "data", split="eval"
    )
    assert blessed, not_passed(checks)
    assert checks["loads"]["value"].endswith("with Keras")
    assert checks["answers"]["passed"] and checks["session"]["passed"]


def test_misuse_is_an_error(
    bless: Any, export: Any, make_model: Any, examples: Path, empty_split: Path, tmp_path: Path
) -> None:
    model, data = export(make_model()).parent, examples.parents[1]
    with pytest.raises(UserError, match=r"got .no .*/nowhere/Format-Serving/saved_model\.pb"):
        bless(tmp_path / "nowhere", data)
    with pytest.raises(UserError, match=r"one of .* empty, test at .*, got 'eval'"):
        bless(model, data, split="eval")
    with pytest.raises(UserError, match=r"the split 'empty' .* got 'none at"):
        bless(model, data, split="empty")
    empty_split.unlink()
    with pytest.raises(UserError, match=r"the split 'empty' .* got 'none at"):
        bless(model, data, split="empty")
