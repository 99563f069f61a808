"""Submits a compiled pipeline to a Kubeflow Pipelines server, and waits for its run."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import tyro
from rich.console import Console
from rich.text import Text

from trainer_module.schedule.strategy import StrategyName
from trainer_module.util.checks import require

from . import kfp_client, kubeflow_checks
from .kfp_client import SubmitError, call

__all__ = ["SubmitConfig", "SubmitError", "Submitted", "default", "submit"]

POLL_SECONDS = 10.0
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""States of a run after which there is no other; the client's own wait does not know CANCELED."""

_PARAMETERS = ("data", "strategy", "patience", "max_epochs", "pushed")
_HOST = re.compile(r"https?://(\[[\da-fA-F:]+\]|[\w.-]+)(:\d{1,5})?(/[^\s?#@]*)?")
_WRITE_ONE = "Write one with `plateau compile --target kfp`."


@dataclass(frozen=True)
class SubmitConfig:
    """What `plateau submit` needs to know.

    Attributes:
        file: Pipeline that `plateau compile` wrote.
        host: Address of the Kubeflow Pipelines server, such as http://localhost:8080. A token for
            it is taken from the environment variable PLATEAU_KFP_TOKEN or from --token-file.
        name: Name of the pipeline on the server; if not given, the one in the file.
        version: Name of the version and of the run; if not given, the name and the time in UTC.
        experiment: Experiment to put the run in; it is created if it is not there.
        namespace: Kubernetes namespace of the run, on a server of many users.
        data: Folder of the data as the cluster sees it; if not given, as compiled.
        strategy: What happens at a plateau; if not given, as compiled.
        patience: Evaluations in a row without improvement after which the schedule acts; if not
            given, as compiled.
        max_epochs: Most epochs to train; if not given, as compiled.
        pushed: Folder, as the cluster sees it, that receives the numbered versions of the model; if
            not given, as compiled.
        root: Pipeline root; if not given, as compiled, or else the server's own.
        cron: Run again and again by a schedule of six fields, the first one seconds: '0 30 3 * * *'
            is half past three each night, in the time zone of the server, as a rule UTC.
        catchup: Make up for the runs that a paused schedule has missed.
        wait: Wait for the end of the run.
        timeout: Most minutes to wait; if not given, as long as the run takes.
        token_file: File that holds a token; it is read anew for each request.
        ca_cert: File with the certificates to trust, for a server with a private authority.
        service_account: Kubernetes service account to run as.
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    host: str
    name: str | None = None
    version: str | None = None
    experiment: str = "plateau"
    namespace: str | None = None
    data: str | None = None
    strategy: StrategyName | None = None
    patience: int | None = None
    max_epochs: int | None = None
    pushed: str | None = None
    root: str | None = None
    cron: str | None = None
    catchup: bool = False
    wait: bool = False
    timeout: float | None = None
    token_file: Path | None = None
    ca_cert: Path | None = None
    service_account: str | None = None

    def __post_init__(self) -> None:
        """Checks what can be checked without the file and the server."""
        # The defaults of the command line have no host: see `default`.
        if isinstance(self.host, str):
            require(
                _HOST.fullmatch(self.host) is not None,
                "host must be http:// or https:// and a name, without a user, ? or #",
                # A password is not shown.
                self.host.rpartition("@")[2],
                "Try --host http://localhost:8080.",
            )
        for field in ("name", "version", "experiment", "namespace", "root", "service_account"):
            value = getattr(self, field)
            require(
                value is None or bool(value.strip()),
                f"{field} must not be empty",
                value,
                "Leave it out to have the default.",
            )
        for field in ("patience", "max_epochs", "timeout"):
            value = getattr(self, field)
            require(
                value is None or 0 < value < float("inf"),
                f"{field} must be above 0",
                value,
                f"Try --{field.replace('_', '-')} 5.",
            )
        for field in ("token_file", "ca_cert"):
            value = getattr(self, field)
            require(
                value is None or value.is_file(),
                f"{field} must be a file",
                str(value),
                "Check the path.",
            )
        # The server takes the minutes of five fields for seconds.
        require(
            self.cron is None or self.cron.startswith("@") or len(self.cron.split()) == 6,
            "cron must have six fields, the first one seconds, or be a word such as @daily",
            self.cron,
            "Try --cron '0 30 3 * * *'.",
        )
        require(
            not (self.cron and self.wait),
            "wait must be left out with --cron, whose runs have no end",
            self.wait,
            "Look at the runs in the web page.",
        )
        for field, other in (("catchup", "cron"), ("timeout", "wait")):
            value = getattr(self, field)
            require(
                not value or bool(getattr(self, other)),
                f"{field} must come with --{other}",
                value,
                f"Add --{other}.",
            )


class Submitted(NamedTuple):
    """The result of a submission.

    Attributes:
        id: Id of the run, or of the recurring run if there is a schedule.
        address: Web page of the run.
        state: State of the run at its end, such as SUCCEEDED; None if it was not waited for.
    """

    id: str
    address: str
    state: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is known to have gone wrong."""
        return self.state in (None, "SUCCEEDED")


def default() -> SubmitConfig:
    """Returns the values of the flags that are not given; FILE and --host always have to be."""
    missing: Any = tyro.MISSING
    return SubmitConfig(file=missing, host=missing)


def read(path: Path) -> tuple[str, dict[str, Any], str | None]:
    """Reads a pipeline that `plateau compile` wrote for Kubeflow Pipelines.

    Returns:
        Its name, the default of each parameter of a run, and its root if it was compiled with one.

    Raises:
        ValueError: The file holds something else.
        OSError: The file cannot be read.
    """
    compiled = kubeflow_checks.load(path)
    require(
        compiled.target == "kfp",
        "FILE must be compiled for Kubeflow Pipelines",
        str(path),
        f"Submit one for Vertex AI with aiplatform.PipelineJob(...).submit(). {_WRITE_ONE}",
    )
    # The server knows the format by the name.
    require(path.suffix in (".yaml", ".yml"), "FILE must end with .yaml", path.name, "Rename it.")
    parameters = {name: p.get("defaultValue") for name, p in compiled.parameters.items()}
    require(
        set(parameters) == set(_PARAMETERS) and None not in parameters.values(),
        f"FILE must have the parameters {', '.join(_PARAMETERS)}, each with a default",
        parameters,
        _WRITE_ONE,
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
    """Uploads a pipeline as a new version, runs it, and waits for the end if asked to.

    Args:
        config: What to submit, and where to.
        console: Where to say what is done.
        environ: Environment variables.
        sleep: Waits for some seconds.
        clock: The time in seconds, for the timeout.

    Raises:
        ValueError: The file is not what `plateau compile` writes.
        OSError: A file cannot be read.
        SubmitError: The server cannot be reached, or refuses, or the timeout is over.
    """
    compiled_name, parameters, root = read(config.file)
    token = partial(kfp_client.read_token, config.token_file, environ)
    token()
    host = config.host.rstrip("/")
    client, transport = kfp_client.connect(host, token, config.ca_cert)
    multi_user = call(client.get_kfp_healthz, "multi_user").multi_user
    require(
        config.namespace is not None or not multi_user,
        f"namespace must be given to {host}, which has many users",
        config.namespace,
        "Name yours with --namespace.",
    )
    # Such a server would take a namespace and not heed it.
    require(
        config.namespace is None or multi_user,
        f"namespace must not be given to {host}, which has one user",
        config.namespace,
        "Leave it out.",
    )
    experiment = call(
        client.create_experiment,
        "experiment_id",
        name=config.experiment,
        namespace=config.namespace,
    )
    require(
        experiment.storage_state != "ARCHIVED",
        "experiment must not be archived, where runs are hidden",
        config.experiment,
        "Restore it in the web page, or name another with --experiment.",
    )
    name = config.name or compiled_name
    version = config.version or f"{name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    pipeline_id = _pipeline_id(client, name, config.namespace)
    uploaded = call(
        client.upload_pipeline_version,
        "pipeline_version_id",
        pipeline_package_path=str(config.file),
        pipeline_version_name=version,
        pipeline_id=pipeline_id,
    )
    _say(console, "pipeline", f"{name}, version {version}")
    flags = {flag: getattr(config, flag) for flag in _PARAMETERS}
    run = {
        "experiment_id": experiment.experiment_id,
        "job_name": version,
        "pipeline_id": pipeline_id,
        "version_id": uploaded.pipeline_version_id,
        # With the defaults, so that the run's page shows every value.
        "params": parameters | {flag: value for flag, value in flags.items() if value is not None},
        # No server takes it from the file.
        "pipeline_root": config.root or root,
        "service_account": config.service_account,
    }
    if config.cron is None:
        made = call(client.run_pipeline, "run_id", **run)
        submitted = Submitted(made.run_id, f"{host}/#/runs/details/{made.run_id}")
    else:
        run |= {"cron_expression": config.cron, "no_catchup": not config.catchup}
        made = call(client.create_recurring_run, "recurring_run_id", **run)
        identity = made.recurring_run_id
        submitted = Submitted(identity, f"{host}/#/recurringrun/details/{identity}")
    _say(console, "run" if config.cron is None else "schedule", submitted.address)
    if not config.wait:
        return submitted
    transport.retries = kfp_client.PATIENT_RETRIES
    try:
        ended = _wait(client, submitted.id, config.timeout, console, sleep, clock)
    except SubmitError as error:
        raise SubmitError(f"{error} The run goes on: {submitted.address}") from None
    for problem in _problems(ended) if ended.state != "SUCCEEDED" else ():
        _say(console, "failed", kfp_client.clean(problem, token()), "red")
    return submitted._replace(state=ended.state)


def _pipeline_id(client: Any, name: str, namespace: str | None) -> str:
    """Returns the id of a pipeline, which is created if it is not there."""
    equals = {"operation": "EQUALS", "key": "name", "string_value": name}
    # The server decodes it a second time.
    encoded = quote(json.dumps({"predicates": [equals]}))
    found = call(client.list_pipelines, filter=encoded, namespace=namespace).pipelines
    if found:
        return str(found[0].pipeline_id)
    body = client.api_models.V2beta1Pipeline(display_name=name, namespace=namespace)
    # The generated client put the service's name before its methods in 2.1.
    methods = vars(client.pipelines)
    create = methods.get("pipeline_service_create_pipeline") or methods["create_pipeline"]
    # Its argument was renamed too.
    return str(call(partial(create, body), "pipeline_id").pipeline_id)


def _wait(
    client: Any,
    run_id: str,
    timeout: float | None,
    console: Console,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Any:
    """Returns the run as the server knows it when it has ended."""
    began, shown = clock(), None
    while True:
        run = call(client.get_run, "run_id", run_id=run_id)
        passed = clock() - began
        if run.state != shown:
            shown = run.state
            minutes, seconds = divmod(int(passed), 60)
            _say(console, "state", f"{str(shown).lower()} after {minutes}:{seconds:02d}")
        if run.state in FINISHED:
            return run
        left = float("inf") if timeout is None else timeout * 60 - passed
        if left <= 0:
            raise SubmitError(
                f"the run must end within --timeout {timeout:g} minutes, got "
                f"{str(run.state).lower()}. Give it longer, or look at it."
            )
        sleep(min(POLL_SECONDS, left))


def _problems(run: Any) -> Iterator[str]:
    """Yields what went wrong in a run: of itself, and of each task that failed."""
    if run.error is not None and run.error.message:
        yield run.error.message
    details = run.run_details.task_details if run.run_details else None
    for task in details or ():
        # The root fails whenever a task does.
        if task.state == "FAILED" and task.display_name not in (None, "root"):
            told = task.error.message if task.error else ""
            yield f"{task.display_name}: {told}" if told else task.display_name


def _say(console: Console, label: str, text: str, style: str = "") -> None:
    # An address that is broken over lines cannot be followed.
    console.print(Text.assemble((f"{label:<11}", style), text), soft_wrap=True)
