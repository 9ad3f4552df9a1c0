"""The embedded store: who may use it, where it listens, and that it outlives its own death."""

from __future__ import annotations

import http.client
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import store as embedded
from fleet.store import EmbeddedStore
from node.bucket.errors import Denied
from node.bucket.probe import probe
from node.bucket.s3 import Credentials, Location, S3Store
from tests.testbed.process import Process

pytestmark = pytest.mark.store


@pytest.fixture
def base_port() -> int:
    """The first of ten ports in a row that are free now, below those that the kernel gives out."""
    for _ in range(100):
        port = random.randrange(15_000, 31_000)
        if not _listening() & set(range(port, port + 10)):
            return port
    raise AssertionError("no ten ports in a row")


@pytest.fixture
def running(tmp_path: Path, base_port: int) -> Iterator[tuple[EmbeddedStore, Process]]:
    """An embedded store of this test."""
    store = embedded.embedded(tmp_path, base_port)
    embedded.prepare(store)
    process = Process(
        embedded.command(store),
        log=embedded.log_of(store),
        environment=embedded.environment(store, {}),
        cwd=tmp_path,
    )
    process.start(lambda: embedded.ready(store))
    yield store, process
    process.kill()


def adapter(store: EmbeddedStore, secret: str | None = None) -> S3Store:
    return S3Store(
        Location(embedded.BUCKET, endpoint=store.endpoint),
        credentials=Credentials(store.access_key, secret or store.secret_key),
    )


def _listening(pid: int | None = None) -> set[int]:
    """Ports that somebody (or one process) listens on at any address."""
    return {port for _, port in _sockets(pid)}


def _sockets(pid: int | None = None) -> set[tuple[str, int]]:
    """(hexadecimal address, port) of what listens."""
    inodes = None
    if pid is not None:
        links = (str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir())
        inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            part = line.split()
            if part[3] == "0A" and (inodes is None or part[9] in inodes):
                address, port = part[1].split(":")
                found.add((address, int(port, 16)))
    return found


def test_it_keeps_what_ownership_rests_on(running: tuple[EmbeddedStore, Process]) -> None:
    store, _ = running
    assert probe(adapter(store)).seconds > 0


def test_it_listens_on_loopback_alone_and_on_its_ten_ports_alone(running: tuple[EmbeddedStore, Process]) -> None:
    store, process = running
    sockets = _sockets(process.pid)
    assert {address for address, _ in sockets} == {"0100007F"}
    assert {port for _, port in sockets} <= set(range(store.port, store.port + 10))
    assert store.port in {port for _, port in sockets}


def test_strangers_and_wrong_secrets_are_refused(running: tuple[EmbeddedStore, Process]) -> None:
    store, _ = running
    adapter(store).create("a", b"1")
    with pytest.raises(Denied):
        adapter(store, "wrong").get("a")
    stranger = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)
    stranger.request("GET", f"/{embedded.BUCKET}/a")
    assert stranger.getresponse().status == 403
    stranger.close()


def test_what_was_written_is_there_after_it_was_killed(running: tuple[EmbeddedStore, Process]) -> None:
    store, process = running
    client = adapter(store)
    etags = {f"key-{n}": client.create(f"key-{n}", str(n).encode() * 1000) for n in range(50)}
    process.kill()
    process.start(lambda: embedded.ready(store))
    for key, etag in etags.items():
        found = client.get(key)
        assert (found.etag, found.body) == (etag, key.removeprefix("key-").encode() * 1000)
    client.replace("key-0", b"new", etags["key-0"])
    client.close()


def test_its_credentials_stay_the_same_and_are_its_owners_alone(tmp_path: Path) -> None:
    first = embedded.embedded(tmp_path, 1)
    assert embedded.embedded(tmp_path, 1) == first
    assert (tmp_path / "store.json").stat().st_mode & 0o777 == 0o600
