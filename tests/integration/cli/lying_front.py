"""A front of a real store that lies: about the time, or about having checked a condition of a PUT."""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from tests.testbed.stores import StoreServer

_ENDS_HERE = {"connection", "date", "transfer-encoding", "keep-alive"}


class _Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: StoreServer
    shift_s: float
    ignores: str

    def _pass_on(self) -> None:
        """Ask the store the same, byte for byte as far as it is signed."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "PUT" and self.headers.get(self.ignores):
            self._put_anyway(body)
            return
        upstream = http.client.HTTPConnection(urlsplit(self.store.endpoint).netloc, timeout=10)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            upstream.putheader(name, value)
        upstream.endheaders(body)
        answer = upstream.getresponse()
        data = answer.read()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in _ENDS_HERE}
        self._answer(answer.status, kept, data)
        upstream.close()

    def _put_anyway(self, body: bytes) -> None:
        """What a store does that has never heard of this header."""
        bucket, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        done = self.store.client.put_object(Bucket=bucket, Key=key, Body=body)
        self._answer(200, {"ETag": done["ETag"], "Content-Length": "0"}, b"")

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time() + self.shift_s, usegmt=True))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def lying_front(store: StoreServer, *, shift_s: float = 0.0, ignores: str = "") -> Iterator[str]:
    """The endpoint of a front of `store` that is `shift_s` ahead of its clock and drops one condition of PUTs."""
    kind = type("Front", (_Front,), {"store": store, "shift_s": shift_s, "ignores": ignores})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
