"""What measurements run on: the product on a private engine and a real MinIO, and the tenants that it is given."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from node.bucket.spec import TenantSpec
from tests.e2e.box import Box, running
from tests.testbed.engine import Engine, running_engine
from tests.testbed.faulty import FaultyProxy, faulty_proxy
from tests.testbed.stores import StoreServer, minio_binary, running_minio

APP = Path(__file__).parent / "rows"
DATABASE = "rows.db"
FIRST_ANSWER_S = 120.0
PATIENCE_S = 600.0
_PAUSE_S = 0.002

T = TypeVar("T")


@dataclass
class Stage:
    """A running fleet of one machine. `spec` is that of a tenant of `rows`, its app in the bucket and on the node.

    `store_port` is where the fleet finds its store: MinIO, or `proxy` in front of it, which counts.
    """

    box: Box
    engine: Engine
    minio: StoreServer
    bucket: str
    proxy: FaultyProxy | None
    spec: TenantSpec = field(init=False)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def prepare(self) -> None:
        """A first tenant, down and purged again: what happens once on a machine has happened."""
        words = ("--app", str(APP), "--db", DATABASE, "--disk", "64m")
        view = self.box.json("up", "first", *words)
        self.spec = TenantSpec.model_validate_json(json.dumps(view["spec"]))
        self.down("first")
        self.purge("first")

    def names(self, word: str, count: int) -> list[str]:
        """Names of tenants that never were."""
        return [f"{word}-{next(self._numbers)}" for _ in range(count)]

    def changed(self, **changes: Any) -> TenantSpec:
        """The spec with some fields changed."""
        return TenantSpec.model_validate({**self.spec.model_dump(), **changes})

    def up(self, tenant: str, spec: TenantSpec | None = None) -> dict[str, Any]:
        """PUT, carried out when this answers. Raises AssertionError unless it runs."""
        body = {"spec": (spec or self.spec).model_dump(mode="json"), "secrets": {}}
        return self._call("PUT", f"/v1/tenants/{tenant}?wait=120s", body, "running")

    def down(self, tenant: str) -> dict[str, Any]:
        """Stop, carried out when this answers. Raises AssertionError unless it is released."""
        return self._call("POST", f"/v1/tenants/{tenant}/stop?wait=120s", None, "released")

    def purge(self, tenant: str) -> None:
        """Forget the tenant and its data; nobody waits for that."""
        status, body = self.box.api("DELETE", f"/v1/tenants/{tenant}?now=true")
        assert status in (200, 202), body

    def answered(self, tenant: str) -> None:
        """Wait for the tenant's first good answer through the gateway."""
        wait_answer(f"{self.box.gateway}/t/{tenant}/healthz")

    def volume(self, tenant: str) -> Path:
        """Its folders on the node."""
        return self.box.state / "t" / tenant

    def lose_volume(self, tenant: str) -> None:
        """As a machine that never had the tenant."""
        self.box.unmount(self.volume(tenant))
        shutil.rmtree(self.volume(tenant))

    def _call(self, method: str, path: str, body: Any, state: str) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        token = f"Bearer {self.box.token()}"
        url = f"{self.box.controller}{path}"
        headers = {"Authorization": token, "Content-Type": "application/json"}
        status, answer = self.box.request(method, url, data, 150, **headers)
        if status == 202:  # that long a wait is not granted: what is large takes minutes on a slow machine
            answer = self.box.wait_state(answer["tenant"], state, timeout_s=PATIENCE_S)
            status = 200
        assert status == 200, answer
        assert answer["state"] == state, answer
        return dict(answer)


@contextlib.contextmanager
def stage(*, counted: bool = False, **settings: str) -> Iterator[Stage]:
    """A fleet that is ready to be measured; `counted`: everything it asks of its store passes a proxy that counts."""
    binary = minio_binary()
    assert binary is not None, "no MinIO here: ./tests/run builds it"
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="fleet-bench-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        engine = stack.enter_context(running_engine())
        engine.build_images()
        minio = stack.enter_context(running_minio(folder / "store", binary))
        bucket = minio.new_bucket()
        environment = minio.environment(bucket, "fleet")
        proxy = None
        if counted:
            proxy = stack.enter_context(faulty_proxy(urlsplit(minio.endpoint).port or 0))
            environment["FLEET_S3_ENDPOINT"] = proxy.endpoint
        made = Box(folder / "box", engine.host, environment, **settings)
        stack.callback(made.unmount, folder)  # or the tenants' disks would outlive the fleet
        box = stack.enter_context(running(made))
        staged = Stage(box, engine, minio, bucket, proxy)
        staged.prepare()
        yield staged


def wait_answer(url: str) -> None:
    """Ask until the answer is 200. Raises AssertionError with the last one after FIRST_ANSWER_S."""
    until = time.monotonic() + FIRST_ANSWER_S
    parts = urlsplit(url)
    last = "nothing"
    while time.monotonic() < until:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        try:
            connection.request("GET", parts.path)
            answer = connection.getresponse()
            last = f"{answer.status} {answer.read()[:200]!r}"
            if answer.status == 200:
                return
        except (OSError, http.client.HTTPException) as e:
            last = str(e)
        finally:
            connection.close()
        time.sleep(_PAUSE_S)
    raise AssertionError(f"{url} does not answer 200 but {last}")


def timed(work: Callable[[], object]) -> float:
    """How many seconds it took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def side_by_side(work: Callable[[T], object], items: list[T], at_once: int) -> None:
    """Do it for all items, so many at once. Raises what any of them raised."""
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, items))
