"""Submission of a compiled pipeline to a Kubeflow Pipelines server."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
import yaml
from annotated_types import Ge
from rich.console import Console
from rich.text import Text

from trainer_module.schedule.strategy import StrategyName
from trainer_module.util.checks import UserError, check_fields, require

from . import kfp_client

POLL_SECONDS = 10.0
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""Final states of a run."""

_PARAMETERS = ("data", "strategy", "patience", "max_epochs", "pushed")
_HOST = re.compile(r"https?://(\[[\da-fA-F:]+\]|[\w.-]+)(:\d{1,5})?(/[^\s?#@]*)?")


@dataclass(frozen=True)
class SubmitConfig:
    """Flags of `plateau submit`."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Pipeline that `plateau compile` wrote."""
    host: str
    """Address of the Kubeflow Pipelines server, such as http://localhost:8080. A token for it is
    taken from the environment variable PLATEAU_KFP_TOKEN or from --token-file."""
    version: str | None = None
    """Name of the version and of the run; if not given, the pipeline's and the time in UTC."""
    experiment: str = "plateau"
    """Experiment of the run; it is created if it does not exist."""
    namespace: str | None = None
    """Kubernetes namespace of the run, on a server of many users."""
    data: str | None = None
    """Folder of the data as the cluster sees it; if not given, as compiled."""
    strategy: StrategyName | None = None
    """Response to a plateau; if not given, as compiled."""
    patience: Annotated[int | None, Ge(1)] = None
    """Evaluations in a row without improvement that make a plateau; if not given, as compiled."""
    max_epochs: Annotated[int | None, Ge(1)] = None
    """Most epochs to train; if not given, as compiled."""
    pushed: str | None = None
    """Folder, as the cluster sees it, that receives the numbered versions of the model; if not
    given, as compiled."""
    root: str | None = None
    """Pipeline root; if not given, as compiled, or else the server's own."""
    wait: bool = False
    """Wait for the end of the run."""
    token_file: Path | None = None
    """File that holds a token; it is read anew for each request."""
    service_account: str | None = None
    """Kubernetes service account to run as."""

    def __post_init__(self) -> None:
        """Checks what can be checked without the file and the server."""
        check_fields(self)
        # The defaults of the command line have no host: see `default`.
        if isinstance(self.host, str):
            require(
                _HOST.fullmatch(self.host) is not None,
                "`host` must be http:// or https:// and a name, without a user, ? or #",
                # A password is not shown.
                self.host.rpartition("@")[2],
                "Try `host=http://localhost:8080`.",
            )


class Submitted(NamedTuple):
    """Result of a submission."""

    id: str
    """Id of the run."""
    address: str
    """Web page of the run."""
    state: str | None = None
    """State of the run at its end, such as SUCCEEDED; None without `wait`."""

    @property
    def ok(self) -> bool:
        """Whether nothing is known to have gone wrong."""
        return self.state in (None, "SUCCEEDED")


def default() -> SubmitConfig:
    """Returns the values of the flags that are left out; FILE and --host are required."""
    missing: Any = tyro.MISSING
    return SubmitConfig(file=missing, host=missing)


def read(path: Path) -> tuple[str, dict[str, Any], str | None]:
    """Reads a pipeline that `plateau compile` wrote for Kubeflow Pipelines.

    Returns:
        Its name, the default of each parameter of a run, and its root if it was compiled with one.

    Raises:
        UserError: The file is another one.
        OSError: The file cannot be read.
    """
    rule = "FILE must be a pipeline that `plateau compile --target kfp` wrote"
    remedy = "Submit one for Vertex AI with aiplatform.PipelineJob(...).submit()."
    # The server knows the format by the name.
    is_named = path.is_file() and path.suffix in (".yaml", ".yml")
    require(is_named, f"{rule}, with a name that ends with .yaml", str(path), remedy)
    try:
        spec = next(yaml.safe_load_all(path.read_text("utf-8")))
        parameters = {
            name: spec["root"]["inputDefinitions"]["parameters"][name]["defaultValue"]
            for name in _PARAMETERS
        }
        return spec["pipelineInfo"]["name"], parameters, spec.get("defaultPipelineRoot")
    except (ValueError, LookupError, TypeError, RecursionError, StopIteration, yaml.YAMLError):
        raise UserError(rule, str(path), remedy) from None


def submit(
    config: SubmitConfig,
    console: Console,
    environ: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
) -> Submitted:
    """Uploads a pipeline as a new version, runs it, and waits for its end if `wait` is set.

    Args:
        config: Flags.
        console: Where progress is printed.
        environ: Environment variables.
        sleep: Waits for some seconds.

    Raises:
        UserError: The file is not what `plateau compile` writes, the server cannot be reached or
            refuses.
        OSError: A file cannot be read.
    """
    name, defaults, root = read(config.file)
    token = partial(kfp_client.read_token, config.token_file, environ)
    token()
    server = kfp_client.Server(config.host, token)
    experiment = server.find_or_create(
        "experiments", "experiment_id", config.experiment, config.namespace
    )
    version = config.version or f"{name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    pipeline = server.find_or_create("pipelines", "pipeline_id", name, config.namespace)
    reference = {
        "pipeline_id": pipeline["pipeline_id"],
        "pipeline_version_id": server.upload_version(pipeline["pipeline_id"], version, config.file),
    }
    _say(console, "pipeline", f"{name}, version {version}")
    flags = {flag: getattr(config, flag) for flag in _PARAMETERS}
    # With the defaults, so that the run's page shows every value.
    runtime: dict[str, Any] = {
        "parameters": defaults | {k: v for k, v in flags.items() if v is not None}
    }
    # No server takes it from the file.
    if config.root or root:
        runtime["pipeline_root"] = config.root or root
    run = {
        "display_name": version,
        "experiment_id": experiment["experiment_id"],
        "pipeline_version_reference": reference,
        "runtime_config": runtime,
        "service_account": config.service_account,
    }
    run_id = server.create("runs", "run_id", **run)["run_id"]
    submitted = Submitted(run_id, f"{server.host}/#/runs/details/{run_id}")
    _say(console, "run", submitted.address)
    if not config.wait:
        return submitted
    server.retries = kfp_client.PATIENT_RETRIES
    try:
        ended = _wait(server, run_id, console, sleep)
        for problem in _problems(ended) if ended["state"] != "SUCCEEDED" else ():
            _say(console, "failed", kfp_client.clean(problem), "red")
    except UserError as error:
        remedy = f"{error.remedy} The run continues: {submitted.address}"
        raise UserError(error.rule, error.value, remedy) from None
    return submitted._replace(state=ended["state"])


def _wait(
    server: kfp_client.Server, run_id: str, console: Console, sleep: Callable[[float], None]
) -> dict[str, Any]:
    """Returns a run as the server describes it when it has ended."""
    last = None
    while True:
        run = server.get(f"runs/{run_id}", "run_id")
        state = run.get("state")
        if state != last:
            last = state
            _say(console, "state", f"{str(state).lower()} at {datetime.now():%H:%M:%S}")
        if state in FINISHED:
            return run
        sleep(POLL_SECONDS)


def _problems(run: Mapping[str, Any]) -> Iterator[str]:
    """Yields the errors of a run: its own, and those of each task that failed."""
    # Whatever the answer holds, the run has failed.
    with contextlib.suppress(AttributeError, TypeError):
        message = (run.get("error") or {}).get("message")
        if message:
            yield str(message)
        for task in (run.get("run_details") or {}).get("task_details") or ():
            name, error = task.get("display_name"), task.get("error") or {}
            # The root fails whenever a task does.
            if task.get("state") == "FAILED" and name not in (None, "root"):
                yield f"{name}: {error['message']}" if error.get("message") else str(name)


def _say(console: Console, label: str, text: str, style: str = "") -> None:
    # An address that is broken over lines cannot be followed.
    console.print(Text.assemble((f"{label:<11}", style), text), soft_wrap=True)
