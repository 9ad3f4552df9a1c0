"""Temporal's development server on a SQLite file, with one worker in this process; `default` is the only durability."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

sys.path.insert(0, str(Path(__file__).parent))
from loop import STEPS, arguments, measure

READY_S = 60


@activity.defn
async def one(n: int) -> int:
    return n + 1


@workflow.defn
class Ten:
    @workflow.run
    async def run(self, n: int) -> int:
        for _ in range(STEPS):
            n = await workflow.execute_activity(one, n, start_to_close_timeout=timedelta(seconds=30))
        return n


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def connected(address: str) -> Client:
    """A client, once the server answers."""
    async with asyncio.timeout(READY_S):
        while True:
            try:
                return await Client.connect(address)
            except (RPCError, RuntimeError):
                await asyncio.sleep(0.2)


def started(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """The server, on a file in that folder."""
    program = Path(sys.executable).with_name("temporal")
    options = ["--headless", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "never"]
    return subprocess.Popen(
        [program, "server", "start-dev", *options, "--db-filename", str(folder / "temporal.db")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def main() -> None:
    folder, _, at_once, seconds = arguments()
    port = free_port()
    server = started(folder, port)
    try:
        client = await connected(f"127.0.0.1:{port}")
        runner = UnsandboxedWorkflowRunner()  # the faster one
        async with Worker(client, task_queue="bench", workflows=[Ten], activities=[one], workflow_runner=runner):

            async def run(run_id: str) -> None:
                assert await client.execute_workflow(Ten.run, 0, id=run_id, task_queue="bench") == STEPS

            await measure(run, at_once, seconds)
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    asyncio.run(main())
