"""What the API says before it can serve, and while it stops."""

import asyncio

import pytest

from node.worker.api import Api
from node.worker.http import Request
from node.worker.metrics import RequestCounts
from node.worker.problem import Problem
from node.worker.table import operations
from node.workflow import Engine

ALWAYS = {"healthz", "metrics", "openapi"}


@pytest.fixture
def api(tmp_path):
    async def build():
        return Api(Engine(tmp_path / "workflow.db", ()), RequestCounts(), None, asyncio.Event())

    return asyncio.run(build())


def ask(operation):
    path = dict.fromkeys(("id", "name", "schedule", "queue"), "a")
    return asyncio.run(operation.handle(Request(path, operation.parse_query(b""), {})))


def test_until_the_engine_has_recovered_runs_are_503_and_may_be_asked_for_again(api):
    for operation in operations(api):
        if operation.name not in ALWAYS:
            with pytest.raises(Problem) as raised:
                ask(operation)
            assert (raised.value.status, raised.value.retryable) == (503, True), operation.name


def test_meanwhile_the_process_is_alive_and_can_be_measured(api):
    answers = {operation.name: ask(operation).status for operation in operations(api) if operation.name in ALWAYS}
    assert answers == dict.fromkeys(("healthz", "metrics", "openapi"), 200)


def test_while_it_stops_it_is_not_ready(api):
    api.ready = True
    api._stopping.set()
    readyz = next(operation for operation in operations(api) if operation.name == "readyz")
    with pytest.raises(Problem) as raised:
        ask(readyz)
    assert (raised.value.status, raised.value.kind) == (503, "stopping")


def test_the_document_describes_every_operation(api):
    from node.worker.openapi import openapi

    table = operations(api)
    document = openapi(table, ("checkout",))
    described = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert described == {operation.name for operation in table}
    assert all("summary" in operation for methods in document["paths"].values() for operation in methods.values())
