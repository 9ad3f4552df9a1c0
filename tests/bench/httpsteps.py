"""Steps a second of a tenant with an rpo of 0, over HTTP through the gateway: each step confirmed by the bucket."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.figures import Figure
from tests.bench.stage import stage

APP = Path(__file__).parent / "ten"
STEPS = 10
AT_ONCE = (1, 64)
SECONDS, WARM_UP_S = 15.0, 3.0


def figures(*, quick: bool) -> Iterator[Figure]:
    """One at a time and 64; the tenant has a whole CPU."""
    seconds = 4.0 if quick else SECONDS
    with stage() as s:
        s.box.json("up", "steps", "--app", str(APP), "--rpo", "0", "--cpus", "1")
        s.answered("steps")
        for at_once in AT_ONCE:
            ended = _runs(f"{s.box.gateway}/t/steps", at_once, seconds)
            rate = STEPS * len(ended) / seconds
            yield Figure(f"rpo 0, over HTTP, {at_once} at a time", rate, "steps/s", raw={"runs": len(ended)})


def one_run(connection: http.client.HTTPConnection, prefix: str) -> None:
    """Start a run and wait for its end. Raises AssertionError when it is not the right one."""
    body = json.dumps({"workflow": "ten", "input": 0, "id": secrets.token_hex(8)}).encode()
    connection.request("POST", f"{prefix}/v1/runs", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    started = json.loads(answer.read())
    assert answer.status == 201, started
    while True:
        connection.request("GET", f"{prefix}/v1/runs/{started['id']}/result?wait=30s")
        answer = connection.getresponse()
        told = json.loads(answer.read())
        if answer.status != 202:
            break
    assert answer.status == 200, told
    assert told["result"] == STEPS, told


def _runs(base: str, at_once: int, seconds: float) -> list[float]:
    """When the runs ended that ended in the time, after a warm-up."""
    parts = urlsplit(base)
    begin = time.perf_counter() + WARM_UP_S
    ended: list[float] = []
    wrong: list[BaseException] = []

    def client() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            while time.perf_counter() < begin + seconds:
                one_run(connection, parts.path)
                ended.append(time.perf_counter())
        except BaseException as error:  # noqa: BLE001 - told by who started this thread
            wrong.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    return [at for at in ended if begin <= at < begin + seconds]
