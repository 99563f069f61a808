import datetime
import io
import ipaddress
import json
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from kfp_server import KfpServer
from rich.console import Console

from pipeline.cli import flags
from pipeline.cli.arguments import UsageError
from pipeline.runners import kfp_client, submit
from pipeline.runners.submit import SubmitConfig, Submitted
from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.util.checks import UserError

TOKEN = "eyJ-a-secret.token_0123456789"
DEFAULTS = {
    "data": "/workspace/data",
    "strategy": "hybrid",
    "patience": 5,
    "max_epochs": 30,
    "pushed": "/workspace/pushed",
}
SPEC = {
    "pipelineInfo": {"name": "plateau-digits"},
    "schemaVersion": "2.1.0",
    "sdkVersion": "tfx-1.16.0",
    "root": {
        "dag": {
            "tasks": {
                "Trainer": {"taskInfo": {"name": "Trainer"}, "componentRef": {"name": "Trainer"}}
            }
        },
        "inputDefinitions": {
            "parameters": {
                name: {
                    "parameterType": "NUMBER_INTEGER" if isinstance(value, int) else "STRING",
                    "defaultValue": value,
                }
                for name, value in DEFAULTS.items()
            }
        },
    },
    "components": {"Trainer": {"executorLabel": "Trainer_executor"}},
    "deploymentSpec": {
        "executors": {
            "Trainer_executor": {
                "container": {
                    "image": "registry.example/plateau:1",
                    "command": ["python", "-m", "components.container"],
                    "args": [
                        "--executor_class_path",
                        "components.plateau_trainer.executor.Executor",
                    ],
                }
            }
        }
    },
}
MOUNT = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"Trainer_executor": {}}}}}}
CREATING = ["pipelines", "pipelines/upload_version", "experiments", "runs"]


class Submission:
    """A file, a server, and what submitting came to."""

    def __init__(self, server: KfpServer, folder: Path) -> None:
        self.server, self.file = server, folder / "digits.yaml"
        self.sleep: Callable[[float], None] = lambda _: None
        self.output, self.environ = io.StringIO(), {}
        self.write(SPEC, MOUNT)

    def write(self, *documents: Any) -> None:
        self.file.write_text(yaml.safe_dump_all(documents, sort_keys=False))

    def __call__(self, **fields: Any) -> Submitted:
        config = SubmitConfig(**{"file": self.file, "host": self.server.url, **fields})
        console = Console(file=self.output, width=80, color_system=None)
        environ: Mapping[str, str] = self.environ
        return submit.submit(config, console, environ, self.sleep)

    def refused(self, **fields: Any) -> str:
        """What is said where nothing can be submitted: one line."""
        with pytest.raises(UserError) as error:
            self(**fields)
        message = str(error.value)
        assert "\n" not in message and "<" not in message
        return message

    @property
    def said(self) -> str:
        return self.output.getvalue()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between the repetitions of a request."""
    monkeypatch.setattr(kfp_client, "BACKOFF_SECONDS", 0)


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with KfpServer() as server:
        yield server


@pytest.fixture
def send(server: KfpServer, tmp_path: Path) -> Submission:
    return Submission(server, tmp_path)


def test_first_submission_creates_the_pipeline_and_a_run(
    send: Submission, capfd: pytest.CaptureFixture[str]
) -> None:
    made = send(service_account="pipeline-runner")
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
    assert run["service_account"] == "pipeline-runner"
    assert run["pipeline_version_reference"] == {
        "pipeline_id": pipeline["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert run["runtime_config"] == {"parameters": DEFAULTS}
    assert made == Submitted(run["run_id"], f"{send.server.url}/#/runs/details/{run['run_id']}")
    assert made.ok
    assert made.address in send.said.splitlines()[-1]
    assert capfd.readouterr() == ("", "")
    assert not any("authorization" in request.headers for request in send.server.requests)


def test_second_submission_adds_a_version(send: Submission) -> None:
    send(version="one", experiment='a+b 100% "c"')
    send(version="two", experiment='a+b 100% "c"')
    (pipeline,) = send.server.pipelines.values()
    assert pipeline["display_name"] == "plateau-digits"
    assert len(send.server.experiments) == 1
    assert [v["display_name"] for v in send.server.versions.values()] == ["one", "two"]
    assert [run["display_name"] for run in send.server.runs.values()] == ["one", "two"]


FLAGS = {"data": "/d", "strategy": "lr_decay", "patience": 2, "max_epochs": 9, "pushed": "/p"}


@pytest.mark.parametrize(
    ("flags", "compiled", "root", "sent"),
    [
        ({}, None, None, {}),
        ({"patience": 1}, "gs://a", None, {"pipeline_root": "gs://a"}),
        (FLAGS, "gs://a", "s3://b", {"pipeline_root": "s3://b"}),
    ],
)
def test_a_run_has_the_root_and_parameters_of_the_flags_or_else_of_the_file(
    send: Submission,
    flags: dict[str, Any],
    compiled: str | None,
    root: str | None,
    sent: dict[str, str],
) -> None:
    send.write({**SPEC, "defaultPipelineRoot": compiled} if compiled else SPEC, MOUNT)
    send(root=root, **flags)
    (run,) = send.server.runs.values()
    assert run["runtime_config"] == {"parameters": {**DEFAULTS, **flags}, **sent}


def without(*path: str) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(json.dumps(SPEC))
    found = spec
    for key in path[:-1]:
        found = found[key]
    del found[path[-1]]
    return spec


PARAMETERS = ("root", "inputDefinitions", "parameters")


@pytest.mark.parametrize(
    "content",
    [
        *("", "just text", "a: [", "null", "[]", "- &a [*a]", "root: " + "[" * 100_000),
        "root: !!python/object/apply:os.system ['false']",
        yaml.safe_dump(without("pipelineInfo", "name")),
        yaml.safe_dump(without(*PARAMETERS)),
        yaml.safe_dump(without(*PARAMETERS, "patience")),
        json.dumps({"displayName": "a", "pipelineSpec": SPEC}),
    ],
)
def test_what_compile_did_not_write_is_refused(send: Submission, content: str) -> None:
    send.file.write_text(content)
    message = send.refused()
    assert "that `plateau compile --target kfp` wrote" in message
    assert send.server.requests == []


def test_a_missing_file_and_one_of_another_name_are_refused(send: Submission) -> None:
    assert "ends with .yaml, got 'no.yaml'" in send.refused(file=Path("no.yaml"))
    other = send.file.rename(send.file.with_suffix(".txt"))
    assert "ends with .yaml, got '" in send.refused(file=other)


@pytest.mark.parametrize("namespace", ["team", "kubeflow"])
def test_many_users_have_namespaces(send: Submission, namespace: str) -> None:
    send.server.multi_user = True
    send(namespace="other")
    send(namespace=namespace, version="first")
    send(namespace=namespace, version="second")
    for made in (send.server.pipelines, send.server.experiments):
        assert [item["namespace"] for item in made.values()] == ["other", namespace]
    assert len(send.server.runs) == 3


def test_a_namespace_must_be_given_where_there_are_many(send: Submission) -> None:
    send.server.multi_user = True
    assert "An experiment cannot have an empty namespace" in send.refused()
    assert send.server.versions == {}


def test_each_change_of_state_is_printed_once(send: Submission) -> None:
    """States that only a newer server has are no end of a run."""
    send.server.states = ["PENDING", "RUNNING", "RUNNING", "RUNNING", "REFLECTING", "SUCCEEDED"]
    made = send(wait=True)
    assert (made.state, made.ok) == ("SUCCEEDED", True)
    states = [line.split()[1] for line in send.said.splitlines() if line.startswith("state")]
    assert states == ["pending", "running", "reflecting", "succeeded"]
    assert send.said.index(made.address) < send.said.index("pending")


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_run_that_fails_is_not_ok_and_says_why(send: Submission, state: str) -> None:
    send.server.states = ["RUNNING", state]
    send.server.tasks = [
        {"display_name": "root", "state": "FAILED"},
        {"display_name": "Transform", "state": "SUCCEEDED"},
        {"display_name": "Trainer", "state": "FAILED", "error": {"message": "out of\nmemory"}},
    ]
    made = send(wait=True)
    assert (made.state, made.ok) == (state, False)
    failed = [line for line in send.said.splitlines() if line.startswith("failed")]
    assert [line.split(maxsplit=1)[1] for line in failed] == ["Trainer: out of memory"]


def test_a_server_that_is_replaced_meanwhile_is_waited_for(send: Submission) -> None:
    send.server.fail("GET", "runs/.*", status=503, times=8)
    assert send(wait=True).ok


def test_a_token_that_expires_meanwhile_leaves_the_address(send: Submission) -> None:
    send.server.fail("GET", "runs/.*", status=401)
    assert "The run continues: http" in send.refused(wait=True)


FAILED = [{"status": 503}, {"status": 500}, {"status": 429}, {"drop": True}]


@pytest.mark.parametrize("how", FAILED)
def test_a_get_is_repeated_a_few_times(send: Submission, how: dict[str, Any]) -> None:
    for path in ("pipelines", "experiments"):
        send.server.fail("GET", path, times=kfp_client.RETRIES, **how)
    assert send().ok
    assert len(send.server.asked("GET", "pipelines")) == kfp_client.RETRIES + 1
    assert len(send.server.runs) == 1
    send.server.requests.clear()
    send.server.fail("GET", "experiments", **how)
    send.refused()
    assert len(send.server.requests) == kfp_client.RETRIES + 1


@pytest.mark.parametrize(
    ("how", "may_exist"),
    [
        ({"status": 504}, True),
        ({"status": 500}, True),
        ({"drop": True}, True),
        ({"body": b"?", "status": 200}, True),
        ({"body": b"{}", "status": 200}, True),
        ({"body": b"[]", "status": 200}, True),
        ({"status": 307, "headers": {"Location": "/elsewhere"}}, False),
        ({"status": 429}, False),
        ({"status": 403}, False),
    ],
)
@pytest.mark.parametrize("path", CREATING)
def test_nothing_is_created_twice(
    send: Submission, path: str, how: dict[str, Any], may_exist: bool
) -> None:
    send.server.fail("POST", path, after=True, **how)
    message = send.refused()
    assert len(send.server.asked("POST", path)) == 1
    server = send.server
    made = [server.pipelines, server.versions, server.experiments, server.runs]
    assert all(len(items) <= 1 for items in made)
    assert ("before you submit again" in message) == may_exist


def test_a_version_that_is_there_is_named(send: Submission) -> None:
    send(version="one")
    message = send.refused(version="one")
    assert "HTTP 409 (Failed to create a pipeline version)" in message
    assert "`version`" in message
    assert len(send.server.runs) == 1


LOGIN = b"<!doctype html><title>Log in</title>"
DEX = {"Location": "https://login.example/dex/auth?state=abc"}


@pytest.mark.parametrize(
    ("how", "rule", "remedy"),
    [
        ({"status": 400}, "HTTP 400", "Correct what it names"),
        ({"status": 401}, "HTTP 401", "`token_file`"),
        ({"status": 403}, "HTTP 403", "`namespace`"),
        ({"status": 404, "content": "text/plain"}, "HTTP 404", "Check `host`"),
        ({"status": 409}, "HTTP 409", "`version`"),
        ({"status": 418}, "HTTP 418", "Try again later"),
        ({"status": 429}, "HTTP 429", "Try again later"),
        ({"status": 500}, "HTTP 500", "ml-pipeline pod"),
        ({"status": 403, "body": LOGIN, "content": "text/html"}, "HTTP 403", "`namespace`"),
        ({"status": 200, "body": LOGIN, "content": "text/html"}, "login page", "`token_file`"),
        ({"status": 200, "body": b"[" * 100_000}, "something else", "Check `host`"),
        ({"status": 200, "body": b"\xff", "content": "a; charset=no"}, "something else", "`host`"),
        ({"status": 302, "headers": DEX}, "HTTP 302", "`token_file`"),
        ({"drop": True}, "got 'a broken connection'", "Check `host`"),
    ],
)
@pytest.mark.parametrize("path", ["GET experiments", "POST pipelines/upload_version"])
def test_what_a_server_answers_becomes_one_sentence_and_a_remedy(
    send: Submission, path: str, how: dict[str, Any], rule: str, remedy: str
) -> None:
    send.server.fail(*path.split(), **how)
    message = send.refused()
    assert rule in message
    assert remedy in message
    assert "state=abc" not in message


@pytest.mark.parametrize("field", ["message", "error_message"])
def test_what_the_server_says_is_passed_on(send: Submission, field: str) -> None:
    body = json.dumps({field: "quota of\nteam is used up", "code": 7}).encode()
    send.server.fail("POST", "runs", status=403, body=body)
    assert "HTTP 403 (quota of team is used up)" in send.refused()


@pytest.mark.parametrize(
    ("host", "cause"),
    [("http://127.0.0.1:1", "Connection refused"), ("http://kfp.invalid", "ame")],
)
def test_a_server_that_is_not_there_is_told(send: Submission, host: str, cause: str) -> None:
    message = send.refused(host=host)
    assert cause in message
    assert "port-forward" in message
    assert "submit again" not in message


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_silence_is_told(send: Submission, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(kfp_client, "READ_SECONDS", 0.2)
    send.server.fail(method, ".*", hang=0.5)
    message = send.refused()
    assert "must answer, got 'nothing in 0.2 seconds'" in message
    assert ("before you submit again" in message) == (method == "POST")


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


def test_a_certificate_must_be_trusted(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KfpServer(certificate) as server:
        send = Submission(server, tmp_path)
        message = send.refused()
        assert "must have a certificate that is trusted" in message
        assert "SSL_CERT_FILE" in message
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send().ok
        assert send.server.url.startswith("https://")


def test_plain_http_in_place_of_tls_is_told(send: Submission) -> None:
    assert "has http://" in send.refused(host=send.server.url.replace("http://", "https://"))


def test_the_token_is_in_one_header_and_nowhere_else(
    send: Submission, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    send.server.token, send.environ = TOKEN, {kfp_client.TOKEN: f"{TOKEN}\n"}
    with caplog.at_level(logging.DEBUG):
        made = send(wait=True)
    assert made.ok
    for request in send.server.requests:
        assert request.headers.pop("authorization") == f"Bearer {TOKEN}"
        assert TOKEN not in repr(request)
    printed = capfd.readouterr()
    assert TOKEN not in caplog.text + send.said + printed.out + printed.err + repr(made)


@pytest.mark.parametrize(
    "how", [{"status": 401}, {"status": 500}, {"drop": True}, {"status": 302, "headers": DEX}]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "experiments"), ("POST", "pipelines/upload_version"), ("POST", "runs")],
)
def test_no_error_shows_the_token(
    send: Submission,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    how: dict[str, Any],
) -> None:
    send.environ = {kfp_client.TOKEN: TOKEN}
    send.server.fail(method, path, **how)
    try:
        with caplog.at_level(logging.INFO):
            send()
    except UserError as error:
        told = [str(error), repr(error), *traceback.format_exception(error)]
        chain: BaseException | None = error
        while chain is not None:
            told += [str(chain), repr(vars(chain))]
            chain = chain.__cause__
        assert TOKEN[:8] not in "".join(told)
    assert TOKEN[:8] not in caplog.text + send.said


def test_a_token_file_that_is_removed_leaves_the_address(send: Submission, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    send.sleep = lambda _: file.unlink()
    message = send.refused(token_file=file, wait=True)
    assert "`token_file` must be readable, got 'No such file" in message
    assert "The run continues: http" in message


@pytest.mark.parametrize(
    ("text", "by_file", "got"),
    [
        ("", True, "nothing"),
        *((" \n", by_file, "nothing") for by_file in (True, False)),
        *(
            (text, by_file, "something else")
            for text in ("Bearer abc", "abc\nX-Evil: 1", "abc\u20ac")
            for by_file in (True, False)
        ),
    ],
)
def test_a_token_unfit_for_a_header_is_not_shown(
    send: Submission, tmp_path: Path, text: str, by_file: bool, got: str
) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    send.environ = {} if by_file else {kfp_client.TOKEN: text}
    with pytest.raises(UserError, match=f"one word of ASCII characters, got '{got}") as error:
        send(token_file=file if by_file else None)
    assert "abc" not in "".join(traceback.format_exception(error.value))
    assert send.server.requests == []


def test_a_token_file_is_read_anew(send: Submission, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    file.chmod(0o600)
    send.server.states = ["RUNNING", "RUNNING", "SUCCEEDED"]

    def renew(seconds: float) -> None:
        file.write_text("second")

    send.sleep = renew
    send.environ = {kfp_client.TOKEN: "ignored"}
    send(token_file=file, wait=True)
    sent = [request.headers["authorization"] for request in send.server.requests]
    assert sent == ["Bearer first"] * (len(sent) - 2) + ["Bearer second"] * 2
    assert "note" not in send.said


@pytest.mark.parametrize(
    ("fields", "rule", "remedy"),
    [
        ({"host": "kfp.example"}, "`host` must be http:// or https://", "Try `host=http"),
        ({"host": "HTTP://a"}, "`host` must be", "Try `host=http"),
        ({"host": "http://a:b"}, "`host` must be", "Try `host=http"),
        ({"host": "http://a/#/runs"}, "without a user, ? or #", "Try `host=http"),
        ({"host": "http://a b"}, "`host` must be", "Try `host=http"),
    ],
)
def test_bad_flags_are_explained(fields: dict[str, Any], rule: str, remedy: str) -> None:
    with pytest.raises(ValueError, match="must") as error:
        SubmitConfig(**{"file": Path("a.yaml"), "host": "http://a", **fields})
    assert rule in str(error.value)
    assert remedy in str(error.value)


@pytest.mark.parametrize("host", ["https://me:hunter2@kfp.example", "me:hunter2@kfp.example"])
def test_a_password_in_the_address_is_not_shown(host: str) -> None:
    with pytest.raises(ValueError, match="without a user") as error:
        SubmitConfig(Path("a.yaml"), host)
    assert "hunter2" not in str(error.value)


def test_flags_make_the_config() -> None:
    parse: Callable[..., SubmitConfig] = lambda *args: flags.parse(  # noqa: E731
        submit.default(), args, prog="plateau submit", description="Submit."
    )
    for host in ("http://a", "http://[::1]:8080", "https://kfp.example/pipeline", "http://a/"):
        words = f"a.yaml --host {host} --wait --max-epochs 3"
        assert parse(*words.split()) == SubmitConfig(Path("a.yaml"), host, wait=True, max_epochs=3)
    for missing in (["a.yaml"], ["--host", "http://a"]):
        with pytest.raises(UsageError):
            parse(*missing)


def test_strategies_are_those_of_the_schedule() -> None:
    ours, *_ = get_args(get_type_hints(SubmitConfig)["strategy"])
    assert get_args(ours) == get_args(get_type_hints(ScheduleConfig)["strategy"])
