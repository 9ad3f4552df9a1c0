"""The page under /ui: a few files that look at runs through the worker's own API. Read when asked for, not kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

from node.worker.http import Response

_FOLDER = Path(__file__).with_name("ui")
_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = (
    # It loads and asks nothing but what this worker serves, and nobody else's page can frame it.
    ("content-security-policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-cache"),
)  # fmt: skip


def is_page(path: str) -> bool:
    """Whether a path belongs to the page."""
    return path == "/ui" or path.startswith("/ui/")


async def page(method: str, path: str) -> Response | None:
    """The file at a path of the page, or None when there is none. Links are relative: a gateway adds a prefix."""
    if method not in ("GET", "HEAD"):
        return None
    if path == "/ui":
        return Response(308, b"", "text/plain", (("location", "ui/"),))
    name = path.removeprefix("/ui/") or "index.html"
    return await asyncio.to_thread(_file, name)


def _file(name: str) -> Response | None:
    # Compared with what is there, so that no name can lead out of the folder.
    for file in _FOLDER.iterdir():
        if file.name == name and file.suffix in _TYPES:
            return Response(200, file.read_bytes(), _TYPES[file.suffix], _HEADERS)
    return None
