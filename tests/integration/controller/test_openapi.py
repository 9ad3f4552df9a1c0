"""The API keeps what its own OpenAPI document says, whatever is sent to it."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from tests.integration.controller.conftest import TOKEN

load_all_checks()

# Streams do not end by themselves, and waiting takes as long as is asked for.
QUICK = {"wait": "0", "follow": "false"}
PUT = {"spec": {"image": "server:1", "databases": ["app.db"]}}


def _schema(fleet):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return schemathesis.openapi.from_url(f"{fleet.served.url}/openapi.json", headers=headers)


def _operations(fleet):
    return [result.ok() for result in _schema(fleet).get_all_operations()]


def test_the_document_names_every_route(fleet):
    found = {f"{o.method.upper()} {o.path}" for o in _operations(fleet)}
    assert {
        "PUT /v1/tenants/{tenant}", "GET /v1/tenants/{tenant}", "DELETE /v1/tenants/{tenant}", "GET /v1/tenants",
        "POST /v1/tenants/{tenant}/restore", "POST /v1/tenants/{tenant}/stop", "POST /v1/tenants/{tenant}/restart",
        "POST /v1/tenants/{tenant}/gc", "GET /v1/nodes/{node}", "POST /v1/nodes/{node}/cordon",
        "POST /v1/nodes/{node}/uncordon", "POST /v1/nodes/{node}/drain", "GET /v1/tenants/{tenant}/points",
        "GET /v1/tenants/{tenant}/logs", "GET /v1/tenants/{tenant}/token",
        "PUT /v1/apps/{sha256}", "GET /v1/apps/{sha256}", "GET /v1/nodes", "GET /v1/events", "GET /v1/sd",
        "POST /v1/gc", "GET /healthz", "GET /readyz", "GET /metrics",
    } == found  # fmt: skip


def _left_out():
    """Which specs fit together ("exactly one of app and image") is more than a schema can say."""
    return CHECKS.get_by_names(["positive_data_acceptance"])


@pytest.mark.timeout(280)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_finds_a_failure(fleet, mode):
    fleet.client.put("/v1/tenants/acme", params={"wait": "10s"}, json=PUT).raise_for_status()
    counted = 0
    statuses = set()
    for operation in _operations(fleet):

        @settings(
            max_examples=10, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def call(case):
            nonlocal counted
            counted += 1
            query = dict(case.query or {})
            query.update({name: value for name, value in QUICK.items() if name in query or name == "follow"})
            case.query = query
            headers = {"Authorization": f"Bearer {TOKEN}"}
            statuses.add(case.call_and_validate(headers=headers, excluded_checks=_left_out(), timeout=20).status_code)

        try:
            call()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, operation.label
    assert counted > 100
    assert statuses >= ({200, 422} if mode is GenerationMode.POSITIVE else {422}), statuses
