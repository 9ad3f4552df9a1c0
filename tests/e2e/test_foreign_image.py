"""Any image can be a tenant: a server from PyPI that is not ours goes through up, kill, loss and restore."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.box import Box
from tests.testbed.engine import Engine

IMAGE = "foreign/datasette:test"
HERE = Path(__file__).parent / "foreign"


@pytest.fixture(scope="module")
def datasette(engine: Engine, images: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its image, built in this run's engine from the locked wheels of the tests."""
    context = tmp_path_factory.mktemp("foreign")
    shutil.copytree(HERE, context, dirs_exist_ok=True)
    # What this run's own environment has: no network is needed.
    site = Path(next(p for p in sys.path if p.endswith("site-packages")))
    shutil.copytree(site, context / "site", ignore=not_needed)
    client = engine.client(timeout_s=300)
    client.images.build(path=str(context), tag=IMAGE, rm=True)
    client.close()
    return IMAGE


def not_needed(folder: str, names: list[str]) -> set[str]:
    """Big packages that Datasette does not import."""
    heavy = ("boto", "docker", "mypy", "ruff", "litestream", "seaweedfs", "hypothesis", "schemathesis", "__pycache__")
    return {n for n in names if n.startswith(heavy) or n.endswith((".pth", ".so.debug"))}


def post(box: Box, tenant: str, query: str, **values: str) -> tuple[int, Any]:
    """One write through the gateway."""
    body = "&".join(f"{k}={v}" for k, v in values.items()).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    return box.tenant(tenant, "POST", f"/notes/{query}.json?_json=1", body, **kind)


def count(box: Box, tenant: str) -> int:
    """Rows, asked of the server."""
    status, body = box.tenant(tenant, "GET", "/notes/count.json?_shape=array")
    assert status == 200, body
    return int(body[0]["n"])


def up(box: Box, tenant: str, image: str) -> dict[str, Any]:
    """Bring it up and make its table."""
    view = box.json(
        "up", tenant, "--image", image, "--db", "notes.db", "--port", "8001", "--health", "/-/versions.json",
        "--memory", "256m",
    )  # fmt: skip
    assert post(box, tenant, "begin")[0] == 200
    return dict(view)


def confirmed(box: Box, tenant: str) -> None:
    """Wait until the bucket has everything that was written so far."""
    at = box.clock()
    box.eventually(
        lambda: (s := box.status(tenant))["lag_s"] == 0 and (s["last_confirmed"] or 0) > at, "replication caught up"
    )


def test_a_server_of_somebody_else_survives_its_death_and_its_nodes(box: Box, datasette: str) -> None:
    view = up(box, "notes", datasette)
    assert view["state"] == "running"
    for n in range(50):
        assert post(box, "notes", "add", text=f"note-{n}")[0] == 200
    box.kill_container("notes")
    box.eventually(lambda: count(box, "notes") == 50, "all rows after the server's death")
    confirmed(box, "notes")
    box.lose_node("notes")
    box.eventually(lambda: count(box, "notes") == 50, "all rows from the bucket", timeout_s=120)
    assert box.wait_state("notes", "running")["epoch"] == 2
    assert post(box, "notes", "add", text="after")[0] == 200
    assert count(box, "notes") == 51


def test_no_row_is_missing_from_a_restore_made_under_load(box: Box, datasette: str) -> None:
    """Default autocheckpoint, many WAL turns, a sync every second: the trap of a rolled back read transaction."""
    up(box, "load", datasette)
    written = 0
    text = "x" * 20_000
    failed: list[Any] = []

    def write() -> None:
        nonlocal written
        for n in range(900):
            status, body = post(box, "load", "add", text=f"{n}-{text}")
            if status != 200:
                failed.append(body)
                return
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    writer.join()
    assert not failed
    down = box.json("down", "load")
    assert down["state"] == "released"
    view = box.json("restore", "load", "--as", "drill")
    assert view["state"] == "running"
    assert count(box, "drill") == written


def test_an_image_that_promises_nothing_may_not_have_rpo_0(box: Box, datasette: str) -> None:
    done = box.fleet(
        "up", "eager", "--image", datasette, "--db", "notes.db", "--port", "8001", "--rpo", "0", check=False
    )
    assert done.code == 2
    assert "calls_durable" in done.err
    assert box.fleet("status", "eager", check=False).code == 3
