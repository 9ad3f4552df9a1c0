"""The API against its own OpenAPI document."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ECHO = """
from typing import Any
from node.workflow import Context, workflow

@workflow
async def echo(ctx: Context, value: Any = None) -> Any:
    return value
"""


@pytest.mark.parametrize("examples", [1, pytest.param(12, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
def test_schemathesis_finds_no_failure(worker, tmp_path, examples):
    worker.app = tmp_path / "app"
    worker.app.mkdir()
    (worker.app / "app.py").write_text(ECHO)
    worker.start()
    location = f"http://127.0.0.1:{worker.client.base_url.port}/openapi.json"
    options = [
        "--checks",
        "all",
        "--max-examples",
        str(examples),
        "--seed",
        "7",
        "--continue-on-failure",
        "--generation-database",
        "none",
    ]
    program = Path(sys.executable).parent / "schemathesis"
    found = subprocess.run(
        [program, "run", location, *options],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=1000 if examples > 1 else 280,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    worker.until(lambda: worker.get("/readyz").status_code == 200)
