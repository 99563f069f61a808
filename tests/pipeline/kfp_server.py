"""A Kubeflow Pipelines server that remembers every request: the part of its REST API in use here.

It keeps pipelines, experiments and runs as the real one does, refuses what the real one refuses
(backend/src/apiserver of release 2.17), and can be told to fail.
"""

import datetime
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

import yaml

API = "/apis/v2beta1/"
Answer = tuple[int, Any]


@dataclass(frozen=True)
class Recorded:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def upload(self) -> bytes:
        """The file in a multipart body."""
        boundary = self.headers["content-type"].partition("boundary=")[2].encode()
        for part in self.body.split(b"--" + boundary):
            head, _, content = part.partition(b"\r\n\r\n")
            if b'name="uploadfile"' in head:
                return content[: -len(b"\r\n")]
        raise AssertionError("no file in the upload")


@dataclass
class Fault:
    """What happens in place of an answer, or after the work is done.

    Attributes:
        method: Method of the requests it happens to.
        path: Pattern for the path after the API's prefix.
        status: Status of the answer.
        body: The answer.
        content: Its type.
        headers: More headers.
        times: How often it happens.
        drop: Break off the connection instead.
        hang: Seconds to say nothing first.
        after: Do what was asked all the same.
    """

    method: str
    path: str
    status: int = 500
    body: bytes = b"{}"
    content: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1_000_000
    drop: bool = False
    hang: float = 0
    after: bool = False


class KfpServer:
    """The server; as a context manager it listens on a free port of this machine.

    Attributes:
        multi_user: Whether users have namespaces.
        token: Bearer token that is asked for; empty for none.
        states: States that a run goes through, one for each time it is asked for.
        tasks: What the run says of its tasks.
        requests: What came in, in order.
        pipelines: Pipelines by id.
        versions: Pipeline versions by id, with the uploaded file.
        experiments: Experiments by id.
        runs: Runs by id.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.multi_user = False
        self.token = ""
        self.states = ["PENDING", "RUNNING", "SUCCEEDED"]
        self.tasks: list[dict[str, Any]] = []
        self.requests: list[Recorded] = []
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.faults: list[Fault] = []
        self._ids = 0
        server = self

        class Handler(_Handler):
            kfp = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            self._scheme = "https"

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "KfpServer":
        poll = 0.01
        threading.Thread(target=self._http.serve_forever, args=(poll,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fail(self, method: str, path: str, **how: Any) -> None:
        """Make some requests fail."""
        self.faults.append(Fault(method, path, **how))

    def asked(self, method: str, path: str) -> list[Recorded]:
        """The requests of a method whose path, after the prefix, is the pattern."""
        return [
            request
            for request in self.requests
            if request.method == method and re.fullmatch(API + path, request.path)
        ]

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.fullmatch(API + fault.path, path):
                fault.times -= 1
                return fault
        return None

    def answer(self, request: Recorded) -> Answer:
        """Do what is asked."""
        health = request.path == f"{API}healthz"
        authorized = request.headers.get("authorization") == f"Bearer {self.token}"
        if self.token and not authorized and not health:
            if "upload" in request.path:
                return _upload_refusal(400, "Failed to create a pipeline version")
            return _refusal(401, "Review.Status.Authenticated is false", code=16)
        routes: dict[tuple[str, str], Callable[..., Answer]] = {
            ("GET", "healthz"): lambda _: (200, {"multi_user": self.multi_user}),
            ("GET", "pipelines"): self._list_pipelines,
            ("POST", "pipelines"): self._create_pipeline,
            ("POST", "pipelines/upload"): self._upload,
            ("POST", "pipelines/upload_version"): self._upload_version,
            ("GET", "pipelines/([^/]+)/versions"): self._list_versions,
            ("GET", "experiments"): self._list_experiments,
            ("POST", "experiments"): self._create_experiment,
            ("POST", "runs"): self._create_run,
            ("GET", "runs/([^/]+)"): self._get_run,
        }
        for (method, pattern), act in routes.items():
            found = re.fullmatch(API + pattern, request.path)
            if method == request.method and found:
                return act(request, *map(unquote, found.groups()))
        if request.path.startswith("/apis/"):
            return _refusal(404, "Not Found", code=5)
        return 404, b"404 page not found"

    def _new(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}-{self._ids}"

    def _namespace(self, given: str | None) -> str:
        """A server of one user takes a namespace and does not heed it."""
        return (given or "") if self.multi_user else ""

    def _listed(self, request: Recorded, field: str) -> Answer:
        """What has the namespace and matches the filter; an empty field is left out."""
        # The gateway decodes the query, and the server the filter in it once more.
        text = unquote_plus(request.query.get("filter", "")) or "{}"
        space = self._namespace(request.query.get("namespace"))
        if self.multi_user and field == "experiments" and not space:
            return _refusal(400, "An experiment cannot have an empty namespace")
        names = {"name": "display_name"}
        found = [
            item
            for item in getattr(self, field).values()
            if item.get("namespace", "") == space
            and all(
                item[names.get(p["key"], p["key"])] == p.get("stringValue", p.get("string_value"))
                for p in json.loads(text).get("predicates", [])
            )
        ]
        return 200, {field: found} if found else {}

    def _list_pipelines(self, request: Recorded) -> Answer:
        return self._listed(request, "pipelines")

    def _create_pipeline(self, request: Recorded) -> Answer:
        name = request.json["display_name"]
        new = self._add_pipeline(name, request.json.get("namespace"))
        return (
            _refusal(409, f"The name {name} already exist", code=6) if new is None else (200, new)
        )

    def _add_pipeline(self, name: str, namespace: str | None) -> dict[str, Any] | None:
        space = self._namespace(namespace)
        taken = [(p["display_name"], p.get("namespace", "")) for p in self.pipelines.values()]
        if (name, space) in taken:
            return None
        new = {"pipeline_id": self._new("pipeline"), "display_name": name, "created_at": _now()}
        self.pipelines[new["pipeline_id"]] = {**new, "namespace": space} if space else new
        return new

    def _upload(self, request: Recorded) -> Answer:
        name = request.query["name"]
        new = self._add_pipeline(name, request.query.get("namespace"))
        if new is None:
            return _upload_refusal(409, "Failed to create a pipeline and a pipeline version")
        status, version = self._add_version(new["pipeline_id"], name, request.upload)
        return (200, new) if status == 200 else (status, version)

    def _upload_version(self, request: Recorded) -> Answer:
        return self._add_version(request.query["pipelineid"], request.query["name"], request.upload)

    def _add_version(self, pipeline: str, name: str, file: bytes) -> Answer:
        spec, *platforms = yaml.safe_load_all(file)
        if "pipelineInfo" not in spec or not spec["root"]["dag"]["tasks"]:
            return _upload_refusal(400, "invalid pipeline spec")
        if any(list(document) != ["platforms"] for document in platforms):
            return _upload_refusal(400, "invalid platform spec")
        if pipeline not in self.pipelines:
            return _upload_refusal(400, "Failed to create a pipeline version")
        mine = [v for v in self.versions.values() if v["pipeline_id"] == pipeline]
        if any(version["display_name"] == name for version in mine):
            return _upload_refusal(409, "Failed to create a pipeline version")
        new = {
            "pipeline_id": pipeline,
            "pipeline_version_id": self._new("version"),
            "display_name": name,
            "created_at": _now(),
            "pipeline_spec": spec,
        }
        self.versions[new["pipeline_version_id"]] = new
        return 200, new

    def _list_versions(self, _: Recorded, pipeline: str) -> Answer:
        mine = [v for v in self.versions.values() if v["pipeline_id"] == pipeline]
        return 200, {"pipeline_versions": mine}

    def _list_experiments(self, request: Recorded) -> Answer:
        return self._listed(request, "experiments")

    def _create_experiment(self, request: Recorded) -> Answer:
        name, space = request.json["display_name"], self._namespace(request.json.get("namespace"))
        if self.multi_user and not space:
            return _refusal(400, "An experiment cannot have an empty namespace")
        taken = [(e["display_name"], e.get("namespace", "")) for e in self.experiments.values()]
        if (name, space) in taken:
            return _refusal(409, f"The name {name} already exists", code=6)
        new = {
            "experiment_id": self._new("experiment"),
            "display_name": name,
            "storage_state": "AVAILABLE",
            "created_at": _now(),
        }
        self.experiments[new["experiment_id"]] = {**new, "namespace": space} if space else new
        return 200, new

    def _create_run(self, request: Recorded) -> Answer:
        refused = self._invalid(request.json)
        if refused is not None:
            return refused
        new = {"run_id": self._new("run"), "state": "PENDING", **request.json}
        self.runs[new["run_id"]] = new
        return 200, new

    def _invalid(self, run: dict[str, Any]) -> Answer | None:
        """Why a run cannot be."""
        if run["experiment_id"] not in self.experiments:
            return _refusal(404, "Experiment not found", code=5)
        spec = run.get("pipeline_spec")
        if spec is None:
            version = run["pipeline_version_reference"]["pipeline_version_id"]
            if version not in self.versions:
                return _refusal(404, "PipelineVersion not found", code=5)
            spec = self.versions[version]["pipeline_spec"]
        # A file with a platform document arrives in two parts.
        spec = spec.get("pipeline_spec", spec)
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        given = run.get("runtime_config", {}).get("parameters") or {}
        if unknown := set(given) - set(inputs):
            return _refusal(400, f"parameter(s) provided are not required: {sorted(unknown)}")
        for name, parameter in inputs.items():
            value = given.get(name, parameter.get("defaultValue"))
            kinds = {"STRING": str, "NUMBER_INTEGER": int | float}
            if not isinstance(value, kinds[parameter["parameterType"]]):
                return _refusal(400, f"input parameter {name} requires another type: {value!r}")
        return None

    def _get_run(self, _: Recorded, identity: str) -> Answer:
        if identity not in self.runs:
            return _refusal(404, f"Run {identity} not found", code=5)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return 200, {
            **self.runs[identity],
            "state": state,
            "run_details": {"task_details": self.tasks},
        }


class _Handler(BaseHTTPRequestHandler):
    kfp: KfpServer
    protocol_version = "HTTP/1.1"
    # Head and body are sent apart, and the body would wait for the head's receipt.
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        request = Recorded(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query)),
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        self.kfp.requests.append(request)
        fault = self.kfp.fault(request.method, request.path)
        if fault is None:
            status, answer = self.kfp.answer(request)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self._send(status, body, "application/json" if body is not answer else "text/plain")
            return
        if fault.after:
            self.kfp.answer(request)
        time.sleep(fault.hang)
        if fault.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(fault.status, fault.body, fault.content, fault.headers)

    def _send(
        self, status: int, body: bytes, content: str, headers: dict[str, str] | None = None
    ) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", content)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            # A client that gave up is what some tests are about.
            self.close_connection = True


def _refusal(status: int, message: str, code: int = 3) -> Answer:
    """What the gRPC gateway says."""
    return status, {"code": code, "message": message, "details": []}


def _upload_refusal(status: int, message: str) -> Answer:
    """What the upload says, which is not behind the gateway."""
    return status, {"error_message": message, "error_details": f"{message}\nstack"}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat()
