"""What a start does without: every tenant would pay for it at each wake, in CPU of its own and in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

# By what would bring it back: uvicorn's package, the tenant's own routes, and the rarely asked parts of the API.
NOT_AT_START = (
    "click", "configparser", "email", "logging.config", "multiprocessing", "uvicorn._types", "uvicorn.main",
    "uvicorn.middleware", "h11", "websockets", "starlette", "anyio", "http.client", "http.server",
    "node.worker.follow", "node.worker.openapi", "node.worker.plans",
)  # fmt: skip


def test_a_start_imports_nothing_that_most_tenants_never_use() -> None:
    # -S: what the development environment itself imports is none of a worker's.
    folders = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    code = f"import sys; sys.path[:0] = {folders!r}; import node.worker.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert "node.worker.app" in found
    assert sorted(found & set(NOT_AT_START)) == []
