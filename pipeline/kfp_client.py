"""A Kubeflow Pipelines server: the few calls that submitting needs, and errors a person can act on.

The calls go through the REST API that the kfp client is generated from, not through kfp.Client:
that one takes five seconds to import, never times out, follows redirects into login pages, prints,
and reads settings of its own from the home folder and the environment.
"""

import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.compiled import Value

if TYPE_CHECKING:
    from tenacity import Retrying

CONNECT_SECONDS, READ_SECONDS, UPLOAD_SECONDS = 10, 60, 300
ATTEMPTS = 4
"""How often a question is asked before the answer is given up: 3.5 seconds of waiting in all."""

PATIENT_ATTEMPTS = 10
"""The same while a run is waited for: three minutes, in which a server can be replaced."""

_EQUALS = 1
_SHOWN = 300


class SubmitError(RuntimeError):
    """A pipeline cannot be submitted, or its run cannot be watched."""


class _CallError(SubmitError):
    """A call that failed.

    Attributes:
        status: The HTTP status; 0 if there was no answer.
        transient: Whether asking again may help.
        sent: Whether the server may have done what it was asked to.
    """

    def __init__(
        self, message: str, status: int = 0, *, transient: bool = False, sent: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.transient, self.sent = status, transient, sent


@dataclass(frozen=True)
class Run:
    """A run as the server sees it.

    Attributes:
        state: State in the words of the API, such as RUNNING.
        problems: What went wrong, a line for each task that failed.
    """

    state: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunRequest:
    """A run to create.

    Attributes:
        name: Name of the run.
        experiment: Id of its experiment.
        pipeline: Id of the pipeline.
        version: Id of the pipeline's version.
        root: Pipeline root instead of the compiled one.
        service_account: Kubernetes service account to run as.
    """

    name: str
    experiment: str
    pipeline: str
    version: str
    root: str | None = None
    service_account: str | None = None


class Server:
    """A Kubeflow Pipelines server.

    Args:
        host: Its address, with scheme and without a slash at the end.
        token: Gives the bearer token, each time anew; empty if there is none.
        ca_cert: Certificates to trust instead of the usual ones.
        sleep: Waits for some seconds.

    Raises:
        SubmitError: By every method: the call failed, with the reason and the remedy.
    """

    def __init__(
        self,
        host: str,
        token: Callable[[], str],
        ca_cert: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import kfp_server_api as api

        def authorize(configuration: Any) -> None:
            configuration.api_key["authorization"] = token()

        configuration = api.Configuration(host=host)
        # A newer server may use words that this client does not know.
        configuration.client_side_validation = False
        if token():
            authorize(configuration)
            configuration.api_key_prefix["authorization"] = "Bearer"
            # Tokens last an hour and are renewed in their file; runs last longer.
            configuration.refresh_api_key_hook = authorize
        client = api.ApiClient(configuration)
        client.rest_client.pool_manager = _Transport(host, token, ca_cert)
        self._api, self._client, self._token, self._sleep = api, client, token, sleep

    def multi_user(self) -> bool:
        """Whether users have namespaces; fails where there is no Kubeflow Pipelines."""
        call = self._api.HealthzServiceApi(self._client).get_healthz
        return bool(self._read(call).multi_user)

    def pipeline(self, name: str, namespace: str | None) -> str | None:
        """The id of a pipeline; None if there is none of that name."""
        call = self._api.PipelineServiceApi(self._client).get_pipeline_by_name
        try:
            found = self._read(call, name=name, namespace=namespace)
        except _CallError as error:
            if error.status == 404:
                return None
            raise
        return _id(found.pipeline_id, "pipeline")

    def create_pipeline(self, name: str, namespace: str | None) -> str:
        """Create a pipeline without a version; the id of the one there if another was faster."""
        body = self._api.V2beta1Pipeline(display_name=name, namespace=namespace)
        call = self._api.PipelineServiceApi(self._client).create_pipeline
        try:
            return _id(self._write(call, body=body).pipeline_id, "pipeline")
        except _CallError as error:
            found = self.pipeline(name, namespace) if error.status == 409 else None
            if found is None:
                raise
            return found

    def upload(self, file: Path, pipeline: str, version: str) -> str:
        """Upload a file as a new version of a pipeline; the id of the version."""
        call = self._api.PipelineUploadServiceApi(self._client).upload_pipeline_version
        try:
            made = self._write(
                call, UPLOAD_SECONDS, uploadfile=str(file), name=version, pipelineid=pipeline
            )
        except _CallError as error:
            if error.status == 409:
                raise SubmitError(
                    f"version must be new to the pipeline, got {version!r}, which is there "
                    "already. Name another with --version."
                ) from None
            raise
        return _id(made.pipeline_version_id, "pipeline version")

    def experiment(self, name: str, namespace: str | None) -> str | None:
        """The id of an experiment; None if there is none of that name."""
        wanted = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
        call = self._api.ExperimentServiceApi(self._client).list_experiments
        found = self._read(call, filter=json.dumps({"predicates": [wanted]}), namespace=namespace)
        if not found.experiments:
            return None
        if found.experiments[0].storage_state == "ARCHIVED":
            raise SubmitError(
                f"experiment must not be archived, got {name!r}, which is. Restore it in the "
                "web page, or name another with --experiment."
            )
        return _id(found.experiments[0].experiment_id, "experiment")

    def create_experiment(self, name: str, namespace: str | None) -> str:
        """Create an experiment; the id of the one there if another was faster."""
        body = self._api.V2beta1Experiment(display_name=name, namespace=namespace)
        call = self._api.ExperimentServiceApi(self._client).create_experiment
        try:
            return _id(self._write(call, body=body).experiment_id, "experiment")
        except _CallError as error:
            found = self.experiment(name, namespace) if error.status == 409 else None
            if found is None:
                raise
            return found

    def create_run(
        self, what: RunRequest, values: Mapping[str, Value], cron: str | None, catchup: bool
    ) -> str:
        """Create a run, or a recurring one if there is a schedule; its id.

        It is never tried a second time: the answer may be lost when the run is there.

        Args:
            what: What to run.
            values: Value of every runtime parameter.
            cron: Schedule of a recurring run; None for one run at once.
            catchup: Whether a recurring run makes up for what it missed.
        """
        api, kind = self._api, "run" if cron is None else "recurring run"
        fields: dict[str, Any] = {
            "display_name": what.name,
            "experiment_id": what.experiment,
            "pipeline_version_reference": api.V2beta1PipelineVersionReference(
                pipeline_id=what.pipeline, pipeline_version_id=what.version
            ),
            "runtime_config": api.V2beta1RuntimeConfig(
                parameters=dict(values), pipeline_root=what.root
            ),
            "service_account": what.service_account,
        }
        try:
            if cron is None:
                body = api.V2beta1Run(**fields)
                made = self._write(api.RunServiceApi(self._client).create_run, body=body)
                return _id(made.run_id, kind)
            body = api.V2beta1RecurringRun(
                **fields,
                mode="ENABLE",
                max_concurrency="1",
                no_catchup=not catchup,
                trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron)),
            )
            recurring = api.RecurringRunServiceApi(self._client)
            made = self._write(recurring.create_recurring_run, body=body)
            return _id(made.recurring_run_id, kind)
        except _CallError as error:
            if error.sent:
                raise SubmitError(
                    f"{error} The {kind} {what.name!r} may be there all the same: look before you "
                    "submit again."
                ) from None
            raise

    def run(self, identity: str) -> Run:
        """What a run is doing."""
        call = self._api.RunServiceApi(self._client).get_run
        found = self._read(call, attempts=PATIENT_ATTEMPTS, run_id=identity)
        problems = []
        if found.error is not None and found.error.message:
            problems.append(_clean(found.error.message, self._token()))
        details = found.run_details.task_details if found.run_details else None
        for task in details or ():
            # The root fails whenever a task does.
            if task.state == "FAILED" and task.display_name not in (None, "root"):
                said = _clean(task.error.message, self._token()) if task.error else ""
                problems.append(f"{task.display_name}: {said}" if said else task.display_name)
        return Run(str(found.state or "PENDING"), tuple(dict.fromkeys(problems)))

    def _read(self, call: Callable[..., Any], attempts: int = ATTEMPTS, **arguments: Any) -> Any:
        return _retrying(attempts, self._sleep)(self._call, call, READ_SECONDS, arguments)

    def _write(
        self, call: Callable[..., Any], seconds: int = READ_SECONDS, **arguments: Any
    ) -> Any:
        return self._call(call, seconds, arguments)

    def _call(self, call: Callable[..., Any], seconds: int, arguments: dict[str, Any]) -> Any:
        try:
            return call(**arguments, _request_timeout=(CONNECT_SECONDS, seconds))
        except (self._api.OpenApiException, ValueError, TypeError, AttributeError):
            # What these say may quote the whole answer.
            raise _CallError(
                "the server must answer as Kubeflow Pipelines does, got something else. Its "
                "version may be too new, or --host may name another service.",
                sent=True,
            ) from None


class _Transport:
    """What the generated client sends requests through.

    Every answer that is no success becomes a sentence here, where nothing of the request is known
    that could slip into it.
    """

    def __init__(self, host: str, token: Callable[[], str], ca_cert: Path | None) -> None:
        import certifi
        import urllib3

        self._host, self._token = host, token
        self._errors = urllib3.exceptions
        trusted = str(ca_cert) if ca_cert is not None else certifi.where()
        self._pool = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=trusted)

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Send a request once, and return a successful answer in JSON."""
        try:
            answer = self._pool.request(method, url, redirect=False, retries=False, **options)
        except self._errors.HTTPError as error:
            raise self._unreachable(error) from None
        if 300 <= answer.status < 400:
            raise self._redirected(answer.headers.get("Location", ""))
        content = answer.headers.get("Content-Type", "").lower()
        if answer.status < 300 and "html" in content:
            raise _CallError(
                f"{self._host} must answer as Kubeflow Pipelines does, got a web page, such as "
                f"that of a login. {self._login()}"
            )
        if answer.status >= 300:
            raise self._refused(answer.status, "" if "html" in content else _said(answer.data))
        try:
            json.loads(answer.data)
        except ValueError:
            raise _CallError(
                f"{self._host} must answer as Kubeflow Pipelines does, got no JSON. "
                "Check --host: it may name another service.",
                sent=True,
            ) from None
        return answer

    def _unreachable(self, error: Exception) -> _CallError:
        errors, host = self._errors, self._host
        reason = str(error)
        if isinstance(error, errors.SSLError):
            if "WRONG_VERSION_NUMBER" in reason:
                return _CallError(
                    f"{host} must speak TLS, got plain HTTP. "
                    f"Try --host {host.replace('https://', 'http://', 1)}."
                )
            return _CallError(
                f"the certificate of {host} must be one that is trusted, got "
                f"{_clean(reason, self._token())!r}. Name the authority's certificates with "
                "--ca-cert FILE."
            )
        forward = (
            "Check --host, and that the server is reachable from here; into a cluster leads: "
            "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
        )
        if isinstance(error, errors.ConnectTimeoutError) and not isinstance(
            error, errors.NewConnectionError
        ):
            return _CallError(
                f"{host} must answer, got no connection in {CONNECT_SECONDS} seconds. {forward}",
                transient=True,
            )
        if isinstance(error, errors.NewConnectionError):
            got = "no connection"
            if isinstance(error.__context__, socket.gaierror):
                got = "a name that is not known"
            elif isinstance(error.__context__, ConnectionRefusedError):
                got = "a refused connection"
            return _CallError(f"{host} must be reachable, got {got}. {forward}", transient=True)
        if isinstance(error, errors.TimeoutError):
            return _CallError(
                f"{host} must answer in time, got nothing. Try again later.",
                transient=True,
                sent=True,
            )
        return _CallError(
            f"{host} must answer, got a connection that broke off. Try again; where the server "
            "speaks TLS, --host begins with https://.",
            transient=True,
            sent=True,
        )

    def _redirected(self, location: str) -> _CallError:
        here, there = urlsplit(self._host), urlsplit(location)
        if (here.scheme, there.scheme) == ("http", "https") and here.hostname == there.hostname:
            other = self._host.replace("http://", "https://", 1)
            return _CallError(
                f"{self._host} must be the server's own address, got a redirect to https. "
                f"Try --host {other}."
            )
        return _CallError(
            f"{self._host} must answer as Kubeflow Pipelines does, got a redirect, such as to a "
            f"login. {self._login()}"
        )

    def _login(self) -> str:
        if self._token():
            return (
                "It does not take the token: use a new one, made for this server, or a --host "
                "behind the login, such as a forwarded port."
            )
        return (
            "Give a token in PLATEAU_KFP_TOKEN or with --token-file, or a --host behind the "
            "login, such as a forwarded port."
        )

    def _refused(self, status: int, said: str) -> _CallError:
        host, said = self._host, _clean(said, self._token())
        server = f" The server says: {said}" if said else ""
        if status == 401:
            if self._token():
                rule, remedy = "must take the token", "It may have expired: use a new one."
            else:
                rule = "must be asked with a token"
                remedy = "Give it in PLATEAU_KFP_TOKEN or with --token-file."
        elif status == 403:
            rule = "must allow this"
            remedy = (
                "Name a namespace of yours with --namespace, or have the owner of the token be "
                "given the right to create runs there."
            )
        elif status == 404:
            rule = "must have what is asked for"
            remedy = (
                "Check --host: it may need a path, such as /pipeline, or the server may be older "
                "than Kubeflow Pipelines 2.0."
            )
        elif status == 409:
            rule, remedy = "must not have it already", "Choose another name."
        elif status == 429:
            rule, remedy = "must have time for this", "Try again later."
        elif status >= 500:
            rule = "must be in order"
            remedy = "Try again later, or look at the log of its ml-pipeline pod."
        else:
            rule, remedy = "must take the request", "Look at what it says."
        return _CallError(
            f"{host} {rule}, got HTTP status {status}. {remedy}{server}",
            status,
            transient=status == 429 or status >= 500,
            sent=status >= 500,
        )


def _retrying(attempts: int, sleep: Callable[[float], None]) -> "Retrying":
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    return Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential(multiplier=0.5, max=60),
        retry=retry_if_exception(lambda error: isinstance(error, _CallError) and error.transient),
        sleep=sleep,
        reraise=True,
    )


def _id(value: Any, what: str) -> str:
    if not value:
        raise _CallError(
            f"the server must answer with the id of a {what}, got none. Check --host: it may name "
            "another service.",
            sent=True,
        )
    return str(value)


def _said(body: bytes) -> str:
    """What the server says of an error."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
    if isinstance(answer, dict):
        return str(answer.get("message") or answer.get("error") or "")
    return ""


def _clean(text: str, token: str) -> str:
    """A text of the server on one line, without the token should it be quoted there."""
    if token:
        text = text.replace(token, "(token)")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]} ..."
