"""The node is told when the tenant wants to run next: once for each change, and again until it heard."""

import asyncio

from node.worker.door import DoorError
from node.worker.waker import Waker

BOUND_S = 60


class Plan:
    """An engine as the waker sees it."""

    def __init__(self):
        self.due = None
        self.then = None

    def on_plan(self, then):
        self.then = then

    def next_due(self):
        return self.due

    def change(self, due):
        self.due = due
        self.then()


class Node:
    """A door that keeps what it is told, and refuses as often as asked."""

    def __init__(self, refusals=0):
        self.told = []
        self.refusals = refusals
        self.heard = asyncio.Event()

    async def wake_at(self, at):
        if self.refusals:
            self.refusals -= 1
            raise DoorError("not now")
        self.told.append(at)
        self.heard.set()

    async def hears(self, *expected):
        async with asyncio.timeout(BOUND_S):
            while self.told != list(expected):
                self.heard.clear()
                await self.heard.wait()


def play(main):
    asyncio.run(main())


def test_it_is_told_at_first_and_on_each_change():
    async def main():
        plan, node = Plan(), Node()
        waker = Waker(plan, node, settling_s=0)
        waker.open()
        await node.hears(None)
        plan.change(100.0)
        await node.hears(None, 100.0)
        plan.change(100.0)
        plan.change(50.0)
        await node.hears(None, 100.0, 50.0)
        await waker.close()

    play(main)


def test_many_changes_at_once_are_one_call():
    async def main():
        plan, node = Plan(), Node()
        waker = Waker(plan, node, settling_s=0)
        waker.open()
        for n in range(1000):
            plan.change(float(n))
        await node.hears(999.0)
        await waker.close()

    play(main)


def test_a_node_that_does_not_hear_is_told_again():
    async def main():
        plan, node = Plan(), Node(refusals=3)
        waker = Waker(plan, node, settling_s=0)
        waker.open()
        plan.change(7.0)
        await node.hears(7.0)
        await waker.close()

    play(main)


def test_what_changes_during_a_call_is_told_after_it():
    async def main():
        plan, node = Plan(), Node()
        waker = Waker(plan, node, settling_s=0)
        real = node.wake_at

        async def slow(at):
            await asyncio.sleep(0)
            if at is None:
                plan.change(3.0)
            await real(at)

        node.wake_at = slow
        waker.open()
        await node.hears(None, 3.0)
        await waker.close()

    play(main)
