"""Just enough of HTTP/1.1 to pass messages on byte for byte, and of S3 to know what a request asks for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Head:
    """The head of a request or an answer: its bytes, and its headers by lower-case name."""

    raw: bytes
    first: str
    headers: dict[str, str]

    def header(self, name: str) -> str:
        """A header's value, empty if there is none."""
        return self.headers.get(name, "")

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.first.split(" ", 2)[1])

    @property
    def length(self) -> int | None:
        """Bytes of the body, where it is said."""
        said = self.header("content-length")
        return int(said) if said else None

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in self.header("transfer-encoding").lower()

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this message."""
        return "close" in self.header("connection").lower()


@dataclass(frozen=True)
class Request:
    """What an S3 request asks: `method` is HTTP's, or LIST, or DELETE also for many; `key` is without the bucket."""

    method: str
    key: str


def request_of(head: Head) -> Request:
    """Read a request's first line (the bucket in the path)."""
    method, target, _ = head.first.split(" ", 2)
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    _, _, key = url.path.lstrip("/").partition("/")
    if "list-type" in query or (method == "GET" and not key and "prefix" in query):
        return Request("LIST", query.get("prefix", [""])[0])
    if method == "POST" and "delete" in query:
        return Request("DELETE", unquote(key))
    return Request(method, unquote(key))


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next message's head; None when the connection has ended."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Head(raw, first, headers)


async def pass_body(
    head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, *, until_end: bool = False
) -> int:
    """Pass a message's body on, or throw it away without a writer; answers its bytes."""
    passed = 0
    if head.chunked:
        passed = await _pass_chunks(reader, writer)
    elif until_end:
        while block := await reader.read(_BLOCK):
            passed += await _put(writer, block)
    else:
        left = head.length or 0
        while left:
            block = await reader.read(min(left, _BLOCK))
            if not block:
                raise EOFError
            left -= len(block)
            passed += await _put(writer, block)
    if writer is not None:
        await writer.drain()
    return passed


async def _pass_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> int:
    passed = 0
    while True:
        line = await reader.readuntil(b"\r\n")
        passed += await _put(writer, line)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        passed += await _put(writer, await reader.readexactly(size + 2))
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":  # trailers
        passed += await _put(writer, line)
    return passed + await _put(writer, line)


async def _put(writer: asyncio.StreamWriter | None, block: bytes) -> int:
    if writer is not None:
        writer.write(block)
        await writer.drain()
    return len(block)
