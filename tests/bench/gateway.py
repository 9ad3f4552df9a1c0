"""The gateway against the same server asked directly: wrk on one upstream, in turns, the median of the rounds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from node.agent.gateway.config import GatewayConfig
from node.agent.gateway.haproxy import HaproxyGateway
from node.agent.ports import Route
from node.agent.runtime.gateway_container import GatewayContainer
from tests.bench.figures import Figure, quantile
from tests.integration.gateway.parts import UID, free_port
from tests.testbed.engine import running_engine

ROUNDS = 5
CONNECTIONS = 16
SECONDS = 3
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
# The worker's own server (uvicorn on uvloop and httptools) with nothing behind it: what a gateway costs shows most.
UPSTREAM = textwrap.dedent(
    """
    import sys, uvicorn
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
            await send({"type": "http.response.body", "body": b"hello"})
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False,
                loop="uvloop", http="httptools")
    """
)


def run(*, quick: bool = False) -> Iterator[Figure]:
    """Requests a second as a share of the direct ones, and what the median answer takes longer."""
    with serving() as direct, gateway(direct) as through:
        pairs = [(wrk(direct), wrk(through)) for _ in range(1 if quick else ROUNDS)]
        alone = [(wrk(direct, 1), wrk(through, 1)) for _ in range(1 if quick else ROUNDS)]
    ratios = [there / here for (here, _), (there, _) in pairs]
    more_ms = [(there - here) * 1e3 for (_, here), (_, there) in pairs]
    raw = {
        "direct_per_s": [round(here[0]) for here, _ in pairs],
        "gateway_per_s": [round(there[0]) for _, there in pairs],
        "connections": CONNECTIONS,
    }
    yield Figure("requests through the gateway / direct", quantile(ratios, 0.5), "", 0.7, "at least", raw)
    p50 = {"direct_p50_ms": [here[1] * 1e3 for here, _ in pairs], "gateway_p50_ms": [t[1] * 1e3 for _, t in pairs]}
    yield Figure("p50 through the gateway, more than direct", quantile(more_ms, 0.5), "ms", 0.3, "at most", p50)
    # Sixteen connections that never pause keep every core busy: their p50 is 16 / requests a second, not the way's.
    single = [(there - here) * 1e3 for (_, here), (_, there) in alone]
    yield Figure("the same with one connection", quantile(single, 0.5), "ms", raw={"all_ms": single})


def wrk(url: str, connections: int = CONNECTIONS) -> tuple[float, float]:
    """Requests a second and the median answer's seconds. Raises on any answer that is not 2xx."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    if rate is None or median is None:
        raise RuntimeError(said)
    return float(rate[1]), float(median[1]) * UNITS[median[2]]


@contextmanager
def serving() -> Iterator[str]:
    """The upstream's URL."""
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", UPSTREAM, str(port)])
    try:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(200):
            try:
                httpx.get(url)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                break
        yield url
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def gateway(upstream: str) -> Iterator[str]:
    """The URL of a tenant behind the real gateway's container."""
    parent = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    parent.chmod(0o755)
    folder, port = parent / "g", free_port()
    with running_engine() as engine:
        engine.build_images()
        client = engine.client()
        process = GatewayContainer(client, f"bench-{uuid.uuid4().hex[:8]}", "fleet/gateway:latest", folder, UID)
        front = HaproxyGateway(GatewayConfig(f"127.0.0.1:{port}", "fleet.test"), process, folder, UID)
        try:
            front.ensure()
            front.route("acme", Route(httpx.URL(upstream).netloc.decode()))
            yield f"http://127.0.0.1:{port}/t/acme/"
        finally:
            process.stop()
            client.close()
            shutil.rmtree(parent)
