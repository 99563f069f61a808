import datetime
import io
import ipaddress
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from kfp_server import KfpServer
from rich.console import Console

from pipeline import flags, kfp_client, submit
from pipeline.submit import SubmitConfig, SubmitError, Submitted
from trainer_module.schedule import ScheduleConfig

TOKEN = "eyJ-a-secret.token_0123456789"
SPEC = {
    "pipelineInfo": {"name": "plateau-digits"},
    "schemaVersion": "2.1.0",
    "sdkVersion": "tfx-1.16.0",
    "defaultPipelineRoot": "gs://bucket/root",
    "root": {
        "dag": {"tasks": {"Trainer": {"taskInfo": {"name": "Trainer"}}}},
        "inputDefinitions": {
            "parameters": {
                "data": {"parameterType": "STRING", "defaultValue": "/workspace/data"},
                "strategy": {"parameterType": "STRING", "defaultValue": "hybrid"},
                "patience": {"parameterType": "NUMBER_INTEGER", "defaultValue": 5.0},
                "max_epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 30.0},
                "pushed": {"parameterType": "STRING", "defaultValue": "/workspace/pushed"},
            }
        },
    },
    "deploymentSpec": {"executors": {}},
}
MOUNT = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"Trainer": {}}}}}}
DEFAULTS = {
    "data": "/workspace/data",
    "strategy": "hybrid",
    "patience": 5,
    "max_epochs": 30,
    "pushed": "/workspace/pushed",
}


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Submission:
    """A file, a server, and what submitting came to."""

    def __init__(self, server: KfpServer, folder: Path) -> None:
        self.server, self.file, self.clock = server, folder / "digits.yaml", Clock()
        self.output, self.environ = io.StringIO(), {}
        self.write(SPEC, MOUNT)

    def write(self, *documents: Any) -> None:
        self.file.write_text(yaml.safe_dump_all(documents, sort_keys=False))

    def __call__(self, **fields: Any) -> Submitted:
        config = SubmitConfig(**{"file": self.file, "host": self.server.url, **fields})
        console = Console(file=self.output, width=80, color_system=None)
        environ: Mapping[str, str] = self.environ
        return submit.submit(config, console, environ, self.clock.sleep, self.clock)

    @property
    def parameters(self) -> Any:
        (request,) = self.server.asked("POST", "runs")
        return request.json["runtime_config"]["parameters"]

    @property
    def said(self) -> str:
        return self.output.getvalue()


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with KfpServer() as server:
        yield server


@pytest.fixture
def send(server: KfpServer, tmp_path: Path) -> Submission:
    return Submission(server, tmp_path)


def test_first_submission_creates_the_pipeline_and_a_run(send: Submission) -> None:
    made = send()
    (upload,) = send.server.asked("POST", "pipelines/upload_version")
    assert upload.upload == send.file.read_bytes()
    (pipeline,) = send.server.pipelines.values()
    (version,) = send.server.versions.values()
    (experiment,) = send.server.experiments.values()
    (run,) = send.server.runs.values()
    assert pipeline["display_name"] == "plateau-digits"
    assert version["display_name"].startswith("plateau-digits-")
    assert experiment["display_name"] == "plateau"
    assert run["experiment_id"] == experiment["experiment_id"]
    assert run["display_name"] == version["display_name"]
    assert run["pipeline_version_reference"] == {
        "pipeline_id": pipeline["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert made == Submitted(run["run_id"], f"{send.server.url}/#/runs/details/{run['run_id']}")
    assert made.ok
    assert made.address in send.said.splitlines()[-1]


def test_second_submission_adds_a_version(send: Submission) -> None:
    send(version="one")
    send(version="two")
    assert len(send.server.pipelines) == len(send.server.experiments) == 1
    assert [v["display_name"] for v in send.server.versions.values()] == ["one", "two"]
    assert len(send.server.runs) == 2


def test_every_parameter_has_a_value_and_its_type(send: Submission) -> None:
    send()
    assert send.parameters == DEFAULTS
    assert [type(value) for value in send.parameters.values()] == [str, str, int, int, str]


def test_flags_override_the_defaults_of_the_file(send: Submission) -> None:
    send(data="/workspace/other", strategy="lr_decay", patience=2, max_epochs=9, pushed="/w/p")
    assert send.parameters == {
        "data": "/workspace/other",
        "strategy": "lr_decay",
        "patience": 2,
        "max_epochs": 9,
        "pushed": "/w/p",
    }


TYPED = {
    "text": ("STRING", "a=b c", "a=b c"),
    "number": ("NUMBER_INTEGER", "-7", -7),
    "share": ("NUMBER_DOUBLE", "2.5e-1", 0.25),
    "flag": ("BOOLEAN", "False", False),
    "sizes": ("LIST", '[1, "a", null]', [1, "a", None]),
    "tree": ("STRUCT", '{"a": {"b": true}}', {"a": {"b": True}}),
}


def with_parameters(definitions: Mapping[str, Any]) -> Any:
    root = {**SPEC["root"], "inputDefinitions": {"parameters": definitions}}  # type: ignore[dict-item]
    return {**SPEC, "root": root}


def test_other_parameters_have_the_types_of_the_spec(send: Submission) -> None:
    send.write(with_parameters({k: {"parameterType": t} for k, (t, _, _) in TYPED.items()}))
    send(param=tuple(f"{name}={text}" for name, (_, text, _) in TYPED.items()))
    assert send.parameters == {name: value for name, (_, _, value) in TYPED.items()}


def test_defaults_that_are_false_are_sent_too(send: Submission) -> None:
    found = {
        "a": {"parameterType": "NUMBER_INTEGER", "defaultValue": 0.0},
        "b": {"parameterType": "BOOLEAN", "defaultValue": False},
        "c": {"parameterType": "STRING", "defaultValue": ""},
    }
    send.write(with_parameters(found))
    send()
    assert send.parameters == {"a": 0, "b": False, "c": ""}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("NUMBER_INTEGER", "2.5"),
        ("NUMBER_INTEGER", "many"),
        ("NUMBER_INTEGER", str(2**53 + 1)),
        ("NUMBER_DOUBLE", "nan"),
        ("NUMBER_DOUBLE", ""),
        ("BOOLEAN", "1"),
        ("LIST", '{"a": 1}'),
        ("LIST", "[1"),
        pytest.param("LIST", "[" * 100_000, id="deep"),
        ("STRUCT", "[1]"),
        ("STRUCT", '{"a": NaN}'),
        ("TASK_FINAL_STATUS", "x"),
    ],
)
def test_a_wrong_value_is_found_before_anything_is_sent(
    send: Submission, kind: str, text: str
) -> None:
    send.write(with_parameters({"x": {"parameterType": kind}}))
    with pytest.raises(ValueError, match="parameter x must be"):
        send(param=(f"x={text}",))
    assert send.server.requests == []


@pytest.mark.parametrize("found", ["some", ["some"], {1: {"parameterType": "STRING"}}])
def test_parameters_that_are_none_are_refused(send: Submission, found: Any) -> None:
    send.write(with_parameters(found))
    with pytest.raises(ValueError, match=r"whose parameters have names, got .*plateau compile"):
        send()


@pytest.mark.parametrize("fields", [{"param": ("batch=1",)}, {"patience": 3}])
def test_an_unknown_parameter_is_named_with_those_there_are(
    send: Submission, fields: dict[str, Any]
) -> None:
    send.write(with_parameters({"epochs": {"parameterType": "STRING"}}))
    with pytest.raises(ValueError, match="Its parameters: epochs") as error:
        send(**fields)
    assert "batch" in str(error.value) or "patience" in str(error.value)
    assert send.server.requests == []


def test_a_parameter_without_a_value_is_named(send: Submission) -> None:
    optional = {"parameterType": "STRING", "isOptional": True}
    send.write(with_parameters({"size": {"parameterType": "STRING"}, "note": optional}))
    with pytest.raises(ValueError, match="--param size=VALUE") as error:
        send()
    assert "note" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "JSON must be whole"),
        ("just text", "must be a mapping"),
        ("root: {}\npipelineInfo: {}", "pipeline spec with a name"),
        ("root: {}\npipelineInfo: {name: a}\nschemaVersion: 2.0.0", "2.1"),
        ('{"displayName": "a", "pipelineSpec": {}}', r"aiplatform\.PipelineJob"),
    ],
)
def test_what_is_no_pipeline_is_refused(send: Submission, content: str, match: str) -> None:
    send.file.write_text(content)
    with pytest.raises(ValueError, match=match):
        send()
    assert send.server.requests == []


def test_a_missing_file_is_named(send: Submission) -> None:
    with pytest.raises(ValueError, match=r"compiled pipeline, got no\.yaml"):
        send(file=Path("no.yaml"))


def test_root_service_account_and_names_are_passed_on(send: Submission) -> None:
    send(
        name="n", version="v", experiment="e", root="gs://other", service_account="pipeline-runner"
    )
    (run,) = send.server.runs.values()
    assert run["runtime_config"]["pipeline_root"] == "gs://other"
    assert run["service_account"] == "pipeline-runner"
    assert run["display_name"] == "v"
    assert [p["display_name"] for p in send.server.pipelines.values()] == ["n"]
    assert [e["display_name"] for e in send.server.experiments.values()] == ["e"]


def test_a_schedule_creates_a_recurring_run_only(send: Submission) -> None:
    made = send(cron="0 30 3 * * *", patience=2)
    (recurring,) = send.server.recurring.values()
    assert send.server.runs == {}
    assert recurring["trigger"] == {"cron_schedule": {"cron": "0 30 3 * * *"}}
    assert recurring["runtime_config"]["parameters"] == {**DEFAULTS, "patience": 2}
    assert recurring["mode"] == "ENABLE"
    assert recurring["no_catchup"] is True
    assert int(recurring["max_concurrency"]) == 1
    identity = recurring["recurring_run_id"]
    assert made == Submitted(identity, f"{send.server.url}/#/recurringrun/details/{identity}")


def test_catching_up_has_to_be_asked_for(send: Submission) -> None:
    send(cron="@daily", catchup=True)
    (request,) = send.server.asked("POST", "recurringruns")
    assert not request.json.get("no_catchup")


def test_many_users_have_namespaces(send: Submission) -> None:
    send.server.multi_user = True
    send(namespace="team")
    (pipeline,) = send.server.pipelines.values()
    (experiment,) = send.server.experiments.values()
    assert pipeline["namespace"] == experiment["namespace"] == "team"
    send(namespace="team", version="second")
    assert len(send.server.pipelines) == len(send.server.experiments) == 1


@pytest.mark.parametrize("multi_user", [True, False])
def test_a_namespace_must_fit_the_server(send: Submission, multi_user: bool) -> None:
    send.server.multi_user = multi_user
    with pytest.raises(SubmitError, match="--namespace"):
        send(namespace=None if multi_user else "team")
    assert not [request for request in send.server.requests if request.method == "POST"]


def test_waiting_tells_each_change_of_state_once(send: Submission) -> None:
    send.server.states = ["PENDING", "RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"]
    made = send(wait=True)
    assert (made.state, made.ok) == ("SUCCEEDED", True)
    told = [line.split()[1] for line in send.said.splitlines() if line.startswith("state")]
    assert told == ["pending", "running", "succeeded"]
    assert send.said.index(made.address) < send.said.index("pending")


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_run_that_fails_is_not_ok_and_says_why(send: Submission, state: str) -> None:
    send.server.states = ["RUNNING", state]
    send.server.tasks = [
        {"display_name": "root", "state": "FAILED"},
        {"display_name": "Transform", "state": "SUCCEEDED"},
        {"display_name": "Trainer", "state": "FAILED", "error": {"message": "out of\nmemory"}},
    ]
    made = send(wait=True, timeout=5)
    assert (made.state, made.ok) == (state, False)
    failed = [line for line in send.said.splitlines() if line.startswith("failed")]
    assert [line.split(maxsplit=1)[1] for line in failed] == ["Trainer: out of memory"]


def test_states_that_a_newer_server_has_are_waited_through(send: Submission) -> None:
    send.server.states = ["RUNNING", "REFLECTING", "SUCCEEDED"]
    assert send(wait=True).ok
    assert "reflecting" in send.said


def test_the_timeout_ends_the_waiting_and_not_the_run(send: Submission) -> None:
    send.server.states = ["RUNNING"]
    with pytest.raises(SubmitError, match="The run goes on: http") as error:
        send(wait=True, timeout=2)
    assert "--timeout 2 minutes" in str(error.value)
    assert send.clock.now == 120


def test_a_server_that_is_replaced_meanwhile_is_waited_for(send: Submission) -> None:
    send.server.fail("GET", "runs/.*", status=503, times=8)
    assert send(wait=True).ok


def test_a_token_that_expires_meanwhile_leaves_the_address(send: Submission) -> None:
    send.server.fail("GET", "runs/.*", status=401)
    with pytest.raises(SubmitError, match="The run goes on: http"):
        send(wait=True)


@pytest.mark.parametrize("how", [{"status": 503}, {"status": 500}, {"status": 429}, {"drop": True}])
@pytest.mark.parametrize("path", ["healthz", "pipelines/names/.*", "experiments"])
def test_questions_are_asked_again(send: Submission, path: str, how: dict[str, Any]) -> None:
    send.server.fail("GET", path, times=2, **how)
    assert send().ok
    assert len(send.server.asked("GET", path)) == 3
    assert len(send.server.runs) == 1


def test_questions_are_not_asked_for_ever(send: Submission) -> None:
    send.server.fail("GET", "healthz", status=502)
    with pytest.raises(SubmitError, match="HTTP status 502"):
        send()
    assert len(send.server.requests) == kfp_client.ATTEMPTS
    assert send.clock.now > 1


@pytest.mark.parametrize("how", [{"status": 504}, {"drop": True}, {"body": b"?", "status": 200}])
@pytest.mark.parametrize("cron", [None, "@daily"])
def test_a_run_is_never_created_twice(
    send: Submission, how: dict[str, Any], cron: str | None
) -> None:
    path = "recurringruns" if cron else "runs"
    send.server.fail("POST", path, after=True, **how)
    with pytest.raises(SubmitError, match="may be there all the same"):
        send(cron=cron)
    assert len(send.server.asked("POST", path)) == 1
    assert len(send.server.runs) + len(send.server.recurring) == 1


def test_a_run_that_cannot_be_there_is_not_looked_for(send: Submission) -> None:
    send.server.fail("POST", "runs", status=403)
    with pytest.raises(SubmitError, match="403") as error:
        send()
    assert "may be there" not in str(error.value)


def test_an_upload_is_sent_once(send: Submission) -> None:
    send.server.fail("POST", "pipelines/upload_version", status=503)
    with pytest.raises(SubmitError, match="503"):
        send()
    assert len(send.server.asked("POST", "pipelines/upload_version")) == 1
    assert send.server.runs == {}


def test_a_version_that_is_there_is_named(send: Submission) -> None:
    send(version="one")
    with pytest.raises(SubmitError, match="got 'one', which is there already") as error:
        send(version="one")
    assert "--version" in str(error.value)
    assert len(send.server.runs) == 1


def test_a_pipeline_that_another_creates_first_is_used(send: Submission) -> None:
    send.server.fail("GET", "pipelines/names/.*", status=404, times=1)
    send.server._add_pipeline("plateau-digits", "")
    assert send().ok
    assert len(send.server.pipelines) == 1


def test_an_archived_experiment_is_named(send: Submission) -> None:
    send()
    (experiment,) = send.server.experiments.values()
    experiment["storage_state"] = "ARCHIVED"
    with pytest.raises(SubmitError, match="archived, got 'plateau'"):
        send(version="second")
    assert len(send.server.versions) == 1


LOGIN = b"<!doctype html><title>Log in</title>"
DEX = {"Location": "https://login.example/dex/auth?state=abc"}


@pytest.mark.parametrize(
    ("how", "rule", "remedy"),
    [
        ({"status": 401}, "HTTP status 401", "PLATEAU_KFP_TOKEN"),
        ({"status": 403}, "HTTP status 403", "--namespace"),
        ({"status": 404, "content": "text/plain"}, "HTTP status 404", "Check --host"),
        ({"status": 418}, "HTTP status 418", "Look at what it says"),
        ({"status": 500}, "HTTP status 500", "ml-pipeline pod"),
        ({"status": 200, "body": LOGIN, "content": "text/html"}, "a web page", "--token-file"),
        ({"status": 403, "body": LOGIN, "content": "text/html"}, "status 403", "--namespace"),
        ({"status": 302, "headers": DEX}, "got a redirect", "--token-file"),
        ({"status": 200, "body": b"ok", "content": "text/plain"}, "no JSON", "Check --host"),
        ({"drop": True}, "broke off", "https://"),
    ],
)
def test_what_a_server_answers_becomes_one_sentence_and_a_remedy(
    send: Submission, how: dict[str, Any], rule: str, remedy: str
) -> None:
    send.server.fail("GET", "healthz", **how)
    with pytest.raises(SubmitError, match=rule) as error:
        send()
    message = str(error.value)
    assert remedy in message
    assert "\n" not in message
    assert "<" not in message
    assert "state=abc" not in message
    assert not send.server.pipelines


def test_a_redirect_to_https_is_told(send: Submission) -> None:
    there = send.server.url.replace("http://", "https://")
    send.server.fail("GET", "healthz", status=308, headers={"Location": f"{there}/apis"})
    with pytest.raises(SubmitError, match=f"Try --host {there}"):
        send()


def test_what_the_server_says_is_passed_on(send: Submission) -> None:
    body = b'{"message": "quota of\\nteam is used up", "code": 7}'
    send.server.fail("POST", "runs", status=403, body=body)
    with pytest.raises(SubmitError, match="The server says: quota of team is used up"):
        send()


def test_a_refused_connection_is_told(send: Submission) -> None:
    with KfpServer() as gone:
        url = gone.url
    with pytest.raises(SubmitError, match="refused connection") as error:
        send(host=url)
    assert "port-forward" in str(error.value)


def test_an_unknown_name_is_told(send: Submission) -> None:
    with pytest.raises(SubmitError, match="a name that is not known"):
        send(host="http://kfp.invalid:80")


def test_silence_is_told(send: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kfp_client, "READ_SECONDS", 0.05)
    send.server.fail("GET", "healthz", hang=0.3)
    with pytest.raises(SubmitError, match="answer in time"):
        send()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that no authority signed, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_must_be_trusted(tmp_path: Path, certificate: Path) -> None:
    with KfpServer(certificate) as server:
        send = Submission(server, tmp_path)
        with pytest.raises(SubmitError, match="must be one that is trusted") as error:
            send()
        assert "--ca-cert FILE" in str(error.value)
        assert server.requests == []
        assert send(ca_cert=certificate).ok
        assert send.server.url.startswith("https://")


def test_plain_http_in_place_of_tls_is_told(send: Submission) -> None:
    url = send.server.url
    with pytest.raises(SubmitError, match=f"Try --host {url}"):
        send(host=url.replace("http://", "https://"))


def test_the_token_is_in_one_header_and_nowhere_else(
    send: Submission, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    send.server.token, send.environ = TOKEN, {submit.TOKEN: f"{TOKEN}\n"}
    with caplog.at_level(logging.DEBUG):
        made = send(wait=True)
    assert made.ok
    for request in send.server.requests:
        assert request.headers.pop("authorization") == f"Bearer {TOKEN}"
        assert TOKEN not in repr(request)
    printed = capfd.readouterr()
    assert TOKEN not in caplog.text + send.said + printed.out + printed.err + repr(made)


def echo(before: int) -> bytes:
    """An answer that quotes the request's headers, after some other text."""
    return f'{{"message": "{"x" * before} Authorization: Bearer {TOKEN}"}}'.encode()


# A text that is cut off must not be cut in the middle of a token that is then no more known as one.
BODIES = [
    (body, content)
    for before in (0, kfp_client._SHOWN - 40, kfp_client._SHOWN - 35)
    for body, content in (
        (echo(before), "application/json"),
        (echo(before - len('{"message": "'))[:-2], "text/plain"),
    )
]
FAULTS: list[dict[str, Any]] = [
    {"status": status, "body": body, "content": content, "headers": {"X-Echo": TOKEN}}
    for status in (200, 401, 409, 500)
    for body, content in BODIES
]


@pytest.mark.parametrize("how", [*FAULTS, {"drop": True}, {"status": 302, "headers": DEX}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "healthz"),
        ("GET", "experiments"),
        ("POST", "pipelines/upload_version"),
        ("POST", "runs"),
    ],
)
def test_no_error_shows_the_token(
    send: Submission,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    how: dict[str, Any],
) -> None:
    send.environ = {submit.TOKEN: TOKEN}
    send.server.fail(method, path, **how)
    try:
        with caplog.at_level(logging.INFO):
            send()
    except SubmitError as error:
        told = [str(error), repr(error), *traceback.format_exception(error)]
        chain: BaseException | None = error
        while chain is not None:
            told += [str(chain), repr(vars(chain))]
            chain = chain.__cause__
        assert TOKEN[:8] not in "".join(told)
    assert TOKEN[:8] not in caplog.text + send.said


def test_what_a_task_says_is_shown_without_the_token(send: Submission) -> None:
    send.environ = {submit.TOKEN: TOKEN}
    send.server.states = ["FAILED"]
    said = {"message": f"bad header Bearer {TOKEN}"}
    send.server.tasks = [{"display_name": "Trainer", "state": "FAILED", "error": said}]
    send(wait=True)
    assert "bad header" in send.said
    assert TOKEN not in send.said


@pytest.mark.parametrize("text", ["Bearer abc", "abc\nX-Evil: 1", "abc\u20ac", " "])
@pytest.mark.parametrize("by_file", [True, False])
def test_a_token_unfit_for_a_header_is_not_shown(
    send: Submission, tmp_path: Path, text: str, by_file: bool
) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    send.environ = {} if by_file else {submit.TOKEN: text}
    with pytest.raises(SubmitError, match="one word of ASCII") as error:
        send(token_file=file if by_file else None)
    assert "abc" not in "".join(traceback.format_exception(error.value))
    assert send.server.requests == []


def test_a_token_file_is_read_anew(send: Submission, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    file.chmod(0o600)
    send.server.states = ["RUNNING", "RUNNING", "SUCCEEDED"]
    sleep = send.clock.sleep

    def renew(seconds: float) -> None:
        file.write_text("second")
        sleep(seconds)

    send.clock.sleep = renew  # type: ignore[method-assign]
    send.environ = {submit.TOKEN: "ignored"}
    send(token_file=file, wait=True)
    sent = [request.headers["authorization"] for request in send.server.requests]
    assert sent == ["Bearer first"] * (len(sent) - 2) + ["Bearer second"] * 2
    assert "note" not in send.said


def test_a_token_file_that_others_can_read_is_told(send: Submission, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    send(token_file=file)
    assert f"chmod 600 {file}" in send.said


@pytest.mark.parametrize(
    ("host", "told"),
    [("http://kfp.invalid", True), ("https://kfp.invalid", False), ("http://127.0.0.1:9", False)],
)
def test_a_token_that_travels_unencrypted_is_told(send: Submission, host: str, told: bool) -> None:
    send.environ = {submit.TOKEN: TOKEN}
    with pytest.raises(SubmitError):
        send(host=host)
    assert ("unencrypted" in send.said) == told


def test_without_a_token_there_is_no_header(send: Submission) -> None:
    send()
    assert not [r for r in send.server.requests if "authorization" in r.headers]


@pytest.mark.parametrize(
    ("fields", "rule", "remedy"),
    [
        ({"host": "kfp.example"}, "host must be an address", "Try --host http"),
        ({"host": "http://a:b"}, "host must be an address", "Try --host http"),
        ({"host": "http://a/#/runs"}, "without what follows", "Try --host http://a."),
        ({"patience": 0}, "patience must be at least 1, got 0", "Try --patience 5"),
        ({"max_epochs": -1}, "max_epochs must be at least 1, got -1", "Try --max-epochs 5"),
        ({"name": " "}, "name must not be empty", "Leave it out"),
        ({"param": ("a",)}, "param must be NAME=VALUE, got 'a'", "Try --param"),
        ({"param": ("patience=3",)}, "no flag of its own", "Use --patience"),
        ({"param": ("a=1", "a=2")}, "each parameter once", "Leave one out"),
        ({"cron": "30 3 * * *"}, "six fields, the first one seconds", "'0 30 3 * * *'"),
        ({"cron": "nightly"}, "six fields", "Try --cron"),
        ({"cron": "@daily", "wait": True}, "wait must be left out with --cron", "web page"),
        ({"catchup": True}, "catchup must come with a schedule", "Add --cron"),
        ({"timeout": 5}, "timeout must come with --wait", "Add --wait"),
        ({"timeout": 0, "wait": True}, "positive number of minutes", "Try --timeout 60"),
        ({"token_file": Path("none")}, "token_file must be a file, got 'none'", "Check the path"),
        ({"ca_cert": Path("none")}, "ca_cert must be a file, got 'none'", "Check the path"),
    ],
)
def test_bad_flags_are_explained(fields: dict[str, Any], rule: str, remedy: str) -> None:
    with pytest.raises(ValueError, match="must") as error:
        SubmitConfig(**{"file": Path("a.yaml"), "host": "http://a", **fields})
    assert rule in str(error.value)
    assert remedy in str(error.value)


def test_a_password_in_the_address_is_not_shown() -> None:
    with pytest.raises(ValueError, match="without a user or a password") as error:
        SubmitConfig(Path("a.yaml"), "https://me:hunter2@kfp.example")
    assert "hunter2" not in str(error.value)


def test_flags_make_the_config() -> None:
    parse: Callable[..., SubmitConfig] = lambda *args: flags.parse(  # noqa: E731
        submit.default(), args, prog="plateau submit", description="Submit."
    )
    words = "a.yaml --host http://a --param x=1 --param y=2 --wait --timeout 5 --max-epochs 3"
    assert parse(*words.split()) == SubmitConfig(
        Path("a.yaml"), "http://a", param=("x=1", "y=2"), wait=True, timeout=5, max_epochs=3
    )
    for missing in (["a.yaml"], ["--host", "http://a"]):
        with pytest.raises(SystemExit):
            parse(*missing)
    with pytest.raises(ValueError, match="--max-epochs must be at least 1"):
        parse("a.yaml", "--host", "http://a", "--max-epochs", "0")


def test_strategies_are_those_of_the_schedule() -> None:
    ours, *_ = get_args(get_type_hints(SubmitConfig)["strategy"])
    assert get_args(ours) == get_args(get_type_hints(ScheduleConfig)["strategy"])
