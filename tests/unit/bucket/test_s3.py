"""The adapter without a store: where things are, what answers mean, what is never shown."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from node.bucket.errors import Ambiguous, BucketError, Busy, Conflict, Denied, Missing, NoBucket, Unsupported
from node.bucket.s3 import Credentials, Location, S3Store, _moment
from node.bucket.s3_errors import translate
from node.settings import Settings

KEY = Credentials("access", "very-secret", "very-secret-token")


@pytest.mark.parametrize(
    ("bucket", "name", "prefix"),
    [
        ("s3://fleet", "fleet", ""),
        ("s3://fleet/", "fleet", ""),
        ("s3://fleet/prod", "fleet", "prod/"),
        ("s3://fleet/prod/eu/", "fleet", "prod/eu/"),
        ("s3://my.bucket/a//b", "my.bucket", "a/b/"),
    ],
)
def test_a_location_is_read_from_the_settings(bucket: str, name: str, prefix: str) -> None:
    location = Location.of(Settings(bucket=bucket, s3_endpoint="http://127.0.0.1:9000", s3_region="eu-west-1"))
    assert location == Location(name, prefix, "http://127.0.0.1:9000", "eu-west-1")


def test_without_a_bucket_the_setting_is_named() -> None:
    with pytest.raises(ValueError, match="FLEET_BUCKET"):
        Location.of(Settings())


def test_an_endpoint_of_ones_own_means_the_bucket_in_the_path() -> None:
    assert Location("b", endpoint="http://127.0.0.1:9000").path_style
    assert not Location("b").path_style


def test_secrets_are_not_printed() -> None:
    shown = f"{KEY} {KEY!r} {Location('b', 'p/', 'http://h')}"
    assert "very-secret" not in shown
    assert "access" in shown
    assert "s3://b/p/ at http://h" in shown


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "very-secret-token")
    assert Location("b").credentials() == KEY


def answered(status: int, code: str) -> ClientError:
    response = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")  # type: ignore[arg-type]  # the part of an answer that counts


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (412, "PreconditionFailed", Conflict),
        (412, "412", Conflict),
        (409, "ConditionalRequestConflict", Busy),
        (409, "OperationAborted", Busy),
        (404, "NoSuchKey", Missing),
        (404, "404", Missing),
        (404, "NoSuchBucket", NoBucket),
        (301, "PermanentRedirect", NoBucket),
        (403, "AccessDenied", Denied),
        (403, "403", Denied),
        (403, "SignatureDoesNotMatch", Denied),
        (403, "RequestTimeTooSkewed", Denied),
        (400, "ExpiredToken", Denied),
        (401, "Unauthorized", Denied),
        (429, "TooManyRequests", Busy),
        (503, "SlowDown", Busy),
        (503, "ServiceUnavailable", Ambiguous),
        (503, "503", Ambiguous),
        (500, "InternalError", Ambiguous),
        (502, "502", Ambiguous),
        (504, "504", Ambiguous),
        (400, "RequestTimeout", Ambiguous),
        (501, "NotImplemented", Unsupported),
        (400, "InvalidArgument", BucketError),
        (0, "", Ambiguous),
    ],
)
def test_every_answer_has_one_meaning(status: int, code: str, kind: type[BucketError]) -> None:
    error = translate(answered(status, code), "create", "owners/acme.json", "s3://b/")
    assert type(error) is kind
    assert error.key == "owners/acme.json"
    assert "create owners/acme.json in s3://b/" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeoutError(endpoint_url="http://h"),
        ReadTimeoutError(endpoint_url="http://h"),
        EndpointConnectionError(endpoint_url="http://h"),
    ],
)
def test_no_answer_is_ambiguous(error: Exception) -> None:
    assert type(translate(error, "get", "k", "s3://b/")) is Ambiguous


def test_no_credentials_are_denied_with_what_to_set() -> None:
    error = translate(NoCredentialsError(), "get", "k", "s3://b/")
    assert type(error) is Denied
    assert "AWS_ACCESS_KEY_ID" in str(error)


class Listener:
    """A server of loopback that counts connections and treats each as `answer` says."""

    def __init__(self, answer: bytes | None) -> None:
        self.connections = 0
        self._answer = answer
        self._held: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            if self._answer is None:
                self._held.append(peer)
                continue
            with peer:
                peer.recv(65536)
                peer.sendall(self._answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)
        for peer in self._held:
            peer.close()


@pytest.fixture
def listening() -> Iterator[list[Listener]]:
    started: list[Listener] = []
    yield started
    for one in started:
        one.close()


def test_a_store_that_never_answers_is_ambiguous_after_one_request(listening: list[Listener]) -> None:
    silent = Listener(None)
    listening.append(silent)
    store = S3Store(Location("b", endpoint=silent.url), credentials=KEY, read_timeout_s=0.05)
    with pytest.raises(Ambiguous):
        store.create("k", b"1")
    assert silent.connections == 1


def test_a_lost_reply_is_ambiguous_after_one_request(listening: list[Listener]) -> None:
    dropping = Listener(b"")
    listening.append(dropping)
    with pytest.raises(Ambiguous):
        S3Store(Location("b", endpoint=dropping.url), credentials=KEY).create("k", b"1")
    assert dropping.connections == 1


def test_a_failing_store_is_ambiguous_after_one_request(listening: list[Listener]) -> None:
    failing = Listener(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    listening.append(failing)
    with pytest.raises(Ambiguous, match="500"):
        S3Store(Location("b", endpoint=failing.url), credentials=KEY).create("k", b"1")
    assert failing.connections == 1


def test_a_read_on_a_connection_that_the_store_had_closed_is_sent_once_more(listening: list[Listener]) -> None:
    """And no more than that: what is no answer twice is ambiguous. Nothing is ever written twice by itself."""
    dropping = Listener(b"")
    listening.append(dropping)
    store = S3Store(Location("b", endpoint=dropping.url), credentials=KEY)
    reads: list[Callable[[str], object]] = [store.get, lambda key: list(store.list(key)), store.head]
    for count, read in enumerate(reads, 1):
        with pytest.raises(Ambiguous):
            read("k")
        assert dropping.connections == 2 * count
    failing = Listener(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    listening.append(failing)
    with pytest.raises(Ambiguous):
        S3Store(Location("b", endpoint=failing.url), credentials=KEY).get("k")
    assert failing.connections == 1


def test_an_answer_that_ends_early_is_ambiguous(listening: list[Listener]) -> None:
    short = Listener(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "x"\r\nConnection: close\r\n\r\nhalf')
    listening.append(short)
    with pytest.raises(Ambiguous):
        S3Store(Location("b", endpoint=short.url), credentials=KEY).get("k")


def test_nobody_listening_is_ambiguous() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Ambiguous, match="no answer"):
            S3Store(Location("b", endpoint=url), credentials=KEY).get("k")


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T10:36:53.000Z",
        "2026-11-21T10:36:53Z",
        "2026-11-21T10:36:53",
        "2026-11-21T11:36:53+01:00",
        "Sat, 21 Nov 2026 10:36:53 GMT",
        1795257413,
        "1795257413",
    ],
)
def test_a_time_in_an_answer_is_read_whatever_its_form(text: object) -> None:
    assert _moment(text).timestamp() == 1795257413
