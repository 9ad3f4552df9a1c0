"""Any node's gateway reaches any tenant: found by the records, passed on once, followed when it moves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.gateway.nodes import Nodes, StandIn, several
from tests.integration.gateway.parts import Upstream, upstream
from tests.integration.gateway.test_routing import headers_of


@pytest.fixture
def nodes(folder: Path) -> Iterator[Nodes]:
    if shutil.which("haproxy") is None or os.geteuid() != 0:
        pytest.skip("needs haproxy and root: apt-get install haproxy")
    folder.mkdir()
    with several(folder) as nodes:
        yield nodes


@pytest.fixture
def here(nodes: Nodes) -> StandIn:
    return nodes.at("here")


@pytest.fixture
def there(nodes: Nodes) -> StandIn:
    return nodes.at("there")


@pytest.fixture
def acme() -> Iterator[Upstream]:
    with upstream("acme") as server:
        yield server


def test_a_tenant_of_another_node_answers_by_path_and_by_host(here: StandIn, there: StandIn, acme: Upstream) -> None:
    there.has(acme)
    seen = here.client.get("/t/acme/some//thing/?q=%2F&x").json()
    assert (seen["name"], seen["path"], seen["query"]) == ("acme", "/some//thing/", "q=%2F&x")
    assert headers_of(seen)["x-forwarded-prefix"] == "/t/acme"
    assert headers_of(seen)["x-forwarded-for"] == "127.0.0.1"
    assert headers_of(seen)["x-forwarded-host"] == f"127.0.0.1:{here.port}"
    seen = here.client.get("/t/beta/x", headers={"Host": "acme.fleet.test"}).json()
    assert (seen["name"], seen["path"]) == ("acme", "/t/beta/x")
    assert "x-forwarded-prefix" not in headers_of(seen)
    assert not any(name.startswith("x-fleet") for name in headers_of(seen))
    assert here.client.get("/t/acme").status_code == 308
