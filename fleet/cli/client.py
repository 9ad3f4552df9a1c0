"""The API of the controller, or of a tenant's server, from the command line, over the standard library: importing a
large client costs more than the request."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from fleet.cli.errors import FAILED, UNAVAILABLE, UNKNOWN, USAGE, CliError, of_problem

DEFAULT_CONTROLLER = "http://127.0.0.1:7070"
STATE_FOLDERS = (Path("/var/lib/fleet"), Path.home() / ".local/state/fleet")
CONNECT_S = 10.0
# A stream says something now and then, however little happens.
STREAM_S = 3600.0


@dataclass(frozen=True, slots=True)
class Target:
    """Who is talked to: where that is and what it takes, what it is called, and what to do when nobody answers there.

    `repeatable`: whatever got no answer there may be asked again as it is.
    """

    url: str
    token: str
    ca: str | None = None
    name: str = "the controller"
    hint: str = "start it with 'fleet serve', or set FLEET_CONTROLLER to where it is"
    repeatable: bool = True


def find_target(config: Path | None) -> Target:
    """From the environment, then the settings file, then the token that `fleet serve` keeps. Raises CliError."""
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text())
        except (OSError, tomllib.TOMLDecodeError) as e:
            raise CliError(f"cannot read the settings file {config}: {e}", USAGE) from None

    def setting(name: str) -> str | None:
        value = os.environ.get(f"FLEET_{name.upper()}") or values.get(name)
        return (",".join(value) if isinstance(value, list) else str(value)) if value else None

    state = setting("state_dir")
    token = setting("token") or _kept_token((Path(state),) if state else STATE_FOLDERS) or setting("token_readonly")
    return Target(
        setting("controller") or DEFAULT_CONTROLLER,
        re.split(r"[,\s]+", (token or "").strip(", "))[0],
        setting("tls_ca"),
    )


def _kept_token(folders: tuple[Path, ...]) -> str:
    for folder in folders:
        try:
            return (folder / "token").read_text().strip()
        except OSError:
            continue
    return ""


class Client:
    """One connection, made anew when it was closed. Raises CliError with what the API said."""

    def __init__(self, target: Target) -> None:
        try:
            parts = urlsplit(target.url)
            port = parts.port
        except ValueError as e:
            raise CliError(f"FLEET_CONTROLLER is not a URL: {target.url}: {e}", USAGE) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CliError(f"FLEET_CONTROLLER is not a URL like http://127.0.0.1:7070: {target.url}", USAGE)
        self.target = target
        self._url = target.url
        self._who = f"{target.name} at {target.url}"
        self._token = target.token
        self._base = parts.path.rstrip("/")
        self._host, self._port = parts.hostname, port
        self._tls = _trust(target.ca) if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._tls is not None:
                made: http.client.HTTPConnection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=timeout_s, context=self._tls
                )
            else:
                made = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
            try:
                made.connect()
            except ssl.SSLCertVerificationError as e:
                raise CliError(
                    f"the certificate of {self._url} is not trusted ({e.verify_message}); set FLEET_TLS_CA to the "
                    "certificate of who signed it",
                    UNAVAILABLE,
                ) from None
            except OSError as e:
                raise CliError(f"{self._who} does not answer ({e}); {self.target.hint}", UNAVAILABLE) from None
            self._connection = made
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        return self._connection

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> http.client.HTTPResponse:
        """One request; the answer is open for reading, of whatever status. `body`: JSON value, or an open file."""
        given = {k: v for k, v in (query or {}).items() if v is not None}
        where = f"{self._base}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        every = {"Authorization": f"Bearer {self._token}", "Accept": "application/json", **(headers or {})}
        data: Any = body
        if body is not None and not hasattr(body, "read"):
            data = json.dumps(body).encode()
            every["Content-Type"] = "application/json"
        connection = self._connect(CONNECT_S)
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        with self._answering(method, path, timeout_s):
            connection.request(method, where, data, every)
            return connection.getresponse()

    @contextmanager
    def _answering(self, method: str, path: str, timeout_s: float) -> Iterator[None]:
        """Say what it means that no answer came, or not all of it. What only reads leaves nothing in doubt."""
        doubt = "; try again"
        if method != "GET":
            doubt = "; the outcome is unknown" + (", it is safe to repeat" if self.target.repeatable else "")
        try:
            yield
        except TimeoutError:
            self.close()
            raise CliError(
                f"{method} {path}: {self._who} gave no answer within {timeout_s:g} s{doubt}", UNKNOWN
            ) from None
        except (OSError, http.client.HTTPException) as e:
            self.close()
            code = UNAVAILABLE if method == "GET" else UNKNOWN
            raise CliError(f"{method} {path}: {self._who} went away ({e}){doubt}", code) from None

    def call(self, method: str, path: str, body: Any = None, *, timeout_s: float = 60.0, **options: Any) -> Any:
        """One request and its JSON. Raises CliError when it is not a success."""
        response = self.send(method, path, body, timeout_s=timeout_s, **options)
        with self._answering(method, path, timeout_s):
            data = response.read()
        if response.will_close:
            self.close()
        try:
            value = json.loads(data) if data else {}
        except ValueError:
            raise CliError(
                f"{method} {path}: {self._who} does not answer as it should ({response.status}, not JSON); "
                f"{self.target.hint}",
                FAILED,
            ) from None
        if response.status >= 400:
            raise of_problem(response.status, value if isinstance(value, dict) else {}, self.target.name)
        return value

    def lines(self, path: str, **options: Any) -> Iterator[str]:
        """A streamed answer, line by line, until it ends."""
        response = self.send("GET", path, timeout_s=STREAM_S, **options)
        with self._answering("GET", path, STREAM_S):
            if response.status >= 400:
                raise of_problem(response.status, _problem(response.read()), self.target.name)
            while line := response.readline():
                yield line.decode(errors="replace").rstrip("\n")

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _problem(data: bytes) -> dict[str, Any]:
    """The problem document that an answer is, empty if it is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _trust(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as e:
        raise CliError(f"FLEET_TLS_CA: cannot use {ca}: {e}", USAGE) from None


def tenant_path(tenant: str, *rest: str) -> str:
    """`/v1/tenants/<t>/…`, each part quoted."""
    return "/".join(["/v1/tenants", quote(tenant, safe=""), *(quote(r, safe="") for r in rest)])
