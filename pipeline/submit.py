"""A compiled pipeline submitted to a Kubeflow Pipelines server, and its run watched to the end."""

import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import tyro
from rich.console import Console
from rich.text import Text

from pipeline import compiled
from pipeline.kfp_client import RunRequest, Server, SubmitError
from trainer_module.checks import require

__all__ = ["SubmitConfig", "SubmitError", "Submitted", "default", "submit"]

TOKEN = "PLATEAU_KFP_TOKEN"
"""Environment variable that holds a token."""

POLL_SECONDS = 10.0
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""States of a run after which there is no other."""

_NAMED = ("data", "strategy", "patience", "max_epochs", "pushed")


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
        strategy: What a stall does; if not given, as compiled.
        patience: Evaluations in a row without improvement after which the schedule acts; if not
            given, as compiled.
        max_epochs: Most epochs to train; if not given, as compiled.
        pushed: Folder, as the cluster sees it, that receives the numbered versions of the model; if
            not given, as compiled.
        param: Another runtime parameter, as NAME=VALUE; lists and structs as JSON. May be repeated.
        root: Pipeline root, in place of the compiled one.
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
    strategy: Literal["lr_decay", "batch_increase", "hybrid", "auto"] | None = None
    patience: int | None = None
    max_epochs: int | None = None
    pushed: str | None = None
    param: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    root: str | None = None
    cron: str | None = None
    catchup: bool = False
    wait: bool = False
    timeout: float | None = None
    token_file: Path | None = None
    ca_cert: Path | None = None
    service_account: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the file and the server."""
        # The defaults of the command line have no host: see `default`.
        if isinstance(self.host, str):
            _check_host(self.host)
        for field in ("name", "version", "experiment", "namespace", "root", "service_account"):
            value = getattr(self, field)
            require(
                value is None or bool(value.strip()),
                f"{field} must not be empty",
                value,
                "Leave it out to have the default.",
            )
        for field in ("patience", "max_epochs"):
            value = getattr(self, field)
            require(
                value is None or value >= 1,
                f"{field} must be at least 1",
                value,
                f"Try --{field.replace('_', '-')} 5.",
            )
        for item in self.param:
            name, equals, _ = item.partition("=")
            require(
                bool(equals) and bool(name), "param must be NAME=VALUE", item, "Try --param a=1."
            )
            require(
                name not in _NAMED,
                "param must name a parameter that has no flag of its own",
                item,
                f"Use --{name.replace('_', '-')}.",
            )
        names = [item.partition("=")[0] for item in self.param]
        require(
            len(set(names)) == len(names),
            "param must give each parameter once",
            names,
            "Leave one out.",
        )
        if self.cron is not None:
            _check_cron(self.cron)
        require(
            self.cron is None or not self.wait,
            "wait must be left out with --cron, whose runs have no end",
            True,
            "Look at the runs in the web page.",
        )
        require(
            self.cron is not None or not self.catchup,
            "catchup must come with a schedule",
            True,
            "Add --cron.",
        )
        require(
            self.timeout is None or self.wait,
            "timeout must come with --wait",
            self.timeout,
            "Add --wait.",
        )
        require(
            self.timeout is None or 0 < self.timeout < float("inf"),
            "timeout must be a positive number of minutes",
            self.timeout,
            "Try --timeout 60.",
        )
        for field in ("token_file", "ca_cert"):
            value = getattr(self, field)
            require(
                value is None or value.is_file(),
                f"{field} must be a file",
                str(value),
                "Check the path.",
            )

    def given(self) -> dict[str, str]:
        """The runtime parameters that flags give, as text by name."""
        named = {name: getattr(self, name) for name in _NAMED}
        found = {name: str(value) for name, value in named.items() if value is not None}
        for item in self.param:
            name, _, value = item.partition("=")
            found[name] = value
        return found


@dataclass(frozen=True)
class Submitted:
    """What a submission came to.

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
    """The values of the flags that are not given; FILE and --host always have to be."""
    missing: Any = tyro.MISSING
    return SubmitConfig(file=missing, host=missing)


def submit(
    config: SubmitConfig,
    console: Console,
    environ: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Submitted:
    """Upload a pipeline as a new version, run it, and wait for the end if asked to.

    Everything that can be wrong with the file and the values is found before anything is sent, and
    everything that the server can be asked is asked before anything is made there.

    Args:
        config: What to submit, and where to.
        console: Where to say what is done.
        environ: Environment variables.
        sleep: Waits for some seconds.
        clock: The time in seconds, for the timeout.

    Returns:
        The run.

    Raises:
        ValueError: The file, or a value for its parameters, or the token's form.
        OSError: A file cannot be read.
        SubmitError: The server cannot be reached, or refuses, or the timeout is over.
    """
    pipeline = compiled.read(config.file)
    values = compiled.values(pipeline, config.given())
    token = _token(config, environ)
    for note in _notes(config, bool(token())):
        _say(console, "note", note, "yellow")

    server = Server(config.host.rstrip("/"), token, config.ca_cert, sleep)
    _check_namespace(config, server.multi_user())
    name = config.name or pipeline.name
    pipeline_id = server.pipeline(name, config.namespace)
    experiment_id = server.experiment(config.experiment, config.namespace)

    new = pipeline_id is None
    pipeline_id = pipeline_id or server.create_pipeline(name, config.namespace)
    version = config.version or f"{name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    version_id = server.upload(config.file, pipeline_id, version)
    _say(console, "pipeline", f"{name}{' (new)' if new else ''}, version {version}")
    if experiment_id is None:
        experiment_id = server.create_experiment(config.experiment, config.namespace)
        _say(console, "experiment", f"{config.experiment} (new)")
    request = RunRequest(
        version, experiment_id, pipeline_id, version_id, config.root, config.service_account
    )
    made = server.create_run(request, values, config.cron, config.catchup)
    page = "runs" if config.cron is None else "recurringrun"
    submitted = Submitted(made, f"{config.host.rstrip('/')}/#/{page}/details/{made}")
    _say(console, "run" if config.cron is None else "schedule", submitted.address)
    return _wait(config, server, submitted, console, sleep, clock) if config.wait else submitted


def _wait(
    config: SubmitConfig,
    server: Server,
    submitted: Submitted,
    console: Console,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Submitted:
    began, shown = clock(), None
    goes_on = f"The run goes on: {submitted.address}"
    while True:
        try:
            run = server.run(submitted.id)
        except SubmitError as error:
            raise SubmitError(f"{error} {goes_on}") from None
        passed = clock() - began
        if run.state != shown:
            shown = run.state
            minutes, seconds = divmod(int(passed), 60)
            _say(console, "state", f"{shown.lower()} after {minutes}:{seconds:02d}")
        if run.state in FINISHED:
            for problem in run.problems if run.state != "SUCCEEDED" else ():
                _say(console, "failed", problem, "red")
            return Submitted(submitted.id, submitted.address, run.state)
        left = float("inf") if config.timeout is None else config.timeout * 60 - passed
        if left <= 0:
            raise SubmitError(
                f"the run must end within --timeout {config.timeout:g} minutes, got "
                f"{run.state.lower()}. {goes_on}"
            )
        sleep(min(POLL_SECONDS, left))


def _token(config: SubmitConfig, environ: Mapping[str, str]) -> Callable[[], str]:
    """Where the token comes from: the file, or else the environment, or else nowhere."""
    file = config.token_file
    if file is None:
        fixed = environ.get(TOKEN, "")
        return lambda: _checked(fixed, TOKEN) if fixed else ""

    def from_file() -> str:
        try:
            text = file.read_bytes().decode("ascii", "replace")
        except OSError as error:
            raise SubmitError(
                f"--token-file must be readable, got {error.strerror} for {file}. "
                "Check its path and permissions."
            ) from None
        return _checked(text, f"--token-file {file}")

    return from_file


def _checked(text: str, source: str) -> str:
    """A token fit for a header; an error never shows it."""
    token = text.strip()
    if re.fullmatch(r"[!-~]+", token) is None:
        raise SubmitError(
            f"a token must be one word of ASCII characters, got something else from {source}. "
            "Put nothing there but the token, without the word Bearer."
        )
    return token


def _notes(config: SubmitConfig, has_token: bool) -> list[str]:
    notes = []
    if config.token_file is not None and config.token_file.stat().st_mode & (
        stat.S_IRGRP | stat.S_IROTH
    ):
        notes.append(
            f"other users of this machine can read {config.token_file}. "
            f"Keep it to yourself: chmod 600 {config.token_file}"
        )
    host = urlsplit(config.host)
    local = host.hostname in ("localhost", "::1") or (host.hostname or "").startswith("127.")
    if has_token and host.scheme == "http" and not local:
        notes.append(
            f"the token travels unencrypted to {config.host}. Use https if the server has it."
        )
    return notes


def _check_host(host: str) -> None:
    try:
        parts = urlsplit(host)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, named = urlsplit(""), False
    if "@" in parts.netloc:
        raise ValueError(
            "host must be an address without a user or a password. "
            f"Put a token in {TOKEN} or in a file for --token-file."
        )
    require(
        parts.scheme in ("http", "https") and named and re.search(r"\s", host) is None,
        "host must be an address that begins with http:// or https://",
        host,
        "Try --host http://localhost:8080.",
    )
    require(
        not parts.query and not parts.fragment,
        "host must be the server's address, without what follows ? or #",
        host,
        f"Try --host {host.partition('#')[0].partition('?')[0].rstrip('/')}.",
    )


def _check_cron(cron: str) -> None:
    fields = cron.split()
    # With five fields the server takes the minutes for seconds.
    require(
        len(fields) != 5,
        "cron must have six fields, the first one seconds",
        cron,
        f"Try --cron '0 {' '.join(fields)}'.",
    )
    require(
        len(fields) == 6 or re.fullmatch(r"@(\w+|every \S+)", cron.strip()) is not None,
        "cron must have six fields, the first one seconds, or be a word such as @daily",
        cron,
        "Try --cron '0 30 3 * * *'.",
    )


def _check_namespace(config: SubmitConfig, multi_user: bool) -> None:
    if multi_user and config.namespace is None:
        raise SubmitError(
            f"{config.host} has many users and must be given a namespace, got none. "
            "Name yours with --namespace."
        )
    if config.namespace is not None and not multi_user:
        raise SubmitError(
            f"--namespace is for a server of many users, got {config.namespace!r} and "
            f"{config.host}, which has no namespaces. Leave it out."
        )


def _say(console: Console, label: str, text: str, style: str = "") -> None:
    # An address that is broken over lines cannot be followed.
    console.print(Text.assemble((f"{label:<11}", style), text), soft_wrap=True)
