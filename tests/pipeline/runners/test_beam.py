import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import container
from pipeline import presets
from pipeline.cli import flags
from pipeline.config import BeamConfig, Engine, parse_engine
from pipeline.runners import beam, local
from schemas.images import image_schema_text
from trainer_module.util.checks import UserError

JAR = Path("/jars/job-server.jar")
DATAFLOW = (
    "project=my-project",
    "region=europe-west1",
    "temp_location=gs://bucket/tmp",
    "sdk_container_image=plateau-beam:0.1.0",
)


def config(name: str, **fields: Any) -> BeamConfig:
    return BeamConfig(beam=name, **fields)


def args(name: str, images: bool = False, **fields: Any) -> tuple[str, ...]:
    preset = presets.get("digits" if images else "taxi").build()
    return beam.pipeline_args(dataclasses.replace(preset, beam=config(name, **fields)))


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that is taken, and at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("direct", Engine("direct")),
        ("direct:1", Engine("direct")),
        ("direct:12", Engine("direct", workers=12)),
        ("portable://jobs:8099", Engine("portable", address="jobs:8099")),
        ("portable://[::1]:8099", Engine("portable", address="[::1]:8099")),
        ("flink://10.0.0.1:8081", Engine("flink", address="10.0.0.1:8081")),
        ("flink://local", Engine("flink")),
        ("spark://master:7077", Engine("spark", address="master:7077")),
        ("spark://local", Engine("spark")),
        ("dataflow", Engine("dataflow")),
    ],
)
def test_engines_by_name(name: str, engine: Engine) -> None:
    assert parse_engine(name) == engine


@pytest.mark.parametrize(
    "name",
    [
        "",
        "prism",
        "http://host:1",
        "portable",
        "dataflow://project",
        "direct:",
        "direct:0",
        "direct:-2",
        "direct:1.5",
        "portable://",
        "portable://local",
        "portable://host",
        "portable://:8099",
        "portable://host:port",
        "portable://host:0",
        "portable://host:65536",
        "portable://user@host:8099",
        "portable://host:8099/jobs",
        "flink://host",
        "spark://yarn",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="`beam` must be direct, direct:N, portable://") as error:
        config(name)
    assert f"got {name!r}. Try `beam=" in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beam": "flink://local"}, "`job_server_jar` must be given.*`job_server_jar=FILE"),
        ({"beam": "spark://local"}, "`job_server_jar` must be given.*spark://local with None"),
        ({"job_server_jar": JAR}, "`job_server_jar` must be .* for no other"),
        (
            {"beam": "portable://localhost:1", "job_server_jar": JAR},
            "`job_server_jar` must be .* for no other",
        ),
        ({"beam_workers": "localhost:1"}, "`beam_workers` must be .*, and left out"),
        (
            {"beam": "portable://localhost:1", "beam_workers": "here"},
            "`beam_workers` must be HOST:PORT",
        ),
        ({"beam": "portable://jobs:8099"}, "`beam_workers` must be given for an engine on another"),
        (
            {"beam": "flink://cluster:8081", "job_server_jar": JAR},
            "`beam_workers` must be given for an engine on another",
        ),
        ({"beam_args": ("--project=a",)}, r"`beam_args` must be NAME=VALUE.*'--project=a'"),
        ({"beam_args": ("=a",)}, "`beam_args` must be NAME=VALUE"),
        ({"beam_args": ("runner=PrismRunner",)}, r"what `beam` itself sets, got 'runner'"),
        (
            {"beam": "direct:2", "beam_args": ("direct_num_workers=3",)},
            "what `beam` itself sets, got 'direct_num_workers'",
        ),
        (
            {"beam": "dataflow", "beam_args": DATAFLOW[:3]},
            r"sdk_container_image for dataflow",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeamConfig(**fields)


def test_this_process_needs_no_options() -> None:
    assert args("direct", images=True) == args("direct:1", images=True) == ()


def test_a_given_option_holds_in_this_process_too() -> None:
    assert args("direct", beam_args=("direct_runner_bundle_repeat=2",))[:2] == (
        "--runner=DirectRunner",
        "--direct_runner_bundle_repeat=2",
    )


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        (
            "direct:3",
            {},
            {"runner": "DirectRunner", "direct_running_mode": "multi_processing"}
            | {"direct_num_workers": 3},
        ),
        (
            "portable://localhost:8099",
            {},
            {"job_endpoint": "localhost:8099", "environment_type": "LOOPBACK"},
        ),
        (
            "portable://[::1]:8099",
            {"beam_workers": "localhost:50000"},
            {"job_endpoint": "[::1]:8099", "environment_type": "EXTERNAL"}
            | {"environment_config": "localhost:50000"},
        ),
        (
            "flink://cluster:8081",
            {"beam_workers": "localhost:50000", "job_server_jar": JAR},
            {"runner": "FlinkRunner", "flink_master": "cluster:8081"}
            | {"flink_job_server_jar": str(JAR), "environment_config": "localhost:50000"},
        ),
        ("flink://local", {"job_server_jar": JAR}, {"flink_master": "[local]"}),
        (
            "spark://master:7077",
            {"beam_workers": "localhost:50000", "job_server_jar": JAR},
            {"runner": "SparkRunner", "spark_master_url": "spark://master:7077"}
            | {"spark_job_server_jar": str(JAR)},
        ),
        ("spark://local", {"job_server_jar": JAR}, {"spark_master_url": "local[*]"}),
        (
            "portable://localhost:8099",
            {"beam_args": ("sdk_worker_parallelism=4",)},
            {"sdk_worker_parallelism": "4"},
        ),
        (
            "dataflow",
            {"beam_args": DATAFLOW},
            {"runner": "DataflowRunner", "project": "my-project", "region": "europe-west1"}
            | {"sdk_container_image": "plateau-beam:0.1.0"},
        ),
    ],
)
def test_beam_takes_the_options_as_they_are_meant(
    name: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(list(args(name, **fields))).get_all_options()
    assert {key: options[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("direct:2", {}),
        ("portable://localhost:8099", {}),
        ("spark://local", {"job_server_jar": JAR}),
        ("dataflow", {"beam_args": DATAFLOW}),
    ],
)
def test_tfx_packs_nothing(name: str, fields: dict[str, Any]) -> None:
    from tfx.utils.dependency_utils import make_beam_dependency_flags

    given = list(args(name, images=True, **fields))
    assert make_beam_dependency_flags(given) == given


def test_batches_of_images_are_held_by_their_size() -> None:
    by_size = "--tfxio_use_byte_size_batching=true"
    assert by_size in args("direct:2", images=True)
    assert by_size not in args("direct:2", images=False)


def test_dataflow_does_not_read_the_data() -> None:
    from pipeline import graph

    beam_config = config("dataflow", beam_args=DATAFLOW)
    run = dataclasses.replace(presets.digits(), classes=("0", "1"), beam=beam_config)
    paths = graph.PipelinePaths(data="gs://b/d", artifacts="gs://b/a", pushed="gs://b/p")
    schema = image_schema_text(run.classes)
    pipeline = graph.create_pipeline(run, paths, schema, beam_args=beam.pipeline_args(run))
    on_dataflow = {
        component.id: container.runs_on_dataflow(component.executor_spec.beam_pipeline_args)
        for component in pipeline.components
        if component.id in ("ImageExampleGen", "StatisticsGen")
    }
    assert on_dataflow == {"ImageExampleGen": False, "StatisticsGen": True}


def test_what_is_there_passes(listening: str, tmp_path: Path) -> None:
    jar = tmp_path / "server.jar"
    jar.touch()
    java = ("job_server_java_launcher=true",)
    for found in (
        config("direct:2"),
        config(f"portable://{listening}"),
        config(f"portable://{listening}", beam_workers=listening),
        config("flink://local", job_server_jar=jar, beam_args=java),
        config(f"spark://{listening}", job_server_jar=jar, beam_args=java),
    ):
        beam.check(found)


def test_an_address_at_which_nobody_listens_is_refused(listening: str, silent: str) -> None:
    with pytest.raises(ValueError, match=f"^`beam` must be an address .*refused.*got '{silent}'"):
        beam.check(config(f"portable://{silent}"))
    with pytest.raises(ValueError, match=f"^`beam_workers` must be .*got '{silent}'.*Start it"):
        beam.check(config(f"portable://{listening}", beam_workers=silent))


def test_a_missing_jar_or_java_is_refused(tmp_path: Path) -> None:
    jar = tmp_path / "server.jar"
    with pytest.raises(ValueError, match=r"`job_server_jar` must be a file, got '.*server\.jar'"):
        beam.check(config("flink://local", job_server_jar=jar))
    jar.touch()
    java = ("job_server_java_launcher=/no/java",)
    with pytest.raises(ValueError, match=r"flink must find Java.*'/no/java'"):
        beam.check(config("flink://local", job_server_jar=jar, beam_args=java))


def test_a_run_on_this_machine_is_nothing_for_dataflow() -> None:
    with pytest.raises(ValueError, match=r"whose files Dataflow cannot see.*plateau compile"):
        beam.check(config("dataflow", beam_args=DATAFLOW))


def test_a_run_looks_before_it_writes(silent: str, tmp_path: Path) -> None:
    from rich.console import Console

    output = tmp_path / "run"
    run = dataclasses.replace(presets.digits(), output=output, beam=config(f"portable://{silent}"))
    with pytest.raises(ValueError, match="`beam` must be an address"):
        local.run(run, Console())
    assert not output.exists()


def test_engines_of_a_compiled_pipeline() -> None:
    for name, target in (("direct", "kfp"), ("direct:2", "kfp"), ("direct:2", "vertex")):
        beam.check_compiled(config(name), target)
    beam.check_compiled(config("dataflow", beam_args=DATAFLOW), "vertex")
    for refused in (
        config("dataflow", beam_args=DATAFLOW),
        config("portable://jobs:8099", beam_workers="localhost:50000"),
        config("flink://local", job_server_jar=JAR),
    ):
        with pytest.raises(ValueError, match="`beam` must be direct or direct:N in a compiled"):
            beam.check_compiled(refused, "kfp")


def test_flags_reach_the_config_and_errors_name_them() -> None:
    given = ["--beam", "portable://localhost:8099", "--beam-args", "a=1", "b"]
    run = flags.parse(presets.digits(), given, "plateau", "")
    assert run.beam == config("portable://localhost:8099", beam_args=("a=1", "b"))
    with pytest.raises(UserError, match=r"`beam` must be direct.* with N of 1 or more"):
        flags.parse(presets.digits(), ["--beam", "direct:0"], "plateau", "")
