"""The worker's side of the node's socket against the node's own side of it."""

import asyncio
import os

from node.agent.door import Door as NodesDoor
from node.agent.door import DoorHandlers, NotConfirmed
from node.worker.door import Door


def test_both_sides_of_the_door_understand_each_other(tmp_path):
    answers = [NotConfirmed("the store is away", reason="store_unreachable"), None, None]

    async def durable():
        error = answers.pop(0)
        if error is not None:
            raise error

    async def wake_at(at):
        raise AssertionError("not asked for")

    async def scenario():
        nodes = NodesDoor(tmp_path, os.getuid(), DoorHandlers(durable, wake_at, dict))
        await nodes.open()
        door = Door(tmp_path / "agent.sock")
        async with asyncio.timeout(30):
            await door.durable()
            assert (door.counts.confirmed, door.counts.unknown) == (1, 1)
            await nodes.close()
            await nodes.open()
            await door.durable()
        assert door.counts.confirmed == 2
        await door.close()
        await nodes.close()

    asyncio.run(scenario())
    assert answers == []
