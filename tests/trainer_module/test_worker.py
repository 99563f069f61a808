"""The multi-worker program: what it refuses, and two of it side by side against one alone."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from examples import IMAGE_CONFIG, analyze, picture, write_records
from examples import example as serialized
from trainer_module import history, worker
from trainer_module.config import (
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    TableFeatures,
    TrainConfig,
)
from trainer_module.distributed.cluster import TF_CONFIG
from trainer_module.schedule.plateau import PlateauConfig
from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.util.preemption import EXIT_STATUS, FINAL

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


def tf_config(workers: list[str], index: int) -> str:
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


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
        ({"examples": Path("nowhere")}, "`examples` must be the folder of an Examples artifact"),
        ({"transform_graph": Path("nowhere")}, "`transform_graph` must be the folder"),
        ({"config": Path("nowhere")}, "`config` must be a file"),
        ({"train_split": "training"}, r"`train_split` must name a split .*splits are eval, train"),
        ({"eval_split": "val"}, "`eval_split` must name a split"),
        ({"wait": 0.0}, "`wait` must be above 0"),
    ],
)
def test_what_is_missing_is_named(folders, changed, complaint):
    with pytest.raises(ValueError, match=complaint):
        worker.read(replace(folders, **changed))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "a saved config must be JSON"),
        (b"\xff\xfe{}", "`config` must be UTF-8 text, got .*train_config"),
        (b" " * 2**21, "`config` must have at most 1,048,576 bytes"),
    ],
    ids=["empty", "no UTF-8", "large"],
)
def test_a_configuration_that_is_none_is_refused(folders, content, complaint):
    folders.config.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        worker.read(folders)


def test_bad_usage_is_told_without_a_traceback(folders, capsys, monkeypatch):
    monkeypatch.setenv(TF_CONFIG, "{cluster")
    flags = ("examples", "transform_graph", "config", "output")
    given = [f"--{name.replace('_', '-')}={getattr(folders, name)}" for name in flags]
    assert worker.main(given) == FINAL
    assert capsys.readouterr().err.startswith("error: TF_CONFIG must be JSON")
    assert worker.main([*given[:-2], "--config=nowhere", given[-1]]) == FINAL
    assert capsys.readouterr().err.startswith("error: --config must be a file")


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


def start(
    workspace: Path, out: Path, environment: dict[str, str], *flags: str, prefix: Sequence[str] = ()
) -> subprocess.Popen:
    return subprocess.Popen(
        [*prefix, *command(workspace, out), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )


def free_addresses(number: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]


def start_all(*places: tuple[Path, Path]) -> list[subprocess.Popen]:
    """A worker for each workspace and folder of outputs."""
    addresses = free_addresses(len(places))
    return [
        start(*place, {TF_CONFIG: tf_config(addresses, index)})
        for index, place in enumerate(places)
    ]


def ended(*processes: subprocess.Popen) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each."""
    outputs = [process.communicate(timeout=600) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def finish(*processes: subprocess.Popen) -> list[str]:
    results = ended(*processes)
    for status, _, err in results:
        assert status == 0, err[-4000:]
    return [out for _, out, _ in results]


def read_until(process: subprocess.Popen, text: str) -> None:
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"{text!r} was never printed: {process.communicate()[1][-4000:]}")


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
    copy = changed(workspace, out, lambda config: replace_loop(config, precision="float32"))
    finish(start(copy, out, {}))
    return out


def replace_loop(config: TrainConfig, **values: object) -> TrainConfig:
    return replace(config, loop=replace(config.loop, **values))


def changed(
    workspace: Path, folder: Path, change: Callable[[TrainConfig], TrainConfig] = lambda c: c
) -> Path:
    """The same workspace with another configuration."""
    copy = folder / "workspace"
    copy.mkdir()
    for name in ("examples", "transform_graph"):
        (copy / name).symlink_to((workspace / name).resolve())
    (copy / "train_config.json").write_text(change(CONFIG).to_json())
    return copy


def assert_same(mine: Path, its: Path) -> None:
    """The same schedule and, but for rounding, the same values."""
    one, other = (history.read(out / "output" / history.FILE_NAME) for out in (mine, its))
    assert one.stop_reason == other.stop_reason
    for a, b in zip(one.epochs, other.epochs, strict=True):
        for field in ("batch_size", "updates", "examples", "action", "learning_rate", "best"):
            assert getattr(a, field) == getattr(b, field), field
        assert dict(a.metrics) == pytest.approx(dict(b.metrics), rel=1e-3, abs=1e-5)
    for a, b in zip(weights(mine), weights(its), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.e2e
def test_two_workers_train_as_one_does_and_the_chief_writes(tmp_path, workspace, alone):
    """Also after an export that failed: all start again, and train nothing anew."""
    elsewhere = tmp_path / "elsewhere"
    both = (workspace, tmp_path), (workspace, elsewhere)
    model = tmp_path / "output/model"
    model.parent.mkdir()
    model.write_text("in the way")
    chief, other = ended(*start_all(*both))
    # The chief could not export the model.
    assert (chief[0], other[0]) == (FINAL, FINAL), other[2][-4000:]
    assert "worker 0 (127.0.0.1:" in other[2]
    assert "worker 0, one of 2 workers" in chief[1]
    assert "precision auto: workers must agree" in chief[1]
    assert "epoch 1" in chief[1]
    assert "epoch" not in other[1]
    assert len(list((tmp_path / "output/tensorboard").iterdir())) == 1

    model.unlink()
    again, _ = finish(*start_all(*both))
    assert "resuming after epoch" in again
    assert "batch 8" not in again
    # The other workers need no folder of checkpoints, and write nothing.
    assert not elsewhere.exists()
    record = history.read(tmp_path / "output" / history.FILE_NAME)
    assert {epoch.batch_size for epoch in record.epochs} == {8, 32}
    assert record.config["replicas"] == 2
    assert_same(tmp_path, alone)
    np.testing.assert_allclose(predictions(tmp_path), predictions(alone), atol=1e-4)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory) -> Path:
    """A table whose label is a number, far from 0 and with a unit of its own."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("numbers")
    features = TableFeatures(numeric=("miles", "hours"), label="fare", task="regression")
    config = replace(CONFIG, features=features, classes=())
    random, spec = np.random.default_rng(0), tf.io.VarLenFeature(tf.float32)
    rows = [
        {"miles": float(miles), "hours": float(hours), "fare": float(900 + 50 * miles - 20 * hours)}
        for miles, hours in random.normal(size=(260, 2))
    ]
    columns = [{name: [value] for name, value in row.items()} for row in rows]
    transform = analyze(folder, config, dict.fromkeys(rows[0], spec), columns)
    for split, part in (("train", rows[:200]), ("eval", rows[200:])):
        path = folder / f"examples/Split-{split}/data_tfrecord-00000-of-00001.gz"
        path.parent.mkdir(parents=True)
        write_records(path, [serialized(**row) for row in part])
    (folder / "transform_graph").symlink_to(transform._transform_output_dir)
    plateau = replace(CONFIG.schedule.plateau, monitor="val_loss", mode="min")
    config = replace(config, schedule=replace(CONFIG.schedule, plateau=plateau))
    (folder / "train_config.json").write_text(replace_loop(config, precision="float32").to_json())
    return folder


@pytest.mark.e2e
def test_two_workers_learn_a_number_as_one_does(tmp_path, numbers):
    import tensorflow as tf

    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(numbers, one, {}), *start_all((numbers, two), (numbers, tmp_path / "other")))
    assert_same(one, two)
    reached = history.read(two / "output" / history.FILE_NAME).best.metrics["val_mae"]
    inputs = {name: tf.constant([-1.0, 0.0, 1.0]) for name in ("miles", "hours")}
    answers = [
        tf.saved_model.load(str(out / "output/model"))
        .signatures["serving_columns"](**inputs)["prediction"]
        .numpy()[:, 0]
        for out in (one, two)
    ]
    np.testing.assert_allclose(*answers, rtol=1e-4)
    assert 0 < reached < 40
    np.testing.assert_allclose(answers[0], [870, 900, 930], atol=60)


@pytest.mark.e2e
def test_other_numbers_of_workers_resume_from_the_checkpoints_of_the_chief(
    tmp_path, workspace, alone
):
    here, elsewhere = (workspace, tmp_path), (workspace, tmp_path / "elsewhere")
    killed_by = {2: signal.SIGKILL, 3: signal.SIGTERM}
    for number, moment in ((2, "epoch 1"), (3, "resuming after epoch")):
        processes = start_all(here, *[elsewhere] * (number - 1))
        read_until(processes[0], moment)
        processes[-1].send_signal(killed_by[number])
        *others, (status, _, _) = ended(*processes)
        assert status in (-signal.SIGKILL, EXIT_STATUS)
        for status, _, err in others:
            # They are left alone, and are to be started again.
            assert status == EXIT_STATUS, err[-4000:]
            assert f"worker {number - 1} (127.0.0.1:" in err
        # Those who see what an earlier run left, and the chief does not, follow the chief.
        stale = tmp_path / "elsewhere/checkpoints"
        if number == 2:
            shutil.copytree(tmp_path / "checkpoints", stale)
    (out,) = finish(start(workspace, tmp_path, {}))
    assert "resuming after epoch" in out
    assert_same(tmp_path, alone)


@pytest.mark.e2e
def test_workers_that_would_train_otherwise_say_in_what(tmp_path, workspace):
    other = changed(workspace, tmp_path, lambda config: replace_loop(config, seed=7))
    (other / "examples").unlink()
    shutil.copytree(workspace / "examples", other / "examples")
    (path,) = (other / "examples/Split-train").iterdir()
    import tensorflow as tf

    records = list(tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator())
    write_records(path, records[::-1])
    for status, _, err in ended(*start_all((workspace, tmp_path), (other, tmp_path))):
        assert status == FINAL
        (line,) = err.splitlines()
        assert line.startswith("error: all workers must train the same, but config loop.seed is 7")
        assert "the training examples is sha256:" in line
    assert not (tmp_path / "output").exists()


@pytest.mark.e2e
def test_who_waits_leaves_on_sigterm_or_when_the_time_is_over(tmp_path, workspace):
    text = tf_config(free_addresses(2), 0)
    waiting = start(workspace, tmp_path, {TF_CONFIG: text}, "--wait=600")
    read_until(waiting, "worker 0, one of 2 workers")
    waiting.send_signal(signal.SIGTERM)
    assert ended(waiting)[0][0] == EXIT_STATUS
    ((status, _, err),) = ended(start(workspace, tmp_path, {TF_CONFIG: text}, "--wait=0.5"))
    assert status == EXIT_STATUS
    assert err.startswith("error: all workers must be there within 0.5 seconds (--wait)")


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces, as two hosts with a cable between them."""
    names = [f"plateau-{os.getpid()}-{i}" for i in range(2)]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ends = [("name", f"c{i}", "netns", name) for i, name in enumerate(names)]
        ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for i, name in enumerate(names):
            ip("-n", name, "addr", "add", f"192.0.2.{i + 1}/24", "dev", f"c{i}")
            for device in ("lo", f"c{i}"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces are not allowed here: {error}")
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.e2e
def test_hosts_that_start_late_are_named_and_those_cut_off_leave(tmp_path, workspace, namespaces):
    schedule = replace(CONFIG.schedule, plateau=PlateauConfig(patience=5000), max_epochs=5000)
    long = changed(workspace, tmp_path, lambda config: replace(config, schedule=schedule))
    addresses = [f"192.0.2.{i + 1}:2222" for i in range(2)]

    def begin(index: int) -> subprocess.Popen:
        environment = {TF_CONFIG: tf_config(addresses, index)}
        prefix = ("ip", "netns", "exec", namespaces[index])
        return start(long, tmp_path, environment, prefix=prefix)

    chief = begin(0)
    read_until(chief, "s for worker 1 (192.0.2.2:2222)")
    other = begin(1)
    read_until(chief, f"epoch {2:>4}")
    subprocess.run(["ip", "-n", namespaces[1], "link", "set", "c1", "down"], check=True)
    for name, (status, _, err) in zip((1, 0), ended(chief, other), strict=True):
        assert status == EXIT_STATUS, err[-4000:]
        assert f"worker {name} (192.0.2.{name + 1}:2222) is gone" in err or "another worker" in err


TRAINER = """
import sys
from trainer_module.util import environment

environment.prepare()
import tensorflow as tf

from trainer_module.distributed import strategies as distribution
from trainer_module import run_fn as entry

workspace, out, devices = sys.argv[1:]
given = {
    "train_files": [f"{workspace}/examples/Split-train/*"],
    "eval_files": [f"{workspace}/examples/Split-eval/*"],
}
if devices == "1":
    # All that TFX's Trainer imports before it calls run_fn.
    import components.plateau_trainer.executor
    from tfx.components.trainer.fn_args_utils import FnArgs

    with open(f"{workspace}/train_config.json") as file:
        custom = {"train_config": file.read(), "checkpoints": f"{out}/checkpoints"}
    entry.run_fn(
        FnArgs(
            transform_output=f"{workspace}/transform_graph",
            serving_model_dir=f"{out}/output/model",
            model_run_dir=f"{out}/output",
            base_model=None,
            custom_config=custom,
            **given,
        )
    )
    sys.exit(0 if tf.io.gfile.exists(f"{out}/output/model/saved_model.pb") else "no model")
cpu = tf.config.list_physical_devices("CPU")[0]
parts = [tf.config.LogicalDeviceConfiguration()] * int(devices)
tf.config.set_logical_device_configuration(cpu, parts)
from trainer_module.config import TrainConfig

entry.fit_and_export(
    TrainConfig.from_json(open(f"{workspace}/train_config.json").read()),
    transform_graph=f"{workspace}/transform_graph",
    model_dir=f"{out}/output/model",
    run_dir=f"{out}/output",
    strategy=distribution.local("CPU"),
    **given,
)
"""


def start_trainer(
    workspace: Path, out: Path, devices: int, environment: dict[str, str]
) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(workspace), str(out), str(devices)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.e2e
def test_the_pipelines_trainer_uses_all_devices_and_the_workers_of_tf_config(
    tmp_path, workspace, alone
):
    copy = changed(workspace, tmp_path, lambda config: replace_loop(config, precision="float32"))
    together, devices = tmp_path / "together", tmp_path / "devices"
    addresses = free_addresses(2)
    finish(
        start_trainer(copy, devices, 2, {}),
        *(
            start_trainer(copy, together, 1, {TF_CONFIG: tf_config(addresses, index)})
            for index in range(2)
        ),
    )
    for out in (together, devices):
        assert history.read(out / "output" / history.FILE_NAME).config["replicas"] == 2
        assert_same(out, alone)
