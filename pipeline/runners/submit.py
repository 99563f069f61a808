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
from annotated_types import Ge, Gt
from rich.console import Console
from rich.text import Text

from trainer_module.schedule.strategy import StrategyName
from trainer_module.util.checks import UserError, check_fields, require

from . import kfp_client, kubeflow_checks

POLL_SECONDS = 10.0
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""Final states of a run."""

_PARAMETERS = ("data", "strategy", "patience", "max_epochs", "pushed")
_HOST = re.compile(r"https?://(\[[\da-fA-F:]+\]|[\w.-]+)(:\d{1,5})?(/[^\s?#@]*)?")
_COMPILE = "Write one with `plateau compile --target kfp`."


@dataclass(frozen=True)
class SubmitConfig:
    """Flags of `plateau submit`."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Pipeline that `plateau compile` wrote."""
    host: str
    """Address of the Kubeflow Pipelines server, such as http://localhost:8080. A token for it is
    taken from the environment variable PLATEAU_KFP_TOKEN or from --token-file."""
    name: str | None = None
    """Name of the pipeline on the server; if not given, the one in the file."""
    version: str | None = None
    """Name of the version and of the run; if not given, the name and the time in UTC."""
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
    cron: str | None = None
    """Schedule of recurring runs, with six fields, the first one seconds: '0 30 3 * * *' is half
    past three each night, in the time zone of the server, as a rule UTC."""
    catchup: bool = False
    """Make up for the runs that a paused schedule has missed."""
    wait: bool = False
    """Wait for the end of the run."""
    timeout: Annotated[float | None, Gt(0)] = None
    """Most minutes to wait; if not given, as long as the run takes."""
    token_file: Path | None = None
    """File that holds a token; it is read anew for each request."""
    ca_cert: Path | None = None
    """File with the certificates to trust, for a server with a private authority."""
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
        require(
            self.ca_cert is None or self.ca_cert.is_file(),
            "`ca_cert` must be a file",
            str(self.ca_cert),
            "Check the path.",
        )
        # The server takes the minutes of five fields for seconds.
        require(
            self.cron is None or self.cron.startswith("@") or len(self.cron.split()) == 6,
            "`cron` must have six fields, the first one seconds, or be a word such as @daily",
            self.cron,
            "Try `cron='0 30 3 * * *'`.",
        )
        require(
            not (self.cron and self.wait),
            "`wait` must be left out with `cron`, whose runs have no end",
            self.wait,
            "Look at the runs in the web page.",
        )
        for field, other in (("catchup", "cron"), ("timeout", "wait")):
            value = getattr(self, field)
            require(
                not value or bool(getattr(self, other)),
                f"`{field}` must come with `{other}`",
                value,
                f"Add `{other}`.",
            )


class Submitted(NamedTuple):
    """Result of a submission."""

    id: str
    """Id of the run, or of the recurring run if there is a schedule."""
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
        UserError: The file is another one, or a server would refuse it.
        OSError: The file cannot be read.
    """
    compiled = kubeflow_checks.load(path)
    require(
        compiled.target == "kfp",
        "FILE must be compiled for Kubeflow Pipelines",
        str(path),
        f"Submit one for Vertex AI with aiplatform.PipelineJob(...).submit(). {_COMPILE}",
    )
    # The server knows the format by the name.
    require(path.suffix in (".yaml", ".yml"), "FILE must end with .yaml", path.name, "Rename it.")
    parameters = {name: p.get("defaultValue") for name, p in compiled.parameters.items()}
    require(
        set(parameters) == set(_PARAMETERS) and None not in parameters.values(),
        f"FILE must have the parameters {', '.join(_PARAMETERS)}, each with a default",
        parameters,
        _COMPILE,
    )
    root: str | None = compiled.spec.get("defaultPipelineRoot")
    return compiled.spec["pipelineInfo"]["name"], parameters, root


def submit(
    config: SubmitConfig,
    console: Console,
    environ: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Submitted:
    """Uploads a pipeline as a new version, runs it, and waits for its end if `wait` is set.

    Args:
        config: Flags.
        console: Where progress is printed.
        environ: Environment variables.
        sleep: Waits for some seconds.
        clock: The time in seconds, for the timeout.

    Raises:
        UserError: The file is not what `plateau compile` writes, the server cannot be reached or
            refuses, or the timeout is over.
        OSError: A file cannot be read.
    """
    compiled_name, defaults, root = read(config.file)
    token = partial(kfp_client.read_token, config.token_file, environ)
    token()
    server = kfp_client.Server(config.host, token, config.ca_cert)
    _check_namespace(server, config.namespace)
    experiment = server.find_or_create(
        "experiments", "experiment_id", config.experiment, config.namespace
    )
    require(
        experiment.get("storage_state") != "ARCHIVED",
        "`experiment` must not be archived, where runs are hidden",
        config.experiment,
        "Restore it in the web page, or name another with `experiment`.",
    )
    name = config.name or compiled_name
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
    if config.cron is not None:
        submitted = _schedule(server, config, run)
        _say(console, "schedule", submitted.address)
        return submitted
    run_id = server.create("runs", "run_id", **run)["run_id"]
    submitted = Submitted(run_id, f"{server.host}/#/runs/details/{run_id}")
    _say(console, "run", submitted.address)
    if not config.wait:
        return submitted
    server.retries = kfp_client.PATIENT_RETRIES
    try:
        ended = _wait(server, run_id, config.timeout, console, sleep, clock)
        for problem in _problems(ended) if ended["state"] != "SUCCEEDED" else ():
            _say(console, "failed", kfp_client.clean(problem, token()), "red")
    except UserError as error:
        remedy = f"{error.remedy} The run continues: {submitted.address}"
        raise UserError(error.rule, error.value, remedy) from None
    return submitted._replace(state=ended["state"])


def _check_namespace(server: kfp_client.Server, namespace: str | None) -> None:
    multi_user = server.get("healthz", "multi_user")["multi_user"]
    require(
        namespace is not None or not multi_user,
        f"`namespace` must be given to {server.host}, which has many users",
        namespace,
        "Name yours with `namespace`.",
    )
    # Such a server would take a namespace and not heed it.
    require(
        namespace is None or multi_user,
        f"`namespace` must not be given to {server.host}, which has one user",
        namespace,
        "Leave `namespace` out.",
    )


def _schedule(server: kfp_client.Server, config: SubmitConfig, run: dict[str, Any]) -> Submitted:
    """Creates a recurring run."""
    identity = server.create(
        "recurringruns",
        "recurring_run_id",
        **run,
        trigger={"cron_schedule": {"cron": config.cron}},
        mode="ENABLE",
        max_concurrency=1,
        no_catchup=not config.catchup,
    )["recurring_run_id"]
    return Submitted(identity, f"{server.host}/#/recurringrun/details/{identity}")


def _wait(
    server: kfp_client.Server,
    run_id: str,
    timeout: float | None,
    console: Console,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> dict[str, Any]:
    """Returns a run as the server describes it when it has ended."""
    began, last = clock(), None
    while True:
        run = server.get(f"runs/{run_id}", "run_id")
        state, passed = run.get("state"), clock() - began
        if state != last:
            last = state
            minutes, seconds = divmod(int(passed), 60)
            _say(console, "state", f"{str(state).lower()} after {minutes}:{seconds:02d}")
        if state in FINISHED:
            return run
        left = float("inf") if timeout is None else timeout * 60 - passed
        require(
            left > 0,
            f"the run must end within {timeout} minutes (`timeout`)",
            str(state).lower(),
            "Give it longer, or look at it.",
        )
        sleep(min(POLL_SECONDS, left))


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
