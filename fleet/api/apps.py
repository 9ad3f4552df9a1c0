"""`/v1/apps`: app archives by their SHA-256. Streamed to disk, checked, then put to the bucket."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from fleet import apps
from fleet.api.problems import RESPONSES
from fleet.api.tenants import P
from fleet.api.view import AppView
from fleet.bucket import translated
from fleet.errors import Invalid, NotFound, TooLarge
from node.bucket import keys

router = APIRouter(responses=RESPONSES, tags=["apps"])

Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


@router.get("/v1/apps/{sha256}", operation_id="getApp")
async def get_app(sha256: Sha256, p: P) -> AppView:
    """Whether an app is in the bucket, so that it need not be sent again."""
    with translated(None):
        size = await p.bucket.exists(keys.app(sha256))
    if size is None:
        raise NotFound(f"the app {sha256} is not in the bucket")
    return AppView(sha256=sha256, size_bytes=size)


@router.put(
    "/v1/apps/{sha256}",
    operation_id="putApp",
    status_code=201,
    responses={200: {"model": AppView, "description": "It was there already."}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_app(sha256: Sha256, p: P, request: Request, response: Response) -> AppView:
    """Store a gzipped tar archive of at most 256 MiB whose SHA-256 this is."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > apps.MAX_BYTES:
        raise TooLarge(f"an app is at most {apps.MAX_BYTES >> 20} MiB; this one is {int(length) >> 20} MiB")
    with tempfile.TemporaryDirectory(prefix="fleet-app-", dir=p.uploads) as folder:
        path = FilePath(folder) / "app.tar.gz"
        size = await _receive(request, path, sha256)
        await asyncio.to_thread(apps.check, path)
        if await p.shelf.put(sha256, path, size):
            response.status_code = 200
    return AppView(sha256=sha256, size_bytes=size)


async def _receive(request: Request, path: FilePath, sha256: str) -> int:
    """Write the body to a file; answers its size in bytes. Raises TooLarge, Invalid when it is something else."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        async for chunk in request.stream():
            size += len(chunk)
            if size > apps.MAX_BYTES:
                raise TooLarge(f"an app is at most {apps.MAX_BYTES >> 20} MiB")
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != sha256:
        raise Invalid(f"the body's SHA-256 is {digest.hexdigest()}, not {sha256}: it was cut or changed on its way")
    return size
