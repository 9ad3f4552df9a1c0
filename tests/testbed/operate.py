"""A fleet in a user's hands: its commands as they are typed, its API, its tenants, and waiting in bounded time."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from node.bucket.s3 import Credentials, Location, S3Store
from tests.testbed.process import FLEET, wait_until


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed with -o json."""
        return json.loads(self.out)


class Operated:
    """A fleet that somebody started: `env` is what its users' commands run with, `folder` where they run."""

    env: dict[str, str]
    folder: Path
    controller: str
    gateway: str

    def log(self) -> str:
        """The end of its logs, for a failure."""
        raise NotImplementedError

    def token(self) -> str:
        """The fleet's token."""
        return self.env["FLEET_TOKEN"]

    def objects(self, prefix: str) -> list[str]:
        """Keys in the bucket under a prefix of the fleet's."""
        name, _, top = self.env["FLEET_BUCKET"].removeprefix("s3://").partition("/")
        store = S3Store(
            Location(name, f"{top}/" if top else "", self.env["FLEET_S3_ENDPOINT"], self.env["FLEET_S3_REGION"]),
            credentials=Credentials(self.env["AWS_ACCESS_KEY_ID"], self.env["AWS_SECRET_ACCESS_KEY"]),
        )
        try:
            return [entry.key for entry in store.list(prefix)]
        finally:
            store.close()

    def fleet(self, *words: str, check: bool = True, stdin: str | None = None, **env: str) -> Done:
        """A command as a user types it."""
        done = subprocess.run(
            [FLEET, *words], env={**self.env, **env}, capture_output=True, text=True, check=False, timeout=280,
            input=stdin, cwd=self.folder,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"fleet {' '.join(words)} → {done.returncode}\n{done.stderr}\n{self.log()}"
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def json(self, *words: str) -> Any:
        """A command's JSON."""
        return self.fleet(*words, "-o", "json").json

    def status(self, tenant: str) -> dict[str, Any]:
        """The tenant as the controller sees it."""
        return dict(self.json("status", tenant))

    def clock(self) -> float:
        """Unix seconds, by the clock that reports use."""
        return time.time()

    def request(
        self, method: str, url: str, body: bytes | None = None, timeout_s: float = 30, **headers: str
    ) -> tuple[int, Any]:
        """One HTTP request; answers (status, JSON or bytes)."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
        try:
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            # A body that is too large is answered before all of it is sent.
            with contextlib.suppress(BrokenPipeError):
                connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            data = answer.read()
        except http.client.HTTPException as e:
            raise ConnectionError(str(e)) from e
        finally:
            connection.close()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(data)
        return answer.status, data

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """The controller's API with the fleet's token."""
        data = None if body is None else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/json", **headers}
        return self.request(method, f"{self.controller}{path}", data, 30, **given)

    def tenant(self, name: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """A tenant through the gateway."""
        return self.request(method, f"{self.gateway}/t/{name}{path}", body, 30, **headers)

    def wait_state(self, tenant: str, *states: str, timeout_s: float = 90) -> dict[str, Any]:
        """Wait until a tenant is in one of these states."""
        found: dict[str, Any] = {}

        def there() -> bool:
            try:
                status, body = self.api("GET", f"/v1/tenants/{tenant}")
            except OSError:
                status, body = 0, {}  # the controller itself may be the one that was killed
            found.clear()
            found.update(body if status == 200 else {"state": f"HTTP {status}"})
            return found["state"] in states

        try:
            wait_until(there, f"{tenant} {' or '.join(states)}", timeout_s=timeout_s, every_s=0.1)
        except AssertionError as e:
            raise AssertionError(f"{e}; it is {found}\n{self.log()}") from None
        return found

    def eventually(self, ask: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
        """Ask until it holds; what can't be asked right now does not hold."""

        def safe() -> bool:
            try:
                return ask()
            except (OSError, AssertionError):
                return False

        try:
            wait_until(safe, what, timeout_s=timeout_s, every_s=0.1)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.log()}") from None
