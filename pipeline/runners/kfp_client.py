"""The Kubeflow Pipelines client with timeouts, without redirects, and with errors one can act on.

A request that creates something is sent once.
"""

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

TOKEN = "PLATEAU_KFP_TOKEN"
"""Environment variable that holds a token."""

CONNECT_SECONDS, READ_SECONDS = 10, 60
BACKOFF_SECONDS = 0.5
RETRIES = 3
"""How often a GET is repeated: 3 seconds of waiting in all."""

PATIENT_RETRIES = 8
"""The same while a run is polled: two minutes, in which a server can be replaced."""

_LONGEST_SHOWN = 300
_SIGN_IN = f"give a valid token with --token-file or in {TOKEN}"
_MAY_EXIST = " It may have been created nevertheless: look before you submit again."
_REMEDIES = {
    400: "Correct what it names; the log of its ml-pipeline pod may say more.",
    401: f"Tokens expire: {_SIGN_IN}.",
    403: "Give --namespace one in which the token's owner may create runs.",
    404: "Check --host: it may need a path such as /pipeline, or lead to another service.",
    409: "It exists already: choose another --version, or submit again.",
    429: "Try again later.",
}
_SERVER_FAULT = "Try again later, or read the log of its ml-pipeline pod."


class SubmitError(RuntimeError):
    """A pipeline cannot be submitted, or its run cannot be watched."""


class Transport:
    """Sends the requests of the client, in place of its urllib3 pool.

    Attributes:
        retries: How often a GET is repeated if there is no answer, or one that may change.
    """

    def __init__(self, pool: Any, host: str, token: Callable[[], str]) -> None:
        self._pool, self._host, self._token = pool, host, token
        self.retries = RETRIES

    def request(self, method: str, url: str, *, headers: dict[str, str], **options: Any) -> Any:
        """Returns a successful answer in JSON, or raises SubmitError."""
        import urllib3

        retries = urllib3.Retry(
            self.retries,
            other=0,
            status_forcelist=(429, 500, 502, 503, 504),
            backoff_factor=BACKOFF_SECONDS,
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        token = self._token()
        headers["authorization"] = f"Bearer {token}"
        if not token:
            del headers["authorization"]
        options |= {
            "headers": headers,
            "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            "redirect": False,
            "retries": retries if method == "GET" else False,
        }
        may_exist = _MAY_EXIST if method == "POST" else ""
        try:
            answer = self._pool.request(method, url, **options)
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", error)
            # A connection that is refused is one of these too.
            unsent = isinstance(cause, urllib3.exceptions.ConnectTimeoutError)
            hint = "" if unsent else may_exist
            raise SubmitError(f"{self._unanswered(cause)}{hint}") from None
        if answer.status >= 300:
            hint = may_exist if answer.status >= 500 else ""
            raise SubmitError(f"{self._refused(answer, token)}{hint}")
        if _parsed(answer.data) is None:
            raise SubmitError(
                f"{self._host} must answer in JSON, got something else, such as a login page. "
                f"Check --host, or {_SIGN_IN}.{may_exist}"
            )
        return answer

    def _unanswered(self, error: Exception) -> str:
        from urllib3.exceptions import ReadTimeoutError, SSLError

        if isinstance(error, SSLError):
            return (
                f"{self._host} must have a certificate that is trusted, got {error}. Name the "
                "authority's certificates with --ca-cert; a server without TLS has http://."
            )
        if isinstance(error, ReadTimeoutError):
            got = f"nothing in {READ_SECONDS} seconds"
        else:
            got = getattr(error.__context__, "strerror", None) or "a broken connection"
        return (
            f"{self._host} must answer, got {got}. Check --host, which begins with https:// for "
            "TLS, and try again later. To reach a cluster: "
            "kubectl port-forward --namespace kubeflow service/ml-pipeline-ui 8080:80."
        )

    def _refused(self, answer: Any, token: str) -> str:
        if answer.status < 400:
            # The rest of the address may hold a secret.
            there = urlsplit(urljoin(self._host, answer.headers.get("Location", "")))
            return (
                f"{self._host} must answer itself, got a redirect to "
                f"{there.scheme}://{there.hostname}. If that is the server, name it with --host; "
                f"if it is a login page, {_SIGN_IN}."
            )
        remedy = _REMEDIES.get(answer.status, _SERVER_FAULT)
        told = _parsed(answer.data)
        if not isinstance(told, dict):
            told = {}
        # The upload has a field of its own.
        message = told.get("message") or told.get("error_message")
        reason = f" ({clean(str(message), token)})" if message else ""
        return f"{self._host} must accept the request, got HTTP {answer.status}{reason}. {remedy}"


def connect(host: str, token: Callable[[], str], ca_cert: Path | None) -> tuple[Any, Transport]:
    """Returns a client, and what it sends its requests through.

    Args:
        host: Address of the server.
        token: Returns the bearer token of a request; empty if there is none.
        ca_cert: Certificates to trust instead of the usual ones.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kfp.client import Client

        class IsolatedClient(Client):  # type: ignore[misc]
            """Reads no settings, such as cookies of another server, from the home folder."""

            def _load_context_setting_or_default(self) -> None:
                # The server's word for none; else the client asks the server for one.
                self._context_setting = {"namespace": "-"}

        client = IsolatedClient(
            host=host,
            # Any token keeps the client from signing in with a Google account.
            existing_token="-",  # noqa: S106
            ssl_ca_cert=str(ca_cert) if ca_cert else None,
        )
    # It warns of each request that it repeats.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    rest = client._run_api.api_client.rest_client
    rest.pool_manager = Transport(rest.pool_manager, host, token)
    return client, rest.pool_manager


def call(method: Callable[..., Any], *required: str, **arguments: Any) -> Any:
    """Returns the answer to a method of the client, without what the method prints.

    Args:
        method: Method of the client.
        *required: Fields that the answer must have.
        **arguments: Arguments of the method.

    Raises:
        SubmitError: There is no answer, or it lacks a field.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = method(**arguments)
    except (ValueError, TypeError, AttributeError, LookupError):
        # What these say may quote the whole answer.
        answer = None
    if answer is None or any(getattr(answer, field, None) in (None, "") for field in required):
        raise SubmitError(
            "the server must answer as Kubeflow Pipelines does, got something else. Check --host "
            "and the server's version, and look what was created before you submit again."
        )
    return answer


def read_token(file: Path | None, environ: Mapping[str, str]) -> str:
    """Returns the token in the file, or else in the environment; empty if there is neither.

    Args:
        file: File that holds nothing but the token.
        environ: Environment variables.

    Raises:
        SubmitError: The file cannot be read, or the token is none.
    """
    if file is None and not environ.get(TOKEN):
        return ""
    try:
        text = environ[TOKEN] if file is None else file.read_text("utf-8", "replace")
    except OSError as error:
        raise SubmitError(
            f"--token-file must be readable, got {error.strerror} for {file}. "
            "Check its path and permissions."
        ) from None
    token = text.strip()
    if re.fullmatch(r"[!-~]+", token) is None:
        raise SubmitError(
            "a token must be one word of ASCII characters, got "
            f"{'something else' if token else 'nothing'} from {file or TOKEN}. Put nothing but "
            "the token there, without the word Bearer."
        )
    return token


def clean(text: str, token: str) -> str:
    """Returns a text of the server as one short line, without the token."""
    text = text.replace(token, "(token)") if token else text
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]} ..."


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
