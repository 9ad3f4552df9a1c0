"""The worker as an ASGI application: bodies, the tenant beside the API, and what goes wrong on the way."""

import asyncio
import json

import pytest

from node.worker import http
from node.worker.http import json_response
from node.worker.metrics import RequestCounts, render, request_families
from node.worker.operations import Operation, Routes
from node.worker.pressure import Pressure
from node.worker.problem import Problem
from node.worker.site import Site


async def echo(request):
    return json_response(200, request.body)


async def bug(request):
    raise RuntimeError("secret detail")


ROUTES = Routes(
    (
        Operation("echo", "POST", "/v1/echo", "", echo, {}, body={}),
        Operation("maybe", "POST", "/v1/maybe", "", echo, {}, body={}, body_required=False),
        Operation("bug", "GET", "/v1/bug", "", bug, {}),
    )
)


class Exchange:
    """One request to a site, and everything it sent back."""

    def __init__(self, tenant=None, pressure=None):
        self.counts = RequestCounts()
        self.pressure = pressure or Pressure(lambda: 0)
        self.site = Site(ROUTES, self.counts, tenant, self.pressure)
        self.sent = []

    def ask(self, method, path, *chunks, headers=((b"content-type", b"application/json"),), messages=None):
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": list(headers),
        }
        incoming = messages or [
            {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1}
            for index, chunk in enumerate(chunks or (b"",))
        ]

        async def receive():
            return incoming.pop(0)

        async def send(message):
            self.sent.append(message)

        asyncio.run(self.site(scope, receive, send))
        return self.sent[0]["status"], b"".join(message.get("body", b"") for message in self.sent[1:])


def test_a_body_may_come_in_pieces():
    assert Exchange().ask("POST", "/v1/echo", b'{"a"', b": 1}") == (200, b'{"a":1}')


def test_a_body_that_may_be_missing_is_null_without_a_media_type():
    assert Exchange().ask("POST", "/v1/maybe", headers=()) == (200, b"null")


@pytest.mark.parametrize(
    "headers", [((b"content-length", b"1048577"),), ()], ids=["told by its length", "seen while it comes"]
)
def test_a_body_over_the_bound_is_413(headers):
    status, body = Exchange().ask("POST", "/v1/echo", *[b"x" * 65536] * 17, headers=headers)
    assert (status, json.loads(body)["retryable"]) == (413, False)


def test_a_body_of_exactly_the_bound_is_read():
    content = b'"' + b"x" * (http.BODY_MAX_BYTES - 2) + b'"'
    assert Exchange().ask("POST", "/v1/echo", content)[0] == 200


def test_a_body_that_never_ends_is_408(monkeypatch):
    monkeypatch.setattr(http, "BODY_TIMEOUT_S", 0.0)
    exchange = Exchange()

    async def never(*_):
        await asyncio.get_running_loop().create_future()

    async def scenario():
        scope = {
            "type": "http",
            "headers": [],
            "method": "POST",
            "path": "/v1/echo",
            "raw_path": b"/v1/echo",
            "query_string": b"",
        }

        async def send(message):
            exchange.sent.append(message)

        await exchange.site(scope, never, send)

    asyncio.run(scenario())
    assert exchange.sent[0]["status"] == 408


def test_a_body_that_is_cut_runs_no_handler():
    status, body = Exchange().ask(
        "POST",
        "/v1/echo",
        messages=[{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}],
    )
    assert (status, json.loads(body)["type"]) == (400, "urn:tenantry:problem:body-cut")


@pytest.mark.parametrize(
    "text", [b"NaN", b"-Infinity", b"1e999", b'"\\ud800"', b'{"\\udfff": 1}', b"\xff", b"{}x", b"9" * 5000]
)
def test_what_json_does_not_have_is_400(text):
    assert Exchange().ask("POST", "/v1/echo", text)[0] == 400


def test_a_pair_of_surrogates_is_text():
    assert Exchange().ask("POST", "/v1/echo", b'"\\ud83d\\ude00"')[0] == 200


def test_a_bug_of_ours_is_500_and_tells_nothing_of_itself():
    status, body = Exchange().ask("GET", "/v1/bug")
    assert status == 500
    assert b"secret" not in body


async def tenant_answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def test_the_tenant_answers_what_is_not_the_apis():
    assert Exchange(tenant_answer).ask("GET", "/search") == (200, b"/search")
    assert Exchange(tenant_answer).ask("GET", "/v1/search")[0] == 404


def test_without_a_tenants_routes_everything_else_is_404():
    assert Exchange().ask("GET", "/search")[0] == 404


def test_a_problem_of_the_tenant_is_answered_as_such():
    async def tenant(scope, receive, send):
        raise Problem(409, "taken", "the name is taken")

    status, body = Exchange(tenant).ask("GET", "/x")
    assert (status, json.loads(body)["detail"]) == (409, "the name is taken")


def test_a_bug_of_the_tenant_after_half_an_answer_cuts_the_connection():
    async def tenant(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        Exchange(tenant).ask("GET", "/x")


def test_a_bug_of_the_tenant_after_its_answer_changes_nothing_for_the_client():
    async def tenant(scope, receive, send):
        await tenant_answer(scope, receive, send)
        raise RuntimeError("afterwards")

    assert Exchange(tenant).ask("GET", "/x") == (200, b"/x")


def test_a_client_that_goes_away_while_it_sends_is_no_bug_of_the_tenant(caplog):
    async def tenant(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        raise RuntimeError("as frameworks do")

    exchange = Exchange(tenant)
    with pytest.raises(IndexError):  # there is no answer to look at
        exchange.ask(
            "PUT",
            "/x",
            messages=[{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}],
        )
    assert exchange.counts.total == {("app", "PUT", 499): 1}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_requests_are_counted_by_operation_and_methods_nobody_knows_as_other():
    exchange = Exchange(tenant_answer)
    for number in range(100):
        exchange.ask(f"M{number}", "/x")
        exchange.sent.clear()
    assert exchange.counts.total == {("app", "other", 200): 100}


def test_labels_are_escaped():
    counts = RequestCounts()
    counts.add('a"b\\c\nd', "GET", 200, 0.5)
    text = render(request_families(counts))
    assert 'worker_requests_total{operation="a\\"b\\\\c\\nd",method="GET",status="200"} 1' in text.splitlines()
