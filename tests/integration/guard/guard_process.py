"""The real guard on a real bucket and cgroup, with a stand-in for the agent."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from node import log
from node.agent.custody.fleetfile import AnotherFleet
from node.agent.custody.guard import Guard, Patience, Place, main
from node.agent.custody.lease import Machine
from node.agent.ports import Freezer
from node.bucket.records import Capacity
from node.bucket.s3 import Location, S3Store
from tests.integration.guard.leash import tie

HERE = Path(__file__).parent


def spawn_agent() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, str(HERE / "stand_in_agent.py")], stdin=subprocess.DEVNULL, start_new_session=True
    )


async def compose() -> Guard:
    config = json.loads(os.environ["GUARD_CONFIG"])
    group = Path(config["group"])
    v2 = config["v2"]
    return Guard(
        Machine(config["node"], "http://127.0.0.1:1", Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1), {}, "test"),
        config["mode"],
        lambda: S3Store(
            Location(config["bucket"], endpoint=config["endpoint"]), connect_timeout_s=0.5, read_timeout_s=0.5
        ),
        Freezer(
            group,
            group / ("cgroup.freeze" if v2 else "freezer.state"),
            *((b"1", b"0") if v2 else (b"FROZEN", b"THAWED")),
            v2=v2,
        ),
        Place(Path(config["run"]), Path(config["state"])),
        spawn_agent,
        patience=Patience(
            agent_silence_s=config["silence_s"], agent_fence_s=config["fence_s"], release_s=config["release_s"]
        ),
    )


if __name__ == "__main__":
    tie(int(os.environ["TEST_PID"]))
    log.configure("guard", "debug")
    try:
        sys.exit(
            asyncio.run(main(compose, Path(json.loads(os.environ["GUARD_CONFIG"])["run"]), heir="heir" in sys.argv))
        )
    except AnotherFleet as e:
        sys.stderr.write(f"{e}\n")
        sys.exit(2)
