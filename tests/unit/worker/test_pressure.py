"""What is too much is refused before it costs anything, and only as long as it is too much."""

import json

import pytest

from node.worker.pressure import Pressure
from node.worker.problem import Problem
from tests.unit.worker.test_site import Exchange


def refused(pressure, load="write", body_bytes=0):
    with pytest.raises(Problem) as raised, pressure.taken(load, body_bytes):
        pass
    assert (raised.value.status, raised.value.retryable) == (429, True)
    assert ("retry-after", "1") in raised.value.headers


def test_as_many_requests_of_a_kind_as_its_limit_are_under_way():
    pressure = Pressure(lambda: 0, {"write": 1})
    with pressure.taken("write", 0):
        refused(pressure)
        with pressure.taken("read", 0), pressure.taken("read", 0):
            pass
    with pressure.taken("write", 0):
        pass
    assert pressure.refused == {"write": 1}


def test_bodies_are_bounded_together_and_a_single_one_always_fits():
    pressure = Pressure(lambda: 0, bodies_bytes=100)
    with pressure.taken("write", 1000):
        refused(pressure, body_bytes=1)
    with pressure.taken("write", 60), pressure.taken("write", 40):
        refused(pressure, body_bytes=1)
    assert pressure.refused == {"bodies": 2}


def test_what_failed_is_no_longer_under_way():
    pressure = Pressure(lambda: 0, {"write": 1}, 100)
    for _ in range(3):
        with pytest.raises(KeyError), pressure.taken("write", 100):
            raise KeyError
    with pressure.taken("write", 100):
        pass


def test_no_run_is_started_while_too_many_activities_wait():
    backlog = 10
    pressure = Pressure(lambda: backlog, max_backlog=10)
    with pytest.raises(Problem) as raised:
        pressure.check_backlog()
    assert raised.value.status == 429
    backlog = 9
    pressure.check_backlog()


def test_a_refusal_is_a_problem_document_and_comes_before_the_body_is_read():
    exchange = Exchange(pressure=Pressure(lambda: 0, {"read": 0}))
    status, body = exchange.ask("POST", "/v1/echo", b"no JSON at all")
    assert (status, json.loads(body)["type"]) == (429, "urn:tenantry:problem:too-many-requests")
    headers = dict(exchange.sent[0]["headers"])
    assert headers[b"retry-after"] == b"1"
