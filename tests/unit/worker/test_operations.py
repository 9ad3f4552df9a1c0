"""Routing and the reading of queries, without a server."""

import pytest

from node.worker.operations import Operation, Parameter, Routes
from node.worker.problem import Problem


async def answer(request):
    raise AssertionError("routing calls no handler")


def whole(text):
    if not text.isdigit():
        raise ValueError("expected a number")
    return int(text)


COUNT = Parameter("count", {"type": "integer"}, whole, "How many.", 10)
LIST = Operation("list", "GET", "/v1/things", "", answer, {}, (COUNT,))
MAKE = Operation("make", "POST", "/v1/things", "", answer, {})
READ = Operation("read", "GET", "/v1/things/{id}", "", answer, {})
POKE = Operation("poke", "POST", "/v1/things/{id}/pokes/{name}", "", answer, {})
ROUTES = Routes((LIST, MAKE, READ, POKE))


@pytest.mark.parametrize(
    ("method", "path", "operation", "parameters"),
    [
        ("GET", "/v1/things", LIST, {}),
        ("HEAD", "/v1/things", LIST, {}),
        ("POST", "/v1/things", MAKE, {}),
        ("GET", "/v1/things/a%2Fb", READ, {"id": "a/b"}),
        ("POST", "/v1/things/a/pokes/caf%C3%A9", POKE, {"id": "a", "name": "café"}),
    ],
)
def test_an_operation_is_found_by_method_and_path(method, path, operation, parameters):
    assert ROUTES.find(method, path) == (operation, parameters)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/things/", "/v1/things/a/", "/v1/things//pokes/x", "//v1/things", "v1"]
)
def test_what_is_not_there_is_404(path):
    with pytest.raises(Problem) as raised:
        ROUTES.find("GET", path)
    assert raised.value.status == 404


def test_a_wrong_method_says_which_are_right():
    with pytest.raises(Problem) as raised:
        ROUTES.find("DELETE", "/v1/things")
    assert (raised.value.status, raised.value.headers) == (405, (("allow", "GET, POST, HEAD"),))


def test_a_segment_that_is_not_utf8_is_named():
    with pytest.raises(Problem) as raised:
        ROUTES.find("GET", "/v1/things/%FF")
    assert (raised.value.status, raised.value.field) == (422, "id")


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/things", "/v1/other"])
def test_everything_under_the_apis_roots_is_its_own(path):
    assert ROUTES.owns(path)


@pytest.mark.parametrize("path", ["", "/", "/v2", "/things/v1", "v1"])
def test_the_rest_is_the_tenants(path):
    assert not ROUTES.owns(path)


def test_parameters_that_are_not_given_have_their_defaults():
    assert LIST.parse_query(b"") == {"count": 10}
    assert LIST.parse_query(b"count=3") == {"count": 3}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (b"count=x", "count"),
        (b"count=", "count"),
        (b"count=1&count=1", "count"),
        (b"other=1", "other"),
        (b"count=%FF", "query"),
        (b"&".join([b"a=1"] * 40), "query"),
    ],
)
def test_what_is_wrong_with_a_query_is_named(query, field):
    with pytest.raises(Problem) as raised:
        LIST.parse_query(query)
    assert (raised.value.status, raised.value.field) == (422, field)
