"""A stand-in for the agent: holds the lock, speaks the link, settles and releases; writes what it hears to a file."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from node.agent.custody.link import GuardLink
from tests.integration.guard.leash import tie


async def main() -> None:
    tie(int(os.environ["TEST_PID"]))
    folder = Path(os.environ["STAND_IN_DIR"])
    if (folder / "never_connect").exists():
        return
    heard = (folder / "heard").open("a", buffering=1)

    def start_guard() -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, *json.loads(os.environ["STAND_IN_GUARD"])], start_new_session=True)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    link = await GuardLink.connect(Path(os.environ["STAND_IN_RUN"]), start_guard)
    heard.write(json.dumps({"pid": os.getpid(), "started": True}) + "\n")
    async for view in link.changes():
        heard.write(
            json.dumps({"pid": os.getpid(), "session": view.session, "state": view.state, "reason": view.reason}) + "\n"
        )
        if view.state == "settling" and not (folder / "never_settle").exists():
            await link.settled(view.session)
        if view.state == "stopping" and not (folder / "never_release").exists():
            await link.released()


asyncio.run(main())
