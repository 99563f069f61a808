"""The data part of a run on several engines of Apache Beam, with real processes: same artifacts."""

import dataclasses
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.evaluation import results
from pipeline import presets
from pipeline.config import BeamConfig, RunConfig
from pipeline.data import dataset, digits
from pipeline.metadata import store
from pipeline.runners import local, logs
from runs import ROOT, Done, plateau, records

pytestmark = pytest.mark.e2e

ROWS = 600
BEAM_COMPONENTS = ("CsvExampleGen", "StatisticsGen", "Transform", "Evaluator")
SPLITS = (dataset.TRAIN, dataset.EVAL, dataset.TEST)
BEAM = "apache_beam.runners"


@dataclasses.dataclass(frozen=True)
class Server:
    address: str
    log: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(module: str, flag: str, log: Path):
    """A server of Beam in a process of its own, which ends with its children."""
    port = free_port()
    environment = {
        **os.environ,
        # The pool starts its workers as `python`.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", module, f"{flag}={port}"],
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_listening(process, port, log)
        yield Server(f"127.0.0.1:{port}", log)
    finally:
        # Its workers are of its group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_listening(process: subprocess.Popen, port: int, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"nothing listens on port {port}:\n{log.read_text()}")


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Beam's job server and worker pool."""
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        yield (
            stack.enter_context(
                server(f"{BEAM}.portability.local_job_service_main", "--port", folder / "jobs")
            ),
            stack.enter_context(
                server(f"{BEAM}.worker.worker_pool_main", "--service_port", folder / "pool")
            ),
        )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return digits.write_digits(tmp_path_factory.mktemp("images") / "digits")


@pytest.fixture(scope="module")
def direct(images, tmp_path_factory):
    return run(images, tmp_path_factory.mktemp("direct"), BeamConfig())


def run(
    folder: Path,
    output: Path,
    beam: BeamConfig,
    config: RunConfig | None = None,
    last: str = "Transform",
) -> Done:
    """Runs the pipeline as far as a component."""
    config = config or presets.digits()
    config = dataclasses.replace(config, data=folder, output=output, beam=beam)
    with logs.capture(output / "log", verbose=False):
        data = dataset.resolve(config, output)
        config = dataclasses.replace(config, classes=data.classes)
        local.execute(config, data, output, to_nodes=(last, "LatestBlessedModel"))
    return Done(0, "", "", output)


def examples(done: Done, split: str) -> list[bytes]:
    (gen,) = (done.output / "artifacts").glob("*ExampleGen")
    return sorted(records(done.files(gen.name, "examples", split)))


def statistics(done: Done, split: str) -> statistics_pb2.DatasetFeatureStatistics:
    """The statistics of a split, with the features in the order of their names."""
    (file,) = done.files("StatisticsGen", "statistics", split)
    found = statistics_pb2.DatasetFeatureStatisticsList.FromString(Path(file).read_bytes())
    (of_split,) = found.datasets
    features = sorted(of_split.features, key=lambda feature: feature.path.step[0])
    del of_split.features[:]
    of_split.features.extend(features)
    return of_split


def transformed(done: Done, serialized: list[bytes]) -> dict[str, bytes]:
    """What the transform graph makes of some examples."""
    import tensorflow as tf
    import tensorflow_transform as tft

    folder = max((done.output / "artifacts/Transform/transform_graph").iterdir())
    graph = tft.TFTransformOutput(str(folder))
    raw = tf.io.parse_example(serialized, graph.raw_feature_spec())
    made = graph.transform_raw_features(raw)
    return {name: tensor.numpy().tobytes() for name, tensor in made.items()}


def assert_same(done: Done, direct: Done) -> None:
    for split in SPLITS:
        assert examples(done, split) == examples(direct, split)
        assert statistics(done, split) == statistics(direct, split)
    serialized = examples(direct, dataset.TEST)
    made = transformed(done, serialized)
    assert made == transformed(direct, serialized)
    assert made


def test_a_table_and_the_evaluator_on_several_processes(tmp_path):
    """The artifacts are compared between engines below; here, that no row is lost or read twice."""
    data, several = tmp_path / "table", tmp_path / "several"
    data.mkdir()
    whole = dataset.resolve(presets.taxi(), tmp_path).folder / "data.csv"
    with whole.open() as rows:
        (data / "data.csv").write_text("".join(itertools.islice(rows, ROWS + 1)))
    preset = presets.taxi()
    schedule = dataclasses.replace(preset.schedule, max_epochs=1)
    config = dataclasses.replace(preset, schedule=schedule)
    done = run(data, several, BeamConfig(beam="direct:2"), config, "Evaluator")
    assert sum(len(examples(done, split)) for split in SPLITS) == ROWS
    recorded = store.read(store.file_of(done.output))
    (evaluator,) = [e for e in recorded.executions.values() if e.component == "Evaluator"]
    evaluated = results.read(dict(evaluator.outputs)["evaluation"].uri)
    tested = len(examples(done, dataset.TEST))
    assert evaluated.candidate.examples == tested > ROWS / 20
    workers = re.findall(r"Python sdk harness starting", (several / "log").read_text())
    assert len(workers) >= 2 * len(BEAM_COMPONENTS)


def test_a_job_server_and_a_worker_pool(direct, images, servers, tmp_path):
    jobs, pool = servers
    beam = BeamConfig(beam=f"portable://{jobs.address}", beam_workers=pool.address)
    assert_same(run(images, tmp_path, beam), direct)
    assert "Starting worker" in pool.log.read_text()


def test_a_job_server_alone(direct, images, servers, tmp_path):
    jobs, pool = servers
    before = pool.log.read_text().count("Starting worker")
    assert_same(run(images, tmp_path, BeamConfig(beam=f"portable://{jobs.address}")), direct)
    assert pool.log.read_text().count("Starting worker") == before


def test_a_job_server_that_is_not_there_is_told_of_before_anything_is_written(tmp_path):
    address = f"portable://127.0.0.1:{free_port()}"
    done = plateau("run", "digits", "--beam", address, output=tmp_path / "run")
    assert done.status == 1
    assert "--beam must be an address at which something listens" in done.err
    assert not done.output.exists()
