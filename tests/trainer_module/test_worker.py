"""The multi-worker program: what it refuses, and two of it side by side against one alone."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from examples import IMAGE_CONFIG, picture, write_records
from examples import example as serialized
from trainer_module import history, worker
from trainer_module.config import LoopConfig, NetworkConfig, OptimizerConfig, TrainConfig
from trainer_module.plateau import PlateauConfig
from trainer_module.preemption import EXIT_STATUS
from trainer_module.schedule import ScheduleConfig

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "deploy/manifests/tfjob.yaml"
WORKSPACE = "/workspace/multi-worker"

# No BatchNorm: its averages over a share of the batch differ from those over the whole.
CONFIG = replace(
    IMAGE_CONFIG,
    network=NetworkConfig(model="mlp", width_multiplier=0.1, dropout=0.0),
    optimization=OptimizerConfig(learning_rate=0.01),
    schedule=ScheduleConfig(
        plateau=PlateauConfig(patience=1), plan="batch*4", max_batch_size=64, max_epochs=6
    ),
    loop=LoopConfig(batch_size=8, precision="auto"),
)
ADDRESSES = ["127.0.0.1:1", "127.0.0.1:2"]


def tf_config(workers: list[str], index: object, kind: str = "worker") -> str:
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": kind, "index": index}})


def test_without_tf_config_there_is_no_other():
    assert worker.locate("") is None
    assert worker.locate(tf_config(ADDRESSES[:1], 0)) is None


def test_tf_config_says_which_worker_this_is():
    assert worker.locate(tf_config(ADDRESSES, 1)) == worker.Place("worker", 1, 2)
    cluster = {"chief": ADDRESSES[:1], "worker": ADDRESSES}
    given = json.dumps({"cluster": cluster, "task": {"type": "chief", "index": 0}})
    assert worker.locate(given) == worker.Place("chief", 0, 3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{cluster", "must be JSON"),
        pytest.param("[" * 100_000, "must be JSON", id="deep"),
        pytest.param("1" * 5000, "must be JSON", id="a long number"),
        pytest.param(
            json.dumps({"cluster": {"x" * 9000: ["a:1"]}}), "kinds chief and worker", id="long"
        ),
        ("[]", "must be a JSON object"),
        ('{"cluster": {"worker": "127.0.0.1:1"}}', "must list the addresses"),
        ('{"cluster": ["127.0.0.1:1"]}', "must list the addresses"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}}',
            "kinds chief and worker only, got 'ps'",
        ),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "which of its tasks this is, got None"),
        (tf_config(ADDRESSES, 2), "which of its tasks this is"),
        (tf_config(ADDRESSES, "0"), "which of its tasks this is"),
        (tf_config(ADDRESSES, 0, "chief"), "which of its tasks this is"),
    ],
)
def test_a_tf_config_that_is_none_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        worker.locate(text)
    assert len(str(error.value)) < 2000


def test_workers_do_not_time_their_own_machines():
    assert worker.agreed(CONFIG).loop == replace(CONFIG.loop, precision="float32")
    chosen = replace(CONFIG, loop=replace(CONFIG.loop, precision="mixed_bfloat16"))
    assert worker.agreed(chosen) == chosen


@pytest.fixture
def folders(tmp_path) -> worker.WorkerConfig:
    """All that is to be read, but empty of data."""
    for folder in ("examples/Split-train", "examples/Split-eval", "transform_graph/transform_fn"):
        (tmp_path / folder).mkdir(parents=True)
    for split in ("train", "eval"):
        (tmp_path / f"examples/Split-{split}/data.gz").touch()
    (tmp_path / "train_config.json").write_text(CONFIG.to_json())
    return worker.WorkerConfig(
        examples=tmp_path / "examples",
        transform_graph=tmp_path / "transform_graph",
        config=tmp_path / "train_config.json",
        output=tmp_path / "output",
    )


def test_reads_the_configuration(folders):
    assert worker.read(folders) == CONFIG


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"examples": Path("nowhere")}, "--examples must be the folder of an Examples artifact"),
        ({"transform_graph": Path("nowhere")}, "--transform-graph must be the folder"),
        ({"config": Path("nowhere")}, "--config must be a file"),
        ({"train_split": "training"}, r"--train-split must name a split .*Splits there: eval, tr"),
        ({"eval_split": "val"}, "--eval-split must name a split"),
    ],
)
def test_what_is_missing_is_named(folders, changed, complaint):
    with pytest.raises(ValueError, match=complaint):
        worker.read(replace(folders, **changed))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "a saved config must be JSON"),
        (b"\xff\xfe{}", "--config must be UTF-8 text, got .*train_config"),
        (b" " * 2**21, "--config must have at most 1,048,576 bytes"),
    ],
    ids=["empty", "no UTF-8", "large"],
)
def test_a_configuration_that_is_none_is_refused(folders, content, complaint):
    folders.config.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        worker.read(folders)


def test_bad_usage_is_told_without_a_traceback(folders, capsys, monkeypatch):
    monkeypatch.setenv(worker.TF_CONFIG, "{cluster")
    flags = ("examples", "transform_graph", "config", "output")
    given = [f"--{name.replace('_', '-')}={getattr(folders, name)}" for name in flags]
    assert worker.main(given) == worker.USAGE
    assert capsys.readouterr().err.startswith("error: TF_CONFIG must be JSON")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, image_transform) -> Path:
    """What the manifest expects on the volume."""
    folder = tmp_path_factory.mktemp("workspace")
    random = np.random.default_rng(0)
    for split, number in (("train", 200), ("eval", 60)):
        records = []
        for i in range(number):
            # A tenth of the labels are wrong, so that there is something to stall at.
            light = (i % 2 == 0) != (i % 10 == 0)
            value = int(random.integers(128, 256) if i % 2 == 0 else random.integers(0, 128))
            label = b"light" if light else b"dark"
            records.append(serialized(image=picture(value), label=label, file_name=b"%d" % i))
        path = folder / f"examples/Split-{split}/data_tfrecord-00000-of-00001.gz"
        path.parent.mkdir(parents=True)
        write_records(path, records)
    (folder / "transform_graph").symlink_to(image_transform._transform_output_dir)
    (folder / "train_config.json").write_text(CONFIG.to_json())
    return folder


def command(workspace: Path, out: Path) -> list[str]:
    """The container's command of the manifest, on this machine's paths."""
    job = yaml.safe_load(MANIFEST.read_text())
    pod = job["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]
    (container,) = pod["containers"]
    words = [*container["command"], *container["args"]]
    assert words[0] == "python"
    for made in ("output", "checkpoints"):
        words = [word.replace(f"{WORKSPACE}/{made}", str(out / made)) for word in words]
    words = [word.replace(WORKSPACE, str(workspace)) for word in words]
    assert not any(word.startswith("/workspace") for word in words)
    return [sys.executable, *words[1:]]


def start(workspace: Path, out: Path, environment: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        command(workspace, out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )


def start_two(workspace: Path, out: Path) -> list[subprocess.Popen]:
    sockets = [socket.socket() for _ in range(2)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]
    for free in sockets:
        free.close()
    return [
        start(workspace, out, {worker.TF_CONFIG: tf_config(addresses, index)}) for index in range(2)
    ]


def finish(*processes: subprocess.Popen) -> list[str]:
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err[-4000:]
    return [out for out, _ in outputs]


def weights(out: Path) -> list[np.ndarray]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(out / "output/model/variables/variables"))
    shapes = reader.get_variable_to_shape_map()
    names = sorted(name for name in shapes if name.startswith("variables/"))
    assert names
    return [reader.get_tensor(name) for name in names]


def predictions(out: Path) -> np.ndarray:
    import tensorflow as tf

    signature = tf.saved_model.load(str(out / "output/model")).signatures["serving_images"]
    shades = tf.constant([picture(value) for value in range(0, 256, 16)])
    return signature(image=shades)["probabilities"].numpy()


@pytest.fixture(scope="module")
def alone(tmp_path_factory, workspace) -> Path:
    out = tmp_path_factory.mktemp("alone")
    text = TrainConfig.from_json((workspace / "train_config.json").read_text())
    assert text.loop.precision == "auto"
    config = workspace / "train_config.json"
    config.write_text(worker.agreed(CONFIG).to_json())
    try:
        finish(start(workspace, out, {}))
    finally:
        config.write_text(CONFIG.to_json())
    return out


@pytest.mark.e2e
def test_two_workers_train_as_one_does_and_the_chief_writes(tmp_path, workspace, alone):
    chief, other = finish(*start_two(workspace, tmp_path))
    assert "worker 0, one of 2 workers" in chief
    assert "precision float32: auto tries each machine by itself" in chief
    assert "epoch 1" in chief
    assert "epoch" not in other

    single = history.read(alone / "output" / history.FILE_NAME)
    both = history.read(tmp_path / "output" / history.FILE_NAME)
    assert {record.batch_size for record in both.epochs} == {8, 32}
    assert both.config["replicas"] == 2
    assert both.stop_reason == single.stop_reason
    for mine, its in zip(both.epochs, single.epochs, strict=True):
        for field in ("batch_size", "updates", "examples", "action", "learning_rate", "best"):
            assert getattr(mine, field) == getattr(its, field), field
        assert dict(mine.metrics) == pytest.approx(dict(its.metrics), rel=1e-3, abs=1e-5)
    for mine, its in zip(weights(tmp_path), weights(alone), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(predictions(tmp_path), predictions(alone), atol=1e-4)
    assert len(list((tmp_path / "output/tensorboard").iterdir())) == 1


@pytest.mark.e2e
def test_workers_that_were_sent_away_go_on_where_they_were(tmp_path, workspace, alone):
    processes = start_two(workspace, tmp_path)
    for line in processes[0].stdout:
        if "epoch 2" in line:
            processes[1].send_signal(signal.SIGTERM)
            break
    for process in processes:
        _, err = process.communicate(timeout=120)
        # The one that was sent away, and the one that it left alone: both are to be started again.
        assert process.returncode == EXIT_STATUS, err[-4000:]
    chief, _ = finish(*start_two(workspace, tmp_path))
    assert "going on after epoch" in chief
    single = history.read(alone / "output" / history.FILE_NAME)
    both = history.read(tmp_path / "output" / history.FILE_NAME)
    assert [r.batch_size for r in both.epochs] == [r.batch_size for r in single.epochs]
    for mine, its in zip(weights(tmp_path), weights(alone), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-3, atol=1e-4)
