"""REST client of a Kubeflow Pipelines server (API v2beta1)."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ReadTimeoutError, SSLError

from trainer_module.util.checks import UserError, require

Json = dict[str, Any]

TOKEN = "PLATEAU_KFP_TOKEN"
"""Environment variable that holds a token."""

CONNECT_SECONDS, READ_SECONDS = 10, 60
BACKOFF_SECONDS = 0.5
RETRIES = 3
"""How often a GET is repeated: 3 seconds of waiting in all."""

PATIENT_RETRIES = 8
"""The same while a run is polled: two minutes, in which a server can be replaced."""

_LONGEST_REASON = 300
_SIGN_IN = f"pass a valid token with `token_file` or in {TOKEN}"
_MAY_EXIST = " It may have been created nevertheless: look before you submit again."
_REMEDIES = {
    302: f"If `host` leads to a login page, {_SIGN_IN}; else name the address it redirects to.",
    400: "Correct what it names; the log of its ml-pipeline pod may say more.",
    401: f"Tokens expire: {_SIGN_IN}.",
    403: "Set `namespace` to one in which the token's owner may create runs.",
    404: "Check `host`: it may need a path such as /pipeline, or lead to another service.",
    409: "It exists already: choose another `version`, or submit again.",
    429: "Try again later.",
}
_SERVER_FAULT = "Try again later, or read the log of its ml-pipeline pod."


class Server:
    """Kubeflow Pipelines server.

    Requests have timeouts and follow no redirects. A request that creates something is sent once.

    Args:
        host: Address of the server.
        token: Returns the bearer token of a request; empty for none.
    """

    def __init__(self, host: str, token: Callable[[], str]) -> None:
        self.host, self.retries = host.rstrip("/"), RETRIES
        self._token = token
        self._pool = urllib3.PoolManager(cert_reqs="CERT_REQUIRED")
        # It warns of each request that it repeats.
        logging.getLogger("urllib3").setLevel(logging.ERROR)

    def get(self, path: str, *required: str, **query: str | None) -> Json:
        """Returns the answer to a GET, which has the required fields; None is no query."""
        return self._request("GET", path, required, {k: v for k, v in query.items() if v})

    def create(self, kind: str, identity: str, **body: Any) -> Json:
        """Creates an item, such as a run, and returns it; None is no field of it.

        Args:
            kind: Collection of the API, such as "runs".
            identity: Field of the id, which the answer has.
            **body: Fields of the item.
        """
        fields = {key: value for key, value in body.items() if value is not None}
        headers = {"content-type": "application/json"}
        content = json.dumps(fields).encode()
        return self._request("POST", kind, (identity,), headers=headers, body=content)

    def find_or_create(self, kind: str, identity: str, name: str, namespace: str | None) -> Json:
        """Returns the item of a name, which is created unless it exists."""
        equals = {"operation": "EQUALS", "key": "name", "string_value": name}
        # The server decodes a filter a second time.
        encoded = quote(json.dumps({"predicates": [equals]}))
        items = self.get(kind, filter=encoded, namespace=namespace).get(kind)
        if not items:
            return self.create(kind, identity, display_name=name, namespace=namespace)
        return _checked(items[0] if isinstance(items, list) else None, (identity,))

    def upload_version(self, pipeline_id: str, version: str, file: Path) -> str:
        """Uploads a compiled pipeline as a new version and returns the version's id."""
        answer = self._request(
            "POST",
            "pipelines/upload_version",
            ("pipeline_version_id",),
            {"name": version, "pipelineid": pipeline_id},
            fields={"uploadfile": (file.name, file.read_bytes())},
        )
        return str(answer["pipeline_version_id"])

    def _request(
        self,
        method: str,
        path: str,
        required: tuple[str, ...],
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> Json:
        retries = urllib3.Retry(
            self.retries,
            other=0,
            status_forcelist=(429, 500, 502, 503, 504),
            backoff_factor=BACKOFF_SECONDS,
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        token = self._token()
        authorization = {"authorization": f"Bearer {token}"} if token else {}
        may_exist = _MAY_EXIST if method == "POST" else ""
        try:
            response = self._pool.request(
                method,
                f"{self.host}/apis/v2beta1/{path}?{urlencode(query or {})}",
                headers={"accept": "application/json", **(headers or {}), **authorization},
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                redirect=False,
                retries=retries if method == "GET" else False,
                **content,
            )
        except HTTPError as error:
            raise self._unanswered(getattr(error, "reason", error), may_exist) from None
        answer = _parsed(response.data)
        if response.status >= 300:
            hint = may_exist if response.status >= 500 else ""
            raise self._refused(response.status, answer, hint)
        return _checked(answer, required, may_exist)

    def _unanswered(self, error: Exception, may_exist: str) -> UserError:
        if isinstance(error, SSLError):
            return UserError(
                f"{self.host} must have a certificate that is trusted",
                str(error),
                "Name the file of the authority's certificates in the variable SSL_CERT_FILE; a "
                f"server without TLS has http://.{may_exist}",
            )
        received = getattr(error.__context__, "strerror", None) or "a broken connection"
        if isinstance(error, ReadTimeoutError):
            received = f"nothing in {READ_SECONDS} seconds"
        # A connection that is refused is one of these too.
        hint = "" if isinstance(error, ConnectTimeoutError) else may_exist
        return UserError(
            f"{self.host} must answer",
            received,
            "Check `host`, which begins with https:// for TLS, and try again later. To reach a "
            "cluster: kubectl port-forward --namespace kubeflow service/ml-pipeline-ui 8080:80."
            f"{hint}",
        )

    def _refused(self, status: int, answer: Any, hint: str) -> UserError:
        fields = answer if isinstance(answer, dict) else {}
        # The upload has a field of its own.
        message = fields.get("message") or fields.get("error_message")
        reason = f" ({clean(str(message))})" if message else ""
        remedy = _REMEDIES.get(status, _SERVER_FAULT)
        return UserError(
            f"{self.host} must accept the request", f"HTTP {status}{reason}", f"{remedy}{hint}"
        )


def read_token(file: Path | None, environ: Mapping[str, str]) -> str:
    """Returns the token in the file, or else in the environment; empty if there is neither.

    Raises:
        UserError: The file cannot be read, or holds more than a token.
    """
    if file is None and not environ.get(TOKEN):
        return ""
    try:
        text = environ[TOKEN] if file is None else file.read_text("utf-8", "replace")
    except OSError as error:
        raise UserError(
            "`token_file` must be readable",
            f"{error.strerror}: {file}",
            "Check its path and permissions.",
        ) from None
    token = text.strip()
    # The text itself is a secret.
    require(
        re.fullmatch(r"[!-~]+", token) is not None,
        "a token must be one word of ASCII characters",
        f"{'something else' if token else 'nothing'} in {file or TOKEN}",
        "Put nothing but the token there, without the word Bearer.",
    )
    return token


def clean(text: str) -> str:
    """Returns a text of the server as one short line."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:_LONGEST_REASON]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _checked(answer: object, required: tuple[str, ...], may_exist: str = "") -> Json:
    """Returns an answer that is an object with the required fields."""
    if not isinstance(answer, dict) or any(answer.get(key) in (None, "") for key in required):
        # The answer itself may hold a secret.
        raise UserError(
            "the server must answer as Kubeflow Pipelines does",
            "something else, such as a login page",
            f"Check `host` and the server's version, or {_SIGN_IN}.{may_exist}",
        )
    return answer
